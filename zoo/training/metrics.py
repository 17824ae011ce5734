"""The records of a run: `metrics.jsonl`, TensorBoard, and the firing rate of each neuron layer."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zoo.activity import forward_hooks
from zoo.errors import ConfigError
from zoo.files import write_text
from zoo.neurons import Lif

__all__ = ["FiringRates", "LayerFiring", "MetricsLogger", "record_firing_rates"]

log = logging.getLogger(__name__)


class LayerFiring(NamedTuple):
    """The shares of a layer's neurons, one of `[C, H, W]` each, that fire; all are 0 to 1."""

    firing_rate: float  # spikes per neuron and time step
    dead: float  # share of the neurons that fire at no step of any image
    saturated: float  # share of the neurons that fire at every step of every image


FiringRates = dict[str, LayerFiring]  # by the path of the layer in the network


@contextmanager
def record_firing_rates(model: nn.Module) -> Iterator[FiringRates]:
    """Give a table that holds how each layer fired in the block, once the block has ended."""
    shares: dict[str, Tensor] = {}

    def record(path: str) -> Any:
        def hook(_: nn.Module, __: tuple[Tensor, ...], spikes: Tensor) -> None:
            fired = spikes.detach() != 0  # [T*B, C, H, W]
            tables = (fired, ~fired.any(0), fired.all(0))
            shares[path] = torch.stack([table.float().mean() for table in tables])

        return hook

    neurons = {path: module for path, module in model.named_modules() if isinstance(module, Lif)}
    rates: FiringRates = {}
    with forward_hooks(neurons, record):
        yield rates
    rates.update({path: LayerFiring(*values.tolist()) for path, values in shares.items()})


class MetricsLogger:
    """Writes a run's `metrics.jsonl` and TensorBoard events, and warns of layers that fall silent.

    `step` is where the run goes on: what an earlier process wrote of later steps is dropped, since
    they will be done again. Raises `ConfigError` where TensorBoard is not installed.
    """

    def __init__(self, run: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigError("TensorBoard is missing: install danet-zoo[train]") from None
        self.path = run / "metrics.jsonl"
        if self.path.exists():
            lines = [line for line in self._lines() if line["step"] <= step]
            write_text(self.path, "".join(f"{json.dumps(line)}\n" for line in lines))
        self.board = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)
        self.silent: set[str] = set()  # the layers that did not fire when last recorded

    def log_step(self, step: int, values: dict[str, float], rates: FiringRates) -> None:
        """Write the scalars of one step, and the firing of the layers that were recorded."""
        text = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        log.info("step %d: %s", step, text)
        scalars = dict(values)
        for path, layer in rates.items():
            scalars |= {f"{key}/{path}": share for key, share in layer._asdict().items()}
        for name, value in scalars.items():
            self.board.add_scalar(name, value, step)
        if rates:
            self._warn_of_silence(step, rates)

    def _warn_of_silence(self, step: int, rates: FiringRates) -> None:
        silent = {path for path, layer in rates.items() if layer.firing_rate == 0}
        for path in sorted(silent - self.silent):
            hint = "a lower rate (--set lr=...) may help"
            log.warning("%s is silent: no neuron fired at step %d; %s", path, step, hint)
        self.silent = silent

    def log_epoch(self, line: dict[str, Any]) -> None:
        """Append a line to `metrics.jsonl`; all is on disk when this returns."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        for split in ("test", "validation"):
            if f"{split}_top1" in line:
                self.board.add_scalar(f"{split}/top1", line[f"{split}_top1"], line["step"])
        self.board.flush()

    def last_epoch(self) -> dict[str, Any]:
        """Return the last line of `metrics.jsonl`, which is empty if there is none."""
        lines = self._lines() if self.path.exists() else []
        return lines[-1] if lines else {}

    def _lines(self) -> list[dict[str, Any]]:
        """Return the complete lines: a kill may have cut the last one."""
        lines = []
        for text in self.path.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and "step" in line:
                lines.append(line)
        return lines

    def close(self) -> None:
        """Close the file of TensorBoard."""
        self.board.close()
