"""Where the weights of a name are: a local folder, or bundled with the package."""

from contextlib import suppress
from pathlib import Path

from zoo.errors import UnknownName, WeightsError
from zoo.names import ModelSpec, manifest, weights_folder
from zoo.weights import check_files

__all__ = ["find"]


def find(name: str) -> Path:
    """The folder that holds the weights of `name`: a name of the zoo (verified against the manifest), or a path.

    Raises `UnknownName` for what is neither, `WeightsError` for a name whose weights do not exist or are damaged.
    """
    known = manifest()
    try:
        spec = known.resolve(ModelSpec.parse(name))
    except UnknownName:
        with suppress(OSError):  # a name too long for a path
            if Path(name).is_dir():
                return Path(name)
        raise
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
    exist = f"for {', '.join(tags)}" if tags else f"only of {', '.join(known.weights) or 'no model'}"
    how = f"train it with `zoo train {spec.name}`"
    return f"{spec.name} was never trained: there are weights {exist}; {how}, or pass pretrained=False for random weights"
