import pytest
import torch
from support.networks import lively
from torch import Tensor, nn

from export.prepare.fold import fold, folded_norms, still_image
from export.prepare.trace import INPUT, leaves, trace
from zoo.danet import DANet, DANetConfig
from zoo.errors import ExportError

SMALL = {"widths": (4, 6, 8)}


@pytest.mark.parametrize(
    "name", ["danet20-t2.fmnist", "danet20b-t2.fmnist", "danet20c-t2.fmnist", "danet20d-t2.fmnist"]
)
def test_every_module_is_called_once_and_after_what_it_reads(name: str) -> None:
    model = lively(name, 12, **SMALL)
    calls = trace(model, still_image(model))
    assert sorted(c.path for c in calls) == sorted(path for path, _ in leaves(model))
    done = {INPUT}
    for call in calls:
        assert set(call.inputs) <= done
        done.add(call.path)


def test_repeating_the_calls_repeats_the_network() -> None:
    model = lively("danet20-t2.fmnist", 12, **SMALL)
    x = torch.randn(2, 1, 12, 12)
    with torch.inference_mode():
        values = {INPUT: x}
        for call in trace(model, x):
            values[call.path] = call.module(*(values[p] for p in call.inputs))
        assert torch.equal(values[call.path], model(x))


def test_a_tensor_that_no_module_made_is_refused() -> None:
    class Doubling(nn.Identity):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)

    model = lively("danet20-t2.fmnist", 12, **SMALL)
    inner = model.head.forward
    model.head.forward = lambda x: inner(x * 2)  # type: ignore[method-assign]  # on purpose
    with pytest.raises(ExportError, match=r"head\.lif reads a tensor that no module made"):
        trace(model, still_image(model))


@pytest.mark.parametrize(
    ("name", "left"),
    [("danet20-t2.fmnist", 0), ("danet20b-t2.fmnist", 6), ("danet20c-t2.fmnist", 0)],
)
def test_folding_keeps_the_function(name: str, left: int) -> None:
    """It is compared in float64, where no borderline spike flips. In order b five blocks and a head
    normalise sums.
    """
    model = lively(name, 12, **SMALL).double()
    x = torch.randn(3, 1, 12, 12, dtype=torch.float64)
    model.float()
    folded = fold(model).double()
    assert sum(isinstance(m, nn.BatchNorm2d) for m in folded.modules()) == left
    with torch.inference_mode():
        torch.testing.assert_close(folded(x), model.double()(x), atol=1e-5, rtol=0)


def test_a_convolution_that_somebody_else_reads_is_not_folded() -> None:
    model = lively("danet20-t2.fmnist", 12, **SMALL)
    calls = trace(model, still_image(model))
    conv = next(iter(folded_norms(calls).values()))
    extra = next(c for c in calls if c.path == conv)
    spy = type(extra)("spy", nn.Identity(), (conv,), extra.out_shape, extra.out_shape)
    assert conv not in folded_norms([*calls, spy]).values()


def test_a_model_without_origin_does_not_know_its_images() -> None:
    with pytest.raises(ExportError, match="does not say what images it takes"):
        still_image(DANet(DANetConfig(depths=(1,), widths=(4,), stem="small")))
