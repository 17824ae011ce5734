"""`train_name`: from a name to a folder that `zoo.load` takes."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
from support.networks import same
from support.pictures import picture
from support.signals import interruptible
from torch import nn

import zoo
from zoo.datasets import DATASETS
from zoo.errors import ConfigError, UnknownName, ZooError
from zoo.processor import processor
from zoo.publishing.entry import describe
from zoo.publishing.model_card import model_card
from zoo.training import result
from zoo.training import run as module
from zoo.training.data import Images
from zoo.training.pruning import zeros
from zoo.training.run import train_name
from zoo.training.teacher import load_teacher

ONE_STEP = {"epochs": "1", "batch_size": "4", "bf16": "false"}


@pytest.fixture
def eight_images(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Images(torch.randint(0, 256, (8, 1, 28, 28), dtype=torch.uint8), torch.arange(8))
    monkeypatch.setattr(module, "load_split", lambda *args, **options: data)


def test_a_name_becomes_a_folder_that_loads(eight_images: None, tmp_path: Path) -> None:
    said = train_name("danet20-t1.fmnist", run=tmp_path, overrides=ONE_STEP)
    folder = tmp_path / "model"
    model = zoo.load(str(folder))
    assert str(folder) in said and said.startswith("danet20-t1.fmnist: top-1 ")
    assert model.origin is not None and model.origin.name == "danet20-t1.fmnist"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["images"] == 8 and f"{metrics['top1']:.2%}" in said
    assert metrics["trained_on"] == processor() and metrics["training_hours"] >= 0
    assert {path.name for path in folder.iterdir()} >= {
        "config.json",
        "model.safetensors",
        "recipe.json",
        "metrics.jsonl",
    }


def test_a_name_says_what_the_recipe_does(eight_images: None, tmp_path: Path) -> None:
    name = "danet20-t1.fmnist-p50-w8"
    train_name(name, run=tmp_path / "run", overrides=ONE_STEP)
    metrics = json.loads((tmp_path / "run" / "model" / "metrics.json").read_text())
    assert (metrics["zeros"], metrics["weight_bits"]) == (0.5, 8)
    model = zoo.load(tmp_path / "run" / "model")
    assert model.known_origin.name == name and zeros(model) == pytest.approx(0.5, abs=1e-3)
    card = model_card(describe(tmp_path / "run" / "model"), steps=1)
    assert "| zeros among the weights that spikes meet | 50.0% |" in card
    model.reset_classifier(3)
    assert model.known_origin.name == "danet20-t1.own-p50-w8"
    start = str(tmp_path / "run" / "model")
    for name, overrides, words in (
        ("danet20-t1.fmnist-p50", {"prune": "0.6"}, "says prune = 0.5, and --set prune=0.6: "),
        ("danet20-t1.fmnist-s50", {}, "says fewer SynOps: give them a price, --set synops_weight"),
        ("danet20-t1.fmnist-p90", {}, "has weights of 8 bits, which this run would lose: set wei"),
    ):
        with pytest.raises(ConfigError, match=words):
            train_name(name, run=tmp_path / "no", init=start, overrides=ONE_STEP | overrides)
    train_name("danet20-t1.fmnist-p90-w8", run=tmp_path / "more", init=start, overrides=ONE_STEP)


def test_a_published_recipe_names_no_folder_of_this_machine(
    eight_images: None, tmp_path: Path
) -> None:
    for data, said in ((str(tmp_path), ""), ("somebody/fashion", "somebody/fashion")):
        train_name("danet20-t1.fmnist", run=tmp_path / said / "run", data=data, overrides=ONE_STEP)
        recipe = json.loads((tmp_path / said / "run" / "model" / "recipe.json").read_text())[
            "recipe"
        ]
        assert (recipe["source"], recipe["epochs"]) == (said, 1)


def test_weights_are_float32_where_float16_costs_accuracy(
    eight_images: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def correct(per_step: MethodType, *rest: Any) -> tuple[list[int], int]:
        model = per_step.__self__
        rounded = all(torch.equal(p, p.half().float()) for p in model.parameters() if p.dim() > 1)
        return [(7 if rounded else 8)], 8

    monkeypatch.setattr(result, "count_correct", lambda *rest: (8, 8))
    monkeypatch.setattr(result, "count_correct_by_step", correct)
    train_name("danet20-t1.fmnist", run=tmp_path, overrides=ONE_STEP)
    metrics = json.loads((tmp_path / "model" / "metrics.json").read_text())
    assert (
        metrics["weights"] == "weights of the last step, stored as float32"
        and metrics["top1"] == metrics["top1_float32"] == 1
    )
    monkeypatch.setattr(result, "MAX_ACCURACY_LOSS", 0.2)
    train_name("danet20-t1.fmnist", run=tmp_path, overrides=ONE_STEP)  # nothing is trained again
    metrics = json.loads((tmp_path / "model" / "metrics.json").read_text())
    assert metrics["weights"].endswith("stored as float16") and (
        metrics["top1"],
        metrics["top1_float32"],
    ) == (7 / 8, 1)


def test_data_are_named_as_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Images(
        torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8), torch.arange(8), encoding="JPEG"
    )
    monkeypatch.setattr(module, "load_split", lambda *args, **options: data)
    train_name("danet20-t1.cifar10", run=tmp_path, data="somewhere", overrides=ONE_STEP)
    origin = zoo.load(str(tmp_path / "model")).origin
    assert (
        origin is not None
        and origin.data == DATASETS["cifar10"].stored_as("JPEG") != DATASETS["cifar10"]
    )
    for tag, encoding, title in (
        ("cifar10", "PNG", "CIFAR-10"),
        ("cifar10", "", "CIFAR-10"),
        ("tin200", "JPEG", "Tiny-ImageNet"),
    ):
        assert DATASETS[tag].stored_as(encoding).title == title
    assert origin.data.title == origin.data.stored_as("JPEG").title == "CIFAR-10 (JPEG)"


def test_training_starts_from_the_seed_of_the_recipe(eight_images: None, tmp_path: Path) -> None:
    weights = []
    for run in ("one", "two"):
        torch.rand(len(run) + len(weights))
        train_name("danet20-t1.fmnist", run=tmp_path / run, overrides=ONE_STEP)
        weights.append(zoo.load(str(tmp_path / run / "model")).state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_network_starts_from_one_that_started_from_another(
    eight_images: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result, "MAX_ACCURACY_LOSS", -1)  # weights are stored as they were trained
    train_name(
        "danet20-t1.fmnist", run=tmp_path / "one", overrides=ONE_STEP, init="danet20-t4.fmnist"
    )
    one = str(tmp_path / "one" / "model")
    frozen = ONE_STEP | {"freeze": '["stem", "stage1"]'}
    train_name(
        "danet20-t2.fmnist",
        run=tmp_path / "two",
        overrides=frozen,
        init=one,
        config={"depths": "[3, 4, 3]"},
    )
    folder = tmp_path / "two" / "model"
    metrics, recipe = (
        json.loads((folder / file).read_text()) for file in ("metrics.json", "recipe.json")
    )
    bundled, run = (
        zoo.info("danet20-t4.fmnist").weights,
        json.loads((tmp_path / "two" / "recipe.json").read_text()),
    )
    assert bundled is not None
    assert [ancestor["name"] for ancestor in recipe["init"]["ancestry"]] == [
        "danet20-t1.fmnist",
        "danet20-t4.fmnist",
    ]
    assert (
        recipe["init"]["ancestry"][1]["weights_sha256"] == bundled.files["model.safetensors"].sha256
    )
    # a folder of this machine says nothing elsewhere
    assert (recipe["init"]["source"], run["init"]["source"]) == ("", one)
    assert recipe["init"]["grown"] == ["stage2.block3"] and recipe["recipe"]["freeze"] == [
        "stem",
        "stage1",
    ]
    assert metrics["initialised_from"] == "danet20-t1.fmnist"
    hours = [ancestor["training_hours"] for ancestor in recipe["init"]["ancestry"]]
    assert (
        metrics["training_hours_total"] == pytest.approx(metrics["training_hours"] + sum(hours))
        and hours[1] == 1.13
    )
    one_model, two_model = zoo.load(one), zoo.load(str(folder))
    for part in ("stem", "stage1"):
        assert same(one_model.get_submodule(part), two_model.get_submodule(part))
    assert "from the weights of danet20-t1.fmnist" in model_card(describe(folder), steps=2)


def test_a_start_that_is_refused_leaves_no_folder(tmp_path: Path) -> None:
    for options, said in [
        (
            {"init": "danet20-t4.fmnist", "overrides": {"freeze": '["steam"]'}},
            "'steam' cannot be frozen",
        ),
        ({"overrides": {"freeze": '["stem"]'}}, "random weights would stay so"),
        (
            {"init": "danet20-t4.fmnist", "config": {"beta": "0.25"}},
            r"it has beta 0\.5 instead of 0\.25",
        ),
        ({"init": ""}, "unknown model ''"),
        ({"config": {"name": "danet18"}}, "unknown key 'name'; valid are depths"),
        ({"config": {"data": "here"}}, "unknown key 'data'; valid are depths"),
    ]:
        with pytest.raises(ZooError, match=said):
            train_name("danet20-t4.fmnist", run=tmp_path / "run", **options)  # type: ignore[arg-type]  # as the table says
    assert not list(tmp_path.iterdir())


def test_a_name_without_data_set_or_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"try danet20-t4\.fmnist"):
        train_name("danet20-t4", run=tmp_path)
    with pytest.raises(
        ConfigError, match="N-MNIST has no default place: name its folder or hub id with --data"
    ):
        train_name("danet20-t4.nmnist", run=tmp_path)
    with pytest.raises(
        ConfigError, match=r"dataset = 'cifar10', but danet20-t4\.fmnist is trained on 'fmnist'"
    ):
        train_name("danet20-t4.fmnist", run=tmp_path, overrides={"dataset": "cifar10"})
    assert not list(tmp_path.iterdir())


def identity() -> nn.Module:
    return nn.Identity()


def test_a_teacher_is_a_model_of_the_zoo_or_any_module() -> None:
    data = DATASETS["fmnist"]
    danet = load_teacher("danet20-t4.fmnist", data, torch.device("cpu"))
    assert (
        isinstance(danet, nn.Module)
        and not danet.training
        and not any(p.requires_grad for p in danet.parameters())
    )
    assert isinstance(load_teacher(f"{__name__}:identity", data, torch.device("cpu")), nn.Identity)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (
            "danet20-t4.fmnist",
            "teacher 'danet20-t4.fmnist' tells 10 classes; Tiny-ImageNet has 200",
        ),
        ("json:dumps_all", "teacher 'json:dumps_all' cannot be imported: "),
        ("collections:OrderedDict", "returned OrderedDict, not a torch.nn.Module"),
    ],
)
def test_what_cannot_teach_is_refused(word: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_teacher(word, DATASETS["tin200"], torch.device("cpu"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "takes 1 channels; CIFAR-10 has 3"),
        (
            {"channels": 1, "mean": (0.5,), "std": (0.2,)},
            "calls class 0 'T-shirt/top'; CIFAR-10 calls it 'airplane'",
        ),
        (
            {"channels": 1, "mean": (0.5,), "std": (0.2,), "classes": DATASETS["fmnist"].classes},
            r"takes images of mean \[0.286\] and std \[0.353\]; "
            r"those of CIFAR-10 have \[0.5\] and \[0.2\]",
        ),
    ],
)
def test_a_teacher_of_other_images_is_refused(data: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=f"^teacher 'danet20-t4.fmnist' {said}$"):
        load_teacher("danet20-t4.fmnist", replace(DATASETS["cifar10"], **data), torch.device("cpu"))


def test_images_are_not_given_where_they_are_counted(tmp_path: Path) -> None:
    for name in "ab":
        for number in range(6):
            (tmp_path / name).mkdir(exist_ok=True)
            picture(number, 32, 32).save(tmp_path / name / f"{number}.png")
    with pytest.raises(
        ConfigError, match=r"^recipe: images = 5, but .* holds 10 training images: leave it out$"
    ):
        train_name(
            "danet20-t1.pets", run=tmp_path / "run", data=str(tmp_path), overrides={"images": "5"}
        )


def test_data_have_one_source(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^source is given twice, by --data as 'here' and by --set as 'there': "
    ):
        train_name(
            "danet20-t1.fmnist", run=tmp_path / "run", data="here", overrides={"source": "there"}
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_an_interrupted_run_says_how_it_goes_on(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for number in range(10):
            (tmp_path / "data" / split / f"{number}").mkdir(parents=True)
            picture(number, 32, 32).save(tmp_path / "data" / split / f"{number}" / "a.png")
    command = [
        "train",
        "danet20-t1.cifar10",
        "--data",
        str(tmp_path / "data"),
        "--run",
        str(tmp_path / "run"),
        "--save-every",
        "1",
    ]
    command += ["--set", "epochs=100000", "batch_size=2", "bf16=false"]
    said = [train_until_a_checkpoint_of_its_own(command, tmp_path / "run") for _ in range(2)]
    assert [text.splitlines()[-1] for text in said] == [
        "zoo: interrupted; the same command goes on from the last checkpoint"
    ] * 2
    assert "resuming at step" in said[1] and not any("Traceback" in text for text in said)


def train_until_a_checkpoint_of_its_own(command: list[str], run: Path) -> str:
    """Start `zoo`, interrupt it when it has written a checkpoint, and return what it said."""
    before = set(run.glob("checkpoint-*.pt"))
    argv = [sys.executable, "-m", "zoo", *command]
    with subprocess.Popen(
        argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=interruptible
    ) as process:
        while set(run.glob("checkpoint-*.pt")) <= before and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, text = process.communicate()
    assert process.returncode == 130, text
    return text
