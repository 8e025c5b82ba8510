"""Weak labels made from full masks, all of one structure: what an annotator with less time would have given.

`masks` are booleans (N, H, W), True on the structure (for classes: `masks == 1`). Label maps are uint8 (N, H, W):
1 on the structure, 0 on background, UNLABELLED (255) where nothing is said. Erosions and points label the structure
only, boxes background only, scribbles both. What is drawn at random for image i depends on the seed and on i alone.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.graph import MCP_Geometric

from helpers.data.image_set import UNLABELLED

# Seconds to annotate one structure in one image. All that is published was measured on photographs of everyday scenes,
# drawn by crowd workers: for clinical images and experts replace it by times of your own.
SECONDS = {
    "tag": (1.0, "assumption"),
    "point": (2.0, "assumption"),
    "box": (7.0, "Papadopoulos et al., ICCV 2017: by four extreme points; they cite 35 s for one drawn by its corners"),
    "scribble": (10.0, "assumption"),
    "eroded": (10.0, "assumption: as a scribble; nobody draws an erosion, it stands for a patch painted well inside"),
    "size": (15.0, "assumption: two diameters; an exact area needs the full mask"),
    "full": (79.0, "Lin et al., ECCV 2014 (COCO), one object, as cited by Bearman et al., ECCV 2016: 54 to 79 s"),
}


def eroded(masks: np.ndarray, *, share: float = 0.1) -> np.ndarray:
    """Label maps: the structure eroded, one pixel of its 4-connected border at a time, to at most `share` of its area.

    Stops before nothing is left. What lies outside the image counts as background. Raises ValueError for a share
    outside (0, 1]. Source: Kervadec et al., Medical Image Analysis 2019 (arXiv 1805.04628).
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; expected a number in (0, 1]")
    left = _checked(masks).copy()
    for mask in left:
        limit = share * mask.sum()
        while mask.sum() > limit and (smaller := ndimage.binary_erosion(mask)).any():
            mask[:] = smaller
    return np.where(left, 1, UNLABELLED).astype(np.uint8)


def random_point(masks: np.ndarray, *, radius: float = 2, seed: int = 0) -> np.ndarray:
    """Label maps: what a disc of `radius` pixels round a random pixel of the structure shares with the structure."""
    return _discs(masks, radius, lambda i, pixels: np.random.default_rng([seed, i]).choice(pixels))


def centroid(masks: np.ndarray, *, radius: float = 2) -> np.ndarray:
    """Label maps: as `random_point`, round the structure's pixel closest to its centroid (of several the first)."""
    return _discs(masks, radius, lambda _, pixels: pixels[((pixels - pixels.mean(0)) ** 2).sum(1).argmin()])


def box(masks: np.ndarray, *, margin: int = 0) -> np.ndarray:
    """Bounding boxes (N, 4), integer (row0, col0, row1, col1), half-open; four -1 where the structure is missing.

    `margin` pixels are added on each side, cut off at the image's border. Raises ValueError for a negative margin.
    """
    boxes = np.full((len(_checked(masks, margin=margin)), 4), -1)
    for i in np.flatnonzero(tags(masks)):
        pixels = np.argwhere(masks[i])
        first, last = pixels.min(0) - margin, pixels.max(0) + 1 + margin
        boxes[i] = *np.maximum(first, 0), *np.minimum(last, masks.shape[1:])
    return boxes


def box_labels(boxes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Label maps (N, *shape) of boxes (N, 4): background outside, UNLABELLED inside; all background without a box.

    Raises ValueError for a box that is inverted, has no pixel, or lies partly outside the image.
    """
    height, width = shape
    labels = np.zeros((len(boxes), height, width), np.uint8)
    for i, (row0, col0, row1, col1) in enumerate(np.asarray(boxes).tolist()):
        if 0 <= row0 < row1 <= height and 0 <= col0 < col1 <= width:
            labels[i, row0:row1, col0:col1] = UNLABELLED
        elif {row0, col0, row1, col1} != {-1}:
            needed = f"0 <= row0 < row1 <= {height} and 0 <= col0 < col1 <= {width}"
            raise ValueError(f"box {i} is {(row0, col0, row1, col1)}; expected (row0, col0, row1, col1), {needed}")
    return labels


def scribble(masks: np.ndarray, *, radius: int = 1, seed: int = 0) -> np.ndarray:
    """Label maps: a curve along the middle of the structure and one in the background that goes half round it.

    Curves are 2 · radius + 1 pixels wide and keep clear of the structure's border where it is wide enough. A structure
    in several parts gets a curve in one of them; an image without the structure one across it, of background.
    """
    labels = np.full(_checked(masks, radius=radius).shape, UNLABELLED, np.uint8)
    for i, mask in enumerate(masks):
        rng = np.random.default_rng([seed, i])
        labels[i][_curve(mask, radius, rng)] = 1
        around = ~mask
        if mask.any():  # as far as the structure's own radius, so that the curve says where the structure ends
            reach = max(np.sqrt(mask.sum() / np.pi), 4 * (radius + 1))
            around &= ndimage.distance_transform_edt(~mask) <= reach
        labels[i][_curve(around, radius, rng)] = 0
    return labels


def tags(masks: np.ndarray) -> np.ndarray:
    """Image tags (N,): is any of the structure there?"""
    return _checked(masks).any((1, 2))


def wrong_sizes(sizes: np.ndarray, *, error: float, seed: int = 0) -> np.ndarray:
    """True sizes (N,) as somebody measured them: each times 1 + error or 1 - error, with equal probability.

    Raises ValueError for an error outside [0, 1).
    """
    if not 0 <= error < 1:
        raise ValueError(f"error is {error}; expected a share in [0, 1)")
    over = np.random.default_rng(seed).random(len(sizes)) < 0.5
    return np.asarray(sizes) * np.where(over, 1 + error, 1 - error)


def check_labels(labels: np.ndarray, masks: np.ndarray, *, classes: int = 2) -> None:
    """Raises ValueError unless label maps and masks (N, H, W) of classes agree wherever something is labelled.

    Also for shapes that differ, and for values that are neither a class nor, in the labels, UNLABELLED.
    """
    labels, masks = np.asarray(labels), np.asarray(masks)
    if labels.shape != masks.shape or masks.ndim != 3:
        raise ValueError(f"labels have shape {labels.shape}, masks {masks.shape}; expected the same (N, H, W)")
    labelled = labels != UNLABELLED
    for name, values in (("masks", masks), ("labels", labels[labelled])):
        if bad := sorted(set(np.unique(values).tolist()) - {*range(classes)}):
            raise ValueError(f"{name} hold {bad[0]}; expected 0 to {classes - 1}, in labels also {UNLABELLED}")
    wrong = labelled & (labels != masks)
    if wrong.any():
        image, row, col = np.argwhere(wrong)[0].tolist()
        raise ValueError(
            f"{wrong[image].sum()} labelled pixels of image {image} contradict its mask, first at ({row}, {col}): "
            f"class {labels[image, row, col]} on class {int(masks[image, row, col])}; expected the mask's class"
        )


def _checked(masks: np.ndarray, **pixels: float) -> np.ndarray:
    """The masks, if they are what is expected and none of the lengths in pixels is negative."""
    if masks.ndim != 3 or masks.dtype != bool:
        raise ValueError(f"masks are {masks.dtype} {masks.shape}; expected booleans (N, H, W), as of masks == 1")
    for name, value in pixels.items():
        if value < 0:
            raise ValueError(f"{name} is {value}; expected at least 0 pixels")
    return masks


def _discs(masks: np.ndarray, radius: float, centre) -> np.ndarray:
    """Label maps: the pixels (n, 2) of each structure that are at most `radius` from centre(i, pixels)."""
    chosen = np.zeros_like(_checked(masks, radius=radius))
    for i in np.flatnonzero(tags(masks)):
        pixels = np.argwhere(masks[i])
        near = ((pixels - centre(i, pixels)) ** 2).sum(1) <= radius**2
        chosen[i][tuple(pixels[near].T)] = True
    return np.where(chosen, 1, UNLABELLED).astype(np.uint8)


def _curve(region: np.ndarray, radius: int, rng: np.random.Generator) -> np.ndarray:
    """A curve (H, W) in the region, along its middle, from a random pixel to the one hardest to reach."""
    if not region.any():
        return region
    depth = ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    passable = depth > min(radius + 1, depth.max() - 1)  # clear of the border, or as clear as the region allows
    paths = MCP_Geometric(np.where(passable, 1 / np.maximum(depth, 1), np.inf))
    costs, _ = paths.find_costs([rng.choice(np.argwhere(passable))])
    end = np.where(np.isfinite(costs), costs, -1).argmax()
    path = np.zeros_like(region)
    path[tuple(np.transpose(paths.traceback(np.unravel_index(end, region.shape))))] = True
    return region & (ndimage.distance_transform_edt(~path) <= radius)
