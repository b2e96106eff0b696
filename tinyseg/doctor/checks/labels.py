"""Checks that labels show what is in the images: not inverted, moved, shuffled or lost."""

import numpy as np
from scipy import ndimage

from tinyseg.common.arrays import Array
from tinyseg.common.findings import Finding
from tinyseg.config import IGNORE
from tinyseg.data import is_foreground
from tinyseg.data.reading.agreement import explained
from tinyseg.data.reading.label_map import swapped_text
from tinyseg.doctor.check import Check, error, finding, ok, only_if, warning
from tinyseg.doctor.experiments.label_agreement import (
    TURNS,
    Pairs,
    best_shift,
    best_stretch,
    match_z_score,
    own_share,
    pairs_of,
    rearrange,
    shift,
    stretch,
    table_of,
)
from tinyseg.doctor.figures import label_picture
from tinyseg.doctor.project import Project

FEW, ENOUGH = 6, 24
"""Labels from which a match can be shown, and labels from which its absence can."""
NO_MATCH = 2.0
"""z-scores: BUSI, ISBI, CamVid, Pets and nuclei have 10 and more, shuffled ones up to 1.9."""
CLEAR_MATCH, CHANCE_SWAPS = 5.0, 2
"""z-score from which labels tell images apart, and how many may then look swapped by chance:
on real sets none did, and of five that were swapped three to five were named."""
STANDARD_ERRORS = 4.0
"""By which labels must fit better when they are moved, turned or stretched."""
BETTER_MOVED, BETTER_STRETCHED = 0.1, 0.25
"""And share by which they must: real and simulated sets gain 0.12 at most when they are stretched,
scaled ones 0.5."""
TOLERANCE = 2
"""Pixels (of SIDE) by which annotators may be off."""


def _informative(project: Project) -> list[int]:
    """Return the tiles whose label has more than one class; none if they are too few."""
    labels = project.tiles.labels
    chosen = [i for i, label in enumerate(labels) if len(set(np.unique(label)) - {IGNORE}) > 1]
    return chosen if len(chosen) >= FEW else []


def _pairs(project: Project) -> Pairs:
    tiles, chosen = project.tiles, _informative(project)
    images = [tiles[i].pixels for i in chosen]
    return pairs_of(images, tiles.labels[chosen], project.dataset.classes)


enough_labels = only_if(lambda project: bool(_informative(project)))


@only_if(lambda project: project.dataset.classes == 2)
def objects_are_foreground(project: Project) -> list[Finding]:
    """The foreground is the objects, not what surrounds them."""
    labels, tiles = project.tiles.labels, range(len(project.tiles))
    flags = [surrounds(label) for label in labels]
    around = [tile for tile in tiles if flags[tile]]
    known = sum(flag is not None for flag in flags)
    if 2 * len(around) > known:
        what = f"in {len(around)} of {known} masks the foreground touches all four borders and "
        what += "surrounds islands of background"
        why = "such islands are usually the objects; predicting everything except the objects "
        why += "gets a high score from the start"
        remedy = f"to segment the islands, set {swapped_text(project.dataset.label_map)}"
        names = map(project.name_of, around)
        picture = label_picture(project, project.foreground_tiles)
        return warning("inverted", what, why, remedy, names, picture)
    signs = [_contrast_sign(project.tiles[i].pixels.mean(axis=2), labels[i]) for i in tiles]
    usual = np.sign(np.nansum([signs[tile] for tile in tiles if flags[tile] is False]))
    inverted = [tile for tile in around if signs[tile] == -usual != 0]
    if len(inverted) < 2:
        return []
    what = f"in {len(inverted)} of {known} masks foreground and background are swapped: unlike in "
    what += "the other masks, the foreground surrounds the object"
    why = "the masks contradict each other, so the network cannot fit all of them"
    names = map(project.name_of, inverted)
    return error("inverted", what, why, "invert the masks that are listed", names)


def _contrast_sign(image: Array, label: Array) -> float:
    """Return 1 if the foreground is brighter than the background, -1 if darker; nan if unknown."""
    inside, outside = image[is_foreground(label)], image[label == 0]
    if not (inside.size and outside.size):
        return np.nan
    return float(np.sign(inside.mean() - outside.mean()))


def surrounds(label: Array) -> bool | None:
    """Return whether the foreground is one piece around islands; None for a single class."""
    known = label != IGNORE
    rows, columns = (np.flatnonzero(known.any(axis)) for axis in (1, 0))
    if not rows.size:
        return None
    cut = label[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    foreground, background = is_foreground(cut), cut == 0
    if not (foreground.any() and background.any()):
        return None
    (share, sides), (_, other_sides) = _largest_piece(foreground), _largest_piece(background)
    mostly = foreground.sum() > background.sum()
    return bool(mostly and share > 0.9 and sides == 4 > other_sides)


def _largest_piece(mask: Array) -> tuple[float, int]:
    """Return the share of the largest piece, and how many borders it touches."""
    parts, _ = ndimage.label(mask)
    sizes = np.bincount(parts.ravel())[1:]
    piece = parts == sizes.argmax() + 1
    sides = sum(bool(side.any()) for side in (piece[0], piece[-1], piece[:, 0], piece[:, -1]))
    return float(sizes.max() / sizes.sum()), sides


@enough_labels
def labels_match_images(project: Project) -> list[Finding]:
    """Labels fit their own images better than other images."""
    chosen, pairs = _informative(project), project.once(_pairs)
    names = [project.name_of(tile) for tile in chosen]
    match, swapped = match_z_score(table_of(pairs)), rearrange(pairs)
    level, picture, lines = "error", None, list[str]()
    if swapped.match >= CLEAR_MATCH and len(swapped.agreed) > CHANCE_SWAPS:
        what = f"{len(swapped.agreed)} of {len(names)} images have the mask of another image"
        lines = [f"{names[i]}: the mask of {names[j]} fits" for i, j in swapped.agreed.items()]
        picture = label_picture(project, [chosen[i] for i in swapped.agreed])
    elif match < NO_MATCH and len(names) >= ENOUGH:
        level = "warning"
        what = f"the masks of {len(names)} images fit them no better than the masks of other "
        what += f"images (z-score {match:.1f})"
    else:
        what = f"masks fit their own images much better than others (z-score {match:.0f})"
        return ok("labels match", what)
    why = "a network can only memorize a mask that does not belong to its image"
    remedy = "check how images and masks are paired; in sorted order, 10 comes before 2"
    return finding(level, "shuffled", what, why, remedy, lines, picture)


@enough_labels
def labels_are_in_place(project: Project) -> list[Finding]:
    """Labels fit best where they are, not shifted, mirrored or rotated."""
    pairs, size = project.once(_pairs), project.config.data.size
    here = explained(pairs.features, pairs.targets)
    ways = {how: np.ascontiguousarray(turn(pairs.targets)) for how, turn in TURNS.items()}
    rows, columns = best_shift(pairs)
    if max(abs(rows), abs(columns)) > TOLERANCE:
        scale = size / pairs.targets.shape[-1]
        vertical = f"{abs(rows) * scale:.0f} pixels {'down' if rows < 0 else 'up'}"
        sideways = f"{abs(columns) * scale:.0f} pixels {'right' if columns < 0 else 'left'}"
        ways[f"shifted {vertical} and {sideways}"] = shift(pairs.targets, rows, columns)
    gains = {how: explained(pairs.features, there) - here for how, there in ways.items()}
    how, gain = max(gains.items(), key=lambda pair: pair[1].mean())
    if not _clear(gain, BETTER_MOVED * here.mean()):
        return []
    return error(
        "moved",
        f"the labels are {how} (at data.size={size}): after undoing this, {_better(here, gain)}",
        "the network learns to mark the wrong places",
        "check how the masks were exported, resized or flipped, and export them again",
        picture=label_picture(project, project.foreground_tiles),
    )


@enough_labels
def labels_have_the_right_size(project: Project) -> list[Finding]:
    """Labels fit best at their own size, not stretched."""
    pairs = project.once(_pairs)
    axes = best_stretch(pairs)
    here = own_share(pairs)
    gain = own_share(Pairs(pairs.features, stretch(pairs.targets, *axes))) - here
    if not _clear(gain, BETTER_STRETCHED * abs(here.mean())):
        return []
    height, width = (f"{1 / factor:.0%}" for factor, _ in axes)
    return error(
        "scaled",
        f"the labels have about {height} of the height and {width} of the width of the objects: "
        f"after stretching them, {_better(here, gain)}",
        "the network learns to mark too much or too little",
        "look for cropping, padding or resizing of only the images or only the masks",
        picture=label_picture(project, project.foreground_tiles),
    )


def _clear(gain: Array, least: float) -> bool:
    return bool(gain.mean() >= max(STANDARD_ERRORS * _standard_error(gain), least))


def _better(here: Array, gain: Array) -> str:
    errors = gain.mean() / max(_standard_error(gain), 1e-12)
    return (
        "they match the images much better (image features explain "
        f"{(here + gain).mean():.0%} of them instead of {here.mean():.0%}; {len(gain)} images, "
        f"{errors:.0f} standard errors)"
    )


def _standard_error(gain: Array) -> float:
    return float(gain.std(ddof=1) / np.sqrt(len(gain)))


def classes_survive_resizing(project: Project) -> list[Finding]:
    """Each class keeps its share of the labeled pixels at the network's input size."""
    dataset, labels = project.dataset, project.tiles.labels
    class_ids = range(dataset.classes)
    counts = [dataset.class_pixels(dataset.index(name)) for name in project.names]
    pixels = [[one.get(class_id, 0) for class_id in class_ids] for one in counts]
    shares = [np.divide(one, sum(one)) for one in pixels if sum(one)]
    if not shares:
        return []
    before, known = np.mean(shares, axis=0), max((labels != IGNORE).sum(), 1)
    after = [(labels == class_id).sum() / known for class_id in class_ids]
    lines = {
        f"{name}: {b:.2%} of the pixels in the files, {a:.2%} after resizing": b > 0 and a < b / 2
        for name, b, a in zip(dataset.class_names, before, after, strict=True)
    }
    lost = [line for line, is_lost in lines.items() if is_lost]
    if not lost or project.config.data.fit == "tile":
        return ok("labels", f"{len(project.names)} training images", evidence=lines)
    what = f"{len(lost)} classes lose at least half of their pixels when images are resized to "
    what += f"data.size={project.config.data.size}"
    why = "structures thinner than one pixel at this size cannot be learned"
    remedy = "raise data.size, or set data.fit=tile to train on tiles at full resolution"
    return warning("lost classes", what, why, remedy, lost)


@only_if(lambda project: 0 < project.foreground_share < 1)
def foreground_share(project: Project) -> list[Finding]:
    """Report how rare the foreground is, and what follows for the loss."""
    share = project.foreground_share
    weight = min((1 - share) / share, 100)
    advice = [
        "train.loss=auto is half Dice, which works however rare the foreground is",
        f"with cross-entropy alone, set train.loss=bce(pos_weight={weight:.2g}) to balance both "
        "classes; in a network of your own, you can initialize the bias of the last layer with "
        f"log(f / (1 - f)) = {project.foreground_bias:.2f}, where f is the share of foreground",
        f"with focal, set alpha={min(0.95, 1 - share):.2f}; with tversky, set alpha=0.3, beta=0.7 "
        "to miss fewer foreground pixels",
    ]
    return ok("foreground", f"{share:.2%} of the labeled pixels are foreground", evidence=advice)


LABEL_CHECKS: tuple[Check, ...] = (
    objects_are_foreground,
    labels_match_images,
    labels_are_in_place,
    labels_have_the_right_size,
    classes_survive_resizing,
    foreground_share,
)
