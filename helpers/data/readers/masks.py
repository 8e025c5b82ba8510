"""Files of masks, instances and scribbles as integers: what their greys, palettes, colours and alpha mean.

The rules. Grey values are as stored; of a palette the greys count if all its colours are grey, else the indices. What
is transparent is background; if all that is opaque has one colour, its shape is the mask. JPEG is refused: it changes
values. Colours mean nothing by themselves: `values` says which is which.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from helpers.data.readers.pictures import GREY, alpha_of, opened, translate

LOSSLESS = (".png", ".tif", ".tiff", ".bmp")
MANY = 16  # more grey values than this are no classes
WHITE = (255, 65535)


def read_labels(file: Path, values: dict | None = None, *, page: int | None = None) -> np.ndarray:
    """Integers (H, W) of a file, as stored, or the classes that `values` (see `legend`) makes of them.

    Raises ValueError for an unreadable file, JPEG, colours without `values`, and a value that is not in `values`.
    """
    if file.suffix.lower() not in LOSSLESS:
        raise ValueError(f"mask '{file}' is {file.suffix[1:].upper()}; expected PNG or TIFF, which keep values")
    image = opened(file, page)
    alpha = alpha_of(image)
    opaque = alpha > alpha.max() / 2 if alpha is not None and alpha.min() < alpha.max() else None
    if values is not None and any(isinstance(key, str) for key in values):
        return _of_colours(file, image, opaque, values)
    if opaque is not None and len(_colours(image, opaque)) == 1:
        stored = np.where(opaque, 255, 0)
    else:
        stored = _greys(file, image, values)
        stored = stored if opaque is None else np.where(opaque, stored, 0)
    return stored.astype(np.int32) if values is None else translate(str(file), stored, values)


def read_mask(
    file: Path, names: tuple[str, ...], values: dict | None, *, page: int | None = None
) -> tuple[np.ndarray, list]:
    """Classes (H, W) of a mask, uint8, and the stored values. Without names or values all but 0 is 1.

    With two names 255 is as good as 1. Grey values as JPEG or a resize make them of two are parted at half of the
    largest; there are more than two stored values then, and the classes are 0 and 1.
    """
    if values is not None or len(names) > 2:
        known = values if values is not None else {i: i for i in range(len(names))}
        classes = read_labels(file, known, page=page)
        return classes, np.unique(classes).tolist()
    stored = read_labels(file, page=page)
    present = np.unique(stored).tolist()
    if is_noisy(present):
        return (stored > present[-1] / 2).astype(np.uint8), present
    if names and not (present[-1] in WHITE and set(present) <= {0, present[-1]}):
        return translate(str(file), stored, {0: 0, 1: 1}), present
    return (stored != 0).astype(np.uint8), present


def is_noisy(present: list) -> bool:
    """Whether grey values are two that JPEG or a resize has blurred: many, or some close to the ends."""
    top = present[-1]
    near = [value for value in present[:-1] if 0 < value <= 0.1 * top or value >= 0.9 * top]
    return top >= 128 and len(present) > 2 and (bool(near) or len(present) > MANY)


def legend(values: dict | None, names: tuple[str, ...]) -> dict | None:
    """{stored: class} from {grey, (red, green, blue) or "#rrggbb": number or name}; with a colour all are "#rrggbb".

    Raises ValueError for a key that is neither, and for a class that is not in `names`.
    """
    if values is None:
        return None
    keys = {key: _colour(key) for key in values}
    coloured = any(not isinstance(key, int) for key in values)
    found = {}
    for key, name in values.items():
        known = names.index(name) if name in names else name
        if isinstance(known, bool) or not isinstance(known, int) or not 0 <= known < (len(names) or 255):
            raise ValueError(
                f"values has the class {name!r}; expected a number or one of {', '.join(names) or 'names'}"
            )
        found[keys[key] if coloured else key] = known
    return found


def _colour(key) -> str:
    if (
        isinstance(key, str)
        and len(key) == 7
        and key[0] == "#"
        and all(c in "0123456789abcdef" for c in key[1:].lower())
    ):
        return key.lower()
    parts = (key,) * 3 if isinstance(key, int) else key
    if not (isinstance(parts, tuple) and len(parts) == 3 and all(isinstance(p, int) and p >= 0 for p in parts)):
        raise ValueError(f"values has the key {key!r}; expected a grey value, (red, green, blue) or '#rrggbb'")
    return "#" + "".join(f"{part:02x}" for part in parts)


def _greys(file: Path, image: Image.Image, values: dict | None) -> np.ndarray:
    """Grey values (H, W); of a palette with colours its indices."""
    if image.mode in ("P", "PA"):
        return _palette(file, image, values)
    stored = np.asarray(image if image.mode in GREY else image.convert("RGB"))
    if stored.ndim == 3:
        if (stored != stored[..., :1]).any():
            shown = ", ".join(_colours(image)[:4])
            raise ValueError(
                f"mask '{file}' is coloured ({shown}); expected grey values, or values={{'#rrggbb': class, …}}"
            )
        return stored[..., 0]
    if stored.dtype.kind == "f" and not (stored == np.rint(stored)).all():
        raise ValueError(f"mask '{file}' holds {stored[stored != np.rint(stored)][0]:g}; expected integers")
    if stored.min() < 0:
        raise ValueError(f"mask '{file}' holds {stored.min()}; expected integers from 0")
    return stored


def _palette(file: Path, image: Image.Image, values: dict | None) -> np.ndarray:
    """The greys of a palette if it is grey, but the indices where only they, in the same order, are in `values`."""
    indices = np.asarray(image.getchannel("P") if image.mode == "PA" else image)
    rgb = np.asarray(image.convert("RGB"))
    used, first = np.unique(indices, return_index=True)
    colours = rgb.reshape(-1, 3)[first].astype(int)
    if (colours == colours[:, :1]).all():
        known = set(values or ())
        rises = (np.diff(colours[:, 0]) > 0).all()
        as_index = rises and set(used.tolist()) <= known and not set(colours[:, 0].tolist()) <= known
        return indices if as_index else rgb[..., 0]
    black = used[(colours == 0).all(axis=1)]
    if (black != 0).any():
        raise ValueError(
            f"mask '{file}' has a palette in which black is number {black.max()}, not 0, so that its numbers may be "
            f"out of order; expected values={{'#rrggbb': class, …}}, which go by colour"
        )
    return indices


def _of_colours(file: Path, image: Image.Image, opaque: np.ndarray | None, values: dict[str, int]) -> np.ndarray:
    """Classes (H, W) by colour; what is transparent is 0."""
    rgb = np.asarray(image.convert("RGB")).astype(int)
    packed = rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]
    inside = np.ones(packed.shape, bool) if opaque is None else opaque
    classes = np.zeros(packed.shape, np.uint8)
    for value in np.unique(packed[inside]).tolist():
        name = f"#{value:06x}"
        if name not in values:
            raise ValueError(f"mask '{file}' holds the colour {name}; expected only {', '.join(values)}")
        classes[inside & (packed == value)] = values[name]
    return classes


def _colours(image: Image.Image, inside: np.ndarray | None = None) -> list[str]:
    """The colours of a picture as "#rrggbb"."""
    if image.mode in GREY[2:]:
        return []
    rgb = np.asarray(image.convert("RGB"))
    pixels = rgb.reshape(-1, 3) if inside is None else rgb[inside]
    return ["#" + "".join(f"{part:02x}" for part in colour) for colour in np.unique(pixels, axis=0).tolist()]
