"""Arrays as text in the page: maps of bytes without loss, images as PNG or JPEG."""

import zlib
from base64 import b64encode
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from tinyseg.common.arrays import Array

QUALITY = 90


def pack(map_hw: Array) -> str:
    """Return a map (H, W) uint8 as base64 of zlib: row one, then each row's difference to the last.

    Bytes and not a PNG, because browsers may alter pixels that a script reads back (color
    management, protection against fingerprints). Level 9 takes ten times as long for 5 % less.
    """
    rows = map_hw.astype(np.uint8)
    difference = np.diff(rows, axis=0, prepend=np.zeros((1, rows.shape[1]), np.uint8))
    return b64encode(zlib.compress(difference.tobytes(), 6)).decode()


def levels(p_khw: Array) -> Array:
    """Return probabilities in [0, 1] as 8 bits: level >= k is just probability >= k/256.

    256 p is without rounding in float32, and an edge of the histograms of `thresholds`.
    """
    return np.asarray(np.minimum(p_khw * np.float32(256), 255), np.uint8)


def level_of(threshold: float) -> int:
    """Return the level 1 to 255 that is nearest to a threshold; 128 is 0.5."""
    return int(np.clip(np.floor(threshold * 256 + 0.5), 1, 255))


def size_in_page(rows: int, columns: int, side: int) -> tuple[int, int]:
    """Return rows and columns of a picture in the page, at most `side` each."""
    scale = min(1.0, side / max(rows, columns))
    return max(1, round(rows * scale)), max(1, round(columns * scale))


def shrink(map_hw: Array, size: tuple[int, int], smooth: bool) -> Array:
    """Return a map (H, W) at the size in the page: means of pixels, or the nearest (class ids)."""
    if map_hw.shape == size:
        return map_hw
    method = Image.Resampling.BOX if smooth else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(map_hw).resize(size[::-1], method))


def data_uri(image_hw3: Array, size: tuple[int, int]) -> str:
    """Return an image (H, W, 3) uint8 as a data: URI, PNG or JPEG, whichever is smaller."""
    picture: Any = Image.fromarray(np.ascontiguousarray(image_hw3))
    if (image_hw3 == image_hw3[..., :1]).all():
        picture = picture.convert("L")
    if picture.size != size[::-1]:
        picture = picture.resize(size[::-1], Image.Resampling.BOX)
    encoded = {}
    for file_format, options in (("png", {"optimize": True}), ("jpeg", {"quality": QUALITY})):
        buffer = BytesIO()
        picture.save(buffer, file_format, **options)
        encoded[file_format] = buffer.getvalue()
    smallest = min(encoded, key=lambda name: len(encoded[name]))
    return f"data:image/{smallest};base64,{b64encode(encoded[smallest]).decode()}"
