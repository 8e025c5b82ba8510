"""Real images that `python -m data_scripts.fetch samples` brought: what there is, radiographs, and chest views."""

from __future__ import annotations

import hashlib
import os
import warnings
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pydicom

from helpers.data.download import unwritable
from helpers.data.fetch import cache_dir, path
from helpers.data.image_set import ImageSet
from helpers.data.samples import drr
from helpers.data.samples.slices import ORGANS, TISSUES, ct, mr, ultrasound
from helpers.data.samples.tiles import INSTALLED, NUCLEI, fundus, histology, nuclei, rights, tissue
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


def chest_views(*, images: int | None = None, size: int = 96, seed: int = 0) -> ImageSet:
    """`helpers.data.drr.chest_views` of the sample CT, 900 if not said, computed once and then read from the cache.

    Views that are damaged are computed again; where the cache cannot be written, a warning says that they are not kept.
    """
    images = images or 900
    arguments = dict(images=images, size=size, seed=seed)
    code = hashlib.sha256(Path(drr.__file__).read_bytes()).hexdigest()[:8]  # views of older code are not reused
    file = cache_dir() / f"chest_views-{images}-{size}-{seed}-{code}.npz"
    damaged = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)
    with suppress(*damaged), np.load(file, allow_pickle=False) as stored:
        return drr.image_set(stored["images"], stored["masks"])
    views = drr.chest_views(path("chest_ct.nii.gz"), path("chest_ct_labels.nii.gz"), progress=progress, **arguments)
    partial = file.with_suffix(f".{os.getpid()}.partial.npz")
    try:
        np.savez_compressed(partial, images=views.images, masks=views.masks)
        partial.replace(file)
    except OSError as error:
        warnings.warn(f"the views are not kept: {unwritable(file.parent, error)}", stacklevel=2)
    return views


@dataclass(frozen=True)
class SampleFacts:
    """What is known about a sample without reading it.

    images: how many there are (of tiles: pictures), None for as many as wanted. shape: pixels. patients: 0 for a
    template, None where it is not stated. masks: the classes. seeded: whether `load` takes a seed.
    files: what `load` reads; files of scikit-image are installed, the others are fetched.
    """

    load: Callable[..., ImageSet]
    modality: str
    images: int | None
    shape: tuple[int, int] | None
    patients: int | None
    files: tuple[str, ...]
    masks: tuple[str, ...] = ()
    seeded: bool = True

    @property
    def here(self) -> bool:
        """Whether all files are on this machine."""
        return all(file in INSTALLED or (cache_dir() / file).is_file() for file in self.files)

    @property
    def licence(self) -> str:
        return rights(self.files[0])[0]

    @property
    def citation(self) -> str:
        return rights(self.files[0])[1]


_CT = ("chest_ct.nii.gz", "chest_ct_labels.nii.gz")
_NEST = ("hgsc_nest.jpg", "hgsc_nest_inst_mask.npz", "hgsc_nest_type_mask.npz")
_BRAIN = ("mni152_t1.nii.gz", "mni152_grey.nii.gz", "mni152_white.nii.gz")
SAMPLES = {
    "fundus": SampleFacts(fundus, "fundus", 1, (1411, 1411), 1, ("retina.jpg",)),
    "ultrasound": SampleFacts(ultrasound, "ultrasound", 120, (384, 512), 1, ("echo_cine.dcm",), seeded=False),
    "histology": SampleFacts(histology, "histology", 1, (1500, 1500), 1, _NEST, NUCLEI[1:]),
    "tissue": SampleFacts(tissue, "histology", 1, (1500, 1500), 1, _NEST),
    "stroma": SampleFacts(
        partial(histology, section="stroma"), "histology", 1, (1500, 1500), 1, ("hgsc_stromal_he.jpg",)
    ),
    "ihc": SampleFacts(partial(histology, section="ihc"), "histology", 1, (512, 512), 1, ("ihc.png",)),
    "mr": SampleFacts(mr, "MR", 133, (233, 197), 0, _BRAIN, TISSUES[1:], seeded=False),
    "xray": SampleFacts(chest_views, "X-ray", None, None, 1, _CT, ("opacity",)),
    "ct": SampleFacts(ct, "CT", 133, (512, 512), 1, (*_CT, "chest_ct_structures.csv"), tuple(ORGANS), seeded=False),
    "nuclei": SampleFacts(
        nuclei, "fluorescence", 1, (512, 512), None, ("nuclei.tif", "nuclei_masks.tif"), ("nucleus",)
    ),
}


def sample(name: str, *, size: int | None = None, images: int | None = None, seed: int = 0, **options) -> ImageSet:
    """The real images called `name`, one of SAMPLES: `size` pixels a side, `images` of them (None for as they come).

    options: those of the sample's reader.

    Raises ValueError for an unknown name, for "oct", of which no published package ships an image, and for more images
    than there are; FileNotFoundError, with the command, for files that were not brought.
    """
    if name == "oct":
        raise ValueError("no published package ships an OCT image, so 'oct' has no sample; try source 'phantom'")
    if name not in SAMPLES:
        raise ValueError(f"no sample is called {name!r}; known are {', '.join(SAMPLES)}")
    facts = SAMPLES[name]
    given = dict(images=images) | ({} if size is None else dict(size=size)) | (dict(seed=seed) if facts.seeded else {})
    return facts.load(**given, **options)
