"""Fully connected conditional random field: probabilities refined so that near, alike pixels share a class."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from scipy.linalg import toeplitz
from scipy.ndimage import gaussian_filter
from scipy.sparse import csr_array

Kernel = Callable[[np.ndarray], np.ndarray]  # q (H·W,) → Σ_j k(f_i, f_j) q_j, j = i included, up to one factor
DENSITY = 1.5  # grid cells per sigma
REACH = 5  # of the grid's blur, in cells
STRIP = 2**18  # cells of the grid that are blurred at a time: 1 MB
EXACT_PIXELS = 64 * 64
MOST = 2**28  # cells of a grid or pairs of pixels: 1 GB an array


def dense_crf(
    probs: ArrayLike,
    image: ArrayLike,
    *,
    sxy: float = 3.0,
    schan: float = 10.0,
    compat: float = 10.0,
    smooth_sxy: float = 3.0,
    smooth_compat: float = 0.0,
    iterations: int = 10,
    backend: str = "grid",
) -> np.ndarray:
    """Refined probs (C, H, W), float32: mean field of a fully connected CRF with Potts compatibility.

    The unary energy is -log probs, probs ≥ 1e-5. Pixels win `compat` · exp(-|Δxy|² / 2 sxy² - |ΔI|² / 2 schan²)
    by sharing a class, and `smooth_compat` · exp(-|Δxy|² / 2 smooth_sxy²) whatever their intensities; both kernels are
    normalised symmetrically. sxy is in pixels, schan in the units of the image (H, W), (H, W, 3) or (3, H, W).
    `backend` is "grid", "exact" (see `mean_field_exact`) or "pydensecrf", an optional package: less exact, and faster
    for colour images with a large sxy. Raises ValueError for bad input, ImportError without that package.
    Source: Krähenbühl & Koltun, NeurIPS 2011, Algorithm 1.
    """
    positive = {"sxy": sxy, "schan": schan, "smooth_sxy": smooth_sxy}
    probs, image = _checked(probs, image, positive, compat=compat, smooth_compat=smooth_compat, iterations=iterations)
    xy = np.indices(probs.shape[1:], np.float32)
    smooth, features = xy / np.float32(smooth_sxy), np.concatenate([xy / np.float32(sxy), image / np.float32(schan)])
    if backend == "pydensecrf":
        return _pydensecrf(probs, [(compat, features), (smooth_compat, smooth)], iterations)
    if backend == "exact":
        kernels = [(compat, _exact_kernel(features)), (smooth_compat, _exact_kernel(smooth))]
    elif backend == "grid":
        blur = partial(gaussian_filter, sigma=smooth_sxy, mode="constant")
        kernels = [(compat, _bilateral(features, sxy)), (smooth_compat, lambda q: blur(q.reshape(xy[0].shape)).ravel())]
    else:
        raise ValueError(f"backend is {backend!r}; expected 'grid', 'exact' or 'pydensecrf'")
    return _mean_field(probs, [(np.float32(weight), kernel) for weight, kernel in kernels if weight], iterations)


def mean_field_exact(probs: ArrayLike, image: ArrayLike, **options: float) -> np.ndarray:
    """`dense_crf` with its options, summed over all (H·W)² pairs; raises ValueError for more than 64 × 64 pixels."""
    return dense_crf(probs, image, backend="exact", **options)


def _mean_field(probs: np.ndarray, kernels: list[tuple[np.float32, Kernel]], iterations: int) -> np.ndarray:
    """Q ← softmax(log probs + Σ_m w_m D^-½ K_m D^-½ Q) with D = diag(K_m 1), `iterations` times.

    The last class is what the others leave of 1: logits are relative to its own, and it needs no filtering.
    """
    unary = np.log(probs.reshape(len(probs), -1))
    unary = unary[:-1] - unary[-1]
    scaled = [(weight, kernel, kernel(np.ones_like(unary[0])) ** np.float32(-0.5)) for weight, kernel in kernels]
    scaled = [(weight * scale, kernel, scale, kernel(scale)) for weight, kernel, scale in scaled]
    q = _softmax(unary)
    for _ in range(iterations):
        logits = unary.copy()
        for weight, kernel, scale, total in scaled:
            messages = np.stack([kernel(scale * channel) for channel in q])
            logits += weight * (messages + (messages.sum(0) - total))
        q = _softmax(logits)
    return np.concatenate([q, 1 - q.sum(0, keepdims=True)]).clip(0, 1).reshape(probs.shape)


def _softmax(logits: np.ndarray) -> np.ndarray:
    """The first C - 1 probs, from their logits relative to the last class's."""
    exp = np.exp(np.minimum(logits, 80))
    return exp / (1 + exp.sum(0))


def _exact_kernel(features: np.ndarray) -> Kernel:
    if features[0].size > EXACT_PIXELS:
        raise ValueError(f"the image has {features[0].size} pixels; expected at most {EXACT_PIXELS} for all pairs")
    distance2 = sum((feature[:, None] - feature) ** 2 for feature in features.reshape(len(features), -1))
    return np.exp(-distance2 / 2).__matmul__


def _bilateral(features: np.ndarray, sxy: float) -> Kernel:
    """On a grid, or pair by pair in a window where that takes fewer products: small sxy, many colours."""
    step = max(1, round(sxy / DENSITY))  # whole pixels, so that interpolation blurs all of them alike
    y, x = (np.indices(features.shape[1:], np.float32) + (step - 1) / 2) / step
    density = 1.75 if len(features) == 3 and sxy > 6 else DENSITY  # few cells: they may be finer
    grid = [y + REACH, x, *(density * (features[2:] - features[2:].min((1, 2), keepdims=True)))]
    shape = [int(feature.max()) + 2 for feature in grid]
    shape[0] += REACH
    offsets = _offsets(features.shape[1:], (3 if len(features) == 3 else 2.5) * sxy)  # colour leaves less in the tail
    cells, pairs = float(np.prod(shape, dtype=float)), features[0].size * len(offsets)
    if min(cells, pairs) > MOST:
        raise ValueError(
            f"sxy and schan need {cells:.0e} cells or {pairs:.0e} pairs; expected at most {MOST:.0e} of one"
        )
    if pairs <= MOST and pairs < cells * len(shape):
        return _window_kernel(features, offsets)
    return _grid_kernel(grid, shape, [sxy / step, sxy / step, *[density] * len(grid[2:])])


def _grid_kernel(features: list[np.ndarray], shape: list[int], sigmas: list[float]) -> Kernel:
    """Bilateral grid: splat to the 2^d corners of a cell, blur each axis, slice; features and sigmas in cells.

    Rows of cells have REACH empty ones before and after them. They are blurred in strips that fit in the cache.
    Source: Paris & Durand, IJCV 2009.
    """
    columns, weights, blurs = np.zeros((features[0].size, 1), np.int32), np.float32([[1]]), []
    for feature, size, sigma in zip(features, shape, sigmas, strict=True):
        low = np.floor(feature.reshape(-1, 1))
        high = feature.reshape(-1, 1) - low
        columns = columns * np.int32(size) + low.astype(np.int32)
        columns = np.concatenate([columns, columns + 1], 1)
        weights = np.concatenate([weights * (1 - high), weights * high], 1)
        variance = sigma**2 - 2 * float((high * (1 - high)).mean())  # splat and slice blur, too
        x = np.arange(size + REACH)
        blurs.append(np.where(x <= REACH, np.exp(-(x**2) / 2 / variance), 0).astype(np.float32))
    rows = np.arange(0, columns.size + 1, columns.shape[1], dtype=np.int32)
    slicer = csr_array((weights.ravel(), columns.ravel(), rows), shape=(len(columns), int(np.prod(shape))))
    splat, depth = slicer.T, int(np.prod(shape[2:]))
    bands = [toeplitz(blur[:size]) for blur, size in zip(blurs[2:], shape[2:], strict=True)]
    taps = [torch.from_numpy(np.concatenate([blur[REACH:0:-1], blur[: REACH + 1]])) for blur in blurs[:2]]
    down, right = taps[0].expand(depth, 1, -1)[..., None], taps[1].expand(depth, 1, 1, -1)
    blurred, height = np.zeros(shape, np.float32), max(1, STRIP // (shape[1] * depth))

    def kernel(q: np.ndarray) -> np.ndarray:
        cells = torch.from_numpy(splat @ q).view(1, *shape[:2], depth).permute(0, 3, 1, 2)  # channels last
        for top in range(0, shape[0] - 2 * REACH, height):
            strip = F.conv2d(cells[:, :, top : top + height + 2 * REACH], down, groups=depth)
            strip = F.conv2d(strip, right, padding=(0, REACH), groups=depth).permute(0, 2, 3, 1).numpy()
            for axis, band in enumerate(bands, 2):
                strip = strip.reshape(-1, shape[axis], int(np.prod(shape[axis + 1 :])))
                strip = band @ strip if strip.shape[2] > 1 else strip[..., 0] @ band
            rows = blurred[top + REACH : top + REACH + height][: shape[0] - 2 * REACH - top]
            rows[:] = strip.reshape(rows.shape)
        return slicer @ blurred.ravel()

    return kernel


def _offsets(shape: tuple[int, int], reach: float) -> np.ndarray:
    """Half of the offsets (Δy, Δx) within reach and the image; the other half are their opposites."""
    y, x = np.mgrid[: min(int(reach) + 1, shape[0]), 1 - shape[1] : shape[1]]
    return np.argwhere(((y > 0) | (x > 0)) & (y**2 + x**2 <= reach**2)) - [0, shape[1] - 1]


def _window_kernel(features: np.ndarray, offsets: np.ndarray) -> Kernel:
    """Sum over pairs of pixels. A margin of zeros keeps a shift of the flat image from wrapping into the next row."""
    shape, margin = features.shape[1:], int(np.abs(offsets[:, 1]).max(initial=0))
    flat = np.pad(features, ((0, 0), (0, 0), (0, margin)), mode="edge").reshape(len(features), -1)
    table = []
    for shift in (offsets @ [shape[1] + margin, 1]).tolist():
        energy = sum((feature[shift:] - feature[:-shift]) ** 2 for feature in flat)
        energy *= -0.5
        table.append((shift, np.exp(np.maximum(energy, -30, out=energy), out=energy)))  # no slow denormal numbers

    def kernel(q: np.ndarray) -> np.ndarray:
        q = np.pad(q.reshape(shape), ((0, 0), (0, margin))).ravel()
        total, buffer = q.copy(), np.empty_like(q)
        for shift, weight in table:
            total[:-shift] += np.multiply(weight, q[shift:], out=buffer[shift:])
            total[shift:] += np.multiply(weight, q[:-shift], out=buffer[shift:])
        return total.reshape(shape[0], -1)[:, : shape[1]].ravel()

    return kernel


def _pydensecrf(probs: np.ndarray, pairwise: list[tuple[float, np.ndarray]], iterations: int) -> np.ndarray:
    try:
        from pydensecrf.densecrf import DenseCRF2D
    except ImportError as error:
        raise ImportError("backend 'pydensecrf' needs pydensecrf2: pip install \".[pydensecrf]\"") from error
    crf = DenseCRF2D(*probs.shape[:0:-1], len(probs))
    crf.setUnaryEnergy(-np.log(probs.reshape(len(probs), -1)))
    for weight, features in pairwise:
        if weight:
            crf.addPairwiseEnergy(features.reshape(len(features), -1), weight)
    return np.array(crf.inference(iterations), np.float32).reshape(probs.shape)


def _checked(probs, image, positive: dict, **not_negative: float) -> tuple[np.ndarray, np.ndarray]:
    """Probs, at least 1e-5, and the image as (1 or 3, H, W), both float32."""
    probs, image = np.asarray(probs, np.float32), np.asarray(image, np.float32)
    if probs.ndim != 3 or len(probs) < 2 or probs.size == 0:
        raise ValueError(f"probs have shape {probs.shape}; expected (C, H, W) with two classes or more")
    size = probs.shape[1:]
    axes = {size: (0, 1), (3, *size): (0, 1, 2), (*size, 3): (2, 0, 1)}
    if image.shape not in axes:
        raise ValueError(f"the image has shape {image.shape}; expected {' or '.join(map(str, axes))} as the probs have")
    if not (np.isfinite(image).all() and np.isfinite(probs).all()):
        raise ValueError("NaN or infinity in the probs or the image; expected finite numbers")
    worst = float(np.abs(probs.sum(0) - 1).max())
    if probs.min() < 0 or worst > 1e-3:
        raise ValueError(f"the least prob is {probs.min():.3g}, sums miss 1 by {worst:.2g}; expected ≥ 0, sums of 1")
    for name, value in (positive | not_negative).items():
        if not 0 <= value < np.inf or (name in positive and value == 0):
            raise ValueError(f"{name} is {value}; expected a finite number {'> 0' if name in positive else '≥ 0'}")
    image = image.transpose(axes[image.shape]).reshape(-1, *size)
    return np.maximum(probs, np.float32(1e-5), order="C"), np.ascontiguousarray(image)
