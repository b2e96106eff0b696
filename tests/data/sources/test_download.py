"""The downloader against a server on this machine that is slow, cuts off, lies or attacks."""

import hashlib
import io
import random
import subprocess
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tinyseg.cli import main
from tinyseg.data.sources import SOURCES, Archive, Source
from tinyseg.data.sources import download as module
from tinyseg.data.sources.download import Patience, download, fetch
from tinyseg.errors import DataError

HASTY = Patience(timeout=5.0, tries=3, pause=0.01)
CONTENT = random.Random(0).randbytes(300_000)


class Server:
    """Serves `content` at every path; the attributes say how badly."""

    def __init__(self):
        self.content, self.version, self.ranges, self.length = CONTENT, '"v1"', True, True
        self.status: list[int] = []
        """Answers of the first requests instead of the content."""
        self.cuts: list[int] = []
        """Bytes of the body after which the first connections are cut."""
        self.stall = 0.0
        """Seconds to wait instead of cutting, and at each 64 KiB when nothing is cut."""
        self.shift = 0
        """How far ranges begin from where they were asked."""
        self.location, self.chunked = "", False
        self.requests: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.requests.append({"path": self.path, **dict(self.headers)})
                outer.answer(self)
                self.close_connection = True

            def log_message(self, *arguments):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def answer(self, request):
        if self.location and request.path != "/final":
            request.send_response(302)
            request.send_header("Location", self.location)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        if self.status:
            request.send_error(self.status.pop(0))
            return
        start = self.start(request.headers)
        if start is not None and start >= len(self.content):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(self.content)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        request.send_response(200 if start is None else 206)
        body = self.content[(start or 0) :]
        if start is not None:
            place = f"bytes {start + self.shift}-{len(self.content) - 1}/{len(self.content)}"
            request.send_header("Content-Range", place)
        if self.version:
            request.send_header("ETag", self.version)
        if self.chunked:
            request.send_header("Transfer-Encoding", "chunked")
        elif self.length:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        self.send(request, body)

    def start(self, headers):
        same = headers.get("If-Range") == self.version
        if self.ranges and same and headers.get("Range", "").startswith("bytes="):
            return int(headers["Range"][6:-1])
        return None

    def send(self, request, body):
        cut = self.cuts.pop(0) if self.cuts else None
        try:
            for place in range(0, len(body[:cut]), 1 << 16):
                piece = body[place : min(place + (1 << 16), cut or len(body))]
                request.wfile.write(
                    b"%x\r\n%b\r\n" % (len(piece), piece) if self.chunked else piece
                )
                request.wfile.flush()
                time.sleep(self.stall if cut is None else 0)
            if cut is not None:
                time.sleep(self.stall)
            elif self.chunked:
                request.wfile.write(b"0\r\n\r\n")
        except OSError:  # the other side had enough
            pass

    def archive(self, name="a.zip", **facts):
        return Archive(f"{self.url}/{name}", ("images",), **facts)

    @property
    def ranges_asked(self):
        return [request.get("Range") for request in self.requests]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server():
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()
    server.thread.join()


def zipped(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def tarred(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def known(monkeypatch, *archives):
    """Makes the archives a dataset named tiny."""
    monkeypatch.setitem(SOURCES, "tiny", Source("Tiny", "free; cite", archives, None, {}))


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def failed(archive, path, said, patience=HASTY):
    with pytest.raises(DataError, match=said) as caught:
        fetch(archive, path, patience)
    assert "\n" not in str(caught.value)
    assert not path.exists()


# 1. From the network to a file


def test_a_whole_file(server, tmp_path):
    digest = hashlib.sha256(CONTENT).hexdigest()
    archive = server.archive(size=len(CONTENT), sha256=digest)
    fetch(archive, tmp_path / "a.zip", HASTY)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert names(tmp_path) == ["a.zip"]
    assert server.ranges_asked == [None]


def test_a_cut_connection_is_continued(server, tmp_path):
    server.cuts = [100_000, 50_000, 1, 100_000]
    fetch(server.archive(), tmp_path / "a.zip", HASTY)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    places = [None, "bytes=100000-", "bytes=150000-", "bytes=150001-", "bytes=250001-"]
    assert server.ranges_asked == places
    assert server.requests[-1]["If-Range"] == '"v1"'


def test_a_later_call_continues(server, tmp_path):
    server.cuts = [200_000]
    said = r"cut off at byte 200000 of 300000; check the connection .* 0.2 MiB are kept"
    failed(server.archive(), tmp_path / "a.zip", said, Patience(tries=1))
    fetch(server.archive(), tmp_path / "a.zip", HASTY)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert server.ranges_asked == [None, "bytes=200000-"]
    assert names(tmp_path) == ["a.zip"]


def test_ctrl_c_keeps_what_came(server, tmp_path, monkeypatch):
    write = module._write

    def interrupted(file, chunk):
        write(file, chunk)
        if file.tell() > 100_000:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(server.archive(), tmp_path / "a.zip", HASTY)
    monkeypatch.setattr(module, "_write", write)
    kept = (tmp_path / "a.zip.partial").stat().st_size
    fetch(server.archive(), tmp_path / "a.zip", HASTY)
    assert kept > 100_000
    assert server.ranges_asked == [None, f"bytes={kept}-"]
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.ranges, server.cuts = False, [100_000, 200_000]
    fetch(server.archive(), tmp_path / "a.zip", HASTY)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_server_that_always_cuts_at_one_place_is_given_up(server, tmp_path):
    server.ranges, server.cuts = False, [100_000] * 50
    failed(server.archive(), tmp_path / "a.zip", "cut off at byte 100000 of 300000")
    assert len(server.requests) == HASTY.tries


@pytest.mark.parametrize("version", ['"v2"', "", 'W/"v1"'])
def test_another_version_is_not_glued_to_the_first(server, tmp_path, version):
    server.cuts = [100_000]
    if version == 'W/"v1"':  # a weak name, which does not mean the same bytes
        server.version = version
    failed(server.archive(), tmp_path / "a.zip", "cut off", Patience(tries=1))
    server.version, server.content = version, CONTENT[::-1]
    fetch(server.archive(), tmp_path / "a.zip", HASTY)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT[::-1]


def test_a_part_of_another_address_is_not_continued(server, tmp_path):
    server.cuts = [100_000]
    failed(server.archive(), tmp_path / "a.zip", "cut off", Patience(tries=1))
    fetch(server.archive("b.zip"), tmp_path / "a.zip", HASTY)
    assert server.ranges_asked == [None, None]


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b'{"url": 3}', b"\xff"])
def test_a_damaged_note_starts_over(server, tmp_path, note):
    (tmp_path / "a.zip.partial").write_bytes(b"old")
    (tmp_path / "a.zip.partial.json").write_bytes(note)
    fetch(server.archive(), tmp_path / "a.zip", HASTY)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_part_that_is_whole_already(server, tmp_path):
    server.cuts = [250_000]
    failed(server.archive(), tmp_path / "a.zip", "cut off", Patience(tries=1))
    with (tmp_path / "a.zip.partial").open("ab") as file:
        file.write(CONTENT[250_000:])
    fetch(server.archive(), tmp_path / "a.zip", HASTY)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    with (tmp_path / "b.zip.partial").open("wb") as file:
        file.write(CONTENT + b"too long")
    (tmp_path / "b.zip.partial.json").write_text(
        f'{{"url": "{server.url}/b.zip", "version": "\\"v1\\""}}'
    )
    fetch(server.archive("b.zip"), tmp_path / "b.zip", HASTY)
    assert (tmp_path / "b.zip").read_bytes() == CONTENT


def test_a_part_from_the_wrong_place_is_not_taken(server, tmp_path):
    server.cuts, server.shift = [100_000], -7
    failed(server.archive(), tmp_path / "a.zip", "another part than was asked for")
    assert (tmp_path / "a.zip.partial").read_bytes() == CONTENT[:100_000]


def test_a_stalled_connection_is_left_and_continued(server, tmp_path):
    server.cuts, server.stall = [100_000], 0.4
    fetch(server.archive(), tmp_path / "a.zip", Patience(timeout=0.2, tries=8, pause=0.01))
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert len(server.requests) > 1


def test_a_slow_connection_is_borne(server, tmp_path):
    server.stall = 0.3  # after each of five pieces
    fetch(server.archive(), tmp_path / "a.zip", Patience(timeout=1.2, tries=1))
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_a_server_that_does_not_tell_the_length(server, tmp_path):
    server.length = False
    fetch(server.archive(), tmp_path / "a.zip", HASTY)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_an_answer_in_chunks_that_is_cut_is_not_taken_for_whole(server, tmp_path):
    server.chunked, server.cuts = True, [100_000]
    fetch(server.archive(), tmp_path / "a.zip", HASTY)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert server.ranges_asked == [None, "bytes=100000-"]


def test_a_continued_download_follows_redirects(server, tmp_path):
    server.location, server.cuts = "/final", [100_000]
    fetch(server.archive(), tmp_path / "a.zip", HASTY)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert server.ranges_asked == [None, None, *["bytes=100000-"] * 2]


def test_an_endless_answer_is_stopped(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 200_000)
    server.length = False
    failed(server.archive(), tmp_path / "a.zip", "longer than 200000 bytes")
    server.length = True
    failed(server.archive(), tmp_path / "a.zip", "has 300000 bytes, published are far fewer")
    assert names(tmp_path) == []


def test_a_wrong_digest_leaves_nothing(server, tmp_path):
    archive = server.archive(sha256="0" * 64)
    digest = hashlib.sha256(CONTENT).hexdigest()
    failed(archive, tmp_path / "a.zip", f"SHA-256 {digest}, published is 0000.*deleted")
    assert names(tmp_path) == []


def test_a_wrong_size_is_seen_before_anything_comes(server, tmp_path):
    said = "has 300000 bytes, published are 299999; the file has changed"
    failed(server.archive(size=299_999), tmp_path / "a.zip", said)
    server.length = False
    failed(server.archive(size=299_999), tmp_path / "a.zip", "300000 bytes, published are 299999")
    assert names(tmp_path) == []


def test_busy_servers_are_asked_again_and_others_not(server, tmp_path):
    server.status = [503, 429]
    fetch(server.archive(), tmp_path / "a.zip", HASTY)
    server.status = [500] * 3
    failed(server.archive(), tmp_path / "b.zip", "the server says 500 Internal Server Error; check")
    for code in (401, 403, 404, 410):
        before, server.status = len(server.requests), [code]
        said = f"the server says {code} .* look for the file by hand and put it at .*b.zip"
        failed(server.archive(), tmp_path / "b.zip", said)
        assert len(server.requests) == before + 1


def test_no_server_at_all(tmp_path):
    archive = Archive("http://127.0.0.1:9/a.zip", ("images",))
    failed(archive, tmp_path / "a.zip", r"refused; check the connection .* 0.0 MiB are kept")


def test_redirects_stay_safe(server, tmp_path):
    server.location = f"{server.url}/final"
    fetch(server.archive(), tmp_path / "a.zip", HASTY)
    for location in ("http://example.com/a.zip", "ftp://127.0.0.1/a", "file:///etc/passwd"):
        server.location = location
        failed(server.archive(), tmp_path / "b.zip", f"'{location}' is not (https|allowed)")
    server.location = "/again"
    failed(server.archive(), tmp_path / "b.zip", "the server says 302")


@pytest.mark.parametrize(
    "url", ["http://example.com/a.zip", "file:///etc/passwd", "ftp://127.0.0.1/a", "a.zip", ""]
)
def test_only_https(tmp_path, url):
    failed(Archive(url, ()), tmp_path / "a.zip", "is not https")


def test_a_full_disk(server, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 9})())
        failed(server.archive(), tmp_path / "a.zip", "0 MiB to download, 0 MiB free; free space")
    if not Path("/dev/full").exists():
        return
    full = lambda self, first, version: open("/dev/full", "ab", buffering=0)  # noqa: E731, SIM115
    monkeypatch.setattr(module._Partial, "open", full)
    failed(server.archive(), tmp_path / "a.zip", "No space left on device.*goes on from there")
    assert len(server.requests) == 2


def test_a_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "a.zip.partial").mkdir()
    failed(server.archive(), tmp_path / "a.zip", "a.zip.partial: cannot be written")
    assert len(server.requests) == 1


# 2. From the file to a dataset


def test_a_dataset_is_fetched_unpacked_and_complete(server, tmp_path, monkeypatch):
    server.content = zipped({"images/a.png": b"a", "readme": b"b"})
    known(monkeypatch, server.archive())
    said = []
    download("tiny", tmp_path / "new" / "set", said.append, HASTY)
    folder = tmp_path / "new" / "set"
    assert names(folder) == ["images", "images/a.png", "readme"]
    assert said == ["Tiny (free; cite)", f"tiny is complete in {folder}; use it as tiny:{folder}"]
    download("tiny", folder, said.append, HASTY)
    assert len(server.requests) == 1
    assert said[2:] == said[1:2]


def test_only_the_archives_that_lack_are_fetched(server, tmp_path, monkeypatch):
    server.content = tarred({"labels/a.png": b"a"})
    second = Archive(f"{server.url}/b.tar.gz", ("labels",))
    known(monkeypatch, server.archive("a.tar.gz"), second)
    (tmp_path / "images").mkdir()
    download("tiny", tmp_path, print, HASTY)
    assert [request["path"] for request in server.requests] == ["/b.tar.gz"]
    assert names(tmp_path) == ["images", "labels", "labels/a.png"]


def test_folder_and_inside(server, tmp_path, monkeypatch):
    server.content = zipped({"top-123/set/a/1.png": b"1", "top-123/code.py": b"2"})
    known(monkeypatch, server.archive(inside="*/set", folder="images"))
    download("tiny", tmp_path, print, HASTY)
    assert names(tmp_path) == ["images", "images/a", "images/a/1.png"]


def test_an_archive_brought_by_hand_is_used_and_never_removed(server, tmp_path, monkeypatch):
    content = zipped({"images/a.png": b"a"})
    known(monkeypatch, server.archive(sha256=hashlib.sha256(content).hexdigest()))
    (tmp_path / "a.zip").write_bytes(b"wrong")
    with pytest.raises(DataError, match=r"a.zip: SHA-256 .*; remove it, or put the right file"):
        download("tiny", tmp_path, print, HASTY)
    assert (tmp_path / "a.zip").read_bytes() == b"wrong"
    (tmp_path / "a.zip").write_bytes(content)
    download("tiny", tmp_path, print, HASTY)
    assert names(tmp_path) == ["a.zip", "images", "images/a.png"]
    assert (tmp_path / "a.zip").read_bytes() == content
    assert server.requests == []


def test_a_malicious_archive_leaves_nothing(server, tmp_path, monkeypatch):
    server.content = tarred({"images/a.png": b"a", "../../out": b"b"})
    known(monkeypatch, server.archive("a.tar.gz"))
    with pytest.raises(DataError, match=r"'\.\./\.\./out' leaves the target folder"):
        download("tiny", tmp_path / "x" / "y", print, HASTY)
    assert names(tmp_path) == ["x", "x/y", "x/y/a.tar.gz"]


def test_what_a_kill_left_is_cleared(server, tmp_path, monkeypatch):
    server.content = zipped({"images/a.png": b"a"})
    known(monkeypatch, server.archive())
    (tmp_path / ".a.zip.partial" / "images").mkdir(parents=True)
    (tmp_path / ".a.zip.partial" / "images" / "half.png").write_bytes(b"")
    download("tiny", tmp_path, print, HASTY)
    assert names(tmp_path) == ["images", "images/a.png"]


@pytest.mark.parametrize("moved", [False, True])
def test_a_call_killed_after_the_download_leaves_no_archive(server, tmp_path, monkeypatch, moved):
    server.content = zipped({"images/a.png": b"a"})
    known(monkeypatch, server.archive())
    place = module._place

    def kill(*arguments):
        if moved:
            place(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_place", kill)
    with pytest.raises(KeyboardInterrupt):
        download("tiny", tmp_path, print, HASTY)
    monkeypatch.setattr(module, "_place", place)
    dead = subprocess.Popen(["true"])
    dead.wait()
    (tmp_path / f".{dead.pid}-7.partial").write_bytes(b"half a note")
    download("tiny", tmp_path, print, HASTY)
    assert names(tmp_path) == ["images", "images/a.png"]
    assert len(server.requests) == 1


def test_an_archive_without_the_dataset(server, tmp_path, monkeypatch):
    server.content = zipped({"elsewhere/a.png": b"a"})
    known(monkeypatch, server.archive())
    with pytest.raises(DataError, match=r"a.zip: does not hold images"):
        download("tiny", tmp_path, print, HASTY)


def test_the_command(server, tmp_path, monkeypatch, capsys):
    server.content = zipped({"images/a.png": b"a"})
    known(monkeypatch, server.archive())
    assert main(["data", "download", "tiny", str(tmp_path / "new")]) == 0
    assert "tiny is complete" in capsys.readouterr().out
    (tmp_path / "file").write_bytes(b"")
    for command in (["nothing", str(tmp_path / "x")], ["tiny", str(tmp_path / "file")]):
        assert main(["data", "download", *command]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
