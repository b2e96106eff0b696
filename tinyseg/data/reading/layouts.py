"""Finds the images and masks of a folder, and pairs them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tinyseg.data.reading.case import Case, Layout, Match
from tinyseg.data.reading.files import SUFFIXES, natural, walk
from tinyseg.data.reading.infer import Inference, infer
from tinyseg.data.reading.names import (
    File,
    describe,
    images_by_names,
    in_order,
    pair_by_names,
    refuse_unpaired,
    without_masks,
)
from tinyseg.data.reading.templates import Template, group_text, select
from tinyseg.data.sample import name_some
from tinyseg.errors import DataError

__all__ = ["Case", "Layout", "find_cases", "find_images"]


def find_cases(
    root: Path, labeled: bool = True, strict: bool = True, images: str = "", masks: str = ""
) -> Layout:
    """Pair the images below `root` with their masks.

    With the templates `images` and `masks` (see `templates`), these say what is what. Else the
    names tell which files belong together, and the content which of them are labels (see `infer`);
    where the content tells nothing, `pair_by_names`. Files without a partner are a DataError; if
    not `strict`, they are left out and listed in the layout, unless no template is given and they
    are most of the images. Layouts that fit equally well are a DataError, too.
    """
    files, skipped = _list_files(root)
    if (images or masks) and labeled:
        layout = _by_templates(root, files, images, masks)
    else:
        layout = _inferred(root, files) if labeled else pair_by_names(root, files, False)
    if strict or (len(layout.bare) > len(layout.cases) and not masks):
        refuse_unpaired(root, layout.bare, layout.orphans)
    if skipped:
        text = f"{len(skipped)} files that are no images left out: {name_some(skipped)}"
        layout = replace(layout, warnings=(text, *layout.warnings))
    return layout


def find_images(root: Path) -> list[Path]:
    """Return the images below `root` in natural order, without files that are named as masks."""
    return [file.path for file in images_by_names(_list_files(root)[0])]


def find_layouts(root: Path) -> Inference:
    """Return all layouts that a folder may have, for people to choose from."""
    return infer(root, [file.path for file in _list_files(root)[0]])


def _inferred(root: Path, files: Sequence[File]) -> Layout:
    found = infer(root, [file.path for file in files])
    if found.refusal:
        raise DataError(found.refusal)
    if found.taken is None:
        try:
            return pair_by_names(root, files)
        except DataError as error:
            raise DataError(f"{error}{_seen(found)}") from None
    layout = _layout(root, files, found.matches(), found.orphans())
    return replace(
        layout,
        warnings=(*layout.warnings, *found.notes),
        taken=f"{len(layout.cases)} pairs, {found.option(found.taken)}",
    )


def _seen(found: Inference) -> str:
    """Return what files were found, where some look like masks."""
    if not any(group.is_label for group in found.groups):
        return ""
    kinds = [
        f"{len(group)} {'labels' if group.is_label else 'images'} {group_text(group)}"
        for group in sorted(found.groups, key=len, reverse=True)
    ]
    return (
        f"; found by their content: {name_some(kinds, 6)}; say which belong together by "
        'data.images="FOLDER/{name}.png" data.masks="FOLDER/{name}_mask.png"'
    )


def _by_templates(root: Path, files: Sequence[File], images: str, masks: str) -> Layout:
    if not images or not masks:
        missing = "data.masks" if images else "data.images"
        raise DataError(
            f"{root}: {missing} is missing; give both templates, data.images and data.masks"
        )
    templates = Template(images, "data.images"), Template(masks, "data.masks")
    matches, orphans = select(root, [file.path for file in files], *templates)
    layout = _layout(root, files, matches, orphans)
    return replace(layout, taken=f"{len(layout.cases)} pairs, as data.images and data.masks say")


def _layout(
    root: Path, files: Sequence[File], matches: Sequence[Match], orphans: Sequence[str]
) -> Layout:
    """Return the cases of images that have a mask; splits without any are left out."""
    names = {file.path: file for file in files}
    classes = sorted({c for match in matches for _, c in match.masks if c}, key=natural)
    if len({match.split for match in matches}) == 1:
        matches = [replace(match, split=None) for match in matches]
    labeled = {match.split for match in matches if match.masks}
    outside = [names[m.image].relative for m in matches if m.split not in labeled]
    bare = [names[m.image].relative for m in matches if m.split in labeled and not m.masks]
    cases = [_case(names[match.image], match, classes) for match in matches if match.masks]
    warnings = without_masks(outside)
    return Layout(
        in_order(cases, root),
        tuple(warnings),
        tuple(sorted(bare, key=natural)),
        tuple(sorted(orphans, key=natural)),
        class_names=("background", *classes) if classes else (),
    )


def _case(file: File, match: Match, classes: Sequence[str]) -> Case:
    ordered = sorted(match.masks, key=lambda mask: (mask[0].parent, natural(mask[0].name)))
    ids = tuple(classes.index(name) + 1 if name else 1 for _, name in ordered) if classes else ()
    paths = tuple(path for path, _ in ordered)
    labels = {class_id: class_id for class_id in range(len(classes) + 1)} if classes else None
    return Case(file.name, file.path, paths, match.split or file.split, labels, class_ids=ids)


def _list_files(root: Path) -> tuple[list[File], list[str]]:
    if not root.exists():
        raise DataError(
            f"{root}: no such folder; give a folder of images, pets:FOLDER, or sim:cells"
        )
    if not root.is_dir():
        raise DataError(f"{root}: not a folder; give the folder that holds images and masks")
    files: list[File] = []
    skipped: list[str] = []
    for path in walk(root):
        relative = path.relative_to(root).as_posix()
        if path.suffix.casefold() in SUFFIXES:
            files.append(describe(path, relative))
        else:
            skipped.append(relative)
    return files, skipped
