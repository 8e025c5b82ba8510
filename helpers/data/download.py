"""Bring one file from the web, resumed where it was cut, and unpack an archive that may be hostile."""

import errno
import re
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import pooch
import requests
from tqdm.auto import tqdm

CHUNK = 1 << 16  # bytes: what a cut loses at most
TIMEOUT = (10, 60)  # seconds to connect, and without a byte


class FetchError(RuntimeError):
    """Something could not be brought; the message is one sentence for the reader."""


def download(
    urls: Sequence[str], target: Path, *, checksum: str = "", size: int | None = None, retries: int = 2
) -> Path:
    """Bring `target` from the first of `urls` that has it, whole and with this checksum, or not at all.

    checksum: "sha256:…" or "md5:…". With one, which tells whether the halves fit, a download that was cut goes on
    where it stopped, from `target` + ".part"; without one it starts again. size: bytes; a server that sends more is
    stopped. Raises FetchError.
    """
    kind, _, digits = checksum.partition(":")
    if target.is_file() and (not checksum or pooch.file_hash(target, alg=kind) == digits):
        return target
    part, problems = target.with_name(target.name + ".part"), []
    for url in urls:
        source = pooch.create(
            path=target.parent,
            base_url="",
            registry={target.name: checksum or None},
            urls={target.name: url},
            retry_if_failed=retries,
        )
        try:
            source.fetch(target.name, downloader=_Resuming(part, size=size, resume=bool(checksum)))
            return target
        except (ValueError, requests.RequestException) as error:
            problems.append(f"{url}: {_sentence(error)}")
        except OSError as error:
            raise unwritable(target.parent, error) from error
    raise FetchError(f"{target.name} could not be brought; " + "; ".join(problems))


def unwritable(folder: Path, error: OSError) -> FetchError:
    """The sentence for a folder that cannot be written to."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    why = "the disk is full" if full else (error.strerror or str(error))
    return FetchError(f"cannot write to {folder}: {why}; SMALL_SAMPLE_DATA may name another folder")


def _sentence(error: Exception) -> str:
    if isinstance(error, requests.HTTPError):
        return f"the server answered {error.response.status_code}"
    if isinstance(error, requests.RequestException):
        return "the server cannot be reached, or stopped in the middle"
    return "its checksum is not the registered one" if "hash" in str(error) else str(error)


class _Resuming:
    """A downloader for pooch: bytes gather in `part`, which survives an interruption."""

    def __init__(self, part: Path, *, size: int | None, resume: bool):
        self.part, self.size, self.resume = part, size, resume

    def __call__(self, url: str, output_file, _) -> None:
        start = self.part.stat().st_size if self.resume and self.part.exists() else 0
        if start == 0 or start != self.size:
            self._receive(url, start)
        shutil.move(self.part, output_file)

    def _receive(self, url: str, start: int) -> None:
        headers = {"Range": f"bytes={start}-", "Accept-Encoding": "identity"} if start else {}
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            if start and answer.status_code == 416:  # nothing is left to send, or the file is another one now
                self.part.unlink()
                raise ValueError("the server cannot go on where the download stopped")
            answer.raise_for_status()
            resumed = answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(
                f"bytes {start}-"
            )
            received = start if resumed else 0
            total = received + int(answer.headers.get("Content-Length", 0)) or None
            with (
                self.part.open("ab" if resumed else "wb") as out,
                tqdm(
                    total=total, initial=received, unit="B", unit_scale=True, desc=self.part.stem, disable=None
                ) as bar,
            ):
                for chunk in answer.iter_content(CHUNK):
                    received += len(chunk)
                    if self.size is not None and received > self.size:
                        out.close()
                        self.part.unlink()
                        raise ValueError(f"the server sends more than the registered {self.size} bytes")
                    out.write(chunk)
                    bar.update(len(chunk))


def unpack(archive: Path, folder: Path, *, limit: int) -> Path:
    """Unpack a zip or tar archive into `folder`, which appears whole or not at all; at most `limit` bytes.

    Refused with FetchError: a member with an absolute path or `..`, a link or device, more bytes than `limit`, an
    archive that is neither or is damaged. Raises FileExistsError if there is such a folder.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists; expected a folder that is not there yet")
    opened = _open(archive)
    with opened, tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpack-") as work:
        left = limit
        Path(work, "all").mkdir()
        try:
            for name, stream in _members(opened, archive.name):
                target = Path(work, "all", *name.split("/"))
                target.parent.mkdir(parents=True, exist_ok=True)
                with stream, target.open("wb") as out:
                    while chunk := stream.read(min(CHUNK, left + 1)):
                        left -= len(chunk)
                        if left < 0:
                            raise FetchError(f"{archive.name} unpacks to more than the registered {limit} bytes")
                        out.write(chunk)
        except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
            raise FetchError(f"{archive.name} is damaged: {error}") from error
        except OSError as error:
            raise unwritable(folder.parent, error) from error
        Path(work, "all").replace(folder)
    return folder


def _open(archive: Path) -> zipfile.ZipFile | tarfile.TarFile:
    if zipfile.is_zipfile(archive):
        return zipfile.ZipFile(archive)
    try:
        return tarfile.open(archive)
    except tarfile.TarError as error:
        raise FetchError(f"{archive.name} is neither a zip nor a tar archive") from error


def _members(opened: zipfile.ZipFile | tarfile.TarFile, archive: str):
    """(name, stream) of every file; all names are checked before the first is opened."""
    if isinstance(opened, zipfile.ZipFile):
        links = {
            i.filename for i in opened.infolist() if (i.external_attr >> 16) & 0o170000 not in (0, 0o100000, 0o040000)
        }
        files = {i.filename: i for i in opened.infolist() if not i.is_dir()}
        read = opened.open
    else:
        links = {m.name for m in opened.getmembers() if not (m.isfile() or m.isdir())}
        files = {m.name: m for m in opened.getmembers() if m.isfile()}
        read = opened.extractfile
    for name in [*files, *links]:
        if name in links:
            raise FetchError(f"{archive} holds a link or device, {name!r}; expected files only")
        if name.startswith(("/", "\\")) or re.match("[A-Za-z]:", name) or ".." in re.split(r"[/\\]", name):
            raise FetchError(f"{archive} holds {name!r}, which lies outside the folder; nothing was unpacked")
    for name, member in files.items():
        yield name, read(member)
