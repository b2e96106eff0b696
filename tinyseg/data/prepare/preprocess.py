"""What is done to an image before it is fitted: "median(size=3)+clahe(tiles=8,clip=2)".

median(size)        of the size x size pixels around     quantise(colors)   to a palette, by k-means
clahe(tiles,clip)   local contrast of the luma           quantise(bits)     to the upper bits
clip(low,high)      at two percentiles of each channel

Each is a pure function of one image (H, W, C), uint8 or float32 in [0, 1], to one of the same shape
and type, at the image's original size; the same pixels give the same result everywhere. There is no
step for grey, which is `data.color=grey`, nor for the scale of the levels: `data.normalize`.
"""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from tinyseg.common.spec import Call, Value, check_name, fill, parse_sum
from tinyseg.data.prepare.quantize import reduce_bits, reduce_colors
from tinyseg.errors import ConfigError

BINS = 256
"""Grey levels of CLAHE's histograms; between two of them its curve is a line."""
LUMA = np.array([0.299, 0.587, 0.114])
"""ITU-R 601, as in `data.color=grey`."""

Step = Callable[[np.ndarray], np.ndarray]


class Preprocess:
    """The steps of a text, one after the other; an empty text leaves an image as it is."""

    def __init__(self, text: str = "") -> None:
        """Reads the text; ConfigError names a step or a number that cannot be used."""
        try:
            calls = _read(text) if text.strip() else []
            self.steps = [_step(call) for call in calls]
        except ConfigError as error:
            raise ConfigError(f"data.preprocess: {error}") from None
        self.text = "+".join(map(str, calls))
        """The text as it would be written again: equal for the same steps, so fit for a key."""

    def __call__(self, image_hwc: np.ndarray) -> np.ndarray:
        """An image (H, W, C) to one of the same shape and type; the given one is not changed."""
        for step in self.steps:
            image_hwc = step(image_hwc)
        return image_hwc


def median(image_hwc: np.ndarray, size: int) -> np.ndarray:
    """The median of the size x size pixels around each, per channel; the image is mirrored."""
    return np.asarray(ndimage.median_filter(image_hwc, (size, size, 1), mode="reflect"))


def clip_percentiles(image_hwc: np.ndarray, low: float, high: float) -> np.ndarray:
    """Cuts each channel off at two of its own percentiles."""
    bounds = np.percentile(image_hwc, [low, high], axis=(0, 1))
    return np.asarray(image_hwc.clip(*_as_stored(bounds / _top(image_hwc), image_hwc)))


def clahe(image_hwc: np.ndarray, tiles: int, clip: float) -> np.ndarray:
    """Contrast-limited adaptive histogram equalisation of the luma; colours keep their chroma.

    Zuiderveld, Graphics Gems IV (1994): tiles x tiles regions, each with the cumulative histogram
    as its curve; bins above `clip` times their mean are cut and the excess goes to all bins
    evenly, once; each pixel lies between the curves of the four nearest regions. An image that
    does not divide is mirrored, as in OpenCV; a bin takes fractions, where OpenCV's are whole.
    """
    unit = image_hwc / _top(image_hwc)
    luma = (unit * (LUMA if unit.shape[2] == 3 else 1.0)).sum(axis=2)
    shift = _equalised(luma, tiles, clip) - luma
    return _as_stored(np.clip(unit + shift[..., None], 0, 1), image_hwc)


def _top(image: np.ndarray) -> float:
    """The largest value an image of this type can have."""
    return 255.0 if image.dtype == np.uint8 else 1.0


def _as_stored(unit: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Values in [0, 1] to the type of an image."""
    if like.dtype == np.uint8:
        unit = np.rint(unit * 255)
    return np.asarray(unit, like.dtype)


def _equalised(luma_hw: np.ndarray, tiles: int, clip: float) -> np.ndarray:
    height, width = luma_hw.shape
    rows, cols = -(-height // tiles), -(-width // tiles)
    margins = [(0, rows * tiles - height), (0, cols * tiles - width)]
    curves = _curves(np.pad(luma_hw, margins, mode="symmetric"), tiles, clip)
    (top_row, below), (left, beside) = _nearest(height, rows, tiles), _nearest(width, cols, tiles)
    level = luma_hw * (BINS - 1)
    bin_hw = np.minimum(level.astype(np.intp), BINS - 2)
    rest = level - bin_hw

    def of(row: np.ndarray, col: np.ndarray) -> np.ndarray:
        place = (row[:, None] * tiles + col) * BINS + bin_hw
        return np.asarray(curves[place] * (1 - rest) + curves[place + 1] * rest)

    row = np.clip([top_row, top_row + 1], 0, tiles - 1)
    col = np.clip([left, left + 1], 0, tiles - 1)
    upper = of(row[0], col[0]) * (1 - beside) + of(row[0], col[1]) * beside
    lower = of(row[1], col[0]) * (1 - beside) + of(row[1], col[1]) * beside
    return np.asarray(upper * (1 - below[:, None]) + lower * below[:, None])


def _curves(padded_hw: np.ndarray, tiles: int, clip: float) -> np.ndarray:
    """The curve of each tile, level to [0, 1], one after the other: (tiles * tiles * BINS,)."""
    rows, cols = (side // tiles for side in padded_hw.shape)
    level = np.rint(padded_hw * (BINS - 1)).astype(np.intp)
    tile_hw = np.arange(padded_hw.shape[0])[:, None] // rows * tiles
    place = (tile_hw + np.arange(padded_hw.shape[1]) // cols) * BINS + level
    counts = np.bincount(place.ravel(), minlength=tiles * tiles * BINS).reshape(-1, BINS)
    limit = clip * rows * cols / BINS
    cut = np.minimum(counts, limit)
    excess = (counts - cut).sum(axis=1, keepdims=True)
    return np.asarray((cut + excess / BINS).cumsum(axis=1) / (rows * cols)).ravel()


def _nearest(length: int, side: int, tiles: int) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel the region whose centre lies before it (-1 for none), and how far behind."""
    place = (np.arange(length) + 0.5) / side - 0.5
    before = np.floor(place).astype(np.intp)
    return before, place - before


# The text


DEFAULTS: dict[str, dict[str, Value]] = {
    "median": {"size": 3.0},
    "quantise": {"colors": 0.0, "bits": 0.0},
    "clahe": {"tiles": 8.0, "clip": 2.0},
    "clip": {"low": 1.0, "high": 99.0},
}


def _read(text: str) -> list[Call]:
    terms = parse_sum(text, example="median(size=3)+clahe(tiles=8,clip=2)")
    for weight, call in terms:
        if weight != 1:
            raise ConfigError(f"{text!r}: steps have no weights; leave {weight:g}* away")
        if call.name in ("grey", "gray"):
            raise ConfigError(f"{call.name!r} is no step; set data.color=grey")
        check_name(call, DEFAULTS, "step")
    return [call for _, call in terms]


def _step(call: Call) -> Step:
    """The function of a step with its numbers in it."""
    number = {name: float(value) for name, value in fill(call, DEFAULTS[call.name]).items()}  # type: ignore[arg-type]
    if call.name == "median":
        size = _whole(call, "size", number["size"], 3, 15)
        _check(size % 2 == 1, call, "size is odd: 3, 5, 7, ...")
        return lambda image: median(image, size)
    if call.name == "quantise":
        return _quantise_step(call, number)
    if call.name == "clahe":
        tiles = _whole(call, "tiles", number["tiles"], 1, 64)
        _check(number["clip"] >= 1, call, "clip is at least 1, the mean height of a bin")
        return lambda image: clahe(image, tiles, number["clip"])
    low, high = number["low"], number["high"]
    _check(0 <= low < high <= 100, call, "0 <= low < high <= 100, in percent")
    return lambda image: clip_percentiles(image, low, high)


def _quantise_step(call: Call, number: dict[str, float]) -> Step:
    given = [name for name in ("colors", "bits") if name in call.arguments]
    _check(len(given) == 1, call, "give either colors=8 (k-means) or bits=3")
    if given == ["colors"]:
        colors = _whole(call, "colors", number["colors"], 2, 64)
        return lambda image: reduce_colors(image, colors)
    bits = _whole(call, "bits", number["bits"], 1, 7)
    return lambda image: reduce_bits(image, bits)


def _whole(call: Call, name: str, value: float, low: int, high: int) -> int:
    _check(value == int(value) and low <= value <= high, call, f"{name} is {low} to {high}, whole")
    return int(value)


def _check(ok: bool, call: Call, rule: str) -> None:
    if not ok:
        raise ConfigError(f"{call} cannot be used: {rule}")
