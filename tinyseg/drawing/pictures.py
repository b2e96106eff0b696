"""Pictures for a quick look: image, label, probability and prediction side by side."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from tinyseg.common.files import write_atomic
from tinyseg.config import IGNORE

Array = np.ndarray[Any, np.dtype[Any]]
Color = tuple[int, int, int]

# Okabe & Ito's palette, which color-blind readers can distinguish too; class 0 is black
COLORS = [
    *((240, 228, 66), (86, 180, 233), (213, 94, 0), (0, 158, 115)),
    *((204, 121, 167), (230, 159, 0), (0, 114, 178), (255, 255, 255)),
]
TP, FP, FN = (86, 180, 233), (213, 94, 0), (240, 228, 66)
"""True positives, false positives and false negatives: sky blue, vermilion, yellow."""
OUTCOMES = {"true positive": TP, "false positive": FP, "false negative": FN}
IGNORED = (110, 110, 110)
BACKGROUND = (24, 24, 24)


def palette(classes: int) -> Array:
    """Return RGB (256, 3) uint8 of class ids; two classes are black and white, 255 is gray."""
    colors = [(255, 255, 255)] if classes <= 2 else COLORS
    table = np.zeros((256, 3), np.uint8)
    for class_id in range(1, 256):  # the second time around darker, and so on
        turn, place = divmod(class_id - 1, len(colors))
        table[class_id] = np.multiply(colors[place], 0.65**turn if turn < 3 else 1).round()
    table[IGNORE] = IGNORED
    return table


def color_map() -> Array:
    """Return RGB (256, 3) uint8 of probabilities 0 to 1: viridis, dark violet to bright yellow.

    Nine of its colors (van der Walt and Smith 2015, CC0), straight lines between them.
    """
    colors = [(68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141)]
    colors += [(39, 173, 129), (92, 200, 99), (170, 220, 50), (253, 231, 37)]
    places, known = np.linspace(0, 8, 256), np.array(colors, float)
    bands = [np.interp(places, np.arange(9), known[:, band]) for band in range(3)]
    return np.asarray(np.stack(bands, axis=1).round(), np.uint8)


def color_classes(label_hw: Array, classes: int) -> Array:
    """Return the colors (H, W, 3) uint8 of class ids (H, W)."""
    return palette(classes)[label_hw]


def color_image(image_hwc: Array, channels: Sequence[int] = ()) -> Array:
    """An image (H, W, C), uint8 or float32 in [0, 1], to (H, W, 3) uint8.

    Of other than one or three channels, or where `channels` names some (from 1), these or the
    first three are shown in red, green and blue, each stretched between its 1st and 99th
    percentile; a single one in gray.
    """
    if channels or image_hwc.shape[2] not in (1, 3):
        chosen = [number - 1 for number in channels] or slice(3)
        image_hwc = _false_color(image_hwc[..., chosen])
    if image_hwc.dtype != np.uint8:
        image_hwc = (np.clip(image_hwc, 0, 1) * 255).round().astype(np.uint8)
    return np.broadcast_to(image_hwc, (*image_hwc.shape[:2], 3))


def _false_color(image_hwc: Array) -> Array:
    """One channel to (H, W, 1), two or three to (H, W, 3), float32 in [0, 1], each stretched."""
    low, high = np.percentile(image_hwc, (1, 99), axis=(0, 1))
    shown = (image_hwc - low) / np.where(high > low, high - low, 1)
    missing = [(0, 0), (0, 0), (0, int(image_hwc.shape[2] == 2))]
    return np.asarray(np.pad(shown.clip(0, 1), missing), np.float32)


def color_probability(p_khw: Array) -> Array:
    """Return the foreground probability (K >= 2: of any class but 0) in colors (H, W, 3) uint8."""
    p_hw = p_khw[0] if p_khw.shape[0] == 1 else 1 - p_khw[0]
    return np.asarray(color_map()[(np.clip(p_hw, 0, 1) * 255).round().astype(np.uint8)])


def color_outcomes(image_hw3: Array, label_hw: Array, prediction_hw: Array) -> Array:
    """Return an image (H, W, 3) uint8 of two classes with TP, FP and FN tinted."""
    known, predicted, actual = label_hw != IGNORE, prediction_hw > 0, label_hw == 1
    tp, fp, fn = actual & predicted, known & predicted & ~actual, actual & ~predicted
    shown = image_hw3.astype(np.float64)
    for where, color in ((tp, TP), (fp, FP), (fn, FN)):
        shown[where] = 0.35 * shown[where] + 0.65 * np.array(color)
    shown[~known] = 0.5 * shown[~known] + 0.5 * np.array(IGNORED)
    return np.asarray(shown.round(), np.uint8)


def row(
    image: Array, label: Array | None, p_khw: Array, prediction: Array, classes: int
) -> list[Array]:
    """Return the four pictures of one image: image, label, probability, prediction.

    The prediction of two classes lies over the image in the colors of OUTCOMES where there is a
    label; else it is the classes' colors.
    """
    shown = np.zeros(prediction.shape, np.uint8) if label is None else label
    if label is None or classes > 2:
        result = color_classes(prediction, classes)
    else:
        result = color_outcomes(color_image(image), label, prediction)
    return [color_image(image), color_classes(shown, classes), color_probability(p_khw), result]


def legend_of(class_names: Sequence[str]) -> dict[str, Color]:
    """Return the meaning of the colors of a row's prediction."""
    if len(class_names) <= 2:
        return dict(OUTCOMES)
    colors = palette(len(class_names)).tolist()
    return {name: tuple(color) for name, color in zip(class_names, colors, strict=False)}


def overlay(image: Array, label_hw: Array, classes: int, side: int) -> Array:
    """Return an image as (H, W, 3) uint8, at most `side` each, with classes tinted and outlined.

    Ignored pixels are darkened and striped.
    """
    shown = np.asarray(_inside(image, side, smooth=True), np.float64)
    label = np.asarray(_inside(label_hw, side, smooth=False))
    colors = palette(max(classes, 3))[label].astype(np.float64)
    rows, columns = label.shape
    edge = np.zeros(label.shape, bool)
    edge[1:] |= label[1:] != label[:-1]
    edge[:, 1:] |= label[:, 1:] != label[:, :-1]
    edge &= (label > 0) & (label != IGNORE)
    stripes = (np.arange(rows)[:, None] + np.arange(columns)) % 8 < 2
    tint = np.where((label > 0) & (label != IGNORE), 0.25, 0.0) + 0.75 * edge
    shown = shown * (1 - tint[..., None]) + colors * tint[..., None]
    gone = label == IGNORE
    shown[gone] = shown[gone] * 0.35 + 40 * stripes[gone][:, None]
    return np.asarray(shown.round().clip(0, 255), np.uint8)


def draw_grid(
    rows: Sequence[Sequence[Array]],
    captions: Sequence[str],
    titles: Sequence[str] = ("image", "label", "probability", "prediction"),
    side: int = 192,
    legend: Mapping[str, Color] | None = None,
) -> Array:
    """Return rows of pictures (H, W, 3) uint8 as one, with a caption below each row.

    The legend is at the bottom, with the color bar of probabilities.
    """
    sheet = _grid(rows, captions, titles, side)
    return np.asarray(_with_legend(sheet, legend) if legend else sheet)


def save_grid(path: Path, *arguments: Any, **options: Any) -> None:
    """Write `draw_grid` of the other arguments as a PNG."""
    write_png(path, Image.fromarray(draw_grid(*arguments, **options)), signed=True)


def save_bands(
    path: Path,
    rows: Sequence[Sequence[Array]],
    captions: Sequence[str],
    titles: Sequence[str],
    wide: int = 7,
    side: int = 192,
) -> None:
    """Write a grid of more columns than fit side by side: at most `wide`, the others below."""
    cuts = range(0, len(titles), wide)
    bands = [
        _grid([r[c : c + wide] for r in rows], captions, titles[c : c + wide], side) for c in cuts
    ]
    sheet = Image.new("RGB", (bands[0].width, sum(band.height for band in bands)), BACKGROUND)
    for index, band in enumerate(bands):
        sheet.paste(band, (0, index * band.height))
    write_png(path, sheet, signed=True)


def _grid(
    rows: Sequence[Sequence[Array]], captions: Sequence[str], titles: Sequence[str], side: int
) -> Image.Image:
    gap, line = 6, 18
    width = len(titles) * (side + gap) + gap
    height = line + gap + len(rows) * (side + line + gap)
    sheet = Image.new("RGB", (width, height), BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for column, title in enumerate(titles):
        draw.text((gap + column * (side + gap), 3), title, (230, 230, 230), font)
    for index, (pictures, caption) in enumerate(zip(rows, captions, strict=True)):
        top = line + gap + index * (side + line + gap)
        for column, picture in enumerate(pictures):
            tile = _inside(picture, side, smooth=column in (0, 2))
            left = gap + column * (side + gap) + (side - tile.width) // 2
            sheet.paste(tile, (left, top + (side - tile.height) // 2))
        draw.text((gap, top + side + 1), _printable(caption), (200, 200, 200), font)
    return sheet


def _with_legend(sheet: Image.Image, legend: Mapping[str, Color]) -> Image.Image:
    gap, line, font = 6, 22, ImageFont.load_default(13)
    texts = [_printable(name) for name in legend]
    widths = [round(font.getlength(text)) + 12 + 3 * gap for text in texts]
    bar = 156 + round(font.getlength("probability 0  1"))
    places, left, top = [], gap, 0
    for width in [*widths, bar]:
        if left + width > sheet.width and left > gap:
            left, top = gap, top + line
        places.append((left, sheet.height + top))
        left += width
    taller = Image.new("RGB", (sheet.width, sheet.height + top + line), BACKGROUND)
    taller.paste(sheet)
    draw = ImageDraw.Draw(taller)
    for text, color, (x, y) in zip(texts, legend.values(), places, strict=False):
        draw.rectangle((x, y + 4, x + 11, y + 15), color, (110, 110, 110))
        draw.text((x + 12 + gap, y + 1), text, (200, 200, 200), font)
    x, y = places[-1]
    draw.text((x, y + 1), "probability 0", (200, 200, 200), font)
    x += round(font.getlength("probability 0")) + gap
    colors = Image.fromarray(np.ascontiguousarray(color_map()[None]))
    taller.paste(colors.resize((128, 12), Image.Resampling.NEAREST), (x, y + 4))
    draw.text((x + 128 + gap, y + 1), "1", (200, 200, 200), font)
    return taller


def write_png(path: Path, picture: Image.Image, signed: bool = False) -> None:
    """Write a PNG atomically; a signed one says that a command of tinyseg may replace it."""
    buffer, info = BytesIO(), PngInfo()
    if signed:
        info.add_text("Software", "tinyseg")
    picture.save(buffer, "PNG", pnginfo=info)
    write_atomic(path, buffer.getvalue())


def _inside(picture: Array, side: int, smooth: bool) -> Image.Image:
    scale = side / max(picture.shape[:2])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    method = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    return Image.fromarray(np.ascontiguousarray(picture)).resize(size, method)


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
