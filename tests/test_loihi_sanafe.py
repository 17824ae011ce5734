"""The connections that a simulator is given are those of the convolution."""

from pathlib import Path
from types import SimpleNamespace

import nir
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from export.energy.counting.fanout import fan_out

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"),
    [(1, 1, 1, 1), (2, 1, 1, 1), (1, 0, 1, 1), (2, 2, 2, 1), (1, 1, 1, 2), ((1, 2), (0, 1), 1, 4)],
)
def test_connections_compute_the_convolution_and_are_as_many_as_the_fan_out_counts(
    stride: int, padding: int, dilation: int, groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from loihi_sanafe import connections

    random = np.random.default_rng(0)
    weight = random.normal(size=(8, 4 // groups, 3, 3)) * (
        random.random((8, 4 // groups, 3, 3)) > 0.2
    )
    x = torch.from_numpy(random.normal(size=(4, 9, 7)))
    expected = F.conv2d(x[None], torch.from_numpy(weight), None, stride, padding, dilation, groups)
    node = nir.Conv2d((9, 7), weight, stride, padding, dilation, groups, np.zeros(8))
    layer = SimpleNamespace(node=node, in_shape=(4, 9, 7), out_shape=tuple(expected.shape[1:]))

    sources, targets, weights = connections(layer)

    total = np.bincount(targets, weights * x.numpy().ravel()[sources], expected.numel())
    np.testing.assert_allclose(total, expected.numpy().ravel(), rtol=0, atol=1e-12)
    assert len({*zip(sources.tolist(), targets.tolist(), strict=True)}) == len(sources)
    assert len(sources) == fan_out(node, (4, 9, 7)).connections
