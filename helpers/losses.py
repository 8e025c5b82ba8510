"""Losses for weak labels (scribbles, sizes, boxes, images that say where edges are), for views, and the soft Dice.

All give one number to minimise and compute in fp32 at least, also under autocast. Those of weak labels take logits
(N, C, H, W).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.check import wide
from helpers.data.image_set import UNLABELLED


def partial_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy, mean over the labelled pixels of the batch; 0 if none is; labels (N, H, W), 255 is unlabelled.

    Raises ValueError for labels of another shape and for unknown classes.
    """
    logits, classes = _logits(logits), labels.long()
    expected = (len(logits), *logits.shape[2:])
    if labels.shape != expected:
        raise ValueError(f"labels have shape {tuple(labels.shape)}; expected {expected}")
    labelled = classes != UNLABELLED
    unknown = labelled & ((classes < 0) | (classes >= logits.shape[1])) | (classes != labels)
    if unknown.any():
        last = logits.shape[1] - 1
        raise ValueError(f"labels hold {labels[unknown][0].item()}; expected 0 to {last}, or {UNLABELLED} (unlabelled)")
    return F.cross_entropy(logits, classes, ignore_index=UNLABELLED, reduction="sum") / labelled.sum().clamp(min=1)


def soft_dice(probs: Tensor, masks: Tensor, *, axes: tuple[int, ...] | None = None, smooth: float = 1.0) -> Tensor:
    """Dice (2 Σ p m + smooth) / (Σ (p + m) + smooth) of probabilities and masks in 0…1, over some axes or all.

    `smooth`, in pixels, makes empty against empty 1. What is multiplied by 0 in both is left out. Source: Milletari,
    Navab and Ahmadi, V-Net, 3DV 2016, there with squares below and not smoothed.
    """
    probs = wide(probs)
    return (2 * (probs * masks).sum(axes) + smooth) / ((probs + masks).sum(axes) + smooth)


def soft_sizes(logits: Tensor, *, target: int = 1) -> Tensor:
    """Size of class `target` in each image, in pixels: the sum of its probabilities, (N,). ValueError: no such class.

    Source: Kervadec et al. 2019, Constrained-CNN losses, V_S of Eq. 3.
    """
    return _logits(logits, target).softmax(1)[:, target].sum(dim=(1, 2))


def volume_sizes(sizes: Tensor, volumes: Tensor) -> Tensor:
    """Sum of the slice sizes (N,) over each volume; volumes (N,) integer ids; in the order of the sorted ids.

    Bounds for it come the same way from sizes of slices: volume_sizes(true_sizes, volumes). A volume counts the slices
    that are in the batch. Raises ValueError for different lengths.
    """
    if sizes.shape != volumes.shape:
        raise ValueError(f"volumes have shape {tuple(volumes.shape)}; expected that of the sizes, {tuple(sizes.shape)}")
    ids, which = volumes.unique(return_inverse=True)
    return sizes.new_zeros(len(ids)).index_add(0, which, sizes)


def size_penalty(sizes: Tensor, lower: float | Tensor, upper: float | Tensor, *, pixels: float | Tensor) -> Tensor:
    """Squared excess of sizes (N,) beyond [lower, upper] over the image area `pixels`, mean over the items.

    lower, upper: pixels, a number or (N,); equal bounds ask for an exact size, [0, 0] for none of the structure.
    Raises ValueError for bounds that are negative, infinite, of another shape, or lower > upper.
    Source: Kervadec et al. 2019, Constrained-CNN losses, Eq. 3 and 4.
    """
    lower, upper = _bounds(sizes, lower, upper)
    excess = (lower - sizes).relu() + (sizes - upper).relu()
    return (excess.square() / pixels).mean()


def log_barrier(z: Tensor, t: float) -> Tensor:
    """Log-barrier extension of the constraints z ≤ 0, for each: −log(−z) / t, and from z = −1/t² on its tangent.

    A larger t comes closer to the hard constraint. Raises ValueError unless 0 < t < ∞.
    Source: Kervadec et al. 2019, Constrained deep networks, arXiv 1904.04205, Eq. 4.
    """
    if not 0 < t < math.inf:
        raise ValueError(f"t is {t}; expected a positive finite number")
    joint = -1 / t**2
    inside = -torch.log(-z.clamp(max=joint)) / t  # clamped: the branch not taken must not give NaN gradients
    return torch.where(z < joint, inside, t * z - math.log(1 / t**2) / t + 1 / t)


def size_barrier(
    sizes: Tensor, lower: float | Tensor, upper: float | Tensor, *, pixels: float | Tensor, t: float = 5.0
) -> Tensor:
    """Log-barrier extension of lower ≤ sizes ≤ upper as shares of the image area `pixels`, mean over the items.

    Unlike `size_penalty` it acts within the bounds, too, and may be negative; where lower is 0 only the upper bound
    acts. Raises ValueError as `size_penalty` and `log_barrier` do.
    """
    lower, upper = _bounds(sizes, lower, upper)
    below = log_barrier((lower - sizes) / pixels, t)
    # No size is below 0: a barrier there would push structures into images without any.
    return (log_barrier((sizes - upper) / pixels, t) + torch.where(lower > 0, below, 0)).mean()


def box_prior(logits: Tensor, boxes: Tensor, *, stripe: int = 5, target: int = 1) -> Tensor:
    """What a box tight around a connected structure says: none of it outside, some on each row and column inside.

    Outside: −log(1 − p), mean over the pixels. Inside: rows and columns in stripes of `stripe` lines (the last may be
    narrower), each to hold at least as many pixels as it has lines; the missing share squared, mean over the stripes.
    Both are added, mean over the items. boxes (N, 4) integers: row0, column0, row1, column1, ends not included, or four
    times −1 where there is no structure.
    Raises ValueError for a box outside the image, empty or inverted, for stripe < 1, and for an unknown class.
    Source: Kervadec et al. 2020, Bounding boxes, arXiv 2004.06816, there with log barriers for both.
    """
    logits = _logits(logits, target)
    _check_boxes(boxes, (len(logits), *logits.shape[2:]))
    if stripe < 1:
        raise ValueError(f"stripe is {stripe}; expected at least 1")
    others = [c for c in range(logits.shape[1]) if c != target]
    log_odds = logits[:, target] - logits[:, others].logsumexp(1)
    rows, columns = (torch.arange(length, device=logits.device) for length in logits.shape[2:])
    row0, column0, row1, column1 = boxes[:, :, None].unbind(1)
    in_rows, in_columns = (rows >= row0) & (rows < row1), (columns >= column0) & (columns < column1)
    inside = in_rows[:, :, None] & in_columns[:, None, :]

    outside = (F.softplus(log_odds) * ~inside).sum(dim=(1, 2)) / (~inside).sum(dim=(1, 2)).clamp(min=1)
    held = log_odds.sigmoid() * inside
    row_loss, row_stripes = _missing(held.sum(2), in_rows, (rows - row0) // stripe)
    column_loss, column_stripes = _missing(held.sum(1), in_columns, (columns - column0) // stripe)
    return (outside + (row_loss + column_loss) / (row_stripes + column_stripes).clamp(min=1)).mean()


def gated_crf(logits: Tensor, images: Tensor, *, radius: int = 3, sxy: float = 6.0, schan: float = 0.1) -> Tensor:
    """Potts energy Σ_i Σ_{j ≠ i} k_ij Σ_c p_ic (1 − p_jc) over the pixels j in the square window of i, mean per pixel.

    k_ij = exp(−|x_i − x_j|² / 2 sxy² − |I_i − I_j|² / 2 schan²): neighbours that look alike should share a class.
    images (N, channels, H, W), 0…1, not differentiated; sxy in pixels, schan in the images' unit.
    Raises ValueError for images of another size, radius < 1, and sxy or schan ≤ 0.
    Source: Obukhov et al. 2019, arXiv 1906.04651, without gates and with one kernel.
    """
    probs = _logits(logits).softmax(1)
    n, _, height, width = probs.shape
    if images.ndim != 4 or (len(images), *images.shape[2:]) != (n, height, width):
        raise ValueError(f"images have shape {tuple(images.shape)}; expected ({n}, channels, {height}, {width})")
    if radius < 1 or not sxy > 0 or not schan > 0:
        raise ValueError(f"radius, sxy, schan are {radius}, {sxy}, {schan}; expected radius ≥ 1, sxy > 0, schan > 0")
    with torch.no_grad():
        images = images.to(probs.dtype) / (math.sqrt(2) * schan)
        smooth, total = torch.zeros_like(probs), 0.0
        for dy in range(min(radius, height - 1) + 1):
            reach = min(radius, width - 1)
            for dx in range(-reach if dy else 1, reach + 1):  # half of the window: k_ij = k_ji
                here = (..., slice(0, height - dy), slice(max(0, -dx), width - max(0, dx)))
                there = (..., slice(dy, height), slice(max(0, dx), width - max(0, -dx)))
                distance = (images[there] - images[here]).square_().sum(1, keepdim=True)
                kernel = distance.add_((dy**2 + dx**2) / (2 * sxy**2)).neg_().exp_()
                smooth[here].addcmul_(kernel, probs[there])
                smooth[there].addcmul_(kernel, probs[here])
                total = total + 2 * kernel.sum()
        agreement = (probs * smooth).sum()
    # Σ_c p_ic (1 − p_jc) = 1 − p_i·p_j, and p·Kp with symmetric K has the gradient 2 Kp: the loop needs no autograd.
    return (total + agreement - 2 * (probs * smooth).sum()) / (n * height * width)


def nt_xent(first: Tensor, second: Tensor, *, temperature: float = 0.5) -> Tensor:
    """SimCLR's loss of embeddings (N, D) of two views: find the other view of an image among 2N − 1. In fp32 or fp64.

    Raises ValueError for N = 1, where there is no negative, unequal shapes, and a temperature that is not positive.
    Source: Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020, Eq. 1.
    """
    if first.ndim != 2 or first.shape != second.shape or len(first) < 2:
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise ValueError(f"embeddings have shapes {shapes}; expected two times (N, D) with N at least 2")
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; expected a positive number")
    with torch.autocast(first.device.type, enabled=False):
        z = torch.cat([first, second])
        z = F.normalize(wide(z))
        itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
        similarity = (z @ z.T / temperature).masked_fill(itself, -torch.inf)
        return F.cross_entropy(similarity, torch.arange(len(z), device=z.device).roll(len(first)))


def fixmatch_loss(weak_logits: Tensor, strong_logits: Tensor, *, threshold: float = 0.95) -> Tensor:
    """Cross entropy of strong views against the class of the weak ones, where that is at least `threshold` probable.

    logits (N, C), C at least 2; the mean is over all N images, also those left out. No gradient reaches weak_logits.
    Raises ValueError for other shapes. Source: Sohn et al., FixMatch, NeurIPS 2020, Eq. 4.
    """
    if weak_logits.ndim != 2 or weak_logits.shape != strong_logits.shape or weak_logits.shape[1] < 2:
        shapes = f"{tuple(weak_logits.shape)} and {tuple(strong_logits.shape)}"
        raise ValueError(f"logits have shapes {shapes}; expected two times (N, C) with C at least 2")
    probs, classes = weak_logits.detach().float().softmax(1).max(1)
    return (F.cross_entropy(strong_logits.float(), classes, reduction="none") * (probs >= threshold)).mean()


def _logits(logits: Tensor, target: int = 0) -> Tensor:
    """The logits in fp32 or wider, after a look at their shape and at `target`."""
    if logits.ndim != 4 or logits.shape[1] < 2:
        raise ValueError(f"logits have shape {tuple(logits.shape)}; expected (N, C, H, W) with at least two classes")
    if not 0 <= target < logits.shape[1]:
        raise ValueError(f"target is {target}; expected a class from 0 to {logits.shape[1] - 1}")
    return wide(logits)


def _bounds(sizes: Tensor, lower: float | Tensor, upper: float | Tensor) -> tuple[Tensor, Tensor]:
    lower, upper = (torch.as_tensor(bound, dtype=sizes.dtype, device=sizes.device) for bound in (lower, upper))
    for name, bound in (("lower", lower), ("upper", upper)):
        if bound.shape not in ((), sizes.shape):
            raise ValueError(f"{name} has shape {tuple(bound.shape)}; expected a number or {tuple(sizes.shape)}")
    lower, upper = lower.expand_as(sizes), upper.expand_as(sizes)
    bad = ~((lower >= 0) & (lower <= upper) & upper.isfinite())
    if bad.any():
        i = int(bad.nonzero()[0])
        raise ValueError(f"bounds of item {i} are [{lower[i]:g}, {upper[i]:g}]; expected 0 ≤ lower ≤ upper, finite")
    return lower, upper


def _check_boxes(boxes: Tensor, shape: tuple[int, int, int]) -> None:
    if boxes.shape != (shape[0], 4):
        raise ValueError(f"boxes have shape {tuple(boxes.shape)}; expected ({shape[0]}, 4)")
    (row0, column0, row1, column1), (_, height, width) = boxes.unbind(1), shape
    fits = (row0 >= 0) & (row0 < row1) & (row1 <= height) & (column0 >= 0) & (column0 < column1) & (column1 <= width)
    bad = ~(fits | (boxes == -1).all(dim=1))
    if bad.any():
        i = int(bad.nonzero()[0])
        expected = f"0 ≤ row0 < row1 ≤ {height} and 0 ≤ column0 < column1 ≤ {width}, or all −1"
        raise ValueError(f"box {i} is {boxes[i].tolist()}; expected {expected}")


def _missing(sizes: Tensor, inside: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    """Squared missing shares, summed over the stripes, and their number; `which`: a line's stripe; all (N, lines)."""
    which = torch.where(inside, which, 0)
    held = torch.zeros_like(sizes).scatter_add(1, which, sizes)
    lines = torch.zeros_like(sizes).scatter_add(1, which, inside.to(sizes.dtype))
    share = (lines - held).relu() / lines.clamp(min=1)
    return share.square().sum(1), (lines > 0).sum(1)
