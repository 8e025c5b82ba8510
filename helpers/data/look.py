"""What is understood of a folder of scans: `python -m helpers.data PATH` prints it and draws a contact sheet.

File names appear in what is printed, on this machine; on the sheet images have numbers only, and no identifier
of a patient is kept.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from helpers.data import checks, words
from helpers.data.image_set import ImageSet
from helpers.data.options import check_options, check_whole
from helpers.data.own import assembled, boxed, from_folder, picture
from helpers.data.readers.files import some
from helpers.data.readers.masks import meaning
from helpers.data.readers.names import at_home, find, folders_of, given_names
from helpers.data.resample import letterboxed
from helpers.data.sources import kinds_of, own
from helpers.data.takes import held, takers

TILE, MOST = 128, 48  # pixels of an image on the sheet, and how many of them
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")  # Okabe and Ito
TINY = 4  # pixels of a class that may be a slip of the hand


@dataclass
class Seen:
    """A set with what only its files tell: formats, sizes in pixels, pixels of each class, and what is suspicious.

    folders: images in each folder, where these may be classes. chapters: the numbers of those that take it as it is.
    """

    data: ImageSet
    formats: str
    sizes: list[tuple[int, int]]
    pixels: np.ndarray | None
    suspicious: list[str] = field(default_factory=list)
    folders: dict[str, int] = field(default_factory=dict)
    chapters: list[str] = field(default_factory=list)


def described(path: Path, *, size: int | None = None, **options) -> Seen:
    """Reads a folder, or one volume or DICOM file; files that cannot be read are among what is suspicious.

    options: csv, classes, mask_names, series, as the readers take them. Raises ValueError as they do where nothing can
    be understood, and for an option of another kind of files.
    """
    check_whole(1, size=size)
    path = at_home(path)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        kinds = kinds_of(path) if path.is_dir() else {}
        if not path.exists():
            raise ValueError(f"there is no '{path}'; expected a folder of scans, or a file")
        if list(kinds) == ["pictures"]:
            check_options(path.name, from_folder, options)
            seen = _pictures(path, options.get("csv"), options.get("classes", ()), tuple(options.get("mask_names", ())))
        else:
            data = own(path, size, options)
            formats = ", ".join(f"{len(files)} files of {kind}" for kind, files in kinds.items()) or "one file"
            seen = Seen(data, formats, [data.images.shape[2:]] * len(data), _pixels_of_masks(data))
    seen.suspicious = [*dict.fromkeys(str(one.message) for one in told), *seen.suspicious]
    if kinds and not options.get("csv"):  # which no chapter takes
        seen.chapters = [name[:2] for name in takers(held(path, options.get("classes", ())))]
    return seen


def _pictures(root: Path, csv, classes: tuple[str, ...], names: tuple[str, ...]) -> Seen:
    found, read, prints, good, bad = find(root, csv=csv, classes=classes), [], [], [], []
    means = meaning(found.maps, names)
    for i in range(len(found.files)):
        try:
            one = picture(found, i, means)
        except ValueError as error:
            bad.append(str(error))
            continue
        good.append(i)
        prints.append(checks.fingerprint(one.image))
        read.append(boxed(one, TILE))
    if not good:
        raise ValueError(bad[0])
    found = found.part(np.array(good))
    data = assembled(found, read, means, size=None)
    formats = Counter(file.suffix[1:].upper() for file in dict.fromkeys(found.files))
    seen = Seen(data, ", ".join(f"{count} {name}" for name, count in formats.items()), [p.shape for p in read], None)
    seen.folders = folders_of(found)
    seen.suspicious = [*bad, *checks.suspicions(data, found, read, prints, means)]
    if data.masks is not None:
        classes = max(len(data.mask_names), *(len(p.sizes) for p in read))
        seen.pixels = np.array([p.sizes + [0] * (classes - len(p.sizes)) for p in read])
        tiny = [
            file for file, row in zip(found.files, seen.pixels[:, 1:], strict=True) if ((row > 0) & (row < TINY)).any()
        ]
        seen.suspicious += [f"masks of {some(tiny, root)} have a class of fewer than {TINY} pixels"] * bool(tiny)
    return seen


def _pixels_of_masks(data: ImageSet) -> np.ndarray | None:
    if data.masks is None:
        return None
    classes = max(len(data.mask_names), int(data.masks.max()) + 1)
    return np.array([np.bincount(mask.ravel(), minlength=classes) for mask in data.masks])


def lines(seen: Seen) -> list[str]:
    """What is understood, a fact a line, and then what is suspicious."""
    data, shapes = seen.data, sorted(set(seen.sizes))
    low, high = data.value_range
    size = " to ".join(f"{h}×{w}" for h, w in dict.fromkeys((shapes[0], shapes[-1])))
    alone = data.patients is None or len(np.unique(data.patients)) == 1
    several = f", {len(shapes)} sizes: chapters bring them to one" * (len(shapes) > 1)
    found = [
        f"files      {seen.formats}",
        f"images     {len(data)}" + f", volumes: {len(np.unique(data.volumes))}" * (data.volumes is not None),
        f"size       {size} pixels (rows×columns){several}",
        f"values     {data.images.min():g} to {data.images.max():g}; {low:g} is shown black, {high:g} white",
        f"spacing    {_spacing(data)}",
        f"patients   {words.patients_in_words(data)}" + "; a split goes by image" * alone,
        f"classes    {_unknown(seen.folders) if data.labels is None else words.classes_in_words(data)}",
    ]
    found += [f"masks      {line}" for line in _masks(seen)]
    found += [f"read so    {step}" for step in data.steps]
    found += [f"look at    {sentence}" for sentence in seen.suspicious or ["nothing suspicious"]]
    return found + [f"chapters   {', '.join(seen.chapters)} take it as it is"] * bool(seen.chapters)


def _unknown(folders: dict[str, int]) -> str:
    """That there are no classes, and what to say if the folders are some."""
    if len(folders) < 2:
        return "unknown; folders named normal and abnormal tell, or --classes"
    there = ", ".join(f"{name} {count}" for name, count in folders.items())
    return f'unknown; if the folders are classes ({there}): --classes "{", ".join(folders)}", the one to detect last'


def _spacing(data: ImageSet) -> str:
    known = (
        [] if data.spacing is None else sorted({tuple(pair) for pair in np.round(data.spacing, 3) if pair.min() > 0})
    )
    if not known:
        return "unknown"
    text = " to ".join(f"{row:g}×{column:g}" for row, column in dict.fromkeys((known[0], known[-1]))) + " mm a pixel"
    gap = None if data.slice_spacing is None else data.slice_spacing[0]
    return text + (f", {gap:g} mm from slice to slice" if gap is not None and np.isfinite(gap) else "")


def _masks(seen: Seen) -> list[str]:
    if seen.pixels is None:
        return ["none"]
    known = seen.data.mask_names or range(seen.pixels.shape[1])
    found = []
    for number in range(1, seen.pixels.shape[1]):
        column = seen.pixels[:, number][seen.pixels[:, number] > 0]
        spread = f", {column.min()} to {column.max()} pixels, half below {np.median(column):.0f}" if len(column) else ""
        found.append(f"{known[number]}: in {len(column)} images{spread}")
    empty = int((seen.pixels[:, 1:].sum(axis=1) == 0).sum())
    return [*found, f"{empty} of {len(seen.pixels)} are empty"]


def sheet(data: ImageSet) -> Image.Image:
    """At most 48 images with their outlines; below each its number, and its class."""
    chosen = np.unique(np.linspace(0, len(data) - 1, min(MOST, len(data))).round().astype(int))
    small = letterboxed(data[chosen], TILE)
    across = min(8, len(chosen))
    page = Image.new("RGB", (across * (TILE + 4), -(-len(chosen) // across) * (TILE + 18) + 18), "white")
    pen = ImageDraw.Draw(page)
    for k, pixels in enumerate(small.tensor().numpy()):
        grey = np.moveaxis(pixels if len(pixels) == 3 else np.repeat(pixels[:1], 3, 0), 0, 2)
        tile = (grey * 255).round().astype(np.uint8)
        if small.masks is not None:
            _outline(tile, small.masks[k])
        x, y = k % across * (TILE + 4), k // across * (TILE + 18)
        page.paste(Image.fromarray(tile), (x, y))
        name = data.class_names[data.labels[chosen[k]]] if data.class_names else ""
        pen.text((x + 2, y + TILE + 2), f"{chosen[k] + 1} {name}"[:20], "black")
    for number, name in enumerate(data.mask_names[1:]):
        pen.text((2 + 110 * number, page.height - 15), name[:16], COLOURS[number % len(COLOURS)])
    return page


def _outline(tile: np.ndarray, mask: np.ndarray) -> None:
    """Colours the inner border of each class."""
    wide = np.pad(mask, 1, constant_values=0)
    inside = [
        wide[1:-1, 1:-1] == wide[r : r + len(mask), c : c + len(mask)] for r, c in ((0, 1), (2, 1), (1, 0), (1, 2))
    ]
    border = (mask > 0) & ~np.logical_and.reduce(inside)
    for number in np.unique(mask[border]).tolist():
        colour = COLOURS[(number - 1) % len(COLOURS)]
        tile[border & (mask == number)] = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m helpers.data", description="says what is understood of a folder")
    parser.add_argument("path", type=Path, help="pictures, one volume or one DICOM series")
    parser.add_argument("--csv", help="a file in the folder with the columns file and patient")
    parser.add_argument("--classes", nargs="+", help="names of the folders that are classes")
    parser.add_argument("--mask-names", nargs="+", help="what 0, 1, … are in the masks")
    parser.add_argument("--series", type=int, help="which one, where a folder holds several of DICOM")
    parser.add_argument("--size", type=int, help="pixels a side, where the slices of volumes differ in size")
    parser.add_argument("--out", type=Path, default=Path("runs/look.png"), help="the contact sheet (runs/look.png)")
    asked = vars(parser.parse_args())
    path, out, size = at_home(asked.pop("path")), at_home(asked.pop("out")), asked.pop("size")
    try:
        _check_out(out, path)
        options = {name: value for name, value in asked.items() if value is not None}
        for name in {"classes", "mask_names"} & set(options):
            options[name] = given_names(name, ",".join(options[name]))
        seen = described(path, size=size, **options)
        print(*lines(seen), sep="\n")
        _write(sheet(seen.data), out)
    except MemoryError:
        sys.exit(f"error: '{path}' needs more memory than is free; give a smaller --size, or a part of it")
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")
    print(f"sheet      {out}")


def _check_out(out: Path, path: Path) -> None:
    """Raises ValueError for a sheet that might replace one of the scans, or be taken for one the next time."""
    if out.suffix.lower() != ".png":
        raise ValueError(f"--out is '{out}'; expected a file that ends in .png")
    here, scans = out.resolve(), path.resolve()
    if here.is_relative_to(scans) or (path.is_file() and here.parent == scans.parent):
        raise ValueError(f"the sheet '{out}' would lie among the scans in '{path}'; give another place by --out")


def _write(page: Image.Image, out: Path) -> None:
    """Whole or not at all: a sheet that was there before stays until the new one is complete."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.part")
    try:
        page.save(part, "PNG")
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
