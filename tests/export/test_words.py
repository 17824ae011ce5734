"""A word that an export does not know is refused, and not taken for another one."""

from collections.abc import Callable
from typing import Any

import pytest
from support.networks import lively

from export.nir.exporter import to_nir
from export.onnx.exporter import to_onnx
from export.onnx.runtime import Runtime
from export.prepare.quantize import quantize_weights
from zoo.errors import ZooError

CALLS: list[tuple[Callable[[Any], Any], str]] = [
    (
        lambda model: to_nir(model, dialect="nope"),
        "dialect 'nope': no such one; valid are",
    ),
    (lambda model: to_onnx(model, form="nope"), "form 'nope': no such one; valid are sequence"),
    (lambda model: to_onnx(model, outputs="nope"), "outputs 'nope': no such one; valid are none"),
    (lambda model: quantize_weights(model, "nope"), "weight format 'nope' is not one of float32"),
    (lambda model: Runtime(workers=2, streams=3), "workers and streams are the same, given twice"),
]


@pytest.mark.parametrize(("call", "said"), CALLS, ids=[said.split(" ")[0] for _, said in CALLS])
def test_an_unknown_word_is_refused(call: Callable[[Any], Any], said: str) -> None:
    model = lively("danet20-t2.fmnist", 12, depths=(1, 1), widths=(4, 6))
    with pytest.raises(ZooError, match=f"^{said}"):
        call(model)
