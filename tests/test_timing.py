"""Benchmarks print a speed as a share of the machine's peak."""

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.parametrize(
    ("speed", "peak", "text"),
    [
        (30.0, 60.0, "50 % of int8"),
        (60.0, 60.0, "100 % of int8"),
        (60.1, 60.0, "above the product in int8"),
        (5459.0, 60.0, "above the product in int8"),
        (60.0, None, "no fast product in int8 here"),
    ],
)
def test_no_share_of_a_peak_is_above_all_of_it(
    speed: float, peak: float | None, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from timing import share

    assert share(speed, peak, "int8") == text
