"""What a model has to know of the data it was trained on. Facts only: reading the data is
`zoo.training.data`'s job.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

from zoo.errors import ConfigError

__all__ = ["DATASETS", "DatasetSpec"]


@dataclass(frozen=True)
class DatasetSpec:
    """One data set, or any other description of what a model takes and says."""

    tag: str
    title: str
    size: int  # pixels, height and width
    channels: int
    num_classes: int
    mean: tuple[float, ...]  # of pixels in [0, 1], per channel
    std: tuple[float, ...]
    classes: tuple[str, ...] = ()  # names in the order of the logits, where they are known
    licence: str = ""
    events: bool = False  # counts of events in time bins, not images; a channel for each polarity
    # share of the training images that is held out, where the data come without a split for it
    held_out: float = 0.0
    held_out_of: int = 0  # how many images that was a share of; other images are divided otherwise

    def __post_init__(self) -> None:
        if not (
            1 <= self.size <= 65536
            and len(self.mean) == len(self.std) == self.channels
            and all(s > 0 for s in self.std)
        ):
            raise ConfigError(
                f"data {self.tag!r}: size {self.size}, {self.channels} channels, mean {self.mean}, std {self.std} do not fit"
            )
        if not 0 <= self.held_out < 1:
            raise ConfigError(
                f"data {self.tag!r}: held_out = {self.held_out} is no share of images, from 0 and below 1"
            )
        if self.classes and len(self.classes) != self.num_classes:
            raise ConfigError(
                f"data {self.tag!r}: {len(self.classes)} class names for {self.num_classes} classes"
            )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DatasetSpec":
        try:
            kwargs: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
            }
            return cls(**kwargs)
        except TypeError as error:
            raise ConfigError(f"data description: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def found(self, encoding: str) -> "DatasetSpec":
        """The data as they were found, in files of this encoding (`""`: none). What was published
        without loss is another set of pixels as JPEG, and is called so.
        """
        lossy = encoding == "JPEG" and self.tag in LOSSLESS and not self.title.endswith(")")
        return replace(self, title=f"{self.title} (JPEG)") if lossy else self

    def with_classes(self, number: int) -> "DatasetSpec":
        """The same images in that many classes; if these are others, nobody knows their names."""
        return self if number == self.num_classes else replace(self, num_classes=number, classes=())

    def label(self, index: int) -> str:
        return self.classes[index] if self.classes else f"class {index}"


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's
LOSSLESS = ("cifar10", "fmnist")  # tags of the sets that were published so
# undo the division of bytes by 255: a model of events takes their number
COUNTS = (0.0, 0.0), (1 / 255, 1 / 255)

DATASETS: dict[str, DatasetSpec] = {
    spec.tag: spec
    for spec in (
        DatasetSpec("in1k", "ImageNet-1k", 224, 3, 1000, IMAGENET_MEAN, IMAGENET_STD),
        DatasetSpec("tin200", "Tiny-ImageNet", 64, 3, 200, (0.480, 0.448, 0.398), (0.277, 0.269, 0.282)),
        DatasetSpec(
            "cifar10", "CIFAR-10", 32, 3, 10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616),
            ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        ),
        DatasetSpec(
            "fmnist", "Fashion-MNIST", 28, 1, 10, (0.2860,), (0.3530,),
            ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
            "MIT, (c) 2017 Zalando SE",
        ),
        DatasetSpec("nmnist", "N-MNIST", 34, 2, 10, *COUNTS, tuple("0123456789"), events=True),
        DatasetSpec(
            "dvsgesture", "DVS128 Gesture", 128, 2, 11, *COUNTS,
            ("hand clapping", "right hand wave", "left hand wave", "right arm clockwise", "right arm counter-clockwise",
             "left arm clockwise", "left arm counter-clockwise", "arm roll", "air drums", "air guitar", "other gestures"),
            events=True,
        ),
    )
}  # fmt: skip
