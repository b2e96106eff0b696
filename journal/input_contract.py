"""How often the input contract cries wolf, and what it catches; see 2026-11-20-input-contract.md.

python journal/input_contract.py DATA    (the folder with isbi2012, busi, camvid, pets, dsb2018)
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tinyseg.config import DataConfig
from tinyseg.data import Dataset, InputPipeline, InputScale, InputStatistics, image_moments

SIMULATED = [f"sim:{kind}?n=60" for kind in ("ultrasound", "cells", "membranes", "shapes")]
REAL = ["isbi2012", "busi", "camvid", "pets", "dsb2018"]
CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "0..1 saved as 0..255": lambda x: x / 255,
    "half as bright": lambda x: x / 2,
    "inverted": lambda x: 1 - x,
    "red and blue swapped": lambda x: x[:, ::-1],
}
DRAWS = 300


def squares(source: str) -> np.ndarray:
    """All images of a dataset as network input (N, C, 128, 128), in [0, 1]."""
    dataset = Dataset(source, DataConfig())
    pipeline = InputPipeline(
        DataConfig(), InputScale((0.0,) * dataset.channels, (1.0,) * dataset.channels)
    )
    return np.stack(
        [pipeline.to_batch([pipeline.tile(dataset[i].image)])[0] for i in range(len(dataset))]
    )


def false_alarms(moments: np.ndarray, train: int, new: int) -> float:
    """Percent of random parts of one dataset that are warned of by another part of it."""
    rng, count = np.random.default_rng(0), 0
    for _ in range(DRAWS):
        order = rng.permutation(len(moments))
        part = moments[order[train : train + new]]
        count += bool(InputStatistics.of(moments[order[:train]]).drift(part))
    return 100 * count / DRAWS


def spread(x_bchw: np.ndarray, count: int, channels: int) -> np.ndarray:
    """`count` images from all over a dataset, with as many channels as another."""
    some = x_bchw[:: max(1, len(x_bchw) // 20)][:count]
    if some.shape[1] != channels:
        some = some.mean(axis=1, keepdims=True).repeat(channels, axis=1)
    return some


def main(folder: Path) -> None:
    sources = [*(f"{name}:{folder / name}" for name in REAL), *SIMULATED]
    images = {source.partition("?")[0]: squares(source) for source in sources}
    moments = {name: image_moments(x) for name, x in images.items()}
    for of, share in (("10 images", 0.0), ("80 % of the images", 0.8)):
        for new in (1, 3, 16):
            sizes = {name: int(share * len(m)) or 10 for name, m in moments.items()}
            fits = {name: m for name, m in moments.items() if sizes[name] + new <= len(m)}
            found = [false_alarms(m, sizes[name], new) for name, m in fits.items()]
            print(f"trained on {of}, {new} new: {np.mean(found):.1f} % (at most {max(found):.1f})")
    contracts = {name: InputStatistics.of(m) for name, m in moments.items()}
    for new in (1, 3, 20):
        for what, change in CHANGES.items():
            some = {n: x for n, x in images.items() if (change(x[:1]) != x[:1]).any()}
            caught = [
                bool(contracts[n].drift(image_moments(change(spread(x, new, x.shape[1])))))
                for n, x in some.items()
            ]
            print(f"{new} images {what}: {sum(caught)} of {len(caught)} datasets")
        caught = [
            bool(contracts[n].drift(image_moments(spread(y, new, images[n].shape[1]))))
            for n in images
            for other, y in images.items()
            if other != n
        ]
        print(f"{new} images of another dataset: {sum(caught)} of {len(caught)} pairs")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
