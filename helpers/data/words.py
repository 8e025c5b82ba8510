"""An image set in one line: what `print(images)` says."""

from __future__ import annotations

import numpy as np

from helpers.data.image_set import ImageSet


def in_words(data: ImageSet) -> str:
    """Images, size, range, patients, classes, masks, and what was done and understood."""
    channels, *size = data.images.shape[1:]
    kind = {1: "grey", 3: "colour"}.get(channels, f"{channels} channels")
    low, high = data.value_range
    parts = [
        f"{data.name}: {len(data)} images of {size[0]}×{size[1]} pixels",
        f"{kind}, {data.images.dtype}, {low:g} to {high:g}",
        f"patients {patients_in_words(data)}",
        *([f"classes {classes_in_words(data)}"] if data.labels is not None else []),
        *([masks_in_words(data)] if data.masks is not None else []),
        *data.steps,
    ]
    return "; ".join(parts)


def patients_in_words(data: ImageSet) -> str:
    """How many there are."""
    return "unknown" if data.patients is None else str(len(np.unique(data.patients)))


def classes_in_words(data: ImageSet) -> str:
    """The number of images of each class."""
    numbers, counts = np.unique(data.labels, return_counts=True)
    known = data.class_names or range(int(numbers.max()) + 1)
    return ", ".join(f"{known[n]} {count}" for n, count in zip(numbers.tolist(), counts.tolist(), strict=True))


def masks_in_words(data: ImageSet) -> str:
    """The share of pixels of each class of the masks, and how many masks are empty."""
    counts = np.bincount(data.masks.ravel().astype(np.int64))
    known = data.mask_names or range(len(counts))
    shares = [f"{known[n]} {percent(counts[n] / counts.sum())}" for n in range(1, len(counts)) if counts[n]]
    empty = int((~data.masks.any(axis=(1, 2))).sum())
    return f"masks: {', '.join(shares) or 'nothing drawn'} of the pixels, {empty} empty"


def percent(share: float) -> str:
    """A share that is not 0 with two digits, or as less than 0.01 %."""
    return "<0.01 %" if share < 1e-4 else f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


ImageSet.__str__ = in_words  # here and not in the class, whose code is part of what records depend on
