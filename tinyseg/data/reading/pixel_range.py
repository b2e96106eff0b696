"""Stored pixel values of any depth to [0, 1]: one range for all images, chosen from their data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tinyseg.errors import ConfigError

DEPTHS = (255, 1023, 4095, 16383, 65535)
"""The largest values of 8, 10, 12, 14 and 16 bits."""
TWELVE = 4095
"""The depth of many cameras and detectors, which save 16-bit files."""


@dataclass(frozen=True)
class PixelRange:
    """The values that become 0 and 1: of each channel, or one number for all channels."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __str__(self) -> str:
        pairs = {f"{low:g} to {high:g}" for low, high in zip(self.low, self.high, strict=True)}
        return pairs.pop() if len(pairs) == 1 else "a range for each channel"


Ranges = Mapping[str, tuple[PixelRange, ...]]
"""By kind of number (8-bit, integer, float). An image takes the first range that holds its
values, else the last, and is clipped to it."""

NOMINAL: Ranges = {
    "8-bit": (PixelRange((0,), (255,)),),
    "integer": (PixelRange((0,), (65535,)),),
    "float": (PixelRange((0,), (1,)),),
}
"""Where nothing is known of other images."""


class Extent(NamedTuple):
    """What the range of an image is chosen from."""

    kind: str
    low: tuple[float, ...]
    """Smallest value of each channel; empty for 8-bit images."""
    high: tuple[float, ...]


def extent(image_hwc: np.ndarray) -> Extent:
    """Return the kind of an image's numbers, and the smallest and largest of each channel."""
    if image_hwc.dtype == np.uint8:
        return Extent("8-bit", (), ())
    kind = "float" if image_hwc.dtype.kind == "f" else "integer"
    bounds = (tuple(map(float, bound(image_hwc, axis=(0, 1)))) for bound in (np.min, np.max))
    return Extent(kind, *bounds)


def to_unit(image_hwc: np.ndarray, ranges: Ranges | None) -> np.ndarray:
    """Return uint8 as it is, unless its range is another one, else float32 in [0, 1].

    Without `ranges`, those of NOMINAL hold. ValueError for values outside them; known ranges clip.
    """
    of = extent(image_hwc)
    known = (ranges or {}).get(of.kind)
    if of.kind == "8-bit":
        if known in (None, NOMINAL["8-bit"]):
            return image_hwc
        of = Extent("8-bit", (float(image_hwc.min()),), (float(image_hwc.max()),))
    fitting = known or NOMINAL[of.kind]
    low, high = min(of.low), max(of.high)
    chosen = next((one for one in fitting if high <= max(one.high)), fitting[-1])
    if known is None and not (low >= min(chosen.low) and high <= max(chosen.high)):
        raise ValueError(f"pixel values from {low:g} to {high:g} are outside {chosen}")
    bottom, top = (np.array(bound, np.float64) for bound in (chosen.low, chosen.high))
    if known and len(bottom) not in (1, image_hwc.shape[2]):
        bottom, top = bottom.min(), top.max()
    unit = (image_hwc.astype(np.float64) - bottom) / (top - bottom)
    return unit.clip(0, 1, out=unit).astype(np.float32)


def find_ranges(extents: Sequence[Extent], text: str = "auto") -> Ranges:
    """Return the ranges of a dataset's images by `data.range`: "auto", or "LOW,HIGH" for all.

    Integers from 0 take the full scale of the smallest depth that holds all of them; but where
    12-bit images (largest value 1024 to 4095) lie among 16-bit ones (from 16384), each takes its
    own. Negative integers, and floats beyond [0, 1], take the range of all images, by channel.
    """
    if text != "auto":
        fixed = (_parse(text),)
        return dict.fromkeys(NOMINAL, fixed)
    found: dict[str, tuple[PixelRange, ...]] = {}
    for kind in sorted({extent.kind for extent in extents} - {"8-bit"}):
        found[kind] = _ranges_of([extent for extent in extents if extent.kind == kind])
    return found


def _parse(text: str) -> PixelRange:
    try:
        low, high = map(float, text.split(","))
        if not -np.inf < low < high < np.inf:
            raise ValueError
    except ValueError:
        raise ConfigError(
            f'data.range={text!r} cannot be used: it must be auto, or "LOW,HIGH", the pixel values '
            'that become black and white, e.g. "0,4095"'
        ) from None
    return PixelRange((low,), (high,))


def _ranges_of(extents: Sequence[Extent]) -> tuple[PixelRange, ...]:
    lows, highs = ([getattr(one, name) for one in extents] for name in ("low", "high"))
    low, high = min(map(min, lows)), max(map(max, highs))
    if extents[0].kind == "integer" and low >= 0:
        tops = [max(of_image) for of_image in highs]
        small = [top for top in tops if top <= TWELVE]
        large = [top for top in tops if top > TWELVE]
        mixed = small and large and min(small) > TWELVE // 4 and min(large) > DEPTHS[3]
        whole = PixelRange((0,), (float(next((top for top in DEPTHS if high <= top), high)),))
        return (PixelRange((0,), (float(TWELVE),)), whole) if mixed else (whole,)
    if extents[0].kind == "float" and low >= 0 and high <= 1:
        return NOMINAL["float"]
    if len({len(of_image) for of_image in lows}) > 1:  # color images and gray ones
        bottom, top = np.array([low]), np.array([high])
    else:
        bottom, top = np.min(lows, axis=0), np.max(highs, axis=0)
    top = np.where(top > bottom, top, bottom + 1)
    return (PixelRange(tuple(bottom.tolist()), tuple(top.tolist())),)


def range_warnings(extents: Sequence[Extent], text: str = "auto") -> list[str]:
    """Return one line when images of several depths, in one dataset, take ranges of their own."""
    if text != "auto":
        return []
    ranges = find_ranges(extents)
    counts = {kind: sum(one.kind == kind for one in extents) for kind in NOMINAL}
    parts = []
    for kind, count in counts.items():
        for one in ranges.get(kind, NOMINAL[kind]) if count else ():
            parts.append(f"{kind} values {one}")
    if len(parts) < 2:
        return []
    return [
        f"images of several depths: {'; '.join(parts)} are each scaled to black and white; if they "
        'share one scale, set data.range="LOW,HIGH"'
    ]


def ranges_from_json(table: Any) -> Ranges:
    """Read what `dataclasses.asdict` made of ranges; ValueError or TypeError for anything else."""
    found = {}
    for kind, rows in dict(table).items():
        ranges = tuple(
            PixelRange(*(tuple(map(float, row[name])) for name in ("low", "high"))) for row in rows
        )
        for one in ranges:
            whole = np.isfinite([*one.low, *one.high]).all() and len(one.low) == len(one.high) > 0
            if not whole or not np.less(one.low, one.high).all():
                raise ValueError("a range of pixel values that cannot be")
        if kind not in NOMINAL or not ranges:
            raise ValueError(f"ranges of {kind!r}")
        found[kind] = ranges
    return found
