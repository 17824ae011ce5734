"""Convolutions 3x3 on maps of a few pixels, computed in training as matrix products.

The products are over the taps that meet the map.

On 2x2 pixels only 16 of the 36 pairs of an output pixel and a tap read the image, the others read
padding, which libraries of convolutions compute all the same; and their weight gradients are slow
wherever maps are small. Here each row of taps that meets the map is one product with the pixels
under it. Sums are in another order than in `F.conv2d`: results differ by rounding.

Shapes: `N` images times time steps, `C` and `O` input and output channels, `H` x `W` pixels.
Inside, channels come last, as in memory: maps are `[N, H, W, C]` and weights `[O, 3, 3, C]`.
"""

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zoo.autograd import is_bare, is_transformed

__all__ = ["SmallConv", "call_conv"]


def call_conv(conv: nn.Module, x: Tensor) -> Tensor:
    """Return `conv(x)`, for a plain 3x3 convolution in training by products where they are faster.

    The class is torch's own, as tools find convolutions by their exact type: a parametrised one has
    another.
    """
    if (
        type(conv) is nn.Conv2d
        and conv.training
        and is_bare(conv)
        and _is_eager(x, conv.weight)
        and _is_small(conv, x)
    ):
        # torch does not type `apply`.
        out: Tensor = SmallConv.apply(x, conv.weight, conv.stride[0])  # type: ignore[no-untyped-call]
    else:
        out = conv(x)
    return out


class SmallConv(torch.autograd.Function):
    """`F.conv2d(x, weight, stride=stride, padding=1)` by products over used taps.

    `[N, C, H, W]`, `[O, C, 3, 3]` -> `[N, O, ceil(H/stride), ceil(W/stride)]`, channels last in
    memory.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        """Return the convolution, and keep `x` and `weight`."""
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        if not _all_by_products(x, weight, stride):
            return torch.conv2d(x, weight, None, stride, 1)
        height, width = _output_size(x, stride)
        out = x.new_zeros(len(x), height, width, len(weight))
        maps, taps = _channels_last(x), _channels_last(weight)
        for run in _runs(*x.shape[2:], stride):
            run.of_output(out).addmm_(run.of_input(maps), run.of_kernel(taps).t())
        return out.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Return the gradients of `x` and `weight` that are needed."""
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, _ = ctx.needs_input_grad
        # Those who differentiate or trace the gradient cannot take products in place.
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or is_transformed():
            return *_library_gradients(grad, x, weight, ctx.stride, needs_x, needs_weight), None
        grad_x = grad_weight = None
        if needs_x and _all_by_products(x, weight, ctx.stride):
            grad_x = _input_gradient(grad, x, weight, ctx.stride)
        elif needs_x:
            grad_x, _ = _library_gradients(grad, x, weight, ctx.stride, True, False)
        if needs_weight:
            grad_weight = _weight_gradient(grad, x, weight, ctx.stride)
        return grad_x, grad_weight, None


class _Run(NamedTuple):
    """A run of taps in one row of the kernel, and the pixels of one row that they meet.

    It is of one output pixel.
    """

    output: tuple[int, int]  # row and column
    input: tuple[int, slice]  # row and columns
    kernel: tuple[int, slice]  # row and columns

    def of_output(self, maps: Tensor) -> Tensor:
        """Return the output pixel, `[N, O]`, a view."""
        return maps[:, *self.output]

    def of_input(self, maps: Tensor) -> Tensor:
        """Return the pixels under the taps, `[N, taps*C]`, a view."""
        return maps[:, *self.input].flatten(1)

    def of_kernel(self, weight: Tensor) -> Tensor:
        """Return the taps, `[O, taps*C]`, a view."""
        return weight[:, *self.kernel].flatten(1)


@cache
def _runs(height: int, width: int, stride: int) -> list[_Run]:
    """Return all runs of a 3x3 kernel with padding 1 over a map of `height` x `width` pixels."""
    runs = []
    for i, top in enumerate(range(-1, height - 1, stride)):
        for j, left in enumerate(range(-1, width - 1, stride)):
            columns = slice(max(left, 0), min(left + 3, width))
            taps = slice(columns.start - left, columns.stop - left)
            runs += [
                _Run((i, j), (row, columns), (row - top, taps))
                for row in range(max(top, 0), min(top + 3, height))
            ]
    return runs


def _input_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    grads, taps = _channels_last(grad), _channels_last(weight)
    grad_x = torch.zeros_like(_channels_last(x))
    for run in _runs(*x.shape[2:], stride):
        run.of_input(grad_x).addmm_(run.of_output(grads), run.of_kernel(taps))
    return grad_x.permute(0, 3, 1, 2)


def _weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    grads, maps = _channels_last(grad), _channels_last(x)
    grad_weight = torch.zeros_like(_channels_last(weight))
    for run in _runs(*x.shape[2:], stride):
        run.of_kernel(grad_weight).addmm_(run.of_output(grads).t(), run.of_input(maps))
    return grad_weight.permute(0, 3, 1, 2)


def _library_gradients(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, needs_x: bool, needs_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Return torch's gradients of input and weight, which can be differentiated themselves."""
    needs = [needs_x, needs_weight, False]  # of a bias there is none
    gradients = torch.ops.aten.convolution_backward(
        grad, x, weight, None, [stride, stride], [1, 1], [1, 1], False, [0, 0], 1, needs
    )
    return gradients[0], gradients[1]


def _channels_last(x: Tensor) -> Tensor:
    """Return `[N, C, H, W]` as contiguous `[N, H, W, C]`, a view where memory has it so already."""
    return x.permute(0, 2, 3, 1).contiguous()


def _output_size(x: Tensor, stride: int) -> tuple[int, int]:
    height, width = x.shape[2:]
    return (height - 1) // stride + 1, (width - 1) // stride + 1


def _is_eager(x: Tensor, weight: Tensor) -> bool:
    """Return whether nothing but autograd itself looks at the operations.

    A tracer, a transform, a subclass of tensors or autocast would.
    """
    is_tracing = torch.jit.is_tracing  # type: ignore[attr-defined]  # torch does not export it
    watched = (
        torch.compiler.is_compiling()
        or is_tracing()  # type: ignore[no-untyped-call]  # nor type it
        or is_transformed()
        or torch._C._len_torch_dispatch_stack()
        or torch.is_autocast_enabled("cpu")
    )
    return not watched and type(x) is Tensor and type(weight) is nn.Parameter


def _is_small(conv: nn.Conv2d, x: Tensor) -> bool:
    """Return whether `conv` is a 3x3 convolution whose shapes make products faster than a library.

    It has to be of float32 on a CPU, and to give 2x2 pixels of many channels or 4x4 of more
    (measured on a Zen 3 core, against oneDNN).
    """
    w = conv.weight
    is_float_on_cpu = x.device.type == "cpu" and x.dtype == w.dtype == torch.float32
    if not (is_float_on_cpu and x.dim() == 4 and x.numel() and _is_plain(conv)):
        return False
    if not w.is_contiguous(memory_format=torch.channels_last):
        return False
    height, width = _output_size(x, conv.stride[0])
    pixels, weights = height * width, len(w) * x.shape[1]
    return (pixels <= 4 and weights >= 64 * 64) or (pixels <= 16 and weights >= 128 * 128)


def _is_plain(conv: nn.Conv2d) -> bool:
    """Return whether `conv` is 3x3 with padding 1 and stride 1 or 2, and has no other option."""
    return (
        conv.kernel_size == (3, 3)
        and conv.padding == conv.dilation == (1, 1)
        and conv.stride in ((1, 1), (2, 2))
        and conv.groups == 1
        and conv.padding_mode == "zeros"
        and conv.bias is None
    )


def _all_by_products(x: Tensor, weight: Tensor, stride: int) -> bool:
    """Return whether output and input gradient come by products too, not the weight gradient alone.

    On more than 2x2 pixels the library loses to them only with the widest kernels and many images.
    """
    height, width = _output_size(x, stride)
    return height * width <= 4 or (len(weight) * x.shape[1] >= 512 * 512 and len(x) >= 128)
