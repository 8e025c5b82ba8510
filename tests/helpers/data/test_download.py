"""Downloads from a server on 127.0.0.1 that cuts, stops and lies; archives that want to write elsewhere."""

import errno
import hashlib
import io
import stat
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from helpers.data import download as downloading
from helpers.data.download import FetchError, download, unpack

CONTENT = bytes(range(256)) * 4000  # 1 MB
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT under every path; the first words of the path say what goes wrong."""

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Range")))
        if "missing" in self.path:
            self.send_error(404)
            return
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        start = 0 if "norange" in self.path else start
        if start >= len(CONTENT):
            self.send_error(416)
            return
        body = CONTENT[start:] + (b"more" if "long" in self.path else b"")
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        first = len([path for path, _ in self.server.asked if path == self.path]) == 1
        if "cut" in self.path and first or "always" in self.path:
            self.wfile.write(body[: len(body) // 2])  # and the connection closes
        elif "stall" in self.path and first:
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            time.sleep(1)
        else:
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(downloading, "TIMEOUT", (2, 0.3))
    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.asked = []
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    served.url = f"http://127.0.0.1:{served.server_port}"
    yield served
    served.shutdown()
    thread.join()
    served.server_close()


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_file_is_brought_once(server, tmp_path):
    for checksum in (SHA256, MD5):
        assert download([f"{server.url}/plain"], tmp_path / "a.bin", checksum=checksum) == tmp_path / "a.bin"
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert len(server.asked) == 1 and names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("what", ["cut", "stall"])
def test_a_cut_download_goes_on_where_it_stopped(server, tmp_path, what):
    download([f"{server.url}/{what}"], tmp_path / "a.bin", checksum=SHA256, size=len(CONTENT))
    assert (tmp_path / "a.bin").read_bytes() == CONTENT and names(tmp_path) == ["a.bin"]
    (_, whole), (_, rest) = server.asked
    kept = int(rest.removeprefix("bytes=").removesuffix("-"))
    assert whole is None and len(CONTENT) // 2 - downloading.CHUNK < kept <= len(CONTENT) // 2


def test_the_next_command_resumes_what_an_interrupted_one_left(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:1000])
    download([f"{server.url}/plain"], tmp_path / "a.bin", checksum=SHA256)
    assert server.asked == [("/plain", "bytes=1000-")] and (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_server_that_cannot_resume_sends_all(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(b"x" * 1000)
    download([f"{server.url}/norange"], tmp_path / "a.bin", checksum=SHA256)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_without_a_checksum_nothing_is_resumed(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(b"x" * 1000)
    download([f"{server.url}/plain"], tmp_path / "a.bin")
    assert server.asked == [("/plain", None)] and (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_whole_part_is_not_asked_for_again(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    download([f"{server.url}/plain"], tmp_path / "a.bin", checksum=SHA256, size=len(CONTENT))
    assert server.asked == [] and names(tmp_path) == ["a.bin"]


def test_a_part_that_does_not_fit_is_thrown_away_and_brought_anew(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(b"x" * 1000)
    download([f"{server.url}/plain"], tmp_path / "a.bin", checksum=SHA256)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT and names(tmp_path) == ["a.bin"]


def test_the_second_address_helps(server, tmp_path):
    download([f"{server.url}/missing", f"{server.url}/plain"], tmp_path / "a.bin", checksum=SHA256, retries=0)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("path", "options", "message", "left"),
    [
        ("missing", {}, "the server answered 404", []),
        ("plain", dict(checksum="md5:" + "0" * 32), "its checksum is not the registered one", []),
        ("plain", dict(checksum="sha256:" + "0" * 64), "its checksum is not the registered one", []),
        ("long", dict(size=len(CONTENT)), f"the server sends more than the registered {len(CONTENT)} bytes", []),
        ("always", dict(checksum=SHA256), "the server cannot be reached, or stopped in the middle", ["a.bin.part"]),
    ],
)
def test_what_goes_wrong_is_one_sentence(server, tmp_path, path, options, message, left):
    with pytest.raises(FetchError) as error:
        download([f"{server.url}/{path}"], tmp_path / "a.bin", retries=0, **options)
    assert str(error.value) == f"a.bin could not be brought; {server.url}/{path}: {message}"
    assert names(tmp_path) == left  # what arrived before a cut is kept, to go on from


def test_no_server_is_one_sentence(tmp_path):
    with pytest.raises(FetchError, match="the server cannot be reached, or stopped in the middle"):
        download(["http://127.0.0.1:9/x"], tmp_path / "a.bin", retries=0)


def test_a_full_disk_is_said(server, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(downloading._Resuming, "_receive", full)
    with pytest.raises(FetchError, match="the disk is full"):
        download([f"{server.url}/plain"], tmp_path / "a.bin", checksum=SHA256)
    assert names(tmp_path) == []


# --- archives ------------------------------------------------------------------------------------------------------


def zipped(path: Path, *entries: tuple[str, bytes], link: bool = False) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr = ((stat.S_IFLNK if link else stat.S_IFREG) | 0o644) << 16
            archive.writestr(info, content)
    return path


def tarred(path: Path, *entries: tuple[str, bytes], kind=tarfile.REGTYPE) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, "/etc/passwd", len(content) if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_an_archive_is_unpacked_whole(tmp_path, pack):
    unpack(pack(tmp_path / "a", ("x/y.txt", b"one"), ("z.txt", b"two")), tmp_path / "out", limit=6)
    assert (tmp_path / "out" / "x" / "y.txt").read_bytes() == b"one"
    assert (tmp_path / "out" / "z.txt").read_bytes() == b"two"
    assert names(tmp_path) == ["a", "out"]


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize("name", ["../evil.txt", "a/../../evil.txt", "/evil.txt", "C:\\evil.txt", "..\\evil.txt"])
def test_a_member_outside_the_folder_is_refused(tmp_path, pack, name):
    (tmp_path / "in").mkdir()
    with pytest.raises(FetchError, match="which lies outside the folder; nothing was unpacked"):
        unpack(pack(tmp_path / "in" / "a", ("good.txt", b"1"), (name, b"2")), tmp_path / "in" / "out", limit=100)
    assert names(tmp_path / "in") == ["a"] and names(tmp_path) == ["in"]


@pytest.mark.parametrize(
    ("pack", "options"),
    [(zipped, dict(link=True)), (tarred, dict(kind=tarfile.SYMTYPE)), (tarred, dict(kind=tarfile.LNKTYPE))],
)
def test_a_link_is_refused(tmp_path, pack, options):
    with pytest.raises(FetchError, match="a holds a link or device, 'x'; expected files only"):
        unpack(pack(tmp_path / "a", ("x", b"/etc/passwd"), **options), tmp_path / "out", limit=100)
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_more_bytes_than_registered_are_refused(tmp_path, pack):
    with pytest.raises(FetchError, match="a unpacks to more than the registered 5 bytes"):
        unpack(pack(tmp_path / "a", ("x", b"one"), ("y", b"two")), tmp_path / "out", limit=5)
    assert names(tmp_path) == ["a"]


def test_a_damaged_archive_is_said(tmp_path):
    whole = zipped(tmp_path / "a", ("x", CONTENT)).read_bytes()
    (tmp_path / "a").write_bytes(whole[:500] + b"?" + whole[501:])
    with pytest.raises(FetchError, match="a is damaged: Bad CRC-32"):
        unpack(tmp_path / "a", tmp_path / "out", limit=len(CONTENT))
    (tmp_path / "a").write_bytes(b"no archive")
    with pytest.raises(FetchError, match="a is neither a zip nor a tar archive"):
        unpack(tmp_path / "a", tmp_path / "out", limit=10)
    assert names(tmp_path) == ["a"]


def test_a_folder_that_is_there_is_not_touched(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match="expected a folder that is not there yet"):
        unpack(zipped(tmp_path / "a", ("x", b"1")), tmp_path / "out", limit=10)
