"""Public data sets in the layouts in which people have them, read from a folder; nothing in them is unpickled."""

from __future__ import annotations

import re
import zipfile
import zlib
from dataclasses import fields, replace
from pathlib import Path

import h5py
import numpy as np

from helpers.data.image_set import UNLABELLED, ImageSet
from helpers.data.own import from_folder
from helpers.data.readers.masks import read_labels
from helpers.data.readers.pictures import numbered, read_image, translate
from helpers.data.readers.volumes import from_nifti
from helpers.data.resample import CENTRED, LETTERBOXED, centred, respaced, stack

PARTS = ("train", "val", "test")
ACDC_GROUPS = ("DCM", "HCM", "MINF", "NOR", "RV")
HEART = ("background", "right ventricle", "myocardium", "left ventricle")
ACDC = dict(
    modality="MR",
    mask_names=HEART,
    licence="CC BY-NC-SA 4.0",
    citation="ACDC, Bernard et al. 2018, doi 10.1109/TMI.2018.2837502",
)
BUSI = ("normal", "benign", "malignant")
DISC = {255: 0, 128: 1, 0: 2}  # background, rim and cup as they are stored


def medmnist(
    path: str | Path,
    *,
    name: str = "",
    part: str = "train",
    column: int | None = None,
    class_names: tuple[str, ...] = (),
) -> ImageSet:
    """One 2-D set of MedMNIST: a file, or `name`.npz in a folder; `part` is the published train, val, test, or all.

    column: which of several labels of an image (ChestMNIST). Patients are not published. Images are uint8, grey or
    colour. Source: Yang et al. 2023, https://medmnist.com.

    Raises ValueError for an unknown part, a missing key, pickled objects (they are refused) and unfit shapes.
    """
    file = Path(path) / f"{name}.npz" if Path(path).is_dir() else Path(path)
    if part not in (*PARTS, "all"):
        raise ValueError(f"part is {part!r}; expected one of {', '.join(PARTS)} or all")
    parts = PARTS if part == "all" else (part,)
    arrays = _npz(file, [f"{p}_{kind}" for kind in ("images", "labels") for p in parts])
    images, labels = (np.concatenate(arrays[i : i + len(parts)]) for i in (0, len(parts)))
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[3:] not in ((), (3,)):
        raise ValueError(f"'{file.name}' holds {images.dtype} {images.shape}; expected uint8 (N, H, W) or (N, H, W, 3)")
    labels = labels.reshape(len(labels), -1)
    if labels.shape[1] > 1 and column is None:
        raise ValueError(f"'{file.name}' has {labels.shape[1]} labels an image; choose one as column=")
    return ImageSet(
        name=file.stem + (f"-{part}" if part != "all" else ""),
        modality="unknown",
        images=images[:, None] if images.ndim == 3 else np.ascontiguousarray(np.moveaxis(images, 3, 1)),
        value_range=(0, 255),
        labels=labels[:, column or 0].astype(int),
        class_names=class_names,
        licence="CC BY 4.0 (DermaMNIST: CC BY-NC 4.0)",
        citation="MedMNIST v2, Yang et al. 2023, doi 10.1038/s41597-022-01721-8",
    )


def _npz(file: Path, keys: list[str]) -> list[np.ndarray]:
    if not file.is_file():
        raise ValueError(f"there is no file '{file.name}'; expected a MedMNIST file ending in .npz")
    try:
        with np.load(file, allow_pickle=False) as stored:
            if missing := [key for key in keys if key not in stored]:
                raise KeyError(missing[0])
            return [stored[key] for key in keys]
    except KeyError as error:
        raise ValueError(f"'{file.name}' has no {error}; expected {', '.join(keys)}") from error
    except ValueError as error:  # NumPy's word for pickled objects, and for what is no archive
        raise ValueError(f"'{file.name}' holds pickled objects, or is no npz file: refused") from error
    except (OSError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"'{file.name}' cannot be read; expected a whole npz file") from error


def acdc_slices(data_dir: str | Path, *, size: int | None = None) -> ImageSet:
    """ACDC as HDF5 slices `patient001_frame01_slice_0.h5` with image, label and scribble, as in HiLab-git/WSL4MIS.

    Images are float32 in 0…1 as they come; the spacing is not stored. Labels are the pathologies, 20 patients each in
    the order of their numbers (None beyond patient 100). Of the frames of a patient the one with more left ventricle
    is ED, end of diastole. size: the central pixels; the slices differ in size.

    Raises ValueError for a folder without slices, a file without image or label, and unknown values.
    """
    root = Path(data_dir)
    named = [(re.fullmatch(r"patient(\d+)_frame(\d+)_slice_(\d+)", f.stem), f) for f in root.rglob("*.h5")]
    found = sorted((*map(int, match.groups()), f) for match, f in named if match)
    if not found:
        raise ValueError(f"'{root.name}' holds no slices; expected files like patient001_frame01_slice_0.h5")
    arrays = [_h5(file) for *_, file in found]
    patients, frames, slices = (np.array([row[i] for row in found]) for i in range(3))
    volumes = numbered(patients * 1000 + frames)
    ventricle = np.bincount(volumes, [np.sum(masks == 3) for _, masks, _ in arrays])
    largest = np.array([ventricle[volumes[patients == p]].max() for p in patients])
    scribbled = all(scribbles is not None for *_, scribbles in arrays)
    images, masks, scribbles = zip(*arrays, strict=True)
    return ImageSet(
        name="acdc-slices",
        **ACDC,
        images=stack(root.name, images, size, crop=True),
        value_range=(0.0, 1.0),
        masks=stack(root.name, masks, size, kind="masks", crop=True),
        scribbles=stack(root.name, scribbles, size, kind="scribbles", crop=True) if scribbled else None,
        labels=(patients - 1) // 20 if patients.max() <= 100 else None,
        class_names=ACDC_GROUPS if patients.max() <= 100 else (),
        patients=patients,
        volumes=volumes,
        slices=slices,
        frames=np.where(ventricle[volumes] == largest, "ED", "ES"),
        steps=() if size is None else (CENTRED.format(size),),
    )


def _h5(file: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Image (1, H, W), mask (H, W) and scribbles (H, W), or None, of a slice."""
    try:
        with h5py.File(file) as stored:
            arrays = {key: stored[key][()] for key in ("image", "label", "scribble") if key in stored}
    except OSError as error:
        raise ValueError(f"'{file.name}' cannot be read; expected a whole HDF5 file") from error
    for key in ("image", "label"):
        if key not in arrays:
            raise ValueError(f"'{file.name}' has no '{key}'; expected image, label and perhaps scribble")
    for key, array in arrays.items():
        if array.ndim != 2 or array.shape != arrays["image"].shape:
            raise ValueError(f"{key} of '{file.name}' has shape {array.shape}; expected that of one slice")
    classes = {i: i for i in range(len(HEART))}
    scribbles = translate(file, arrays["scribble"], classes | {4: UNLABELLED}) if "scribble" in arrays else None
    return arrays["image"].astype(np.float32)[None], translate(file, arrays["label"], classes), scribbles


def acdc_nifti(data_dir: str | Path, *, mm: float | None = None, size: int | None = None) -> ImageSet:
    """ACDC as published: `patient001/` with `patient001_frame01.nii.gz`, `…_gt.nii.gz` and `Info.cfg`.

    Slices as stored, each volume divided by its 99.5th percentile: float32, value_range 0…1. Labels are the groups of
    Info.cfg. mm: resample to pixels of this side; size: then the central pixels. Both are needed where they differ.

    Raises ValueError for a folder without patients, an Info.cfg without ED, ES or Group, and unfit masks.
    """
    root = Path(data_dir)
    if not (infos := sorted(root.rglob("Info.cfg"))):
        raise ValueError(f"'{root.name}' holds no patients; expected folders like patient001 with an Info.cfg")
    if mm is not None and size is None:
        raise ValueError(f"mm is {mm} and size None; expected a size with it, since fields of view differ")
    volumes = []
    for patient, info in enumerate(infos):
        moments, group = _info(info)
        for moment, frame in moments.items():
            file = info.parent / f"{info.parent.name}_frame{frame:02d}.nii.gz"
            truth = file.with_name(file.name.replace(".nii", "_gt.nii"))
            volume = from_nifti(file, mask=truth, mask_names=HEART, plane="stored")
            ones = np.ones(len(volume), int)
            volume = replace(
                volume,
                name="acdc-nifti",
                **ACDC,
                images=volume.images / np.float32(max(np.percentile(volume.images, 99.5), 1e-6)),
                value_range=(0.0, 1.0),
                labels=ones * ACDC_GROUPS.index(group),
                class_names=ACDC_GROUPS,
                patients=ones * patient,
                volumes=ones * len(volumes),
                frames=np.full(len(volume), moment),
                steps=(*volume.steps, "each volume divided by its 99.5th percentile"),
            )
            if size is not None:
                volume = centred(volume, size) if mm is None else respaced(volume, mm, size)
            volumes.append(volume)
    return _joined(root, volumes)


def _info(file: Path) -> tuple[dict[str, int], str]:
    """The frames of the end of diastole (ED) and systole (ES), and the group; height and weight are not kept."""
    found = dict(re.findall(r"^(ED|ES|Group): *(\w+)", file.read_text(), re.MULTILINE))
    for key, fits in (("ED", str.isdigit), ("ES", str.isdigit), ("Group", ACDC_GROUPS.__contains__)):
        if not fits(found.get(key, "")):
            raise ValueError(f"{key} in '{file.parent.name}/{file.name}' is {found.get(key)!r}; expected a known one")
    return {moment: int(found[moment]) for moment in ("ED", "ES")}, found["Group"]


def _joined(root: Path, sets: list[ImageSet]) -> ImageSet:
    """Image sets of one kind as one."""
    if len(shapes := sorted({data.images.shape[2:] for data in sets})) > 1:
        raise ValueError(f"'{root.name}' holds images of {len(shapes)} sizes, {shapes[0]} to {shapes[-1]}; give a size")
    arrays = {name: [getattr(data, name) for data in sets] for name in (f.name for f in fields(ImageSet))}
    whole = {name: values for name, values in arrays.items() if all(isinstance(v, np.ndarray) for v in values)}
    return replace(sets[0], **{name: np.concatenate(values) for name, values in whole.items()})


def disc_crops(data_dir: str | Path, *, size: int | None = None, name: str = "disc-crops") -> ImageSet:
    """Optic-disc crops, `image/` and `mask/` of the same names in colour, as in EmmaW8/pOSAL (REFUGE, Drishti-GS).

    Stored masks are 255 background, 128 rim, 0 cup. Labels: names in g are glaucoma, in n normal; None if others occur.

    Raises ValueError for a folder without images, a missing mask, one that does not fit, or an unknown value in it.
    """
    root = Path(data_dir)
    files = sorted(f for f in (root / "image").glob("[!.]*") if f.suffix.lower() == ".png")
    if not files:
        raise ValueError(f"'{root.name}' holds no crops; expected PNG files in '{root.name}/image' and '…/mask'")
    images, masks = [], []
    for file in files:
        images.append(read_image(file, colour=True, scaled=False))
        masks.append(read_labels(root / "mask" / file.name, DISC))
        if masks[-1].shape != images[-1].shape[1:]:
            shapes = f"{masks[-1].shape}; expected that of the image, {images[-1].shape[1:]}"
            raise ValueError(f"mask of '{file.name}' has shape {shapes}")
    labelled = all(file.name[0] in "gn" for file in files)
    return ImageSet(
        name=name,
        modality="fundus",
        images=stack(root.name, images, size),
        value_range=(0, 255),
        masks=stack(root.name, masks, size, kind="masks"),
        mask_names=("background", "rim", "cup"),
        labels=np.array([int(file.name[0] == "g") for file in files]) if labelled else None,
        class_names=("normal", "glaucoma") if labelled else (),
        licence="research use",
        citation="REFUGE, Orlando et al. 2020; Drishti-GS, Sivaswamy et al. 2014; crops of pOSAL, Wang et al. 2019",
        steps=() if size is None else (LETTERBOXED.format(size),),
    )


def busi(data_dir: str | Path, *, size: int | None = None) -> ImageSet:
    """BUSI as published: `benign/benign (1).png` with `benign (1)_mask.png` and perhaps `…_mask_1.png` beside it.

    Classes are normal, benign and malignant; several masks of an image are one, and normal images have empty ones.
    Images are uint8, grey, and differ in size. Patients are not published. Warns of images that look the same: there
    are such. Raises ValueError as `from_folder` does.
    """
    data = from_folder(data_dir, size=size, classes=BUSI, mask_names=("background", "tumour"), scaled=False)
    return replace(
        data,
        name="busi",
        modality="ultrasound",
        licence="unverified",
        citation="BUSI, Al-Dhabyani et al. 2020, doi 10.1016/j.dib.2019.104863",
    )
