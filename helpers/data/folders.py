"""The reader's own images: a folder of classes, or MURA's layout."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from helpers.data.image_set import ImageSet
from helpers.geometry import letterbox

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
CLASSES = {"normal": 0, "negative": 0, "abnormal": 1, "positive": 1}


def from_folder(data_dir: str | Path, *, size: int | None = None) -> ImageSet:
    """Grey images of a folder, labelled normal (0) or abnormal (1) by the names of the folders they are in.

    Two layouts: `normal/…` and `abnormal/…`, or MURA's `…/patient00001/study1_positive/image1.png`. The patient is
    read from a folder or file name that holds `patient` and a number. Masks, if any, are in `masks/`, under the same
    relative path with suffix .png (0 background). size: pad each image to a square and resize it to `size` pixels.

    Raises ValueError for a folder without images, an image without a class, an unreadable file, images of several
    sizes where `size` is not given, and a mask that does not fit its image.
    """
    root = Path(data_dir)
    files = sorted(f for f in root.rglob("[!.]*") if f.suffix.lower() in SUFFIXES)  # "._…" are no images
    files = [f for f in files if "masks" not in f.relative_to(root).parts[:-1]]
    if not files:
        raise ValueError(f"'{root.name}' holds no images; expected files ending in {', '.join(SUFFIXES)}")
    labels = np.array([_label(f.relative_to(root)) for f in files])
    pixels = [_read(f) for f in files]
    shapes = sorted({p.shape for p in pixels})
    if size is None and len(shapes) > 1:
        raise ValueError(f"'{root.name}' holds images of {len(shapes)} sizes, {shapes[0]} to {shapes[-1]}; give a size")
    masks = _masks(root, files, pixels)
    patients = [re.search(r"patient[_-]?(\d+)", str(f.relative_to(root)), re.IGNORECASE) for f in files]
    if size is not None:
        pixels = [letterbox(torch.from_numpy(p)[None], size)[0][0].numpy() for p in pixels]
        masks = None if masks is None else [_letterbox_mask(m, size) for m in masks]
    return ImageSet(
        name="own-folder",
        modality="unknown",
        images=np.stack(pixels)[:, None],
        value_range=(0.0, 1.0),
        labels=labels,
        masks=None if masks is None else np.stack(masks),
        patients=np.array([int(p[1]) for p in patients]) if all(patients) else None,
        class_names=("normal", "abnormal"),
        mask_names=() if masks is None else ("background", "lesion"),
        licence="the reader's own",
        steps=("scaled to 0…1",) + (() if size is None else (f"padded to a square and resized to {size} pixels",)),
    )


def _label(file: Path) -> int:
    words = [word for part in file.parts[:-1] for word in re.split(r"[_\W]+", part.lower())]
    classes = {CLASSES[word] for word in words if word in CLASSES}
    if len(classes) != 1:
        raise ValueError(f"'{file}' has no class; expected one folder on its path to be named {' or '.join(CLASSES)}")
    return classes.pop()


def _read(file: Path) -> np.ndarray:
    """float32 (H, W) in 0…1: integers divided by the largest value of their type, colours averaged."""
    try:
        with Image.open(file) as image:
            pixels = np.asarray(image if image.mode not in ("P", "RGBA", "LA", "CMYK") else image.convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"'{file.name}' cannot be read as an image; expected PNG, JPEG or TIFF") from error
    if pixels.dtype.kind == "f":
        return pixels.astype(np.float32)
    top = np.iinfo(np.uint16).max if pixels.dtype.itemsize > 1 else 1 if pixels.dtype == bool else 255
    pixels = pixels.astype(np.float32) / top
    return pixels.mean(axis=2, dtype=np.float32) if pixels.ndim == 3 else pixels


def _masks(root: Path, files: list[Path], pixels: list[np.ndarray]) -> list[np.ndarray] | None:
    """One 0/1 mask per image, empty where there is no file; None where there is no folder of masks."""
    if not (root / "masks").is_dir():
        return None
    masks = []
    for file, image in zip(files, pixels, strict=True):
        source = (root / "masks" / file.relative_to(root)).with_suffix(".png")
        mask = (_read(source) > 0).astype(np.uint8) if source.exists() else np.zeros(image.shape, np.uint8)
        if mask.shape != image.shape:
            raise ValueError(f"mask of '{file.name}' has shape {mask.shape}; expected that of the image, {image.shape}")
        masks.append(mask)
    return masks


def _letterbox_mask(mask: np.ndarray, size: int) -> np.ndarray:
    return (letterbox(torch.from_numpy(mask).float()[None], size)[0][0].numpy() >= 0.5).astype(np.uint8)
