"""Data sets: what a model has to know of its data, and the data sets that the zoo knows.

To add a data set, add an entry to `PUBLISHED` and a recipe `zoo/training/recipes/TAG.toml`; names,
listings, model cards and commands follow from them. `zoo.training.data` reads the files of a data
set; recordings of event cameras also need their folders in `zoo.training.events`.
"""

import re
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

from zoo.errors import ConfigError
from zoo.records import CheckedRecord, Line, Rule, above, between, read_record, shown

__all__ = ["DATASETS", "DEFAULT_DATASET", "PUBLISHED", "DatasetSpec", "PublishedDataset"]

OWN_TAG = "own"  # of images in other classes than those of any data set that is known
DEFAULT_DATASET = "in1k"  # what a model's name means that names no data and has no weights

# A page and others name files by it.
A_WORD = Rule(
    "a word of letters, digits, '-', '_' and '.'",
    lambda value: re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value) is not None,
)
A_SHARE = Rule("a share of images, from 0 and below 1", lambda value: 0 <= value < 1)


@dataclass(frozen=True)
class DatasetSpec(CheckedRecord):
    """The description of a model's data, which every model folder and export stores."""

    tag: Annotated[str, A_WORD]
    title: Line
    size: Annotated[int, between(1, 65536)]  # pixels, height and width
    channels: Annotated[int, between(1, 4096)]
    num_classes: Annotated[int, between(1, 1_000_000)]
    mean: tuple[float, ...]  # of pixels in [0, 1], for each channel
    std: tuple[Annotated[float, above(0)], ...]
    classes: tuple[str, ...] = ()  # names in the order of the logits, where they are known
    licence: str = ""
    events: bool = False  # counts of events in time bins, not images; a channel for each polarity
    # the tag of the still images of which simulated saccades make the events (`zoo.saccades`), and
    # the share of their range of brightness that is an event; none for recordings and images
    still: str = ""
    ratio: Annotated[float, between(0, 1)] = 0.0
    # share of the training images held out, of data without a test split
    held_out: Annotated[float, A_SHARE] = 0.0
    held_out_of: int = 0  # how many images that was a share of; other images are divided otherwise

    def __post_init__(self) -> None:
        super().__post_init__()
        if not len(self.mean) == len(self.std) == self.channels:
            raise ConfigError(
                f"mean {shown(self.mean)} and std {shown(self.std)} do not fit "
                f"{self.channels} channels"
            )
        if self.classes and len(self.classes) != self.num_classes:
            raise ConfigError(f"{len(self.classes)} class names for {self.num_classes} classes")
        if self.still and (self.still not in STORED or not self.events):
            raise ConfigError(f"still = {shown(self.still)}: there are no events of these images")

    @classmethod
    def from_dict(cls, values: object) -> "DatasetSpec":
        """Return the description that `to_dict` made, also after JSON turned tuples into lists.

        Raises `ConfigError` for a field that does not exist, is missing, or cannot be.
        """
        return read_record(cls, values, "data")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as they are written to JSON; only events of still images name these."""
        values = asdict(self)
        if not self.still:
            del values["still"], values["ratio"]
        return values

    def stored_as(self, encoding: str) -> "DatasetSpec":
        """Return the description of the data in files of an encoding (Pillow's name; "": none).

        Images that were published without loss are other pixels as JPEG, and are called so.
        """
        published = PUBLISHED.get(self.tag)
        lossy = encoding == "JPEG" and published is not None and published.lossless
        if not lossy or self.title.endswith(")"):
            return self
        return replace(self, title=f"{self.title} (JPEG)")

    def with_classes(self, number: int) -> "DatasetSpec":
        """Return the description of images in `number` classes that are read as these are.

        With another number of classes they are not this data set any more, but a user's own.
        """
        if number == self.num_classes:
            return self
        return replace(
            self,
            tag=OWN_TAG,
            title="images of your own",
            num_classes=number,
            classes=(),
            licence="",
            held_out=0.0,
            held_out_of=0,
        )

    @property
    def images(self) -> "DatasetSpec":
        """Return the description of the images that are read from files: the still ones, if any."""
        return STORED[self.still].spec if self.still else self

    @property
    def max_count(self) -> int:
        """Return the greatest count of events of a bin and pixel that is told apart."""
        return 1 if self.still else 255

    @property
    def on_channel(self) -> int:
        """Return the channel of the events of brighter pixels: first in simulated saccades.

        Recordings have it second, as the package tonic numbers the polarities.
        """
        return 0 if self.still else 1

    def label(self, index: int) -> str:
        """Return the name of a class, or `class INDEX` where names are not known."""
        return self.classes[index] if self.classes else f"class {index}"


@dataclass(frozen=True)
class PublishedDataset:
    """A data set of the zoo: its description, who published it, and how."""

    spec: DatasetSpec
    reference: str  # whom to cite
    hub: str | None = None  # its id on the Hugging Face Hub
    lossless: bool = False  # published as lossless images


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's
# A model of events takes their number: this undoes the division of bytes by 255.
COUNTS_MEAN, COUNTS_STD = (0.0, 0.0), (1 / 255, 1 / 255)

# The data sets as files hold them; of the still images among them, events are made too.
STORED: dict[str, PublishedDataset] = {
    dataset.spec.tag: dataset
    for dataset in (
        PublishedDataset(
            DatasetSpec("in1k", "ImageNet-1k", 224, 3, 1000, IMAGENET_MEAN, IMAGENET_STD),
            reference="Russakovsky et al. 2015, arXiv:1409.0575",
            hub="ILSVRC/imagenet-1k",
        ),
        PublishedDataset(
            DatasetSpec(
                "tin200", "Tiny-ImageNet", 64, 3, 200,
                mean=(0.480, 0.448, 0.398), std=(0.277, 0.269, 0.282),
            ),
            reference="Le and Yang 2015, Stanford CS 231N",
            hub="zh-plus/tiny-imagenet",
        ),
        PublishedDataset(
            DatasetSpec(
                "cifar10", "CIFAR-10", 32, 3, 10,
                mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616),
                classes=(
                    "airplane", "automobile", "bird", "cat", "deer",
                    "dog", "frog", "horse", "ship", "truck",
                ),
            ),
            reference="Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images",
            hub="uoft-cs/cifar10",
            lossless=True,
        ),
        PublishedDataset(
            DatasetSpec(
                "fmnist", "Fashion-MNIST", 28, 1, 10,
                mean=(0.2860,), std=(0.3530,),
                classes=(
                    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
                    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
                ),
                licence="MIT, (c) 2017 Zalando SE",
            ),
            reference="Xiao et al. 2017, arXiv:1708.07747",
            hub="zalando-datasets/fashion_mnist",
            lossless=True,
        ),
        PublishedDataset(
            DatasetSpec(
                "nmnist", "N-MNIST", 34, 2, 10,
                mean=COUNTS_MEAN, std=COUNTS_STD, classes=tuple("0123456789"), events=True,
            ),
            reference="Orchard et al. 2015, arXiv:1507.07629",
        ),
        PublishedDataset(
            DatasetSpec(
                "dvsgesture", "DVS128 Gesture", 128, 2, 11,
                mean=COUNTS_MEAN, std=COUNTS_STD, events=True,
                classes=(
                    "hand clapping", "right hand wave", "left hand wave",
                    "right arm clockwise", "right arm counter-clockwise",
                    "left arm clockwise", "left arm counter-clockwise",
                    "arm roll", "air drums", "air guitar", "other gestures",
                ),
            ),
            reference="Amir et al., CVPR 2017",
        ),
    )
}  # fmt: skip


def _saccades(tag: str, ratio: float) -> PublishedDataset:
    """Return the data set of the events that simulated saccades make of still images."""
    stills = STORED[tag]
    spec = replace(
        stills.spec,
        tag=f"i2e-{tag}",
        title=f"simulated micro-saccades of {stills.spec.title}",
        channels=2,
        mean=COUNTS_MEAN,
        std=COUNTS_STD,
        events=True,
        still=tag,
        ratio=ratio,
    )
    reference = f"Ma et al., AAAI 2026, arXiv:2511.08065, of the images of {stills.reference}"
    return replace(stills, spec=spec, reference=reference)


# The ratios are the paper's.
PUBLISHED = STORED | {
    f"i2e-{tag}": _saccades(tag, ratio) for tag, ratio in (("fmnist", 0.15), ("cifar10", 0.07))
}

DATASETS: dict[str, DatasetSpec] = {tag: dataset.spec for tag, dataset in PUBLISHED.items()}
