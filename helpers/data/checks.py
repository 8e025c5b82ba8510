"""What is suspicious about a folder of images, in sentences that name files; and images in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil

from helpers.data.image_set import ImageSet
from helpers.data.readers.files import some
from helpers.data.readers.masks import MANY, is_noisy
from helpers.data.readers.names import Found
from helpers.data.resample import resize

SAME = 0.95  # correlation of fingerprints: re-encoded, resized or brightened copies have 0.98, other patients 0.6
FEWEST = 3  # of a class: one a part of a split
SIDE = 32  # pixels of a fingerprint


def fits_memory(root: Path, bytes_an_image: int, count: int, done: int) -> None:
    """Raises ValueError if the free memory does not hold the images that are still to be read, and a copy of all."""
    need, free = bytes_an_image * (2 * count - done) / 1e9, psutil.virtual_memory().available / 1e9
    if need > free:
        raise ValueError(
            f"the {count} images of '{root.name}' need {need:.1f} GB more memory, {free:.1f} are free; "
            "give a smaller size, or name a part of them in a CSV"
        )


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


def suspicions(data: ImageSet, found: Found, read: list, prints: list[np.ndarray]) -> list[str]:
    """Sentences about masks that are blurred, of many values or inverted, images that look the same, small classes.

    read: the `Picture` of each image. prints: their fingerprints.
    """
    return [*_of_masks(data, found, read), *_of_copies(data, found, prints), *_of_classes(data)]


def _of_masks(data: ImageSet, found: Found, read: list) -> list[str]:
    if data.masks is None:
        return []

    def those(chosen: list[bool]) -> str:
        return some([file for file, yes in zip(found.files, chosen, strict=True) if yes], found.root)

    blurred = [bool(p.values) and is_noisy(p.values) for p in read]
    graded = [
        len(data.mask_names) == 2 and 2 < len(p.values) <= MANY and p.values[-1] > 127 and not is_noisy(p.values)
        for p in read
    ]
    full = [p.sizes[0] == 0 for p in read]
    inverted = [p.corners and p.sizes[0] > 0 for p in read]
    drawn = sum(len(p.sizes) > 1 for p in read)
    told = {
        "masks of {} hold more than two grey values, as JPEG or a resize makes them; taken as two, parted at half of "
        "the largest": blurred,
        f"masks of {{}} hold several grey values, all but 0 taken as {data.mask_names[1]}; if they are classes, give "
        "mask_names and values": graded,
        "masks of {} cover the whole image": full,
        "masks of {} hold all four corners: is background marked, not the lesion?": [
            yes and sum(inverted) > drawn / 2 for yes in inverted
        ],
    }
    found = [sentence.format(those(chosen)) for sentence, chosen in told.items() if any(chosen)]
    return found + [f"nothing is drawn in any of the {len(read)} masks"] * (drawn == 0)


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
