"""From a model, or its folder, to a repository of the Hub: its files and its card in one commit."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.manifest import WeightsSpec
from zoo.publishing.bundle import describe
from zoo.publishing.cards import model_card
from zoo.remote import check_repo, push
from zoo.weights import save_model

if TYPE_CHECKING:
    from zoo.danet import DANet

__all__ = ["CARD", "files_with_card", "push_model"]

CARD = "README.md"


def files_with_card(
    folder: Path, entry: WeightsSpec, *, steps: int, repo: str, scratch: Path
) -> dict[str, Path]:
    """The files of a model folder that `entry` describes, and its card, which is written into the
    folder `scratch`.

    Keys are their names in the repository `repo`; `steps` is T.
    """
    card = scratch / CARD
    card.write_text(model_card(entry, steps=steps, repo=repo), encoding="utf-8")
    return {name: folder / name for name in entry.files} | {CARD: card}


def push_model(
    model: "DANet", repo: str, *, licence: str | None = None, private: bool = False
) -> str:
    """Publish a model in memory as `repo`, `org/name`, new or ours, in one commit; returns
    `hf:org/name@commit`.

    The record of its training is published where the model is what the folder of its origin holds;
    otherwise the card says that its training is unknown. `licence` is an id of the Hub, the
    record's if there is none. Raises `HubError` where the Hub refuses, and what
    `zoo.weights.save_model` raises.
    """
    check_repo(repo)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        save_model(folder, model)
        entry = describe(folder)
        entry = replace(entry, licence=licence or entry.licence)
        files = files_with_card(
            folder, entry, steps=model.head.readout.steps, repo=repo, scratch=Path(scratch)
        )
        return f"hf:{repo}@{push(files, repo, message=entry.name, private=private)}"
