"""How well two segmentations agree: Dice per slice, volume and patient, F1 of objects, distances, and topology."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt
from scipy.spatial import KDTree
from skimage.measure import label
from skimage.morphology import skeletonize


def dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    """2 |P ∩ T| / (|P| + |T|) of two boolean arrays, NaN if both are empty. Source: Dice, Ecology 1945.

    Raises ValueError for unequal shapes and for arrays that are not boolean.
    """
    _check(prediction, truth)
    return float(slice_dice(np.reshape(prediction, (1, -1)), np.reshape(truth, (1, -1)))[0])


def slice_dice(pred: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Dice of each slice, boolean (N, H, W) → (N,).

    NaN where the structure is neither there nor predicted: leave it out with `np.nanmean`. 0 where it is predicted but
    not there, or there but not predicted. Raises ValueError as `dice` does.
    """
    _check(pred, masks)
    axes = tuple(range(1, pred.ndim))
    both = (pred & masks).sum(axes, dtype=float)
    total = pred.sum(axes, dtype=float) + masks.sum(axes, dtype=float)
    return np.divide(2 * both, total, out=np.full(len(pred), np.nan), where=total > 0)


def volume_dice(pred: np.ndarray, masks: np.ndarray, volumes: np.ndarray) -> np.ndarray:
    """Dice over all slices of a volume, boolean (N, H, W) and volumes (N,) → (V,) in the order of np.unique(volumes).

    NaN for a volume in which the structure is neither there nor predicted. Raises ValueError as `dice` does, and if
    there is not one volume per slice.
    """
    _check(pred, masks)
    if np.shape(volumes) != (len(pred),):
        raise ValueError(f"volumes have shape {np.shape(volumes)}; expected one per slice, ({len(pred)},)")
    return np.array([dice(pred[rows], masks[rows]) for rows in (volumes == v for v in np.unique(volumes))])


def matched_f1(found: np.ndarray, truth: np.ndarray) -> float:
    """F1 of counted objects, numbered regions (H, W) of integers, 0 the background; NaN where there are none.

    A region finds an object if they overlap by more than half of both together (IoU > 0.5), which at most one can:
    2 · matches / (regions + objects). Source: Caicedo et al., Nature Methods 2019, nucleus segmentation.
    Raises ValueError for unequal shapes and for numbers that are not integers of 0 or more.
    """
    found, truth = np.asarray(found), np.asarray(truth)
    for name, array in (("found", found), ("truth", truth)):
        if array.dtype.kind not in "iu" or array.shape != truth.shape or (array.size and array.min() < 0):
            told = f"{name} has shape {array.shape} and type {array.dtype}"
            raise ValueError(f"{told}; expected integers of 0 or more, both of shape {truth.shape}")
    regions, objects = (np.unique(array, return_inverse=True) for array in (found, truth))
    counts = np.zeros((len(objects[0]), len(regions[0])))
    np.add.at(counts, (objects[1].ravel(), regions[1].ravel()), 1)
    union = counts.sum(1, keepdims=True) + counts.sum(0) - counts
    real = np.outer(objects[0] > 0, regions[0] > 0)
    total = (objects[0] > 0).sum() + (regions[0] > 0).sum()
    return float(2 * (real & (counts > 0.5 * union)).sum() / total) if total else float("nan")


def patient_means(values: np.ndarray, volumes: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Mean over each patient's volumes, in the order of np.unique(patients): the unit in which patients are compared.

    values: (V,) in the order of np.unique(volumes), as `volume_dice` gives them; volumes, patients: (N,) per slice.
    NaN is left out; a patient of which nothing is left is NaN.
    Raises ValueError for unequal lengths and for a volume with slices of several patients.
    """
    names, first, which = np.unique(volumes, return_index=True, return_inverse=True)
    if np.shape(values) != names.shape or np.shape(volumes) != np.shape(patients):
        raise ValueError(
            f"{np.size(values)} values, {len(names)} volumes in {np.size(volumes)} slices and {np.size(patients)} "
            "patients; expected one value per volume and one patient per slice"
        )
    owners = np.asarray(patients)[first]
    mixed = owners[which] != patients
    if mixed.any():
        raise ValueError(f"volume {names[which][mixed][0]} has slices of several patients; expected one patient")
    known = ~np.isnan(values)
    groups = [np.asarray(values, float)[known & (owners == patient)] for patient in np.unique(patients)]
    return np.array([group.mean() if len(group) else np.nan for group in groups])


def hd95(prediction: np.ndarray, truth: np.ndarray, *, spacing: Sequence[float] | None = None) -> float:
    """95th percentile of the Hausdorff distance: the larger of the two directed 95th percentiles between surfaces.

    Boolean (H, W) or (D, H, W); spacing in mm per axis, (dy, dx) or (dz, dy, dx): then the answer is in mm, else in
    pixels. The surface is what an erosion by the face neighbours removes; outside the image is background. As in
    MONAI: NaN if both are empty (undefined: leave it out), inf if only one is (missed: take medians, or count them).
    Raises ValueError as `dice` does, for other dimensions, and for a spacing that does not fit or is not positive.
    Source: Huttenlocher et al., PAMI 1993 (partial distances); Menze et al., TMI 2015 (the 95th percentile).
    """
    _check(prediction, truth)
    if prediction.ndim not in (2, 3):
        raise ValueError(f"arrays have shape {prediction.shape}; expected (H, W) or (D, H, W)")
    scale = np.ones(prediction.ndim) if spacing is None else np.asarray(spacing, float)
    if scale.shape != (prediction.ndim,) or not (np.isfinite(scale) & (scale > 0)).all():
        raise ValueError(f"spacing is {spacing}; expected {prediction.ndim} positive lengths in mm")
    ours, theirs = (np.argwhere(mask & ~binary_erosion(mask)) * scale for mask in (prediction, truth))
    if not (len(ours) and len(theirs)):
        return np.inf if len(ours) or len(theirs) else np.nan
    directed = KDTree(theirs).query(ours)[0], KDTree(ours).query(theirs)[0]
    return float(max(np.percentile(distances, 95) for distances in directed))


def assd(prediction: np.ndarray, truth: np.ndarray, *, spacing: Sequence[float] | None = None) -> float:
    """Average symmetric surface distance: mean distance from each surface pixel of one to the surface of the other.

    Boolean (H, W) or (D, H, W); surfaces, spacing, empty masks and errors are those of `hd95`.
    Source: Heimann et al., IEEE TMI 2009, with the mean over the pixels of both surfaces.
    """
    if not np.isfinite(worst := hd95(prediction, truth, spacing=spacing)):
        return worst  # one of them is empty, or both
    surfaces = [mask & ~binary_erosion(mask) for mask in (prediction, truth)]
    away = [distance_transform_edt(~surface, sampling=spacing) for surface in surfaces]
    return float(np.concatenate([away[1][surfaces[0]], away[0][surfaces[1]]]).mean())


def cl_dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    """clDice of two boolean arrays (H, W): Dice of thin structures, whose width does not count.

    The harmonic mean of two shares: of the prediction's middle line that lies within the truth, and of the truth's
    that lies within the prediction. NaN if both are empty, 0 if one is. Raises ValueError as `dice` does.
    Source: Shit et al., CVPR 2021, arXiv 2003.07311, Eq. 1.
    """
    _check(prediction, truth)
    if not (prediction.any() and truth.any()):
        return 0.0 if prediction.any() or truth.any() else float("nan")
    precision, sensitivity = truth[skeletonize(prediction)].mean(), prediction[skeletonize(truth)].mean()
    both = precision + sensitivity
    return float(2 * precision * sensitivity / both) if both else 0.0


def betti_numbers(mask: np.ndarray) -> tuple[int, int]:
    """Components and holes of a boolean array (H, W), whose pixels touch over corners, too; outside is background.

    Raises ValueError for another shape and for an array that is not boolean.
    """
    _check(mask, mask)
    if mask.ndim != 2:
        raise ValueError(f"mask has shape {mask.shape}; expected (H, W)")
    background = label(~np.pad(mask, 1), connectivity=1)  # over sides only: a corner closes a ring
    return int(label(mask, connectivity=2).max()), int(background.max()) - 1


def betti_error(prediction: np.ndarray, truth: np.ndarray) -> int:
    """How far the numbers of components and of holes are off, added; boolean arrays (H, W). 0 says: one topology.

    Raises ValueError as `dice` and `betti_numbers` do. Source: Hu et al., NeurIPS 2019, arXiv 1906.05404 (there over
    patches, and for holes only).
    """
    _check(prediction, truth)
    return sum(abs(a - b) for a, b in zip(betti_numbers(prediction), betti_numbers(truth), strict=True))


def _check(prediction: np.ndarray, truth: np.ndarray) -> None:
    for name, array in (("prediction", prediction), ("truth", truth)):
        kind = getattr(array, "dtype", type(array).__name__)
        if kind != np.dtype(bool):
            raise ValueError(f"{name} is of type {kind}; expected a boolean array")
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction has shape {prediction.shape}, truth {truth.shape}; expected one shape")
