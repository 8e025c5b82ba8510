"""What each chapter takes of a reader's folder, and the sentence for a folder that it does not take."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from helpers.data.options import check_whole
from helpers.data.readers.layout import divided
from helpers.data.readers.names import at_home, find, folders_of
from helpers.data.sources import VOLUMES, kinds_of

KINDS = {
    "classes": "pictures in two classes (folders named normal and abnormal, or as `classes` says)",
    "more classes": "pictures in three or more classes",
    "masks": "pictures with masks",
    "series": "one DICOM series",
    "volumes": "volumes with masks",
    "pictures": "pictures alone",
    "volume": "volumes without masks",
}
# Chapter: what its parameter `data` may say, and which kinds of folders it takes.
TAKES = {
    "00_medical_images": (("sample", "folder"), tuple(KINDS)),
    "01_explanation": (("sample", "phantom", "folder"), ("classes",)),
    "02_weak_supervision": (("phantom", "acdc"), ()),
    "03_transfer_learning": (("phantom", "public", "sample"), ()),
    "04_active_learning": (("phantom", "public", "sample", "folder"), ("classes", "more classes")),
    "05_attention": (("phantom", "sample", "public", "folder"), ("classes",)),
    "06_shallow_methods": (("phantom", "public", "sample", "folder"), ("classes", "more classes")),
    "07_domain_knowledge": (("phantom", "public", "folder"), ("classes",)),
    "08_label_budget": (("phantom", "public", "folder"), ("classes", "more classes", "masks", "volumes")),
}
# Images, or patients where they are known, of each class: some for each part of a split.
LEAST = dict.fromkeys(TAKES, 3) | {"00_medical_images": 0, "07_domain_knowledge": 5}


def held(folder: Path, classes: str = "") -> tuple[str, ...]:
    """What a folder holds, by names alone: of `KINDS`. Raises ValueError as the readers do."""
    kinds = kinds_of(folder)
    if classes and "pictures" not in kinds:
        raise ValueError(f"classes is {classes!r}, but '{folder.name}' holds no pictures; expected none")
    if "DICOM" in kinds:
        return ("series",)
    if "volumes" in kinds:
        return ("volumes" if divided(folder, folder, suffixes=tuple(VOLUMES))[1].get("masks") else "volume",)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are told where the folder is read
        found = find(folder, classes=classes)
    count = 0 if found.known["labels"] is None else len(set(found.known["labels"]))
    kinds = ("more classes" if count > 2 else "classes",) * (count > 1)
    return kinds + ("masks",) * ("masks" in found.maps) or ("pictures",)


def check(chapter: str, params: dict) -> None:
    """Refuses what a chapter does not take, before anything is read or trained.

    Raises ValueError for an unknown value of `data`, a `data_dir` without a use or that is no folder, a structure that
    is no number, and a folder of another kind than the chapter takes, with the chapters that take it. Notebooks from
    elsewhere are not checked, but for the folder.
    """
    sources, kinds = TAKES.get(chapter, (None, ()))
    data, folder = params.get("data"), params.get("data_dir", "")
    if folder and not at_home(folder).is_dir():
        raise ValueError(f"data_dir: got {folder!r}, expected the path of an existing folder")
    if sources is None or data is None:
        return
    if data not in sources and data != "folder":
        raise ValueError(f"data: got {data!r}, expected one of {', '.join(sources)}")
    if folder and data in ("phantom", "sample"):
        reads = " or ".join(source for source in sources if source not in ("phantom", "sample"))
        raise ValueError(f"data is {data!r}, which reads no folder, but data_dir is {folder!r}; expected data {reads}")
    check_whole(0, structure=params.get("structure"))
    if data != "folder":
        return
    if not folder:
        raise ValueError("data is 'folder' and data_dir is '', expected the path of your folder")
    if not kinds:
        others = [name[:2] for name, (_, taken) in TAKES.items() if taken]
        raise ValueError(f"chapter {chapter[:2]} takes no folder yet; chapters {', '.join(others)} do")
    _check_kind(chapter, at_home(folder), params.get("classes", ""), kinds)


def _check_kind(chapter: str, folder: Path, classes: str, kinds: tuple[str, ...]) -> None:
    here = held(folder, classes)
    if set(here) & set(kinds):
        if {"classes", "more classes"} & set(here):
            _enough(chapter, folder, classes)
        return
    if here == ("pictures",) and "classes" in kinds and len(folders := _folders(folder)) > 1:
        raise ValueError(
            f"chapter {chapter[:2]} takes pictures in classes; if the folders {', '.join(folders)} of '{folder.name}' "
            f'are classes, say -p classes "{", ".join(folders)}", the one to detect last'
        )
    others = [name[:2] for name in takers(here)]
    chapters = (
        f"chapters {', '.join(others[:-1])} and {others[-1]} take" if others[1:] else f"chapter {others[0]} takes"
    )
    needs = " or ".join(KINDS[kind] for kind in kinds)
    raise ValueError(
        f"chapter {chapter[:2]} takes {needs}; '{folder.name}' holds "
        f"{' and '.join(KINDS[kind] for kind in here)}, which {chapters}"
    )


def takers(here: tuple[str, ...]) -> list[str]:
    """The chapters that take a folder of what `held` gives."""
    return [name for name, (_, taken) in TAKES.items() if set(here) & set(taken)]


def _folders(folder: Path) -> dict[str, int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return folders_of(find(folder))


def _enough(chapter: str, folder: Path, classes: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = find(folder, classes=classes).known
    units, what = known["patients"], "patient"
    if units is None or len(np.unique(units)) == 1:  # then a split goes by image
        units, what = np.arange(len(known["labels"])), "image"
    for label, name in enumerate(known["class_names"]):
        if (count := len(np.unique(units[known["labels"] == label]))) < LEAST[chapter]:
            raise ValueError(
                f"class '{name}' of '{folder.name}' has {count} {what}{'s' * (count != 1)}; chapter {chapter[:2]} "
                f"needs {LEAST[chapter]} of each class at least"
            )
