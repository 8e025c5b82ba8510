"""Train, validation and test parts that share no patient."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from helpers.data.image_set import ImageSet


@dataclass(frozen=True)
class Split:
    """Index arrays of the three parts; level is 'patient', or 'image' where patients are unknown or only one."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    level: str


def split(data: ImageSet, *, fractions=(0.6, 0.2, 0.2), seed: int) -> Split:
    """Random train, validation and test parts, stratified by label.

    Patients stay whole: all images of a patient are in one part. A patient counts as abnormal if any of the images
    is. Without patients, or with one only, the images are divided and `level` says so. Each part holds every class.

    Raises ValueError if the fractions do not sum to 1, a part would be empty, or would lack a class.
    """
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-9:
        raise ValueError(f"fractions are {fractions}; expected three positive numbers that sum to 1")
    level = "patient" if data.patients is not None and len(np.unique(data.patients)) > 1 else "image"
    groups = data.patients if level == "patient" else np.arange(len(data))
    labels = np.zeros(len(data), int) if data.labels is None else data.labels
    units, group_of = np.unique(groups, return_inverse=True)
    stratum = np.full(len(units), labels.min())
    np.maximum.at(stratum, group_of, labels)  # the highest label of a patient

    rng = np.random.default_rng(seed)
    part_of = np.empty(len(units), int)
    for value in np.unique(stratum):
        members = rng.permutation(np.flatnonzero(stratum == value))
        cuts = np.round(np.cumsum(fractions) * len(members)).astype(int)
        part_of[members] = np.searchsorted(cuts, np.arange(len(members)), side="right")
    for label, part in product(np.unique(labels), range(3)):  # where rounding left a class out of a part
        having = np.unique(group_of[labels == label])
        if len(having) > 2 and not (part_of[having] == part).any():
            most = np.bincount(part_of[having]).argmax()
            part_of[rng.choice(having[part_of[having] == most])] = part
    parts = [np.flatnonzero(part_of[group_of] == part) for part in range(3)]
    if min(map(len, parts)) == 0:
        raise ValueError(
            f"a split of {len(units)} {level}s into {fractions} leaves a part empty; expected more {level}s"
        )
    for label in np.unique(labels):
        if not all(np.isin(label, labels[part]) for part in parts):
            name, known = (
                data.class_names[label] if data.class_names else label,
                len(np.unique(groups[labels == label])),
            )
            raise ValueError(
                f"class '{name}' is in {known} {level}{'s' * (known > 1)}, and a part of the split has none of it; "
                f"expected at least 3 {level}s with it"
            )
    return Split(*parts, level=level)
