"""Files of masks, instances and scribbles as integers, and what these integers mean.

How files store them, by greys, palettes, colours or alpha: `readers.codings`. JPEG is refused: it changes values.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.data.image_set import UNLABELLED
from helpers.data.readers.codings import Coding, coding, numbers, opaque_part
from helpers.data.readers.pictures import header, opened, translate

LOSSLESS = (".png", ".tif", ".tiff", ".bmp")
MANY = 16  # more grey values than this are no classes
SOFT = 32  # of classes without names the largest number is below
WHITE = (255, 65535)


@dataclass(frozen=True)
class Meaning:
    """What stored numbers stand for.

    names: of 0, 1, …. values: {stored: class}, as `legend` gives it. structure: the number that is kept as 1, all else
    becomes 0; 0 keeps all. codings: how the files of each kind store numbers.
    """

    names: tuple[str, ...] = ()
    values: dict | None = None
    structure: int = 0
    codings: dict[str, Coding] = field(default_factory=dict)

    @property
    def shown(self) -> tuple[str, ...]:
        """The names of the classes that are left."""
        if not self.structure:
            return self.names or ("background", "lesion")
        return "background", self.names[self.structure] if self.names else f"number {self.structure}"


def meaning(
    maps: dict[str, Iterable[Iterable[Path]]], names=(), values: dict | None = None, structure: int = 0
) -> Meaning:
    """What the numbers in the masks of a folder stand for; maps: the files of each image, by kind.

    Raises ValueError as `legend` and `coding` do, and for a `structure` beside `values` or without a name.
    """
    names, known = tuple(names), legend(values, tuple(names))
    if structure and known is not None:
        raise ValueError(f"structure is {structure} beside values; expected one of them, as both say what is a class")
    if structure and names and structure >= len(names):
        raise ValueError(
            f"structure is {structure}; expected 1 to {len(names) - 1}, as mask_names has {', '.join(names)}"
        )
    if known is not None and any(isinstance(key, str) for key in known):
        return Meaning(names, known)
    asked = known or range(len(names)) or {structure} - {0}
    codings = {
        kind: coding((file for files in of_kind for file in files), () if kind == "instances" else asked)
        for kind, of_kind in maps.items()
    }
    return Meaning(names, known, structure, codings)


def read_labels(
    file: Path, values: dict | None = None, *, page: int | None = None, code: Coding | None = None
) -> np.ndarray:
    """Integers (H, W) of a file, as stored, or the classes that `values` (see `legend`) makes of them.

    code: how the files of its folder store numbers; by default as this one tells. Raises ValueError for an unreadable
    file, JPEG, colours without `values`, and a value that is not in `values`.
    """
    if file.suffix.lower() not in LOSSLESS:
        raise ValueError(f"mask '{file}' is {file.suffix[1:].upper()}; expected PNG or TIFF, which keep values")
    if lossy := header(file).lossy:
        raise ValueError(f"mask '{file}' is {lossy} inside; expected PNG or TIFF without it, which keep values")
    image = opened(file, page)
    if values is not None and any(isinstance(key, str) for key in values):
        return _of_colours(file, image, values)
    stored = numbers(image, coding([file], values or ()) if code is None else code, str(file)).astype(np.int32)
    return stored if values is None else translate(str(file), stored, values)


def read_mask(file: Path, means: Meaning, *, page: int | None = None) -> tuple[np.ndarray, list]:
    """Classes (H, W) of a mask, uint8, and the stored values. Without names or values all but 0 is 1.

    With two names 255 is as good as 1. Grey values as JPEG or a resize make them of two are parted at half of the
    largest; there are more than two stored values then, and the classes are 0 and 1. Raises ValueError for these where
    one structure is asked for.
    """
    names, code = means.names, means.codings.get("masks")
    if means.values is not None or len(names) > 2:
        known = means.values if means.values is not None else {i: i for i in range(len(names))}
        classes = read_labels(file, known, page=page, code=code)
        present = np.unique(classes).tolist()
        return (classes == means.structure).astype(np.uint8) if means.structure else classes, present
    stored = read_labels(file, page=page, code=code)
    present = np.unique(stored).tolist()
    if means.structure:
        if is_noisy(present):
            raise ValueError(
                f"mask '{file}' holds {len(present)} values, as JPEG or a resize makes them of few; structure is "
                f"{means.structure}, expected masks that hold whole numbers of structures"
            )
        return (stored == means.structure).astype(np.uint8), present
    if is_noisy(present):
        return (stored > present[-1] / 2).astype(np.uint8), present
    if names and not (present[-1] in WHITE and set(present) <= {0, present[-1]}):
        return translate(str(file), stored, {0: 0, 1: 1}), present
    return (stored != 0).astype(np.uint8), present


def read_scribbles(file: Path, means: Meaning, *, page: int | None = None) -> np.ndarray:
    """Classes (H, W), uint8; UNLABELLED where nothing is said."""
    known, code = means.values, means.codings.get("scribbles")
    if known is None and means.names:
        known = {i: i for i in range(len(means.names))}
    if known is not None and not any(isinstance(key, str) for key in known):
        known = {UNLABELLED: UNLABELLED} | known
    classes = read_labels(file, known, page=page, code=code)
    if classes.max() > UNLABELLED:
        raise ValueError(f"scribbles '{file}' hold {classes.max()}; expected 0 to {UNLABELLED}, which is unlabelled")
    if not means.structure:
        return classes.astype(np.uint8)
    return np.where(classes == UNLABELLED, UNLABELLED, classes == means.structure).astype(np.uint8)


def is_noisy(present: list) -> bool:
    """Whether grey values are two that JPEG or a resize has blurred: many, or some close to both ends."""
    top = present[-1]
    near = any(0 < value <= 0.1 * top for value in present), any(0.9 * top <= value < top for value in present)
    return top >= 128 and len(present) > 2 and (all(near) or len(present) > MANY)


def is_graded(present: list) -> bool:
    """Whether grey values are so many, or so large, that they may be more than the numbers of a few structures."""
    return len(present) > 2 and (present[-1] >= SOFT or len(present) > MANY) and not is_noisy(present)


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


def _of_colours(file: Path, image: Image.Image, values: dict[str, int]) -> np.ndarray:
    """Classes (H, W) by colour; what is transparent is 0."""
    rgb = np.asarray(image.convert("RGB")).astype(int)
    packed = rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]
    opaque = opaque_part(image)
    inside = np.ones(packed.shape, bool) if opaque is None else opaque
    classes = np.zeros(packed.shape, np.uint8)
    for value in np.unique(packed[inside]).tolist():
        name = f"#{value:06x}"
        if name not in values:
            raise ValueError(f"mask '{file}' holds the colour {name}; expected only {', '.join(values)}")
        classes[inside & (packed == value)] = values[name]
    return classes
