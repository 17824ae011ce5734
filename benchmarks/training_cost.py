"""What the recipes cost: operations and memory of each, counted from the networks' shapes; hours,
estimated from them.

    python benchmarks/training_cost.py [--peak TFLOP/s] [--share 0.25] [--small]

Needs no data and no GPU. README.md says what is counted and how.
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
    "danet18-t4.tin200", "danet18-t4.cifar10", "danet20-t4.fmnist", "danet20-t10.nmnist", "danet18-t16.dvsgesture",
)  # fmt: skip
# pixels: the layers of smaller images do not, and stay far below any share of the peak that large
# ones reach
FILLS_A_GPU = 224


def main() -> None:
    parser = argparse.ArgumentParser(description="Count what the recipes cost.")
    parser.add_argument(
        "--peak",
        type=float,
        default=989,
        metavar="TFLOP/s",
        help="of the device (default: H100, dense bf16)",
    )
    parser.add_argument(
        "--share",
        type=float,
        default=0.25,
        help="of the peak that is assumed to be reached (default 0.25)",
    )
    parser.add_argument("--small", action="store_true", help="a smoke run: one small network")
    options = parser.parse_args()
    for flag in ("peak", "share"):
        if not getattr(options, flag) > 0:
            parser.error(f"--{flag} must be above 0")
    torch.set_num_threads(1)
    print_table(
        ("danet20-t4.fmnist",) if options.small else PRICED, options.peak * 1e12 * options.share
    )
    print_measured()


def print_table(names: tuple[str, ...], flops: float) -> None:
    """`flops`: floating-point operations a second of the device."""
    print("what the recipes cost: operations and kept memory are counted, hours are estimates")
    print(
        "  network                  params  GMAC/image  epochs  PFLOP/epoch     PFLOP     hours  batch  MB/image     GB  MB/image\n"
        "                                    (forward)          (3 forwards)   in all  (estim.)           (kept)         (spread)"
    )
    for name in names:
        c = price(name)
        epoch, epochs = c.flop * c.images / 1e15, c.recipe.epochs
        hours = epoch * epochs / flops * 1e15 / 3600
        least = "" if zoo.info(name).data.size >= FILLS_A_GPU else "> "
        kept, whole = c.kept / 1e6, (c.kept * c.recipe.batch_size + c.states) / 1e9
        print(
            f"  {name:22} {c.parameters / 1e6:7.2f}M {c.macs / 1e9:11.3f} {epochs:7d} {epoch:12.3f} {epoch * epochs:9.1f} "
            f"{least + format(hours, '.2g'):>9} {c.recipe.batch_size:6d} {kept:9.1f} {whole:6.1f} {c.kept_spread / 1e6:9.1f}"
        )
    print(
        f"  hours: at an assumed {flops / 1e12:.0f} TFLOP/s on one device, both passes only; '>': a lower bound, as small\n"
        "  layers do not fill a GPU. kept: what lives on after the forward pass for the backward pass, counted; spread: the\n"
        "  same in one of several processes. GB: that of a batch, and weights, gradients, momentum, average and the evaluated\n"
        "  copy, without what an operation needs while it runs."
    )


@dataclass(frozen=True)
class Price:
    recipe: Recipe
    images: int  # of the training split
    parameters: int
    macs: int  # of the forward pass of one image, all time steps
    kept: int  # bytes for the backward pass, an image
    # the same in one of several processes, whose BatchNorm cannot be computed again by each alone
    kept_spread: int
    states: int  # bytes of everything that has the size of the weights

    @property
    def flop(self) -> int:
        """Of one training image: a multiplication and an addition each, and the backward pass twice
        the forward pass.
        """
        return 3 * 2 * self.macs


def price(name: str) -> Price:
    """Counted in a forward pass of one and of two images, whose difference leaves out all that does
    not grow with the batch.
    """
    dataset = ModelSpec.parse(name).dataset
    assert dataset is not None
    recipe = Recipe.load(dataset)
    net = network_of(name, "ours")
    (one, macs), (two, _) = (
        _forward(net, batch_of(name, batch)[0], recipe.bf16) for batch in (1, 2)
    )
    for module in net.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = _Spread
    spread_one, spread_two = (
        _forward(net, batch_of(name, batch)[0], recipe.bf16)[0] for batch in (1, 2)
    )
    parameters = sum(p.numel() for p in net.parameters())
    # float32: weights, gradients, momentum, the evaluated copy, and the average; bfloat16: the
    # weights once more
    states = parameters * (4 * (4 + (recipe.ema > 0)) + 2 * recipe.bf16)
    return Price(
        recipe, IMAGES[dataset], parameters, macs, two - one, spread_two - spread_one, states
    )


class _Spread(nn.BatchNorm2d):
    """Of no type of which the network knows how to compute it again; keeps what torch's
    `SyncBatchNorm` keeps.
    """


def _forward(net: nn.Module, x: Tensor, bf16: bool) -> tuple[int, int]:
    """Bytes that live on after a training forward pass because the backward pass needs them, and
    MACs of all weighted layers.
    """
    macs = 0

    def count(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs
        weight = layer.weight
        assert isinstance(weight, Tensor)
        macs += output.numel() * weight[0].numel()

    hooks = [
        layer.register_forward_hook(count)
        for layer in net.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
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
    """Notes every piece of memory that an operation returns. (Hooks on saved tensors would miss
    what inner hooks pack.)
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
    """Throughput in the results that training.py saved, as hours of a recipe."""
    print("measured steps, without reading, changing and testing images:")
    known = [
        entry
        for path in sorted(RESULTS.glob("training-*.json"))
        for entry in json.loads(path.read_text())["throughput"]
    ]
    for entry in known:
        dataset = entry["network"].partition(".")[2]
        recipe = Recipe.load(dataset)
        hours = IMAGES[dataset] * recipe.epochs / entry["images_per_second"] / 3600
        print(
            f"  {entry['network']:22} {entry['precision']}, batch {entry['batch']}: {entry['images_per_second']:.1f} images/s, so "
            f"{hours:,.1f} hours for {recipe.epochs} epochs; {entry['where']}"
        )
    if not known:
        print("  none here yet (python benchmarks/training.py --save keeps them)")


if __name__ == "__main__":
    main()
