"""What can be brought: samples inside published packages, and the field's public data sets.

`registry.csv` names every sample, the wheel that holds it, the sha256 of both, the licence and what is known about it;
`public.csv` the public data sets: where each is, what it may be used for, how to get it, whether a folder is right.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from helpers.data.download import FetchError

REGISTRY = Path(__file__).with_name("registry.csv")
PUBLIC = Path(__file__).with_name("public.csv")
EVERYTHING = "samples"


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
