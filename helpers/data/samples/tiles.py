"""Real pictures that ship inside published Python packages, whole or in tiles: fundus, histology, cell nuclei.

Each set holds ONE picture: real pixels on which to look and to try things, never a score over patients. The masks of
the H&E section were made by a program and are noisy.

In all functions: tiles of size × size pixels are cut without resampling from a grid without overlap; images: how many
of them are drawn, None for all. Raises ValueError where there are not as many, FileNotFoundError where a file was not
brought (with the command that brings it).
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pooch
from scipy import ndimage
from skimage.io import imread

from helpers.data.fetch import path
from helpers.data.image_set import ImageSet
from helpers.data.registry import select
from helpers.data.resample import letterboxed

# pictures in the installed scikit-image: sha256, licence and citation as its documentation states them
INSTALLED = {
    "retina.jpg": (
        "38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6",
        "CC0 1.0 (documentation of scikit-image)",
        "scikit-image; M. Häggström: Medical gallery of Mikael Häggström 2014. doi 10.15347/wjm/2014.008",
    ),
    "ihc.png": (
        "f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef",
        "no known copyright restrictions (documentation of scikit-image)",
        "scikit-image; Center for Microscopy and Molecular Imaging (CMMI)",
    ),
}
SECTIONS = {"nest": "hgsc_nest.jpg", "stroma": "hgsc_stromal_he.jpg", "ihc": "ihc.png"}
NUCLEI = ("background", "connective", "inflammatory", "neoplastic")
TISSUES = NUCLEI[1:]
BORDER = 850  # row of the nest section above which tiles are to train; below, a tile's width on, they are to test
MACHINE_MADE = "masks made by a program: noisy"


def fundus(*, size: int = 256, images: int | None = None, seed: int = 0) -> ImageSet:
    """A fundus photograph of a normal left eye (1411×1411, RGB): whole and resampled for images=None or 1, else tiles.

    Tiles lie wholly within the round field of view.
    """
    picture = imread(_file("retina.jpg"))
    if images in (None, 1):
        return letterboxed(_picture_set("fundus", picture[None], "retina.jpg", "the whole picture"), size)
    field = ndimage.binary_fill_holes(picture.max(axis=-1) > 20)
    corners = _grid(field, size, images=images, seed=seed)
    return _picture_set("fundus", _cut(picture, corners, size), "retina.jpg")


def histology(*, size: int = 256, images: int | None = None, seed: int = 0, section: str = "nest") -> ImageSet:
    """Tiles of a stained section, RGB: "nest" or "stroma" of a serous carcinoma (H&E), or "ihc" of a colon.

    The H&E pictures have 1500×1500 pixels, "ihc" 512×512. Whether nest and stroma are of one patient is not stated.
    "nest" has types of nuclei as masks, instances (up to 1294), and as label whether the tile has a neoplastic nucleus.
    """
    if section not in SECTIONS:
        raise ValueError(f"section is {section!r}; expected one of {', '.join(SECTIONS)}")
    picture = imread(_file(SECTIONS[section]))
    corners = _grid(np.ones(picture.shape[:2], bool), size, images=images, seed=seed)
    tiles = _cut(picture, corners, size)
    if section != "nest":
        return _picture_set("histology", tiles, SECTIONS[section])
    types, instances = (_cut(_raster(f"hgsc_nest_{kind}_mask.npz"), corners, size) for kind in ("type", "inst"))
    return _picture_set(
        "histology",
        tiles,
        SECTIONS[section],
        MACHINE_MADE,
        masks=types.astype(np.uint8),
        instances=instances,
        labels=(types == NUCLEI.index("neoplastic")).any(axis=(1, 2)).astype(int),
        class_names=("no neoplastic nucleus", "neoplastic nucleus"),
        mask_names=NUCLEI,
    )


def tissue(*, size: int = 96, images: int | None = None, seed: int = 0, part: str = "train") -> ImageSet:
    """Tiles of the H&E section "nest" around its nuclei; label: the kind of nucleus that covers most of the tile.

    Tiles overlap, also those of one part, so they are no independent cases. Between "train" and "test" lies a band as
    wide as a tile, of which nothing is used. Tiles in which the kind covers under 70 % of the nuclei are left out.
    """
    if part not in ("train", "test"):
        raise ValueError(f"part is {part!r}; expected train or test")
    picture, types = imread(_file(SECTIONS["nest"])), _raster("hgsc_nest_type_mask.npz")
    instances = _raster("hgsc_nest_inst_mask.npz")
    centres = ndimage.center_of_mass(instances > 0, instances, np.unique(instances)[1:])
    corners = np.rint(centres).astype(int) - size // 2
    inside = (corners >= 0).all(1) & (corners + size <= types.shape).all(1)
    here = corners[:, 0] + size <= BORDER if part == "train" else corners[:, 0] >= BORDER + size
    corners = corners[inside & here]
    if not len(corners):
        raise ValueError(f"size is {size}; expected tiles that fit into {part} of a picture of {types.shape} pixels")
    area = (_cut(types, corners, size)[..., None] == np.arange(1, 4)).sum((1, 2))
    clear = area.max(1) >= 0.7 * area.sum(1)
    chosen = _drawn(np.flatnonzero(clear), images=images, size=size, seed=seed)
    return _picture_set(
        "histology",
        _cut(picture, corners[chosen], size),
        SECTIONS["nest"],
        MACHINE_MADE,
        name=f"sample-tissue-{part}",
        labels=area[chosen].argmax(1),
        class_names=TISSUES,
    )


def nuclei(*, size: int = 128, images: int | None = None, seed: int = 0) -> ImageSet:
    """Tiles of a fluorescence micrograph of cell nuclei (512×512, uint16) with instances and their union as masks."""
    picture, objects = imread(_file("nuclei.tif")), imread(_file("nuclei_masks.tif"))
    corners = _grid(np.ones(picture.shape, bool), size, images=images, seed=seed)
    instances = _cut(objects, corners, size)
    return _picture_set(
        "fluorescence",
        _cut(picture[..., None], corners, size),
        "nuclei.tif",
        masks=(instances > 0).astype(np.uint8),
        instances=instances,
        mask_names=("background", "nucleus"),
    )


def rights(file: str) -> tuple[str, str]:
    """Licence and citation of a file, brought or installed."""
    if file in INSTALLED:
        return INSTALLED[file][1:]
    sample = select(file)[0]
    return sample.licence, sample.citation


def _file(name: str) -> Path:
    """The file `name`, brought or in the installed scikit-image (never downloaded from here)."""
    if name not in INSTALLED:
        return path(name)
    file = Path(str(files("skimage") / "data" / name))
    if not file.is_file() or pooch.file_hash(file) != INSTALLED[name][0]:
        raise FileNotFoundError(f"{name} is not in scikit-image as expected; bring it with: pip install scikit-image")
    return file


def _raster(file: str) -> np.ndarray:
    with np.load(path(file), allow_pickle=False) as stored:
        return stored["nuc_raster"]


def _grid(field: np.ndarray, size: int, *, images: int | None, seed: int) -> np.ndarray:
    """Upper left corners (N, 2) of tiles that do not overlap and lie within `field` (H, W); `images` are drawn."""
    rows, columns = (range(0, side - size + 1, size) for side in field.shape)
    corners = np.array([(r, c) for r in rows for c in columns if field[r : r + size, c : c + size].all()])
    return _drawn(corners, images=images, size=size, seed=seed)


def _drawn(tiles: np.ndarray, *, images: int | None, size: int, seed: int) -> np.ndarray:
    images = len(tiles) if images is None else images
    if not 1 <= images <= len(tiles):
        raise ValueError(f"images is {images}; the picture has {len(tiles)} tiles of {size}×{size} pixels")
    return tiles[np.sort(np.random.default_rng(seed).choice(len(tiles), images, replace=False))]


def _cut(picture: np.ndarray, corners: np.ndarray, size: int) -> np.ndarray:
    return np.stack([picture[r : r + size, c : c + size] for r, c in corners])


def _picture_set(modality: str, pixels: np.ndarray, file: str, step: str = "", **known) -> ImageSet:
    """Tiles (N, H, W, C) of one picture, or the picture."""
    one = np.zeros(len(pixels), int)
    licence, citation = rights(file)
    about = dict(name=f"sample-{Path(file).stem}", patients=one, volumes=one, licence=licence, citation=citation)
    return ImageSet(
        modality=modality,
        images=np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)),
        value_range=(0, 255),
        steps=tuple(filter(None, (step or "cut into tiles", "one picture"))),
        **about | known,
    )
