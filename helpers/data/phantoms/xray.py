"""Phantom radiographs of a forearm: two long bones in soft tissue, with lesions of known extent and a lead marker."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from helpers.data.image_set import ImageSet
from helpers.data.phantoms.common import patients_of, quantise

LESIONS = ("fracture", "lytic lesion", "metal plate")
MARKER = np.array([[1, 1, 1, 0], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 0], [1, 0, 1, 0], [1, 0, 0, 1], [1, 0, 0, 1]])
FIELD = 120.0  # mm: side of the square field
SCANNERS = {"digital": (4e3, 0.6, 1.0), "film": (1.2e3, 1.0, 0.7)}  # photons a pixel, blur in pixels, gradation


def _bone_path(across: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Path through a long bone (mm of compact bone): a cortical tube around spongy bone of a quarter the density."""
    outer = 2 * np.sqrt((radius**2 - across**2).clip(0))
    inner = 2 * np.sqrt(((0.62 * radius) ** 2 - across**2).clip(0))
    return outer - 0.75 * inner


def _lesion(rng, kind, along, across, radius, difficulty):
    """(added, removed, mask): mm of metal, the share of bone taken away, and where the lesion lies, for one bone."""
    centre, strength = rng.uniform(-30, 30), 1 - 0.6 * difficulty
    inside = np.abs(across) < radius
    if kind == "fracture":
        distance = np.abs(along - centre - rng.uniform(-1, 1) * across)
        width = rng.uniform(2.0, 3.5)
        removed = strength * np.clip(1.5 - distance / width, 0, 1) * inside
        return 0 * along, removed, (distance < width) & inside
    if kind == "lytic lesion":
        size = rng.uniform(0.7, 1.0) * 9, rng.uniform(0.6, 0.9) * 7
        distance = np.hypot((along - centre) / size[0], (across - rng.uniform(-2, 2)) / size[1])
        removed = strength * 0.8 * np.clip(2.2 - 2 * distance, 0, 1) * inside
        return 0 * along, removed, (distance < 0.9) & inside
    half = rng.uniform(12, 20)
    plate = (np.abs(along - centre) < half) & (np.abs(across - 0.6 * radius) < 2.2)
    holes = np.abs((along - centre + half) % 8 - 4) < 1.2
    added = strength * np.where(plate, np.where(holes & (np.abs(across - 0.6 * radius) < 1.2), 6.0, 3.0), 0.0)
    return added, 0 * along, plate


def _patient(rng) -> dict:
    """Anatomy that all images of a patient share, in mm."""
    return {
        "radii": rng.uniform(6.5, 8.5, 2),
        "flare": rng.uniform(3, 6, 2),
        "bow": rng.uniform(-4, 4, 2),
        "gap": rng.uniform(13, 17),
        "limb": rng.uniform(32, 40),
        "density": rng.uniform(0.85, 1.15),
    }


def _paths(rng, anatomy, abnormal, difficulty, size):
    """Path lengths of one image in mm of water (size, size), and its integer lesion mask."""
    pixel = ((np.arange(size) + 0.5) / size - 0.5) * FIELD
    angle, shift = np.deg2rad(rng.uniform(-15, 15)), rng.uniform(-6, 6, 2)
    rows, columns = pixel[:, None] - shift[0], pixel[None, :] - shift[1]
    along = np.cos(angle) * rows + np.sin(angle) * columns
    across = -np.sin(angle) * rows + np.cos(angle) * columns
    flip = rng.choice((-1, 1))  # left or right arm
    kind, which = rng.choice(LESIONS), rng.integers(2)
    path = 2 * np.sqrt((anatomy["limb"] ** 2 - across**2).clip(0)) * (0.7 + 0.1 * along / FIELD)
    mask = np.zeros((size, size), np.uint8)
    for bone in range(2):
        axis = flip * (2 * bone - 1) * anatomy["gap"] + anatomy["bow"][bone] * (along / 60) ** 2
        end = (2 * bone - 1) * along / 60  # one bone is wide at the wrist, the other at the elbow
        radius = anatomy["radii"][bone] + anatomy["flare"][bone] * end.clip(0) ** 3
        compact = _bone_path(across - axis, radius)
        if abnormal and bone == which:
            added, removed, where = _lesion(rng, kind, along, across - axis, radius, difficulty)
            compact = compact * (1 - removed)
            path = path + 12 * added
            mask[where] = 1
        path = path + 2.2 * anatomy["density"] * compact
    texture = ndimage.gaussian_filter(rng.standard_normal((size, size)), size / 40)
    return path * (1 + 0.25 * texture), mask


def _stamp(rng, path, mask) -> None:
    """A lead letter in a random corner, in place: 150 mm of water more, and 2 in the mask."""
    size = len(mask)
    letter = np.kron(MARKER, np.ones((max(1, size // 48),) * 2))
    height, width = letter.shape
    edge = max(2, size // 20)
    row = rng.choice((edge, size - edge - height)) + rng.integers(-2, 3)
    column = rng.choice((edge, size - edge - width)) + rng.integers(-2, 3)
    path[row : row + height, column : column + width] += 150 * letter
    mask[row : row + height, column : column + width][letter > 0] = 2


def _expose(rng, path, scanner) -> np.ndarray:
    """uint8 radiograph of path lengths in mm of water: Beer–Lambert, detector blur, photon noise, logarithm."""
    (photons, blur, gradation), mu = SCANNERS[scanner], 0.02
    mean = ndimage.gaussian_filter(photons * np.exp(-mu * path), blur)
    seen = -np.log(rng.poisson(mean).clip(1) / photons) / mu
    return quantise(seen / 150 * 255 if gradation == 1 else (seen / 150).clip(0) ** gradation * 255)


def xray(
    *,
    images: int = 400,
    patients: int | None = None,
    size: int = 128,
    difficulty: float = 0.0,
    scanner: str | tuple[str, ...] = "digital",
    marker: tuple[float, float] = (0.0, 0.0),
    seed: int = 0,
) -> ImageSet:
    """Phantom forearm radiographs, in the manner of MURA: every second patient is abnormal, with exact lesion masks.

    marker: probability of a lead letter on a normal and on an abnormal image; (0, 1) makes it a shortcut. Masks: 1
    lesion, 2 marker. difficulty: 0 (plain to see) to 1 (faint). scanner: "digital", or "film" with more noise and a
    flatter gradation. The same seed gives the same anatomy with and without the letter, and on both scanners.

    Raises ValueError as `patients_of`, and for a probability outside 0…1.
    """
    for value in marker:
        if not 0 <= value <= 1:
            raise ValueError(f"marker is {value}; expected a number in 0…1")
    patient_of, scanner_of = patients_of(
        images=images, patients=patients, size=size, difficulty=difficulty, scanner=scanner, scanners=tuple(SCANNERS)
    )
    anatomies = [_patient(np.random.default_rng([seed, 0, patient])) for patient in range(patient_of.max() + 1)]
    labels = patient_of % 2
    pixels, masks = np.empty((images, 1, size, size), np.uint8), np.empty((images, size, size), np.uint8)
    for i in range(images):
        rng, marker_rng = np.random.default_rng([seed, 1, i]), np.random.default_rng([seed, 2, i])
        path, masks[i] = _paths(rng, anatomies[patient_of[i]], labels[i] == 1, difficulty, size)
        if marker_rng.random() < marker[labels[i]]:
            _stamp(marker_rng, path, masks[i])
        pixels[i, 0] = _expose(rng, path, scanner_of[i])
    return ImageSet(
        name=f"phantom-xray-{size}",
        modality="X-ray",
        images=pixels,
        value_range=(0, 255),
        labels=labels,
        masks=masks,
        patients=patient_of,
        scanners=scanner_of,
        spacing=(FIELD / size, FIELD / size),
        class_names=("normal", "abnormal"),
        mask_names=("background", "lesion", "marker"),
        licence="Apache-2.0 (generated)",
        citation="Generated here; the task follows MURA, Rajpurkar et al. 2017, arXiv 1712.06957",
        steps=("generated",),
    )
