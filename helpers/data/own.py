"""Folders of pictures, the reader's own or a public set, with classes by folder or CSV, and masks by their names.

What is a mask of which image: `readers.layout`. What its values mean: `readers.masks`. What is suspicious: `checks`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from helpers.data import checks
from helpers.data.image_set import ImageSet
from helpers.data.readers.masks import Meaning, is_noisy, meaning, read_labels, read_mask, read_scribbles
from helpers.data.readers.names import Found, find, given_names
from helpers.data.readers.pictures import as_image, header, pixels_of, range_used
from helpers.data.readers.volumes import span
from helpers.data.resample import FILL, LETTERBOXED, letterbox, stack


@dataclass(frozen=True)
class Picture:
    """An image (C, H, W) and its maps (H, W) by kind, with what is known of them before they are resized.

    dtype, smallest, largest: of the stored values. values: what the mask holds as stored. sizes: pixels of each class
    of the mask. corners: whether all four of them are marked. levels: how many different values it has, or more than
    `checks.FEW`.
    turned: whether EXIF turns the image and no map of it, or a map and not the image.
    """

    image: np.ndarray
    maps: dict[str, np.ndarray]
    dtype: np.dtype
    smallest: float
    largest: float
    shape: tuple[int, int]
    values: list
    sizes: list[int]
    corners: bool
    levels: int
    turned: bool


def from_folder(
    data_dir: str | Path,
    *,
    size: int | None = None,
    csv=None,
    classes=(),
    mask_names=(),
    values: dict | None = None,
    structure: int = 0,
    colour=False,
    scaled=True,
) -> ImageSet:
    """Pictures of a folder (or of `images/` in it) as float32 in 0…1, with the labels, patients and masks there are.

    classes: the names of the folders that are classes (or a text with commas), one on each path; by default normal (0)
    and abnormal (1), or MURA's `…/patient00001/study1_positive/image1.png`; without any of them there are no labels.
    csv: a file in the folder with the columns file and patient, perhaps label and scanner; only what it names is read.
    Patients, of the CSV or of names that hold `patient` and a number, become running numbers. The pages of a TIFF are
    slices of a volume, and of one patient.

    mask_names: what 0, 1, … are; without them all that is not 0 is a lesion. values: {stored grey, (r, g, b) or
    "#rrggbb": class}, where masks hold something else. structure: the number in the masks to keep as 1, all else
    becomes background; 0 keeps all. Masks are found as `readers.layout` says, and read as `readers.codings` and
    `readers.masks` say. size: pad to a square and resize. colour: three channels, not their mean. scaled: False keeps
    8 and 16 bits. Of 16 bits those that are used, 8, 10, 12 or 14, make the range; floats outside 0…1 keep their values
    and value_range is their 0.5th to 99.5th percentile. `steps` say what was understood.

    Warns, with names of files, of masks that are missing, belong to no image, are blurred or look inverted, of images
    that look the same, that have no patient where others have one, that EXIF turns but not their masks, or of several
    bit depths, and of classes too small for a split. Raises
    ValueError for a folder without images, an image without a class where others have one, an unreadable file, images
    of several sizes where `size` is not given, a mask that does not fit, and more than the memory holds.
    """
    found, names = find(data_dir, csv=csv, classes=classes), given_names("mask_names", mask_names)
    read, prints, means = [], [], meaning(found.maps, names, values, structure)
    for i in range(len(found.files)):
        one = picture(found, i, means, colour=colour, scaled=scaled)
        prints.append(checks.fingerprint(one.image))
        read.append(one if size is None else boxed(one, size))
        checks.fits_memory(found.root, read[-1].image.nbytes, len(found.files), len(read))
    data = assembled(found, read, means, scaled=scaled, size=size)
    if structure and (data.masks is None or not data.masks.any()):
        raise ValueError(
            f"structure is {structure}, but no mask of '{found.root.name}' holds it; expected one that is drawn"
        )
    for sentence in checks.suspicions(data, found, read, prints, means):
        warnings.warn(sentence, stacklevel=2)
    return data


def assembled(found: Found, read: list[Picture], means: Meaning, *, scaled=True, size: int | None) -> ImageSet:
    """The pictures of a folder as one set; they are of one size, `size` where they were boxed."""
    images, value_range, steps = _in_range(found, read, scaled)
    maps = {kind: stack(found.root.name, [p.maps[kind] for p in read], None) for kind in found.maps}
    return ImageSet(
        name="own-folder",
        modality="unknown",
        images=images,
        value_range=value_range,
        **maps,
        **found.known,
        mask_names=means.shown if {"masks", "scribbles"} & set(maps) else (),
        licence="the reader's own",
        steps=(*steps, *_understood(found, read, means), *(LETTERBOXED.format(size),) * bool(size)),
    )


def picture(found: Found, i: int, means: Meaning, *, colour=False, scaled=True) -> Picture:
    """Image `i` of a folder and its maps, at their own size."""
    file, page = found.files[i], found.pages[i]
    pixels = pixels_of(file, page)
    image, maps, present = as_image(pixels, colour=colour, scaled=scaled), {}, []
    for kind, files in found.maps.items():
        maps[kind], stored = _merged(kind, files[i], file, page, image.shape[1:], means)
        present = stored if kind == "masks" else present
    mask = maps.get("masks", np.zeros((2, 2), np.uint8))
    drawings = [one for files in found.maps.values() for one in files[i]]
    return Picture(
        image=image,
        maps=maps,
        dtype=pixels.dtype,
        smallest=float(pixels.min()),
        largest=float(pixels.max()),
        shape=image.shape[1:],
        values=present,
        sizes=np.bincount(mask.ravel()).tolist(),
        corners=bool(mask[[0, 0, -1, -1], [0, -1, 0, -1]].all()),
        levels=checks.levels(pixels),
        turned=any(header(file).turned != header(one).turned for one in drawings),
    )


def _merged(kind: str, files: list[Path], image: Path, page, shape, means: Meaning) -> tuple[np.ndarray, list]:
    """The maps of one kind of an image as one, empty where there is none, and their stored values."""
    if kind == "instances" and len(files) > 1:
        raise ValueError(f"'{files[0]}' and '{files[1]}' are instances of one image; expected one file")
    whole, present = np.full(shape, FILL[kind], np.int32 if kind == "instances" else np.uint8), set()
    for file in files:
        array, stored = _read_map(kind, file, page, means)
        if array.shape != shape:
            raise ValueError(
                f"{kind.rstrip('s')} '{file}' has shape {array.shape}; expected that of '{image.name}', {shape}"
            )
        drawn = array != FILL[kind]
        if (clash := drawn & (whole != FILL[kind]) & (whole != array)).any():
            row, column = np.argwhere(clash)[0].tolist()
            raise ValueError(f"'{file}' and another of '{image.name}' say two classes at row {row}, column {column}")
        whole[drawn] = array[drawn]
        present |= set(stored)
    return whole, sorted(present)


def _read_map(kind: str, file: Path, page, means: Meaning) -> tuple[np.ndarray, list]:
    if kind == "masks":
        return read_mask(file, means, page=page)
    if kind == "scribbles":
        return read_scribbles(file, means, page=page), []
    return read_labels(file, page=page, code=means.codings.get(kind)), []


def boxed(picture: Picture, size: int) -> Picture:
    """The same, padded to a square and resized."""
    black = min(0.0, float(picture.image.min()))  # below 0 in units of their own
    image = letterbox(picture.image, size, fill=black)
    maps = {k: letterbox(m, size, fill=FILL[k], nearest=True) for k, m in picture.maps.items()}
    return replace(picture, image=image, maps=maps)


def _in_range(found: Found, read: list[Picture], scaled: bool) -> tuple[np.ndarray, tuple[float, float], list[str]]:
    """All images, the values that become 0 and 1, and what was done to them."""
    images = stack(found.root.name, [p.image for p in read], None)
    floats, sixteen = (np.array([p.dtype == dtype for p in read]) for dtype in (np.float32, np.uint16))
    steps = ["scaled to 0…1"] * scaled
    if floats.any() and (images[floats].min() < 0 or images[floats].max() > 1):
        if not floats.all():
            one, other = found.files[floats.argmax()], found.files[floats.argmin()]
            raise ValueError(f"'{one}' holds floats outside 0…1, '{other}' integers; expected one kind")
        return images, span(images, (0.5, 99.5)), ["floats as stored; the range is their 0.5th to 99.5th percentile"]
    if not sixteen.any():
        return images, (0.0, 1.0) if images.dtype.kind == "f" else (0, int(np.iinfo(images.dtype).max)), steps
    deep = [p for p in read if p.dtype == np.uint16]
    low, high = range_used(min(p.smallest for p in deep), max(p.largest for p in deep))
    steps += [f"of 16 bits {int(high - low).bit_length()} are used"] * (high - low < 65535)
    if scaled and high - low < 65535:
        images[sixteen] = ((images[sixteen] * 65535 - low) / np.float32(high - low)).clip(0)
    return images, (0.0, 1.0) if scaled else (low, high), steps


def _understood(found: Found, read: list[Picture], means: Meaning) -> list[str]:
    """What the stored values of masks were taken for, and how many masks were merged or are missing."""
    if "masks" not in found.maps:
        return []
    present = sorted(set().union(*(p.values for p in read)))
    shown = ", ".join(map(str, present[:8])) + ", …" * (len(present) > 8)
    names, drawn = means.names, means.shown[1]
    if means.values is not None or len(names) > 2:
        steps = [f"masks hold the classes {', '.join(names[v] if names else str(v) for v in present)}"]
        steps += [f"kept is {drawn}"] * bool(means.structure)
    elif means.structure:
        steps = [f"masks hold {shown}: kept is {drawn}"]
    elif any(is_noisy(p.values) for p in read if p.values):
        steps = [f"masks hold {shown}: what is above half of the largest is {drawn}"]
    else:
        steps = [f"masks hold {shown}: all but 0 is {drawn}"]
    several, none = (sum(map(test, found.maps["masks"])) for test in (lambda f: len(f) > 1, lambda f: not f))
    steps += [f"several masks of an image merged, in {several}"] * bool(several)
    return steps + [f"no mask file for {none} of {len(read)}: taken as empty"] * bool(none)
