"""MetaImage volumes (.mha, or .mhd with its raw file) as nibabel has volumes, once their bytes are checked."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import BinaryIO

import nibabel
import numpy as np

REQUIRED = ("NDims", "DimSize", "ElementType", "ElementDataFile")
BLOCK = 2**20  # bytes at a time


def load_metaimage(file: Path) -> nibabel.Nifti1Image:
    """A volume; the code of its sform is 0 where the header does not say how it lies.

    Raises ImportError where SimpleITK is not installed, ValueError for several channels and for bytes that are fewer
    or more than the sizes say or that fail the checksum, which SimpleITK takes as they are.
    """
    try:
        import SimpleITK
    except ImportError as error:
        raise ImportError('MetaImage needs SimpleITK; install it with: pip install ".[metaimage]"') from error
    with file.open("rb") as stream:
        header = _header(stream)
        reader = SimpleITK.ImageFileReader()
        reader.SetImageIO("MetaImageIO")  # it would go by the suffix, and knows no upper case
        reader.SetFileName(str(file))
        reader.ReadImageInformation()
        if reader.GetNumberOfComponents() > 1:
            raise ValueError("it has several channels")
        axes = reader.GetDimension()
        a_voxel = SimpleITK.Image([1] * axes, reader.GetPixelID()).GetSizeOfPixelComponent()
        _check(file, header, stream, int(np.prod(reader.GetSize(), dtype=object)) * a_voxel)
    image = reader.Execute()
    n = min(axes, 3)
    affine = np.eye(4)
    affine[:n, :n] = np.reshape(image.GetDirection(), (axes, axes))[:n, :n] * image.GetSpacing()[:n]
    affine[:n, 3] = image.GetOrigin()[:n]
    affine[:2] *= -1  # its axes point left and back, those of nibabel right and front
    voxels = SimpleITK.GetArrayFromImage(image).T
    made = nibabel.Nifti1Image(voxels, affine, dtype=voxels.dtype)
    if not {"TransformMatrix", "Rotation", "Orientation"} & set(header):
        made.header.set_sform(affine, 0)
    return made


def _header(stream: BinaryIO) -> dict[str, str]:
    """The lines of a header; the stream is then at the first byte after it. Raises ValueError if one is missing."""
    found, key = {}, ""
    while key != "ElementDataFile" and (line := stream.readline(BLOCK)):
        key, _, value = (part.strip() for part in line.decode("latin-1").partition("="))
        found[key] = value
    within = _is_set(found, "CompressedData") and found.get("ElementDataFile", "").upper() == "LOCAL"
    if missing := [key for key in (*REQUIRED, *["CompressedDataSize"] * within) if key not in found]:
        raise ValueError(f"its header does not say {missing[0]}")
    return found


def _is_set(header: dict[str, str], key: str) -> bool:
    return header.get(key, "")[:1] in ("T", "t", "1")


def _check(file: Path, header: dict[str, str], stream: BinaryIO, expected: int) -> None:
    """Raises ValueError for pixels that are not so many bytes, zlib.error for compressed ones that are damaged."""
    where = header["ElementDataFile"]
    if not _is_set(header, "BinaryData") or where.startswith("LIST") or "%" in where:
        return  # numbers as text, or a file for each slice
    if where.upper() == "LOCAL":
        _count(header, stream, expected)
        return
    if not (file.parent / where).is_file():
        raise ValueError(f"there is no file '{where}', which its header names")
    with (file.parent / where).open("rb") as raw:
        _count(header, raw, expected)


def _count(header: dict[str, str], stream: BinaryIO, expected: int) -> None:
    """As `_check`, for a stream that is at the first byte that may be one of the pixels."""
    start, skipped = stream.tell(), int(header.get("HeaderSize") or 0)
    found = stream.seek(0, 2) - start - max(skipped, 0)
    stream.seek(start + max(skipped, 0))
    if _is_set(header, "CompressedData"):
        _same("compressed pixels", found, int(header.get("CompressedDataSize") or found))
        found = _inflated(stream)
    elif skipped == -1:  # the pixels are at the end, whatever comes before
        found = min(found, expected)
    _same("pixels", found, expected)


def _same(word: str, found: int, expected: int) -> None:
    if found != expected:
        how = "truncated" if found < expected else "too long"
        raise ValueError(f"it is {how}: {found} bytes of {word}; its header says {expected}")


def _inflated(stream: BinaryIO) -> int:
    """How many bytes a compressed stream holds, read to its checksum."""
    inflate, size = zlib.decompressobj(zlib.MAX_WBITS | 32), 0  # zlib or gzip
    while not inflate.eof and (raw := inflate.unconsumed_tail or stream.read(BLOCK)):
        size += len(inflate.decompress(raw, 16 * BLOCK))
    if not inflate.eof:
        raise ValueError(f"it is truncated: its compressed pixels end after {size} bytes, before the checksum")
    return size
