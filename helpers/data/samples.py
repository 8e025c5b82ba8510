"""Real images that `python -m data_scripts.fetch samples` brought: radiographs, and views projected from a chest CT."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pydicom

from data_scripts.fetch import cache_dir, path
from helpers.data import drr
from helpers.data.image_set import ImageSet
from helpers.frontend import progress

# (rows, columns) that hold anatomy: what lies outside is collimated or carries burned-in text
RADIOGRAPHS = {"chest_cr.dcm": (slice(40, -40), slice(40, -40)), "tibia_cr.dcm": (slice(40, -40), slice(475, 1195))}


def radiograph(name: str) -> np.ndarray:
    """A real radiograph as float32 (H, W) in 0…1, bright where the body attenuates, without burned-in text.

    The range is the 1st to the 99.5th percentile. MONOCHROME1 files, in which 0 is white, are inverted.
    """
    if name not in RADIOGRAPHS:
        raise ValueError(f"no radiograph is called {name!r}; known are {', '.join(RADIOGRAPHS)}")
    file = pydicom.dcmread(path(name))
    pixels = file.pixel_array.astype(np.float32)[RADIOGRAPHS[name]]
    if file.PhotometricInterpretation == "MONOCHROME1":
        pixels = pixels.max() - pixels
    low, high = np.percentile(pixels, (1, 99.5)).astype(np.float32)
    return ((pixels - low) / (high - low)).clip(0, 1)


def chest_views(*, images: int, size: int, seed: int) -> ImageSet:
    """`helpers.data.drr.chest_views` of the sample CT, computed once and then read from the cache."""
    arguments = dict(images=images, size=size, seed=seed)
    code = hashlib.sha256(Path(drr.__file__).read_bytes()).hexdigest()[:8]  # views of older code are not reused
    file = cache_dir() / f"chest_views-{images}-{size}-{seed}-{code}.npz"
    if not file.exists():
        views = drr.chest_views(path("chest_ct.nii.gz"), path("chest_ct_labels.nii.gz"), progress=progress, **arguments)
        partial = file.with_suffix(f".{os.getpid()}.partial.npz")
        np.savez_compressed(partial, images=views.images, masks=views.masks)
        partial.replace(file)
    with np.load(file, allow_pickle=False) as stored:
        return drr.image_set(stored["images"], stored["masks"])
