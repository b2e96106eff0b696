"""Half types, float16 and bfloat16: images lie in them, all is computed in float32.

A kernel that has no path of its own for them is given `wide` images and `rounded` weights, and its
result is cast back, which rounds once. (Products of half tensors would be rounded one by one.)
"""

from tinygrad import Tensor, dtypes
from tinygrad.dtype import DType

HALF = (dtypes.float16, dtypes.bfloat16)


def wide(x: Tensor) -> Tensor:
    """Return half types as float32, others as they are."""
    return x.float() if x.dtype in HALF else x


def rounded(weights: Tensor, dtype: DType) -> Tensor:
    """Return float32 weights with the values they have in `dtype`; their gradient is not rounded.

    Weights of a half type are only made wide.
    """
    if weights.dtype in HALF:
        return wide(weights)
    # a cast to half and back would round the gradient as well; both differences here are exact
    return weights + (weights.cast(dtype).float() - weights).detach()
