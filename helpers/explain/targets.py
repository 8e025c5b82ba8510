"""What is explained of a model, and access to the model for it.

A `target` names one number per image:
- None: the logit of a one-logit model, the logit of each image's arg-max class otherwise.
- a class c, or an (N,) integer tensor of them: logit c; of a one-logit model +logit for 1 and -logit for 0. Of a
  segmentation model (N, C, H, W): the sum of logit c over the pixels where c is predicted (0 where it never is).
- a function of the (N, C, …) logits that returns (N,) numbers, each from its own row only.
Never the probability: a saturated sigmoid has no gradient left to explain.
"""

import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Target = int | Tensor | Callable[[Tensor], Tensor] | None


def target_weights(logits: Tensor, target: Target) -> Tensor:
    """Weights shaped like `logits` (N, C, …) whose product with them, summed per image, is the score of a `target`.

    Raises ValueError for a class out of range, or no class given for a segmentation model of several classes.
    """
    n, classes, *pixels = logits.shape
    if target is None:
        if pixels and classes > 1:
            raise ValueError(f"a segmentation model needs a target class (0 to {classes - 1}), got None")
        target = 1 if classes == 1 else logits.argmax(1)
    chosen = torch.as_tensor(target, device=logits.device)
    if chosen.is_floating_point() or chosen.shape not in {(), (1,), (n,)}:
        raise ValueError(f"target must be a class or {n} classes, got {target!r}")
    last = max(classes, 2) - 1
    if chosen.min() < 0 or chosen.max() > last:
        raise ValueError(f"target class {target!r} is out of range: expected 0 to {last}")
    chosen = chosen.long().expand(n).view(n, 1, *(1 for _ in pixels))
    logits = logits.detach()
    if classes == 1:
        sign = (2 * chosen - 1).to(logits)
        return sign * (sign * logits > 0) if pixels else sign
    weights = chosen == torch.arange(classes, device=logits.device).view(1, -1, *(1 for _ in pixels))
    return (weights & (logits.argmax(1, keepdim=True) == chosen) if pixels else weights).to(logits)


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """The submodule called `name`. Raises ValueError that lists the names there are, the most alike first."""
    modules = dict(model.named_modules())
    if name and name in modules:
        return modules[name]
    names = [known for known in modules if known]
    alike = difflib.get_close_matches(str(name), names, n=5, cutoff=0.5)
    listed = (alike + [known for known in names if known not in alike])[:25]
    rest = f" … ({len(names) - len(listed)} more)" if len(names) > len(listed) else ""
    raise ValueError(f"no layer {name!r} in the model: it has {', '.join(listed)}{rest}")


@contextmanager
def frozen_eval(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without parameter gradients; afterwards every module and parameter is as it was."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval().requires_grad_(False)
        with torch.enable_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def check_images(model: nn.Module, images: Tensor) -> None:
    """Raises ValueError unless images are finite, floating point (N, C, H, W), C as the first convolution expects."""
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(f"images must be floating point (N, C, H, W), got {images.dtype} {tuple(images.shape)}")
    if not images.isfinite().all():
        raise ValueError(f"images hold {int((~images.isfinite()).sum())} NaN or infinite values: expected finite ones")
    stem = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if stem is not None and stem.in_channels != images.shape[1]:
        raise ValueError(f"images have {images.shape[1]} channels: the model expects {stem.in_channels}")


def model_logits(model: nn.Module, images: Tensor) -> Tensor:
    """The model's logits (N, C, …); (N,) becomes (N, 1). Raises ValueError for another kind of output."""
    logits = model(images)
    if not isinstance(logits, Tensor):
        raise ValueError(f"the model returned a {type(logits).__name__}: expected a tensor of logits")
    return logits[:, None] if logits.ndim == 1 else logits


def target_scores(logits: Tensor, target: Target) -> Tensor:
    """The number per image (N,) that `target` names, differentiable with respect to `logits` (N, C, …)."""
    if not callable(target):
        return (target_weights(logits, target) * logits).flatten(1).sum(1)
    scores = target(logits)
    if scores.shape != logits.shape[:1]:
        raise ValueError(f"target function returned {tuple(scores.shape)}: expected ({len(logits)},), one per image")
    return scores


def fixed_scores(
    model: nn.Module, images: Tensor, target: Target, batch_size: int
) -> tuple[Callable[[Tensor, Tensor], Tensor], Tensor]:
    """A function (logits, image indices) -> scores for altered copies of `images`, and the scores (N,) unaltered.

    Class and, in a segmentation, pixels stay those that are chosen on the unaltered image.
    """
    with torch.no_grad():
        logits = torch.cat([model_logits(model, part) for part in images.split(batch_size)])
    if callable(target):
        return lambda altered, _image: target_scores(altered, target), target_scores(logits, target)
    weights = target_weights(logits, target)
    return lambda altered, image: (weights[image] * altered).flatten(1).sum(1), (weights * logits).flatten(1).sum(1)
