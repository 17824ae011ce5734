"""The executor of a model, in torch.

Shapes: `T` time steps, `B` images, `C` channels, `H` x `W` pixels, `K` classes.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from export.energy.counting.spikes import Spikes
from export.energy.executors.base import Executor, Source
from export.nir.exporter import node_name, to_nir
from zoo.activity import eval_mode, forward_hooks
from zoo.blocks import And, IAnd
from zoo.danet import DANet
from zoo.integrity import digest
from zoo.neurons import Lif
from zoo.provenance import provenance_of

__all__ = ["TorchExecutor"]


class TorchExecutor(Executor):
    """A model in eval mode, where its parameters lie.

    It adds two reductions for each layer of neurons to a plain forward pass.
    """

    def __init__(self, model: DANet) -> None:
        graph = to_nir(model, dialect="native")
        origin = model.known_origin
        source = Source(
            name=origin.name,
            engine=f"torch {torch.__version__}",
            steps=model.config.steps,
            data=origin.data,
            weights_sha256=digest(origin.weights),
            provenance=provenance_of(origin),
            weight_format=origin.weight_format,
        )
        super().__init__(graph, source)
        self.model = model

    def _run(self, x: Tensor, spikes: Spikes) -> Tensor:
        def hook(name: str) -> Callable[..., None]:
            def reduce(module: nn.Module, args: Any, train: Tensor) -> None:
                spikes.add(name, train, keep=name in self.keep)

            return reduce

        # A max pool and an AND are of spikes (`export.nir.exporter` refuses any other), and so
        # layers of neurons in the graph.
        neurons = {
            node_name(path): module
            for path, module in self.model.named_modules()
            if isinstance(module, Lif | nn.MaxPool2d | And | IAnd)
        }
        with eval_mode(self.model), torch.inference_mode(), forward_hooks(neurons, hook):
            logits: Tensor = self.model(x.to(next(self.model.parameters()).device))
        return logits.cpu()
