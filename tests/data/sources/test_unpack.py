"""Good archives come out as they are; bad ones are one line and leave nothing outside."""

import gzip
import io
import random
import stat
import tarfile
import zipfile

import pytest

from tinyseg.data.sources import unpack as module
from tinyseg.data.sources.unpack import unpack
from tinyseg.errors import DataError

FILES = {"top/a.txt": b"first" * 1000, "top/deep/b.txt": b"", "top/ü.txt": b"second"}


def zipped(path, members):
    """(name or ZipInfo, content) pairs as a .zip."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def tarred(path, members, mode="w:gz"):
    """(name or TarInfo, content) pairs as a .tar.gz."""
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if info.type == tarfile.REGTYPE:
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def special(name, kind, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def zip_special(name, kind):
    info = zipfile.ZipInfo(name)
    info.external_attr = (kind | 0o777) << 16
    return info


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def refused(archive, said):
    """The one line; nothing but the target, if that, was made."""
    target = archive.parent / "target"
    with pytest.raises(DataError, match=said) as caught:
        unpack(archive, target)
    assert "\n" not in str(caught.value)
    assert str(archive) in str(caught.value)
    assert {path.name for path in archive.parent.iterdir()} <= {archive.name, "target"}
    assert not any(path.is_symlink() for path in target.rglob("*"))


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("a.zip", zipped),
        ("a.tar.gz", tarred),
        ("a.tar", lambda path, members: tarred(path, members, "w")),
    ],
)
def test_what_was_packed_comes_out(tmp_path, name, make):
    archive = make(tmp_path / name, FILES.items())
    seen = []
    unpack(archive, tmp_path / "all", progress=lambda *counts: seen.append(counts))
    assert contents(tmp_path / "all") == FILES
    assert len(seen) == 3
    assert all(0 < done <= total == archive.stat().st_size for done, total in seen)
    inner = {name.removeprefix("top/"): text for name, text in FILES.items()}
    for number, inside in enumerate(("top", "*", "top/")):
        unpack(archive, tmp_path / str(number), inside)
        assert contents(tmp_path / str(number)) == inner
    unpack(archive, tmp_path / "deep", "*/deep")
    assert contents(tmp_path / "deep") == {"b.txt": b""}
    unpack(archive, tmp_path / "none", "elsewhere")
    assert not (tmp_path / "none").exists()


def test_rights_in_the_archive_are_not_taken_over(tmp_path):
    info = tarfile.TarInfo("a")
    info.mode = 0o6777
    unpack(tarred(tmp_path / "a.tar.gz", [(info, b"x")]), tmp_path / "target")
    assert not stat.S_IMODE((tmp_path / "target" / "a").stat().st_mode) & 0o6111


OUTSIDE = ["../out", "/tmp/tinyseg-out", "a/../../out", "..", "a\\..\\..\\out", "C:/out", "C:\\out"]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("make", [zipped, tarred])
def test_names_that_leave_the_target(tmp_path, make, name):
    refused(make(tmp_path / "archive", [("good", b"x"), (name, b"x")]), "leaves the target folder")


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2J", "\udcff"])
def test_names_that_are_no_text(tmp_path, name):
    refused(tarred(tmp_path / "archive", [(name, b"x")]), "no readable text")


@pytest.mark.parametrize(
    "info",
    [
        special("a", tarfile.SYMTYPE, "../out"),
        special("a", tarfile.SYMTYPE, "b"),
        special("a", tarfile.LNKTYPE, "/etc/passwd"),
        special("a", tarfile.CHRTYPE),
        special("a", tarfile.BLKTYPE),
        special("a", tarfile.FIFOTYPE),
    ],
)
def test_links_and_devices_in_a_tar(tmp_path, info):
    refused(tarred(tmp_path / "archive", [(info, b""), ("a/b", b"x")]), "is a link or a device")


def test_a_link_that_is_not_wanted_is_no_matter(tmp_path):
    archive = tarred(
        tmp_path / "archive", [(special("code/a", tarfile.SYMTYPE, "b"), b""), ("set/a", b"x")]
    )
    unpack(archive, tmp_path / "target", "set")
    assert contents(tmp_path / "target") == {"a": b"x"}


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_links_and_devices_in_a_zip(tmp_path, kind):
    archive = zipped(tmp_path / "archive", [(zip_special("a", kind), b"/etc/passwd")])
    refused(archive, "is a link or a device")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize("names", [("a", "a"), ("a", "./a"), ("a", "a/b"), ("a//b", "a/b")])
def test_a_name_that_stands_twice(tmp_path, make, names):
    archive = make(tmp_path / "archive", [(name, b"x") for name in names])
    refused(archive, "appears twice")


@pytest.mark.parametrize("make", [zipped, tarred])
def test_bombs(tmp_path, monkeypatch, make):
    monkeypatch.setattr(module, "_ALWAYS", 1 << 10)
    archive = make(tmp_path / "archive", [("zeros", bytes(4 << 20))])
    assert archive.stat().st_size < 10_000
    refused(archive, "more than 0 MiB or 200000 files")
    assert not (tmp_path / "target").exists()
    monkeypatch.setattr(module, "_ALWAYS", 8 << 20)
    unpack(archive, tmp_path / "target")


@pytest.mark.parametrize("make", [zipped, tarred])
def test_too_many_members(tmp_path, monkeypatch, make):
    monkeypatch.setattr(module, "MOST_MEMBERS", 3)
    refused(make(tmp_path / "archive", [(str(i), b"") for i in range(4)]), "or 3 files")


def test_a_zip_of_very_many_names_is_refused_before_they_are_read(tmp_path, monkeypatch):
    archive = zipped(tmp_path / "archive", [(str(i), b"") for i in range(4)])
    monkeypatch.setattr(module, "_MOST_DIRECTORY", 150)
    monkeypatch.setattr(zipfile, "ZipInfo", None)
    refused(archive, "a header of more than 150 bytes")


def test_a_bomb_behind_the_last_file(tmp_path, monkeypatch):
    tar = tarred(tmp_path / "a.tar", FILES.items(), "w").read_bytes()
    (tmp_path / "a.tar").unlink()
    monkeypatch.setattr(module, "_ALWAYS", 1 << 16)
    archive = tmp_path / "archive"
    archive.write_bytes(gzip.compress(tar + bytes(8 << 20)))
    refused(archive, "endless after the last file")


def header(**fields):
    info = tarfile.TarInfo("a")
    for name, value in fields.items():
        setattr(info, name, value)
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "block",
    [
        header(type=tarfile.XHDTYPE, size=1 << 33),
        header(type=tarfile.GNUTYPE_LONGNAME, size=1 << 33),
        header(type=tarfile.XHDTYPE, size=-512),
        header(size=-512),
        header(size=-(1 << 40)),
    ],
)
def test_headers_that_ask_for_gigabytes_or_for_ever(tmp_path, block):
    for name, content in (("plain", block * 2), ("zipped", gzip.compress(block * 2))):
        (tmp_path / name).mkdir()
        archive = tmp_path / name / "archive"
        archive.write_bytes(content)
        refused(archive, r"damaged|more than")


def test_a_header_is_never_read_beyond_a_limit(tmp_path, monkeypatch):
    archive = tarred(tmp_path / "archive", [("n" * 5000, b"x")])
    refused(archive, "name too long")
    monkeypatch.setattr(module, "_MOST_HEADER", 4096)
    refused(archive, r"damaged \(a header of more than 4096 bytes\)")


@pytest.mark.parametrize("make", [zipped, tarred])
def test_every_cut_and_every_flipped_byte_is_refused_or_harmless(tmp_path, make):
    random_bytes = random.Random(0).randbytes(3000)
    whole = make(tmp_path / "whole", [("a", random_bytes), ("b/c", b"text" * 50)]).read_bytes()
    wanted = [random_bytes, b"text" * 50]
    archive, bad = tmp_path / "archive", 0
    for place in range(0, len(whole), 37):
        flipped = bytearray(whole)
        flipped[place] ^= 0x55
        for content in (whole[:place], bytes(flipped)):
            archive.write_bytes(content)
            target = tmp_path / f"target{place}-{len(content)}"
            try:
                unpack(archive, target)
            except DataError:
                bad += 1
            else:  # only a name or a date changed
                assert sorted(contents(target).values()) == sorted(wanted)
    assert bad > len(whole) // 37


@pytest.mark.parametrize(
    "content", [b"", b"<html>Please log in</html>", b"PK", b"\x1f\x8b", b"Rar!"]
)
def test_what_is_no_archive(tmp_path, content):
    archive = tmp_path / "archive"
    archive.write_bytes(content)
    refused(archive, "damaged")


def test_a_zip_with_a_password(tmp_path):
    archive = zipped(tmp_path / "archive", [("a", b"x")])
    content = bytearray(archive.read_bytes())
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(magic) + offset] |= 1
    archive.write_bytes(content)
    refused(archive, "encrypted")


def test_a_target_that_cannot_be_written(tmp_path):
    archive = zipped(tmp_path / "archive", [("a" * 300, b"x")])
    refused(archive, r"cannot be unpacked to .* \(File name too long\)")
