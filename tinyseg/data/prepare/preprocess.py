"""Preprocess an image before it is resized: "median(size=3)+clahe(tiles=8,clip=2)".

median(size)        of the size x size pixels around     quantize(colors)   to a palette
clahe(tiles,clip)   local contrast of the luma           quantize(bits)     to the upper bits
clip(low,high)      at two percentiles of each channel

Each step is a pure function of one image (H, W, C), uint8 or float32 in [0, 1], at its original
size, to one of the same shape and type. There is no step for gray, which is `data.color=grey`, nor
for the scale of the values, which is `data.normalize`.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from PIL import Image
from scipy import ndimage

from tinyseg.common.spec import Call, Value, check_name, fill, parse_sum
from tinyseg.errors import ConfigError, DataError

BINS = 256
"""Gray levels of CLAHE's histograms; its curve is linear between two of them."""
LUMA = np.array([0.299, 0.587, 0.114])
"""ITU-R 601, as in `data.color=grey`."""

Step = Callable[[np.ndarray], np.ndarray]


class Preprocess:
    """The steps of a text, one after the other; an empty text leaves an image as it is."""

    def __init__(self, text: str = "") -> None:
        """Read `data.preprocess`; ConfigError names a step or a number that cannot be used."""
        try:
            calls = _read(text) if text.strip() else []
            self.steps = [_step(call) for call in calls]
        except ConfigError as error:
            raise ConfigError(f"data.preprocess: {error}") from None
        self.text = "+".join(map(str, calls))
        """The canonical text: equal for equal steps."""

    def __call__(self, image_hwc: np.ndarray) -> np.ndarray:
        """Return an image of the same shape and type; the argument is not changed."""
        for step in self.steps:
            image_hwc = step(image_hwc)
        return image_hwc


def median(image_hwc: np.ndarray, size: int) -> np.ndarray:
    """Take the median of the size x size pixels around each, per channel, mirrored at the edge."""
    return np.asarray(ndimage.median_filter(image_hwc, (size, size, 1), mode="reflect"))


def clip_percentiles(image_hwc: np.ndarray, low: float, high: float) -> np.ndarray:
    """Clip each channel at two of its own percentiles."""
    bounds = np.percentile(image_hwc, [low, high], axis=(0, 1))
    return np.asarray(image_hwc.clip(*_as_stored(bounds / _top(image_hwc), image_hwc)))


def reduce_bits(image_hwc: np.ndarray, bits: int) -> np.ndarray:
    """Keep the upper `bits` of each channel, spread again from black to white."""
    top = _top(image_hwc)
    levels = np.floor(image_hwc * (2**bits / (top + 1 if top > 1 else 1)))
    return _as_stored(np.minimum(levels, 2**bits - 1) / (2**bits - 1), image_hwc)


def reduce_colors(image_hwc: np.ndarray, colors: int) -> np.ndarray:
    """Give each pixel the nearest color of a palette: median cut, refined by k-means (Pillow).

    The palette of a float32 image has 256 levels between the image's minimum and maximum.
    DataError for images that are neither gray nor RGB.
    """
    if image_hwc.shape[2] not in (1, 3):
        raise DataError(
            f"data.preprocess: quantize(colors) needs images with 1 or 3 channels, these have "
            f"{image_hwc.shape[2]}; use quantize(bits)"
        )
    low, span = 0.0, 1.0
    levels = image_hwc
    if image_hwc.dtype != np.uint8:
        low, span = float(image_hwc.min()), float(np.ptp(image_hwc)) / 255 or 1.0
        levels = np.rint((image_hwc - low) / span).astype(np.uint8)
    image = Image.fromarray(levels.squeeze(axis=2) if levels.shape[2] == 1 else levels)
    mapped = image.quantize(colors, Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE)
    levels = np.asarray(mapped.convert(image.mode)).reshape(image_hwc.shape)
    return levels if image_hwc.dtype == np.uint8 else np.asarray(levels * span + low, np.float32)


def clahe(image_hwc: np.ndarray, tiles: int, clip: float) -> np.ndarray:
    """Equalize the luma's histogram adaptively, with limited contrast; colors keep their chroma.

    Zuiderveld, Graphics Gems IV (1994): tiles x tiles regions, each with the cumulative histogram
    as its curve; bins above `clip` times their mean are cut and the excess goes to all bins
    evenly, once; a pixel's value is interpolated between the curves of the four nearest regions.
    An image that does not divide is mirrored, as in OpenCV; a bin takes fractions, where OpenCV's
    are whole.
    """
    unit = image_hwc / _top(image_hwc)
    luma = (unit * (LUMA if unit.shape[2] == 3 else 1 / unit.shape[2])).sum(axis=2)
    rows, cols = (-(-side // tiles) for side in luma.shape)
    # the center of region i lies at (i + 0.5) * rows - 0.5
    row = (np.arange(luma.shape[0])[:, None] + 0.5) / rows - 0.5
    col = (np.arange(luma.shape[1]) + 0.5) / cols - 0.5
    place = np.broadcast_arrays(row, col, luma * (BINS - 1))
    curves = _equalizing_curves(luma, tiles, rows, cols, clip)
    shift = ndimage.map_coordinates(curves, place, order=1, mode="nearest") - luma
    return _as_stored(np.clip(unit + shift[..., None], 0, 1), image_hwc)


def _equalizing_curves(
    luma_hw: np.ndarray, tiles: int, rows: int, cols: int, clip: float
) -> np.ndarray:
    """Return the curve of each region, from a level to [0, 1]: (tiles, tiles, BINS)."""
    margins = [(0, rows * tiles - luma_hw.shape[0]), (0, cols * tiles - luma_hw.shape[1])]
    levels = np.rint(np.pad(luma_hw, margins, mode="symmetric") * (BINS - 1)).astype(np.intp)
    regions = levels.reshape(tiles, rows, tiles, cols).swapaxes(1, 2).reshape(-1, rows * cols)
    counts = np.stack([np.bincount(region, minlength=BINS) for region in regions])
    kept = np.minimum(counts, clip * rows * cols / BINS)
    excess = (counts - kept).sum(axis=1, keepdims=True)
    curves = (kept + excess / BINS).cumsum(axis=1) / (rows * cols)
    return np.asarray(curves.reshape(tiles, tiles, BINS))


def _top(image: np.ndarray) -> float:
    """Return the largest value that an image of this type can have."""
    return 255.0 if image.dtype == np.uint8 else 1.0


def _as_stored(unit: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Convert values in [0, 1] to the type of an image."""
    return np.asarray(np.rint(unit * 255) if like.dtype == np.uint8 else unit, like.dtype)


# The text


DEFAULTS: dict[str, dict[str, Value]] = {
    "median": {"size": 3.0},
    "quantize": {"colors": 0.0, "bits": 0.0},
    "clahe": {"tiles": 8.0, "clip": 2.0},
    "clip": {"low": 1.0, "high": 99.0},
}
_WHOLE = {"size": (3, 15), "tiles": (1, 64), "colors": (2, 64), "bits": (1, 7)}
"""Smallest and largest value of each argument that is a whole number."""


def _read(text: str) -> list[Call]:
    calls = []
    for weight, call in parse_sum(text, example="median(size=3)+clahe(tiles=8,clip=2)"):
        if weight != 1:
            raise ConfigError(f"{text!r}: steps have no weights; omit {weight:g}*")
        if call.name in ("grey", "gray"):
            raise ConfigError(f"{call.name!r} is no step; set data.color=grey")
        if call.name == "quantise":  # the name in old config files
            call = replace(call, name="quantize")
        check_name(call, DEFAULTS, "step")
        calls.append(call)
    return calls


def _step(call: Call) -> Step:
    """Return the function of a step with its arguments."""

    def check(ok: bool, rule: str) -> None:
        if not ok:
            raise ConfigError(f"{call} cannot be used: {rule}")

    arguments = {name: float(value) for name, value in fill(call, DEFAULTS[call.name]).items()}  # type: ignore[arg-type]
    if call.name == "quantize":
        check(len(call.arguments) == 1, "give either colors=8 (a palette) or bits=3")
        arguments = {name: arguments[name] for name in call.arguments}
    for name, (least, most) in _WHOLE.items():
        value = arguments.get(name, least)
        rule = f"{name} is {least} to {most}, whole"
        check(value == int(value) and least <= value <= most, rule)
    size, tiles, colors, bits = (int(arguments.get(name, 0)) for name in _WHOLE)
    if call.name == "median":
        check(size % 2 == 1, "size is odd: 3, 5, 7, ...")
        return partial(median, size=size)
    if call.name == "quantize":
        return partial(reduce_colors, colors=colors) if colors else partial(reduce_bits, bits=bits)
    if call.name == "clahe":
        check(arguments["clip"] >= 1, "clip is at least 1, the mean height of a bin")
        return partial(clahe, tiles=tiles, clip=arguments["clip"])
    low, high = arguments["low"], arguments["high"]
    check(0 <= low < high <= 100, "0 <= low < high <= 100, in percent")
    return partial(clip_percentiles, low=low, high=high)
