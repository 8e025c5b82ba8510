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


def files_in(folder: Path) -> list[Path]:
    """All files below a folder, sorted; hidden files and folders and those that macOS adds are left out."""
    return sorted(f for f in folder.rglob("*") if f.is_file() and not _hidden(f.relative_to(folder).parts))


def listed(names: Iterable[str]) -> str:
    """The first three names in quotation marks, and how many there are besides."""
    names = list(names)
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(f"'{name}'" for name in names[:3]) + rest


def _hidden(parts: tuple[str, ...]) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)
