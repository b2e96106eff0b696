"""How well a label matches an image: the share of it that local features of the image explain."""

import numpy as np
from scipy import ndimage

from tinyseg.config import IGNORE

SIDE = 96
"""Pixels per side at which images and labels are compared."""
SCALES = (1.0, 3.0)
"""Standard deviations, in these pixels, of the Gaussian filters of the features."""
MOST_CLASSES = 16
"""Classes that are compared: the first ones."""


def grid_of(length: int, side: int = SIDE) -> np.ndarray:
    """Return the places on an axis that are compared."""
    return np.asarray((np.arange(min(side, length)) * length / min(side, length)).astype(int))


def features_of(image_hwc: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return channels, local mean, local std and edges: (F, P) float32, orthonormal, mean 0."""
    planes = image_hwc.astype(np.float32).transpose(2, 0, 1)
    step = max(1.0, image_hwc.shape[0] / len(rows))
    gray = planes.mean(axis=0)
    features = [ndimage.gaussian_filter(plane, step * SCALES[0] / 2) for plane in planes]
    for scale in SCALES:
        mean = ndimage.gaussian_filter(gray, step * scale)
        mean_square = ndimage.gaussian_filter(gray * gray, step * scale)
        features += [mean, np.sqrt(np.maximum(mean_square - mean**2, 0))]
        features += [ndimage.gaussian_gradient_magnitude(gray, step * scale)]
    return orthonormal(np.stack([plane[np.ix_(rows, columns)].ravel() for plane in features]))


def orthonormal(rows: np.ndarray) -> np.ndarray:
    """Return rows with mean 0 that span the same space, each of norm 1; or 0 where they are few."""
    rows = rows.astype(np.float64) - rows.mean(axis=1, keepdims=True)
    _, sizes, directions = np.linalg.svd(rows, full_matrices=False)
    kept = sizes > 1e-3 * max(sizes[0], 1e-12)
    return np.asarray(np.where(kept[:, None], directions, 0), np.float32)


def targets_of(label_hw: np.ndarray, classes: int) -> np.ndarray:
    """Return (K, H, W): each class but the first with mean 0, 0 where ignored; norm 1 in all."""
    known = label_hw != IGNORE
    planes = np.stack([label_hw == class_id for class_id in range(1, classes)]).astype(np.float32)
    means = planes[:, known].mean(axis=1) if known.any() else np.zeros(classes - 1)
    return unit_norm(np.where(known, planes - means[:, None, None], 0))


def unit_norm(target: np.ndarray) -> np.ndarray:
    """Return an array of norm 1, or zeros."""
    size = np.sqrt((target.astype(np.float64) ** 2).sum())
    return np.asarray(target / size if size > 1e-6 else target * 0, np.float32)


def explained(features: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the share (0 to 1) of each label (N, K, ...) that its image's features explain."""
    flat = targets.reshape(*targets.shape[:2], -1)
    return np.asarray((np.matmul(features, flat.transpose(0, 2, 1)) ** 2).sum(axis=(1, 2)))


def agreement(image_hwc: np.ndarray, label_hw: np.ndarray) -> float:
    """Return the share (0 to 1) of a label of any class numbers that its image explains."""
    rows, columns = (grid_of(side, 2 * SIDE) for side in label_hw.shape)
    image, label = image_hwc[np.ix_(rows, columns)], label_hw[np.ix_(rows, columns)]
    rows, columns = map(grid_of, label.shape)
    classes = min(int(label.max()) + 1, MOST_CLASSES)
    targets = targets_of(label[np.ix_(rows, columns)], max(classes, 2))
    return float(explained(features_of(image, rows, columns), targets[None])[0])
