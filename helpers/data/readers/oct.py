"""One OCT scan with its boundaries, drawn by hand, as FabianRathke/octSegmentation publishes it, in MATLAB files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.io import loadmat

from helpers.data.image_set import ImageSet
from helpers.data.readers.files import whole

# Rathke, Schmidt and Schnörr 2014, Section 2: eight layers between nine boundaries
LAYERS = ("background", "NFL", "GCL+IPL", "INL", "OPL", "ONL+IS", "connecting cilia", "OS", "RPE")


def oct_scan(data_dir: str | Path) -> ImageSet:
    """The circular B-scan of a folder with circularScan.mat and circularScan_0_coordinates.mat, and its layers.

    Of the first file only the reflectivity and the sizes of a pixel are read: it also holds a code and a birth date.
    float32, the fourth root of the reflectivity, as its authors show it; what the device marks as invalid is 0. Masks
    are the layers between the boundaries (rows from 1 in the file); the boundaries themselves: `boundaries`.

    Raises ValueError for a damaged file, a missing one, and boundaries that do not fit the scan.
    """
    root = Path(data_dir)
    scan = _arrays(root, "circularScan.mat", ("B0",), ("ScaleZ", "ScaleX"))
    reflected = np.nan_to_num(np.asarray(scan["B0"], float), nan=0, posinf=0)
    rows = boundaries(root)
    if reflected.ndim != 2 or rows.shape[1] != reflected.shape[1] or not (rows < len(reflected)).all():
        raise ValueError(
            f"the boundaries of '{root.name}' have shape {rows.shape} and end at row {np.nanmax(rows):.1f}; "
            f"expected ({len(LAYERS)}, columns) within a scan of {reflected.shape}"
        )
    image = np.where((reflected >= 0) & (reflected <= 10), reflected, 0) ** 0.25
    below = np.arange(len(image))[:, None] >= rows[:, None, :]  # (9, H, W): at or below a boundary
    masks = below.sum(0) % len(LAYERS)  # below the last one is background again
    spacing = np.array([np.squeeze(scan.get(key, np.nan)) for key in ("ScaleZ", "ScaleX")], float)
    return ImageSet(
        name="oct-scan",
        modality="OCT",
        images=image.astype(np.float32)[None, None],
        value_range=(0.0, max(float(image.max()), 1e-6)),
        masks=masks.astype(np.uint8)[None],
        mask_names=LAYERS,
        patients=np.zeros(1, int),
        spacing=spacing if (spacing > 0).all() else None,
        licence="MIT",
        citation="Rathke et al. 2014, arXiv 1403.8003",
        steps=("fourth root of the reflectivity, invalid values 0",),
    )


def boundaries(data_dir: str | Path) -> np.ndarray:
    """The nine boundaries (9, W) in rows from 0 at the top, in the order of depth."""
    name = "circularScan_0_coordinates.mat"
    rows = np.asarray(_arrays(Path(data_dir), name, ("interpolation",))["interpolation"], float) - 1
    if rows.ndim != 2 or len(rows) != len(LAYERS) or not np.isfinite(rows).all() or (rows < 0).any():
        raise ValueError(
            f"'{name}' holds boundaries of shape {rows.shape}; expected ({len(LAYERS)}, columns) from row 1"
        )
    if (np.diff(rows, axis=0) < -1).any():
        raise ValueError(f"boundaries in '{name}' cross one another; expected them from top to bottom")
    return np.maximum.accumulate(rows, axis=0)


def _arrays(root: Path, name: str, keys: tuple[str, ...], more: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    found = sorted(root.rglob(name)) if root.is_dir() else []
    if not found:
        raise ValueError(f"there is no '{name}' in '{root.name}'; expected the files of datafiles/exampleScans")
    with whole(found[0], "a MATLAB file"):
        stored = loadmat(found[0], variable_names=(*keys, *more))
    if missing := [key for key in keys if key not in stored]:
        raise ValueError(f"'{name}' has no {missing[0]}; expected {', '.join(keys)}")
    return stored
