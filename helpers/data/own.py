"""Folders of pictures, the reader's own or a public set, with classes by folder or CSV, and masks by their names.

What is a mask of which image: `readers.layout`. What its values mean: `readers.masks`. What is suspicious: `checks`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.data import checks
from helpers.data.image_set import UNLABELLED, ImageSet
from helpers.data.readers.layout import divided, matched, plain, some
from helpers.data.readers.masks import is_noisy, legend, read_labels, read_mask
from helpers.data.readers.pictures import SUFFIXES, as_image, bits_used, numbered, page_count, pixels_of
from helpers.data.readers.table import from_csv
from helpers.data.readers.volumes import span
from helpers.data.resample import FILL, LETTERBOXED, letterbox, stack

CLASSES = {"normal": 0, "negative": 0, "abnormal": 1, "positive": 1}
_NOT_NORMAL = re.compile(r"(?:not|non)[\s_-]?normal")
_STUDY = re.compile(r"study\d+_(negative|positive)")  # of MURA
_PATIENT = re.compile(r"patient[\s_-]*(\d+)", re.IGNORECASE)


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


@dataclass(frozen=True)
class Picture:
    """An image (C, H, W), its maps (H, W) by kind, the largest stored value, and the stored values of its mask."""

    image: np.ndarray
    maps: dict[str, np.ndarray]
    dtype: np.dtype
    largest: float
    values: list


def from_folder(
    data_dir: str | Path,
    *,
    size: int | None = None,
    csv=None,
    classes=(),
    mask_names=(),
    values: dict | None = None,
    colour=False,
    scaled=True,
) -> ImageSet:
    """Pictures of a folder (or of `images/` in it) as float32 in 0…1, with the labels, patients and masks there are.

    classes: the names of the folders that are classes, one on each path; by default normal (0) and abnormal (1), or
    MURA's `…/patient00001/study1_positive/image1.png`; without any of them there are no labels. csv: a file in the
    folder with the columns file and patient, perhaps label and scanner; only what it names is read. Patients, of the
    CSV or of names that hold `patient` and a number, become running numbers. The pages of a TIFF are slices of a
    volume, and of one patient.

    mask_names: what 0, 1, … are; without them all that is not 0 is a lesion. values: {stored grey, (r, g, b) or
    "#rrggbb": class}, where masks hold something else. Masks are found as `readers.layout` says, and read as
    `readers.masks` says. size: pad to a square and resize. colour: three channels, not their mean. scaled: False keeps
    8 and 16 bits. Of 16 bits those that are used, 8, 10, 12 or 14, make the range; floats outside 0…1 keep their values
    and value_range is their 0.5th to 99.5th percentile. `steps` say what was understood.

    Warns, with names of files, of masks that are missing, belong to no image, are blurred or look inverted, of images
    that look the same, that have no patient where others have one, and of classes too small for a split. Raises
    ValueError for a folder without images, an image without a class where others have one, an unreadable file, images
    of several sizes where `size` is not given, a mask that does not fit, and more than the memory holds.
    """
    found = find(data_dir, csv=csv, classes=classes)
    read, prints = [], []
    for picture in pictures(found, mask_names, legend(values, tuple(mask_names)), colour=colour, scaled=scaled):
        prints.append(checks.fingerprint(picture.image))
        read.append(picture if size is None else _letterboxed(picture, size))
        checks.fits_memory(found.root, read[-1].image.nbytes, len(found.files), len(read))
    images, value_range, steps = _in_range(found, read, scaled)
    maps = {kind: stack(found.root.name, [p.maps[kind] for p in read], None) for kind in found.maps}
    classified = {"masks", "scribbles"} & set(maps)
    data = ImageSet(
        name="own-folder",
        modality="unknown",
        images=images,
        value_range=value_range,
        **maps,
        **found.known,
        mask_names=(tuple(mask_names) or ("background", "lesion")) if classified else (),
        licence="the reader's own",
        steps=(*steps, *_understood(found, read, mask_names, values), *(LETTERBOXED.format(size),) * bool(size)),
    )
    for sentence in checks.suspicions(data, found.files, found.root, prints, [p.values for p in read]):
        warnings.warn(sentence, stacklevel=2)
    return data


def find(data_dir: str | Path, *, csv=None, classes=()) -> Found:
    """The images of a folder and what belongs to each, by names alone; raises ValueError as `from_folder` does."""
    root = Path(data_dir)
    if not root.is_dir():
        raise ValueError(f"there is no folder '{root}'; expected one with pictures")
    base = root / "images" if (root / "images").is_dir() else root
    everything, others = divided(root, base, classes)
    if not everything:
        raise ValueError(f"'{root.name}' holds no images; expected files ending in {', '.join(SUFFIXES)}")
    if csv is None:
        files, known = everything, _of_names(root, base, everything, tuple(classes))
    else:
        files, known = from_csv(root / csv, base, everything, tuple(classes))
    maps = {kind: matched(root, files, everything, kind, found) for kind, found in others.items()}
    return _of_pages(Found(root, files, maps, known, [None] * len(files)))


def _of_pages(found: Found) -> Found:
    """Each page of a stack as an image: its slices, which stay together, as do the images of a patient."""
    counts = [page_count(f) if f.suffix.lower() in (".tif", ".tiff") else 1 for f in found.files]
    if max(counts) == 1:
        return found
    of = np.repeat(np.arange(len(counts)), counts)
    slices = np.concatenate([np.arange(count) for count in counts])
    known = {k: v[of] if isinstance(v, np.ndarray) else v for k, v in found.known.items()}
    known["patients"] = of if known["patients"] is None else known["patients"]
    return Found(
        found.root,
        [found.files[i] for i in of],
        {kind: [files[i] for i in of] for kind, files in found.maps.items()},
        known | dict(volumes=of, slices=slices),
        [int(page) if counts[i] > 1 else None for i, page in zip(of, slices, strict=True)],
    )


def pictures(found: Found, names=(), values: dict | None = None, *, colour=False, scaled=True) -> Iterator[Picture]:
    """The images and their maps one by one, at their own size; `values` as `legend` gives them."""
    for i, file in enumerate(found.files):
        page = found.pages[i]
        pixels = pixels_of(file, page)
        image, maps, present = as_image(pixels, colour=colour, scaled=scaled), {}, []
        for kind, files in found.maps.items():
            maps[kind], stored = _merged(kind, files[i], file, page, image.shape[1:], tuple(names), values)
            present = stored if kind == "masks" else present
        yield Picture(image, maps, pixels.dtype, float(pixels.max()), present)


def _merged(kind: str, files: list[Path], image: Path, page, shape, names, values) -> tuple[np.ndarray, list]:
    """The maps of one kind of an image as one, empty where there is none, and their stored values."""
    if kind == "instances" and len(files) > 1:
        raise ValueError(f"'{files[0]}' and '{files[1]}' are instances of one image; expected one file")
    whole, present = np.full(shape, FILL[kind], np.int32 if kind == "instances" else np.uint8), set()
    for file in files:
        array, stored = _read_map(kind, file, page, names, values)
        if array.shape != shape:
            raise ValueError(
                f"{kind.rstrip('s')} '{file}' has shape {array.shape}; expected that of '{image.name}', {shape}"
            )
        drawn = array != FILL[kind]
        if (clash := drawn & (whole != FILL[kind]) & (whole != array)).any():
            row, column = np.argwhere(clash)[0].tolist()
            raise ValueError(f"'{file}' and another of '{image.name}' say two classes at row {row}, column {column}")
        whole[drawn] = array[drawn]
        present |= set(stored)
    return whole, sorted(present)


def _read_map(kind: str, file: Path, page, names, values) -> tuple[np.ndarray, list]:
    if kind == "masks":
        return read_mask(file, names, values, page=page)
    known = values if values is not None or not names else {i: i for i in range(len(names))}
    if kind == "instances" or known is None:
        return read_labels(file, page=page), []
    if not any(isinstance(key, str) for key in known):
        known = {UNLABELLED: UNLABELLED} | known
    return read_labels(file, known, page=page), []


def _letterboxed(picture: Picture, size: int) -> Picture:
    black = min(0.0, float(picture.image.min()))  # below 0 in units of their own
    image = letterbox(picture.image, size, fill=black)
    maps = {k: letterbox(m, size, fill=FILL[k], nearest=True) for k, m in picture.maps.items()}
    return Picture(image, maps, picture.dtype, picture.largest, picture.values)


def _in_range(found: Found, read: list[Picture], scaled: bool) -> tuple[np.ndarray, tuple[float, float], list[str]]:
    """All images, the values that become 0 and 1, and what was done to them."""
    images = stack(found.root.name, [p.image for p in read], None)
    floats, sixteen = (np.array([p.dtype == dtype for p in read]) for dtype in (np.float32, np.uint16))
    steps = ["scaled to 0…1"] * scaled
    if floats.any() and (images[floats].min() < 0 or images[floats].max() > 1):
        if not floats.all():
            one, other = found.files[floats.argmax()], found.files[floats.argmin()]
            raise ValueError(f"'{one}' holds floats outside 0…1, '{other}' integers; expected one kind")
        return images, span(images, (0.5, 99.5)), ["floats as stored; the range is their 0.5th to 99.5th percentile"]
    if not sixteen.any():
        return images, (0.0, 1.0) if images.dtype.kind == "f" else (0, int(np.iinfo(images.dtype).max)), steps
    bits = bits_used(max(p.largest for p in read if p.dtype == np.uint16))
    steps += [f"of 16 bits {bits} are used"] * (bits < 16)
    if scaled and bits < 16:
        images[sixteen] *= np.float32(65535 / (2**bits - 1))
    return images, (0.0, 1.0) if scaled else (0, 2**bits - 1), steps


def _understood(found: Found, read: list[Picture], names, values) -> list[str]:
    """What the stored values of masks were taken for, and how many masks were merged or are missing."""
    if "masks" not in found.maps:
        return []
    present = sorted(set().union(*(p.values for p in read)))
    shown = ", ".join(map(str, present[:8])) + ", …" * (len(present) > 8)
    if values is not None or len(names) > 2:
        steps = [f"masks hold the classes {', '.join(names[v] if names else str(v) for v in present)}"]
    elif any(is_noisy(sorted(p.values)) for p in read if p.values):
        steps = [f"masks hold {shown}: what is above half of the largest is {names[1] if names else 'lesion'}"]
    else:
        steps = [f"masks hold {shown}: all but 0 is {names[1] if names else 'lesion'}"]
    several, none = (sum(map(test, found.maps["masks"])) for test in (lambda f: len(f) > 1, lambda f: not f))
    steps += [f"several masks of an image merged, in {several}"] * bool(several)
    return steps + [f"no mask file for {none} of {len(read)}: taken as empty"] * bool(none)


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
    numbers = [_PATIENT.search(str(file.relative_to(root))) for file in files]
    lost = [file for file, number in zip(files, numbers, strict=True) if not number]
    if lost and any(numbers):
        warnings.warn(
            f"no patient in the name of {some(lost, root)}, though others have one: each is taken as one of its own; "
            "expected 'patient' and a number in all",
            stacklevel=3,
        )
    persons = [int(number[1]) if number else -1 - i for i, number in enumerate(numbers)]
    return dict(
        labels=np.array([min(found) for found in labels]) if labelled else None,
        patients=numbered(persons) if any(numbers) else None,
        class_names=(classes or ("normal", "abnormal")) if labelled else (),
    )


def _labels(folders: tuple[str, ...], number_of: dict[str, int], own: bool) -> set[int]:
    """The classes that whole names of folders say, or a study of MURA."""
    names = [plain(folder) for folder in folders]
    studies = [] if own else [match[1] for match in map(_STUDY.fullmatch, names) if match]
    studies += [] if own else ["abnormal" for name in names if _NOT_NORMAL.fullmatch(name)]
    return {number_of[name] for name in (*names, *studies) if name in number_of}
