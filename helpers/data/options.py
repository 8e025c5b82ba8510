"""What may be said to a reader or a generator of images, checked before anything is read or made."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from numbers import Integral
from pathlib import Path

from helpers.data.own import from_folder
from helpers.data.readers.dicom import from_dicom
from helpers.data.readers.names import at_home
from helpers.data.readers.volumes import from_analyze, from_metaimage, from_nifti

KINDS = {  # of a reader's own files
    "pictures": (from_folder,),
    "volumes": (from_nifti, from_metaimage, from_analyze),
    "DICOM files": (from_dicom,),
}


def check_options(where: str, maker: Callable, options: dict) -> None:
    """Raises ValueError for an option that a reader or generator does not take, with the kinds of files that do."""
    for name, value in options.items():
        if name in _taken(maker):
            continue
        kinds = [kind for kind, (reader, *_) in KINDS.items() if name in _taken(reader)]
        if kinds and any(maker in readers for readers in KINDS.values()):
            raise ValueError(f"{name} is {value!r}, but '{where}' holds no {' or '.join(kinds)}; expected none")
        known = ", ".join(_taken(maker)) or "none"
        raise ValueError(f"{name} is {value!r}, but '{where}' takes no such option; expected of these: {known}")


def _taken(maker: Callable) -> list[str]:
    parameters = inspect.signature(maker).parameters.values()
    if any(one.kind is one.VAR_KEYWORD for one in parameters):  # of volumes in a format with a `load` of its own
        return [name for name in _taken(from_nifti) if name != "load"]
    return [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]


def folder_of(source: str, data_dir: str | Path) -> Path | None:
    """The folder to read, None if none is given; raises ValueError where it is missing, or of no use to a source."""
    if source == "folder" and not data_dir:
        raise ValueError("source is 'folder' and data_dir ''; expected the path of your folder")
    if source in ("phantom", "sample") and data_dir:
        raise ValueError(f"source is {source!r} and data_dir {data_dir!r}; a folder is of source 'folder' or 'public'")
    return at_home(data_dir) if data_dir else None


def check_whole(least: int, **numbers) -> None:
    """Raises ValueError for a number that is not whole, or below `least`; None is none."""
    for name, value in numbers.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, Integral) or value < least):
            raise ValueError(f"{name} is {value!r}; expected a whole number, {least} or more")
