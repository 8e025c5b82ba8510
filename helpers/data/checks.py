"""What is suspicious about a folder of images, in sentences that name files; and images in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil

from helpers.data.image_set import ImageSet
from helpers.data.readers.files import some
from helpers.data.readers.layout import plain
from helpers.data.readers.masks import MANY, Meaning, is_graded, is_noisy
from helpers.data.readers.names import Found
from helpers.data.readers.pictures import range_used
from helpers.data.resample import resize

SAME = 0.95  # correlation of fingerprints: re-encoded, resized or brightened copies have 0.98, other patients 0.6
FEW = 16  # different values: a picture of so few is a drawing
FEWEST = 3  # of a class: one a part of a split
SIDE = 32  # pixels of a fingerprint


def fits_memory(root: Path, bytes_of_one: int, count: int, done: int, kind: str = "images") -> None:
    """Raises ValueError if the free memory does not hold what is still to be read, and a copy of all."""
    need, free = bytes_of_one * (2 * count - done) / 1e9, psutil.virtual_memory().available / 1e9
    if need > free:
        raise ValueError(
            f"the {count} {kind} of '{root.name}' need {need:.1f} GB more memory, {free:.1f} are free; "
            "give a smaller size, or fewer of them"
        )


def levels(array: np.ndarray) -> int:
    """How many different values there are, or some number above `FEW`."""
    part = len(np.unique(array.ravel()[::61]))
    return part if part > FEW else len(np.unique(array))


def fingerprint(image: np.ndarray) -> np.ndarray:
    """Differences of neighbours in a small copy of an image (C, H, W), of length 1; zeros if it has no contrast."""
    small = resize(image.mean(axis=0, dtype=np.float32), (SIDE + 1, SIDE + 1)).astype(float)
    steps = np.concatenate([np.diff(small, axis=1)[:-1], np.diff(small, axis=0)[:, :-1]]).ravel()
    steps -= steps.mean()
    length = np.linalg.norm(steps)
    return (steps / length if length > 1e-4 * max(1e-9, abs(small).max()) else 0 * steps).astype(np.float32)


def alike(prints: list[np.ndarray], patients: np.ndarray | None = None) -> list[tuple[int, int]]:
    """Pairs of images that look the same, though they are not known to be of one patient."""
    prints, found = np.stack(prints), []
    for start in range(0, len(prints), 512):  # rows at a time: all pairs of 10,000 images would fill the memory
        same = prints[start : start + 512] @ prints.T > SAME
        found += [(start + int(i), int(j)) for i, j in np.argwhere(same) if start + i < j]
    return [(i, j) for i, j in found if patients is None or patients[i] != patients[j]]


def suspicions(data: ImageSet, found: Found, read: list, prints: list[np.ndarray], means: Meaning) -> list[str]:
    """Sentences about masks that are blurred, of many values or inverted, images that look the same, small classes.

    read: the `Picture` of each image. prints: their fingerprints. means: what the numbers in masks stand for. Raises
    ValueError for an image that looks like the mask of another.
    """
    _no_drawings(found, read)
    return [
        *_of_masks(data, found, read, means),
        *_of_depths(found, read),
        *_of_copies(data, found, prints),
        *_of_classes(data),
    ]


def _those(found: Found, chosen: list[bool]) -> str:
    return some([file for file, yes in zip(found.files, chosen, strict=True) if yes], found.root)


def _no_drawings(found: Found, read: list) -> None:
    """Refuses an image of few values whose name begins with that of another of many: a mask of unknown name."""
    stems = [plain(file.stem) for file in found.files]
    scans = {stem for stem, one in zip(stems, read, strict=True) if one.levels > FEW}
    beginnings = {len(stem) for stem in scans}
    drawn = [
        1 < one.levels <= FEW and any(stem[:length] in scans for length in beginnings)
        for stem, one in zip(stems, read, strict=True)
    ]
    if any(drawn):
        raise ValueError(
            f"{_those(found, drawn)}: at most {FEW} different values, as a mask has, and the name of another image; "
            "expected NAME_mask beside NAME, or a folder masks"
        )


def _of_depths(found: Found, read: list) -> list[str]:
    """Images of 8 bits among those of 16, or 16 bits of which some files use far fewer than others."""
    bits = [16 if one.dtype == np.uint16 else 8 for one in read]
    if len(set(bits)) > 1:
        few = [one == min(bits) for one in bits]
        return [f"{_those(found, few)} have 8 bits, others 16: they may differ in brightness for that alone"]
    ranges = [range_used(one.smallest, one.largest) for one in read if one.dtype == np.uint16]
    used = [(high - low).bit_length() for low, high in ranges]
    if used and max(used) - min(used) > 3:
        few = [n == min(used) for n in used]
        return [
            f"of the 16 bits {_those(found, few)} use {min(used)}, others {max(used)}: all are read on one range, on "
            "which these are nearly black"
        ]
    return []


def _of_masks(data: ImageSet, found: Found, read: list, means: Meaning) -> list[str]:
    if data.masks is None:
        return []
    blurred = [bool(p.values) and is_noisy(p.values) for p in read]
    graded = [len(data.mask_names) == 2 and not means.structure and is_graded(p.values) for p in read]
    full = [p.sizes[0] == 0 for p in read]
    inverted = [p.corners and p.sizes[0] > 0 for p in read]
    drawn = sum(len(p.sizes) > 1 for p in read)
    told = {
        "masks of {} hold more than two grey values, as JPEG or a resize makes them; taken as two, parted at half of "
        "the largest": blurred,
        f"masks of {{}} hold several grey values, all but 0 taken as {data.mask_names[1]}; if they are classes, give "
        "mask_names and values": graded,
        f"masks of {{}} hold more than {MANY} values, of which {means.structure} is kept: are they blurred?": [
            bool(means.structure) and len(p.values) > MANY for p in read
        ],
        "masks of {} cover the whole image": full,
        "masks of {} hold all four corners: is background marked, not the lesion?": [
            yes and sum(inverted) > drawn / 2 for yes in inverted
        ],
        "EXIF turns {} or its mask, not both: look whether they lie on each other": [p.turned for p in read],
    }
    sentences = [sentence.format(_those(found, chosen)) for sentence, chosen in told.items() if any(chosen)]
    return sentences + [f"nothing is drawn in any of the {len(read)} masks"] * (drawn == 0)


def _of_copies(data: ImageSet, found: Found, prints: list[np.ndarray]) -> list[str]:
    if not (pairs := alike(prints, data.patients)):
        return []
    i, j = pairs[0]
    more = f", and {len(pairs) - 1} more such" if len(pairs) > 1 else ""
    return [
        f"{some([found.files[i], found.files[j]], found.root)} look the same{more}: a split may put one into train and "
        "one into test; remove one, or give both one patient"
    ]


def _of_classes(data: ImageSet) -> list[str]:
    if data.labels is None:
        return []
    units, of = (np.arange(len(data)), "image") if data.patients is None else (data.patients, "patient")
    found = []
    for label in np.unique(data.labels).tolist():
        count = len(np.unique(units[data.labels == label]))
        if count < FEWEST <= len(np.unique(units)) / 2:
            name = data.class_names[label] if data.class_names else label
            found.append(
                f"class '{name}' has {count} {of}{'s' * (count > 1)}: a split would leave it out of a part; "
                f"expected at least {FEWEST}"
            )
    return found
