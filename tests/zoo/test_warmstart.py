"""A network starts from another's weights, and computes what that one computed where it can."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.networks import lively, same
from torch import Tensor

import zoo
from zoo.danet import DANet
from zoo.datasets import DATASETS, DatasetSpec
from zoo.errors import ConfigError
from zoo.provenance import Origin
from zoo.warmstart import warm_start


@pytest.fixture
def trained(tiny: Callable[..., DANet]) -> Callable[..., DANet]:
    """`trained(**fields)`: a network whose every weight and statistic differs from those of a new
    one, and whose layers fire.
    """

    def train(**fields: Any) -> DANet:
        torch.manual_seed(1)
        model = tiny(**{"threshold": 0.5} | fields)
        for parameter in model.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
        for _ in range(3):
            model(torch.randn(8, model.config.in_channels, 8, 8))
        return model

    return train


def images(channels: int = 1) -> Tensor:
    return torch.randn(6, channels, 8, 8, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(
    "fields",
    [
        {"order": "a"},
        {"order": "a", "join": "and"},
        {"order": "a", "join": "iand"},
        {"order": "b"},
        {"order": "b", "join": "iand"},
        {"order": "c"},
        {"order": "c", "join": "and"},
        {"order": "c", "join": "and", "reset": "subtract", "beta": 0},
        {"order": "c", "join": "and", "reset": "subtract", "beta": 1},
        {"order": "c", "join": "iand"},
        {"bottleneck": True},
        {"bottleneck": True, "order": "b"},
        {"bottleneck": True, "order": "c"},
        {"links": False, "down": "stride", "shortcut_reads": "stream", "surrogate": "rectangle"},
        {"dense": False, "reset": "subtract"},
    ],
    ids=str,
)
def test_a_deeper_network_starts_with_the_logits_of_its_source(
    fields: dict[str, Any],
    training: bool,
    trained: Callable[..., DANet],
    tiny: Callable[..., DANet],
) -> None:
    source = trained(depths=(1, 2), **fields)
    deeper = tiny(**{"threshold": 0.5} | fields | {"depths": (3, 4)})
    start = warm_start(deeper, source)
    assert (
        start.grown == ("stage1.block1", "stage1.block2", "stage2.block2", "stage2.block3")
        and not start.new
    )
    source.train(training), deeper.train(training)
    expected, logits = source(images()), deeper(images())
    assert torch.equal(logits, expected) and expected.std() > 0

    deeper.train()(images()).square().sum().backward()
    for path in start.grown:
        learns = [
            p.grad is not None and bool(p.grad.any())
            for p in deeper.get_submodule(path).parameters()
        ]
        assert any(learns), f"{path} would stay the identity"


def new_keys(model: DANet, source: DANet) -> set[str]:
    """The weights of `model` that are not those of `source`."""
    ours, theirs = dict(model.named_parameters()), dict(source.named_parameters())
    return {key for key in ours if key not in theirs or not torch.equal(ours[key], theirs[key])}


def test_all_of_an_equal_network_is_taken(
    trained: Callable[..., DANet], tiny: Callable[..., DANet]
) -> None:
    source, model = trained(), tiny(threshold=0.5)
    start = warm_start(model, source)
    assert same(model, source) and set(start.taken) == set(model.state_dict())
    assert str(start) == f"{start.tensors} of {start.tensors} tensors"


def test_other_classes_get_a_new_classifier(
    trained: Callable[..., DANet], tiny: Callable[..., DANet]
) -> None:
    source, model = trained(), tiny(threshold=0.5, num_classes=3)
    before = model.head.fc.weight.clone()
    start = warm_start(model, source)
    assert new_keys(model, source) == {"head.fc.weight", "head.fc.bias"} and torch.equal(
        model.head.fc.weight, before
    )
    assert start.new == {"head.fc": "3 classes, was 5"} and len(start.taken) == start.tensors - 2
    assert str(start).endswith(
        f"{start.tensors - 2} of {start.tensors} tensors; new: head.fc (3 classes, was 5)"
    )


def test_as_many_classes_of_other_names_are_others(
    trained: Callable[..., DANet], tiny: Callable[..., DANet], digits: DatasetSpec
) -> None:
    source = trained()
    source.origin = Origin("source", replace(digits, classes=tuple("abcde")))
    for names, new in (("abcde", {}), ("fghij", {"head.fc": "other classes"}), ("", {})):
        model = tiny(threshold=0.5)
        model.origin = Origin("model", replace(digits, classes=tuple(names)))
        assert warm_start(model, source).new == new


def test_no_weight_depends_on_the_number_of_steps(
    trained: Callable[..., DANet], tiny: Callable[..., DANet]
) -> None:
    source, model = trained(steps=1), tiny(threshold=0.5, steps=3)
    warm_start(model, source)
    assert same(model, source) and model.config.steps == model.head.readout.steps == 3


@pytest.mark.parametrize(
    ("fields", "new"),
    [
        ({"stem": "medium"}, {}),
        ({"stem": "imagenet"}, {"stem": "imagenet, was small"}),
        ({"in_channels": 2}, {"stem": "2 input channels, was 3"}),
        ({"stem": "sew", "in_channels": 2}, {"stem": "sew, was small, 2 input channels, was 3"}),
        ({"stem": "sew", "in_channels": 1}, {"stem": "sew, was small, 1 input channels, was 3"}),
    ],
    ids=str,
)
def test_a_stem_of_another_shape_stays_new_as_a_whole(
    fields: dict[str, Any],
    new: dict[str, str],
    trained: Callable[..., DANet],
    tiny: Callable[..., DANet],
) -> None:
    source, model = trained(in_channels=3), tiny(**{"threshold": 0.5, "in_channels": 3} | fields)
    before = {key: tensor.clone() for key, tensor in model.stem.state_dict().items()}
    start = warm_start(model, source)
    assert start.new == new and not start.adapted
    kept = all(torch.equal(tensor, before[key]) for key, tensor in model.stem.state_dict().items())
    assert kept == bool(new) and same(model.get_submodule("stage1"), source.get_submodule("stage1"))


def test_a_grey_picture_gives_the_logits_of_its_colours(
    trained: Callable[..., DANet], tiny: Callable[..., DANet]
) -> None:
    source, model = trained(in_channels=3), tiny(threshold=0.5, in_channels=1)
    start = warm_start(model, source)
    assert (
        start.adapted == {"stem.conv": "1 input channel, was 3: filters summed"} and not start.new
    )
    assert "stem.conv.weight" not in start.taken and "adapted: stem.conv (1 input" in str(start)
    grey = images().round(decimals=1)
    assert torch.allclose(
        model.eval().stem(grey, True),
        source.eval().stem(grey.expand(-1, 3, -1, -1), True),
        atol=1e-5,
    )


# fields of the network, fields of its source, and the message
REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (
        {},
        {"widths": (16, 16)},
        r"it has widths \(16, 16\) instead of \(16, 32\), stage2\.\S+ \[16, .* and \d+ more$",
    ),
    (
        {},
        {"widths": (32, 32)},
        r"it has widths \(32, 32\) instead of \(16, 32\), "
        r"stem\.conv\.weight \[32, .* instead of \[16, ",
    ),
    (
        {},
        {"depths": (1, 2, 1), "widths": (16, 32, 32)},
        r"widths \(16, 32, 32\) instead of \(16, 32\)",
    ),
    (
        {},
        {"bottleneck": True},
        r"it has bottleneck True instead of False, stem\.conv\.weight \[4, .* instead of \[16, ",
    ),
    ({}, {"order": "b"}, "it has order b instead of a, "),
    ({}, {"links": False}, "it has links False instead of True, .*link0.* None instead of"),
    ({}, {"dense": False}, "it has dense False instead of True"),
    ({}, {"beta": 0.25}, r"it has beta 0\.25 instead of 0\.5$"),
    ({}, {"threshold": 1.0}, r"it has threshold 1\.0 instead of 0\.5$"),
    ({}, {"reset": "subtract"}, "it has reset subtract instead of zero$"),
    ({}, {"join": "iand"}, "it has join iand instead of add$"),
    ({}, {"down": "stride"}, "it has down stride instead of pool$"),
    (
        {},
        {"stem": "ms"},
        r"it has stage1\.block0\.shortcut\.conv\.weight \[16, 16, 1, 1\] instead of None",
    ),
    (
        {},
        {"depths": (1, 3)},
        r"it has depths \[1, 3\], and blocks beyond \[1, 2\] would be lost: start from a network",
    ),
    (
        {"depths": (1, 3)},
        {"depths": (2, 2)},
        r"it has depths \[2, 2\], and blocks beyond \[1, 3\] would be lost",
    ),
    (
        {"order": "d", "depths": (2, 2)},
        {"order": "d"},
        "order 'd' has no shortcut: no block can be added as the identity",
    ),
    (
        {"order": "plain", "depths": (2, 2)},
        {"order": "plain"},
        "order 'plain' has no shortcut: no block can be added",
    ),
    (
        {"order": "post", "depths": (2, 2)},
        {"order": "post"},
        "order 'post' has a neuron after the sum: no block can be added",
    ),
    (
        {"order": "b", "join": "and", "depths": (2, 2)},
        {"order": "b", "join": "and"},
        "order 'b' joined by 'and': no block can be",
    ),
    (
        {"order": "c", "surrogate": "rectangle", "depths": (2, 2)},
        {"order": "c"},
        "an added block of order 'c' would stay the identity, "
        "as the rectangle surrogate has no gradient",
    ),
]


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    REFUSED,
    ids=[f"{ours} from {theirs}" for ours, theirs, _ in REFUSED],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(
    ours: dict[str, Any], theirs: dict[str, Any], said: str, tiny: Callable[..., DANet]
) -> None:
    model, source = (tiny(**{"threshold": 0.5} | fields) for fields in (ours, theirs))
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(ConfigError, match=said) as error:
        warm_start(model, source)
    assert "\n" not in str(error.value)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_orders_without_the_identity_start_at_their_own_depth(
    trained: Callable[..., DANet], tiny: Callable[..., DANet]
) -> None:
    for order in ("d", "plain", "post"):
        source, model = trained(order=order), tiny(threshold=0.5, order=order)
        warm_start(model, source)
        assert same(model, source)


def test_another_family_is_named() -> None:
    with pytest.raises(ConfigError) as error:
        warm_start(zoo.create("sew-resnet20-t1.fmnist"), zoo.create("danet20-t4.fmnist"))
    assert str(error.value).startswith(
        "sew-resnet20-t1.fmnist cannot start from danet20-t4.fmnist: "
        "it has family danet instead of sew-resnet, order a"
    )


def test_rounded_weights_are_refused(tiny: Callable[..., DANet], digits: DatasetSpec) -> None:
    source = tiny()
    source.origin = Origin("five-digits", digits, weight_format="int8")
    with pytest.raises(
        ConfigError,
        match="cannot start from five-digits: its weights were rounded to int8: start from those "
        "that",
    ):
        warm_start(tiny(), source)


def test_a_replaced_neuron_of_the_source_is_noticed(tiny: Callable[..., DANet]) -> None:
    source = tiny()
    source.head.lif.neuron.register_buffer("trace", torch.zeros(()))
    with pytest.raises(ConfigError, match=r"it has head\.lif\.neuron\.trace \[\] instead of None$"):
        warm_start(tiny(), source)


def test_the_bundled_network_grows_without_a_change_of_its_logits() -> None:
    source = zoo.load("danet20-t4.cifar10")
    deeper = zoo.create("danet20-t4.cifar10", depths=(4, 3, 5)).eval()
    assert (
        str(warm_start(deeper, source))
        == "240 of 300 tensors; blocks added as the identity: 1 in stage1, 2 in stage3"
    )
    x = torch.randn(
        2, DATASETS["cifar10"].channels, 32, 32, generator=torch.Generator().manual_seed(0)
    )
    assert torch.equal(deeper(x), source(x))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shallow", "deep"),
    [
        ("danet18-t2", "danet34-t2"),
        ("danet50-t1", "danet101-t1"),
        ("sew-resnet50-t2", "sew-resnet152-t2"),
    ],
)
def test_networks_of_the_zoo_grow(shallow: str, deep: str) -> None:
    source, deeper = lively(f"{shallow}.tin200", 32), zoo.create(f"{deep}.tin200").eval()
    warm_start(deeper, source)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(deeper(x), source(x)) and not torch.equal(source(x)[0], source(x)[1])


def batch_norms(model: DANet) -> dict[str, bool]:
    """Whether each BatchNorm normalises by its batch."""
    return {
        path: module.training
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.BatchNorm2d)
    }


def test_frozen_parts_stay_in_eval_mode_and_take_no_gradient(tiny: Callable[..., DANet]) -> None:
    model = tiny()
    model.freeze("stem", "stage2.block1")
    wrapped = torch.nn.Sequential(model)
    for training in (True, False, True):
        wrapped.train(training)
        assert batch_norms(model) == {
            path: training and not path.startswith(("stem.", "stage2.block1."))
            for path in batch_norms(model)
        }
    model(images()).sum().backward()
    for path, parameter in model.named_parameters():
        assert (parameter.grad is None) == path.startswith(("stem.", "stage2.block1.")), path


def test_calls_of_freeze_add_up(tiny: Callable[..., DANet]) -> None:
    model = tiny()
    model.freeze("stem")
    model.freeze("stem", "head.fc")
    model.freeze()
    assert model.frozen == ("stem", "head.fc") and not model.head.fc.weight.requires_grad


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (
            ["steam"],
            "'steam' cannot be frozen: valid are stem, stage1, stage2, head, and their parts, "
            "as stage1.block0",
        ),
        (["stem", "stage9"], "'stage9' cannot be frozen"),
        ([""], "'' cannot be frozen"),
        (["stem.conv.weight"], "'stem.conv.weight' cannot be frozen"),
        (["head.readout"], "'head.readout' cannot be frozen"),
        (
            ["stem", "stage1", "stage2", "head"],
            "with stem, stage1, stage2, head frozen nothing is left to train: leave out one",
        ),
        (["stem", "stage1", "stage2", "head.fc"], "frozen nothing is left to train"),
    ],
    ids=str,
)
def test_what_cannot_be_frozen_is_refused(
    parts: list[str], said: str, tiny: Callable[..., DANet]
) -> None:
    model = tiny()
    with pytest.raises(ConfigError) as error:
        model.freeze(*parts)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert not model.frozen and all(p.requires_grad for p in model.parameters())
