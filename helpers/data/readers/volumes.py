"""The reader's own volumes, NIfTI, MetaImage and Analyze, as image sets of their slices."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np

from helpers.data.image_set import UNLABELLED, ImageSet
from helpers.data.readers.files import hushed, whole
from helpers.data.readers.metaimage import load_metaimage
from helpers.data.readers.pictures import translate

File = str | Path
PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}
AIR = -1024  # Hounsfield units: CT has nothing below
SIDELESS = "Analyze does not say where left is: taken as stored from right to left"
TO_MM = {"meter": 1e3, "mm": 1.0, "micron": 1e-3, "unknown": 1.0}


def from_nifti(
    file: File, *, mask=None, scribbles=None, instances=None, mask_names=(), plane="axial", load=nibabel.load
) -> ImageSet:
    """The slices of a volume in a plane of the body: head or front up, the patient's right or front on the left.

    plane: "axial" (from foot to head), "coronal" (from back to front) or "sagittal" (from left to right), after the
    axes were turned to RAS; "stored": along the third axis as it is in the file, with rows along the second. A fourth
    axis is `frames`. mask, scribbles, instances: files on the same grid; scribbles hold 255 where nothing was drawn.
    value_range: the display range of the header if values lie in it, else the 0.5th to 99.5th percentile without
    padding (values below air that stand alone). load: file -> nibabel image.

    One warning tells of a header that does not say where left is, an sform (used) and a qform that disagree, sizes of
    voxels that do, what else nibabel mends, a mask without a voxel, and of padding. Raises ValueError for a damaged
    file, NaN, values that float32 cannot hold, and a mask of another shape, place or with unknown values.
    """
    if plane not in (*PLANES, "stored"):
        raise ValueError(f"plane is {plane!r}; expected one of {', '.join(PLANES)} or stored")
    file = Path(file).expanduser()
    volume, voxels, doubts = _volume(file, load, plane)
    across = PLANES.get(plane, 2)
    maps = dict(masks=mask, scribbles=scribbles, instances=instances)
    given = {
        kind: _map(Path(f).expanduser(), load, plane, volume, voxels.shape, kind, mask_names)
        for kind, f in maps.items()
        if f is not None
    }
    if mask is not None and not given["masks"].any():
        doubts.append(f"nothing is drawn in its mask '{Path(mask).name}'")
    low, high = (float(volume.header[key]) for key in ("cal_min", "cal_max"))
    with whole(file, "a volume"):
        gap, *spacing = _zooms(volume, across, plane != "stored")
    images = _slices(native(voxels), plane)[:, None]
    depth = voxels.shape[across]
    shown = np.isfinite([low, high]).all() and low < high and low < images.max() and high > images.min()
    pad = padding(images)
    if pad is not None:
        doubts.append(f"{np.mean(images == pad):.0%} of the voxels are {pad:g}: padding, left out of value_range")
    if doubts:
        warnings.warn(f"'{file.name}': {'; '.join(doubts)}", stacklevel=2)
    sideless = [SIDELESS] * (not _says_where(volume.header))
    return ImageSet(
        name="own-volume",
        modality="unknown",
        images=images,
        value_range=(low, high) if shown else span(images, (0.5, 99.5), pad),
        **given,
        patients=np.zeros(len(images), int),
        volumes=np.zeros(len(images), int),
        slices=np.tile(np.arange(depth), len(images) // depth),
        frames=np.repeat(np.arange(len(images) // depth), depth) if voxels.ndim == 4 else None,
        spacing=spacing,
        slice_spacing=np.full(len(images), gap) if depth > 1 else None,
        mask_names=mask_names,
        licence="the reader's own",
        steps=("slices as stored",) if plane == "stored" else (f"turned to RAS, {plane} slices", *sideless),
    )


def from_analyze(file: File, **options) -> ImageSet:
    """The slices of an Analyze volume (.hdr and .img, either is named); options as in `from_nifti`.

    Analyze 7.5 does not say which side is left: it is taken to be stored from right to left, as the format has it, and
    `steps` say so.
    """
    if Path(file).suffix.lower() not in (".hdr", ".img"):
        raise ValueError(f"'{Path(file).name}' is no Analyze file; expected one that ends in .hdr or .img")
    return from_nifti(file, **options)


def from_metaimage(file: File, **options) -> ImageSet:
    """The slices of a MetaImage volume (.mha, or .mhd with its raw file); options as in `from_nifti`.

    Raises ImportError where SimpleITK is not installed.
    """
    return from_nifti(file, load=load_metaimage, **options)


def joined(sets: list[ImageSet], patients: list[int]) -> ImageSet:
    """Volumes as one set: each scaled to 0…1 over its own value range, with the patient it is of.

    Raises ValueError where slices differ in size, and where only some have masks.
    """
    if len({one.images.shape[1:] for one in sets}) > 1:
        sizes = sorted({"×".join(map(str, one.images.shape[2:])) for one in sets})
        raise ValueError(f"slices of the volumes have {len(sizes)} sizes, {sizes[0]} to {sizes[-1]}; give a size")
    number = np.repeat(np.arange(len(sets)), [len(one) for one in sets])
    fields = ("masks", "instances", "scribbles", "slices", "frames", "spacing", "slice_spacing")
    parts = {field: [getattr(one, field) for one in sets] for field in fields}
    return replace(
        sets[0],
        name="own-volumes",
        images=np.concatenate([one.tensor().numpy() for one in sets]),
        value_range=(0.0, 1.0),
        patients=np.asarray(patients)[number],
        volumes=number,
        steps=(*sets[0].steps, "each volume scaled to 0…1 over its own range"),
        **{field: None if any(p is None for p in of) else np.concatenate(of) for field, of in parts.items()},
    )


def _volume(file: Path, load: Callable, plane: str) -> tuple[nibabel.spatialimages.SpatialImage, np.ndarray, list[str]]:
    """A volume, turned to RAS unless plane is "stored", its voxels (x, y, z) or (x, y, z, t); doubts."""
    if not file.is_file():
        raise ValueError(f"there is no file '{file.name}'")
    with whole(file, "a volume"), hushed() as heard:
        image = load(file)
        _check_streams(image)
        doubts = [] if plane == "stored" else _doubts(image)
        if (getattr(image.dataobj, "slope", 1), getattr(image.dataobj, "inter", 0)) != (1, 0):  # float64 by default
            image = type(image)(np.asarray(image.dataobj, np.float32), image.affine, image.header)
        if len(image.shape) == 2:
            image = nibabel.Nifti1Image(np.asanyarray(image.dataobj)[..., None], image.affine, image.header)
        image = image if plane == "stored" else nibabel.as_closest_canonical(image)
        voxels = np.asanyarray(image.dataobj)
    doubts += dict.fromkeys(" ".join(text.split()) for text in heard)
    if voxels.ndim == 4 and voxels.shape[3] == 1:
        voxels = voxels[..., 0]
    if voxels.dtype.kind not in "iuf" or not 3 <= voxels.ndim <= 4 or not voxels.size:
        raise ValueError(f"'{file.name}' holds {voxels.dtype} of shape {voxels.shape}; expected numbers, 2 to 4 axes")
    if voxels.dtype.kind == "f" and (bad := int((~(np.abs(voxels) <= np.finfo(np.float32).max)).sum())):
        raise ValueError(f"'{file.name}' holds {bad} NaN or infinite values; expected finite numbers")
    return image, voxels, doubts


def _check_streams(image: nibabel.spatialimages.SpatialImage) -> None:
    """Reads what is compressed to its end: nibabel stops at the last voxel, before the checksum."""
    for part in image.file_map.values():
        if str(part.filename or "").lower().endswith(".gz"):
            with gzip.open(part.filename) as stream:
                while stream.read(2**20):
                    pass


def _says_where(header) -> bool:
    return isinstance(header, nibabel.Nifti1Header) or not isinstance(header, nibabel.AnalyzeHeader)


def _doubts(image: nibabel.spatialimages.SpatialImage) -> list[str]:
    """What a header leaves open about the place of its voxels in the body; ValueError if it is no place."""
    affine, header, doubts = np.asarray(image.affine, float), image.header, []
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise ValueError(f"its affine matrix is {affine[:3].round(3).tolist()}; expected one that can be inverted")
    if not isinstance(header, nibabel.Nifti1Header):
        return doubts
    sizes, zooms = nibabel.affines.voxel_sizes(affine), np.array(header.get_zooms()[:3], float)
    if not np.allclose(sizes[: len(zooms)], zooms, rtol=0.01):
        doubts.append(f"voxels are {_mm(zooms)} by their sizes and {_mm(sizes)} by the affine matrix, which is used")
    sform, qform = (get(coded=True)[0] for get in (header.get_sform, header.get_qform))
    if sform is None and qform is None:
        doubts.append("the header does not say where left is: taken as stored from right to left")
    elif sform is not None and qform is not None:
        shape = (*image.shape[:3], 1, 1)[:3]
        corners = np.stack(np.meshgrid(*([0, n - 1] for n in shape), indexing="ij"), -1).reshape(-1, 3)
        apart = [nibabel.affines.apply_affine(form, corners) for form in (sform, qform)]
        if (far := np.linalg.norm(apart[0] - apart[1], axis=1).max()) > 0.5 * sizes.min():
            doubts.append(f"sform and qform disagree by up to {far:.3g} mm: the sform is used")
    return doubts


def _mm(sizes: np.ndarray) -> str:
    return "×".join(f"{size:.3g}" for size in sizes) + " mm"


def _zooms(volume, across: int, turned: bool) -> list[float]:
    """mm from slice to slice, row to row and column to column, NaN where unknown."""
    column, row = (axis for axis in range(3) if axis != across)
    zooms = np.array(volume.header.get_zooms()[:3], float)
    if isinstance(volume.header, nibabel.Nifti1Header) and turned:
        zooms = nibabel.affines.voxel_sizes(volume.affine)
    units = volume.header.get_xyzt_units()[0] if hasattr(volume.header, "get_xyzt_units") else "mm"
    return (np.where((zooms > 0) & np.isfinite(zooms), zooms, np.nan) * TO_MM[units])[[across, row, column]].tolist()


def _map(file: Path, load: Callable, plane: str, volume, shape, kind: str, names: tuple[str, ...]) -> np.ndarray:
    """Masks, scribbles or instances of a volume as integers (N, H, W)."""
    image, stored, _ = _volume(file, load, plane)
    if stored.shape != shape:
        raise ValueError(f"mask '{file.name}' has shape {stored.shape}; expected that of the image, {shape}")
    if plane != "stored" and not np.allclose(image.affine, volume.affine, atol=0.01):
        raise ValueError(f"mask '{file.name}' lies elsewhere in the body than the image; expected the same affine")
    if names and kind != "instances":
        values = {i: i for i in range(len(names))} | ({UNLABELLED: UNLABELLED} if kind == "scribbles" else {})
        return _slices(translate(file, stored, values), plane)
    if stored.min() < 0 or (stored != np.rint(stored)).any():
        bad = stored[(stored < 0) | (stored != np.rint(stored))][0]
        raise ValueError(f"mask '{file.name}' holds {bad:g}; expected integers from 0")
    return _slices(stored.astype(np.min_scalar_type(int(stored.max()))), plane)


def _slices(voxels: np.ndarray, plane: str) -> np.ndarray:
    """(x, y, z, t) in RAS as (N, H, W): all slices of the first moment, then of the next."""
    voxels = voxels.reshape(*voxels.shape, *(1,) * (4 - voxels.ndim))
    axis = PLANES.get(plane, 2)
    if plane != "stored":
        voxels = np.flip(voxels, [other for other in range(3) if other != axis])
    planes = np.moveaxis(voxels, (3, axis), (0, 1)).swapaxes(2, 3)
    return np.ascontiguousarray(planes.reshape(-1, *planes.shape[2:]))


def native(pixels: np.ndarray) -> np.ndarray:
    """The same numbers as uint8, uint16 or int16 where they fit, else as float32."""
    low, high = pixels.min(), pixels.max()
    if pixels.dtype.kind == "f" and (low < -(2**15) or high >= 2**16 or not np.array_equal(pixels, np.rint(pixels))):
        return pixels.astype(np.float32, copy=False)
    types = (pixels.dtype.newbyteorder("="), np.int16, np.uint16)
    fits = [
        t for t in types if t in (np.uint8, np.uint16, np.int16) and np.iinfo(t).min <= low and high <= np.iinfo(t).max
    ]
    return pixels.astype(fits[0] if fits else np.float32)


def padding(images: np.ndarray, named=(), *, air: bool = True) -> float | None:
    """The lowest or highest value where it is padding: it stands alone, 100 or more away from all others.

    named: values that a header calls padding. air: the lowest counts, too, where it lies below -1024, air in CT.
    """
    ends = {float(images.min()): 1, float(images.max()): -1}
    for value, way in ends.items():
        if value in named or (air and way == 1 and value < AIR):
            rest = images[images != value]
            if rest.size and abs(float(rest.min() if way == 1 else rest.max()) - value) >= 100:
                return value
    return None


def span(images: np.ndarray, percentiles: tuple[float, float], pad: float | None = None) -> tuple[float, float]:
    """The values at two percentiles of what is not padding, one apart if they are equal."""
    values = images if pad is None else images[images != pad]
    low, high = (float(value) for value in np.percentile(values, percentiles))
    return low, high if high > low else low + 1
