"""One type for every source of images: phantoms, samples, public sets and the reader's own files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace

import numpy as np
import torch

UNLABELLED = 255  # in scribbles
_PER_IMAGE = ("labels", "patients", "scanners", "volumes", "slices", "frames", "slice_spacing")
_PER_PIXEL = ("masks", "instances", "scribbles")


@dataclass(frozen=True)
class ImageSet:
    """Images in native units with what is known about them.

    images: (N, C, H, W), uint8, uint16, int16 or float32, may be memory-mapped. value_range: the native values that
    become 0 and 1 for a network. labels: (N,) integer classes.

    masks: (N, H, W) integer classes, 0 is background. instances: (N, H, W) integers, 0 is none, each object its own
    number. scribbles: (N, H, W) integer classes, UNLABELLED (255) where nothing was drawn.

    patients, scanners (camera or laboratory), volumes (stack, slide or cine), slices (position in it) and frames
    (moment): (N,), or None if unknown. spacing: (N, 2) mm from row to row and column to column, NaN where unknown; a
    pair stands for all images. slice_spacing: (N,) mm. steps: what was done since the images were read or generated.

    Raises ValueError if shapes, lengths or values do not fit one another.
    """

    name: str
    modality: str
    images: np.ndarray
    value_range: tuple[float, float]
    labels: np.ndarray | None = None
    masks: np.ndarray | None = None
    instances: np.ndarray | None = None
    scribbles: np.ndarray | None = None
    patients: np.ndarray | None = None
    scanners: np.ndarray | None = None
    volumes: np.ndarray | None = None
    slices: np.ndarray | None = None
    frames: np.ndarray | None = None
    spacing: np.ndarray | None = None
    slice_spacing: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    mask_names: tuple[str, ...] = ()
    licence: str = "unverified"
    citation: str = ""
    steps: tuple[str, ...] = ()

    def __post_init__(self):
        images = self.images
        if images.ndim != 4:
            raise ValueError(f"images of '{self.name}' have shape {images.shape}; expected (N, C, H, W)")
        if len(images) == 0:
            raise ValueError(f"'{self.name}' has no images; expected at least one")
        if images.dtype.kind == "f" and not np.isfinite(images).all():
            bad = int(np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3)))[0])
            raise ValueError(f"image {bad} of '{self.name}' has NaN or infinite values; expected finite numbers")
        if self.spacing is not None and np.shape(self.spacing) == (2,):
            object.__setattr__(self, "spacing", np.tile(np.asarray(self.spacing, float), (len(images), 1)))
        n, grid = (len(images),), (len(images), *images.shape[2:])
        expected = dict.fromkeys(_PER_IMAGE, n) | dict.fromkeys(_PER_PIXEL, grid) | {"spacing": (*n, 2)}
        for field, shape in expected.items():
            value = getattr(self, field)
            if value is not None and np.shape(value) != shape:
                raise ValueError(f"{field} of '{self.name}' have shape {np.shape(value)}; expected {shape}")
        for field, names, unknown in (
            ("masks", self.mask_names, ()),
            ("scribbles", self.mask_names, (UNLABELLED,)),
            ("labels", self.class_names, ()),
        ):
            value = getattr(self, field)
            if value is None or not names:
                continue
            if bad := sorted(set(np.unique(value).tolist()) - {*range(len(names)), *unknown}):
                raise ValueError(
                    f"{field} of '{self.name}' hold {bad[0]}; expected 0 to {len(names) - 1} ({', '.join(names)})"
                )
        low, high = self.value_range
        if not low < high:
            raise ValueError(
                f"value_range of '{self.name}' is {self.value_range}; expected (low, high) with low < high"
            )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index) -> ImageSet:
        """The images of an index array, a slice or a boolean mask, with everything that belongs to them."""
        index = np.atleast_1d(index) if np.isscalar(index) else index
        return replace(self, **{name: array[index] for name, array in self._arrays().items()})

    def tensor(self) -> torch.Tensor:
        """Images for a network: float32 (N, C, H, W), value_range mapped to 0…1, values outside it clipped."""
        low, high = self.value_range
        return torch.from_numpy(((self.images.astype(np.float32) - low) / (high - low)).clip(0, 1))

    def content_hash(self) -> str:
        """The first 16 hexadecimal digits of a sha256 over the pixels and all that belongs to them."""
        digest = hashlib.sha256(f"{self.name} {self.value_range}".encode())
        for field, array in self._arrays().items():
            digest.update(f"{field} {array.dtype.str} {array.shape}".encode())
            plain = array.dtype.kind != "O"
            digest.update(np.ascontiguousarray(array).tobytes() if plain else repr(array.tolist()).encode())
        return digest.hexdigest()[:16]

    def _arrays(self) -> dict[str, np.ndarray]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


class ImageSets(tuple):
    """Several sets as the data of one run: `name`, all their names, and `content_hash()`, one over theirs."""

    @property
    def name(self) -> str:
        return " + ".join(dict.fromkeys(images.name for images in self))

    def content_hash(self) -> str:
        return hashlib.sha256(" ".join(images.content_hash() for images in self).encode()).hexdigest()[:16]
