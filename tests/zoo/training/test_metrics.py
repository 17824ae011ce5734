"""A run records the firing of known spike patterns, lines of metrics, and TensorBoard events."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zoo.danet import DANet
from zoo.neurons import Lif
from zoo.training.metrics import LayerFiring, MetricsLogger, record_firing_rates

RATES = {
    "stage1.block0.lif1": LayerFiring(0.25, 0.5, 0.0),
    "head.lif": LayerFiring(0.125, 0.0, 0.25),
}


def currents(pattern: list[list[int]]) -> Tensor:
    """`[T*B, C, 1, 1]`: for every step and image, which channels are to fire; membranes forget at
    once.
    """
    return torch.tensor(pattern)[:, :, None, None] * 4.0 - 2.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
@pytest.mark.parametrize(
    ("pattern", "rate", "dead", "saturated"),
    [
        ([[0, 0], [0, 0], [0, 0], [0, 0]], 0.0, 1.0, 0.0),
        ([[1, 1], [1, 1], [1, 1], [1, 1]], 1.0, 0.0, 1.0),
        ([[0, 1], [0, 1], [0, 1], [0, 1]], 0.5, 0.5, 0.5),
        ([[1, 0], [0, 0], [0, 0], [0, 0]], 0.125, 0.5, 0.0),  # at one step of one image
        ([[1, 1], [1, 0], [1, 1], [1, 1]], 0.875, 0.0, 0.5),
        ([[1, 0], [0, 1], [1, 0], [0, 1]], 0.5, 0.0, 0.0),  # one image each
        ([[1, 0], [1, 0], [0, 1], [0, 1]], 0.5, 0.0, 0.0),  # one step each
    ],
    ids=str,
)
def test_firing_of_known_patterns(
    pattern: list[list[int]], rate: float, dead: float, saturated: float, dtype: torch.dtype
) -> None:
    model = nn.Sequential(nn.Identity(), Lif(2, beta=0.0))
    with record_firing_rates(model) as rates:
        spikes = model(currents(pattern).to(dtype))
    assert spikes.flatten(1).tolist() == pattern
    assert rates == {"1": (rate, dead, saturated)}


@pytest.mark.parametrize("images", [3, 49, 300])
def test_shares_of_any_number_of_images_are_exact(images: int) -> None:
    """A neuron that fires always does so whatever a mean rounds to."""
    model = nn.Sequential(Lif(1, beta=0.0))
    with record_firing_rates(model) as rates:
        model(currents([[1, 0, 1, i % 2] for i in range(images)]).bfloat16())
    assert rates["0"][1:] == (0.25, 0.5)
    assert rates["0"][0] == pytest.approx((2 * images + images // 2) / (4 * images), rel=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_every_neuron_layer_of_a_network_is_looked_at(
    training: bool, tiny: Callable[..., DANet], record: Any
) -> None:
    model, x = tiny(threshold=0.5).train(training), torch.randn(3, 1, 8, 8)
    calls = record(model)
    with record_firing_rates(model) as rates:
        logits = model(x)
    assert (
        rates.keys()
        == {name for name, module in model.named_modules() if isinstance(module, Lif)}
        == calls.keys()
    )
    for name, (rate, dead, saturated) in rates.items():
        spikes = calls[name][0][1].detach()
        assert rate == pytest.approx(spikes.mean().item(), rel=1e-5), name
        assert dead == pytest.approx((~spikes.bool().any(0)).float().mean().item()), name
        assert saturated == pytest.approx(spikes.bool().all(0).float().mean().item()), name
    assert any(rate > 0 for rate, _, _ in rates.values())
    assert torch.equal(model(x), logits)


def test_looking_changes_no_gradient(tiny: Callable[..., DANet]) -> None:
    model, x, gradients = tiny(threshold=0.5), torch.randn(3, 1, 8, 8), []
    for watched in (False, True):
        model.zero_grad()
        with record_firing_rates(model if watched else nn.Identity()):
            model(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def test_the_hooks_are_gone_afterwards() -> None:
    model = nn.Sequential(Lif(1), Lif(1))
    with record_firing_rates(model) as rates:
        assert hooks(model) == 2
        model(torch.ones(2, 1, 1, 1))
        assert rates == {}  # until the forward pass is over
    assert hooks(model) == 0
    before = dict(rates)
    model(torch.full((2, 1, 1, 1), 9.0))
    assert rates == before and rates.keys() == {"0", "1"}


def test_the_hooks_are_gone_after_an_exception() -> None:
    model = nn.Sequential(Lif(1), Lif(1))
    with pytest.raises(KeyError), record_firing_rates(model):
        model(torch.ones(2, 1, 1, 1))
        raise KeyError
    assert hooks(model) == 0


def test_a_model_without_neurons_fires_nothing() -> None:
    with record_firing_rates(nn.Identity()) as rates:
        nn.Identity()(torch.ones(1))
    assert rates == {}


@pytest.fixture
def open_logger(tmp_path: Path) -> Iterator[Callable[..., MetricsLogger]]:
    """`open_logger(step)`: the logger of a run that goes on at that step."""
    made: list[MetricsLogger] = []

    def start(step: int = 0) -> MetricsLogger:
        made.append(MetricsLogger(tmp_path, step))
        return made[-1]

    yield start
    for one in made:
        one.close()


def line(epoch: int, step: int) -> dict[str, Any]:
    return {"epoch": epoch, "step": step, "lr": 0.1, "train_loss": 1.5, "test_top1": step / 100}


def epochs(run: Path) -> list[int]:
    return [json.loads(text)["epoch"] for text in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_new_run_has_no_metrics(
    open_logger: Callable[..., MetricsLogger], tmp_path: Path
) -> None:
    one = open_logger()
    assert not (tmp_path / "metrics.jsonl").exists()
    one.log_epoch(line(1, 10))
    one.log_epoch(line(2, 20))
    assert [json.loads(text) for text in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        line(1, 10),
        line(2, 20),
    ]
    assert one.last_epoch() == line(2, 20)


@pytest.mark.parametrize(
    ("step", "kept"), [(0, []), (9, []), (10, [1]), (25, [1, 2]), (30, [1, 2, 3]), (99, [1, 2, 3])]
)
def test_lines_beyond_the_step_are_dropped(
    step: int, kept: list[int], open_logger: Callable[..., MetricsLogger], tmp_path: Path
) -> None:
    first = open_logger()
    for epoch in (1, 2, 3):
        first.log_epoch(line(epoch, 10 * epoch))
    first.close()
    resumed = open_logger(step)
    assert epochs(tmp_path) == kept
    resumed.log_epoch(line(len(kept) + 1, 10 * len(kept) + 10))
    assert epochs(tmp_path) == [*kept, len(kept) + 1]


@pytest.mark.parametrize("cut", ['{"epoch": 3, "st', '{"epoch": 3, "step": 3', "{"], ids=str)
def test_a_line_that_a_kill_cut_is_dropped(
    cut: str, open_logger: Callable[..., MetricsLogger], tmp_path: Path
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line(epoch, epoch)) + "\n" for epoch in (1, 2)) + cut)
    resumed = open_logger(5)
    assert epochs(tmp_path) == [1, 2]
    resumed.log_epoch(line(3, 6))
    assert epochs(tmp_path) == [1, 2, 3]


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard itself reads: tag -> (step, value)."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_tensorboard_reads_what_was_written(
    open_logger: Callable[..., MetricsLogger], tmp_path: Path
) -> None:
    one = open_logger()
    for step in (1, 2):
        one.log_step(step, {"train/loss": 2.0 / step, "lr": 0.5}, RATES if step == 2 else {})
    one.log_epoch(line(1, 2))
    one.close()
    expected = {
        "train/loss": [(1, 2.0), (2, 1.0)],
        "lr": [(1, 0.5), (2, 0.5)],
        "firing_rate/stage1.block0.lif1": [(2, 0.25)],
        "dead/stage1.block0.lif1": [(2, 0.5)],
        "saturated/stage1.block0.lif1": [(2, 0.0)],
        "firing_rate/head.lif": [(2, 0.125)],
        "dead/head.lif": [(2, 0.0)],
        "saturated/head.lif": [(2, 0.25)],
        "test/top1": [(2, pytest.approx(0.02))],
    }
    assert scalars(tmp_path) == expected


def test_an_epoch_is_on_disk_at_once(
    open_logger: Callable[..., MetricsLogger], tmp_path: Path
) -> None:
    """A kill may come before the run is closed."""
    one = open_logger()
    one.log_step(1, {"train/loss": 2.0}, {})
    one.log_epoch(line(1, 1))
    assert scalars(tmp_path) == {"train/loss": [(1, 2.0)], "test/top1": [(1, pytest.approx(0.01))]}


def test_a_resumed_run_takes_back_what_it_does_again(
    open_logger: Callable[..., MetricsLogger], tmp_path: Path
) -> None:
    first = open_logger()
    for step in range(1, 7):
        first.log_step(step, {"train/loss": 1.0}, {})
    first.close()
    assert [step for step, _ in scalars(tmp_path)["train/loss"]] == [1, 2, 3, 4, 5, 6]
    resumed = open_logger(4)
    resumed.log_step(5, {"train/loss": 0.5}, {})
    resumed.close()
    assert scalars(tmp_path) == {"train/loss": [(1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0), (5, 0.5)]}


def test_a_layer_that_falls_silent_warns_once_until_it_fires_again(
    open_logger: Callable[..., MetricsLogger], caplog: pytest.LogCaptureFixture
) -> None:
    silent, fires = LayerFiring(0.0, 1.0, 0.0), LayerFiring(0.5, 0.0, 0.0)
    one, warned = open_logger(), []
    for step, (a, b) in enumerate(
        [
            (fires, fires),
            (silent, fires),
            (silent, fires),
            (silent, silent),
            (fires, silent),
            (silent, silent),
        ],
        1,
    ):
        for rates in ({"a": a, "b": b}, {}):  # most steps are not looked at
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                one.log_step(step, {}, rates)
            warned += [
                (step, record.getMessage())
                for record in caplog.records
                if record.levelname == "WARNING"
            ]
    assert [(step, message.split(":")[0]) for step, message in warned] == [
        (2, "a is silent"),
        (4, "b is silent"),
        (6, "a is silent"),
    ]
    assert all(
        "at step" in message and "--set lr=" in message and "\n" not in message
        for _, message in warned
    )


def test_a_layer_of_which_one_neuron_fires_is_not_silent(
    open_logger: Callable[..., MetricsLogger], caplog: pytest.LogCaptureFixture
) -> None:
    open_logger().log_step(1, {}, {"a": LayerFiring(1e-6, 0.999, 0.0)})
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
