"""The card of one model: `README.md` of its folder, with the metadata that the Hub reads."""

import re
from typing import TYPE_CHECKING

from zoo.datasets import PUBLISHED
from zoo.manifest import REPO, FileSpec, WeightsSpec, read_manifest
from zoo.names import GRAMMAR
from zoo.provenance import UNKNOWN
from zoo.publishing.figures import microjoules, training_hours, under_attack

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

__all__ = ["model_card"]

TEMPLATE = "model_card.md.j2"  # beside this file
# What to cite beside DANet's paper, by family.
CITATIONS = {
    "sew-resnet": """@inproceedings{fang2021deep,
  title     = {Deep Residual Learning in Spiking Neural Networks},
  author    = {Fang, Wei and Yu, Zhaofei and Chen, Yanqi and Huang, Tiejun and Masquelier, Timoth{\\'e}e and Tian, Yonghong},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2021}
}""",  # noqa: E501  # a line of BibTeX
    "ms-resnet": """@article{hu2024advancing,
  title   = {Advancing Spiking Neural Networks Toward Deep Residual Learning},
  author  = {Hu, Yifan and Deng, Lei and Wu, Yujie and Yao, Man and Li, Guoqi},
  journal = {IEEE Transactions on Neural Networks and Learning Systems},
  year    = {2024}
}""",
}
CITATIONS["spiking-resnet"] = CITATIONS["sew-resnet"]


def model_card(entry: WeightsSpec, *, steps: int, repo: str | None = None) -> str:
    """Return the card of a manifest entry in Markdown.

    `steps` is T. `repo`, `org/name`, is where to load a model that the zoo does not have.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    pages = Environment(
        loader=PackageLoader("zoo.publishing", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML
    )
    match = GRAMMAR.fullmatch(entry.name)
    published = PUBLISHED.get(entry.data.tag)
    location = entry.name if _is_in_zoo(entry) else f"hf:{repo or 'ORG/NAME'}"
    return pages.get_template(TEMPLATE).render(
        metadata=_metadata(entry).to_yaml(),
        entry=entry,
        steps=steps,
        location=location,
        citation=CITATIONS.get(match["family"]) if match else None,
        own_data=published is None,
        data_reference=published.reference if published else "",
        microjoules=microjoules,
        under_attack=under_attack,
        training_hours=training_hours,
    )


def _metadata(entry: WeightsSpec) -> "ModelCardData":
    """Return the metadata of a card: licence, data, and the measured accuracy."""
    from huggingface_hub import EvalResult, ModelCardData

    dataset = _hub_dataset(entry)
    results = []
    if "top1" in entry.metrics:
        result = EvalResult(
            task_type="image-classification",
            dataset_type=dataset or entry.data.tag,
            dataset_name=entry.data.title,
            dataset_split=entry.metrics.get("split"),
            metric_type="accuracy",
            metric_value=entry.metrics["top1"],
        )
        results.append(result)
    return ModelCardData(
        license=entry.licence.lower(),
        library_name="danet-zoo",
        pipeline_tag="image-classification",
        tags=["spiking-neural-network", "neuromorphic", "snntorch", "energy"],
        datasets=[dataset] if dataset else None,
        model_name=entry.name,
        eval_results=results or None,
    )


def _hub_dataset(entry: WeightsSpec) -> str | None:
    """Return the Hub's id of the data that a model was trained on, where both are known."""
    if entry.provenance == UNKNOWN:
        return None
    if published := PUBLISHED.get(entry.data.tag):
        return published.hub
    # Data of the user's own are titled by their id where they came from the Hub.
    return entry.data.title if re.fullmatch(REPO, entry.data.title) else None


def _is_in_zoo(entry: WeightsSpec) -> bool:
    """Tell whether the zoo's model of this name has these weights: another may be named alike."""
    ours = read_manifest().weights.get(entry.name)
    return ours is not None and _weights(ours) == _weights(entry)


def _weights(entry: WeightsSpec) -> dict[str, FileSpec]:
    return {file: spec for file, spec in entry.files.items() if file.endswith(".safetensors")}
