"""The reader's own DICOM files as image sets; identifiers of patients are not kept."""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
import pydicom
from pydicom.misc import is_dicom
from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array

from helpers.data.image_set import ImageSet
from helpers.data.readers.files import hushed, listed, visible, whole
from helpers.data.readers.header import said
from helpers.data.readers.layout import KINDS, plain
from helpers.data.readers.pictures import numbered
from helpers.data.readers.stacks import of_one_kind, placed, without_copies
from helpers.data.readers.volumes import native, padding, span

MODALITIES = {"CR": "X-ray", "DX": "X-ray", "US": "ultrasound", "OP": "fundus", "OPT": "OCT", "SM": "histology"}


def from_dicom(path: str | Path, *, series: int | None = None) -> ImageSet:
    """One series, a file or a folder of files, sorted by position (or else by number), in the units of the header.

    CT is int16 in Hounsfield units, as far as they fit; other images keep their integers, or are float32 where slope
    and intercept change them. MONOCHROME1 is inverted: bright is bright. value_range is the window of the middle image,
    if it has one, else all values but padding. Patients are running numbers. The spacing of the detector
    (ImagerPixelSpacing) is not that of the body and not used.

    One warning names the files of what a reader should know: what was left out (no DICOM, no pixels, localisers,
    secondary captures, other orientations than most, copies), acquisitions in one series, uneven gaps, padding, names
    that may be burned into the pixels, headers that are not as the standard wants them.

    Raises ValueError for what is damaged or no image, for masks, and for several series (it lists them), patients,
    orientations, shapes, pixel spacings, echoes or b-values, and for patient, number, slope or intercept in some of
    the files only.
    """
    root, notes, odd = Path(path).expanduser(), [], []
    frames = [frame for file in _series(root, series, notes) for frame in _frames(root, file, odd)]
    frames = of_one_kind(without_copies(frames, notes), notes)
    _check(root, frames)
    if odd:
        notes.append(f"{listed(odd)}: values are not as the standard wants them; look whether they are read right")
    if unread := dict.fromkeys(frame["file"] for frame in frames if frame["unread"]):
        notes.append(f"{listed(unread)}: bits that the header does not count are set, and not read")
    if burned := [frame["file"] for frame in frames if frame["burned"]]:
        notes.append(f"names may be burned into the pixels of '{burned[0]}': look before you share it")
    frames, place = placed(frames, notes)
    images = native(np.stack([frame["pixels"] for frame in frames]))
    named = {frame["padding"] for frame in frames} - {None}
    if (pad := padding(images, named, air=frames[0]["modality"] == "CT")) is not None:
        notes.append(f"{np.mean(images == pad):.0%} of the pixels are {pad:g}: padding, left out of value_range")
    if notes:
        warnings.warn("; ".join(notes), stacklevel=2)
    spacing = np.array([frame["spacing"] for frame in frames])
    scanners, patients = ([frame[key] for frame in frames] for key in ("scanner", "patient"))
    window = frames[len(frames) // 2]["window"]
    full = (0, 255) if images.dtype == np.uint8 else span(images, (0, 100), pad)
    return ImageSet(
        name="own-dicom",
        modality=MODALITIES.get(frames[0]["modality"], frames[0]["modality"]),
        images=images,
        value_range=window or full,
        patients=numbered(patients) if all(patients) else None,
        scanners=np.array(scanners) if all(scanners) else None,
        spacing=None if np.isnan(spacing).all() else spacing,
        **place,
        licence="the reader's own",
        steps=tuple(dict.fromkeys(step for frame in frames for step in frame["steps"])),
    )


def _check(root: Path, frames: list[dict]) -> None:
    """Raises ValueError for what only some of the images have, and for several of what a series has one of."""
    by_shape = {frame["pixels"].shape: frame["file"] for frame in frames}
    if len(shapes := sorted(by_shape)) > 1:
        raise ValueError(
            f"the series in '{root.name}' holds images of {shapes[0]} and {shapes[-1]}; expected one shape, "
            f"but see {listed(by_shape.values())}"
        )
    placed = frames[0]["orientation"] is not None
    scaled = any(frame["scale"] not in (None, (1, 0)) for frame in frames)
    wanted = {"patient": "patient", "scale": "slope and intercept" * scaled, "number": "instance number" * (not placed)}
    for key, word in wanted.items():
        without = [frame["file"] for frame in frames if frame[key] in (None, "")]
        if word and 0 < len(without) < len(frames):
            raise ValueError(
                f"{listed(without)} of the series in '{root.name}': no {word}; expected it in all files or in none"
            )
    for word, key in (("patients", "patient"), ("studies", "study")):
        _one(root, frames, word, [frame[key] for frame in frames])
    spacings = np.array([frame["spacing"] for frame in frames])
    if placed and not np.allclose(spacings, spacings[0], rtol=1e-3, equal_nan=True):
        _one(root, frames, "pixel spacings", [f"{row:.4g}×{column:.4g} mm" for row, column in spacings], shown=True)


def _one(root: Path, frames: list[dict], word: str, values: list[str], *, shown: bool = False) -> None:
    """Raises ValueError with the files of each value, but for values that are not known; they may name a patient."""
    groups = defaultdict(dict)
    for value, frame in zip(values, frames, strict=True):
        groups[value][frame["file"]] = None
    groups.pop("", None)
    if len(groups) > 1:
        each = "; ".join(f"{f'{value}: ' * shown}{len(of)} files, {listed(of)}" for value, of in groups.items())
        raise ValueError(f"the series in '{root.name}' has {len(groups)} {word}: {each}; expected one")


def _series(root: Path, series: int | None, notes: list[str]) -> list[Path]:
    """The files of a series: of the only one, or of number `series` in the order of their numbers."""
    files, others = _files(root)
    found, bare = defaultdict(list), {}
    for file in files:
        with whole(file, "a DICOM file", private=True), hushed():
            header = pydicom.dcmread(file, stop_before_pixels=True)
            number, uid, modality = (
                str(header.get(key) or "") for key in ("SeriesNumber", "SeriesInstanceUID", "Modality")
            )
        if "Rows" in header or root == file:
            found[number.rjust(9), uid, modality].append(file)
        else:
            bare[file] = modality
    if not found:
        file, modality = next(iter(bare.items()))
        raise ValueError(f"'{file.name}' holds no pixels (its modality is {modality}); expected an image")
    for left, why in ((others, "no DICOM files"), (bare, "without pixels")):
        if left:
            notes.append(f"left out, {why}: {listed(_name(root, file) for file in left)}")
    keys = sorted(found)
    known = ", ".join(f"{i} ({key[2]}, {len(found[key])} files)" for i, key in enumerate(keys))
    if series is None and len(keys) > 1:
        raise ValueError(
            f"'{root.name}' holds {len(keys)} series; choose one as series=, or move the others elsewhere: {known}"
        )
    if not 0 <= (series or 0) < len(keys):
        raise ValueError(f"series is {series}; expected one of {known}")
    return found[keys[series or 0]]


def _files(root: Path) -> tuple[list[Path], list[Path]]:
    """The DICOM files, and the others. Raises ValueError for damaged files, for masks, and where there are none."""
    files = [f for f in visible(root) if f.name.upper() != "DICOMDIR"] if root.is_dir() else [root]
    if not files or not root.exists():
        raise ValueError(f"'{root.name}' holds no files; expected DICOM files")
    others = [file for file in files if not (file.is_file() and is_dicom(file))]  # a dead link, a pipe
    damaged = [
        f for f in others if len(others) == len(files) or re.fullmatch(r"(\.dcm|\.ima|\.\d+)?", f.suffix.lower())
    ]
    if damaged:
        name = _name(root, damaged[0])
        raise ValueError(f"'{name}' is no DICOM file, or damaged; expected a DICOM file or a folder of them")
    files = [file for file in files if file not in set(others)]
    if masks := [file for file in files if any(plain(part) in KINDS for part in file.relative_to(root).parts[:-1])]:
        names = listed(_name(root, file) for file in masks)
        raise ValueError(f"{names}: masks cannot be DICOM; expected images only, or masks as PNG, TIFF or NIfTI")
    return files, others


def _name(root: Path, file: Path) -> str:
    return str(file.relative_to(root)) if root.is_dir() else file.name


def _frames(root: Path, file: Path, odd: list[str]) -> list[dict]:
    """The images of a file, each with what its header says of it."""
    name = _name(root, file)
    with hushed() as heard:
        with whole(file, "a DICOM file", private=True):
            header = pydicom.dcmread(file)
            modality = str(header.get("Modality", "unknown"))
        if "PixelData" not in header:
            raise ValueError(f"'{name}' holds no pixels (its modality is {modality}); expected an image")
        try:
            pixels, unread = _pixels(header)
        except Exception as error:  # decoders raise what they like
            why = " ".join(str(error).split())
            raise ValueError(f"the pixels of '{name}' cannot be decoded: {why}") from error
        with whole(file, "a DICOM file", private=True):
            common = dict(file=name, count=len(pixels), unread=unread)
            frames = [common | said(header, i, stored) for i, stored in enumerate(pixels)]
    odd += [name] * bool(heard)
    return frames


def _pixels(header: pydicom.Dataset) -> tuple[np.ndarray, bool]:
    """Stored values (N, C, H, W) of a file, and whether bits are set that the header does not count as stored."""
    if header.get("HighBit") not in (None, header.BitsStored - 1):
        bits = header.BitsStored
        raise ValueError(f"the highest of {bits} bits stored is number {header.HighBit}; expected {bits - 1}")
    pixels, unread = pixel_array(header, allow_excess_frames=False), False
    overlaid = bool(header[0x60000000:0x61000000])  # an overlay may lie in these bits
    if header.BitsAllocated > header.BitsStored and not header.file_meta.TransferSyntaxUID.is_compressed:
        everything = pixel_array(header, allow_excess_frames=False, correct_unused_bits=False)
        unread = not overlaid and not np.array_equal(pixels, everything)
    if header.PhotometricInterpretation == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, header)
    if "ModalityLUTSequence" in header:
        pixels = apply_modality_lut(pixels, header)
    count = int(header.get("NumberOfFrames") or 1)
    return np.moveaxis(pixels.reshape(count, header.Rows, header.Columns, -1), 3, 1), unread
