"""Files of pictures and of labels, as arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


def read_image(file: Path, *, colour: bool = False, scaled: bool = True) -> np.ndarray:
    """An image (1, H, W), or (3, H, W) with colour; float32 in 0…1, or as stored: uint8, uint16 or float32.

    Scaled: integers are divided by the largest value of their type. Without colour, the channels are averaged.
    """
    pixels = _open(file, ("P", "RGBA", "LA", "CMYK"))
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    if pixels.dtype.kind in "iu" and pixels.dtype.itemsize > 1:
        if pixels.min() < 0 or pixels.max() > 65535:
            raise ValueError(f"'{file.name}' holds {pixels.min()} to {pixels.max()}; expected 8 or 16 bits")
        pixels = pixels.astype(np.uint16)
    top = 1 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
    dtype = np.dtype(np.float32) if scaled or pixels.dtype.kind == "f" else pixels.dtype
    if scaled:
        pixels = pixels.astype(np.float32) / top
    if colour:
        return np.moveaxis(pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2), 2, 0).astype(dtype)
    if pixels.ndim == 3:
        grey = pixels.mean(axis=2, dtype=np.float32)
        pixels = grey if dtype.kind == "f" else np.rint(grey)
    return pixels.astype(dtype)[None]


def read_labels(file: Path, values: dict[int, int] | None = None) -> np.ndarray:
    """Integers (H, W) of a file, as stored (of a palette, the indices), or what `values` makes of them.

    Raises ValueError for an unreadable file, colours that are not grey, and a value that is not in `values`.
    """
    stored = _open(file, ("RGBA", "LA", "CMYK"))
    if stored.ndim == 3:
        if (stored != stored[..., :1]).any():
            raise ValueError(f"mask '{file.name}' is coloured; expected one channel of integers")
        stored = stored[..., 0]
    return stored.astype(np.int32) if values is None else translate(file, stored, values)


def translate(file: Path, stored: np.ndarray, values: dict[int, int]) -> np.ndarray:
    """uint8 classes of stored values; ValueError names the file and a value that is not in `values`."""
    present = np.unique(stored).tolist()
    if unknown := [value for value in present if value not in values]:
        raise ValueError(f"mask '{file.name}' holds {unknown[0]}; expected only {', '.join(map(str, sorted(values)))}")
    classes = np.zeros(stored.shape, np.uint8)
    for value in present:
        classes[stored == value] = values[value]
    return classes


def _open(file: Path, to_rgb: tuple[str, ...]) -> np.ndarray:
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB") if image.mode in to_rgb else image)
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"'{file.name}' cannot be read as an image; expected PNG, JPEG or TIFF") from error


def numbered(identifiers: list) -> np.ndarray:
    """Running numbers in place of the identifiers, which are not kept."""
    return np.unique(identifiers, return_inverse=True)[1]
