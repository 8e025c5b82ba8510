"""The field's public data sets: where each is, what it may be used for, how to get it, whether a folder is right."""

import csv
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from data_scripts.download import FetchError, download, unpack

PUBLIC = Path(__file__).with_name("public.csv")


@dataclass(frozen=True)
class PublicSet:
    """One row of the registry; what could not be verified is empty.

    layout: patterns, separated by spaces, each of which matches a file of a complete folder. bytes, checksum
    ("sha256:…" or "md5:…"): of the file behind `url`. unpacked_bytes: what it may unpack to, if it is an archive.
    """

    name: str
    modality: str
    task: str
    patients: str
    images: str
    size: str
    landing: str
    terms: str
    how: str
    url: str
    second_url: str
    file: str
    bytes: str
    checksum: str
    unpacked_bytes: str
    layout: str
    reader: str
    citation: str
    note: str


def read_public(registry: Path = PUBLIC) -> dict[str, PublicSet]:
    """All registered sets by name, in the order of the file."""
    with registry.open(newline="", encoding="utf-8") as rows:
        sets = [PublicSet(**{f.name: row[f.name].strip() for f in fields(PublicSet)}) for row in csv.DictReader(rows)]
    return {s.name: s for s in sets}


def verify(found: PublicSet, folder: Path) -> None:
    """Raises FetchError if `folder` lacks something that the registered layout names."""
    if not folder.is_dir():
        raise FetchError(f"{folder} is no folder; expected one with {found.layout}")
    missing = [pattern for pattern in found.layout.split() if next(folder.glob(pattern), None) is None]
    if missing:
        raise FetchError(f"{folder.name} is not the layout of {found.name}: nothing matches {', '.join(missing)}")


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
        _bring(found, folder)
    verify(found, folder)
    report(f"{found.name} is complete in {folder}" + (f"; {found.how}" if found.how else ""))


def _bring(found: PublicSet, folder: Path) -> None:
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
