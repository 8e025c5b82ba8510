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
from helpers.data.readers.files import listed, visible, whole
from helpers.data.readers.pictures import numbered
from helpers.data.readers.stacks import of_one_kind, placed, without_copies
from helpers.data.readers.volumes import native, padding, span

MODALITIES = {"CR": "X-ray", "DX": "X-ray", "US": "ultrasound", "OP": "fundus", "OPT": "OCT", "SM": "histology"}
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def from_dicom(path: str | Path, *, series: int | None = None) -> ImageSet:
    """One series, a file or a folder of files, sorted by position (or else by number), in the units of the header.

    CT is int16 in Hounsfield units; other images keep their integers, or are float32 where slope and intercept change
    them. MONOCHROME1 is inverted: bright is bright. value_range is the window of the middle image, if it has one, else
    all values but padding. Patients are running numbers. The spacing of the detector (ImagerPixelSpacing) is not that
    of the body and not used.

    One warning names the files of what a reader should know: what was left out (no DICOM, no pixels, localisers,
    secondary captures, other orientations than most, copies), acquisitions in one series, uneven gaps, padding, names
    that may be burned into the pixels.

    Raises ValueError for what is damaged or no image, and for several series (it lists them), orientations or shapes,
    and patient, slope or intercept in some of the files only.
    """
    root, notes = Path(path), []
    frames = [frame for file in _series(root, series, notes) for frame in _frames(root, file)]
    frames = of_one_kind(without_copies(frames, notes), notes)
    _check(root, frames)
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
    """Raises ValueError for several shapes, and for what only some of the images have."""
    by_shape = {frame["pixels"].shape: frame["file"] for frame in frames}
    if len(shapes := sorted(by_shape)) > 1:
        raise ValueError(
            f"the series in '{root.name}' holds images of {shapes[0]} and {shapes[-1]}; expected one shape, "
            f"but see {listed(by_shape.values())}"
        )
    scaled = any(frame["scale"] not in (None, (1, 0)) for frame in frames)
    for key, word in (("patient", "patient"), *([("scale", "slope and intercept")] if scaled else [])):
        without = [frame["file"] for frame in frames if not frame[key]]
        if 0 < len(without) < len(frames):
            raise ValueError(
                f"{listed(without)} of the series in '{root.name}': no {word}; expected it in all files or in none"
            )


def _series(root: Path, series: int | None, notes: list[str]) -> list[Path]:
    """The files of a series: of the only one, or of number `series` in the order of their numbers."""
    files = [f for f in visible(root) if f.name.upper() != "DICOMDIR"] if root.is_dir() else [root]
    if not files or not root.exists():
        raise ValueError(f"'{root.name}' holds no files; expected DICOM files")
    others = [file for file in files if not (file.exists() and is_dicom(file))]  # a dead link
    damaged = [
        f for f in others if len(others) == len(files) or re.fullmatch(r"(\.dcm|\.ima|\.\d+)?", f.suffix.lower())
    ]
    if damaged:
        name = damaged[0].relative_to(root) if root.is_dir() else root.name
        raise ValueError(f"'{name}' is no DICOM file, or damaged; expected a DICOM file or a folder of them")
    found, bare = defaultdict(list), {}
    for file in files:
        if file in others:
            continue
        with whole(file, "a DICOM file"):
            header = pydicom.dcmread(file, stop_before_pixels=True)
            number, uid, modality = (
                str(header.get(key) or "") for key in ("SeriesNumber", "SeriesInstanceUID", "Modality")
            )
        if "Rows" in header or len(files) == 1:
            found[number.rjust(9), uid, modality].append(file)
        else:
            bare[file] = modality
    if not found:
        file, modality = next(iter(bare.items()))
        raise ValueError(f"'{file.name}' holds no pixels (its modality is {modality}); expected an image")
    for left, why in ((others, "no DICOM files"), (bare, "without pixels")):
        if left:
            notes.append(f"left out, {why}: {listed(str(file.relative_to(root)) for file in left)}")
    keys = sorted(found)
    known = ", ".join(f"{i} ({key[2]}, {len(found[key])} files)" for i, key in enumerate(keys))
    if series is None and len(keys) > 1:
        raise ValueError(f"'{root.name}' holds {len(keys)} series; choose one as series=: {known}")
    if not 0 <= (series or 0) < len(keys):
        raise ValueError(f"series is {series}; expected one of {known}")
    return found[keys[series or 0]]


def _frames(root: Path, file: Path) -> list[dict]:
    """The images of a file, each with what its header says of it."""
    name = str(file.relative_to(root)) if root.is_dir() else file.name
    with whole(file, "a DICOM file"):
        header = pydicom.dcmread(file)
        modality = str(header.get("Modality", "unknown"))
    if "PixelData" not in header:
        raise ValueError(f"'{name}' holds no pixels (its modality is {modality}); expected an image")
    try:
        pixels = pixel_array(header)
        if header.PhotometricInterpretation == "PALETTE COLOR":
            pixels = apply_color_lut(pixels, header)
        if "ModalityLUTSequence" in header:
            pixels = apply_modality_lut(pixels, header)
        count = int(header.get("NumberOfFrames") or 1)
        pixels = np.moveaxis(pixels.reshape(count, header.Rows, header.Columns, -1), 3, 1)
    except Exception as error:  # decoders raise what they like
        why = " ".join(str(error).split())
        raise ValueError(f"the pixels of '{name}' cannot be decoded: {why}") from error
    with whole(file, "a DICOM file"):
        common = dict(file=name, modality=modality, count=count) | _about(header, modality)
        return [
            common | _geometry(header, i) | _moment(header, i) | _units(header, pixels[i], i) | dict(frame=i)
            for i in range(count)
        ]


def _about(header: pydicom.Dataset, modality: str) -> dict:
    """What all frames of a file have in common."""
    capture = str(header.get("SOPClassUID", "")).startswith(SECONDARY_CAPTURE)
    burned = str(header.get("BurnedInAnnotation", "")).upper()
    return dict(
        uid=str(header.get("SOPInstanceUID", "")),
        patient=str(header.get("PatientID") or "").strip(),
        scanner=f"{header.get('Manufacturer', '')} {header.get('ManufacturerModelName', '')}".strip(),
        instance=int(header.get("InstanceNumber") or 0),
        burned=burned == "YES" or (not burned and (modality == "US" or capture)),
    )


def _moment(header: pydicom.Dataset, frame: int) -> dict:
    """What tells images at one place apart, and what an image is beside a slice."""
    keywords = ("TemporalPositionIdentifier", "TemporalPositionIndex", "EchoNumbers", "EffectiveEchoTime")
    kind = _value(header, "FrameType", frame) or _value(header, "ImageType", frame) or ""
    words = [kind] if isinstance(kind, str) else [str(word) for word in kind]
    text = " ".join(words).upper()
    capture = str(header.get("SOPClassUID", "")).startswith(SECONDARY_CAPTURE) or "SCREEN SAVE" in text
    scout = "LOCALIZER" in text or "SCOUT" in text
    return dict(
        acquisition=int(_value(header, "AcquisitionNumber", frame) or 0),
        moment=tuple(str(_value(header, keyword, frame) or "").rjust(12) for keyword in keywords),
        type=text,
        special="localiser" if scout else "secondary capture" if capture else "",
    )


def _value(header: pydicom.Dataset, keyword: str, frame: int):
    """A value of the header, or of the functional groups that a frame has in enhanced DICOM; None if there is none."""
    groups = [header]
    for name, index in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        if len(header.get(name) or ()) > index:
            groups += [element.value[0] for element in header[name][index] if element.VR == "SQ" and element.value]
    return next((group[keyword].value for group in groups if group.get(keyword) not in (None, "")), None)


def _geometry(header: pydicom.Dataset, frame: int) -> dict:
    """Pixel spacing (row, column) in mm, position along the normal of the image, and orientation."""
    spacing = _value(header, "PixelSpacing", frame)
    regions = header.get("SequenceOfUltrasoundRegions") or ()
    if spacing is None and len(regions) == 1 and regions[0].PhysicalUnitsXDirection == 3:  # 3 is cm
        spacing = (10 * abs(regions[0].PhysicalDeltaY), 10 * abs(regions[0].PhysicalDeltaX))
    spacing = np.array(spacing or (np.nan, np.nan), float).reshape(2)
    origin, turned = (_value(header, f"Image{name}Patient", frame) for name in ("Position", "Orientation"))
    place = None
    if origin is not None and turned is not None:
        place, turned = np.array(origin, float).reshape(3), np.array(turned, float).reshape(6)
        if not np.isfinite([*place, *turned]).all() or np.linalg.norm(np.cross(turned[:3], turned[3:])) < 0.5:
            raise ValueError(f"position {list(origin)} and orientation {turned.tolist()} are no place in the body")
    gap, thickness = (_value(header, key, frame) for key in ("SpacingBetweenSlices", "SliceThickness"))
    return dict(
        spacing=np.where((spacing > 0) & np.isfinite(spacing), spacing, np.nan),
        place=None if place is None else tuple(np.round([*place, *turned], 3).tolist()),
        position=None if place is None else float(np.cross(turned[:3], turned[3:]) @ place),
        orientation=None if place is None else turned,
        gap=abs(float(gap)) if gap else None,
        thickness=abs(float(thickness)) if thickness else None,
    )


def _units(header: pydicom.Dataset, stored: np.ndarray, frame: int) -> dict:
    """Pixels (C, H, W) after slope and intercept, MONOCHROME1 inverted, and the window (low, high) or None."""
    keywords = ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth")
    slope, intercept, centre, width = (_value(header, keyword, frame) for keyword in keywords)
    known = slope is not None or intercept is not None
    slope, intercept = float(1 if slope is None else slope), float(intercept or 0)
    if slope == 0 or not np.isfinite([slope, intercept]).all():
        raise ValueError(f"slope is {slope:g} and intercept {intercept:g}; expected finite numbers, and no slope of 0")
    pad = header.get("PixelPaddingValue")
    pad = None if pad in (None, "") else int(pad) * slope + intercept
    window, steps, pixels = None, [], stored
    if centre is not None and width is not None:
        middle, half = (float(np.atleast_1d(value)[0]) for value in (centre, width))
        window = (middle - half / 2, middle + half / 2) if half > 0 and np.isfinite([middle, half]).all() else None
    if (slope, intercept) != (1, 0):
        pixels = stored * slope + intercept
        steps.append("slope and intercept applied")
    if header.PhotometricInterpretation == "MONOCHROME1":
        bits = header.BitsStored
        ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if header.PixelRepresentation else (0, 2**bits - 1)
        total = sum(end * slope + intercept for end in ends)
        pixels, pad = total - pixels.astype(float), None if pad is None else total - pad
        window = None if window is None else (total - window[1], total - window[0])
        steps.append("MONOCHROME1 inverted")
    if header.get("Modality") == "CT" or (slope, intercept) == (1, 0):
        dtype = np.dtype(np.int16) if header.get("Modality") == "CT" else stored.dtype
        limits = np.iinfo(dtype)
        pixels = np.rint(pixels).clip(limits.min, limits.max).astype(dtype)
    scale = (slope, intercept) if known else None
    return dict(pixels=native(pixels), window=window, steps=steps, padding=pad, scale=scale)
