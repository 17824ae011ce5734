"""Types of numpy arrays and of their shapes."""

from typing import Any

import numpy as np

__all__ = ["Array", "Shape"]

Array = np.ndarray[Any, np.dtype[Any]]
Shape = tuple[int, ...]
