"""A few images that stand for a dataset."""

from tinyseg.data.dataset import Dataset
from tinyseg.data.prepare.resize import fit_label
from tinyseg.data.reading.label_map import is_foreground
from tinyseg.errors import DataError


def with_foreground(dataset: Dataset, count: int, size: int, fit: str) -> list[int]:
    """The first images with foreground at the training size, spread over the dataset."""
    if count < 1:
        raise DataError(f"--images {count}: give at least 1")
    order = [i for start in range(8) for i in range(start, len(dataset), 8)]
    found: list[int] = []
    for index in order:
        label = dataset.load(index).label
        seen = None if label is None else fit_label(label, size, fit)
        if seen is not None and is_foreground(seen).any():
            found.append(index)
        if len(found) == count:
            return sorted(found)
    raise DataError(
        f"{dataset.source}: only {len(found)} of {len(dataset)} images have foreground "
        f"at data.size={size}; give --images {max(len(found), 1)} or add images"
    )
