"""Heat maps of a classifier or segmenter: what it looked at, from its logits, for any `nn.Module`.

`target`, the number per image that is explained, means the same everywhere: see `helpers.targets`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.explain.targets import (
    Target,
    check_images,
    find_layer,
    fixed_scores,
    frozen_eval,
    model_logits,
    target_scores,
)


@dataclass(frozen=True)
class Captured:
    """Features A and gradients ∂score/∂A, each (N, K, h, w) by layer name, with scores (N,) and logits (N, C, …)."""

    features: dict[str, Tensor]
    grads: dict[str, Tensor]
    scores: Tensor
    logits: Tensor


def capture(model: nn.Module, images: Tensor, layers: str | list[str], *, target: Target = None) -> Captured:
    """Outputs of the named layers and the gradients there, for all layers in one forward and one backward pass.

    A layer's output is what its module returned, even if the next one changes it in place. Nothing below the first
    layer is differentiated; the model's mode, gradient flags and hooks are afterwards as they were.
    Raises ValueError for NaN or misshapen images, an unknown layer, a layer without one 4-D output, a bad target.
    """
    layers = [layers] if isinstance(layers, str) else list(dict.fromkeys(layers))
    check_images(model, images)
    modules = [find_layer(model, name) for name in layers]
    outputs: dict[str, Tensor] = dict.fromkeys(layers)  # in the order asked for, filled by the hooks

    def keep(name: str) -> Callable:
        def hook(_module, _inputs, output):
            if getattr(output, "ndim", None) != 4:
                raise ValueError(f"layer {name!r} gives {_shape(output)}: expected one (N, K, h, w) tensor")
            if outputs[name] is not None:
                raise ValueError(f"layer {name!r} runs more than once in a forward pass: name one that runs once")
            if not output.requires_grad:  # the first captured layer: what lies below it needs no gradient
                output = output.detach().requires_grad_()
            outputs[name] = output
            return output.clone()  # later in-place operations act on the clone

        return hook

    hooks = [module.register_forward_hook(keep(name)) for name, module in zip(layers, modules, strict=True)]
    try:
        with frozen_eval(model):
            logits = model_logits(model, images.detach())
            if missing := [name for name in layers if outputs[name] is None]:
                raise ValueError(f"layer {missing[0]!r} did not run in the forward pass")
            scores = target_scores(logits, target)
            if not scores.requires_grad:
                raise ValueError(f"the target does not depend on the layers {layers}")
            grads = torch.autograd.grad(scores.sum(), list(outputs.values()), materialize_grads=True)
    finally:
        for hook in hooks:
            hook.remove()
    features = {name: output.detach() for name, output in outputs.items()}
    return Captured(features, dict(zip(outputs, grads, strict=True)), scores.detach(), logits.detach())


def cam(features: Tensor, weights: Tensor) -> Tensor:
    """Class activation map (N, h, w), signed: Σ_k w_k A_k, for A that goes straight to global average pooling.

    `features` (N, K, h, w) are the tensor that is pooled (after the last norm and ReLU), `weights` (K,) one class's row
    of the linear layer, or (N, K) a row per image. Source: Zhou et al., CVPR 2016, Eq. 2.
    """
    weights = weights.detach().expand(len(features), -1).to(features.dtype)
    return torch.bmm(weights[:, None], features.flatten(2)).view(len(features), *features.shape[2:])


def grad_cam(features: Tensor, grads: Tensor) -> Tensor:
    """Grad-CAM (N, h, w) before its ReLU, so evidence against the target is negative: Σ_k (mean_ij ∂y/∂A_k,ij) A_k.

    Where A is pooled straight into the linear layer it is CAM / (h·w). Source: Selvaraju et al., ICCV 2017, Eq. 1–2.
    """
    return cam(features, grads.mean((2, 3)))


def hires_cam(features: Tensor, grads: Tensor) -> Tensor:
    """HiResCAM (N, h, w), signed: Σ_k ∂y/∂A_k ⊙ A_k, gradients not averaged. Source: Draelos & Carin 2020."""
    return (grads * features).sum(1)


def layer_cam(features: Tensor, grads: Tensor) -> Tensor:
    """LayerCAM (N, h, w), non-negative: ReLU(Σ_k ReLU(∂y/∂A_k) ⊙ A_k). Source: Jiang et al., IEEE TIP 2021."""
    return (grads.relu() * features).sum(1).relu()


def integrated_gradients(
    model: nn.Module,
    images: Tensor,
    *,
    target: Target = None,
    baseline: float | Tensor = 0.0,
    steps: int = 50,
    batch_size: int = 32,
) -> Tensor:
    """Integrated gradients (N, C, H, W): (x - x₀) ⊙ ∫₀¹ ∂y/∂x (x₀ + α(x - x₀)) dα, Gauss–Legendre with `steps` points.

    They sum to y(x) - y(x₀) for a good enough number of steps. `baseline` x₀ is a number or a tensor that broadcasts.
    Source: Sundararajan et al., ICML 2017, Eq. 1.
    """
    check_images(model, images)
    images = images.detach()
    baseline = torch.as_tensor(baseline, dtype=images.dtype, device=images.device).expand_as(images)
    points, weights = (torch.as_tensor(a).to(images) for a in np.polynomial.legendre.leggauss(steps))
    change, total = images - baseline, torch.zeros_like(images)
    with frozen_eval(model):
        score, _ = fixed_scores(model, images, target, batch_size)
        for index in torch.arange(steps * len(images), device=images.device).split(batch_size):
            image, step = index % len(images), index // len(images)
            alpha, weight = (values[step][:, None, None, None] / 2 for values in (1 + points, weights))
            x = (baseline[image] + alpha * change[image]).requires_grad_()
            (grads,) = torch.autograd.grad(score(model_logits(model, x), image).sum(), x)
            total.index_add_(0, image, weight * grads)
    return change * total


def occlusion(
    model: nn.Module,
    images: Tensor,
    *,
    window: int,
    stride: int,
    target: Target = None,
    baseline: float | Tensor = 0.0,
    batch_size: int = 32,
) -> Tensor:
    """Occlusion map (N, H, W): by how much the score falls when a square of `window` pixels is set to `baseline`.

    Squares start every `stride` pixels (cut off at the far border); a pixel gets the mean of those that cover it.
    `baseline` is a number or a tensor that broadcasts: choose one that is no finding in itself.
    Source: Zeiler & Fergus, ECCV 2014, Sec. 4.2. Raises ValueError unless 1 ≤ stride ≤ window ≤ image side.
    """
    check_images(model, images)
    n, _, height, width = images.shape
    if not 1 <= stride <= window <= min(height, width):
        limit = min(height, width)
        raise ValueError(f"expected 1 <= stride <= window <= {limit}, got stride {stride} and window {window}")
    rows, cols = (_intervals(side, window, stride, images.device) for side in (height, width))
    total = images.new_zeros(n, height, width)
    baseline = torch.as_tensor(baseline, dtype=images.dtype, device=images.device).expand_as(images)
    with frozen_eval(model), torch.no_grad():
        score, whole = fixed_scores(model, images, target, batch_size)
        for index in torch.arange(n * len(rows) * len(cols), device=images.device).split(batch_size):
            image, square = index % n, index // n
            covered = rows[square // len(cols)][:, :, None] & cols[square % len(cols)][:, None, :]
            logits = model_logits(model, torch.where(covered[:, None], baseline[image], images[image]))
            total.index_add_(0, image, (whole[image] - score(logits, image))[:, None, None] * covered)
    return total / (rows.sum(0)[:, None] * cols.sum(0))


def guided_backprop(model: nn.Module, images: Tensor, *, target: Target = None) -> Tensor:
    """Guided backpropagation (N, C, H, W): gradient at the image, its negative part cut at every `nn.ReLU` on the way.

    It hardly depends on the weights above (Adebayo et al. 2018): a map to be distrusted. Source: Springenberg et al.
    2015. Raises ValueError for a model without `nn.ReLU` modules (ReLUs called as functions are not seen).
    """
    check_images(model, images)
    relus = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    if not relus:
        raise ValueError("guided backpropagation needs nn.ReLU modules, and the model has none")

    def gate(_module, _inputs, output):
        if output.requires_grad:
            output.register_hook(torch.relu)

    hooks = [module.register_forward_hook(gate) for module in relus]
    try:
        with frozen_eval(model):
            x = images.detach().clone().requires_grad_()
            (grads,) = torch.autograd.grad(target_scores(model_logits(model, x.clone()), target).sum(), x)
    finally:
        for hook in hooks:
            hook.remove()
    return grads


def resize_map(maps: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Heat maps (N, h, w) at image size (N, H, W), bilinear: a map's cell covers its share of the image."""
    size = (size, size) if isinstance(size, int) else tuple(size)
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def _intervals(side: int, window: int, stride: int, device: torch.device) -> Tensor:
    """Which of `side` pixels each position of the window covers: (positions, side), the last one may be cut off."""
    starts = torch.arange(-(-(side - window) // stride) + 1, device=device)[:, None] * stride
    pixels = torch.arange(side, device=device)
    return (pixels >= starts) & (pixels < starts + window)


def _shape(output: object) -> object:
    return tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
