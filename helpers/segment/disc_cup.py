"""Optic disc and cup: possible anatomies, the vertical cup-to-disc ratio, and polar coordinates.

Label maps are integers (N, H, W): 0 background, 1 disc rim, 2 cup; the disc is rim and cup together.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from helpers.overlap import slice_dice
from helpers.segment.regions import largest

FLAGS = ("several discs", "several cups", "holes", "no disc", "no cup", "no rim")


def repair(masks: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Label maps (N, H, W) as possible anatomies: one disc, in it at most one cup, no holes; and what was wrong.

    In this order: holes of the disc are filled as rim; its largest region stays (over pixel sides, the first of
    equals from the top); the same for the cup inside it, whose filled holes and lost regions become cup and rim. The
    cup lies in the disc, so that it is never larger. A proper map, or a repaired one, stays as it is.

    The flags, bool (N,) under each name of FLAGS, count independently: "several discs", "several cups" (in the disc
    that stays) and "holes" were repaired; "no disc", "no cup" (in a disc) and "no rim" (all of the disc is cup: a
    ratio of 1) are only reported. Raises ValueError for anything but integers 0, 1, 2 in (N, H, W).
    """
    masks = _label_maps(masks, "masks")
    repaired, flags = np.zeros_like(masks), np.zeros((len(FLAGS), len(masks)), bool)
    for i, mask in enumerate(masks):
        disc, several_discs, disc_holes = _one_region(mask > 0)
        cup, several_cups, cup_holes = _one_region((mask == 2) & disc)
        repaired[i][disc], repaired[i][cup] = 1, 2
        missing = not disc.any(), disc.any() and not cup.any(), disc.any() and (cup == disc).all()
        flags[:, i] = several_discs, several_cups, disc_holes or cup_holes, *missing
    return repaired, dict(zip(FLAGS, flags, strict=True))


def vertical_cdr(masks: np.ndarray) -> np.ndarray:
    """Vertical cup-to-disc ratio (N,): rows from the top to the bottom of the cup, over those of the disc.

    NaN without a disc, 0 for a disc without a cup. It takes the extreme rows of any label map: `repair` first, or an
    island far away counts as height. Source: Orlando et al., Medical Image Analysis 2020 (REFUGE), whose evaluation
    takes the longest column instead: the same where cup and disc are upright. Raises ValueError as `repair`.
    """
    masks = _label_maps(masks, "masks")
    cup, disc = _height(masks == 2), _height(masks > 0)
    return np.divide(cup, disc, out=np.full(len(masks), np.nan), where=disc > 0)


def cdr_error(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Absolute error (N,) of the vertical cup-to-disc ratio of label maps `found`; NaN where the truth has no disc.

    Where no disc was found the ratio counts as 0, as in REFUGE's evaluation: leaving such images out would reward a
    network that finds nothing. Report their number too. Raises ValueError as `repair`, and for unequal shapes.
    """
    found, truth = _pair(found, truth)
    return np.abs(np.nan_to_num(vertical_cdr(found)) - vertical_cdr(truth))


def disc_cup_dice(found: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Dice of the disc (N,), rim and cup together, and of the cup (N,); NaN and 0 as in `helpers.overlap.slice_dice`.

    Raises ValueError as `cdr_error`.
    """
    found, truth = _pair(found, truth)
    return slice_dice(found > 0, truth > 0), slice_dice(found == 2, truth == 2)


def to_polar(images: Tensor, *, size: tuple[int, int] | None = None) -> Tensor:
    """Square images (N, C, H, H) in polar coordinates around their centre: (N, C, radii, angles), differentiable.

    size: (radii, angles), by default (H, H). Row 0 is the centre, the last row reaches the corner pixels; what lies
    beyond the sides repeats the border. Column 0 points to the right, the next ones clockwise, the last one meets the
    first. Bilinear, align_corners=True: -1 and 1 are centres of border pixels. float32, or float64 if given.
    Source: Fu et al., IEEE TMI 2018 (M-Net), arXiv 1801.00926.
    Raises ValueError for images that are not square (N, C, H, H) and a size below 2 radii and 1 angle.
    """
    if images.ndim != 4 or images.shape[-1] != images.shape[-2] or images.shape[-1] < 2:
        raise ValueError(f"images have shape {tuple(images.shape)}; expected square ones (N, C, H, H), H >= 2")
    radii, angles = size or images.shape[-2:]
    if radii < 2 or angles < 1:
        raise ValueError(f"size is {size}; expected (radii, angles) of at least (2, 1)")
    radius = torch.linspace(0, math.sqrt(2), radii, dtype=torch.float64)[:, None]
    angle = torch.arange(angles, dtype=torch.float64) * (2 * math.pi / angles)
    return _sample(images, radius * angle.cos(), radius * angle.sin())


def from_polar(maps: Tensor, *, size: int) -> Tensor:
    """Polar maps (N, C, radii, angles), as `to_polar` gives them, back on a square: (N, C, size, size).

    Bilinear and differentiable, between the last angle and the first one too: no seam. With it a network that sees
    polar images is trained and scored on square masks. Raises ValueError for other shapes and a size below 2.
    """
    if maps.ndim != 4 or maps.shape[-2] < 2 or maps.shape[-1] < 1:
        raise ValueError(f"maps have shape {tuple(maps.shape)}; expected (N, C, radii, angles), at least (2, 1)")
    if size < 2:
        raise ValueError(f"size is {size}; expected a side of at least 2 pixels")
    axis = torch.linspace(-1, 1, size, dtype=torch.float64)
    y, x = axis[:, None], axis[None]
    turn = torch.atan2(y, x).remainder(2 * math.pi) / math.pi  # 0 to 2
    closed = torch.cat([maps, maps[..., :1]], -1)  # the angle 2 pi is the angle 0
    return _sample(closed, turn - 1, math.sqrt(2) * torch.hypot(x, y) - 1)


def _one_region(mask: np.ndarray) -> tuple[np.ndarray, bool, bool]:
    """The largest region of a filled mask, whether there were several, and whether there were holes."""
    filled = ndimage.binary_fill_holes(mask)
    region = largest(filled)
    return region, (region != filled).any(), (filled != mask).any()


def _height(masks: np.ndarray) -> np.ndarray:
    rows = masks.any(2)
    return np.where(rows.any(1), rows.shape[1] - rows.argmax(1) - rows[:, ::-1].argmax(1), 0).astype(float)


def _sample(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    kind = torch.promote_types(images.dtype, torch.float32)  # in half precision the points would move
    grid = torch.stack(torch.broadcast_tensors(x, y), -1).to(images.device, kind).expand(len(images), -1, -1, -1)
    return F.grid_sample(images.to(kind), grid, padding_mode="border", align_corners=True)


def _label_maps(masks: np.ndarray, name: str) -> np.ndarray:
    masks = np.asarray(masks)
    if masks.ndim != 3 or masks.dtype.kind not in "iu":
        raise ValueError(f"{name}: shape {masks.shape}, type {masks.dtype}; expected integer label maps (N, H, W)")
    if (unknown := masks[(masks < 0) | (masks > 2)]).size:
        raise ValueError(f"{name} hold {unknown[0]}; expected 0 (background), 1 (disc rim) and 2 (cup)")
    return masks


def _pair(found: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found, truth = _label_maps(found, "found"), _label_maps(truth, "truth")
    if found.shape != truth.shape:
        raise ValueError(f"found has shape {found.shape}, truth {truth.shape}; expected one shape")
    return found, truth
