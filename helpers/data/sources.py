"""`load(name, source=…)` for images of all sources, and `catalogue()` of what there is."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydicom.misc import is_dicom

from helpers.data import checks
from helpers.data.fetch import cache_dir
from helpers.data.image_set import ImageSet
from helpers.data.options import check_options, check_whole, folder_of
from helpers.data.own import from_folder
from helpers.data.phantoms import PHANTOMS
from helpers.data.readers.dicom import from_dicom
from helpers.data.readers.files import visible
from helpers.data.readers.names import patients_in
from helpers.data.readers.oct import oct_scan
from helpers.data.readers.pictures import SUFFIXES
from helpers.data.readers.public import acdc_nifti, acdc_slices, busi, disc_crops, medmnist
from helpers.data.readers.volume_folder import check_together, volumes_in
from helpers.data.readers.volumes import from_analyze, from_metaimage, from_nifti, joined
from helpers.data.registry import PublicSet, read_public, verify
from helpers.data.resample import letterboxed
from helpers.data.samples import SAMPLES, sample

SOURCES = ("phantom", "sample", "public", "folder")
READERS: dict[str, Callable[..., ImageSet]] = {
    reader.__name__: reader
    for reader in (
        acdc_nifti,
        acdc_slices,
        busi,
        disc_crops,
        medmnist,
        oct_scan,
        from_folder,
        from_dicom,
        from_nifti,
        from_metaimage,
    )
}
MAPS = ("file", "mask", "scribbles", "instances")  # options that are paths
VOLUMES = {".nii": from_nifti, ".gz": from_nifti, ".mha": from_metaimage, ".mhd": from_metaimage, ".hdr": from_analyze}


def load(
    name: str,
    *,
    source: str = "phantom",
    images: int | None = None,
    size: int | None = None,
    seed: int | None = None,
    data_dir: str = "",
    **options,
) -> ImageSet:
    """The images called `name` from one of four sources; `catalogue` lists the names.

    source: "phantom" (generated), "sample" (real images that were brought once), "public" (a data set of the field:
    in `data_dir`, or where `python -m data_scripts.fetch` put it), "folder" (the reader's own files in `data_dir`).
    images, size, seed: how many, pixels a side, and which; by default as many and as large as the source has. Of
    public sets and folders at most so many are drawn, each class with its share, after all were read.
    options: those of the generator or reader, but for an empty `classes`. Of folders also structure: the number in the
    masks to keep as 1, all else becomes background; 0 keeps what the reader makes of them.

    Raises ValueError for an unknown name, source or option, a number that is none, and a `data_dir` that is missing or
    superfluous; FileNotFoundError, with the command that brings it, for what is not on this machine.
    """
    options = {key: value for key, value in options.items() if value or key != "classes"}
    if source not in SOURCES:
        raise ValueError(f"source is {source!r}; expected one of {', '.join(SOURCES)}")
    known = names(source)
    if name not in known and not (source == "sample" and name in PHANTOMS):  # `sample` explains why there is none
        raise ValueError(f"no images of source {source!r} are called {name!r}; known are {', '.join(known)}")
    folder = folder_of(source, data_dir)
    check_whole(1, images=images, size=size)
    check_whole(0, structure=options.get("structure"))
    given = {key: value for key, value in dict(images=images, size=size, seed=seed).items() if value is not None}
    if source == "phantom":
        check_options(name, PHANTOMS[name], options)
        return PHANTOMS[name](**given, **options)
    if source == "sample":
        if name in SAMPLES:
            check_options(name, SAMPLES[name].load, options)
        return sample(name, **given, **options)
    if source == "public":
        return drawn(_public(read_public()[name], folder, size, options), images, seed)
    found = replace(_one_structure(folder, size, options), modality=name)
    if found.patients is None and found.labels is not None:
        warnings.warn(
            f"'{folder.name}' does not say which images are of one patient: a split goes by image, and is too "
            "kind where a patient has several; expected 'patient' and a number in the names",
            stacklevel=2,
        )
    return drawn(found, images, seed)


def _one_structure(folder: Path, size: int | None, options: dict) -> ImageSet:
    """The reader's own images; of the masks only the number `structure`, unless it is 0."""
    structure = options.get("structure", 0)
    if not structure or folder.is_dir() and "pictures" in kinds_of(folder):
        return own(folder, size, {key: value for key, value in options.items() if value or key != "structure"})
    found = own(folder, size, {key: value for key, value in options.items() if key != "structure"})
    if found.masks is None or not (found.masks == structure).any():
        raise ValueError(
            f"structure is {structure}, but no mask of '{folder.name}' holds it; expected one that is drawn"
        )
    names = ("background", dict(enumerate(found.mask_names)).get(structure, f"number {structure}"))
    return replace(found, masks=(found.masks == structure).astype(np.uint8), mask_names=names)


def names(source: str) -> list[str]:
    """The names that `load` knows for a source."""
    return list({"phantom": PHANTOMS, "sample": SAMPLES, "public": read_public(), "folder": PHANTOMS}[source])


def _public(found: PublicSet, data_dir: Path | None, size: int | None, options: dict) -> ImageSet:
    folder = Path(data_dir or cache_dir() / found.name)
    if not folder.is_dir():
        command = f"python -m data_scripts.fetch {found.name}"
        raise FileNotFoundError(f"{found.name} is not in {folder}; bring it, or learn how to, with: {command}")
    verify(found, folder)
    reader = READERS[found.reader]
    named = {"name": found.name} if "name" in inspect.signature(reader).parameters else {}
    if reader in VOLUMES.values():  # one of many
        if "file" not in options:
            raise ValueError(f"{found.name} holds one file a volume; expected file=…, its path in {folder.name}")
        options = {key: folder / value if key in MAPS else value for key, value in options.items()}
        folder = options.pop("file")
    data = _read(reader, folder, size, named | options)
    return replace(data, modality=found.modality, licence=found.terms or "unverified", citation=found.citation)


def _read(reader: Callable[..., ImageSet], path: Path, size: int | None, options: dict) -> ImageSet:
    """What a reader makes of a path, at `size`: by itself if it can, else padded to a square and resized."""
    check_options(path.name, reader, options)
    if size is not None and "size" in inspect.signature(reader).parameters:
        return reader(path, size=size, **options)
    found = reader(path, **options)
    return found if size is None else letterboxed(found, size)


def own(folder: Path, size: int | None, options: dict) -> ImageSet:
    """Pictures, volumes, or one DICOM series, as the names of the files in the folder say; or one of the latter two."""
    if folder.suffix.lower() in SUFFIXES and folder.is_file():
        raise ValueError(f"'{folder.name}' is one picture; expected the folder it is in")
    if folder.is_file():
        return _read(VOLUMES.get(folder.suffix.lower(), from_dicom), folder, size, options)
    kinds = kinds_of(folder)
    if len(kinds) > 1:
        several = " and ".join(f"{len(files)} of {kind} ({files[0].name})" for kind, files in kinds.items())
        raise ValueError(f"'{folder.name}' holds files of several kinds, {several}; expected one kind: move the others")
    if "pictures" in kinds:
        return _read(from_folder, folder, size, options)
    if "volumes" not in kinds:
        return _read(from_dicom, folder, size, options)
    return _volumes(folder, size, options)


def _volumes(folder: Path, size: int | None, options: dict) -> ImageSet:
    """The volumes of a folder with their masks; of one patient where names hold `patient` and the same number."""
    volumes, maps = volumes_in(folder, tuple(VOLUMES))
    read, levels = [], []
    for volume, own_maps in zip(volumes, maps, strict=True):
        one = _read(VOLUMES[volume.suffix.lower()], volume, None, own_maps | options)
        levels.append(checks.levels(one.images))  # before a resize makes more of them
        read.append(one if size is None else letterboxed(one, size))
        checks.fits_memory(folder, read[-1].images.nbytes, len(volumes), len(read), "volumes")
    check_together(folder, volumes, read, levels)
    if len(read) == 1:
        return read[0]
    patients = patients_in(folder, volumes)
    found = joined(read, list(range(len(read))) if patients is None else patients.tolist())
    return found if patients is not None else replace(found, steps=(*found.steps, "each volume is taken as a patient"))


def kinds_of(folder: Path) -> dict[str, list[Path]]:
    """The files of a folder by what they are: pictures, volumes and DICOM; all that are left, if there are none."""
    kinds = {"pictures": [], "volumes": [], "DICOM": []}
    files = visible(folder)
    for file in files:
        suffix = file.suffix.lower()
        kind = "pictures" if suffix in SUFFIXES else "volumes" if suffix in VOLUMES else "DICOM"
        if kind != "DICOM" or suffix == ".dcm" or is_dicom(file):
            kinds[kind].append(file)
    return {kind: found for kind, found in kinds.items() if found} or ({"DICOM": files} if files else {"pictures": []})


def drawn(data: ImageSet, images: int | None, seed: int | None) -> ImageSet:
    """At most so many images, drawn at random with `seed`, each class with its share; all if None."""
    if images is None or images >= len(data):
        return data
    rng, place = np.random.default_rng(seed or 0), np.empty(len(data))
    labels = np.zeros(len(data), int) if data.labels is None else data.labels
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    chosen = data[np.sort(np.argsort(place, kind="stable")[:images])]
    return replace(chosen, steps=(*data.steps, f"{images} of {len(data)} images, drawn with seed {seed or 0}"))


@dataclass(frozen=True)
class CatalogueEntry:
    """One line of the catalogue; patients, images and size are texts, empty where unknown."""

    name: str
    source: str
    modality: str
    patients: str
    images: str
    size: str
    masks: str
    licence: str
    citation: str
    here: bool
    how: str


def catalogue(*, sources: Sequence[str] = SOURCES) -> list[CatalogueEntry]:
    """What `load` knows of some sources: a list of entries, each with whether it is on this machine."""
    entries = []
    if "phantom" in sources:
        entries += [_phantom_entry(name) for name in PHANTOMS]
    if "sample" in sources:
        entries += [_sample_entry(name) for name in SAMPLES]
    if "public" in sources:
        entries += [_public_entry(found) for found in read_public().values()]
    return entries


def _phantom_entry(name: str) -> CatalogueEntry:
    one = PHANTOMS[name](images=1, size=32)
    about = dict(modality=one.modality, licence=one.licence, citation=one.citation, masks=", ".join(one.mask_names[1:]))
    return CatalogueEntry(name, "phantom", patients="any", images="any", size="any", here=True, how="", **about)


def _sample_entry(name: str) -> CatalogueEntry:
    facts = SAMPLES[name]
    size = "any" if facts.shape is None else "×".join(map(str, facts.shape))
    about = dict(modality=facts.modality, licence=facts.licence, citation=facts.citation, masks=", ".join(facts.masks))
    counts = dict(patients="" if facts.patients is None else str(facts.patients), images=str(facts.images or "any"))
    return CatalogueEntry(
        name, "sample", size=size, here=facts.here, how="python -m data_scripts.fetch samples", **about, **counts
    )


def _public_entry(found: PublicSet) -> CatalogueEntry:
    about = dict(
        modality=found.modality, licence=found.terms or "unverified", citation=found.citation, masks=found.task
    )
    counts = dict(patients=found.patients, images=found.images, size=found.size)
    how = f"python -m data_scripts.fetch {found.name}"
    return CatalogueEntry(found.name, "public", here=(cache_dir() / found.name).is_dir(), how=how, **about, **counts)
