"""A beginner's BUSI with three honest mistakes at once; see 2026-11-27-beginner.md.

python journal/beginner.py BUSI OUT [--by-name]: images and masks of 128 x 128, numbered.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (128, 128)


def small(path: Path, method: Image.Resampling) -> np.ndarray:
    """A file in grey at the small size."""
    return np.asarray(Image.open(path).convert("L").resize(SIZE, method))


def in_order(folder: Path) -> list[tuple[Path, list[Path]]]:
    """Two sorted lists, zipped: right until the first image that has two masks."""
    files = sorted(folder.glob("*/*.png"))
    images = [file for file in files if "_mask" not in file.name]
    masks = [file for file in files if "_mask" in file.name]
    return [(image, [mask]) for image, mask in zip(images, masks, strict=False)]


def by_name(folder: Path) -> list[tuple[Path, list[Path]]]:
    """Every image with all masks that begin with its name."""
    files = sorted(folder.glob("*/*.png"))
    images = [file for file in files if "_mask" not in file.name]
    return [(i, [m for m in files if m.name.startswith(f"{i.stem}_mask")]) for i in images]


def main() -> None:
    """Writes OUT/images and OUT/masks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("busi", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--by-name", action="store_true")
    options = parser.parse_args()
    pairs = (by_name if options.by_name else in_order)(options.busi)
    for part in ("images", "masks"):
        (options.out / part).mkdir(parents=True)
    for number, (image, masks) in enumerate(pairs):
        name = f"{number:03}.png"
        pixels = small(image, Image.Resampling.BICUBIC)
        label = np.max([small(mask, Image.Resampling.NEAREST) for mask in masks], axis=0)
        Image.fromarray(pixels).save(options.out / "images" / name)
        Image.fromarray(np.where(label > 127, 255, 0).astype(np.uint8)).save(
            options.out / "masks" / name
        )
    print(f"{len(pairs)} pairs in {options.out}")


if __name__ == "__main__":
    main()
