"""The network: parameter counts, shapes, inputs of convolutions, the densely additive sum."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import zoo
from zoo.blocks import Block, Projection
from zoo.danet import DANet, DANetConfig, Head, Readout, Repeat, Stem, set_steps
from zoo.errors import ConfigError, InputError
from zoo.neurons import Lif

Build = Callable[..., DANet]
ORDERS = ["a", "b", "c", "d"]
STEMS = list(Stem.LAYOUTS)


@pytest.mark.parametrize(
    ("name", "with_links", "without"),
    [
        ("danet18-t4.in1k", 12_043_944, 11_689_512),
        ("danet34-t4.in1k", 22_152_104, 21_797_672),
        ("danet50-t4.in1k", 30_415_400, 25_557_032),
        ("danet101-t4.in1k", 49_407_528, 44_549_160),
        ("danet152-t4.in1k", 65_051_176, 60_192_808),
    ],
)
@pytest.mark.parametrize("order", ["", "c"])
def test_parameter_counts_are_those_of_resnet_plus_links(
    name: str, with_links: int, without: int, order: str
) -> None:
    with torch.device("meta"):
        counts = [
            parameters(zoo.create(name.replace("-t4", f"{order}-t4"), links=links))
            for links in (True, False)
        ]
    assert counts == [with_links, without]


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("links", [True, False], ids=["links", "plain"])
@pytest.mark.parametrize("bottleneck", [False, True], ids=["basic", "bottleneck"])
@pytest.mark.parametrize("order", [*ORDERS, "plain", "post"])
def test_a_still_image_is_the_same_image_at_every_step(
    order: str,
    bottleneck: bool,
    links: bool,
    stem: str,
    exact: Build,
    pixels: Callable[..., Tensor],
    record: Callable[..., Any],
) -> None:
    model = exact(order=order, bottleneck=bottleneck, links=links, stem=stem)
    still, calls = pixels(3, 1, 27, 29), record(model)
    logits = model(still)
    assert logits.shape == (3, 5)
    assert any(spikes.any() for made in calls.values() for _, spikes in made)
    torch.testing.assert_close(model(still.expand(2, 3, 1, 27, 29)), logits)


@pytest.mark.parametrize("order", ORDERS)
def test_events_of_every_step_count(
    order: str, exact: Build, pixels: Callable[..., Tensor]
) -> None:
    model, events = exact(order=order), pixels(2, 3, 1, 9, 9)
    assert not torch.equal(model(events), model(events.flip(0)))


@pytest.mark.parametrize("order", ORDERS)
def test_the_stem_runs_once_for_a_still_image(
    order: str, tiny: Build, record: Callable[..., Any]
) -> None:
    model = tiny(order=order, steps=4)
    calls = record(model.stem, nn.Conv2d)
    model(torch.rand(3, 1, 8, 8))
    model(torch.rand(4, 3, 1, 8, 8))
    assert [len(x) for x, _ in calls["conv"]] == [3, 12]


@pytest.mark.parametrize("bottleneck", [False, True], ids=["basic", "bottleneck"])
@pytest.mark.parametrize("order", ORDERS)
def test_convolutions_read_spikes(
    order: str, bottleneck: bool, exact: Build, record: Callable[..., Any]
) -> None:
    """Binary in a, b and d; integer counts, above one where blocks add up, in c. A projection pools
    before it convolves: what counts is what its pool reads.
    """
    model = exact(order=order, bottleneck=bottleneck, depths=(2, 3))
    calls = record(model, (nn.Conv2d, Projection))
    model(torch.randn(4, 1, 16, 16) * 3)
    read = {
        name: calls[name][0][0]
        for name in calls
        if not name.startswith("stem.")
        and not name.endswith(("shortcut.conv", "link0.conv", "link1.conv"))
    }
    assert len(read) == 5 * (3 if bottleneck else 2) + 3 + {"d": 0}.get(order, 1 + bottleneck * 1)
    for name, x in read.items():
        assert torch.equal(x, x.round()) and x.min() >= 0, name
        assert order == "c" or x.max() <= 1, name
    peak = max(x.max() for x in read.values())
    assert peak > 1 if order == "c" else peak == 1


@pytest.mark.parametrize("order", ORDERS)
def test_densely_additive_sum(
    order: str, exact: Build, record: Callable[..., Any], pixels: Callable[..., Tensor]
) -> None:
    """`f'_k = f_k + sum_{j<k} P_jk(f'_j)`, every term computed here from the weights."""
    model = exact(order=order, depths=(1, 2, 1), widths=(4, 8, 16))
    calls = record(model, nn.Module)
    model(pixels(3, 1, 12, 12))
    weights = model.state_dict()

    def projected(source: Tensor, path: str, window: int) -> Tensor:
        y = F.conv2d(F.avg_pool2d(source, window), weights[f"{path}.conv.weight"])
        bn = (
            weights[f"{path}.bn.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
        )
        y = F.batch_norm(y, *bn, eps=2**-40)
        return Lif(2)(y) if order == "c" else y

    for k, last in enumerate(("block0", "block1", "block0"), 1):
        expected = calls[f"stage{k}.{last}"][0][1]  # f_k
        for j in range(k):
            source = calls[f"stage{j + 1}.block0"][0][0]  # f'_j
            if order != "c":
                opening = ["bn1", "lif1"] if order == "b" else ["lif1"]
                for part in opening:
                    source = model.get_submodule(f"stage{j + 1}.block0.{part}")(source)
            expected = expected + projected(source, f"stage{k}.link{j}", 2 ** (k - max(j, 1)))
        found = calls[f"stage{k}"][0][1][0]
        assert torch.equal(found, expected), f"stage{k}"
        assert not torch.equal(found, calls[f"stage{k}.{last}"][0][1])


@pytest.mark.parametrize("order", ORDERS)
def test_every_neuron_runs_once(order: str, exact: Build, record: Callable[..., Any]) -> None:
    """The neuron that opens a stage is shared by its convolution, its shortcut and all links of
    that source.
    """
    model = exact(order=order, depths=(1, 1, 1), widths=(4, 8, 16))
    calls = record(model, Lif)
    model(torch.rand(2, 1, 8, 8))
    assert {name: len(made) for name, made in calls.items()} == {
        n: 1 for n, m in model.named_modules() if isinstance(m, Lif)
    }


@pytest.mark.parametrize("order", ["d", "plain"])
def test_only_the_links_carry_the_sum_without_shortcuts(order: str, tiny: Build) -> None:
    model = tiny(order=order)
    assert not any(
        block.add or block.shortcut for block in model.modules() if isinstance(block, Block)
    )
    # stem -> 1, stem -> 2, 1 -> 2
    assert Counter(type(m).__name__ for m in model.modules())["Projection"] == 3


def test_links_that_are_not_dense_come_from_the_stage_before(
    exact: Build, record: Callable[..., Any], pixels: Callable[..., Tensor]
) -> None:
    model = exact(order="plain", dense=False, depths=(1, 1, 1), widths=(4, 8, 16))
    calls = record(model, nn.Module)
    model(pixels(3, 1, 12, 12))
    assert [name for name in calls if "link" in name and name.count(".") == 1] == [
        "stage2.link1",
        "stage3.link2",
    ]
    for k in (2, 3):
        assert calls[f"stage{k}.link{k - 1}"][0][0] is calls[f"stage{k - 1}"][0][1][0]


@pytest.mark.parametrize("bottleneck", [False, True], ids=["basic", "bottleneck"])
@pytest.mark.parametrize("links", [True, False], ids=["links", "plain"])
@pytest.mark.parametrize("order", [*ORDERS, "plain", "post"])
def test_gradient_reaches_every_parameter(
    order: str, links: bool, bottleneck: bool, tiny: Build
) -> None:
    model = tiny(order=order, links=links, bottleneck=bottleneck)
    F.cross_entropy(model(torch.randn(8, 1, 9, 11)), torch.arange(8) % 5).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize("order", ORDERS)
def test_deterministic_and_stateless(order: str, tiny: Build) -> None:
    model, x = tiny(order=order).eval(), torch.randn(3, 1, 8, 8)
    first = model(x)
    model(torch.randn(5, 1, 10, 10))
    assert torch.equal(model(x), first)


def test_the_seed_determines_the_weights(tiny: Build) -> None:
    weights = []
    for _ in range(2):
        torch.manual_seed(3)
        weights.append(tiny().state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


class StepLif(nn.Module):
    """One step at a time, with a memory: what a simulator or a chip does."""

    def __init__(self, lif: Lif) -> None:
        super().__init__()
        self.neuron, self.mem = lif.neuron, torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        spikes, self.mem = self.neuron(x, self.mem.expand_as(x))
        return spikes


@pytest.mark.parametrize("bottleneck", [False, True], ids=["basic", "bottleneck"])
@pytest.mark.parametrize("order", [*ORDERS, "plain", "post"])
def test_time_folded_into_the_batch_is_a_loop_over_time(
    order: str, bottleneck: bool, exact: Build, pixels: Callable[..., Tensor]
) -> None:
    model = exact(order=order, bottleneck=bottleneck, steps=4)
    stepwise = exact(order=order, bottleneck=bottleneck, steps=1)
    stepwise.load_state_dict(model.state_dict())
    for name in [n for n, m in stepwise.named_modules() if isinstance(m, Lif)]:
        stepwise.set_submodule(name, StepLif(stepwise.get_submodule(name)))
    events = pixels(4, 3, 1, 10, 10)
    torch.testing.assert_close(torch.stack([stepwise(x) for x in events]).mean(0), model(events))


@pytest.mark.parametrize(
    "shape", [(8, 8), (1, 8, 8), (3, 2, 1, 8, 8), (1, 2, 2, 1, 8, 8), (2, 3, 8, 8), (2, 2, 3, 8, 8)]
)
def test_input_of_a_wrong_shape_is_refused(shape: tuple[int, ...], tiny: Build) -> None:
    with pytest.raises(InputError, match=r"expected|channels") as error:
        tiny()(torch.zeros(shape))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            torch.zeros(2, 1, 8, 8, dtype=torch.uint8),
            r"input of type torch\.uint8: a network takes a tensor of floats, "
            r"as `model\.transform\(pixels\)` makes of bytes",
        ),
        (torch.zeros(2, 1, 8, 8, dtype=torch.bool), r"input of type torch\.bool"),
        (torch.zeros(2, 1, 8, 8).numpy(), "input of type ndarray"),
        (torch.zeros(0, 1, 8, 8), r"input of shape \[0, 1, 8, 8\] holds no images"),
        (torch.zeros(2, 0, 1, 8, 8), r"input of shape \[2, 0, 1, 8, 8\] holds no images"),
    ],
)
def test_input_of_another_kind_is_refused(
    given: Any, said: str, training: bool, tiny: Build
) -> None:
    with pytest.raises(InputError, match=said):
        tiny().train(training)(given)


def test_the_state_of_a_wrapped_network_is_loaded(tiny: Build) -> None:
    model, other, x = tiny().eval(), tiny().eval(), torch.randn(2, 1, 8, 8)
    other.load_state_dict(nn.DataParallel(model).state_dict())
    assert torch.equal(other(x), model(x))
    wrapped = nn.DataParallel(tiny().eval())
    wrapped.load_state_dict(nn.DataParallel(model).state_dict())
    assert torch.equal(wrapped.module(x), model(x))


def test_a_state_that_has_a_weight_twice_is_refused(tiny: Build) -> None:
    state = tiny().state_dict()
    with pytest.raises(RuntimeError, match=r"Unexpected key.*module\.head\.fc\.bias"):
        tiny().load_state_dict(state | {"module.head.fc.bias": state["head.fc.bias"] + 1})


def test_input_of_another_precision_is_refused_outside_of_autocast(tiny: Build) -> None:
    model, x = tiny().eval(), torch.zeros(2, 1, 8, 8)
    with pytest.raises(
        InputError,
        match=r"input of type torch\.float16 for weights of torch\.float32: convert one of them",
    ):
        model(x.half())
    with torch.autocast("cpu", torch.bfloat16):
        assert model(x.bfloat16()).isfinite().all()
    assert model.double()(x.double()).dtype == torch.float64


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_input_that_is_not_finite_is_refused(value: float, tiny: Build) -> None:
    """A neuron would swallow it."""
    x = torch.zeros(2, 1, 8, 8)
    x[1, 0, 3, 4] = value
    with pytest.raises(InputError, match="NaN or infinite"):
        tiny().eval()(x)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"order": "e"}, "'e' must be one of 'a', 'b', 'c', 'd', 'plain', 'post'"),
        ({"order": 5}, "order = 5"),
        ({"join": None}, "join = None"),
        ({"stem": "large"}, "stem = 'large'"),
        ({"links": "yes"}, "links = 'yes'"),
        ({"bottleneck": 1}, "bottleneck = 1"),
        ({"depths": (2, 2)}, r"depths \(2, 2\)"),
        ({"depths": 3}, "depths = 3"),
        ({"depths": (), "widths": ()}, r"depths \(\)"),
        ({"depths": (1, 0, 1, 1)}, "entry 2 of depths = 0 must be from 1 to 256"),
        ({"depths": (1, 2.0, 1, 1)}, "entry 2 of depths = 2.0 must be a whole number"),
        ({"widths": (10**9, 1, 1, 1)}, "entry 1 of widths = 1000000000 must be from 1 to 16384"),
        ({"widths": (2, 4, 8, 16), "bottleneck": True}, "multiples of 4"),
        ({"steps": 0}, "steps = 0"),
        ({"steps": True}, "steps = true"),
        ({"steps": 10**6}, "steps = 1000000"),
        ({"in_channels": -1}, "in_channels = -1"),
        ({"num_classes": 0}, "num_classes = 0"),
        ({"beta": 1.5}, "beta = 1.5"),
        ({"beta": float("nan")}, "beta = nan"),
        ({"beta": None}, "beta = None"),
        ({"threshold": 0.0}, "threshold = 0.0"),
        ({"threshold": [1.0]}, "threshold = "),
    ],
    ids=str,
)
def test_a_config_that_describes_no_network_is_refused(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named) as error:
        DANetConfig.from_dict(fields)
    assert "\n" not in str(error.value)


def test_an_unknown_config_field_is_named() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'colour'; valid are depths, .*, surrogate"):
        DANetConfig.from_dict({"colour": 1})


@pytest.mark.parametrize("surrogate", ["atan", "rectangle"])
def test_config_round_trip(surrogate: str) -> None:
    config = DANetConfig(depths=(1,), widths=(8,), surrogate=surrogate, beta=0.25, threshold=0.5)
    assert (
        DANetConfig.from_dict(
            {k: list(v) if isinstance(v, tuple) else v for k, v in config.to_dict().items()}
        )
        == config
    )


def test_small_parts() -> None:
    x = torch.arange(2.0).view(2, 1, 1, 1)
    assert Repeat(3)(x).flatten().tolist() == [0, 1, 0, 1, 0, 1]
    assert Readout(2)(torch.tensor([1.0, 2.0, 5.0, 8.0]).view(4, 1, 1, 1)).tolist() == [
        [3.0],
        [5.0],
    ]
    assert Head(4, 2, 2, order="c", neuron=lambda: Lif(2)).lif is None


# The networks of the paper and of the baselines, in words of the config.
VARIANTS: dict[str, dict[str, Any]] = {
    **{order: {"order": order} for order in ORDERS},
    "bottleneck": {"bottleneck": True},
    "speck": {"order": "plain", "dense": False, "beta": 1.0, "reset": "subtract"},
    "spiking": {"order": "post", "links": False, "down": "stride"},
    "sew": {"order": "c", "links": False, "stem": "sew", "down": "stride", "join": "iand"},
    "ms": {
        "order": "a",
        "links": False,
        "stem": "ms",
        "shortcut_reads": "stream",
        "surrogate": "rectangle",
    },
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS)
def variant(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"threshold": 0.5, **request.param}


def images_or_events(kind: str, steps: int) -> Tensor:
    return torch.randn(*([steps] if kind == "events" else []), 3, 1, 16, 16) * 2


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize("kind", ["still", "events"])
@pytest.mark.parametrize("steps", [1, 3, 6])
def test_a_network_of_other_steps_is_one_created_with_them(
    steps: int, kind: str, training: bool, variant: dict[str, Any], tiny: Build
) -> None:
    model, created = tiny(**variant, steps=4), tiny(**variant, steps=steps)
    created.load_state_dict(model.state_dict())
    x = images_or_events(kind, steps)
    set_steps(model, steps)
    timed = [module for module in model.modules() if hasattr(module, "steps")]
    assert {type(module) for module in timed} == {Lif, Repeat, Readout} and {
        module.steps for module in timed
    } == {steps}
    model.train(training), created.train(training)
    logits = model(x)
    assert torch.equal(logits, created(x)) and logits.shape == (3, 5)
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), created.buffers(), strict=True))


def test_other_steps_and_back_change_nothing(variant: dict[str, Any], tiny: Build) -> None:
    model, x = tiny(**variant).eval(), images_or_events("still", 2)
    before, weights = model(x), {key: value.clone() for key, value in model.state_dict().items()}
    set_steps(model, 5)
    set_steps(model, 2)
    assert torch.equal(model(x), before)
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert model.config.steps == 2


@pytest.mark.parametrize("given", [1, 2, 4])
def test_events_of_another_number_of_steps_are_refused(given: int, tiny: Build) -> None:
    model = tiny(steps=2)
    set_steps(model, 3)
    with pytest.raises(
        InputError, match=rf"\[{given}, 4, 1, 8, 8\]: expected \[B, C, H, W\] or \[3, B, C, H, W\]"
    ):
        model(torch.zeros(given, 4, 1, 8, 8))
    with pytest.raises(InputError, match="expected"):
        model.per_step(torch.zeros(given, 4, 1, 8, 8))
    assert model(torch.zeros(3, 4, 1, 8, 8)).shape == (4, 5)


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize("kind", ["still", "events"])
def test_the_mean_of_every_step_s_logits_is_forward(
    kind: str, training: bool, variant: dict[str, Any], tiny: Build
) -> None:
    model, x = tiny(**variant, steps=4).train(training), images_or_events(kind, 4)
    per_step, logits = model.per_step(x), model(x)
    assert per_step.shape == (4, 3, 5)
    assert (per_step.mean(0) - logits).abs().max() <= 1e-6 * logits.abs().max()
    assert (per_step - per_step[0]).abs().max() > 1e-3, "the steps differ"


def test_a_step_s_logits_depend_on_no_later_step(variant: dict[str, Any], tiny: Build) -> None:
    model, events = tiny(**variant, steps=4).eval(), images_or_events("events", 4)
    whole = model.per_step(events)
    changed = model.per_step(torch.cat([events[:2], -events[2:]]))
    assert torch.equal(changed[:2], whole[:2]) and not torch.equal(changed[2:], whole[2:])
    set_steps(model, 2)
    torch.testing.assert_close(model.per_step(events[:2]), whole[:2])


def test_every_step_s_logits_reach_every_parameter(variant: dict[str, Any], tiny: Build) -> None:
    model = tiny(**variant, steps=3)
    model.per_step(images_or_events("events", 3)).square().sum().backward()
    assert [
        name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()
    ] == []


@pytest.mark.parametrize("kind", ["still", "events"])
@pytest.mark.parametrize("order", ORDERS)
def test_features_and_head_are_the_network(
    order: str, kind: str, tiny: Build, record: Callable[..., Any]
) -> None:
    model, x = (
        tiny(order=order).eval(),
        torch.randn(*((2,) if kind == "events" else ()), 3, 1, 8, 8),
    )
    features = model.forward_features(x)
    # spikes, or sums of them
    assert features.shape == (2, 3, 32, 4, 4) and torch.equal(features, features.round())
    assert torch.equal(model.forward_head(features), model(x))
    calls = record(model, Readout)
    model(x)
    ((read, _),) = calls["head.readout"]
    assert torch.equal(features.flatten(0, 1), read)


def test_features_follow_the_time_steps_that_were_set(tiny: Build) -> None:
    model = tiny()
    set_steps(model, 3)
    assert model.forward_features(torch.randn(2, 1, 8, 8)).shape == (3, 2, 32, 4, 4)


def test_gradients_of_features_reach_everything_but_the_head(tiny: Build) -> None:
    model = tiny()
    model.forward_features(torch.randn(2, 1, 8, 8)).mean().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == [
        "head.fc.weight",
        "head.fc.bias",
    ]


def test_another_classifier_is_new_and_leaves_the_rest(tiny: Build) -> None:
    model = tiny().double()
    before, keys = (
        model.forward_features(torch.ones(1, 1, 8, 8).double()),
        model.state_dict().keys(),
    )
    model.reset_classifier(7)
    assert (
        model.config.num_classes == 7 and model.state_dict().keys() == keys and model.origin is None
    )
    assert model.head.fc.weight.shape == (7, 32) and model.head.fc.weight.dtype == torch.float64
    # random, every time
    assert not torch.equal(*(model.reset_classifier(7) or model.head.fc.weight for _ in range(2)))
    assert torch.equal(model.train().forward_features(torch.ones(1, 1, 8, 8).double()), before)
    assert model(torch.ones(1, 1, 8, 8).double()).shape == (1, 7)


@pytest.mark.parametrize("number", [0, -1, 2.0, True, "5", None])
def test_a_classifier_of_no_classes_is_refused(number: Any, tiny: Build) -> None:
    model = tiny()
    head, config = model.head.fc, model.config
    with pytest.raises(ConfigError, match="num_classes = "):
        model.reset_classifier(number)
    assert model.head.fc is head and model.config is config


@pytest.mark.slow
# dynamo's way with snnTorch's surrogates
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_features_are_exported_and_compiled(tiny: Build) -> None:
    class Features(nn.Module):
        def __init__(self, model: DANet) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            return self.model.forward_features(x)

    features, x = Features(tiny().eval()), torch.randn(2, 1, 8, 8)
    exported = torch.export.export(
        features, (x,), dynamic_shapes={"x": {0: torch.export.Dim("B")}}
    ).module()
    compiled = torch.compile(features, backend="eager")
    for inputs in (x, torch.randn(5, 1, 8, 8)):
        assert torch.equal(exported(inputs), features(inputs)) and torch.equal(
            compiled(inputs), features(inputs)
        )


@pytest.mark.parametrize("steps", [1, 3])
def test_a_repeated_image_keeps_the_memory_format_in_training(steps: int) -> None:
    x = torch.randn(2, 5, 4, 4).contiguous(memory_format=torch.channels_last)
    repeated = Repeat(steps).train()(x)
    assert torch.equal(repeated, x.repeat(steps, 1, 1, 1))
    assert repeated.is_contiguous(memory_format=torch.channels_last)
