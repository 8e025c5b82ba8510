"""Changes of the pixel grid, explicit and recorded in `steps`; masks, instances and scribbles are not interpolated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from helpers import geometry
from helpers.data.image_set import UNLABELLED, ImageSet

FILL = {"masks": 0, "instances": 0, "scribbles": UNLABELLED}  # what lies outside an image
LETTERBOXED = "padded to a square and resized to {} pixels"  # steps
CENTRED = "cropped or padded to the central {} pixels"


def resize(array: np.ndarray, shape: tuple[int, int], *, nearest: bool = False) -> np.ndarray:
    """An array (…, H, W) at `shape` (rows, columns) in its own type: bilinear with antialiasing, or nearest."""
    if nearest:
        rows, columns = (
            ((np.arange(new) + 0.5) * old / new).astype(int) for old, new in zip(array.shape[-2:], shape, strict=True)
        )
        return array[..., rows[:, None], columns]
    flat = torch.from_numpy(array.reshape(1, -1, *array.shape[-2:]).astype(np.float32))
    smooth = F.interpolate(flat, shape, mode="bilinear", antialias=True).numpy().reshape(*array.shape[:-2], *shape)
    return _as_type(smooth, array.dtype)


def centre(array: np.ndarray, size: int, *, fill: float = 0) -> np.ndarray:
    """The central `size` × `size` pixels of an array (…, H, W), surrounded by `fill` where it is smaller."""
    square = np.full((*array.shape[:-2], size, size), fill, array.dtype)
    spans = [(min(n, size), (n - size) // 2 if n > size else 0, max(0, (size - n) // 2)) for n in array.shape[-2:]]
    source = tuple(slice(start, start + length) for length, start, _ in spans)
    target = tuple(slice(start, start + length) for length, _, start in spans)
    square[(..., *target)] = array[(..., *source)]
    return square


def letterbox(array: np.ndarray, size: int, *, fill: float = 0, nearest: bool = False) -> np.ndarray:
    """An array (…, H, W) centred on a square of `fill` and resized to (…, size, size), in its own type."""
    if nearest:
        return resize(centre(array, max(array.shape[-2:]), fill=fill), (size, size), nearest=True)
    square, _ = geometry.letterbox(torch.from_numpy(array.astype(np.float32)), size, fill=float(fill))
    return _as_type(square.numpy(), array.dtype)


def stack(where: str, arrays, size: int | None, *, kind: str = "images", crop: bool = False) -> np.ndarray:
    """Images (C, H, W), or what lies on their grid (H, W), as one array, letterboxed or cropped to `size` if given.

    kind: "images", "masks", "instances" or "scribbles". Raises ValueError for images of several types, and of several
    sizes where `size` is None; `where` is the name of their place.
    """
    if kind == "images" and len(types := sorted({array.dtype.name for array in arrays})) > 1:
        raise ValueError(f"'{where}' holds images of {' and '.join(types)}; expected one type")
    shapes = sorted({array.shape[-2:] for array in arrays})
    if size is None and len(shapes) > 1:
        raise ValueError(f"'{where}' holds images of {len(shapes)} sizes, {shapes[0]} to {shapes[-1]}; give a size")
    if size is not None and crop:
        arrays = [centre(array, size, fill=FILL.get(kind, 0)) for array in arrays]
    elif size is not None:
        arrays = [letterbox(array, size, fill=FILL.get(kind, 0), nearest=kind != "images") for array in arrays]
    return np.stack(arrays)


def letterboxed(data: ImageSet, size: int) -> ImageSet:
    """All images padded to a square and resized to `size` pixels; the spacing grows or shrinks with the pixels."""
    spacing = None if data.spacing is None else data.spacing * max(data.images.shape[2:]) / size
    change = [lambda array, **how: letterbox(array, size, **how)] * len(data)
    return _changed(data, change, spacing, LETTERBOXED.format(size))


def centred(data: ImageSet, size: int) -> ImageSet:
    """The central `size` × `size` pixels of all images, padded where they are smaller; the spacing stays."""
    change = [lambda array, nearest, **how: centre(array, size, **how)] * len(data)
    return _changed(data, change, data.spacing, CENTRED.format(size))


def respaced(data: ImageSet, mm: float, size: int) -> ImageSet:
    """All images resampled to pixels of `mm` × `mm`, then their central `size` × `size` pixels.

    Raises ValueError if the spacing of an image is unknown, or `mm` is not positive.
    """
    if not mm > 0:
        raise ValueError(f"the spacing asked for is {mm} mm; expected a positive number")
    if data.spacing is None or not (data.spacing > 0).all():
        raise ValueError(f"the spacing of '{data.name}' is unknown for some images; expected mm for all of them")
    change = [lambda array, pair=pair, **how: respace(array, pair, mm, size, **how) for pair in data.spacing]
    step = f"resampled to {mm:g} mm", CENTRED.format(size)
    return _changed(data, change, np.full((len(data), 2), float(mm)), *step)


def respace(array: np.ndarray, spacing, mm: float, size: int, *, fill: float = 0, nearest=False) -> np.ndarray:
    """An array (…, H, W) of pixels of `spacing` mm (rows, columns) at `mm`, its central `size` × `size` pixels."""
    shape = tuple(max(1, round(n * old / mm)) for n, old in zip(array.shape[-2:], spacing, strict=True))
    return centre(resize(array, shape, nearest=nearest), size, fill=fill)


def _changed(data: ImageSet, change: list[Callable], spacing, *steps: str) -> ImageSet:
    """`data` after change[i] of image i and of all that lies on its grid; outside, it is black."""
    black = np.clip(data.value_range[0], data.images.min(), data.images.max())
    pixels = {"images": [c(a, fill=black, nearest=False) for c, a in zip(change, data.images, strict=True)]}
    for field, fill in FILL.items():
        if (arrays := getattr(data, field)) is not None:
            pixels[field] = [c(a, fill=fill, nearest=True) for c, a in zip(change, arrays, strict=True)]
    stacked = {field: np.stack(arrays) for field, arrays in pixels.items()}
    return replace(data, **stacked, spacing=spacing, steps=(*data.steps, *steps))


def _as_type(pixels: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return pixels.astype(dtype) if dtype.kind == "f" else np.rint(pixels).astype(dtype)
