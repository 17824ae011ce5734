"""Operations, memory and hours of the recipes, counted from the shapes of their networks.

    python benchmarks/training_cost.py [--peak TFLOP/s] [--share 0.25] [--small]

Operations are MAC of an image and FLOP of an epoch; memory is in MB per image and GB per batch.
Both are counted once, exactly; hours are estimated from them. It needs no data and no GPU.
README.md describes what is counted.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from train_once import batch_of, network_of

import zoo
from zoo.names import ModelSpec
from zoo.training.config import Recipe

RESULTS = Path(__file__).with_name("results")
IMAGES = {
    "in1k": 1_281_167,
    "tin200": 100_000,
    "cifar10": 50_000,
    "fmnist": 60_000,
    "nmnist": 60_000,
    "dvsgesture": 1_077,
}
PRICED = (
    *(f"danet{depth}-t4.in1k" for depth in (18, 34, 50, 101, 152)),
    "danet18-t4.tin200",
    "danet18-t4.cifar10",
    "danet20-t4.fmnist",
    "danet20-t10.nmnist",
    "danet18-t16.dvsgesture",
)
# The layers of images with fewer pixels a side do not fill a GPU: they stay far below the share of
# the peak that those of large images reach.
FILLS_A_GPU_PIXELS = 224
HEADER = """\
  network                  params  GMAC/image  epochs  PFLOP/epoch     PFLOP     hours  batch  \
MB/image     GB  MB/image
                                    (forward)          (3 forwards)   in all  (estim.)           \
(kept)         (spread)"""
LEGEND = """\
  hours: at an assumed {:.0f} TFLOP/s on one device, both passes only; '>': a lower bound, as small
  layers do not fill a GPU. kept: what lives on after the forward pass for the backward pass, \
counted; spread: the
  same in one of several processes. GB: that of a batch, and weights, gradients, momentum, average \
and the evaluated
  copy, without what an operation needs while it runs."""


def main() -> None:
    """Print the table of the recipes, and the hours that follow from measured steps."""
    parser = argparse.ArgumentParser(description="Count what the recipes cost.")
    add = parser.add_argument
    peak = "of the device (default: H100, dense bf16)"
    add("--peak", type=float, default=989, metavar="TFLOP/s", help=peak)
    share = "of the peak that is assumed to be reached (default 0.25)"
    add("--share", type=float, default=0.25, help=share)
    add("--small", action="store_true", help="a smoke run: one small network")
    options = parser.parse_args()
    for flag in ("peak", "share"):
        if not getattr(options, flag) > 0:
            parser.error(f"--{flag} must be above 0")
    torch.set_num_threads(1)
    names = ("danet20-t4.fmnist",) if options.small else PRICED
    print_table(names, options.peak * 1e12 * options.share)
    print_measured()


def print_table(names: tuple[str, ...], flops: float) -> None:
    """Print a row for each network; `flops` is the FLOP per second of the device."""
    print("what the recipes cost: operations and kept memory are counted, hours are estimates")
    print(HEADER)
    for name in names:
        price = price_of(name)
        epochs, batch = price.recipe.epochs, price.recipe.batch_size
        petaflop = price.flop * price.images / 1e15  # of an epoch
        hours = f"{petaflop * epochs / flops * 1e15 / 3600:.2g}"
        is_bound = zoo.info(name).data.size < FILLS_A_GPU_PIXELS
        gigabytes = (price.kept * batch + price.states) / 1e9
        print(
            f"  {name:22} {price.parameters / 1e6:7.2f}M {price.macs / 1e9:11.3f} {epochs:7d} "
            f"{petaflop:12.3f} {petaflop * epochs:9.1f} {'> ' * is_bound + hours:>9} {batch:6d} "
            f"{price.kept / 1e6:9.1f} {gigabytes:6.1f} {price.kept_spread / 1e6:9.1f}"
        )
    print(LEGEND.format(flops / 1e12))


@dataclass(frozen=True)
class Price:
    """The cost of training a network by its recipe."""

    recipe: Recipe
    images: int  # of the training split
    parameters: int
    macs: int  # of the forward pass of one image, all time steps
    kept: int  # bytes for the backward pass, per image
    # the same in one of several processes, which cannot compute their common BatchNorm again alone
    kept_spread: int
    states: int  # bytes of everything that has the size of the weights

    @property
    def flop(self) -> int:
        """FLOP of a training image: two for each MAC, and thrice the forward pass in all."""
        return 3 * 2 * self.macs


def price_of(name: str) -> Price:
    """Count in forward passes of one and of two images.

    Their difference leaves out all memory that does not grow with the batch.
    """
    dataset = ModelSpec.parse(name).dataset
    assert dataset is not None
    recipe = Recipe.load(dataset)
    bf16 = recipe.bf16 is not False  # "auto": the device that is priced computes in it
    net = network_of(name, "ours")
    images = [batch_of(name, batch)[0] for batch in (1, 2)]
    (one, macs), (two, _) = (_forward(net, x, bf16) for x in images)
    _spread_norms(net)
    spread_one, spread_two = (_forward(net, x, bf16)[0] for x in images)
    parameters = sum(p.numel() for p in net.parameters())
    # In float32 there are weights, gradients, momentum, the evaluated copy, and the average; in
    # bfloat16 the weights once more.
    states = parameters * (4 * (4 + (recipe.ema > 0)) + 2 * bf16)
    return Price(
        recipe, IMAGES[dataset], parameters, macs, two - one, spread_two - spread_one, states
    )


class _SpreadNorm(nn.BatchNorm2d):
    """A BatchNorm of a type that the network does not know how to compute again.

    It keeps what torch's `SyncBatchNorm` keeps.
    """


def _spread_norms(net: nn.Module) -> None:
    """Replace every BatchNorm of a network by a `_SpreadNorm`."""
    for path, module in list(net.named_modules()):
        if type(module) is nn.BatchNorm2d:
            norm = _SpreadNorm(module.num_features)
            net.set_submodule(path, norm.train(module.training))


def _forward(net: nn.Module, x: Tensor, bf16: bool) -> tuple[int, int]:
    """Return the bytes that a forward pass keeps for the backward pass, and its MAC."""
    macs = 0

    def count(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs
        weight = layer.weight
        assert isinstance(weight, Tensor)
        macs += output.numel() * weight[0].numel()

    layers = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    own = {tensor.untyped_storage()._cdata for tensor in (*net.parameters(), *net.buffers(), x)}
    try:
        with _Storages() as storages, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = net(x)
    finally:
        for hook in hooks:
            hook.remove()
    kept = sum(
        size for key, (ref, size) in storages.seen.items() if key not in own and not ref.expired()
    )
    return kept - logits.untyped_storage().nbytes(), macs


class _Storages(TorchDispatchMode):
    """Notes every piece of memory that an operation returns.

    Hooks on saved tensors would miss what inner hooks pack.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self.seen[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        return result


def print_measured() -> None:
    """Print the hours of a recipe at the speeds that training.py has saved."""
    print("measured steps, without reading, changing and testing images:")
    entries = [
        entry
        for path in sorted(RESULTS.glob("training-*.json"))
        for entry in json.loads(path.read_text())["throughput"]
    ]
    for entry in entries:
        dataset, speed = entry["network"].partition(".")[2], entry["images_per_second"]
        epochs = Recipe.load(dataset).epochs
        hours = IMAGES[dataset] * epochs / speed / 3600
        print(
            f"  {entry['network']:22} {entry['precision']}, batch {entry['batch']}: {speed:.1f} "
            f"images/s, so {hours:,.1f} hours for {epochs} epochs; {entry['where']}"
        )
    if not entries:
        print("  none here yet (python benchmarks/training.py --save keeps them)")


if __name__ == "__main__":
    main()
