"""What is done is not done again; what is not sure is."""

import os
import subprocess
from pathlib import Path

import pytest

from tinyseg.inference.manifest import NAME, Manifest

MASKS = [Path(f"{number}.png") for number in range(3)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images with their masks, all in the manifest."""
    manifest = Manifest(tmp_path, "key")
    for mask in MASKS:
        (tmp_path / f"image{mask}").write_text(f"image {mask}")
        with manifest.writing(tmp_path / f"image{mask}", None, mask):
            (tmp_path / mask).write_text(f"mask {mask}")
    return tmp_path


def done(folder: Path, key: str = "key", page: int | None = None) -> list[bool]:
    manifest = Manifest(folder, key)
    return [manifest.has(folder / f"image{mask}", page, mask) for mask in MASKS]


def test_a_second_call_knows_all(folder: Path) -> None:
    assert done(folder) == [True] * 3
    assert done(folder, page=1) == [False] * 3


def test_another_key_knows_nothing_and_starts_anew(folder: Path) -> None:
    assert done(folder, "other") == [False] * 3
    with Manifest(folder, "other").writing(folder / "image0.png", None, MASKS[0]):
        pass
    assert done(folder) == [False] * 3
    assert done(folder, "other") == [True, False, False]


def test_only_what_was_written_here_may_be_replaced(folder: Path) -> None:
    (folder / MASKS[1]).write_text("corrected by hand")
    (folder / "own.png").write_text("mine")
    for key in ("key", "other", "third"):  # what other settings have written stays ours
        manifest = Manifest(folder, key)
        assert [manifest.ours(mask) for mask in MASKS] == [True, False, True]
        assert not manifest.ours(Path("own.png"))
        assert manifest.ours(Path("new.png"))
        with (
            pytest.raises(KeyboardInterrupt),
            manifest.writing(folder / "image.png", None, Path("cut.png")),
        ):
            raise KeyboardInterrupt
    (folder / "cut.png").write_text("killed before it was noted")
    assert Manifest(folder, "third").ours(Path("cut.png"))


def test_what_a_killed_call_left_half_written_is_removed(folder: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = folder / "below" / f".{dead.pid}-7.partial"
    left.parent.mkdir()
    left.write_text("half a mask")
    Manifest(folder, "key")
    assert not left.exists()
    left.write_text("in a folder that predict has not written")
    Manifest(left.parent, "key")
    assert left.exists()


def test_what_has_changed_since_is_not_done(folder: Path) -> None:
    (folder / MASKS[0]).unlink()
    (folder / MASKS[1]).write_text("drawn over")
    os.utime(folder / "image2.png", ns=(1, 1))
    assert done(folder) == [False] * 3


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_line_that_was_cut_off_is_left_out(folder: Path, cut: int) -> None:
    content = (folder / NAME).read_bytes()
    (folder / NAME).write_bytes(content[: -cut - 1])
    assert done(folder) == [True, True, False]
    with Manifest(folder, "key").writing(folder / "image2.png", None, MASKS[2]):
        pass
    assert done(folder) == [True] * 3


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"[]\n1\n", b'{"key": 3}\n', b'{"key"', b"[" * 100000]
)
def test_another_file_is_no_manifest(folder: Path, content: bytes) -> None:
    (folder / NAME).write_bytes(content)
    assert done(folder) == [False] * 3
    with Manifest(folder, "key").writing(folder / "image1.png", None, MASKS[1]):
        pass
    assert done(folder) == [False, True, False]
