"""Whether labels say what the images show: inverted, moved, shuffled, or lost on the way."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy import ndimage

from tinyseg.common.arrays import Array
from tinyseg.common.findings import Finding, listed
from tinyseg.config import IGNORE
from tinyseg.data import is_foreground
from tinyseg.doctor.experiments.label_agreement import (
    TURNS,
    Pairs,
    best_shift,
    best_stretch,
    explained,
    own_match,
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
"""So many labels may show a match, and so many that there is none."""
NO_MATCH = 2.0
"""Deviations: BUSI, ISBI, CamVid, Pets and nuclei have 10 and more, shuffled up to 1.9."""
FOUND, SWAPPED = 5.0, 2
"""Deviations from which labels can be told apart by their images, and how many may then be swapped
by chance: on real sets none was, and of five that were swapped three to five were named."""
CLEARLY = 4.0
"""Standard errors by which labels must fit better when they are moved or turned."""
BETTER = 0.1
"""And share by which they do."""
LARGER = 0.25
"""And that when they are stretched: real and simulated sets gain 0.12 at most, scaled ones 0.5."""
MOVED = 2
"""Pixels (of SIDE) that annotators may be off."""


def telling(project: Project) -> list[int]:
    """The squares whose label has more than one class; none where they are too few."""
    labels = project.squares.labels
    chosen = [i for i, label in enumerate(labels) if len(set(np.unique(label)) - {IGNORE}) > 1]
    return chosen if len(chosen) >= FEW else []


def matched(project: Project) -> Pairs:
    """These labels and their images."""
    squares, chosen = project.squares, telling(project)
    images = [squares[i].pixels for i in chosen]
    return pairs_of(images, squares.labels[chosen], project.dataset.classes)


def shuffled(project: Project) -> list[Finding]:
    """Labels fit their own images better than others'."""
    chosen = telling(project)
    if not chosen:
        return []
    pairs, names = project.once(matched), [project.name_of(square) for square in chosen]
    match, other = own_match(table_of(pairs)), rearrange(pairs)
    told = tuple(f"{names[i]}: the mask of {names[j]} fits" for i, j in other.agreed.items())
    if other.match >= FOUND and len(told) > SWAPPED:
        seen = f"{len(told)} of {len(names)} images have the mask of another one"
        swapped = [chosen[i] for i in other.agreed]
        return [replace(_shuffled("error", seen, told), picture=label_picture(project, swapped))]
    if match < NO_MATCH and len(names) >= ENOUGH:
        seen = f"the masks of {len(names)} images fit them no better than masks of other images"
        return [_shuffled("warning", f"{seen} ({match:+.1f} deviations)", ())]
    seen = f"masks fit their own images by {match:.0f} deviations better than others'"
    return [Finding("ok", "labels match", seen)]


def _shuffled(level: str, seen: str, evidence: tuple[str, ...]) -> Finding:
    return Finding(
        level,
        "shuffled",
        seen,
        "what is in an image says nothing of its mask then: it can be learned by heart only",
        "look at how images and masks are paired: by name, and 10 sorts before 2",
        evidence,
    )


def moved(project: Project) -> list[Finding]:
    """Labels fit best where they are."""
    if not telling(project):
        return []
    pairs = project.once(matched)
    here = explained(pairs.features, pairs.targets)
    ways = {how: np.ascontiguousarray(turn(pairs.targets)) for how, turn in TURNS.items()}
    rows, columns = best_shift(pairs)
    if max(abs(rows), abs(columns)) > MOVED:
        scale = project.config.data.size / pairs.targets.shape[-1]
        vertical = f"{abs(rows) * scale:.0f} pixels {'down' if rows < 0 else 'up'}"
        sideways = f"{abs(columns) * scale:.0f} to the {'right' if columns < 0 else 'left'}"
        ways[f"moved {vertical} and {sideways}"] = shift(pairs.targets, rows, columns)
    gains = {how: explained(pairs.features, there) - here for how, there in ways.items()}
    how = max(gains, key=lambda name: gains[name].mean())
    gain = gains[how]
    error = gain.std(ddof=1) / np.sqrt(len(gain))
    if gain.mean() < max(CLEARLY * error, BETTER * here.mean()):
        return []
    return [
        Finding(
            "error",
            "moved",
            f"labels are {how}: put back, {(here + gain).mean():.0%} of them is explained by their "
            f"images instead of {here.mean():.0%} ({gain.mean() / max(error, 1e-12):.0f} "
            f"standard errors, {len(gain)} images, at data.size={project.config.data.size})",
            "the network is taught a mask beside the object",
            "look at how masks were exported, resized or flipped; then export them anew",
            picture=label_picture(project, project.held),
        )
    ]


def scaled(project: Project) -> list[Finding]:
    """Labels fit best at the size that they have."""
    if not telling(project):
        return []
    pairs = project.once(matched)
    axes = best_stretch(pairs)
    there = Pairs(pairs.features, stretch(pairs.targets, *axes))
    here, gain = own_share(pairs), own_share(there) - own_share(pairs)
    error = gain.std(ddof=1) / np.sqrt(len(gain))
    if gain.mean() < max(CLEARLY * error, LARGER * abs(here.mean())):
        return []
    height, width = (f"{1 / factor:.0%}" for factor, _ in axes)
    return [
        Finding(
            "error",
            "scaled",
            f"labels have about {height} of the height and {width} of the width of what they mark: "
            f"stretched, {(here + gain).mean():.0%} of them is explained by their own images alone "
            f"instead of {here.mean():.0%} ({gain.mean() / max(error, 1e-12):.0f} standard errors, "
            f"{len(gain)} images)",
            "the network is taught masks of another size, beside the object",
            "crop, pad and resize image and mask alike: look for a step that only one of them gets",
            picture=label_picture(project, project.held),
        )
    ]


def inverted(project: Project) -> list[Finding]:
    """What is marked is the objects, not what surrounds them."""
    if project.dataset.classes != 2:
        return []
    kinds = [(_surrounds(label), label) for label in project.squares.labels]
    names = [project.name_of(square) for square in range(len(project.squares))]
    around = [names[i] for i, (surrounds, _) in enumerate(kinds) if surrounds]
    told = sum(surrounds is not None for surrounds, _ in kinds)
    if 2 * len(around) > told:
        return [
            Finding(
                "warning",
                "inverted",
                f"in {len(around)} of {told} masks what is marked surrounds the rest: one piece at "
                "all four sides, with islands in it that are not marked",
                "the islands are what people call objects; a network that marks all but them has a "
                "high score from the start",
                _swap(project),
                tuple(around),
                label_picture(project, project.held),
            )
        ]
    images = [square.pixels.mean(axis=2) for square in project.squares]
    signs = [_brighter(image, label) for image, (_, label) in zip(images, kinds, strict=True)]
    usual = np.sign(
        np.nansum([s for s, (flag, _) in zip(signs, kinds, strict=True) if flag is False])
    )
    wrong = [
        names[i] for i, (surrounds, _) in enumerate(kinds) if surrounds and signs[i] == -usual != 0
    ]
    return listed(
        "error",
        "inverted",
        f"masks, of {told}, that mark what surrounds the object, unlike the others",
        wrong if len(wrong) > 1 else [],
        "the network is told opposite things",
        "invert these masks",
    )


def _swap(project: Project) -> str:
    values = {kind: value for value, kind in project.dataset.label_map.items()}
    return f'if the rest is what you look for, set data.labels="{values[0]}:1,{values[1]}:0"'


def _brighter(image: Array, label: Array) -> float:
    """1 where the marked is brighter than the rest, -1 where darker; nan without one of them."""
    inside, outside = image[is_foreground(label)], image[label == 0]
    return (
        float(np.sign(inside.mean() - outside.mean())) if inside.size and outside.size else np.nan
    )


def _surrounds(label: Array) -> bool | None:
    """Whether what is marked is one piece around islands; None for a mask of one class."""
    known = label != IGNORE
    rows, columns = (np.flatnonzero(known.any(axis)) for axis in (1, 0))
    if not rows.size:
        return None
    cut = label[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    marked, rest = is_foreground(cut), cut == 0
    if not (marked.any() and rest.any()):
        return None
    (share, sides), (_, rest_sides) = _largest(marked), _largest(rest)
    return bool(marked.sum() > rest.sum() and share > 0.9 and sides == 4 > rest_sides)


def _largest(mask: Array) -> tuple[float, int]:
    """Share of the largest piece, and the number of sides that it touches."""
    parts, _ = ndimage.label(mask)
    sizes = np.bincount(parts.ravel())[1:]
    piece = parts == sizes.argmax() + 1
    sides = sum(bool(side.any()) for side in (piece[0], piece[-1], piece[:, 0], piece[:, -1]))
    return float(sizes.max() / sizes.sum()), sides


def on_the_way(project: Project) -> list[Finding]:
    """What is left of each class at the network's size, of what is not ignored."""
    dataset, labels = project.dataset, project.squares.labels
    kinds = range(dataset.classes)
    counts = [dataset.class_pixels(dataset.index(name)) for name in project.names]
    shares = [[one.get(kind, 0) for kind in kinds] for one in counts if set(one) - {IGNORE}]
    if not shares:
        return []
    before = np.mean([np.divide(one, sum(one)) for one in shares], axis=0)
    after = [(labels == kind).sum() / max((labels != IGNORE).sum(), 1) for kind in kinds]
    told = [
        f"{name}: {b:.2%} of the pixels in the files, {a:.2%} at the network"
        for name, b, a in zip(dataset.class_names, before, after, strict=True)
    ]
    lost = [t for t, b, a in zip(told, before, after, strict=True) if b > 0 and a < b / 2]
    if lost and project.config.data.fit != "tile":
        return listed(
            "warning",
            "lost classes",
            f"classes that lose half of their pixels at data.size={project.config.data.size}",
            lost,
            "what is thinner than a pixel of the network is not taught",
            "raise data.size, or set data.fit=tile",
        )
    return [Finding("ok", "labels", f"{len(project.names)} training images", evidence=tuple(told))]


def foreground(project: Project) -> list[Finding]:
    """How rare the foreground is, and what follows for the loss."""
    share = project.foreground
    if not 0 < share < 1:
        return []
    weight = min((1 - share) / share, 100)
    advice = [
        "train.loss=auto is half Dice, which does not mind how rare it is",
        f"cross-entropy alone: train.loss=bce(pos_weight={weight:.2g}) balances both sides, or "
        f"start the head's bias at log(f / (1 - f)) = {project.first_bias:.2f}",
        f"focal: alpha={min(0.95, 1 - share):.2f}; tversky: alpha=0.3, beta=0.7 to miss less",
    ]
    return [Finding("ok", "foreground", f"{share:.2%} of the pixels", evidence=tuple(advice))]


LABEL_CHECKS: tuple[Callable[[Project], list[Finding]], ...] = (
    inverted,
    shuffled,
    moved,
    scaled,
    on_the_way,
    foreground,
)
