"""Checks that image and label stay together, in training and in prediction."""

import numpy as np

from tinyseg.augment import Pipeline, alignment, on_host
from tinyseg.common.arrays import Array
from tinyseg.common.findings import Finding
from tinyseg.data import image_moments, is_foreground
from tinyseg.doctor.check import Check, error, ok, only_if, warning
from tinyseg.doctor.project import Project
from tinyseg.errors import StepError

CHECKERBOARDS = 8
"""Test images that are sent through each augmentation."""
MIN_KEPT = 0.5
"""Share of the foreground that augmentation must keep."""
AUGMENTED, DRAWS = 6, 6
"""Images that are sent through the user's pipeline, and how often each."""
SHIFT, CONTRAST = 0.8, 3.0
"""Change of the mean in std, and factor of the std, that augmentation may cause on average."""
WRAPPED = 0.3
"""Share of augmented images with values that wrap around."""
SAME = 0.02
"""Difference of probabilities that two correct ways to predict may have."""
EXAMPLES = 3
"""Images that are predicted in both ways."""


@only_if(lambda project: project.pipeline is not None)
def pipeline_keeps_the_form(project: Project) -> list[Finding]:
    """The user's pipeline keeps shape, type and range of images, and the class ids of labels."""
    try:
        project.once(augmented)
    except StepError as exception:
        why = "training stops at such an image, or trains on values that no other image has"
        remedy = "keep the range and type of the image (uint8: np.clip(x, 0, 255) before the cast; "
        remedy += "the division by 255 comes later) and the values of the label"
        return error("pipeline", str(exception), why, remedy)
    return []


def image_and_label_move_alike(project: Project) -> list[Finding]:
    """A checkerboard that is both image and label comes out of each augmentation as one."""
    text = project.config.train.augment
    augmentations: list[tuple[str, Pipeline, tuple[float, float]]] = []
    if project.pipeline is not None:
        augmentations.append(("your pipeline", project.pipeline, (0.0, 255.0)))
    if text not in ("", "none"):
        augmentations.append((f"train.augment={text}", project.augmentation.pipeline, (-1.0, 1.0)))
    channels, size = project.dataset.channels, project.config.data.size
    findings = list[Finding]()
    for name, pipeline, levels in augmentations:
        result = alignment(pipeline, size, channels, CHECKERBOARDS, levels)
        if result.passed:
            findings += ok("alignment", f"{name}: {result}")
            continue
        why = "the network is trained on masks that do not belong to its images"
        remedy = "use the same random parameters for image and label, and nearest-neighbor "
        remedy += "interpolation for labels; see `tinyseg data preview DATA --out preview.png`"
        findings += error("alignment", f"{name}: {result}", why, remedy)
    return findings


@only_if(lambda project: project.pipeline is not None)
def foreground_is_kept(project: Project) -> list[Finding]:
    """The user's pipeline keeps most of the foreground."""
    assert project.pipeline is not None
    before, after, classes = 0, 0, project.dataset.classes
    for tile in project.foreground_tiles[:CHECKERBOARDS]:
        image, label = project.tiles[tile].pixels, project.tiles.labels[tile]
        _, augmented = on_host(project.pipeline, image, label, classes, tile)
        before, after = before + is_foreground(label).sum(), after + is_foreground(augmented).sum()
    if after >= MIN_KEPT * before:
        return []
    what = f"your pipeline keeps only {after / before:.0%} of the foreground pixels"
    why = "most training steps then contain only background"
    return warning("lost labels", what, why, "crop less, or crop around the objects")


Augmented = list[tuple[Array, Array]]


def augmented(project: Project) -> list[Augmented]:
    """Return DRAWS results of the user's pipeline for each of a few images."""
    assert project.pipeline is not None
    results, classes = list[Augmented](), project.dataset.classes
    for tile in project.foreground_tiles[:AUGMENTED]:
        image, label = project.tiles[tile].pixels, project.tiles.labels[tile]
        draws = [
            on_host(project.pipeline, image, label, classes, seed) for seed in range(1, DRAWS + 1)
        ]
        results.append([(image, label), *draws])
    return results


@only_if(lambda project: project.pipeline is not None)
def draws_are_new(project: Project) -> list[Finding]:
    """Augmentation of one image differs from call to call."""
    changed, frozen = 0, 0
    for (image, label), *draws in project.once(augmented):
        first, first_label = draws[0]
        if all((x == image).all() and (y == label).all() for x, y in draws):
            continue
        changed += 1
        frozen += all((x == first).all() and (y == first_label).all() for x, y in draws)
    if not frozen or frozen < changed:
        return []
    what = f"your pipeline changes images, but in the same way in each of {DRAWS} calls"
    why = "the network never sees another variant: augmentation without new random numbers adds "
    why += "nothing"
    remedy = "create the random generator once, outside the function, not with a fixed seed in each"
    return warning("frozen augmentation", what, why, f"{remedy} call")


@only_if(lambda project: project.pipeline is not None)
def images_keep_their_look(project: Project) -> list[Finding]:
    """Augmented images have about the brightness and contrast of the images."""
    pairs = project.once(augmented)
    before = np.stack([draws[0][0] for draws in pairs]).astype(np.float64)
    after = np.stack([x for draws in pairs for x, _ in draws[1:]]).astype(np.float64)
    spread = max(float(before.std()), 1e-12)
    shift, factor = (after.mean() - before.mean()) / spread, after.std() / spread
    broken = [_disordered(draws[0][0], x) for draws in pairs for x, _ in draws[1:]]
    if float(np.mean(broken)) > WRAPPED:
        what = "your pipeline turns bright pixels dark and dark ones bright, at random places of "
        what += "the range: values wrap around at 255"
        why = "arithmetic on uint8 overflows, and the network is trained on broken images"
        return error("pipeline", what, why, "compute in float, then np.clip(x, 0, 255)")
    if abs(shift) <= SHIFT and 1 / CONTRAST <= factor <= CONTRAST:
        return []
    what = f"your pipeline changes the mean of the images from {before.mean():.3g} to "
    what += f"{after.mean():.3g} ({shift:+.1f} std) and their std by a factor of {factor:.2g}"
    why = "the network is trained on images that look unlike those it will predict: prediction "
    why += "uses images without augmentation"
    remedy = "make the augmentation weaker, draw shifts of brightness around 0, and keep the range"
    return warning("augmented range", what, why, remedy)


def _disordered(image: Array, changed: Array) -> float:
    """Return the share of the range where a level of the image has become much darker.

    Only if all pixels have kept their place; 0 otherwise.
    """
    x, y = image.astype(np.float64).ravel(), changed.astype(np.float64).ravel()
    levels = np.unique(x)
    if len(levels) < 16:
        return 0.0
    edges = np.quantile(x, np.linspace(0, 1, 33)[1:-1])
    bins = np.searchsorted(edges, x)
    means = np.array([y[bins == b].mean() for b in np.unique(bins)])
    within = np.array([y[bins == b].std() for b in np.unique(bins)])
    if np.median(within) > y.std() / 2:
        return 0.0  # pixels were moved
    drops = -np.diff(means)
    return float(drops.max() > 128 * (x.max() - x.min()) / 255 and np.diff(means).max() > 0)


# tinyseg's own predictor prepares images as training does: there is nothing to compare
@only_if(lambda project: project.predictor is not project.own_predictor)
def prediction_matches_training(project: Project) -> list[Finding]:
    """A user's predictor returns the probabilities of images prepared as in training."""
    names = [project.name_of(tile) for tile in project.foreground_tiles[:EXAMPLES]]
    images = [project.dataset[name].image for name in names]
    expected = list(project.own_predictor(images))
    results = [np.asarray(p) for p in project.predictor(images)]
    if fault := _wrong_form(expected, results):
        why = "results must be probabilities (K, H, W) from 0 to 1, in the order of the images"
        return error("prediction", fault[0], why, fault[1])
    apart = [_distance(a, b) for a, b in zip(expected, results, strict=True)]
    if max(apart) <= SAME:
        return ok("prediction", "images are prepared as in training")
    reversed_channels = project.predictor([image[..., ::-1] for image in images])
    what = "your predictor's probabilities differ from the network's on images prepared as "
    what += f"in training (they differ by up to {max(apart):.2f})"
    why = "the network gets inputs that differ from those it was trained on"
    if max(map(_distance, expected, map(np.asarray, reversed_channels))) <= SAME:
        remedy = "use the same channel order: training reads RGB, your predictor BGR"
    else:
        remedy = "use the same weights, and compare the normalization, size, cropping, padding and "
        remedy += "order of channels with those in training"
    lines = [f"{name}: differs by {far:.2f}" for name, far in zip(names, apart, strict=True)]
    return error("prediction", what, why, remedy, lines + _inputs(project, images))


def _inputs(project: Project, images: list[Array]) -> list[str]:
    """Describe the network input in training and, where it is known, in prediction."""
    pipelines = {
        "training": project.input_pipeline,
        "prediction": getattr(project.predictor, "input_pipeline", None),
    }
    lines = []
    for where, pipeline in pipelines.items():
        if pipeline is not None:
            inputs = pipeline.to_batch([pipeline.tile(image) for image in images])
            mean, std, *_ = image_moments(inputs).mean(axis=(0, 2))
            lines.append(f"{where}: network input has mean {mean:.2f} and std {std:.2f}")
    return lines


def _distance(one: Array, other: Array) -> float:
    return float(np.abs(one - other).max()) if one.shape == other.shape else np.inf


def _wrong_form(expected: list[Array], results: list[Array]) -> tuple[str, str] | None:
    """Return what is wrong with the form of the results, and the remedy."""
    if len(results) != len(expected):
        what = f"your predictor returns {len(results)} results for {len(expected)} images"
        return what, "return one result for each image"
    for i, own in enumerate(expected):
        if _distance(own, results[i]) > SAME and any(_distance(own, p) <= SAME for p in results):
            what = f"your predictor returns the result of image {i + 1} at another position"
            return what, "return the results in the order of the images"
    for own, result in zip(expected, results, strict=True):
        if own.shape != result.shape:
            what = f"your predictor returns the shape {result.shape} instead of {own.shape}"
            return what, "return (K, H, W): channels first, at the original size of the image"
    low, high = min(float(p.min()) for p in results), max(float(p.max()) for p in results)
    if not (low >= 0 and high <= 1):
        what = f"your predictor returns values from {low:.3g} to {high:.3g}"
        return (
            what,
            "return probabilities: sigmoid or softmax of the logits, not masks of 0 and 255",
        )
    binary = all(np.isin(p, (0, 1)).all() for p in results)
    if binary and not np.isin(expected[0], (0, 1)).all():
        return "your predictor returns masks of 0 and 1", "return probabilities, without threshold"
    return None


PIPELINE_CHECKS: tuple[Check, ...] = (
    pipeline_keeps_the_form,
    image_and_label_move_alike,
    draws_are_new,
    images_keep_their_look,
    foreground_is_kept,
    prediction_matches_training,
)
