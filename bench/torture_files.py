"""Attacks on files: each is read, or refused in one line; nothing else happens."""

import io
import json
import pickle
import random
import resource
import shutil
import signal
import struct
import tarfile
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from PIL import Image
from record import ROOT
from torture_lab import Attack, Lab

SLOWEST = 2.0
"""Seconds of computing that reading one damaged file may take."""
HANGS = 20
"""Seconds after which reading a file hangs."""
MOST_BYTES = 2**30
"""Memory that reading one damaged file may take."""
GOLDENS = ROOT / "tests" / "weights" / "goldens"


def reads_safely(read: Callable[[], object]) -> str:
    """Read a file; return what went wrong, "" if it was read or refused in one line."""
    from tinyseg.errors import TinysegError

    signal.signal(signal.SIGALRM, _hangs)
    signal.alarm(HANGS)
    begin, before = time.process_time(), _peak()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            read()
    except TinysegError as error:
        if "\n" in str(error):
            return f"its error has several lines: {error}"
    except BaseException as error:  # noqa: BLE001  every other exception is a failure
        return f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    if (seconds := time.process_time() - begin) > SLOWEST:
        return f"took {seconds:.1f} s"
    if _peak() - before > MOST_BYTES:
        return f"took {_peak() - before >> 20} MiB"
    ours = [one for one in caught if "PIL" not in Path(one.filename).parts]  # the CLI drops these
    return f"Python warns: {ours[0].message}" if ours else ""


def _hangs(*_: object) -> NoReturn:
    raise RuntimeError(f"it hangs: {HANGS} s are over")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def damage(draw: random.Random, content: bytes) -> bytes:
    """Cut, flip, insert, repeat or overwrite bytes."""
    broken = bytearray(content)
    for _ in range(draw.randrange(1, 4)):
        place = draw.randrange(len(broken) or 1)
        kind = draw.randrange(5)
        if kind == 0:
            del broken[place:]
        elif kind == 1 and broken:
            broken[place % len(broken)] ^= 1 << draw.randrange(8)
        elif kind == 2:
            broken[place:place] = draw.randbytes(draw.randrange(1, 9))
        elif kind == 3:
            broken[place:place] = broken[place : place + 40] * draw.randrange(1, 30)
        else:
            broken[place : place + 8] = draw.choice([b"\xff" * 8, b"\0" * 8, b"\x7f\xff\xff\xff"])
    return bytes(broken)


def damage_json(draw: random.Random, value: Any) -> Any:
    """Replace, remove or repeat one value somewhere inside."""
    odd = [None, True, -1, 0, 1e308, float("nan"), 10**400, 2**31, "", "x" * 3000, "\ud800", [], {}]
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = draw.choice(sorted(value))
        if draw.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: damage_json(draw, value[key])}
    if isinstance(value, list) and value and draw.random() < 0.85:
        index = draw.randrange(len(value))
        if draw.random() < 0.1:
            return value * draw.choice([0, 2, 50])
        return [*value[:index], damage_json(draw, value[index]), *value[index + 1 :]]
    return draw.choice([*odd, [value] * 3, {"a": value}])


# 1. Images


def images_of_all_formats() -> dict[str, bytes]:
    """Small valid images by name, to be damaged."""
    rng = np.random.default_rng(0)
    gray, color = (rng.integers(0, 256, (24, 20, *c), np.uint8) for c in ((), (3,)))
    pictures: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "a.png": (Image.fromarray(color), "PNG", {}),
        "palette.png": (Image.fromarray(gray).convert("P"), "PNG", {}),
        "rgba.png": (Image.fromarray(np.dstack([color, gray])), "PNG", {}),
        "deep.png": (Image.fromarray(gray.astype(np.uint16) * 257), "PNG", {}),
        "bits.png": (Image.fromarray(gray).convert("1"), "PNG", {}),
        "a.jpg": (Image.fromarray(color), "JPEG", {}),
        "a.tif": (Image.fromarray(gray), "TIFF", {}),
        "lzw.tif": (Image.fromarray(color), "TIFF", {"compression": "tiff_lzw"}),
        "pages.tif": (
            Image.fromarray(gray),
            "TIFF",
            {"save_all": True, "append_images": [Image.fromarray(gray)] * 3},
        ),
        "a.gif": (Image.fromarray(gray), "GIF", {}),
        "a.bmp": (Image.fromarray(color), "BMP", {}),
        "a.webp": (Image.fromarray(color), "WEBP", {"lossless": True}),
        "a.ppm": (Image.fromarray(color), "PPM", {}),
    }
    files = {}
    for name, (picture, kind, settings) in pictures.items():
        buffer = io.BytesIO()
        picture.save(buffer, kind, **settings)
        files[name] = buffer.getvalue()
    return files


VALID = images_of_all_formats()


def _read_image(path: Path) -> None:
    from tinyseg.data import load_image
    from tinyseg.data.reading.decode import count_pages, decode_mask

    if path.suffix == ".tif":
        for page in range(min(count_pages(path), 5)):
            load_image(path, None, page)
    load_image(path, None)
    decode_mask(path)


def _check_image(lab: Lab, attack: Attack, name: str, content: bytes) -> None:
    path = lab.folder / f"damaged-{name}"
    path.write_bytes(content)
    problem = reads_safely(lambda: _read_image(path))
    attack.count += 1
    attack.check(not problem, f"{name}, {len(content)} bytes: {problem}")


def damaged_images(lab: Lab, attack: Attack) -> None:
    """Damaged images and masks are read or refused, nothing else."""
    for name, content in VALID.items():
        _check_image(lab, attack, name, damage(lab.draw, content))


def truncated_images(lab: Lab, attack: Attack) -> None:
    """An image that ends early must be refused: what is missing would read as background."""
    from tinyseg.data import load_image
    from tinyseg.errors import TinysegError

    warnings.filterwarnings("ignore", module="PIL")
    for name, content in VALID.items():
        if name == "pages.tif":  # its first page may well be whole
            continue
        size = lab.draw.randrange(8, max(9, len(content) - 24))
        path = lab.folder / f"short-{name}"
        path.write_bytes(content[:size])
        attack.count += 1
        try:
            found = load_image(path, None)
            whole = lab.folder / f"whole-{name}"
            whole.write_bytes(content)
            same = np.array_equal(found, load_image(whole, None))  # only what follows is cut off
            attack.check(same, f"{name}: {size} of {len(content)} bytes read as a whole image")
        except TinysegError:
            pass


def hostile_images(lab: Lab, attack: Attack) -> None:
    """Headers that promise anything, bombs, endless comments, loops of pages."""
    draw = lab.draw
    for _ in range(20):
        side = [draw.choice([1, 2, 60_000, 65_536, 2**31 - 1, draw.randrange(2**20)]) for _ in "hw"]
        depth, color = draw.choice([(1, 0), (8, 0), (16, 0), (8, 2), (16, 2), (8, 3), (16, 6)])
        head = struct.pack(">IIBBBBB", *side, depth, color, 0, 0, draw.randrange(2))
        data = zlib.compress(bytes(draw.choice([0, 100, 1 << 20])))
        text = _chunk(b"tEXt", b"a\0" + bytes(draw.choice([0, 1 << 20]))) * draw.choice([0, 1, 5])
        png = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + text + _chunk(b"IDAT", data)
        _check_image(lab, attack, "hostile.png", png + _chunk(b"IEND", b""))
    gif = VALID["a.gif"]
    colors = 13 + 3 * (2 << (gif[10] & 7)) * bool(gif[10] & 0x80)
    comment = b"!\xfe" + (b"\xff" + b"x" * 255) * draw.randrange(3000) + b"\0"
    _check_image(lab, attack, "comment.gif", gif[:colors] + comment + gif[colors:])
    slice_ = bytes(128) + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, 0)
    _check_image(lab, attack, "a.dcm", damage(draw, slice_ + draw.randbytes(200)))
    volume = struct.pack("<i", 348) + struct.pack("<8h", 2, 5, 6, 1, 1, 1, 1, 1).rjust(52, b"\0")
    volume = volume.ljust(344, b"\0") + b"n+1\0" + bytes(4 + 60)
    _check_image(lab, attack, "a.nii", damage(draw, volume))
    _check_image(lab, attack, "loop.tif", _pages(draw.choice([2, 4097]), draw.random() < 0.5))


def _chunk(kind: bytes, data: bytes) -> bytes:
    end = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + end


def _pages(count: int, loop: bool) -> bytes:
    tags = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 279: 1}
    page = struct.pack("<H", len(tags))
    page += b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in tags.items())
    starts = [12 + index * (len(page) + 4) for index in range(count)]
    after = [*starts[1:], starts[0] if loop else 0]
    return (
        b"II*\0" + struct.pack("<II", 12, 0) + b"".join(page + struct.pack("<I", a) for a in after)
    )


# 2. Runs, weights, archives, annotations


def damaged_runs(lab: Lab, attack: Attack) -> None:
    """A run folder with one damaged file: opened with the same weights, or refused in one line."""
    from tinyseg.inference.run import load_run

    copy = lab.folder / "copy"
    if not copy.exists():
        shutil.copytree(lab.reference, copy)
    texts = ["run.json", "config.toml", "split.json", "metrics.jsonl"]
    name = lab.draw.choice([*texts, "checkpoints/best.safetensors"])
    whole = (lab.reference / name).read_bytes()
    if name in ("run.json", "split.json") and lab.draw.random() < 0.7:
        content = json.dumps(damage_json(lab.draw, json.loads(whole))).encode()
    else:
        content = damage(lab.draw, whole)
    (copy / name).write_bytes(content)

    def read() -> None:
        run = load_run(copy)
        _ = run.config, run.split, run.position()
        if name.startswith("checkpoints"):
            wanted = load_run(lab.reference).load_checkpoint()[0]
            found = run.load_checkpoint()[0]
            same = all(np.array_equal(found[key], array) for key, array in wanted.items())
            if not same or found.keys() != wanted.keys():
                raise ValueError("other weights")
        elif name == "metrics.jsonl":
            _ = run.scores

    problem = reads_safely(read)
    (copy / name).write_bytes(whole)
    attack.count += 1
    attack.check(not problem, f"{name}: {problem}")


class _Runs:
    """Pickled, it creates a file where it is loaded by Python's own module."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def damaged_weights(lab: Lab, attack: Attack) -> None:
    """Damaged and hostile files of weights, of PyTorch too: nothing in them is run."""
    from tinyseg.weights import read_weights

    hit = lab.folder / "code-was-run"
    golden = lab.draw.choice(sorted(GOLDENS.glob("*.pt")))
    pickled = pickle.dumps({"a": _Runs(hit)}, protocol=2)
    hostile = io.BytesIO()
    with zipfile.ZipFile(hostile, "w") as archive:
        archive.writestr(
            "a/data.pkl", damage(lab.draw, pickled) if lab.draw.randrange(2) else pickled
        )
    best = (lab.reference / "checkpoints/best.safetensors").read_bytes()
    for name, content in (
        ("damaged.pt", damage(lab.draw, golden.read_bytes())),
        ("hostile.pt", hostile.getvalue()),
        ("hostile.pth", pickled),
        ("damaged.safetensors", damage(lab.draw, best)),
    ):
        path = lab.folder / name
        path.write_bytes(content)
        problem = reads_safely(lambda path=path: read_weights(path))
        attack.count += 1
        attack.check(not problem, f"{name} (from {golden.name}): {problem}")
        attack.check(not hit.exists(), f"{name} ran code")


def damaged_archives(lab: Lab, attack: Attack) -> None:
    """Damaged and hostile archives write nothing outside their folder."""
    from tinyseg.data.sources.unpack import unpack

    names = [f"images/{number}.txt" for number in range(20)]
    names.append(lab.draw.choice(["../out.txt", "/out.txt", "ok.txt", "a/../../b", "images/0.txt"]))
    buffer, kind = io.BytesIO(), lab.draw.choice(["zip", "w", "w:gz"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "zip":
            with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
                for name in names:
                    archive.writestr(name, "x" * len(name))
        else:
            with tarfile.open(fileobj=buffer, mode=kind) as tar:
                for name in names:
                    info = tarfile.TarInfo(name)
                    info.size = len(name)
                    info.type = lab.draw.choice([tarfile.REGTYPE] * 9 + [tarfile.SYMTYPE])
                    info.linkname = "../../etc/passwd"
                    tar.addfile(info, io.BytesIO(b"x" * len(name)))
    path, into = lab.folder / "damaged.archive", lab.folder / "unpacked"
    content = buffer.getvalue()
    path.write_bytes(damage(lab.draw, content) if lab.draw.random() < 0.8 else content)
    shutil.rmtree(into, ignore_errors=True)
    before = set(lab.folder.iterdir())
    problem = reads_safely(lambda: unpack(path, into))
    escaped = {one.name for one in set(lab.folder.iterdir()) - before - {into}}
    links = [one.name for one in into.rglob("*") if one.is_symlink()]
    attack.count += 1
    attack.check(not problem and not escaped and not links, f"{kind}: {problem} {escaped} {links}")


def _annotations() -> dict[str, Any]:
    """Valid annotation files by name, for images of 24 x 20 pixels."""
    square = [2, 2, 9, 2, 9, 9, 2, 9]
    named = [{"id": 1, "name": "cell"}, {"id": 4, "name": "dirt"}]
    objects = [square, {"size": [24, 20], "counts": [100, 30, 350]}, [square, square]]
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "height": 24, "width": 20}],
        "categories": named,
        "annotations": [
            {"id": k, "image_id": 1, "category_id": 1, "segmentation": s, "iscrowd": k % 2}
            for k, s in enumerate([[objects[0]], objects[1], objects[2]])
        ],
    }
    corners = [[2, 2], [9, 2], [9.5, 9]]
    shapes = [("cell", "polygon", corners), ("cell", "circle", corners[:2])]
    labelme = {
        **{"version": "5.4.1", "imagePath": "a.png", "imageData": None},
        **{"imageHeight": 24, "imageWidth": 20},
        "shapes": [{"label": n, "shape_type": k, "points": p} for n, k, p in shapes],
    }
    result = {
        **{"id": "r", "type": "polygonlabels", "original_width": 20, "original_height": 24},
        **{"from_name": "label", "to_name": "image"},
        "value": {"points": corners, "polygonlabels": ["cell"], "closed": True},
    }
    studio = [{"id": 1, "data": {"image": "/d/a.png"}, "annotations": [{"result": [result]}]}]
    return {"coco.json": coco, "a.json": labelme, "export.json": studio}


def damaged_annotations(lab: Lab, attack: Attack) -> None:
    """Damaged annotation files of every format: drawn, or refused in one line."""
    from tinyseg.data import Dataset

    head = struct.pack(">4shBBhhhhH", b"Iout", 228, 7, 0, 2, 2, 12, 12, 4).ljust(64, b"\0")
    binary = {
        "a.roi": head + struct.pack(">8h", 0, 9, 9, 0, 0, 0, 9, 9),
        "labels/a.txt": b"0 0.2 0.2 0.6 0.2 0.6 0.7 0.2 0.7\n",
    }
    arrays = io.BytesIO()
    np.savez(arrays, image=np.zeros((6, 5, 3), np.uint8), mask=np.eye(6, 5, dtype=np.uint8))
    binary["0.npz"] = arrays.getvalue()
    for name, content in {**_annotations(), **binary}.items():
        folder = lab.folder / "annotated"
        shutil.rmtree(folder, ignore_errors=True)
        path = folder / name
        path.parent.mkdir(parents=True)
        image = folder / ("images/a.png" if "/" in name else "a.png")
        image.parent.mkdir(exist_ok=True)
        image.write_bytes(VALID["a.png"])
        if isinstance(content, bytes):
            damaged = damage(lab.draw, content)
        elif lab.draw.random() < 0.8:
            damaged = json.dumps(damage_json(lab.draw, content)).encode()
        else:
            damaged = damage(lab.draw, json.dumps(content).encode())
        path.write_bytes(damaged)
        problem = reads_safely(lambda folder=folder: Dataset(folder)[0].label)
        attack.count += 1
        attack.check(not problem, f"{name}: {problem}: {damaged[:200]!r}")
