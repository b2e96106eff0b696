"""Each step beside its definition, in float64 and in loops."""

import numpy as np
import pytest

from tinyseg.data.prepare.preprocess import Preprocess
from tinyseg.errors import ConfigError

RNG = np.random.default_rng(7)
TEXTS = [
    "median(size=3)",
    "quantize(colors=5)",
    "quantize(bits=3)",
    "clahe(tiles=3,clip=2)",
    "clip(low=5,high=95)",
    "median(size=5)+clahe(tiles=8,clip=3)+quantize(colors=8)+clip",
]


def picture(height: int = 37, width: int = 50, channels: int = 3, deep: bool = False) -> np.ndarray:
    """Smooth light with noise on it: neither flat nor white noise."""
    rows, cols = np.mgrid[:height, :width]
    light = 110 + 70 * np.sin(rows / 9)[..., None] * np.cos(cols / 7 + 1)[..., None]
    pixels = (light + RNG.normal(0, 14, (height, width, channels))).clip(0, 255)
    return (pixels / 255).astype(np.float32) if deep else pixels.astype(np.uint8)


# All steps


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("shape", [(37, 50, 3), (64, 64, 1), (1, 1, 3), (2, 90, 1)])
def test_a_step_is_pure_and_keeps_shape_type_and_range(text, deep, shape) -> None:
    image = picture(*shape, deep=deep)
    image.flags.writeable = False
    found, again = Preprocess(text)(image), Preprocess(text)(image.copy())
    assert (found.shape, found.dtype) == (image.shape, image.dtype)
    assert 0 <= found.min() <= found.max() <= (1 if deep else 255)
    np.testing.assert_array_equal(found, again)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("value", [0, 255])
def test_a_flat_image_stays_flat(text, value) -> None:
    found = Preprocess(text)(np.full((20, 24, 1), value, np.uint8))
    assert len(np.unique(found)) == 1


def test_steps_follow_each_other_and_nothing_is_nothing() -> None:
    image = picture()
    one, other = Preprocess("median(size=5)"), Preprocess("clahe(clip=3)")
    both = Preprocess(" median( size=5 ) + clahe(clip=3.0)")
    np.testing.assert_array_equal(both(image), other(one(image)))
    assert both.text == "median(size=5)+clahe(clip=3)"
    assert Preprocess("")(image) is image
    assert Preprocess("  ").text == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("median(3)", "an argument such as name=value"),
        ("median(size=4)", "size is odd"),
        ("median(size=3.5)", "size is 3 to 15, whole"),
        ("median(size=99)", "size is 3 to 15"),
        ("quantize", "give either colors=8"),
        ("quantize(colors=4,bits=2)", "give either colors=8"),
        ("quantize(bits=8)", "bits is 1 to 7"),
        ("quantize(colors=1)", "colors is 2 to 64"),
        ("clahe(clip=0.5)", "clip is at least 1"),
        ("clahe(tiles=0)", "tiles is 1 to 64"),
        ("clip(low=60,high=40)", "0 <= low < high"),
        ("0.5*median", "no weights"),
        ("grey", "set data.color=grey"),
        ("blur", "unknown step 'blur'; known: median"),
        ("median(width=3)", "unknown argument 'width'"),
        ("median+", r"an example: median\(size=3\)\+clahe"),
    ],
)
def test_what_cannot_be_used_is_said_with_the_setting(text, told) -> None:
    with pytest.raises(ConfigError, match=f"^data.preprocess: .*{told}"):
        Preprocess(text)


# Median and percentiles


@pytest.mark.parametrize("size", [3, 7])
@pytest.mark.parametrize("deep", [False, True])
def test_the_median_is_that_of_the_window(size, deep) -> None:
    image = picture(11, 13, deep=deep)
    half = size // 2
    padded = np.pad(image, [(half, half), (half, half), (0, 0)], mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(0, 1))
    np.testing.assert_array_equal(
        Preprocess(f"median(size={size})")(image), np.median(windows, axis=(3, 4))
    )


def test_the_clip_is_at_each_channels_own_percentiles() -> None:
    image = picture() // np.array([1, 2, 4], np.uint8)
    found = Preprocess("clip(low=10,high=80)")(image)
    for channel in range(3):
        low, high = np.rint(np.percentile(image[..., channel].astype(float), [10, 80]))
        np.testing.assert_array_equal(found[..., channel], image[..., channel].clip(low, high))
    deep = picture(deep=True)
    bounds = np.percentile(deep.astype(np.float64), [1, 99], axis=(0, 1))
    np.testing.assert_allclose(Preprocess("clip")(deep), deep.clip(*bounds), atol=1e-7)


# Contrast


def clahe_by_definition(levels: np.ndarray, tiles: int, clip: float) -> np.ndarray:
    """Zuiderveld's algorithm pixel by pixel, in float64, for whole levels 0..255: [0, 1]."""
    height, width = levels.shape
    rows, cols = -(-height // tiles), -(-width // tiles)
    padded = np.pad(
        levels, [(0, rows * tiles - height), (0, cols * tiles - width)], mode="symmetric"
    )
    curves = {}
    for i in range(tiles):
        for j in range(tiles):
            region = padded[i * rows : (i + 1) * rows, j * cols : (j + 1) * cols]
            bins = [float((region == level).sum()) for level in range(256)]
            limit = clip * region.size / 256
            excess = sum(max(height - limit, 0) for height in bins)
            bins = [min(height, limit) + excess / 256 for height in bins]
            curves[i, j] = [sum(bins[: level + 1]) / region.size for level in range(256)]
    found = np.zeros(levels.shape)
    for y in range(height):
        for x in range(width):
            # the centres of the regions lie at (i + 0.5) * rows - 0.5
            down, right = (y + 0.5) / rows - 0.5, (x + 0.5) / cols - 0.5
            for i, row_weight in ((int(down // 1), 1 - down % 1), (int(down // 1) + 1, down % 1)):
                for j, weight in (
                    (int(right // 1), 1 - right % 1),
                    (int(right // 1) + 1, right % 1),
                ):
                    curve = curves[min(max(i, 0), tiles - 1), min(max(j, 0), tiles - 1)]
                    found[y, x] += row_weight * weight * curve[levels[y, x]]
    return found


@pytest.mark.parametrize(("tiles", "clip"), [(1, 3.0), (2, 1.0), (4, 2.0), (3, 400.0)])
def test_clahe_is_as_defined(tiles, clip) -> None:
    image = picture(32, 29, 1)
    found = Preprocess(f"clahe(tiles={tiles},clip={clip})")(image)
    expected = clahe_by_definition(image[..., 0], tiles, clip) * 255
    assert np.abs(found[..., 0] - expected).max() <= 0.5 + 1e-9
    deep = Preprocess(f"clahe(tiles={tiles},clip={clip})")((image / 255).astype(np.float32))
    np.testing.assert_allclose(deep[..., 0] * 255, expected, atol=1e-3)


def test_clahe_moves_the_luma_and_keeps_the_chroma() -> None:
    image = (picture().astype(int) // 3 + [60, 80, 100]).astype(np.uint8)
    found = Preprocess("clahe(tiles=2,clip=1.5)")(image).astype(int)
    inside = ((found > 0) & (found < 255)).all(axis=2)
    assert inside.mean() > 0.7
    difference = lambda pixels: pixels[..., :2] - pixels[..., 2:]  # noqa: E731
    assert np.abs(difference(found) - difference(image.astype(int)))[inside].max() <= 1
    grey = picture(channels=1)
    np.testing.assert_array_equal(
        Preprocess("clahe")(np.repeat(grey, 3, axis=2)),
        np.repeat(Preprocess("clahe")(grey), 3, axis=2),
    )


def test_clahe_brings_out_a_faint_square() -> None:
    image = np.full((64, 64, 1), 100, np.uint8) + RNG.integers(0, 3, (64, 64, 1), dtype=np.uint8)
    image[20:40, 20:40] += 4
    found = Preprocess("clahe(tiles=2,clip=40)")(image).astype(int)
    assert found[22:38, 22:38].mean() - found[:16].mean() > 40


# Colors


def test_the_old_spelling_is_read() -> None:
    assert Preprocess("quantise(bits=2)").text == "quantize(bits=2)"


@pytest.mark.parametrize("bits", [1, 3, 7])
def test_bits_keep_the_upper_ones_from_black_to_white(bits) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    found = Preprocess(f"quantize(bits={bits})")(ramp)
    upper = ramp.astype(int) // 2 ** (8 - bits)
    np.testing.assert_array_equal(found, np.rint(upper * 255 / (2**bits - 1)))
    deep = Preprocess(f"quantize(bits={bits})")((ramp / 255).astype(np.float32))
    np.testing.assert_allclose(deep, upper / (2**bits - 1), atol=1e-6)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(("channels", "colors"), [(1, 4), (3, 2), (3, 16)])
def test_each_pixel_gets_the_nearest_color_of_the_palette(channels, colors, deep) -> None:
    image = picture(40, 40, channels, deep)
    found = Preprocess(f"quantize(colors={colors})")(image)
    pixels, mapped = (a.reshape(-1, channels).astype(np.float64) for a in (image, found))
    palette = np.unique(mapped, axis=0)
    assert len(palette) == colors
    gaps = np.linalg.norm(pixels[:, None] - palette[None], axis=2)
    taken = np.linalg.norm(pixels - mapped, axis=1)
    level = float(np.ptp(image)) / 255 if deep else 0  # a deep image is compared in 256 levels
    np.testing.assert_allclose(taken, gaps.min(axis=1), atol=level * channels**0.5 + 1e-12)


def test_a_dark_deep_image_is_quantized_over_its_own_range() -> None:
    image = picture(40, 40, 3, deep=True)
    dark = Preprocess("quantize(colors=16)")(image / 64)
    np.testing.assert_allclose(dark * 64, Preprocess("quantize(colors=16)")(image), atol=1e-6)


def test_more_colors_are_closer_and_a_palette_is_better_than_gray_levels() -> None:
    image = picture()
    texts = [f"quantize(colors={count})" for count in (2, 4, 8, 64)]
    errors = [
        np.square(Preprocess(text)(image).astype(float) - image).sum()
        for text in ["quantize(bits=1)", *texts]
    ]
    assert errors == sorted(errors, reverse=True)


def test_as_many_colors_as_there_are_change_nothing() -> None:
    colors = RNG.integers(0, 256, (6, 3), dtype=np.uint8)
    image = colors[RNG.integers(0, 6, (20, 20))]
    np.testing.assert_array_equal(Preprocess("quantize(colors=8)")(image), image)


def test_four_clear_clusters_are_found() -> None:
    means = np.array([[20, 20, 20], [200, 30, 30], [30, 200, 40], [220, 220, 210]])
    mine = RNG.integers(0, 4, (30, 30))
    image = (means[mine] + RNG.integers(-6, 7, (30, 30, 3))).astype(np.uint8)
    found = Preprocess("quantize(colors=4)")(image)
    for cluster in range(4):
        (color,) = np.unique(found[mine == cluster], axis=0)
        np.testing.assert_allclose(color, image[mine == cluster].mean(axis=0), atol=0.51)
