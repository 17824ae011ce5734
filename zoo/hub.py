"""Where the weights of a name are: a local folder, or bundled with the package."""

from pathlib import Path

from zoo.errors import WeightsError
from zoo.names import ModelSpec, manifest, weights_folder
from zoo.weights import check_files

__all__ = ["find"]


def find(name: str) -> Path:
    """The verified folder that holds the weights of `name`, which may itself be a folder.

    Raises `UnknownName` for a name that means nothing, `WeightsError` for one whose weights do not exist or are damaged.
    """
    if Path(name).is_dir():
        return Path(name)
    known = manifest()
    spec = known.resolve(ModelSpec.parse(name))
    if spec.name not in known.weights:
        raise WeightsError(_no_weights(spec))
    folder = weights_folder() / spec.name
    if not folder.is_dir():
        raise WeightsError(f"the weights of {spec.name} are not part of this installation: {folder} does not exist")
    check_files(folder, known.weights[spec.name].files)
    return folder


def _no_weights(spec: ModelSpec) -> str:
    known = manifest()
    tags = known.tags(spec.architecture)
    exist = (
        f"weights of {spec.architecture} exist for {', '.join(tags)}" if tags else f"weights exist for {', '.join(known.weights)}"
    )
    return f"{spec.name} was never trained: {exist}; train it with `zoo train {spec.name}`, or pass pretrained=False for random weights"
