"""Images as rows of a table: the features of classical pipelines, each with a name, ready for scikit-learn."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats
from skimage.feature import graycomatrix, graycoprops, hog, local_binary_pattern
from skimage.measure import label, regionprops

LEVELS = 16  # of grey, for histograms and co-occurrences: more would be empty in small images
DISTANCES, ANGLES = (1, 3), (0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
CO_OCCURRENCE = ("contrast", "homogeneity", "energy", "correlation")
SHAPE = ("area", "perimeter", "eccentricity", "solidity", "extent", "circularity", "components")


def histogram(image: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Share of the pixels of the mask in each of 16 equal intervals of 0…1."""
    counts = np.histogram(image[mask], bins=LEVELS, range=(0, 1))[0] / max(1, mask.sum())
    return {f"share {k / LEVELS:.2f} to {(k + 1) / LEVELS:.2f}": value for k, value in enumerate(counts)}


def first_order(image: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Moments, percentiles and entropy (bits) of the pixels of the mask; all 0 where there is none.

    Source: Zwanenburg et al., The image biomarker standardisation initiative, Radiology 2020 (intensity features).
    """
    values = image[mask] if mask.any() else np.zeros(1)
    varies = np.ptp(values) > 1e-9  # moments of a constant are noise of rounding
    shares = np.histogram(values, bins=LEVELS, range=(0, 1))[0] / len(values)
    found = {"mean": values.mean(), "standard deviation": values.std()}
    found |= {"skewness": stats.skew(values) if varies else 0.0, "kurtosis": stats.kurtosis(values) if varies else 0.0}
    found |= {f"percentile {p}": np.percentile(values, p) for p in (10, 50, 90)}
    return found | {"entropy": stats.entropy(shares, base=2)}


def co_occurrence(image: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Contrast, homogeneity, energy and correlation of pairs of pixels at two distances, means over four directions.

    Of the whole image: a pair across the border of a mask says more of the border than of the texture.
    Source: Haralick, Shanmugam and Dinstein, IEEE Trans. SMC 1973.
    """
    grey = (image * LEVELS).astype(np.uint8).clip(max=LEVELS - 1)
    pairs = graycomatrix(grey, DISTANCES, ANGLES, levels=LEVELS, symmetric=True, normed=True)
    means = {name: graycoprops(pairs, name).mean(1) for name in CO_OCCURRENCE}
    return {f"{name}, {d} px": value[k] for name, value in means.items() for k, d in enumerate(DISTANCES)}


def binary_patterns(image: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Share of each rotation-invariant uniform pattern of the 8 neighbours among the pixels of the mask: 10 numbers.

    Source: Ojala, Pietikäinen and Mäenpää, IEEE Trans. PAMI 2002.
    """
    codes = local_binary_pattern((image * 255).astype(np.uint8), P=8, R=1, method="uniform")[mask]
    counts = np.bincount(codes.astype(int), minlength=10) / max(1, mask.sum())
    return {f"pattern {k}": value for k, value in enumerate(counts)}


def gradients(image: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Histograms of oriented gradients: 8 directions in each of 4 × 4 cells, normalised in blocks of 2 × 2 cells.

    Of the whole image, since the cells have fixed places. Source: Dalal and Triggs, CVPR 2005.
    """
    cell = [side // 4 for side in image.shape]
    values = hog(image, orientations=8, pixels_per_cell=cell, cells_per_block=(2, 2))
    return {f"gradient {k}": value for k, value in enumerate(values)}


def shape(image: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Size (shares of the image or its side) and form of the largest component of the mask; all 0 without one.

    circularity: 4π area / perimeter², 1 for a disc. components: their number.
    """
    parts = regionprops(label(mask))
    if not parts:
        return dict.fromkeys(SHAPE, 0.0)
    one = max(parts, key=lambda part: part.area)
    around = one.perimeter or 1.0  # a single pixel has none
    found = (one.area / mask.size, one.perimeter / max(mask.shape), one.eccentricity, one.solidity, one.extent)
    return dict(zip(SHAPE, (*found, min(1.0, 4 * np.pi * one.area / around**2), len(parts)), strict=True))


KINDS: dict[str, Callable[[np.ndarray, np.ndarray], dict[str, float]]] = {
    kind.__name__: kind for kind in (histogram, first_order, co_occurrence, binary_patterns, gradients, shape)
}


def feature_table(
    images: np.ndarray, *, kinds: Sequence[str] = tuple(KINDS), masks: np.ndarray | None = None
) -> tuple[np.ndarray, list[str]]:
    """Features (N, D) of grey images (N, H, W) in 0…1, and the D names, "kind: feature".

    masks (N, H, W): where to look; by default everywhere, and "shape" then needs them. A row depends on its own image
    only: what is learned over images, such as a scaling, belongs into the pipeline of the classifier.
    Raises ValueError for other shapes and values, an unknown kind, sides below 16 pixels, and shape without masks.
    """
    images = np.asarray(images)
    if images.ndim != 3 or not len(images) or min(images.shape[1:]) < 16:
        raise ValueError(f"images have shape {images.shape}; expected (N, H, W), N >= 1, sides of 16 pixels or more")
    if not ((images >= 0) & (images <= 1)).all():
        raise ValueError(f"images go from {images.min():.3g} to {images.max():.3g}; expected numbers in 0…1")
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ValueError(f"kind of features is {unknown[0]!r}; expected one of {', '.join(KINDS)}")
    if masks is None and "shape" in kinds:
        raise ValueError("features of shape need masks; got None")
    masks = np.ones(images.shape, bool) if masks is None else np.asarray(masks) > 0
    if masks.shape != images.shape:
        raise ValueError(f"masks have shape {masks.shape}; expected {images.shape} as the images")
    rows = [_row(image, mask, kinds) for image, mask in zip(images.astype(float), masks, strict=True)]
    return np.array([list(row.values()) for row in rows]), list(rows[0])


def _row(image: np.ndarray, mask: np.ndarray, kinds: Sequence[str]) -> dict[str, float]:
    return {f"{kind}: {name}": float(v) for kind in kinds for name, v in KINDS[kind](image, mask).items()}
