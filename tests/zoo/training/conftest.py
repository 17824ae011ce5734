"""A data set of small pictures in every layout, without a network."""

import io
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from support.pictures import encoded, picture

CLASSES = ("cat", "dog", "T-shirt/top")


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` reaches no network, and writes its copies where the test's other files are."""
    import datasets.config
    import huggingface_hub.constants

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def write_folders(tmp_path: Path) -> Callable[..., Path]:
    """`write_folders(split=numbers, ...)`: `SPLIT/CLASS/NUMBER.png`; the class is the number modulo
    three.
    """

    def write(**splits: Iterable[int]) -> Path:
        for split, numbers in splits.items():
            for number in numbers:
                path = tmp_path / "folders" / split / "abc"[number % 3] / f"{number:03}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encoded(picture(number)))
        return tmp_path / "folders"

    return write


@pytest.fixture
def write_parquet(tmp_path: Path) -> Callable[..., Path]:
    """`write_parquet(file=rows, ...)` with rows of (encoded image, label), as the Hub has it."""

    def write(
        files: dict[str, list[tuple[bytes | None, int | None]]],
        *,
        names: tuple[str, ...] = CLASSES,
        columns: tuple[str, str] = ("img", "fine_label"),
    ) -> Path:
        from datasets import ClassLabel, Dataset, Features
        from datasets import Image as ImageColumn

        (tmp_path / "parquet").mkdir(exist_ok=True)
        features = Features(
            {
                columns[0]: ImageColumn(),
                columns[1]: ClassLabel(names=list(names)),
                "coarse_label": ClassLabel(7),
            }
        )
        for file, rows in files.items():
            images = [
                None if image is None else {"bytes": image, "path": None} for image, _ in rows
            ]
            values = {
                columns[0]: images,
                columns[1]: [label for _, label in rows],
                "coarse_label": [6] * len(rows),
            }
            Dataset.from_dict(values, features=features).to_parquet(
                tmp_path / "parquet" / f"{file}.parquet"
            )
        return tmp_path / "parquet"

    return write


@pytest.fixture
def write_shards(tmp_path: Path) -> Callable[..., Path]:
    """`write_shards({file: rows})` with rows of (number, encoded image, label): tar files in
    WebDataset's layout.
    """

    def write(files: dict[str, list[tuple[int, bytes, int]]]) -> Path:
        (tmp_path / "shards").mkdir(exist_ok=True)
        for file, rows in files.items():
            with tarfile.open(tmp_path / "shards" / f"{file}.tar", "w") as tar:
                for number, image, label in rows:
                    for ending, content in (("png", image), ("cls", str(label).encode())):
                        info = tarfile.TarInfo(f"{number:04}.{ending}")
                        info.size = len(content)
                        tar.addfile(info, io.BytesIO(content))
        return tmp_path / "shards"

    return write
