"""The GPU kernels are snnTorch's neuron, spike for spike and gradient for gradient: run by Triton's
interpreter, on a CPU.

What only a compiler decides (rounding, registers, the width of loads) is read from what it makes of
them, which needs no GPU.
"""

import importlib.util
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import snntorch as snn
import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from zoo.autograd import call_norm, kept_as_bytes
from zoo.neurons import Lif
from zoo.surrogates import ATan, Rectangle, Surrogate

JUST_BELOW_ONE = 1 - 2**-24
SURROGATES = [ATan(), ATan(alpha=3.0), Rectangle(), Rectangle(half_width=0.25, height=2.0)]
NEURONS = [(0.25, 0.5), (0.5, 1.0), (0.9, JUST_BELOW_ONE), (1.0, 0.5)]  # beta, threshold
TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.uint8: "*u8",
}

neurons = pytest.mark.parametrize(("beta", "threshold"), NEURONS)
all_steps = pytest.mark.parametrize("steps", [1, 2, 4, 8, 17])
layouts = pytest.mark.parametrize(
    "layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "channels_last"]
)
dtypes = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["f32", "bf16", "f16"]
)


def load(interpreted: bool) -> ModuleType:
    """A copy of `zoo.kernels` of its own: Triton decides at every decorator, once, whether a kernel
    is interpreted.
    """
    spec = importlib.util.find_spec("zoo.kernels")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", str(int(interpreted)))
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    return load(interpreted=True)


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """What a kernel forgets to write is NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def currents(
    steps: int, threshold: float = 1.0, layout: torch.memory_format = torch.contiguous_format
) -> Tensor:
    """`[T, 3, 2, 7, 6]`, no multiple of a block; half random, half multiples of a quarter of the
    threshold, to meet it exactly.
    """
    x = torch.randn(steps * 3, 2, 7, 6) * threshold
    x[:, ::2] = torch.randint(-2, 7, x[:, ::2].shape) * (threshold / 4)
    return x.to(memory_format=layout).unflatten(0, (steps, 3))


def scalars(*values: float) -> tuple[Tensor, ...]:
    return tuple(torch.tensor(value) for value in values)


def leaky(x: Tensor, beta: float, threshold: float, height: float = 1.0) -> Tensor:
    """snnTorch as its tutorials use it: one call a step, the membrane handed on."""
    neuron = snn.Leaky(
        beta=beta, threshold=threshold, reset_mechanism="zero", graded_spikes_factor=height
    )
    mem, spikes = torch.zeros_like(x[0], dtype=torch.float32), []
    for current in x:
        spike, mem = neuron(current, mem)
        spikes.append(spike)
    return torch.stack(spikes).to(x.dtype)


def gradient(
    grad: Tensor,
    x: Tensor,
    beta: float,
    threshold: float,
    height: float = 1.0,
    surrogate: Surrogate | None = None,
) -> Tensor:
    """As `zoo.neurons` has it on a CPU."""
    lif = Lif(len(x), beta=beta, threshold=threshold, spike_grad=surrogate)
    lif.neuron.graded_spikes_factor.fill_(height)
    x = x.detach().requires_grad_()
    lif(x.flatten(0, 1)).unflatten(0, x.shape[:2]).backward(grad)
    assert x.grad is not None
    return x.grad


def assert_close(found: Tensor, expected: Tensor) -> None:
    """To 1e-6 of the largest, or the last bit of a shorter dtype."""
    precision = 1e-6 if found.dtype == torch.float32 else torch.finfo(found.dtype).eps
    assert found.dtype == expected.dtype and expected.abs().max() > 0
    assert (found.float() - expected.float()).abs().max() <= precision * expected.abs().max()


@dtypes
@all_steps
@neurons
def test_spikes(
    kernels: ModuleType, beta: float, threshold: float, steps: int, dtype: torch.dtype
) -> None:
    x = currents(steps, threshold).to(dtype)
    spikes = kernels.lif_forward(x, *scalars(beta, threshold, 1.0))
    assert spikes.dtype == dtype and torch.equal(spikes, leaky(x, beta, threshold))
    assert (x[0] == threshold).any() or (threshold == JUST_BELOW_ONE and dtype != torch.float32)
    assert 0.05 < spikes.float().mean() < 0.95


@pytest.mark.parametrize("surrogate", SURROGATES, ids=repr)
@all_steps
@neurons
def test_gradient(
    kernels: ModuleType, beta: float, threshold: float, steps: int, surrogate: Surrogate
) -> None:
    x = currents(steps, threshold)
    grad = torch.randn_like(x)
    found = kernels.lif_backward(grad, x, *scalars(beta, threshold, 1.0), surrogate)
    assert_close(found, gradient(grad, x, beta, threshold, surrogate=surrogate))


@layouts
@dtypes
@pytest.mark.parametrize("steps", [1, 4, 17])
def test_dtypes_and_layouts(
    kernels: ModuleType, steps: int, dtype: torch.dtype, layout: torch.memory_format
) -> None:
    x = currents(steps, layout=layout).to(dtype)
    grad = torch.randn_like(x)
    spikes = kernels.lif_forward(x, *scalars(0.9, 1.0, 1.0))
    assert torch.equal(spikes, leaky(x, 0.9, 1.0)) and spikes.stride() == x.stride()
    found = kernels.lif_backward(grad, x, *scalars(0.9, 1.0, 1.0), ATan())
    assert_close(found, gradient(grad, x, 0.9, 1.0))
    assert found.stride() == x.stride()


@dtypes
def test_graded_spikes(kernels: ModuleType, dtype: torch.dtype) -> None:
    x = currents(4).to(dtype)
    grad = torch.randn_like(x)
    spikes = kernels.lif_forward(x, *scalars(0.5, 1.0, 2.0))
    assert torch.equal(spikes, leaky(x, 0.5, 1.0, height=2.0)) and spikes.max() == 2
    found = kernels.lif_backward(grad, x, *scalars(0.5, 1.0, 2.0), ATan())
    assert_close(found, gradient(grad, x, 0.5, 1.0, height=2.0))


@pytest.mark.parametrize("beta", [-0.5, 1.5])
def test_beta_is_clamped(kernels: ModuleType, beta: float) -> None:
    x = currents(4)
    grad = torch.randn_like(x)
    assert torch.equal(kernels.lif_forward(x, *scalars(beta, 1.0, 1.0)), leaky(x, beta, 1.0))
    assert_close(
        kernels.lif_backward(grad, x, *scalars(beta, 1.0, 1.0), ATan()),
        gradient(grad, x, beta, 1.0),
    )


def test_parameters_of_a_module_in_bfloat16(kernels: ModuleType) -> None:
    x = currents(4)
    bf16 = [torch.tensor([value]).bfloat16() for value in (0.75, 1.0, 2.0)]
    assert torch.equal(kernels.lif_forward(x, *bf16), leaky(x, 0.75, 1.0, height=2.0))


@pytest.mark.filterwarnings("ignore:invalid value")  # of numpy's, in which the interpreter computes
def test_a_membrane_that_is_no_number_stays_none(kernels: ModuleType) -> None:
    x = currents(4)
    x[0].view(-1)[:9:3], x[1].view(-1)[1:9:3], x[2].view(-1)[2:9:3] = (
        torch.inf,
        -torch.inf,
        torch.nan,
    )
    spikes = kernels.lif_forward(x, *scalars(0.5, 1.0, 1.0))
    assert torch.equal(spikes, leaky(x, 0.5, 1.0))
    assert spikes[:, 0, 0, 0, 0].tolist() == [1, 0, 0, 0]  # inf * 0


@dtypes
@layouts
def test_packed(kernels: ModuleType, dtype: torch.dtype, layout: torch.memory_format) -> None:
    x = currents(4, layout=layout).to(dtype)
    packed = torch.empty_like(x, dtype=torch.uint8)
    spikes = kernels.lif_forward(x, *scalars(0.5, 1.0, 2.0), packed)
    assert torch.equal(spikes, leaky(x, 0.5, 1.0, height=2.0))
    assert torch.equal(packed, spikes.ne(0).byte())


def test_packed_of_another_kind_is_refused(kernels: ModuleType) -> None:
    x, parameters = currents(3), scalars(0.5, 1.0, 1.0)
    other_strides = torch.empty_like(
        x.transpose(1, 2).contiguous().transpose(1, 2), dtype=torch.uint8
    )
    for packed in (torch.empty_like(x), torch.empty_like(x[:2], dtype=torch.uint8), other_strides):
        with pytest.raises(
            ValueError, match=re.escape("it must be torch.uint8 of shape (3, 3, 2, 7, 6)")
        ):
            kernels.lif_forward(x, *parameters, packed)


def test_too_many_steps_are_refused(kernels: ModuleType) -> None:
    x = torch.zeros(kernels.MAX_STEPS + 1, 2)
    with pytest.raises(ValueError, match="65 steps are more than the 64"):
        kernels.lif_forward(x, *scalars(0.5, 1.0, 1.0))
    with pytest.raises(ValueError, match="65 steps are more than the 64"):
        kernels.lif_backward(x, x, *scalars(0.5, 1.0, 1.0), ATan())


@pytest.mark.parametrize(
    "shape", [(4, 1), (4, 1, 512), (4, 2, 1024), (4, 3, 777), (64, 3)], ids=str
)
def test_sizes(kernels: ModuleType, shape: tuple[int, ...]) -> None:
    x, parameters = torch.randn(shape) * 2, scalars(0.5, 1.0, 1.0)
    grad = torch.randn_like(x)
    assert torch.equal(kernels.lif_forward(x, *parameters), leaky(x, 0.5, 1.0))
    torch.testing.assert_close(
        kernels.lif_backward(grad, x, *parameters, ATan()), gradient(grad, x, 0.5, 1.0)
    )


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "cut": lambda x: x[..., 1:-1],
    "every other image": lambda x: x[:, ::2],
    "steps inside": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "expanded": lambda x: x[:, :1].expand_as(x),
    "one step of many": lambda x: x.transpose(0, 1)[1:2],
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
def test_any_strides(kernels: ModuleType, view: Callable[[Tensor], Tensor]) -> None:
    """Of the currents, the gradient, and both."""
    x, parameters = view(currents(4)), scalars(0.5, 1.0, 1.0)
    grad = view(torch.randn_like(currents(4)))
    assert torch.equal(kernels.lif_forward(x, *parameters), leaky(x, 0.5, 1.0))
    expected = gradient(grad.contiguous(), x.contiguous(), 0.5, 1.0)
    for a, b in ((grad, x), (grad.contiguous(), x), (grad, x.contiguous())):
        assert torch.equal(
            kernels.lif_backward(a, b, *parameters, ATan()),
            kernels.lif_backward(a.clone(), b.clone(), *parameters, ATan()),
        )
        torch.testing.assert_close(
            kernels.lif_backward(a, b, *parameters, ATan()), expected, rtol=0, atol=1e-6
        )


@pytest.mark.parametrize("copied", [False, True])
def test_a_gradient_keeps_its_digits(kernels: ModuleType, copied: bool) -> None:
    x = currents(4).half()
    grad = torch.randn(x.shape)
    expected = gradient(grad, x.float(), 0.5, 1.0).half()
    if copied:
        grad = grad.transpose(1, 2).contiguous().transpose(1, 2)
    found = kernels.lif_backward(grad, x, *scalars(0.5, 1.0, 1.0), ATan())
    assert found.dtype == torch.float16 and (found != expected).float().mean() < 0.01


SAME_MEMORY = {  # shape, strides of x, strides of grad
    "nchw": ((4, 3, 2, 7, 6), (252, 84, 42, 6, 1), (252, 84, 42, 6, 1)),
    "channels_last": ((4, 3, 2, 7, 6), (252, 84, 1, 12, 2), (252, 84, 1, 12, 2)),
    "an axis of one": ((4, 3, 1, 7, 6), (126, 42, 42, 6, 1), (126, 42, 1, 6, 1)),
}


@pytest.mark.parametrize(
    ("shape", "strides", "grad_strides"), SAME_MEMORY.values(), ids=SAME_MEMORY.keys()
)
def test_nothing_is_copied_without_need(
    kernels: ModuleType,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    grad_strides: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    launched: list[Any] = []
    monkeypatch.setattr(kernels, "_launch", lambda *arguments: launched.extend(arguments))
    x, grad = (
        torch.empty_strided(shape, strides),
        torch.empty_strided(shape, grad_strides, dtype=torch.bfloat16),
    )
    kernels.lif_forward(x, *scalars(0.5, 1.0, 1.0))
    kernels.lif_backward(grad, x, *scalars(0.5, 1.0, 1.0), ATan())
    assert (
        sum(argument is x for argument in launched) == 2
        and sum(argument is grad for argument in launched) == 1
    )


@pytest.mark.parametrize("shape", [(4, 0, 2, 3), (4, 2, 0)], ids=str)
def test_nothing_is_launched_for_nothing(
    kernels: ModuleType, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "_forward", None)
    monkeypatch.setattr(kernels, "_backward", None)
    x = torch.empty(shape)
    assert kernels.lif_forward(x, *scalars(0.5, 1.0, 1.0)).shape == shape
    assert kernels.lif_backward(x, x, *scalars(0.5, 1.0, 1.0), ATan()).shape == shape


@dtypes
def test_nothing_is_written_behind_the_end(
    kernels: ModuleType, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory: list[Tensor] = []

    def guarded(x: Tensor, dtype: torch.dtype) -> Tensor:
        memory.append(torch.full((x.numel() + 2048,), 77, dtype=dtype))
        return memory[-1][: x.numel()].view(x.shape)

    monkeypatch.setattr(kernels, "_dense", lambda x: (x, guarded(x, x.dtype)))
    x = currents(2).to(dtype)
    kernels.lif_forward(x, *scalars(0.5, 1.0, 1.0), guarded(x, torch.uint8))
    kernels.lif_backward(x, x, *scalars(0.5, 1.0, 1.0), ATan())
    assert len(memory) == 3 and all(
        (m[x.numel() :] == 77).all() and (m[: x.numel()] != 77).all() for m in memory
    )


class Compiler:
    """Stands where a kernel is launched, and compiles it for a GPU as this launch would."""

    def __init__(self, kernel: Any, capability: int) -> None:
        self.kernel, self.capability, self.compiled = kernel, capability, None

    def __getitem__(self, grid: tuple[int]) -> "Compiler":
        return self

    def __call__(self, *arguments: Any, **named: Any) -> None:
        names = self.kernel.arg_names
        values = dict(zip(names, arguments, strict=False)) | {
            name: named.pop(name) for name in names if name in named
        }
        signature, constants, aligned = {}, {}, {}
        for i, parameter in enumerate(self.kernel.params):
            value = values[parameter.name]
            if parameter.is_constexpr or value is None:
                signature[parameter.name], constants[parameter.name] = "constexpr", value
            elif isinstance(value, Tensor):
                signature[parameter.name], aligned[(i,)] = (
                    TYPES[value.dtype],
                    [["tt.divisibility", 16]],
                )
            else:
                signature[parameter.name] = (
                    "fp32" if isinstance(value, float) else "i32" if value < 2**31 else "i64"
                )
                if isinstance(value, int) and value % 16 == 0:
                    aligned[(i,)] = [["tt.divisibility", 16]]
        source = ASTSource(self.kernel, signature, constants, aligned)
        self.compiled = triton.compile(
            source, target=GPUTarget("cuda", self.capability, 32), options=named
        )

    def registers(self) -> tuple[int, int]:
        """How many of them a thread has, and how many bytes of memory for want of more."""
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(self.compiled.asm["cubin"])
            file.flush()
            command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
            usage = subprocess.run(command, capture_output=True, text=True, check=True)
        found = re.search(r"REG:(\d+) STACK:(\d+)", usage.stdout + usage.stderr)
        assert found
        return int(found[1]), int(found[2])


@pytest.fixture
def compile_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[Compiler, Compiler]]:
    """`compile_for(x, capability)`: both kernels as `x` would launch them."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))

    def compile_both(x: Tensor, capability: int = 90) -> tuple[Compiler, Compiler]:
        module, parameters = load(interpreted=False), scalars(0.9, 1.0, 1.0)
        forward, backward = (
            Compiler(module._forward, capability),
            Compiler(module._backward, capability),
        )
        monkeypatch.setattr(module, "_forward", forward)
        monkeypatch.setattr(module, "_backward", backward)
        module.lif_forward(x, *parameters, torch.empty_like(x, dtype=torch.uint8))
        module.lif_backward(x, x, *parameters, ATan())
        return forward, backward

    return compile_both


@pytest.mark.parametrize(
    ("capability", "steps", "dtype", "width"),  # the width of loads of the backward kernel, bytes
    [
        (80, 1, torch.bfloat16, 16),
        (90, 4, torch.float32, 16),
        (90, 4, torch.bfloat16, 16),
        (80, 8, torch.float16, 8),
        (90, 16, torch.float32, 8),
    ],
)
def test_compiled(
    compile_for: Callable[..., tuple[Compiler, Compiler]],
    capability: int,
    steps: int,
    dtype: torch.dtype,
    width: int,
) -> None:
    x = torch.zeros(steps, 4, 64, dtype=dtype)
    forward, backward = compile_for(x, capability)
    for kernel, loads, stores, size in (
        (forward, steps, 2 * steps, 16),
        (backward, 2 * steps, steps, width),
    ):
        ptx = kernel.compiled.asm["ptx"]
        # Every operation rounds on its own: .rn forbids the assembler to fuse.
        assert not re.search(r"\bfma|\b(add|sub|mul)\.f32", ptx) and (
            steps == 1 or "mul.rn.f32" in ptx
        )
        casts = re.findall(r"cvt\S*\.(?:b?f16|b?f16x2)\.f32", ptx)
        assert len(casts) > 0 or dtype == torch.float32
        assert all(cast.startswith("cvt.rn.") for cast in casts)  # where the interpreter truncates
        assert (
            len(re.findall(rf"ld\.global\.v{size // 4}\.b32", ptx))
            == loads
            == len(re.findall(r"ld\.global\.v", ptx))
        )
        assert len(re.findall(r"st\.global", ptx)) == stores
        assert len(re.findall(rf"st\.global\.v{size // 4}\.b32", ptx)) == steps
        registers, spilled = kernel.registers()
        assert registers <= 128 and spilled == 0


# more than 2^31 elements in all, and of one step
@pytest.mark.parametrize("shape", [(4, 3 << 28), (2, 3 << 30)], ids=str)
def test_offsets_have_64_bits(
    compile_for: Callable[..., tuple[Compiler, Compiler]], shape: tuple[int, int]
) -> None:
    for kernel in compile_for(torch.empty(shape, device="meta")):
        ttir = kernel.compiled.asm["ttir"]
        offsets = re.findall(r"tt\.addptr .*, (\S+) loc", ttir)
        assert len(offsets) >= shape[0] and all("xi64>" in offset for offset in offsets)
        assert re.search(r"arith\.muli .* : i64", ttir) and not re.search(
            r"arith\.muli .*i32", ttir
        )


@layouts
def test_a_layer_on_a_gpu_is_one_on_a_cpu(
    kernels: ModuleType, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Lif` with the kernels and without: spikes, the bytes that readers keep, and gradients, also
    behind a BatchNorm.
    """
    x = currents(4, layout=layout).flatten(0, 1)

    def run() -> tuple[Tensor, ...]:
        lif, conv, norm = Lif(4), torch.nn.Conv2d(2, 3, 3, bias=False), torch.nn.BatchNorm2d(2)
        torch.nn.init.ones_(conv.weight)
        inputs = x.clone().requires_grad_()
        spikes = lif(call_norm(norm, inputs))
        with kept_as_bytes(spikes):
            y = conv(spikes)
        (y * torch.arange(y.numel()).view(y.shape).remainder(5)).sum().backward()
        return spikes, y, inputs.grad, conv.weight.grad, norm.weight.grad

    expected = run()
    monkeypatch.setattr("zoo.fused_lif._kernels", lambda x: kernels)
    for found, wanted in zip(run(), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=2e-5, atol=1e-5)
    assert torch.equal(run()[0], expected[0]) and expected[0].any()
