"""One type for every source of images: phantoms, samples, public sets and the reader's own files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace

import numpy as np
import torch


@dataclass(frozen=True)
class ImageSet:
    """Images in native units with what is known about them.

    images: (N, C, H, W), uint8, int16 or float32. value_range: the native values that become 0 and 1 for a network.
    labels: (N,) integer classes. masks: (N, H, W) integer classes, 0 is background. patients: (N,) or None if unknown.
    spacing: mm per pixel (row, column) or None. steps: what was done to the images since they were read or generated.

    Raises ValueError if shapes, lengths or values do not fit one another.
    """

    name: str
    modality: str
    images: np.ndarray
    value_range: tuple[float, float]
    labels: np.ndarray | None = None
    masks: np.ndarray | None = None
    patients: np.ndarray | None = None
    spacing: tuple[float, float] | None = None
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
        for field in ("labels", "patients"):
            value = getattr(self, field)
            if value is not None and value.shape != (len(images),):
                raise ValueError(f"{field} of '{self.name}' have shape {value.shape}; expected ({len(images)},)")
        if self.masks is not None and self.masks.shape != (len(images), *images.shape[2:]):
            expected = (len(images), *images.shape[2:])
            raise ValueError(f"masks of '{self.name}' have shape {self.masks.shape}; expected {expected}")
        low, high = self.value_range
        if not low < high:
            raise ValueError(
                f"value_range of '{self.name}' is {self.value_range}; expected (low, high) with low < high"
            )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index) -> ImageSet:
        """The images of an index array, a slice or a boolean mask, with everything that belongs to them."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), np.ndarray)}
        return replace(self, **{name: array[np.atleast_1d(index) if np.isscalar(index) else index]
                                for name, array in arrays.items()})  # fmt: skip

    def tensor(self) -> torch.Tensor:
        """Images for a network: float32 (N, C, H, W), value_range mapped to 0…1, values outside it clipped."""
        low, high = self.value_range
        return torch.from_numpy(((self.images.astype(np.float32) - low) / (high - low)).clip(0, 1))

    def content_hash(self) -> str:
        """The first 16 hexadecimal digits of a sha256 over pixels, labels, masks and patients."""
        digest = hashlib.sha256(f"{self.name} {self.value_range}".encode())
        for field in ("images", "labels", "masks", "patients"):
            array = getattr(self, field)
            if array is not None:
                digest.update(f"{field} {array.dtype.str} {array.shape}".encode())
                plain = array.dtype.kind != "O"
                digest.update(np.ascontiguousarray(array).tobytes() if plain else repr(array.tolist()).encode())
        return digest.hexdigest()[:16]
