"""Which files of a folder are images, and which masks, instances and scribbles belong to them.

The rule. A mask has the name of its image, as it is or with a word for masks before, in or after it (NAME_mask,
NAME-seg_1, mask_NAME), and lies beside it, or in a folder named for masks on the same path (images/a/1.png and
masks/a/1.png, train/1.png and train_masks/1.png), or in one such folder for all if the name is there once. Upper and
lower case, the suffix, blanks or underscores, and how Unicode composes letters do not matter. A file that is named
mask, seg or the like belongs to the only image in its folder. Several masks of an image are one mask. Hidden files and
folders are not there.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections import defaultdict
from pathlib import Path

from helpers.data.readers.files import some, visible
from helpers.data.readers.masks import LOSSLESS
from helpers.data.readers.pictures import SUFFIXES

KINDS = dict.fromkeys(("mask", "masks", "label", "labels", "seg", "segmentation", "segmentations", "gt"), "masks")
KINDS |= dict.fromkeys(("annotation", "annotations", "gts", "groundtruth", "ground_truth", "ground_truths"), "masks")
KINDS |= dict.fromkeys(("labelmap", "labelmaps", "label_map", "label_maps", "segmentationclass"), "masks")
KINDS |= {"labelstr": "masks", "labelsts": "masks"}  # of nnU-Net
KINDS |= {"instances": "instances", "scribbles": "scribbles"}
IMAGES = {"image", "images", "img", "imgs", "imagestr", "imagests"}
NOT_READ = {".gif", ".webp", ".jp2", ".heic", ".avif"}  # pictures all the same
_WORD = (
    r"(?:mask|msk|binary[\s_-]?mask|segmentation|segmented|seg|label|label[\s_-]?map|gt|ground[\s_-]?truth|annotation"
    r"|annotated|annot)s?"
)
_AFTER = re.compile(rf"(.+?)[\s_.-]+{_WORD}(?:[\s_.-]*\(?\d+\)?)?", re.IGNORECASE)
_BEFORE = re.compile(rf"{_WORD}(?:[\s_.-]+|(?=\d))(.+)", re.IGNORECASE)
_WITHIN = re.compile(rf"(.+?)[\s_.-]+{_WORD}([\s_.-]+\d+)", re.IGNORECASE)  # a_mask_01 of a_01
_ALONE = re.compile(_WORD, re.IGNORECASE)  # seg.nii.gz of the only image in its folder
_CHANNEL = re.compile(r"(.+)_0000")  # an image of nnU-Net, whose mask has the name without it
_GLUED = re.compile(r"(.+?)(?:mask|seg|segmentation|label)s?", re.IGNORECASE)  # where only an image of that name tells
_IMAGE = re.compile(r"(?:image|img)s?(?:[\s_.-]+|(?=\d))(.+)|(.+?)[\s_.-]+(?:image|img)", re.IGNORECASE)
_OF_MASKS = r"mask|segmentation|annotation|ground_?truth"
_FOLDER = re.compile(  # train_masks, train_images, masks_train, images_train, masks2; label_1 may be a class
    rf"(.+?)_(?:({_OF_MASKS}|label)s?|images?)|(?:({_OF_MASKS})s?|images)_(.+)|(mask)s?\d+"
)


def composed(text: str) -> str:
    """A name in one form of Unicode: é is one letter, not e and an accent."""
    return unicodedata.normalize("NFC", text)


def plain(text: str) -> str:
    """A name as names are compared: composed, without upper case."""
    return composed(text).casefold()


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
        kind = next((kind for part in folders if part not in taken and (kind := _kind(part))), None)
        if kind:
            maps[kind].append(file)
        elif file.is_relative_to(base):
            images += [file] * (file.suffix.lower() in suffixes)
            ignored += [file] * (file.suffix.lower() in NOT_READ)
    for folder in sorted(f for f in root.rglob("*") if f.is_dir() and _kind(plain(f.name)) and not any(f.iterdir())):
        warnings.warn(f"'{folder.relative_to(root)}' is empty", stacklevel=4)
    if ignored:
        warnings.warn(f"left out: {some(ignored, root)}; pictures are {', '.join(SUFFIXES)}", stacklevel=4)
    known = {(file.parent, plain(_stem(file))) for file in images}
    glued = {f: match[1] for f in images if (match := _GLUED.fullmatch(composed(_stem(f))))}
    beside = [f for f in images if _apart(f) or _alone(f) or f in glued and (f.parent, plain(glued[f])) in known]
    others = [file for file in images if file not in set(beside)]
    belongs = {file for found in paired(root, others, beside) for file in found}
    strays = [file for file in beside if file not in belongs]
    if maps["masks"]:  # then what belongs to no image is one: images/a_label.png, masks/a_label.png
        others, strays = sorted([*others, *strays]), []
    if strays:
        raise ValueError(
            f"{some(strays, root)}: named like a mask, but there is no image {_wanted(strays[0])} beside it; "
            "expected both, or another name"
        )
    maps["masks"] += [file for file in beside if file in belongs]
    return others, {kind: files for kind, files in maps.items() if files}


def paired(root: Path, images: list[Path], maps: list[Path]) -> list[list[Path]]:
    """For each image the files of `maps` that belong to it. Raises ValueError for a file that fits several images."""
    found, index = [[] for _ in images], defaultdict(list)
    for i, image in enumerate(images):
        stem, folders = composed(_stem(image)), _folders(root, image)
        match = _IMAGE.fullmatch(stem) or _is_channel(image) and _CHANNEL.fullmatch(stem)
        short = _form(next(filter(None, match.groups()))) if match else _form(stem)
        for key in {(folders, stem), (folders, "plain", _form(stem)), (folders, "short", short), ("flat", short)}:
            index[key].append(i)
    for file in maps:
        names, folders, hits = [composed(_stem(file)), *_names(file)], _folders(root, file), []
        strict = [(folders, name) for name in names]
        forms = [(folders, how, _form(name)) for how in ("plain", "short") for name in names]
        for key in [*strict, *forms, *(("flat", _form(name)) for name in names)]:
            hits = index.get(key, [])
            if key[0] == "flat":  # by the name alone, where one of the two lies in no folder
                hits = [i for i in hits if not (folders and _folders(root, images[i]))]
            if hits:
                break
        if _alone(file) and not hits:
            hits = [i for i, image in enumerate(images) if image.parent == file.parent]
            hits = hits if len(hits) == 1 else []
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


def _kind(folder: str) -> str | None:
    """What a folder of this name holds: masks, instances or scribbles; None if it does not say."""
    match = _FOLDER.fullmatch(_form(folder))
    return KINDS.get(_form(folder)) or ("masks" if match and (match[2] or match[3] or match[5]) else None)


def _folders(root: Path, file: Path) -> tuple[str, ...]:
    """The folders on the way to a file, without what only says what kind of files they hold."""
    parts = [_form(part) for part in file.relative_to(root).parts[:-1]]
    found = [
        (match[1] or match[4] or "") if (match := _FOLDER.fullmatch(part)) else part
        for part in parts
        if part not in KINDS and part not in IMAGES
    ]
    return tuple(filter(None, found))


def _is_channel(image: Path) -> bool:
    """Whether _0000 may be a channel of nnU-Net; elsewhere it is the number of a picture."""
    return image.suffix.lower() not in SUFFIXES or plain(image.parent.name) in ("imagestr", "imagests")


def _stem(file: Path) -> str:
    """The name without suffix, also of a.nii.gz."""
    return Path(re.sub(r"\.gz$", "", file.name, flags=re.IGNORECASE)).stem


def _form(name: str) -> str:
    return re.sub(r"[\s_.-]+", "_", plain(name))


def _apart(file: Path) -> re.Match | None:
    """The name before or after a word for masks, if there is one that stands apart."""
    stem = composed(_stem(file))
    return _AFTER.fullmatch(stem) or _BEFORE.fullmatch(stem)


def _alone(file: Path) -> re.Match | None:
    return _ALONE.fullmatch(composed(_stem(file)))


def _wanted(file: Path) -> str:
    """The image that a mask beside the images needs, in words."""
    return "alone" if _alone(file) else f"'{_names(file)[0]}'"


def _names(file: Path) -> list[str]:
    """Names of images of which that of a mask may be made."""
    stem = composed(_stem(file))
    found = filter(None, (_WITHIN.fullmatch(stem), _apart(file), _GLUED.fullmatch(stem)))
    names = ["".join(match.groups()) for match in found]
    return names + [Path(name).stem for name in (stem, *names) if Path(name).suffix.lower() in SUFFIXES]  # a.png_mask
