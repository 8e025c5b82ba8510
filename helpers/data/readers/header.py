"""What the header of a DICOM file says of each of its images, and their pixels in its units.

Raises `Unfit` for values that are none, in words that do not repeat them: any of them may name a patient.
"""

from __future__ import annotations

import numpy as np
import pydicom

from helpers.data.readers.files import Unfit
from helpers.data.readers.volumes import native

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
TIMES = ("TemporalPositionIdentifier", "TemporalPositionIndex")
CONTRASTS = {"echo times (ms)": ("EchoTime", "EffectiveEchoTime"), "echo numbers": ("EchoNumbers",),
             "b-values": ("DiffusionBValue",)}  # fmt: skip


def said(header: pydicom.Dataset, frame: int, stored: np.ndarray) -> dict:
    """All that is used of the header, for a frame with stored values (C, H, W)."""
    about = _about(header) | _moment(header, frame) | _geometry(header, frame) | _units(header, stored, frame)
    return about | dict(frame=frame)


def _about(header: pydicom.Dataset) -> dict:
    """What all frames of a file have in common."""
    modality = str(header.get("Modality", "unknown"))
    capture = str(header.get("SOPClassUID", "")).startswith(SECONDARY_CAPTURE)
    burned = str(header.get("BurnedInAnnotation", "")).upper()
    number = _number(header, "InstanceNumber", 0)
    return dict(
        modality=modality,
        uid=str(header.get("SOPInstanceUID", "")),
        patient=str(header.get("PatientID") or "").strip(),
        study=str(header.get("StudyInstanceUID") or ""),
        scanner=f"{header.get('Manufacturer', '')} {header.get('ManufacturerModelName', '')}".strip(),
        instance=int(number or 0),
        number=number,
        burned=burned == "YES" or (not burned and (modality == "US" or capture)),
    )


def _moment(header: pydicom.Dataset, frame: int) -> dict:
    """What tells images at one place apart, and what an image is beside a slice."""
    kind = _value(header, "FrameType", frame) or _value(header, "ImageType", frame) or ""
    words = [kind] if isinstance(kind, str) else [str(word) for word in kind]
    text = " ".join(words).upper()
    capture = str(header.get("SOPClassUID", "")).startswith(SECONDARY_CAPTURE) or "SCREEN SAVE" in text
    scout = "LOCALIZER" in text or "SCOUT" in text
    contrast = {
        word: next((v for key in keys if (v := _numbers(header, key, frame))), ()) for word, keys in CONTRASTS.items()
    }
    times = tuple(_number(header, keyword, frame) or 0 for keyword in TIMES)
    return dict(
        acquisition=int(_number(header, "AcquisitionNumber", frame) or 0),
        moment=(*times, *contrast.values()),
        contrast=contrast,
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


def _numbers(header: pydicom.Dataset, keyword: str, frame: int, count: int | None = None) -> tuple[float, ...]:
    """The numbers of an element, none if it is not there."""
    try:
        value = _value(header, keyword, frame)
        found = () if value is None else tuple(float(number) for number in np.atleast_1d(value))
    except Exception:  # what pydicom raises at other bytes repeats them
        raise Unfit(f"{keyword} is no number") from None
    if count and len(found) not in (0, count):
        raise Unfit(f"{keyword} has {len(found)} numbers; expected {count}")
    return found


def _number(header: pydicom.Dataset, keyword: str, frame: int) -> float | None:
    """The number of an element, the first of several."""
    number = next(iter(_numbers(header, keyword, frame)), None)
    if number is not None and not np.isfinite(number):
        raise Unfit(f"{keyword} is {number}; expected a finite number")
    return number


def _geometry(header: pydicom.Dataset, frame: int) -> dict:
    """Pixel spacing (row, column) in mm, position along the normal of the image, and orientation."""
    spacing = _numbers(header, "PixelSpacing", frame, 2)
    regions = header.get("SequenceOfUltrasoundRegions") or ()
    if not spacing and len(regions) == 1 and regions[0].PhysicalUnitsXDirection == 3:  # 3 is cm
        spacing = (10 * abs(regions[0].PhysicalDeltaY), 10 * abs(regions[0].PhysicalDeltaX))
    spacing = np.array(spacing or (np.nan, np.nan), float)
    origin = _numbers(header, "ImagePositionPatient", frame, 3)
    turned = np.array(_numbers(header, "ImageOrientationPatient", frame, 6))
    known = bool(origin) and turned.size > 0
    if known and (not np.isfinite([*origin, *turned]).all() or np.linalg.norm(np.cross(turned[:3], turned[3:])) < 0.5):
        raise Unfit(f"position {list(origin)} and orientation {turned.tolist()} are no place in the body")
    gap, thickness = (_number(header, key, frame) for key in ("SpacingBetweenSlices", "SliceThickness"))
    return dict(
        spacing=np.where((spacing > 0) & np.isfinite(spacing), spacing, np.nan),
        place=tuple(np.round([*origin, *turned], 3).tolist()) if known else None,
        position=float(np.cross(turned[:3], turned[3:]) @ origin) if known else None,
        orientation=turned if known else None,
        gap=abs(gap) if gap else None,
        thickness=abs(thickness) if thickness else None,
    )


def _units(header: pydicom.Dataset, stored: np.ndarray, frame: int) -> dict:
    """Pixels (C, H, W) after slope and intercept, MONOCHROME1 inverted, and the window (low, high) or None."""
    keywords = ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "PixelPaddingValue")
    slope, intercept, centre, width, pad = (_number(header, keyword, frame) for keyword in keywords)
    scale = None if slope is None and intercept is None else (1 if slope is None else slope, intercept or 0)
    slope, intercept = scale or (1, 0)
    if slope == 0:
        raise Unfit(f"slope is 0 and intercept {intercept:g}; expected another slope")
    pad = None if pad is None else pad * slope + intercept
    window, steps, pixels = None, [], stored
    if centre is not None and width is not None and width > 0:
        window = (centre - width / 2, centre + width / 2)
    if (slope, intercept) != (1, 0):
        pixels = stored * slope + intercept
        steps.append("slope and intercept applied")
    if header.PhotometricInterpretation == "MONOCHROME1":
        total = sum(end * slope + intercept for end in _ends(header))
        pixels, pad = total - pixels.astype(float), None if pad is None else total - pad
        window = None if window is None else (total - window[1], total - window[0])
        steps.append("MONOCHROME1 inverted")
    if header.get("Modality") == "CT":
        pixels = _whole_numbers(pixels, np.dtype(np.int16))
    elif (slope, intercept) == (1, 0):
        pixels = _whole_numbers(pixels, stored.dtype)
    return dict(pixels=native(pixels), window=window, steps=steps, padding=pad, scale=scale)


def _ends(header: pydicom.Dataset) -> tuple[int, int]:
    """The smallest and the largest value that the bits of a pixel can hold."""
    if "ModalityLUTSequence" in header:  # its pixels are those of the table
        return 0, 2 ** int(header.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
    bits = header.BitsStored
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if header.PixelRepresentation else (0, 2**bits - 1)


def _whole_numbers(pixels: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Pixels without fractions, of a type if they fit it."""
    pixels, limits = np.rint(pixels) if pixels.dtype.kind == "f" else pixels, np.iinfo(dtype)
    return pixels.astype(dtype) if limits.min <= pixels.min() and pixels.max() <= limits.max else pixels
