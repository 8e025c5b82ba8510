"""Files of pictures as arrays: one page, upright, bright is bright."""

from __future__ import annotations

import re
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
GREY = ("1", "L", "I", "I;16", "I;16L", "I;16B", "F")  # modes that are taken as they are, as is RGB
BEYOND_8_BITS = GREY[2:]
REDUCED, TRANSPARENCY = 1, 4  # bits of a TIFF page that is no picture of its own (NewSubfileType)
BITS = (8, 10, 12, 14, 16)  # what a camera may fill of 16 bits
# Tags of EXIF and TIFF. Of the extra samples 1 and 2 are alpha; of the formats 2 is signed.
ORIENTATION, BITS_A_SAMPLE, SAMPLES, EXTRA, FORMAT = 274, 258, 277, 338, 339


@dataclass(frozen=True)
class Header:
    """What a file of a picture says before it is decoded.

    palette: whether it stores indices. transparent: whether it says how opaque pixels are. lossy: the name of a coder
    that changes values, or nothing. turned: whether EXIF asks to turn it.
    """

    palette: bool
    transparent: bool
    lossy: str
    turned: bool


def header(file: Path) -> Header:
    """What a file says before it is decoded; raises ValueError for what is no picture."""
    with _decoding(file), Image.open(file) as image:
        coder = {"MPO": "JPEG"}.get(image.format, str(image.info.get("compression", image.format)).upper())
        return Header(
            palette=image.mode in ("P", "PA"),
            transparent=image.has_transparency_data,
            lossy=coder if coder in ("JPEG", "WEBP", "TIFF_JPEG") else "",
            turned=image.getexif().get(ORIENTATION, 1) != 1,
        )


def read_image(file: Path, *, colour: bool = False, scaled: bool = True) -> np.ndarray:
    """An image (1, H, W), or (3, H, W) with colour; float32 in 0…1, or as stored: uint8, uint16 or float32.

    Scaled: integers are divided by the largest value of their type. Without colour, the channels are averaged. What is
    transparent is black. Raises ValueError as `opened` does, and for NaN and for integers beyond 16 bits.
    """
    return as_image(pixels_of(file), colour=colour, scaled=scaled)


def pixels_of(file: Path, page: int | None = None) -> np.ndarray:
    """The stored values of a picture, uint8, uint16 or float32, (H, W) or in colour (H, W, 3)."""
    image = opened(file, page)
    alpha = alpha_of(image)
    if alpha is not None and alpha.max() == 0:
        raise ValueError(f"'{file}' is transparent everywhere; expected a picture that can be seen")
    if alpha is not None and alpha.min() < alpha.max():
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "black"), over)
    pixels = np.asarray(image if image.mode in (*GREY, "RGB") else image.convert("RGB"))
    if pixels.dtype == bool:
        return pixels.astype(np.uint8) * 255
    if pixels.dtype.kind == "f":
        if not np.isfinite(pixels).all():
            raise ValueError(f"'{file}' holds NaN or infinite values; expected finite numbers")
        return pixels.astype(np.float32, copy=False)
    if pixels.dtype.itemsize > 1:
        if pixels.min() < 0 or pixels.max() > 65535:
            raise ValueError(f"'{file}' holds {pixels.min()} to {pixels.max()}; expected 8 or 16 bits")
        return pixels.astype(np.uint16)
    return pixels


def as_image(pixels: np.ndarray, *, colour: bool, scaled: bool) -> np.ndarray:
    """Stored values (H, W) or (H, W, 3) as an image (C, H, W), as `read_image` gives it."""
    top = 1 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
    dtype = np.dtype(np.float32) if scaled or pixels.dtype.kind == "f" else pixels.dtype
    if scaled:
        pixels = pixels.astype(np.float32) / top
    if colour:
        return np.moveaxis(pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2), 2, 0).astype(dtype)
    if pixels.ndim == 3:
        grey = pixels.mean(axis=2, dtype=np.float32)
        pixels = grey if dtype.kind == "f" else np.rint(grey)
    return pixels.astype(dtype)[None]


def opened(file: Path, page: int | None = None) -> Image.Image:
    """The decoded picture, turned upright as its EXIF says; a TIFF of 16 bits in which 0 is white is inverted.

    page: which of several. Raises ValueError for what cannot be read, for more pixels than Pillow takes to be safe, for
    channels or bits that Pillow misreads, and for several pages where none is chosen.
    """
    # A stream, not the path: of a file that it maps into memory, Pillow 13 mixes up the pixels of a turned TIFF.
    with _decoding(file), file.open("rb") as stream, Image.open(stream) as image:
        pages = _pages_of(file, file.stat().st_mtime_ns, file.stat().st_size)
        image.seek(pages[min(page or 0, len(pages) - 1)])
        misread = _misread(image)
        image.load()
        inverted, bits = _zero_is_white(image)
        upright = ImageOps.exif_transpose(image)
    if page is None and len(pages) > 1 or page is not None and page >= len(pages):
        expected = "one" if page is None else f"more than {page}"
        raise ValueError(f"'{file}' has {len(pages)} page{'s' * (len(pages) > 1)}; expected {expected}")
    if misread:
        raise ValueError(f"'{file}' has {misread}")
    if inverted and upright.mode not in ("I;16", "I;16L", "I;16B"):
        raise ValueError(f"'{file}' says that 0 is white, of values of mode {upright.mode}; expected 8 or 16 bits")
    return Image.fromarray(2**bits - 1 - np.asarray(upright).astype(np.uint16)) if inverted else upright


def page_count(file: Path) -> int:
    """How many full pictures a file holds: more than one in stacks only. Raises ValueError for an unreadable file."""
    with _decoding(file):
        return len(_pages_of(file, file.stat().st_mtime_ns, file.stat().st_size))


@contextmanager
def _decoding(file: Path):
    """Whatever a decoder raises, as one ValueError with the file; what it warns of, as one warning with the file."""
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        count, limit = int(re.search(r"\d+", str(error))[0]) / 1e6, Image.MAX_IMAGE_PIXELS / 1e6
        raise ValueError(
            f"'{file}' has {count:.0f} million pixels; expected at most {limit:.0f}: cut it or make it smaller"
        ) from error
    except Exception as error:  # decoders raise anything at damaged bytes
        raise ValueError(
            f"'{file}' cannot be read as an image ({_why(error)}); expected PNG, JPEG, TIFF or BMP"
        ) from error
    if told:
        warnings.warn(f"'{file}' may be damaged: {' '.join(str(told[0].message).split())}", stacklevel=4)


def alpha_of(image: Image.Image) -> np.ndarray | None:
    """How opaque a picture is, (H, W) from 0 to 255; None if the file says nothing of it."""
    if image.mode in BEYOND_8_BITS or not image.has_transparency_data:
        return None
    return np.asarray(image.convert("RGBA"))[..., 3]


def range_used(smallest: float, largest: float) -> tuple[int, int]:
    """The values from black to white of pictures of 16 bits, of which a camera may fill 8, 10, 12 or 14.

    They are the lowest bits, or the highest values where 0 is white and the file was inverted.
    """
    if (top := next(2**bits for bits in BITS if largest < 2**bits)) < 2**16:
        return 0, top - 1
    return 65536 - next(2**bits for bits in BITS if 65535 - smallest < 2**bits), 65535


@lru_cache(maxsize=4096)  # a stack of many pages is opened once for each
def _pages_of(file: Path, changed: int, size: int) -> list[int]:
    """The full pictures of a file: not the smaller levels of a pyramid, nor what a phone adds to a JPEG."""
    with Image.open(file) as image:
        if image.format != "TIFF":
            return list(range(1 if image.format == "MPO" else getattr(image, "n_frames", 1)))
        full = []
        for page in range(image.n_frames):
            image.seek(page)
            if not image.tag_v2.get(254, 0) & (REDUCED | TRANSPARENCY):
                full.append(page)
        return full or [0]


def _zero_is_white(image: Image.Image) -> tuple[bool, int]:
    """Whether it is left to us to invert a TIFF (Pillow does so up to 8 bits), and the bits of its values."""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    return tags.get(262) == 0 and image.mode in BEYOND_8_BITS, tags.get(258, (8,))[0]


def _misread(image: Image.Image) -> str:
    """What Pillow would read as something else, and what is expected; empty if all is well."""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    bits = max(tags.get(BITS_A_SAMPLE, ()), default=8)
    if image.mode not in GREY and (bits > 8 or any(";16" in str(tile[3]) for tile in image.tile)):
        return "several channels of 16 bits; expected 8 bits a channel, or one channel of 16"
    if bits == 8 and 2 in tags.get(FORMAT, ()):
        return "8 bits with a sign; expected them without, or 16 bits"
    if tags.get(SAMPLES) == 2 and not {1, 2} & set(tags.get(EXTRA, ())):
        return "two channels, none of them alpha; expected one or three"
    return ""


def _why(error: Exception) -> str:
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    return "not a picture, or damaged" if "cannot identify" in text or not text else text[:100]


def translate(file: Path | str, stored: np.ndarray, values: dict[int, int]) -> np.ndarray:
    """uint8 classes of stored values; ValueError names the file (or a text) and a value that is not in `values`."""
    present = np.unique(stored).tolist()
    if unknown := [value for value in present if value not in values]:
        name, known = getattr(file, "name", file), ", ".join(map(str, sorted(values)))
        raise ValueError(f"mask '{name}' holds {unknown[0]}; expected only {known}")
    classes = np.zeros(stored.shape, np.uint8)
    for value in present:
        classes[stored == value] = values[value]
    return classes


def numbered(identifiers: list) -> np.ndarray:
    """Running numbers in place of the identifiers, which are not kept."""
    return np.unique(identifiers, return_inverse=True)[1]
