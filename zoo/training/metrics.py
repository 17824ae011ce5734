"""What a run shows while it goes: `metrics.jsonl`, TensorBoard, and how much each neuron layer
fires.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import ConfigError
from zoo.files import write_text
from zoo.neurons import Lif

__all__ = ["FiringRates", "MetricsLogger", "record_firing_rates"]

log = logging.getLogger(__name__)

FiringRates = dict[
    str, tuple[float, float, float]
]  # path of a neuron layer -> firing rate, share of dead, share of saturated neurons


@contextmanager
def record_firing_rates(model: nn.Module) -> Iterator[FiringRates]:
    """Fills a table with how each layer of `model` fires in the forward pass inside.

    The rate is in spikes per neuron and time step; a neuron, one of `[C, H, W]`, is dead if it
    fires at no step of any image, and saturated if it fires at every step of every image.
    """
    seen: dict[str, Tensor] = {}

    def hook(path: str) -> Any:
        def look(_: nn.Module, __: tuple[Tensor, ...], spikes: Tensor) -> None:
            fired = spikes.detach() != 0  # [T*B, C, H, W]
            seen[path] = torch.stack(
                [share.float().mean() for share in (fired, ~fired.any(0), fired.all(0))]
            )

        return look

    handles = [
        module.register_forward_hook(hook(path))
        for path, module in model.named_modules()
        if isinstance(module, Lif)
    ]
    found: FiringRates = {}
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
    for path, values in seen.items():
        rate, dead, saturated = values.tolist()
        found[path] = rate, dead, saturated


class MetricsLogger:
    """Writes a run's `metrics.jsonl` and TensorBoard events, and warns of layers that fall silent.

    `step`: where the run goes on; what an earlier process wrote of later steps is dropped, since
    they will be done again.
    """

    def __init__(self, run: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigError("TensorBoard is missing: install danet-zoo[train]") from None
        self.metrics = run / "metrics.jsonl"
        if self.metrics.exists():
            lines = [line for line in self._lines() if line["step"] <= step]
            write_text(self.metrics, "".join(f"{json.dumps(line)}\n" for line in lines))
        self.board = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)
        self.silent: set[str] = set()

    def step(self, step: int, values: dict[str, float], rates: FiringRates) -> None:
        """Scalars of one step, and of the layers that were looked at."""
        log.info(
            "step %d: %s", step, ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        )
        scalars = dict(values)
        for path, of_layer in rates.items():
            scalars |= {
                f"{what}/{path}": v
                for what, v in zip(("firing_rate", "dead", "saturated"), of_layer, strict=True)
            }
        for name, value in scalars.items():
            self.board.add_scalar(name, value, step)
        silent = {path for path, (rate, _, _) in rates.items() if rate == 0}
        for path in sorted(silent - self.silent):
            log.warning(
                "%s is silent: no neuron fired at step %d; a lower rate (--set lr=...) may help",
                path,
                step,
            )
        if rates:
            self.silent = silent

    def epoch(self, line: dict[str, Any]) -> None:
        """One line of `metrics.jsonl`."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        log.info("%s", line)
        for split in ("test", "validation"):
            if f"{split}_top1" in line:
                self.board.add_scalar(f"{split}/top1", line[f"{split}_top1"], line["step"])
        self.board.flush()

    def last(self) -> dict[str, Any]:
        """The last line of `metrics.jsonl`, empty if there is none."""
        return self._lines()[-1] if self.metrics.exists() and self._lines() else {}

    def _lines(self) -> list[dict[str, Any]]:
        """Those that are whole: a kill may have cut the last one."""
        found = []
        for text in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and "step" in line:
                found.append(line)
        return found

    def close(self) -> None:
        self.board.close()
