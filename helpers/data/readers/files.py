"""Files of a folder, and what libraries raise at damaged ones as one sentence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(file: Path, kind: str) -> Iterator[None]:
    """Whatever a library raises at a damaged file, as a ValueError with the path and the reason in one sentence."""
    try:
        yield
    except ImportError:
        raise  # it says what to install
    except Exception as error:  # what libraries raise at damaged bytes has no type in common
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"'{file}' cannot be read as {kind}: {' '.join(lines[-1].split())}") from error


def visible(folder: Path) -> list[Path]:
    """The files of a folder, sorted, without those that are hidden or lie in hidden folders."""
    found = ((f, f.relative_to(folder).parts) for f in folder.rglob("*") if not f.is_dir())
    return sorted(f for f, parts in found if not any(p.startswith(".") or p == "__MACOSX" for p in parts))


def listed(names: Iterable[str]) -> str:
    """The first three names in quotation marks, and how many there are besides."""
    names = list(names)
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(f"'{name}'" for name in names[:3]) + rest


def some(files: Iterable[Path], root: Path) -> str:
    """At most three files in words, as paths in `root`."""
    return listed(file.relative_to(root).as_posix() for file in files)
