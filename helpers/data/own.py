"""Folders of image files, the reader's own or a public set, with classes by folder or CSV.

`masks/`, `instances/` and `scribbles/`, if there are any, hold the same relative paths with suffix .png or .tif; an
image without such a file has none of it. Scribbles are 255 where nothing was drawn.
"""

from __future__ import annotations

import csv as csv_files
import re
from pathlib import Path

import numpy as np

from helpers.data.image_set import UNLABELLED, ImageSet
from helpers.data.readers.pictures import SUFFIXES, numbered, read_image, read_labels
from helpers.data.resample import FILL, LETTERBOXED, stack

CLASSES = {"normal": 0, "negative": 0, "abnormal": 1, "positive": 1}


def from_folder(
    data_dir: str | Path, *, size: int | None = None, csv=None, classes=(), mask_names=(), colour=False, scaled=True
) -> ImageSet:
    """Images of a folder (or of `images/` in it) as float32 in 0…1, with the labels, patients and masks there are.

    classes: the names of the folders that are classes, one on each path; by default normal (0) and abnormal (1), or
    MURA's `…/patient00001/study1_positive/image1.png`. csv: a file in the folder with the columns file and patient,
    perhaps label and scanner; only what it names is read. Patients, of the CSV or of names that hold `patient` and a
    number, become running numbers. mask_names: what 0, 1, … are; without them all that is not 0 is a lesion. size:
    pad to a square and resize. colour: three channels, not their mean. scaled: False keeps 8 and 16 bits.

    Raises ValueError for a folder without images, an image without a class, an unreadable file, images of several
    sizes where `size` is not given, a mask that does not fit, and a CSV without patients or with a missing file.
    """
    root = Path(data_dir)
    base = root / "images" if (root / "images").is_dir() else root
    maps_given = any((root / kind).is_dir() for kind in FILL)
    files, known = (
        _from_folders(root, base, classes, maps_given) if csv is None else _from_csv(root / csv, base, classes)
    )
    pixels = [read_image(f, colour=colour, scaled=scaled) for f in files]
    maps = {kind: _maps(root / kind, base, files, pixels, mask_names) for kind in FILL}
    classified = maps["masks"] is not None or maps["scribbles"] is not None
    images = stack(root.name, pixels, size)
    return ImageSet(
        name="own-folder",
        modality="unknown",
        images=images,
        value_range=(0.0, 1.0) if images.dtype.kind == "f" else (0, int(np.iinfo(images.dtype).max)),
        **{kind: None if found is None else stack(root.name, found, size, kind=kind) for kind, found in maps.items()},
        **known,
        mask_names=(mask_names or ("background", "lesion")) if classified else (),
        licence="the reader's own",
        steps=("scaled to 0…1",) * scaled + (LETTERBOXED.format(size),) * bool(size),
    )


def _maps(folder: Path, base: Path, files, pixels, names: tuple[str, ...]) -> list[np.ndarray] | None:
    """The masks, instances or scribbles of the images, empty where there is no file; None without their folder."""
    if not folder.is_dir():
        return None
    kind, maps, found = folder.name, [], 0
    values = {i: i for i in range(len(names))} | ({UNLABELLED: UNLABELLED} if kind == "scribbles" else {})
    for file, image in zip(files, pixels, strict=True):
        path = folder / file.relative_to(base)
        source = next((f for f in map(path.with_suffix, (".png", ".tif", ".tiff")) if f.exists()), None)
        if source is None:
            maps.append(np.full(image.shape[1:], FILL[kind], np.uint8))
            continue
        found += 1
        array = read_labels(source, values if names and kind != "instances" else None)
        if array.shape != image.shape[1:]:
            shape = f"{array.shape}; expected that of the image, {image.shape[1:]}"
            raise ValueError(f"{kind.rstrip('s')} of '{file.name}' has shape {shape}")
        maps.append((array > 0).astype(np.uint8) if kind == "masks" and not names else array)
    if not found:
        raise ValueError(f"no file in '{kind}' has the name of an image; expected '{kind}/{path.relative_to(folder)}'")
    return maps


def _from_folders(root: Path, base: Path, classes: tuple[str, ...], unlabelled: bool) -> tuple[list[Path], dict]:
    """All images, and what the names of their folders say; labels may be missing from all where `unlabelled`."""
    files = sorted(f for f in base.rglob("[!.]*") if f.suffix.lower() in SUFFIXES)  # "._…" are no images
    files = [f for f in files if not set(FILL) & set(f.relative_to(base).parts[:-1])]
    if not files:
        raise ValueError(f"'{root.name}' holds no images; expected files ending in {', '.join(SUFFIXES)}")
    number_of = {name.lower(): i for i, name in enumerate(classes)} or CLASSES
    found = []
    for file in files:
        folders = [part.lower() for part in file.relative_to(base).parts[:-1]]
        words = folders if classes else [word for part in folders for word in re.split(r"[_\W]+", part)]
        found.append({number_of[word] for word in words if word in number_of})
    labelled = any(found) or not unlabelled
    for file, labels in zip(files, found, strict=True):
        if labelled and len(labels) != 1:
            raise ValueError(
                f"'{file.relative_to(base)}' has no class; expected one folder on its path to be named "
                f"{' or '.join(classes or CLASSES)}"
            )
    numbers = [re.search(r"patient[_-]?(\d+)", str(f.relative_to(root)), re.IGNORECASE) for f in files]
    return files, dict(
        labels=np.array([min(labels) for labels in found]) if labelled else None,
        patients=numbered([int(n[1]) for n in numbers]) if all(numbers) else None,
        class_names=(classes or ("normal", "abnormal")) if labelled else (),
    )


def _from_csv(table: Path, base: Path, classes: tuple[str, ...]) -> tuple[list[Path], dict]:
    """The images a CSV names, in its order, and what it says of them."""
    if not table.is_file():
        raise ValueError(f"there is no CSV '{table.name}'; expected a file with the columns file and patient")
    with table.open(newline="", encoding="utf-8-sig") as lines:
        rows = list(csv_files.DictReader(lines))
    columns = list(rows[0]) if rows else []
    for column in ("file", "patient"):
        if column not in columns:
            raise ValueError(
                f"'{table.name}' has the columns {', '.join(map(str, columns)) or '(none)'}, but not '{column}'"
                + ("; where patients are unknown, add the column and leave it empty" * (column == "patient"))
            )
    cells = {
        name: [(row[name] or "").strip() for row in rows]
        for name in {"file", "patient", "label", "scanner"} & {*columns}
    }
    for name, column in cells.items():
        if any(column) and not all(column):
            raise ValueError(
                f"row {column.index('') + 2} of '{table.name}' has no {name}; expected one in all rows or in none"
            )
    files = [base / name for name in cells["file"]]
    if missing := [name for name, file in zip(cells["file"], files, strict=True) if not file.is_file()]:
        raise ValueError(f"'{table.name}' names '{missing[0]}', which is not in '{base.name}'")
    known = {name: column for name, column in cells.items() if any(column)}
    labels, names = _classes(table, known["label"], classes) if "label" in known else (None, ())
    return files, dict(
        labels=labels,
        patients=numbered(known["patient"]) if "patient" in known else None,
        scanners=np.array(known["scanner"]) if "scanner" in known else None,
        class_names=names,
    )


def _classes(table: Path, column: list[str], classes: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels and class names of a column of integers, or of names (in the order of `classes`, or of the alphabet)."""
    if all(re.fullmatch(r"\d+", cell) for cell in column):
        return np.array(column, int), classes
    names = classes or tuple(sorted(set(column)))
    if unknown := sorted(set(column) - set(names)):
        raise ValueError(f"'{table.name}' holds the label '{unknown[0]}'; expected one of {', '.join(names)}")
    return np.array([names.index(cell) for cell in column]), names
