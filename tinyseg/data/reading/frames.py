"""Every page of a TIFF as an image of its own: `data.pages=frames`."""

from collections.abc import Iterator
from dataclasses import replace

from tinyseg.data.reading.decode import count_pages
from tinyseg.data.reading.layouts import Case, Layout
from tinyseg.errors import DataError


def split_frames(layout: Layout, pages: str) -> Layout:
    """Return a layout with a case NAME_0001, NAME_0002 ... for each page of an image.

    It stays as it is unless `pages`, which is `data.pages`, is "frames". DataError when a mask
    has another number of pages than its image.
    """
    if pages != "frames":
        return layout
    cases = tuple(frame for case in layout.cases for frame in _frames(case))
    stacks = {case.image for case in cases if case.page is not None}
    text = f'{len(stacks)} stacks of frames, which are often alike: set data.groups="(.*)_" to '
    text += "keep the frames of a stack in one part of the split"
    return replace(layout, cases=cases, warnings=(*layout.warnings, *[text] * (len(stacks) > 1)))


def _frames(case: Case) -> Iterator[Case]:
    """Yield the frames of a case; those that a layout has chosen already stay."""
    count = 1 if case.page is not None or case.annotation else count_pages(case.image)
    if count == 1:
        yield case
        return
    for mask in case.masks:
        if (pages := count_pages(mask)) != count:
            raise DataError(
                f"{mask}: has {pages} pages but {case.image} has {count}; with data.pages=frames "
                "each page of an image needs its page of the mask"
            )
    for page in range(count):
        yield replace(case, name=f"{case.name}_{page + 1:04}", page=page)
