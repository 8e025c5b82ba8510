"""Views of unlabelled images, and the losses of self- and semi-supervision that compare them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torchvision.transforms.functional import gaussian_blur


def augment(images: torch.Tensor, rng: np.random.Generator, *, strength: float, flips: bool = False) -> torch.Tensor:
    """Another view of each image (N, C, H, W) in 0…1: crop, contrast, brightness, blur, noise, and a patch cut out.

    strength 0…1 scales everything: 0 changes nothing, 0.2 gives weak views (at least 90 % of each side seen, brightness
    ± 0.06), 1 strong ones (at least 50 %, ± 0.3). flips: see `random_crop`. NumPy draws, so that a run repeats.
    Raises ValueError for another shape or strength. Sources: Chen et al., ICML 2020, Appendix A (crop, colour, blur);
    DeVries and Taylor, arXiv 1708.04552 (cutout).
    """
    cropped = random_crop(images, rng, strength=strength, flips=flips)
    x = _recoloured(cropped, rng, strength)
    sigma = 0.02 * min(x.shape[2:])
    x = x.lerp(gaussian_blur(x, 2 * int(2 * sigma) + 3, sigma), strength * _uniform(x, rng, 0, 1, 1, 1))
    noise = torch.from_numpy(rng.standard_normal(x.shape, np.float32)).to(x.device)
    x = x + 0.05 * strength * _uniform(x, rng, 0, 1, 1, 1) * noise
    patch = _patches(x, 0.4 * strength * _uniform(x, rng, 0), _uniform(x, rng, -1, 2))
    return torch.where(patch, cropped.mean((1, 2, 3), keepdim=True), x).clamp(0, 1)


def recolour(images: torch.Tensor, rng: np.random.Generator, *, strength: float) -> torch.Tensor:
    """Each image (N, C, H, W) in 0…1 with another contrast (a factor of up to 2^±strength) and other colours, clipped.

    Every pixel stays where it is: masks fit. Raises ValueError for another shape, and a strength outside 0…1.
    """
    _check(images, strength)
    return _recoloured(images, rng, strength).clamp(0, 1)


def _recoloured(x: torch.Tensor, rng: np.random.Generator, strength: float) -> torch.Tensor:
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (x - mean) * 2 ** (strength * _uniform(x, rng, -1, 1, 1, 1)) + mean
    return x + 0.3 * strength * _uniform(x, rng, -1, x.shape[1], 1, 1)  # channels differ: the colour changes, too


def random_crop(
    images: torch.Tensor, rng: np.random.Generator, *, strength: float, flips: bool = False
) -> torch.Tensor:
    """A part of each image (N, C, H, W), 1 − strength / 2 to 1 of its sides, anywhere within it, in the old size.

    Nothing is padded. flips: mirror half of the views, and turn half upside down; not where left and right differ, as
    in the chest. Raises ValueError for another shape, and a strength outside 0…1.
    """
    _check(images, strength)
    side = 1 - 0.5 * strength * _uniform(images, rng, 0, 1)
    theta = torch.zeros(len(images), 2, 3, device=images.device)
    theta[:, [0, 1], [0, 1]] = side * _uniform(images, rng, -1, 2).sign() if flips else side
    theta[:, :, 2] = (1 - side) * _uniform(images, rng, -1, 2)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def views(
    images: torch.Tensor, rng: np.random.Generator, *, strengths: Sequence[float], flips: bool = False
) -> torch.Tensor:
    """One view of all images per strength, one after the other: (len(strengths) · N, C, H, W), for `chunk`."""
    return torch.cat([augment(images, rng, strength=strength, flips=flips) for strength in strengths])


def _check(images: torch.Tensor, strength: float) -> None:
    if images.ndim != 4 or not 0 <= strength <= 1:
        raise ValueError(f"images of shape {tuple(images.shape)}, strength {strength}; expected (N, C, H, W) and 0…1")


def _uniform(images: torch.Tensor, rng: np.random.Generator, low: float, *shape: int) -> torch.Tensor:
    """Numbers between low and 1, (N, *shape) for N images."""
    return torch.from_numpy(rng.uniform(low, 1, (len(images), *shape)).astype(np.float32)).to(images.device)


def _patches(images: torch.Tensor, side: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
    """Masks (N, 1, H, W) of rectangles with `side` (N,) as share of both sides around `centre` (N, 2) in −1…1."""
    inside = []
    for length, middle in zip(images.shape[2:], centre.T, strict=True):
        position = (2 * torch.arange(length, device=images.device) + 1) / length - 1
        inside.append((position - middle[:, None]).abs() < side[:, None])
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]


def nt_xent(first: torch.Tensor, second: torch.Tensor, *, temperature: float = 0.5) -> torch.Tensor:
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
        z = F.normalize(z.to(torch.promote_types(z.dtype, torch.float32)))
        itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
        similarity = (z @ z.T / temperature).masked_fill(itself, -torch.inf)
        return F.cross_entropy(similarity, torch.arange(len(z), device=z.device).roll(len(first)))


def fixmatch_loss(weak_logits: torch.Tensor, strong_logits: torch.Tensor, *, threshold: float = 0.95) -> torch.Tensor:
    """Cross entropy of strong views against the class of the weak ones, where that is at least `threshold` probable.

    logits (N, C), C at least 2; the mean is over all N images, also those left out. No gradient reaches weak_logits.
    Raises ValueError for other shapes. Source: Sohn et al., FixMatch, NeurIPS 2020, Eq. 4.
    """
    if weak_logits.ndim != 2 or weak_logits.shape != strong_logits.shape or weak_logits.shape[1] < 2:
        shapes = f"{tuple(weak_logits.shape)} and {tuple(strong_logits.shape)}"
        raise ValueError(f"logits have shapes {shapes}; expected two times (N, C) with C at least 2")
    probs, classes = weak_logits.detach().float().softmax(1).max(1)
    return (F.cross_entropy(strong_logits.float(), classes, reduction="none") * (probs >= threshold)).mean()
