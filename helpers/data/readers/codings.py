"""What palettes, colours and alpha of mask files stand for, told from all files of a folder.

One file may hold too few colours to tell: an empty mask, or one class of three. The rules. Of palettes the greys count
if all colours in use are grey, else the indices. What is transparent is background; if all that is opaque, in all
files, has one colour that is black or no grey, its shape is the mask. Other colours mean nothing by themselves:
`values` says which is which.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.data.readers.pictures import GREY, alpha_of, header, opened

BLACK = "#000000"


@dataclass(frozen=True)
class Coding:
    """How mask files store numbers: palettes by index (else by grey), drawings as opaque shapes (else by grey)."""

    by_index: bool = False
    shapes: bool = False


def coding(files: Iterable[Path], known: Collection[int] = ()) -> Coding:
    """How these files, masks of one kind, store numbers; `known` are those that are asked for, none if any will do.

    Damaged files are passed over: whoever reads them says so. Raises ValueError for palettes that contradict each
    other, or in which black is not 0.
    """
    palettes: dict[tuple[int, str], Path] = {}  # index and colour, and the first file that uses them
    opaque: list[set[str]] = []
    for file in files:
        try:
            head = header(file)
            image = opened(file, 0) if head.palette or head.transparent else None
        except ValueError:
            continue
        if head.palette:
            palettes = dict.fromkeys(_in_use(image), file) | palettes
        elif image is not None and (inside := opaque_part(image)) is not None:
            opaque.append(set(colours_of(image, inside)))
    seen = set().union(*opaque)
    shapes = len(seen) == 1 and all(len(one) < 2 for one in opaque) and (BLACK in seen or not all(map(_is_grey, seen)))
    return Coding(_by_index(palettes, set(known)), shapes)


def numbers(image: Image.Image, code: Coding, name: str) -> np.ndarray:
    """The integers (H, W) that a decoded mask stores. Raises ValueError for colours, fractions, and below 0."""
    inside = opaque_part(image)
    if code.shapes and inside is not None:
        return np.where(inside, 255, 0)
    if image.mode in ("P", "PA") and code.by_index:
        stored = np.asarray(image.getchannel("P") if image.mode == "PA" else image)
    else:
        stored = np.asarray(image if image.mode in GREY else image.convert("RGB"))
    if stored.ndim == 3:
        if np.ptp(stored if inside is None else stored[inside], axis=-1).any():
            shown = ", ".join(colours_of(image, inside)[:4])
            raise ValueError(
                f"mask '{name}' is coloured ({shown}); expected grey values, or values={{'#rrggbb': class, …}}"
            )
        stored = stored[..., 0]
    if stored.dtype.kind == "f" and not (stored == np.rint(stored)).all():
        raise ValueError(f"mask '{name}' holds {stored[stored != np.rint(stored)][0]:g}; expected integers")
    if stored.min() < 0:
        raise ValueError(f"mask '{name}' holds {stored.min()}; expected integers from 0")
    return stored if inside is None else np.where(inside, stored, 0)


def opaque_part(image: Image.Image) -> np.ndarray | None:
    """Where a picture is opaque (H, W), nowhere if all is transparent; None if nothing is."""
    alpha = alpha_of(image)
    if alpha is None or alpha.min() == alpha.max() > 0:
        return None
    return alpha > alpha.max() / 2


def colours_of(image: Image.Image, inside: np.ndarray | None = None) -> list[str]:
    """The colours of a picture, or of a part (H, W) of it, as "#rrggbb"."""
    rgb = np.asarray(image.convert("RGB"))
    return list(map(_hex, np.unique(rgb.reshape(-1, 3) if inside is None else rgb[inside], axis=0).tolist()))


def _in_use(image: Image.Image) -> list[tuple[int, str]]:
    """The indices of a palette that a picture uses where it is opaque, each with its colour."""
    inside = opaque_part(image)
    indices = np.asarray(image.getchannel("P") if image.mode == "PA" else image)
    inside = np.ones(indices.shape, bool) if inside is None else inside
    used, first = np.unique(indices[inside], return_index=True)
    return list(zip(used.tolist(), map(_hex, np.asarray(image.convert("RGB"))[inside][first].tolist()), strict=True))


def _by_index(palettes: dict[tuple[int, str], Path], known: set[int]) -> bool:
    """Whether indices count: where colours are no greys, or only the indices, in the same order, are what is asked."""
    pairs = sorted(palettes)
    if all(_is_grey(colour) for _, colour in pairs):
        indices, greys = [index for index, _ in pairs], [int(colour[1:3], 16) for _, colour in pairs]
        rises = all(np.diff(indices) > 0) and all(np.diff(greys) > 0)
        all_asked = set(indices) <= known | {0} and not set(greys) <= known | {0}
        asked_there = known <= set(indices) and not known <= set(greys)
        return bool(known) and rises and (all_asked or asked_there)
    for index, colour in pairs:
        if colour == BLACK and index:
            raise ValueError(
                f"mask '{palettes[index, colour]}' has a palette in which black is number {index}, not 0, so that its "
                "numbers may be out of order; expected values={'#rrggbb': class, …}, which go by colour"
            )
    for (index, one), (other, another) in zip(pairs, pairs[1:], strict=False):
        if known and index == other:
            raise ValueError(
                f"number {index} is {one} in the palette of '{palettes[index, one]}' and {another} in that of "
                f"'{palettes[index, another]}'; expected one palette, or values={{'#rrggbb': class, …}}"
            )
    return True


def _hex(colour: list[int]) -> str:
    return "#" + "".join(f"{part:02x}" for part in colour)


def _is_grey(colour: str) -> bool:
    return colour[1:3] == colour[3:5] == colour[5:]
