"""Augmentation as invariance: what may change in an image without a change of its label, drawn for each image anew.

Images (N, C, H, W) in 0…1, and the results are clipped to it. NumPy draws, so that a run repeats. A strength of 0
changes nothing. What torchvision has (flips, RandAugment, …) is taken from there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from skimage.color import rgb_from_hed
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur


def warp(
    images: Tensor,
    rng: np.random.Generator,
    *,
    masks: Tensor | None = None,
    degrees: float = 15,
    scale: float = 0.1,
    shift: float = 0.05,
    elastic: float = 0.0,
) -> tuple[Tensor, Tensor | None]:
    """Images turned, resized, moved and bent, and their masks (N, H, W) likewise; the border goes on outside.

    Up to ± `degrees`, a factor of 1 ± `scale`, ± `shift` as share of the side; elastic: standard deviation, as share of
    the side, of a smooth displacement from 5 × 5 points. Images are bilinear, masks take the nearest class.
    Raises ValueError for other shapes and negative amounts. Source of elastic: Simard et al., ICDAR 2003.
    """
    _check(images, degrees=degrees, scale=scale, shift=shift, elastic=elastic)
    if scale >= 1:
        raise ValueError(f"scale is {scale}; expected less than 1")
    if masks is not None and masks.shape != (len(images), *images.shape[2:]):
        expected = (len(images), *images.shape[2:])
        raise ValueError(f"masks have shape {tuple(masks.shape)}; expected {expected}")
    angle, size = math.radians(degrees) * _draw(images, rng), 1 + scale * _draw(images, rng)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2) / size[:, None, None]
    move = 2 * shift * torch.stack([_draw(images, rng), _draw(images, rng)], 1)[:, :, None]
    grid = F.affine_grid(torch.cat([turn, move], 2), list(images.shape), align_corners=False)
    if elastic:
        bend = F.interpolate(_normal(rng, images, 2, 5, 5), size=images.shape[2:], mode="bicubic", align_corners=True)
        grid = grid + 2 * elastic * bend.permute(0, 2, 3, 1)
    bent = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    if masks is None:
        return bent, None
    nearest = F.grid_sample(
        masks[:, None].to(images.dtype), grid, mode="nearest", padding_mode="border", align_corners=False
    )
    return bent, nearest[:, 0].to(masks.dtype)


def bias_field(images: Tensor, rng: np.random.Generator, *, strength: float = 0.3) -> Tensor:
    """MR: brighter near some coils: times exp(strength · a smooth field from 3 × 3 normal numbers)."""
    _check(images, strength=strength)
    field = F.interpolate(_normal(rng, images, 1, 3, 3), size=images.shape[2:], mode="bicubic", align_corners=True)
    return (images * (strength * field).exp()).clamp(0, 1)


def motion(images: Tensor, rng: np.random.Generator, *, strength: float = 1.5) -> Tensor:
    """MR: ghosts of a patient who breathes up and down by up to ± `strength` pixels while rows of k-space are taken.

    Row k of the Fourier transform is taken when the image is shifted by strength · u · sin(…k…), two to six breaths.
    Source: Wood and Henkelman, Medical Physics 1985.
    """
    _check(images, strength=strength)
    rows = torch.fft.fftfreq(images.shape[2], device=images.device, dtype=images.dtype)[:, None]  # cycles a pixel
    taken = torch.fft.fftshift(torch.linspace(0, 1, images.shape[2], device=images.device))[:, None]
    breaths, phase = 4 + 2 * _draw(images, rng), math.pi * _draw(images, rng)
    where = torch.sin(2 * math.pi * breaths[:, None, None] * taken + phase[:, None, None])  # (N, H, 1)
    away = strength * _draw(images, rng)[:, None, None] * where
    turned = torch.polar(torch.ones_like(away), -2 * math.pi * rows * away)[:, None]
    return torch.fft.ifft(torch.fft.fft(images, dim=2) * turned, dim=2).abs().clamp(0, 1)


def speckle(images: Tensor, rng: np.random.Generator, *, strength: float = 0.2) -> Tensor:
    """Ultrasound: grain that is stronger where the echo is: times 1 + strength · normal noise, a pixel wide."""
    _check(images, strength=strength)
    return (images * (1 + strength * _normal(rng, images, 1, *images.shape[2:]))).clamp(0, 1)


def dose(images: Tensor, rng: np.random.Generator, *, strength: float = 0.1) -> Tensor:
    """X-ray and CT: less dose: noise whose standard deviation is strength · √value, as that of counted photons."""
    _check(images, strength=strength)
    return (images + strength * images.sqrt() * _normal(rng, images, 1, *images.shape[2:])).clamp(0, 1)


def stain(images: Tensor, rng: np.random.Generator, *, strength: float = 0.3) -> Tensor:
    """H&E (N, 3, H, W): thicker or thinner stains: densities of haematoxylin, eosin and rest times 1 ± strength.

    Raises ValueError for images that are not coloured. Source: Tellez et al., IEEE TMI 2018, arXiv 1808.05896; stain
    vectors of Ruifrok and Johnston 2001.
    """
    _check(images, strength=strength)
    if images.shape[1] != 3:
        raise ValueError(f"images have shape {tuple(images.shape)}; expected (N, 3, H, W)")
    vectors = torch.as_tensor(rgb_from_hed, dtype=images.dtype, device=images.device)  # rows: stains, columns: RGB
    density = -images.clamp(min=1 / 255).log().permute(0, 2, 3, 1)
    amounts = density @ torch.linalg.inv(vectors)
    factors = 1 + strength * torch.stack([_draw(images, rng) for _ in range(3)], 1)
    return (-(amounts * factors[:, None, None]) @ vectors).exp().permute(0, 3, 1, 2).clamp(0, 1)


def mixup(images: Tensor, targets: Tensor, rng: np.random.Generator, *, alpha: float = 0.4) -> tuple[Tensor, Tensor]:
    """λ · image + (1 − λ) · another of the batch, and targets (N, classes) of probabilities likewise; λ ~ Beta(α, α).

    Raises ValueError for other shapes and α ≤ 0. Source: Zhang et al., ICLR 2018, arXiv 1710.09412.
    """
    share, other = _mixing(images, targets, rng, alpha)
    mixed = images.lerp(images[other], 1 - share.view(-1, 1, 1, 1))
    return mixed, targets.lerp(targets[other], 1 - share[:, None])


def cutmix(images: Tensor, targets: Tensor, rng: np.random.Generator, *, alpha: float = 1.0) -> tuple[Tensor, Tensor]:
    """A rectangle of another image of the batch in each, and targets (N, classes) mixed by area.

    Its sides are √(1 − λ) of the image's, λ ~ Beta(α, α), around any pixel; what sticks out is cut off. Raises
    ValueError for other shapes and α ≤ 0. Source: Yun et al., ICCV 2019, arXiv 1905.04899.
    """
    share, other = _mixing(images, targets, rng, alpha)
    inside = torch.ones(len(images), 1, 1, dtype=torch.bool, device=images.device)
    for axis, length in ((1, images.shape[2]), (2, images.shape[3])):
        at = torch.arange(length, device=images.device).unsqueeze(2 - axis)
        middle = torch.from_numpy(rng.integers(length, size=len(images))).to(images.device).view(-1, 1, 1)
        inside = inside & ((at - middle).abs() < (length * (1 - share).sqrt() / 2).view(-1, 1, 1))
    kept = 1 - inside.to(images.dtype).mean((1, 2))
    mixed = torch.where(inside[:, None], images[other], images)
    return mixed, targets.lerp(targets[other], 1 - kept[:, None])


def paste(images: Tensor, masks: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Lesions of an image of the batch that has one, where they were, on top of each; masks (N, H, W), 0 is none.

    A batch without lesions stays as it is. Raises ValueError for other shapes. Source: Ghiasi et al., CVPR 2021, arXiv
    2012.07177, without resizing.
    """
    _check(images)
    if masks.shape != (len(images), *images.shape[2:]):
        raise ValueError(f"masks have shape {tuple(masks.shape)}; expected {(len(images), *images.shape[2:])}")
    donors = np.flatnonzero(masks.flatten(1).any(1).cpu().numpy())
    if not len(donors):
        return images, masks
    other = torch.from_numpy(rng.choice(donors, len(images)))
    lesion = masks[other] > 0
    return torch.where(lesion[:, None], images[other], images), torch.where(lesion, masks[other], masks)


def _mixing(images, targets, rng, alpha) -> tuple[Tensor, Tensor]:
    """λ (N,) and the partner (N,) of each image."""
    _check(images)
    if targets.ndim != 2 or len(targets) != len(images) or not targets.is_floating_point():
        told = f"targets have shape {tuple(targets.shape)} and type {targets.dtype}"
        raise ValueError(f"{told}; expected probabilities ({len(images)}, classes)")
    if not alpha > 0:
        raise ValueError(f"alpha is {alpha}; expected a positive number")
    share = rng.beta(alpha, alpha, len(images)).astype(np.float32)
    return torch.from_numpy(share).to(images), torch.from_numpy(rng.permutation(len(images)))


def _draw(images: Tensor, rng: np.random.Generator) -> Tensor:
    """A number from −1 to 1 for each image (N,)."""
    return torch.from_numpy(rng.uniform(-1, 1, len(images)).astype(np.float32)).to(images)


def _normal(rng: np.random.Generator, images: Tensor, *shape: int) -> Tensor:
    """Normal numbers (N, *shape)."""
    return torch.from_numpy(rng.standard_normal((len(images), *shape), np.float32)).to(images)


def mr_changes(images: Tensor, labels: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """All that may happen to MR slices: bent, with their label maps (N, H, W); coil, breath and contrast."""
    images, labels = warp(images, rng, masks=labels, elastic=0.02)
    return recolour(motion(bias_field(images, rng), rng), rng, strength=0.5), labels


def augment(images: Tensor, rng: np.random.Generator, *, strength: float, flips: bool = False) -> Tensor:
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


def recolour(images: Tensor, rng: np.random.Generator, *, strength: float) -> Tensor:
    """Each image (N, C, H, W) in 0…1 with another contrast (a factor of up to 2^±strength) and other colours, clipped.

    Every pixel stays where it is: masks fit. Raises ValueError for another shape, and a strength outside 0…1.
    """
    _check_strength(images, strength)
    return _recoloured(images, rng, strength).clamp(0, 1)


def _recoloured(x: Tensor, rng: np.random.Generator, strength: float) -> Tensor:
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (x - mean) * 2 ** (strength * _uniform(x, rng, -1, 1, 1, 1)) + mean
    return x + 0.3 * strength * _uniform(x, rng, -1, x.shape[1], 1, 1)  # channels differ: the colour changes, too


def random_crop(images: Tensor, rng: np.random.Generator, *, strength: float, flips: bool = False) -> Tensor:
    """A part of each image (N, C, H, W), 1 − strength / 2 to 1 of its sides, anywhere within it, in the old size.

    Nothing is padded. flips: mirror half of the views, and turn half upside down; not where left and right differ, as
    in the chest. Raises ValueError for another shape, and a strength outside 0…1.
    """
    _check_strength(images, strength)
    side = 1 - 0.5 * strength * _uniform(images, rng, 0, 1)
    theta = torch.zeros(len(images), 2, 3, device=images.device)
    theta[:, [0, 1], [0, 1]] = side * _uniform(images, rng, -1, 2).sign() if flips else side
    theta[:, :, 2] = (1 - side) * _uniform(images, rng, -1, 2)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def views(images: Tensor, rng: np.random.Generator, *, strengths: Sequence[float], flips: bool = False) -> Tensor:
    """One view of all images per strength, one after the other: (len(strengths) · N, C, H, W), for `chunk`."""
    return torch.cat([augment(images, rng, strength=strength, flips=flips) for strength in strengths])


def _check_strength(images: Tensor, strength: float) -> None:
    if images.ndim != 4 or not 0 <= strength <= 1:
        raise ValueError(f"images of shape {tuple(images.shape)}, strength {strength}; expected (N, C, H, W) and 0…1")


def _uniform(images: Tensor, rng: np.random.Generator, low: float, *shape: int) -> Tensor:
    """Numbers between low and 1, (N, *shape) for N images."""
    return torch.from_numpy(rng.uniform(low, 1, (len(images), *shape)).astype(np.float32)).to(images.device)


def _patches(images: Tensor, side: Tensor, centre: Tensor) -> Tensor:
    """Masks (N, 1, H, W) of rectangles with `side` (N,) as share of both sides around `centre` (N, 2) in −1…1."""
    inside = []
    for length, middle in zip(images.shape[2:], centre.T, strict=True):
        position = (2 * torch.arange(length, device=images.device) + 1) / length - 1
        inside.append((position - middle[:, None]).abs() < side[:, None])
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]


def _check(images: Tensor, **amounts: float) -> None:
    if images.ndim != 4 or not images.is_floating_point():
        told = f"images have shape {tuple(images.shape)} and type {images.dtype}"
        raise ValueError(f"{told}; expected numbers (N, C, H, W) in 0…1")
    for name, amount in amounts.items():
        if not 0 <= amount < math.inf:
            raise ValueError(f"{name} is {amount}; expected 0 or more")
