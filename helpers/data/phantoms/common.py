"""What all phantoms share: checked arguments, who is seen by which scanner, and rounding to native units."""

from __future__ import annotations

import numpy as np

SMALLEST = 32  # pixels


def patients_of(
    *,
    images: int,
    patients: int | None,
    size: int,
    difficulty: float,
    scanner: str | tuple[str, ...],
    scanners: tuple[str, ...],
    turn: int = 2,
) -> tuple[np.ndarray, np.ndarray]:
    """Patient (N,) and name of the scanner (N,) of each image: image i is of patient i modulo `patients`.

    patients None: a quarter as many as images. turn: consecutive patients among whom every class occurs; of a tuple of
    scanners they get the same one, and the next ones the next, so that the scanner does not tell the class.

    Raises ValueError for images or patients below 1, more patients than images, a size below 32, a difficulty outside
    0…1, or a scanner that is none of `scanners`.
    """
    patients = max(1, images // 4) if patients is None else patients
    if not 1 <= patients <= images:
        raise ValueError(f"patients is {patients}, images {images}; expected 1 <= patients <= images")
    if size < SMALLEST:
        raise ValueError(f"size is {size}; expected at least {SMALLEST} pixels")
    if not 0 <= difficulty <= 1:
        raise ValueError(f"difficulty is {difficulty}; expected a number in 0…1")
    used = (scanner,) if isinstance(scanner, str) else tuple(scanner)
    if not used or not set(used) <= set(scanners):
        raise ValueError(f"scanner is {scanner!r}; expected one or several of {', '.join(scanners)}")
    patient_of = np.arange(images) % patients
    return patient_of, np.array(used)[patient_of // turn % len(used)]


def quantise(values: np.ndarray, dtype: type = np.uint8) -> np.ndarray:
    """Values rounded and clipped to an integer type: differences in the last digit between machines vanish."""
    limits = np.iinfo(dtype)
    return np.rint(values).clip(limits.min, limits.max).astype(dtype)
