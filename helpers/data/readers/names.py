"""What a folder of pictures says by its names and its CSV, before a pixel is read."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np

from helpers.data.readers.files import listed, some, visible
from helpers.data.readers.layout import divided, matched, plain
from helpers.data.readers.pictures import SUFFIXES, numbered, page_count
from helpers.data.readers.table import from_csv

CLASSES = {"normal": 0, "negative": 0, "abnormal": 1, "positive": 1}
_NOT_NORMAL = re.compile(r"(?:not|non)[\s_-]?normal")
_STUDY = re.compile(r"study\d+_(negative|positive)")  # of MURA
# The last on a path, and not the end of a word: inpatient2024/patient_3.png is of patient 3.
_PATIENT = re.compile(r".*(?<![^\W\d_])patient[\s_-]*(\d+)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Found:
    """What a folder holds, before a pixel is read: images, the masks of each by kind, and what is known of them.

    pages: which page of its file an image is; None where the file has one.
    """

    root: Path
    files: list[Path]
    maps: dict[str, list[list[Path]]]
    known: dict
    pages: list[int | None]

    def part(self, index) -> Found:
        """The images of an index array, with what belongs to them."""
        return Found(
            self.root,
            [self.files[i] for i in index],
            {kind: [files[i] for i in index] for kind, files in self.maps.items()},
            {k: v[index] if isinstance(v, np.ndarray) else v for k, v in self.known.items()},
            [self.pages[i] for i in index],
        )


def find(data_dir: str | Path, *, csv=None, classes=()) -> Found:
    """The images of a folder and what belongs to each, by names alone; raises ValueError as `from_folder` does.

    classes: names, or one text with commas between them. Warns of a class without images, and of pictures that lie
    beside a folder images.
    """
    root, classes = at_home(data_dir), given_names("classes", classes)
    if not root.is_dir():
        raise ValueError(f"there is no folder '{root}'; expected one with pictures")
    base = root / "images" if (root / "images").is_dir() else root
    everything, others = divided(root, base, classes)
    if not everything:
        raise ValueError(f"'{root.name}' holds no images; expected files ending in {', '.join(SUFFIXES)}")
    if csv is None:
        files, known = everything, _of_names(root, base, everything, classes)
        _beside(root, base, {*everything, *chain(*others.values())})
    else:
        files, known = from_csv(root / csv, base, everything, classes)
    if empty := [name for i, name in enumerate(classes) if i not in known["labels"]]:
        warnings.warn(f"no image of '{root.name}' is of the class {listed(empty)}, which classes names", stacklevel=3)
    maps = {kind: matched(root, files, everything, kind, found) for kind, found in others.items()}
    return _of_pages(Found(root, files, maps, known, [None] * len(files)))


def at_home(path: str | Path) -> Path:
    """A path in which ~ stands for the home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # ~ and the name of nobody: a path that is not there
        return Path(path)


def given_names(option: str, given) -> tuple[str, ...]:
    """Names as a tuple, of one text with commas or of several; ValueError for one that is there twice."""
    names = tuple(filter(None, (name.strip() for name in (given.split(",") if isinstance(given, str) else given))))
    forms = [plain(name) for name in names]
    if twice := [name for name, form in zip(names, forms, strict=True) if forms.count(form) > 1]:
        raise ValueError(f"{option} names '{twice[-1]}' twice ({', '.join(names)}); expected it once")
    return names


def folders_of(found: Found) -> dict[str, int]:
    """How many images lie in each of the topmost folders, {} if one lies in none: names that may be classes."""
    base = found.root / "images" if (found.root / "images").is_dir() else found.root
    parts = [file.relative_to(base).parts for file in found.files]
    return {} if any(len(part) < 2 for part in parts) else dict(Counter(part[0] for part in parts))


def _beside(root: Path, base: Path, used: set[Path]) -> None:
    """Warns of pictures that are not read as there is a folder images."""
    left = [file for file in visible(root) if file.suffix.lower() in SUFFIXES and file not in used]
    if base != root and left:
        warnings.warn(f"left out: {some(left, root)}, which lie beside the folder '{base.name}'", stacklevel=4)


def _of_pages(found: Found) -> Found:
    """Each page of a stack as an image: its slices, which stay together, as do the images of a patient."""
    counts = [page_count(f) if f.suffix.lower() in (".tif", ".tiff") else 1 for f in found.files]
    if max(counts) == 1:
        return found
    of = np.repeat(np.arange(len(counts)), counts)
    slices = np.concatenate([np.arange(count) for count in counts])
    known = found.part(of).known
    known["patients"] = of if known["patients"] is None else known["patients"]
    pages = [int(page) if counts[i] > 1 else None for i, page in zip(of, slices, strict=True)]
    return replace(found.part(of), known=known | dict(volumes=of, slices=slices), pages=pages)


def _of_names(root: Path, base: Path, files: list[Path], classes: tuple[str, ...]) -> dict:
    """Labels and patients, as far as the names of folders and files say them."""
    number_of = {plain(name): i for i, name in enumerate(classes)} or CLASSES
    labels = [_labels(file.relative_to(base).parts[:-1], number_of, bool(classes)) for file in files]
    labelled = any(labels) or bool(classes)
    for file, found in zip(files, labels, strict=True):
        if labelled and len(found) != 1:
            raise ValueError(
                f"'{file.relative_to(base).as_posix()}' has {'two classes' if found else 'no class'}; "
                f"expected one folder on its path to be named {' or '.join(classes or CLASSES)}"
                + "; name others by classes="
                * (not classes)
            )
    patients = patients_in(root, files)
    return dict(
        labels=np.array([min(found) for found in labels]) if labelled else None,
        patients=patients,
        class_names=(classes or ("normal", "abnormal")) if labelled else (),
    )


def patients_in(root: Path, files: list[Path]) -> np.ndarray | None:
    """Running numbers of the patients that paths name, None if none does; warns of files that name none, or all one."""
    numbers = [_PATIENT.match(str(file.relative_to(root))) for file in files]
    lost = [file for file, number in zip(files, numbers, strict=True) if not number]
    if lost and any(numbers):
        warnings.warn(
            f"no patient in the name of {some(lost, root)}, though others have one: each is taken as one of its own; "
            "expected 'patient' and a number in all",
            stacklevel=4,
        )
    persons = [int(number[1]) if number else -1 - i for i, number in enumerate(numbers)]
    if len(files) > 1 == len(set(persons)):
        warnings.warn(
            f"the names of all {len(files)} files of '{root.name}' say one and the same patient: a split goes by "
            "image; expected 'patient' and another number for each",
            stacklevel=4,
        )
    return numbered(persons) if any(numbers) else None


def _labels(folders: tuple[str, ...], number_of: dict[str, int], own: bool) -> set[int]:
    """The classes that whole names of folders say, or a study of MURA."""
    names = [plain(folder.strip()) for folder in folders]
    studies = [] if own else [match[1] for match in map(_STUDY.fullmatch, names) if match]
    studies += [] if own else ["abnormal" for name in names if _NOT_NORMAL.fullmatch(name)]
    return {number_of[name] for name in (*names, *studies) if name in number_of}
