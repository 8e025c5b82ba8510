"""Is a heat map to be trusted? Localisation, faithfulness, sanity, and maps that need no model to compare with."""

import copy
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import ndimage, stats
from skimage.filters import sobel
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from helpers.explain.maps import resize_map
from helpers.explain.targets import Target, check_images, find_layer, frozen_eval, model_logits, target_weights
from helpers.nets.init import init_weights


def pointing_game(maps: ArrayLike, masks: ArrayLike, *, tolerance: float = 0) -> np.ndarray:
    """Whether each map's maximum lies in the mask, or at most `tolerance` pixels from it: (N,) bool.

    Maps and masks (N, H, W) at image size; of several maxima the first in reading order counts. Raises ValueError for
    NaN, an empty mask or one that does not fit. Source: Zhang et al., Top-down Neural Attention, ECCV 2016.
    """
    maps, masks = _pair(maps, masks)
    distances = np.stack([ndimage.distance_transform_edt(~mask) for mask in masks])
    peaks = maps.reshape(len(maps), -1).argmax(1)
    return distances.reshape(len(maps), -1)[np.arange(len(maps)), peaks] <= tolerance


def iou_at(maps: ArrayLike, masks: ArrayLike, *, threshold: float = 0.5) -> np.ndarray:
    """Intersection over union (N,) of the mask and the pixels that reach `threshold` × the map's maximum.

    The negative part is cut first; a constant map marks nothing and scores 0. Raises ValueError as `pointing_game`.
    """
    maps, masks = _pair(maps, masks)
    maps = np.maximum(maps, 0)
    top, bottom = maps.max((1, 2), keepdims=True), maps.min((1, 2), keepdims=True)
    marked = (maps >= threshold * top) & (top > bottom)
    return (marked & masks).sum((1, 2)) / (marked | masks).sum((1, 2))


def average_precision(maps: ArrayLike, masks: ArrayLike) -> np.ndarray:
    """Area under the precision-recall curve of the pixels, (N,); a map that knows nothing scores the mask's share.

    Raises ValueError as `pointing_game`.
    """
    maps, masks = _pair(maps, masks)
    return np.array([average_precision_score(k.ravel(), m.ravel()) for m, k in zip(maps, masks, strict=True)])


def deletion_insertion(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    *,
    steps: int = 20,
    target: Target = None,
    reference: Tensor | None = None,
    batch_size: int = 32,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean score while the highest pixels are replaced first (deletion, low is faithful) or shown first (insertion).

    The score is the probability of the target (of a target function: its value). Maps (N, h, w) are resized to the
    images. Pixels are replaced by those of `reference`, which broadcasts to the images: one on which the model sees
    nothing; by default the images blurred with a tenth of the shorter side. Returns deletion (N,), insertion (N,) and
    the curves (2, N, steps + 1) over the share of pixels 0 … 1. Source: Petsiuk et al., RISE, BMVC 2018.
    """
    check_images(model, images)
    n, _, height, width = images.shape
    if maps.ndim != 3 or len(maps) != n:
        raise ValueError(f"maps of shape {tuple(maps.shape)} do not fit {n} images: expected ({n}, h, w)")
    _finite(maps.detach().cpu().numpy())
    if reference is None:
        sigma = min(height, width) / 10
        blurred = ndimage.gaussian_filter(images.detach().cpu().numpy(), (0, 0, sigma, sigma), mode="nearest")
        reference = torch.from_numpy(blurred)
    reference = reference.to(images).expand_as(images)
    maps = resize_map(maps.detach().to(images), (height, width)).flatten(1)
    rank = maps.argsort(dim=1, descending=True, stable=True).argsort(dim=1).view(n, 1, height, width)
    curves = torch.empty(2, n, steps + 1)
    with frozen_eval(model), torch.no_grad():
        for i in torch.arange(n).split(batch_size):
            fixed = target if callable(target) else target_weights(model_logits(model, images[i]), _rows(target, i))
            for step in range(steps + 1):
                first = rank[i] < step / steps * height * width
                curves[0, i, step] = _probability(model, torch.where(first, reference[i], images[i]), fixed)
                curves[1, i, step] = _probability(model, torch.where(first, images[i], reference[i]), fixed)
    deletion, insertion = torch.trapezoid(curves, dx=1 / steps).numpy()
    return deletion, insertion, curves.numpy()


def randomise_cascade(
    model: nn.Module, *, rng: np.random.Generator, layers: list[str] | None = None
) -> Iterator[tuple[str, nn.Module]]:
    """Copies of the model, randomised one layer further each time, from the classifier down: (layer, copy) pairs.

    `layers`, top first, default to the model's own stages that have parameters: its children, an `nn.Sequential`
    replaced by its children. Source: Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018.
    """
    model = copy.deepcopy(model)
    stages = [(name, find_layer(model, name)) for name in (_stages(model) if layers is None else layers)]
    for name, module in stages:
        init_weights(module, rng)
        yield name, copy.deepcopy(model)


def rank_correlation(a: ArrayLike, b: ArrayLike, *, absolute: bool = False) -> np.ndarray:
    """Spearman's rank correlation (N,) of two sets of maps (N, h, w), or of their absolute values.

    A constant map orders nothing: 0. Raises ValueError if the shapes differ. Source: Adebayo et al. 2018.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape:
        raise ValueError(f"maps of shape {a.shape} and {b.shape} cannot be compared: expected the same shape")
    _finite(a), _finite(b)
    a, b = (np.abs(x) if absolute else x for x in (a.reshape(len(a), -1), b.reshape(len(b), -1)))
    varied = (np.ptp(a, 1) > 0) & (np.ptp(b, 1) > 0)
    return np.array([stats.spearmanr(x, y).statistic if v else 0.0 for x, y, v in zip(a, b, varied, strict=True)])


def control_map(name: str, images: Tensor, *, rng: np.random.Generator | None = None) -> Tensor:
    """Maps (N, H, W) that know nothing of the model: a map worth its name localises better than these.

    "sobel": edge strength of the mean channel; "centre": a Gaussian on the centre, sigma a quarter of each side;
    "random": uniform noise on 6 × 6 cells, resized, as smooth as a CAM (needs `rng`). Raises ValueError for others.
    """
    n, _, height, width = images.shape
    if name == "sobel":
        edges = [sobel(image) for image in images.detach().cpu().numpy().mean(1)]
        return torch.from_numpy(np.stack(edges)).to(images)
    if name == "centre":
        y, x = (((torch.arange(side) + 0.5) / side - 0.5) / 0.25 for side in (height, width))
        return torch.exp(-(y[:, None] ** 2 + x**2) / 2).to(images).repeat(n, 1, 1)
    if name == "random":
        if rng is None:
            raise ValueError("control map 'random' expects rng=np.random.default_rng(seed), got None")
        return resize_map(torch.from_numpy(rng.random((n, 6, 6))).to(images), (height, width))
    raise ValueError(f"unknown control map {name!r}: expected 'sobel', 'centre' or 'random'")


def _pair(maps: ArrayLike, masks: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    maps, masks = np.asarray(maps, float), np.asarray(masks) > 0
    if maps.ndim != 3 or masks.shape != maps.shape:
        raise ValueError(f"masks of shape {masks.shape} do not fit maps of shape {maps.shape}, expected (N, H, W)")
    _finite(maps)
    if empty := np.flatnonzero(~masks.any((1, 2))).tolist():
        raise ValueError(f"empty mask at index {empty[0]}: expected at least one pixel to find")
    return maps, masks


def _finite(maps: np.ndarray) -> None:
    if bad := np.flatnonzero(~np.isfinite(maps).all(tuple(range(1, maps.ndim)))).tolist():
        raise ValueError(f"map {bad[0]} holds NaN or infinite values: expected finite numbers")


def _rows(target: Target, index: Tensor) -> Target:
    return target[index] if np.ndim(target) else target


def _probability(model: nn.Module, images: Tensor, target: Target) -> Tensor:
    """Probability (N,) of the class that fixed target weights choose, or the value of a target function."""
    logits = model_logits(model, images)
    if callable(target):
        return target(logits).cpu()
    if logits.ndim != 2:
        raise ValueError(f"deletion and insertion need a classifier, got logits of shape {tuple(logits.shape)}")
    if logits.shape[1] == 1:
        return (target * logits)[:, 0].sigmoid().cpu()
    return (target * logits.softmax(1)).sum(1).cpu()


def _stages(model: nn.Module) -> list[str]:
    """Names of the model's stages, top first."""
    names = []
    for name, child in model.named_children():
        inner = [f"{name}.{key}" for key, _ in child.named_children()] if type(child) is nn.Sequential else [name]
        names += [stage for stage in inner if any(True for _ in model.get_submodule(stage).parameters())]
    return names[::-1]
