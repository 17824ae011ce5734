"""Publish a model on the Hub: the files of its folder and its card in one commit."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.manifest import WeightsSpec
from zoo.publishing.entry import describe
from zoo.publishing.model_card import model_card
from zoo.remote import check_repo, push
from zoo.weights import save_model

if TYPE_CHECKING:
    from zoo.danet import DANet

__all__ = ["CARD_FILE", "files_with_card", "push_model"]

CARD_FILE = "README.md"


def files_with_card(
    folder: Path, entry: WeightsSpec, *, steps: int, repo: str, scratch: Path
) -> dict[str, Path]:
    """Return the files of a model folder that `entry` describes, and its card.

    Keys are their names in the repository `repo`; `steps` is T. The card is written into the folder
    `scratch`.
    """
    card = scratch / CARD_FILE
    card.write_text(model_card(entry, steps=steps, repo=repo), encoding="utf-8")
    return {name: folder / name for name in entry.files} | {CARD_FILE: card}


def push_model(
    model: "DANet", repo: str, *, licence: str | None = None, private: bool = False
) -> str:
    """Publish a model in memory as `repo`, `org/name`, new or ours, in one commit.

    Returns `hf:org/name@commit`. The record of its training is published where the model is what
    the folder of its origin holds; otherwise the card says that its training is unknown. `licence`
    is an id of the Hub, the record's if there is none. Raises `HubError` where the Hub refuses, and
    what `zoo.weights.save_model` raises.
    """
    check_repo(repo)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        folder = scratch / "model"
        save_model(folder, model)
        entry = describe(folder)
        entry = replace(entry, licence=licence or entry.licence)
        steps = model.head.readout.steps
        files = files_with_card(folder, entry, steps=steps, repo=repo, scratch=scratch)
        return f"hf:{repo}@{push(files, repo, message=entry.name, private=private)}"
