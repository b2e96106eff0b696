"""Oxford-IIIT Pet: photos of cats and dogs with trimaps (1 pet, 2 background, 3 border)."""

from collections.abc import Mapping
from pathlib import Path

from tinyseg.config import IGNORE
from tinyseg.data.reading.case import Case, Layout
from tinyseg.data.reading.files import natural
from tinyseg.data.sample import name_some
from tinyseg.data.sources.source import Archive, Named, Option, Source
from tinyseg.errors import DataError

_LISTS = {"train": "annotations/trainval.txt", "test": "annotations/test.txt"}
_SPECIES = {"1": 1, "2": 2}
"""Third column of the lists to class id: cat, dog."""


def _find(root: Path, options: Mapping[str, str]) -> Named:
    """Find the images of the official lists only: others have no trimap, or a wrong one."""
    photos = _by_stem(root / "images", ".jpg")
    trimaps = _by_stem(root / "annotations/trimaps", ".png")
    cases: dict[str, Case] = {}
    by_species = options["target"] == "species"
    for split, path in _LISTS.items():
        rows = _read_list(root / path)
        _refuse_absent(root / path, [name for name, _ in rows], photos.keys() & trimaps.keys())
        for name, species in rows:
            if name in cases:
                raise DataError(f"{root / path}: {name!r} is listed twice; keep it in one list")
            table = _table(options["border"], _SPECIES[species]) if by_species else None
            part = split if options["split"] == "official" else None
            cases[name] = Case(name, photos[name], (trimaps[name],), part, table)
    ordered = sorted(cases.values(), key=lambda case: natural(case.name))
    others = sorted(photos.keys() - cases.keys(), key=natural)
    warning = f"{len(others)} images in no official list left out: {name_some(others)}"
    layout = Layout(tuple(ordered), (warning,) * bool(others))
    if by_species:
        return Named(layout, {0: 0, 1: 1, 2: 2, IGNORE: IGNORE}, ("background", "cat", "dog"))
    return Named(layout, _table(options["border"], 1), ("background", "pet"))


def _table(border: str, pet: int) -> dict[int, int]:
    return {1: pet, 2: 0, 3: {"ignore": IGNORE, "foreground": pet, "background": 0}[border]}


def _by_stem(folder: Path, suffix: str) -> dict[str, Path]:
    # the archive also holds .mat files and "._NAME.png" of a Mac
    paths = [path for path in folder.iterdir() if path.suffix == suffix]
    return {path.stem: path for path in paths if not path.name.startswith(".")}


def _read_list(path: Path) -> list[tuple[str, str]]:
    """Return name and species from lines NAME CLASS SPECIES BREED."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); restore the official list") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 4 or words[2] not in _SPECIES:
            raise DataError(
                f"{path}:{number}: {line[:60]!r} is not NAME CLASS SPECIES BREED with species "
                "1 (cat) or 2 (dog); restore the official list"
            )
        rows.append((words[0], words[2]))
    if not rows:
        raise DataError(f"{path}: lists no image; restore the official list")
    return rows


def _refuse_absent(path: Path, names: list[str], there: set[str]) -> None:
    absent = [name for name in names if name not in there]
    if absent:
        raise DataError(
            f"{path}: {len(absent)} of {len(names)} listed images have no photo or no trimap: "
            f"{name_some(absent)}; restore them, or take their lines out of the list"
        )


_URL = "https://www.robots.ox.ac.uk/~vgg/data/pets/data/"
PETS = Source(
    title="Oxford-IIIT Pet: 7349 photos of cats and dogs",
    terms="CC BY-SA 4.0; cite Parkhi et al., Cats and Dogs, CVPR 2012",
    # sizes and digests as TensorFlow Datasets publishes them (oxford_iiit_pet/checksums.tsv)
    archives=(
        Archive(
            _URL + "images.tar.gz",
            gives=("images",),
            size=791_918_971,
            sha256="67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d",
        ),
        Archive(
            _URL + "annotations.tar.gz",
            gives=("annotations/trimaps", *_LISTS.values()),
            size=19_173_078,
            sha256="52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91",
        ),
    ),
    find=_find,
    options={
        "target": Option(("pet", "species")),
        # the dataset's README calls the border "not classified"
        "border": Option(("ignore", "foreground", "background")),
        "split": Option(("official", "none")),
    },
)
