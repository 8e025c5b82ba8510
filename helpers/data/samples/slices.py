"""Slices and frames of real volumes that ship inside published Python packages: ultrasound, MR and CT.

Each set holds ONE patient or template: real pixels on which to look and to try things, never a score over patients.
The masks of the CT were made by a program and are noisy.

In all functions: size is the side of the square that slices are padded to and resampled to, None to leave them as they
are. images: how many, evenly spaced, None for all. Raises ValueError where there are not as many, FileNotFoundError
where a file was not brought (with the command that brings it).
"""

from __future__ import annotations

import csv
import warnings
from dataclasses import replace

import numpy as np
import pydicom
from scipy import ndimage
from skimage.morphology import convex_hull_image

from helpers.data.fetch import path
from helpers.data.image_set import ImageSet
from helpers.data.readers.volumes import from_nifti
from helpers.data.resample import letterboxed
from helpers.data.samples.tiles import MACHINE_MADE, rights

TISSUES = ("background", "grey matter", "white matter")
# classes of the CT masks, and how the names of their structures begin
ORGANS = {
    "lungs": ("lung_",),
    "heart": ("heart", "atrial_appendage"),
    "aorta": ("aorta",),
    "liver": ("liver",),
    "spleen": ("spleen",),
    "kidneys": ("kidney_left", "kidney_right"),
    "bones": ("vertebrae_", "rib_", "sternum", "clavicula_", "scapula_", "humerus_"),
}


def ultrasound(*, size: int | None = None, images: int | None = None) -> ImageSet:
    """Frames of an echocardiographic cine of four chambers (120 frames, 0.51 mm, 33.3 ms apart), uint8 grey values.

    What lies outside the sector, burned-in text too, is set to 0. Nothing of the header is kept but the spacing.
    """
    header = pydicom.dcmread(path("echo_cine.dcm"), stop_before_pixels=True)
    luminance = pydicom.pixels.pixel_array(path("echo_cine.dcm"), raw=True)[..., 0]  # Y of YCbCr: the image is grey
    region = header.SequenceOfUltrasoundRegions[0]
    rows = slice(region.RegionLocationMinY0, region.RegionLocationMaxY1 + 1)
    cine = luminance[:, rows, region.RegionLocationMinX0 : region.RegionLocationMaxX1 + 1]
    parts, _ = ndimage.label(ndimage.binary_opening(cine.max(axis=0) > 4, iterations=3))
    sector = convex_hull_image(parts == np.bincount(parts.ravel())[1:].argmax() + 1)  # its edge is too dark in places
    frames = _spread(len(cine), images, "ultrasound")
    spacing = 10 * region.PhysicalDeltaY, 10 * region.PhysicalDeltaX  # cm to mm
    pixels = np.where(sector, cine[frames], 0)[:, None]
    scan = ImageSet(name="", modality="ultrasound", images=pixels, value_range=(0, 255), frames=frames, spacing=spacing)
    return _known(scan, "echo_cine.dcm", size, "set to 0 outside the sector, text included", "one patient")


def mr(*, size: int | None = None, images: int | None = None) -> ImageSet:
    """Axial slices of the MNI152 T1 template (233×197, 1 mm, uint8) with grey and white matter; not a patient.

    A pixel is of the tissue whose map says at least one half. Slices with at least 5 % tissue, from the feet to the
    head; the right of the brain is on the left of the image, the front at the top.
    """
    brain, grey, white = (from_nifti(path(f"mni152_{name}.nii.gz")) for name in ("t1", "grey", "white"))
    shares = [share.images[:, 0].astype(float) / share.images.max() for share in (grey, white)]
    tissue = np.flatnonzero((np.maximum(*shares) >= 0.5).mean(axis=(1, 2)) >= 0.05)
    masks = np.select([share >= 0.5 for share in shares], [1, 2]).astype(np.uint8)
    whole = replace(brain, modality="MR", masks=masks, mask_names=TISSUES, value_range=(0, 255))
    return _known(
        whole[tissue[_spread(len(tissue), images, "mr")]],
        "mni152_t1.nii.gz",
        size,
        "masks where the tissue map is at least 0.5",
        "one template, the average of many people",
    )


def ct(*, size: int | None = None, images: int | None = None) -> ImageSet:
    """Axial slices of a chest CT (133 of 512×512, 0.70 mm, 2.5 mm apart) in Hounsfield units, int16, with organ masks.

    From the feet to the head; the patient's right is on the left of the image, the front at the top.
    """
    with warnings.catch_warnings():  # the padding of the scan, -2048, is clipped below
        warnings.simplefilter("ignore")
        scan, labels = (from_nifti(path(name)) for name in ("chest_ct.nii.gz", "chest_ct_labels.nii.gz"))
    slices = _spread(len(scan), images, "ct")
    chosen = replace(
        scan[slices],
        modality="CT",
        images=scan.images[slices].clip(-1024, 3071),
        masks=_organ_classes()[labels.images[slices, 0]],
        mask_names=("background", *ORGANS),
        value_range=(-1000, 1000),
    )
    return _known(chosen, "chest_ct.nii.gz", size, "clipped to -1024…3071 HU", MACHINE_MADE, "one patient")


def _organ_classes() -> np.ndarray:
    """Class of each value of the CT's label map, (256,)."""
    classes = np.zeros(256, np.uint8)
    with path("chest_ct_structures.csv").open(newline="", encoding="utf-8") as rows:
        for row in csv.DictReader(rows):
            for number, beginnings in enumerate(ORGANS.values(), 1):
                if row["structure"].startswith(beginnings):
                    classes[int(row["id"])] = number
    return classes


def _spread(available: int, images: int | None, name: str) -> np.ndarray:
    """Indices of `images` evenly spaced ones of those available."""
    images = available if images is None else images
    if not 1 <= images <= available:
        raise ValueError(f"images is {images}; sample '{name}' has {available}")
    return np.linspace(0, available - 1, images).round().astype(int)


def _known(data: ImageSet, file: str, size: int | None, *steps: str) -> ImageSet:
    """Slices of one volume with what is known about it, brought to `size`."""
    licence, citation = rights(file)
    one = np.zeros(len(data), int)
    about = dict(name=f"sample-{data.modality.lower()}", licence=licence, citation=citation, patients=one, volumes=one)
    data = replace(data, **about, steps=(*data.steps, *steps))
    return data if size is None else letterboxed(data, size)
