"""Files of a folder, and what libraries raise, warn of or log at damaged ones as one sentence."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

LOGGERS = ("pydicom", "nibabel.global")


class Unfit(ValueError):
    """What does not fit, in words of our own, which repeat nothing that names a person."""


@contextmanager
def whole(file: Path, kind: str, *, private: bool = False) -> Iterator[None]:
    """Whatever a library raises at a damaged file, as a ValueError with the path and the reason in one sentence.

    private: the file may name a patient, and what a library says may repeat it: only `Unfit` is passed on.
    """
    try:
        yield
    except ImportError:
        raise  # it says what to install
    except Exception as error:  # what libraries raise at damaged bytes has no type in common
        named = private and not isinstance(error, Unfit)
        text = f"a part of it is damaged ({type(error).__name__})" if named else str(error).strip()
        lines = text.splitlines() or [type(error).__name__]
        cause = None if named else error  # a traceback would print it
        raise ValueError(f"'{file}' cannot be read as {kind}: {' '.join(lines[-1].split())}") from cause


@contextmanager
def hushed() -> Iterator[list[str]]:
    """The texts of what libraries warn of and log meanwhile; they reach no screen, as they may name a patient."""
    heard: list[str] = []

    def kept(record: logging.LogRecord) -> bool:
        heard.append(record.getMessage())
        return False

    for name in LOGGERS:
        logging.getLogger(name).addFilter(kept)
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            yield heard
        heard += [str(one.message) for one in told if issubclass(one.category, (UserWarning, RuntimeWarning))]
    finally:
        for name in LOGGERS:
            logging.getLogger(name).removeFilter(kept)


def visible(folder: Path) -> list[Path]:
    """The files of a folder, sorted, without those that are hidden or lie in hidden folders.

    Links to folders are followed, each folder once; what is no regular file, as a pipe, is not there, but a dead link
    is. Raises ValueError for a folder that cannot be opened.
    """
    found, root = [], folder.resolve()
    seen = {root}
    for place, folders, names in os.walk(folder, followlinks=True, onerror=_refuse) if folder.is_dir() else ():
        shown = [Path(place, name) for name in sorted(folders) if _is_shown(name)]
        folders[:] = [path.name for path in shown if _is_new(path, root, seen)]
        files = (Path(place, name) for name in names if _is_shown(name))
        found += [file for file in files if file.is_file() or file.is_symlink() and not file.exists()]
    return sorted(found)


def _is_new(path: Path, root: Path, seen: set[Path]) -> bool:
    """Whether a folder is to be walked through: not if it was, or comes by itself, or holds the root. It is noted."""
    real = path.resolve()
    itself = real.is_relative_to(root) and all(map(_is_shown, real.relative_to(root).parts))
    new = real not in seen and not root.is_relative_to(real) and not (path.is_symlink() and itself)
    seen.update({real} if new else ())
    return new


def _is_shown(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def _refuse(error: OSError) -> None:
    raise ValueError(f"'{error.filename}' cannot be opened: {error.strerror}") from error


def listed(names: Iterable[str]) -> str:
    """The first three names in quotation marks, and how many there are besides."""
    names = list(names)
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(f"'{name}'" for name in names[:3]) + rest


def some(files: Iterable[Path], root: Path) -> str:
    """At most three files in words, as paths in `root`."""
    return listed(file.relative_to(root).as_posix() for file in files)
