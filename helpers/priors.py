"""What is known of anatomy as something to compute with: nested structures, distances to a border, thin vessels.

Losses take probabilities and give one number to minimise, in fp32 at least, also under autocast.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from helpers.check import wide


def nested_probs(logits: Tensor) -> Tensor:
    """Probabilities (N, C, H, W) of structures that lie in one another, outermost first, from as many logits.

    p_k = σ(z_0) · … · σ(z_k), a share of the one before: no threshold puts a pixel into the inner but not the outer
    one. Raises ValueError for another shape. Source: the chain rule, p(inner) = p(outer) p(inner | outer).
    """
    if logits.ndim != 4:
        raise ValueError(f"logits have shape {tuple(logits.shape)}; expected (N, C, H, W)")
    return F.logsigmoid(wide(logits)).cumsum(1).exp()


def inclusion_penalty(probs: Tensor) -> Tensor:
    """How much the inner structure is more probable than the outer one around it: max(0, p_k − p_(k−1)), mean.

    probs (N, C, H, W), outermost first. 0 if all are nested. Raises ValueError for fewer than two structures.
    """
    if probs.ndim != 4 or probs.shape[1] < 2:
        raise ValueError(f"probs have shape {tuple(probs.shape)}; expected (N, C, H, W) with two or more structures")
    return wide(probs).diff(dim=1).relu().mean()


def signed_distance(masks: np.ndarray, *, spacing: Sequence[float] | None = None) -> np.ndarray:
    """Distance of each pixel to the structure minus that to what is outside of it: (N, H, W), negative inside.

    masks: bool (N, H, W); spacing: mm from row to row and column to column, for distances in mm, else pixels. 0
    everywhere where there is no border, in an empty or a full mask. Raises ValueError for anything else.
    Source: Kervadec et al. 2019, Boundary loss, arXiv 1812.07032, φ_G of Eq. 3.
    """
    masks = np.asarray(masks)
    if masks.ndim != 3 or masks.dtype != bool:
        raise ValueError(f"masks: shape {masks.shape}, type {masks.dtype}; expected bool (N, H, W)")
    if spacing is not None and (np.shape(spacing) != (2,) or not all(0 < mm < np.inf for mm in spacing)):
        raise ValueError(f"spacing is {spacing}; expected two positive lengths in mm")
    found = np.zeros(masks.shape)
    for one, mask in zip(found, masks, strict=True):
        if mask.any() and not mask.all():
            one[:] = distance_transform_edt(~mask, sampling=spacing) - distance_transform_edt(mask, sampling=spacing)
    return found


def boundary_loss(probs: Tensor, distances: Tensor) -> Tensor:
    """Probability times signed distance, mean: far outside costs much, far inside gains much; unit of the distances.

    probs, distances (N, H, W), the latter from `signed_distance`. Add it to a loss of regions: alone it may go to an
    empty mask. Raises ValueError for unequal shapes. Source: Kervadec et al. 2019, arXiv 1812.07032, Eq. 5.
    """
    _check_same(probs, distances=distances)
    return (wide(probs) * distances.to(wide(probs).dtype)).mean()


def soft_skeleton(probs: Tensor, *, iterations: int = 5) -> Tensor:
    """The middle lines (N, H, W) of structures up to 2 · `iterations` pixels wide; probs (N, H, W) in 0…1.

    What an opening removes, at each of several erosions; minima and maxima make it differentiable. Raises ValueError
    for another shape or iterations < 0. Source: Shit et al., clDice, CVPR 2021, arXiv 2003.07311, Algorithm 1.
    """
    if probs.ndim != 3 or iterations < 0:
        told = f"probs have shape {tuple(probs.shape)}, iterations is {iterations}"
        raise ValueError(f"{told}; expected (N, H, W) and 0 or more")
    x = wide(probs)[:, None]
    skeleton = F.relu(x - _opened(x))
    for _ in range(iterations):
        x = _eroded(x)
        thin = F.relu(x - _opened(x))
        skeleton = skeleton + F.relu(thin - skeleton * thin)  # only what is not in it yet
    return skeleton[:, 0]


def soft_cl_dice(probs: Tensor, masks: Tensor, *, iterations: int = 5, smooth: float = 1.0) -> Tensor:
    """1 − clDice of probabilities and masks, both (N, H, W) in 0…1, mean over the images.

    Precision: the share of the predicted middle lines within the mask; sensitivity: that of the true middle lines
    within the prediction; clDice is their harmonic mean. `smooth` (pixels) makes empty against empty 0. What fills the
    whole image has no middle line: add a loss of regions. Raises ValueError for unequal shapes.
    Source: Shit et al., clDice, CVPR 2021, arXiv 2003.07311, Eq. 1 and Algorithm 2.
    """
    _check_same(probs, masks=masks)
    probs = wide(probs)
    masks = masks.to(probs.dtype)
    ours, theirs = (soft_skeleton(x, iterations=iterations) for x in (probs, masks))
    precision = ((ours * masks).sum((1, 2)) + smooth) / (ours.sum((1, 2)) + smooth)
    sensitivity = ((theirs * probs).sum((1, 2)) + smooth) / (theirs.sum((1, 2)) + smooth)
    return (1 - 2 * precision * sensitivity / (precision + sensitivity)).mean()


def _eroded(x: Tensor) -> Tensor:
    """The least of each pixel and its four neighbours; a pixel at the border has no neighbours beyond."""
    return -torch.maximum(F.max_pool2d(-x, (3, 1), 1, (1, 0)), F.max_pool2d(-x, (1, 3), 1, (0, 1)))


def _opened(x: Tensor) -> Tensor:
    return F.max_pool2d(_eroded(x), 3, 1, 1)


def _check_same(probs: Tensor, **others: Tensor) -> None:
    for name, other in others.items():
        if probs.ndim != 3 or other.shape != probs.shape:
            shapes = f"probs have shape {tuple(probs.shape)}, {name} {tuple(other.shape)}"
            raise ValueError(f"{shapes}; expected (N, H, W) for both")
