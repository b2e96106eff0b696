"""The files of one sample, and of all of a folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tinyseg.data.reading.annotation import Annotation
from tinyseg.data.sample import name_some


@dataclass(frozen=True)
class Case:
    """The files of one sample."""

    name: str
    image: Path
    masks: tuple[Path, ...] = ()
    split: str | None = None
    labels: Mapping[int, int] | None = None
    """Mask value to class id where this case has its own, as a cat's trimap next to a dog's."""
    page: int | None = None
    """Of a TIFF stack, in the image and in the masks; None reads the first one."""
    annotation: Annotation | None = None
    """Draws the label; then `masks` is the one file that it comes from."""
    class_ids: tuple[int, ...] = ()
    """The class of the objects in each mask, where a file holds one class; else the values say."""


@dataclass(frozen=True)
class Match:
    """An image and its masks, with the name of the class that each is of, or ""."""

    image: Path
    split: str | None
    masks: tuple[tuple[Path, str], ...] = ()


@dataclass(frozen=True)
class Layout:
    """The cases of a folder in natural order, and warnings about files that are left out."""

    cases: tuple[Case, ...]
    warnings: tuple[str, ...]
    bare: tuple[str, ...] = ()
    """Images without a mask, which are left out."""
    orphans: tuple[str, ...] = ()
    """Masks without an image, which are left out."""
    taken: str = ""
    """What was taken for images and masks, in one line."""
    class_names: tuple[str, ...] = ()
    """Names of the classes, background first, if the files give them."""

    @property
    def all_warnings(self) -> tuple[str, ...]:
        """The warnings, with the files that are left out for want of a partner."""
        texts = []
        if self.bare:
            texts.append(f"{len(self.bare)} images without a mask left out: {name_some(self.bare)}")
        if self.orphans:
            count = len(self.orphans)
            texts.append(f"{count} masks without an image left out: {name_some(self.orphans)}")
        return (*self.warnings, *texts)
