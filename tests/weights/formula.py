"""Numbers that NumPy and PyTorch make alike, so that only what is computed from them is stored."""

import numpy as np

DTYPES = ("float32", "float16", "float64", "int64", "int32", "uint8", "bool")


def numbers(name: str, shape: tuple[int, ...], scale: float = 1.0) -> np.ndarray:
    """Numbers in (-scale, scale) that the name of a tensor decides."""
    seed = sum((i + 1) * b for i, b in enumerate(name.encode()))
    return np.random.default_rng(seed).uniform(-scale, scale, shape).astype(np.float32)


def saved_arrays() -> dict[str, np.ndarray]:
    """What is in goldens/*.pt: views of one storage, every dtype, a scalar and nothing."""
    base = np.arange(24, dtype=np.float32)
    arrays = {"base": base.reshape(4, 6), "transposed": base.reshape(4, 6).T, "steps": base[3:9:2]}
    for dtype in DTYPES:
        arrays[dtype] = (100 * numbers(dtype, (2, 3))).astype(dtype)
    bits = numbers("bfloat16", (5,)).view(np.uint32) & np.uint32(0xFFFF0000)
    arrays["bfloat16"] = bits.view(np.float32)
    arrays["scalar"] = np.array(7, np.int64)
    arrays["none"] = np.zeros((0, 3), np.float32)
    return arrays
