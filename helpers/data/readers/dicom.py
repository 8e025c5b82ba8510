"""The reader's own DICOM files as image sets; identifiers of patients are not kept."""

from __future__ import annotations

import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array

from helpers.data.image_set import ImageSet
from helpers.data.readers.pictures import numbered
from helpers.data.readers.volumes import native, span

MODALITIES = {"CR": "X-ray", "DX": "X-ray", "US": "ultrasound", "OP": "fundus", "OPT": "OCT", "SM": "histology"}
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def from_dicom(path: str | Path, *, series: int | None = None) -> ImageSet:
    """One series, a file or a folder of files, sorted by position (or else by number), in the units of the header.

    CT is int16 in Hounsfield units; other images keep their integers, or are float32 where slope and intercept change
    them. MONOCHROME1 is inverted: bright is bright. value_range is the window of the middle image, if it has one.
    Patients are running numbers. The spacing of the detector (ImagerPixelSpacing) is not that of the body and not used.
    Warns if names may be burned into the pixels, and if the gaps between slices differ.

    Raises ValueError for what is not DICOM, has no pixels or cannot be decoded, and for several series: it lists them.
    """
    root = Path(path)
    frames = [frame for file in _series(root, series) for frame in _frames(file)]
    if len(shapes := sorted({frame["pixels"].shape for frame in frames})) > 1:
        raise ValueError(
            f"the series in '{root.name}' holds images of {shapes[0]} and {shapes[-1]}; expected one shape"
        )
    if burned := [frame["file"] for frame in frames if frame["burned"]]:
        warnings.warn(f"names may be burned into the pixels of '{burned[0]}': look before you share it", stacklevel=2)
    frames, place = _placed(root, frames)
    images = np.stack([frame["pixels"] for frame in frames])
    spacing = np.array([frame["spacing"] for frame in frames])
    scanners, patients = ([frame[key] for frame in frames] for key in ("scanner", "patient"))
    window = frames[len(frames) // 2]["window"] or ((0, 255) if images.dtype == np.uint8 else span(images, (0, 100)))
    return ImageSet(
        name="own-dicom",
        modality=MODALITIES.get(frames[0]["modality"], frames[0]["modality"]),
        images=images,
        value_range=window,
        patients=numbered(patients) if all(patients) else None,
        scanners=np.array(scanners) if all(scanners) else None,
        spacing=None if np.isnan(spacing).all() else spacing,
        **place,
        licence="the reader's own",
        steps=tuple(dict.fromkeys(step for frame in frames for step in frame["steps"])),
    )


def _series(root: Path, series: int | None) -> list[Path]:
    """The files of a series: of the only one, or of number `series` in the order of their numbers."""
    files = sorted(f for f in root.rglob("[!.]*") if f.is_file() and f.name != "DICOMDIR") if root.is_dir() else [root]
    found = defaultdict(list)
    for file in files:
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True)
        except (InvalidDicomError, OSError) as error:
            raise ValueError(f"'{file.name}' is no DICOM file; expected a DICOM file or a folder of them") from error
        number = str(header.get("SeriesNumber") or 0).rjust(9)
        found[number, str(header.get("SeriesInstanceUID", "")), str(header.get("Modality", ""))].append(file)
    if not found:
        raise ValueError(f"'{root.name}' holds no files; expected DICOM files")
    keys = sorted(found)
    known = ", ".join(f"{i} ({key[2]}, {len(found[key])} files)" for i, key in enumerate(keys))
    if series is None and len(keys) > 1:
        raise ValueError(f"'{root.name}' holds {len(keys)} series; choose one as series=: {known}")
    if not 0 <= (series or 0) < len(keys):
        raise ValueError(f"series is {series}; expected one of {known}")
    return found[keys[series or 0]]


def _frames(file: Path) -> list[dict]:
    """The images of a file, each with what its header says of it."""
    header = pydicom.dcmread(file)
    modality = str(header.get("Modality", "unknown"))
    if "PixelData" not in header:
        raise ValueError(f"'{file.name}' holds no pixels (its modality is {modality}); expected an image")
    try:
        pixels = pixel_array(header)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        why = " ".join(str(error).split())
        raise ValueError(f"the pixels of '{file.name}' cannot be decoded: {why}") from error
    if header.PhotometricInterpretation == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, header)
    if "ModalityLUTSequence" in header:
        pixels = apply_modality_lut(pixels, header)
    count = int(header.get("NumberOfFrames") or 1)
    pixels = np.moveaxis(pixels.reshape(count, header.Rows, header.Columns, -1), 3, 1)
    doubtful = modality == "US" or str(header.get("SOPClassUID", "")).startswith(SECONDARY_CAPTURE)
    burned = str(header.get("BurnedInAnnotation", "")).upper()
    common = dict(
        file=file.name,
        modality=modality,
        patient=str(header.get("PatientID", "")),
        scanner=f"{header.get('Manufacturer', '')} {header.get('ManufacturerModelName', '')}".strip(),
        instance=int(header.get("InstanceNumber") or 0),
        count=count,
        burned=burned == "YES" or (not burned and doubtful),
    )
    return [common | _geometry(header, i) | _units(header, pixels[i], i) | dict(frame=i) for i in range(count)]


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
    spacing = np.array(spacing or (np.nan, np.nan), float)
    position, turned = (_value(header, f"Image{name}Patient", frame) for name in ("Position", "Orientation"))
    turned = None if position is None or turned is None else np.array(turned, float)
    return dict(
        spacing=np.where(spacing > 0, spacing, np.nan),
        position=None if turned is None else float(np.cross(turned[:3], turned[3:]) @ np.array(position, float)),
        orientation=turned,
        gap=_value(header, "SpacingBetweenSlices", frame),
    )


def _units(header: pydicom.Dataset, stored: np.ndarray, frame: int) -> dict:
    """Pixels (C, H, W) after slope and intercept, MONOCHROME1 inverted, and the window (low, high) or None."""
    slope, intercept, centre, width = (
        _value(header, keyword, frame)
        for keyword in ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth")
    )
    slope, intercept = float(1 if slope is None else slope), float(intercept or 0)
    window, steps, pixels = None, [], stored
    if centre is not None and width is not None:
        middle, half = (float(np.atleast_1d(value)[0]) for value in (centre, width))
        window = (middle - half / 2, middle + half / 2) if half > 0 else None
    if (slope, intercept) != (1, 0):
        pixels = stored * slope + intercept
        steps.append("slope and intercept applied")
    if header.PhotometricInterpretation == "MONOCHROME1":
        bits = header.BitsStored
        ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if header.PixelRepresentation else (0, 2**bits - 1)
        total = sum(end * slope + intercept for end in ends)
        pixels = total - pixels.astype(float)
        window = None if window is None else (total - window[1], total - window[0])
        steps.append("MONOCHROME1 inverted")
    if header.get("Modality") == "CT" or (slope, intercept) == (1, 0):
        dtype = np.dtype(np.int16) if header.get("Modality") == "CT" else stored.dtype
        limits = np.iinfo(dtype)
        pixels = np.rint(pixels).clip(limits.min, limits.max).astype(dtype)
    return dict(pixels=native(pixels), window=window, steps=steps)


def _placed(root: Path, frames: list[dict]) -> tuple[list[dict], dict]:
    """Frames in the order of their positions, and slices, frames, volumes and slice spacing as far as known."""
    n, first = len(frames), frames[0]["orientation"]
    if any(f["orientation"] is None or not np.allclose(f["orientation"], first, atol=1e-3) for f in frames):
        frames = sorted(frames, key=lambda f: (f["instance"], f["file"], f["frame"]))
        cine = any(f["count"] > 1 for f in frames)
        moments = dict(volumes=numbered([f["file"] for f in frames]), frames=np.array([f["frame"] for f in frames]))
        return frames, moments if cine else {}
    frames = sorted(frames, key=lambda f: (round(f["position"], 2), f["instance"], f["frame"]))
    levels, slices, repeats = np.unique(
        [round(f["position"], 2) for f in frames], return_inverse=True, return_counts=True
    )
    gaps, gap = np.diff(levels), frames[0]["gap"]
    if len(gaps) and not np.allclose(gaps, np.median(gaps), rtol=0.05, atol=0.05):
        warnings.warn(
            f"slices of '{root.name}' lie {gaps.min():g} to {gaps.max():g} mm apart; is one missing?", stacklevel=3
        )
    gap = np.median(gaps) if len(gaps) else gap
    return frames, dict(
        volumes=np.zeros(n, int),
        slices=slices,
        frames=np.concatenate([np.arange(count) for count in repeats]) if repeats.max() > 1 else None,
        slice_spacing=None if gap is None else np.full(n, float(gap)),
    )
