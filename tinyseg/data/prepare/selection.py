"""Choose a few images that stand for a dataset."""

from tinyseg.data.dataset import Dataset
from tinyseg.data.prepare.resize import prepare_label
from tinyseg.data.reading.label_map import is_foreground
from tinyseg.errors import DataError


def with_foreground(dataset: Dataset, count: int, size: int, fit: str) -> list[int]:
    """Return the first images with foreground at the training size, spread over the dataset."""
    if count < 1:
        raise DataError(f"--images {count}: give at least 1")
    order = [i for start in range(8) for i in range(start, len(dataset), 8)]
    chosen: list[int] = []
    for index in order:
        label = dataset[index].label
        if label is not None and is_foreground(prepare_label(label, size, fit)).any():
            chosen.append(index)
        if len(chosen) == count:
            return sorted(chosen)
    raise DataError(
        f"{dataset.source}: only {len(chosen)} of {len(dataset)} images have foreground "
        f"at data.size={size}; give --images {max(len(chosen), 1)} or add images"
    )
