"""The type of a NumPy array."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
