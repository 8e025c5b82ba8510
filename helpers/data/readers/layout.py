"""Which files of a folder are images, and which masks, instances and scribbles belong to them.

The rule. A mask has the name of its image, as it is or with a word for masks before or after it (NAME_mask, NAME-seg_1,
mask_NAME), and lies beside it, or in a folder named for masks on the same path (images/a/1.png, masks/a/1.png), or in
one such folder for all if the name is there once. Upper and lower case, the suffix, and how Unicode composes letters do
not matter. Several masks of an image are one mask. Hidden files and folders are not there.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections import defaultdict
from pathlib import Path

from helpers.data.readers.masks import LOSSLESS
from helpers.data.readers.pictures import SUFFIXES

KINDS = dict.fromkeys(("mask", "masks", "label", "labels", "seg", "segmentation", "segmentations", "gt"), "masks")
KINDS |= {"annotation": "masks", "annotations": "masks", "instances": "instances", "scribbles": "scribbles"}
IMAGES = {"image", "images", "img", "imgs"}
NOT_READ = {".gif", ".webp", ".jp2", ".heic", ".avif"}  # pictures all the same
_WORD = r"(?:mask|segmentation|seg|label|gt|groundtruth|annotation)s?"
_AFTER = re.compile(rf"(.+?)[\s_.-]+{_WORD}(?:[\s_.-]*\(?\d+\)?)?", re.IGNORECASE)
_BEFORE = re.compile(rf"{_WORD}(?:[\s_.-]+|(?=\d))(.+)", re.IGNORECASE)
_IMAGE = re.compile(r"(?:image|img)s?(?:[\s_.-]+|(?=\d))(.+)|(.+?)[\s_.-]+(?:image|img)", re.IGNORECASE)


def visible(folder: Path) -> list[Path]:
    """The files of a folder, sorted, without those that are hidden or lie in hidden folders."""
    found = ((f, f.relative_to(folder).parts) for f in folder.rglob("*") if f.is_file())
    return sorted(f for f, parts in found if not any(p.startswith(".") or p == "__MACOSX" for p in parts))


def composed(text: str) -> str:
    """A name in one form of Unicode: é is one letter, not e and an accent."""
    return unicodedata.normalize("NFC", text)


def plain(text: str) -> str:
    """A name as names are compared: composed, without upper case."""
    return composed(text).casefold()


def some(files: list[Path], root: Path) -> str:
    """At most three files in words, as paths in `root`."""
    shown = ", ".join(f"'{f.relative_to(root).as_posix()}'" for f in files[:3])
    return shown + (f" and {len(files) - 3} more" if len(files) > 3 else "")


def divided(
    root: Path, base: Path, classes: tuple[str, ...] = (), suffixes: tuple[str, ...] = SUFFIXES
) -> tuple[list[Path], dict[str, list[Path]]]:
    """The images in `base`, and the files of masks, instances and scribbles by kind; `classes` are not their folders.

    Warns of pictures that are not read. Raises ValueError for a mask beside the images that belongs to none of them.
    """
    images, maps, ignored = [], {kind: [] for kind in dict.fromkeys(KINDS.values())}, []
    taken = {plain(name) for name in classes}
    for file in visible(root):
        folders = [plain(part) for part in file.relative_to(root).parts[:-1]]
        kind = next((KINDS[part] for part in folders if part in KINDS and part not in taken), None)
        if kind:
            maps[kind].append(file)
        elif file.is_relative_to(base):
            images += [file] * (file.suffix.lower() in suffixes)
            ignored += [file] * (file.suffix.lower() in NOT_READ)
    if ignored:
        warnings.warn(f"left out: {some(ignored, root)}; pictures are {', '.join(SUFFIXES)}", stacklevel=4)
    beside = [file for file in images if _without_word(_stem(file))]
    others = [file for file in images if not _without_word(_stem(file))]
    belongs = {file for found in paired(root, others, beside) for file in found}
    strays = [file for file in beside if file not in belongs]
    if maps["masks"]:  # then what belongs to no image is one: images/a_label.png, masks/a_label.png
        others, strays = sorted([*others, *strays]), []
    if strays:
        raise ValueError(
            f"{some(strays, root)} has the name of a mask, but there is no image "
            f"'{_without_word(_stem(strays[0]))}' beside it; expected both, or another name"
        )
    maps["masks"] += [file for file in beside if file in belongs]
    return others, {kind: files for kind, files in maps.items() if files}


def paired(root: Path, images: list[Path], maps: list[Path]) -> list[list[Path]]:
    """For each image the files of `maps` that belong to it. Raises ValueError for a file that fits several images."""
    found = [[] for _ in images]
    indexes = [defaultdict(list) for _ in range(4)]
    for i, image in enumerate(images):
        for index, key in zip(indexes, _keys(root, image, _IMAGE), strict=True):
            index[key].append(i)
    for file in maps:
        hits = []
        for level, (index, key) in enumerate(zip(indexes, _keys(root, file, None), strict=True)):
            hits = index[key]
            if level == 3:  # by the name alone, where one of the two lies in no folder
                hits = [i for i in hits if not (_folders(root, file) and _folders(root, images[i]))]
            if hits:
                break
        if len(hits) > 1:
            raise ValueError(f"mask '{file}' fits {some([images[i] for i in hits], root)}; expected one of that name")
        for i in hits:
            found[i].append(file)
    return found


def matched(root: Path, images: list[Path], everything: list[Path], kind: str, files: list[Path]) -> list[list[Path]]:
    """The masks, instances or scribbles of each of `images`, which are all of `everything` or a part of it.

    Warns of images without any where others have them, and of files that belong to no image. Raises ValueError where
    there are both, where none fits, and for the only file of an image in a format that changes or hides values.
    """
    belongs = dict(zip(everything, paired(root, everything, files), strict=True))
    used = {file for found in belongs.values() for file in found}
    readable = [[file for file in belongs[image] if file.suffix.lower() in LOSSLESS] for image in images]
    for image, found in zip(images, readable, strict=True):
        if belongs[image] and not found:
            raise ValueError(f"mask '{belongs[image][0]}' is no PNG or TIFF; expected one of these, which keep values")
        if len({file.parent for file in found}) > 1:
            raise ValueError(f"{some(found, root)} are {kind} of '{image}' in two folders; expected one folder")
    strays = [file for file in files if file not in used and file.suffix.lower() in (*SUFFIXES, *NOT_READ)]
    without = [image for image, found in zip(images, readable, strict=True) if not found]
    if without and (strays or len(without) == len(images)):
        raise ValueError(
            f"{some(strays or files, root)} in {kind} belong to no image, but {some(without, root)} need one; "
            f"expected names like '{without[0].stem}.png' or '{without[0].stem}_mask.png'"
        )
    if strays:
        warnings.warn(f"left out: {some(strays, root)}, which belong to no image", stacklevel=4)
    if without and kind != "scribbles":
        warnings.warn(f"no {kind} for {some(without, root)}: taken as empty, nothing is there", stacklevel=4)
    return readable


def _keys(root: Path, file: Path, word: re.Pattern | None) -> list[tuple]:
    """What must agree for a mask to belong to an image, from strict to loose."""
    folders, stem = _folders(root, file), composed(_stem(file))
    bare = stem if word else _without_word(stem) or stem
    if word is None and Path(bare).suffix.lower() in SUFFIXES:  # a.png_mask
        bare = Path(bare).stem
    loose = next(filter(None, match.groups())) if word and (match := word.fullmatch(stem)) else bare
    return [(folders, stem), (folders, bare), (folders, plain(loose)), ((), plain(loose))]


def _folders(root: Path, file: Path) -> tuple[str, ...]:
    """The folders on the way to a file, but for those that only say what kind of files they hold."""
    parts = (plain(part) for part in file.relative_to(root).parts[:-1])
    return tuple(part for part in parts if part not in KINDS and part not in IMAGES)


def _stem(file: Path) -> str:
    """The name without suffix, also of a.nii.gz."""
    return Path(re.sub(r"\.gz$", "", file.name, flags=re.IGNORECASE)).stem


def _without_word(stem: str) -> str:
    """The name of which a name with a word for masks is made; empty if it is none."""
    match = _AFTER.fullmatch(stem) or _BEFORE.fullmatch(stem)
    return composed(match[1]) if match else ""
