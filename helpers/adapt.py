"""Adaptation to images without labels: batch statistics, entropy, style, a teacher, an adversary.

Networks for classification and segmentation alike: logits (N, C) or (N, C, H, W). One logit (C = 1) stands for two
classes with the logits 0 and z. Losses give one number to minimise, in fp32 at least, also under autocast.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor, nn

from helpers.check import at_least_one, wide
from helpers.nets.init import fresh

# A discriminator that sorts at least this share of the patches right, in both domains, has nothing left to teach.
ALWAYS_RIGHT = 0.99
# Up to this mean of both shares it guesses: 0.5 is a coin, and also one that gives the same answer to everything.
GUESSING = 0.55
# A smaller gap between source and oracle (half a Dice point) is noise, and so is any share of it.
SMALLEST_GAP = 0.005


def batchnorm_statistics_of(model: nn.Module, images: Tensor, *, batch_size: int = 64) -> nn.Module:
    """A copy of the model, in evaluation mode, whose batch norms hold the means and variances of `images` (N, C, H, W).

    One pass without dropout: each batch is normalised by its own statistics, and what is kept is their mean over the
    batches, weighted by images. So the differences between batches are in no variance: with batch_size ≥ N the
    statistics are those of all images, with few images a batch they are too narrow. Batches are every k-th image,
    equally many up to one, hence alike even where images are sorted by patient.
    Raises ValueError for a model without running statistics, for no image and batch_size < 1.
    Source: Li et al. 2016, AdaBN, arXiv 1603.04779.
    """
    return _set_statistics(copy.deepcopy(model), images, batch_size)


def mean_entropy(logits: Tensor) -> Tensor:
    """Shannon entropy of the softmax in nats, mean over images and pixels; logits (N, C, …).

    Raises ValueError for no image. Source: Wang et al. 2021, Tent, arXiv 2006.10726, Sec. 3.1.
    """
    log_probs = _two_or_more(logits).log_softmax(1)
    return -(log_probs.exp() * log_probs).sum(1).mean()


def tent(
    model: nn.Module, images: Tensor, *, passes: int = 1, lr: float = 1e-3, batch_size: int = 64, seed: int = 0
) -> nn.Module:
    """A copy of the model, in evaluation mode, whose batch-norm scales and shifts minimise its entropy on `images`.

    While it learns, with Adam, batch norm uses the statistics of the batch and dropout is off; nothing else moves. At
    the end the statistics are those of the images, as `batchnorm_statistics_of` sets them: unlike the paper, which
    predicts online, one fixed model is left for any image. Batches: a permutation of the images for each pass.
    Raises ValueError for a model without such scales and shifts, for no image, and for passes or batch_size < 1.
    Source: Wang et al. 2021, Tent, arXiv 2006.10726.
    """
    at_least_one(passes=passes, batch_size=batch_size, images=len(images))
    adapted, rng = copy.deepcopy(model).eval().requires_grad_(False), np.random.default_rng(seed)
    layers = [layer for layer in _batch_norms(adapted) if layer.affine]
    if not layers:
        raise ValueError(f"{type(model).__name__} has batch norm without scale and shift; expected both")
    for layer in _batch_norms(adapted):
        layer.train()
    parameters = [p.requires_grad_() for layer in layers for p in layer.parameters()]
    optimizer, device = torch.optim.Adam(parameters, lr=lr), parameters[0].device
    for _ in range(passes):
        order = torch.from_numpy(rng.permutation(len(images)))
        for rows in order.tensor_split(-(-len(images) // batch_size)):
            value = mean_entropy(adapted(images[rows].to(device)))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    optimizer.zero_grad()
    for mine, source in zip(adapted.parameters(), model.parameters(), strict=True):
        mine.requires_grad_(source.requires_grad)
    return _set_statistics(adapted, images, batch_size)


def fourier_style(images: Tensor, styles: Tensor, *, share: float = 0.05) -> Tensor:
    """Each image with the low-frequency amplitudes of the style image of the same index and its own phases.

    images, styles (N, C, H, W), 0…1, to which the result is clipped; share: half the side of the square of frequencies
    that is taken, as a share of the shorter side of the image (β in the paper): 0 takes the style's mean alone.
    Raises ValueError for different shapes, no image, values outside 0…1 and share outside 0…0.5.
    Source: Yang & Soatto 2020, FDA, arXiv 2004.05498, Eq. 3.
    """
    _check_same(styles=styles, images=images)
    if images.ndim != 4 or not images.numel():
        raise ValueError(f"images have shape {tuple(images.shape)}; expected (N, C, H, W), none of them 0")
    if not 0 <= share <= 0.5:
        raise ValueError(f"share is {share}; expected 0 to 0.5")
    for name, values in (("images", images), ("styles", styles)):
        low, high = values.min().item(), values.max().item()
        if not (low >= 0 and high <= 1):
            raise ValueError(f"{name} reach from {low:g} to {high:g}; expected values from 0 to 1")
    images, styles = wide(images), wide(styles)
    height, width = images.shape[2:]
    reach = int(share * min(height, width) + 1e-9)  # 0.29 × 100 is 28.999…
    rows, columns = (torch.arange(n, device=images.device) for n in (height, width // 2 + 1))
    swapped = (rows.minimum(height - rows) <= reach)[:, None] & (columns <= reach)
    spectrum = torch.fft.rfft2(images)
    change = (torch.fft.rfft2(styles).abs() - spectrum.abs()) * swapped
    # Added, not replaced: what is not swapped stays as it was, to the last bit.
    return (images + torch.fft.irfft2(torch.polar(change, spectrum.angle()), s=(height, width))).clamp(0, 1)


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, *, decay: float) -> None:
    """Move the teacher in place: decay × its own + (1 − decay) × the student's parameters and buffers.

    Integer buffers are copied. Raises ValueError for networks of other shapes and decay outside 0…1.
    Source: Tarvainen & Valpola 2017, Mean teachers, arXiv 1703.01780, Eq. 2 (there for parameters only).
    """
    if not 0 <= decay <= 1:
        raise ValueError(f"decay is {decay}; expected 0 to 1")
    mine, theirs = (dict([*model.named_parameters(), *model.named_buffers()]) for model in (teacher, student))
    different = {(name, t.shape) for name, t in mine.items()} ^ {(name, t.shape) for name, t in theirs.items()}
    if different:
        raise ValueError(f"teacher and student differ in {min(different)[0]!r}; expected the same network twice")
    for name, tensor in mine.items():
        if tensor.is_floating_point():
            tensor.lerp_(theirs[name].to(tensor), 1 - decay)
        else:
            tensor.copy_(theirs[name])


def consistency(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Squared difference of the two softmax maps, mean over images, classes and pixels; the teacher gets no gradient.

    Both (N, C, …). Raises ValueError for different shapes and no image.
    Source: Tarvainen & Valpola 2017, Mean teachers, arXiv 1703.01780, Sec. 2.
    """
    _check_same(teacher_logits=teacher_logits, student_logits=student_logits)
    teacher = _two_or_more(teacher_logits.detach()).softmax(1)
    return (_two_or_more(student_logits).softmax(1) - teacher).square().mean()


def discriminator(*, classes: int, width: int = 16, seed: int = 0) -> Discriminator:
    """Patch discriminator with freshly initialised weights; `network.config` holds the arguments.

    (N, classes, H, W) softmax maps in, (N, 1, H/16, W/16) logits out, one for each 46 × 46 patch: source or target.
    H and W from 16, else ValueError. Raises ValueError for classes < 2 (one logit has two classes) and width < 1.
    Source: Tsai et al. 2018, AdaptSegNet, arXiv 1802.10349, Sec. 4.1, with a layer less and fewer channels; output
    maps of fundus images: Wang et al. 2019, pOSAL, arXiv 1902.07519.
    """
    at_least_one(width=width)
    if classes < 2:
        raise ValueError(f"classes is {classes}; expected at least 2")

    def build() -> Discriminator:
        pairs = zip((classes, width, 2 * width), (width, 2 * width, 4 * width), strict=True)
        hidden = [layer for pair in pairs for layer in (nn.Conv2d(*pair, 4, 2, 1), nn.LeakyReLU(0.2))]
        return Discriminator(*hidden, nn.Conv2d(4 * width, 1, 4, 2, 1))

    network = fresh(build, seed)
    network.config = {"classes": classes, "width": width, "seed": seed}
    return network


class Discriminator(nn.Sequential):
    """4 × 4 convolutions of stride 2, leaky ReLU between them."""

    def forward(self, maps: Tensor) -> Tensor:
        classes = self[0].in_channels
        if maps.ndim != 4 or maps.shape[1] != classes or min(maps.shape[2:]) < 16:
            raise ValueError(f"maps are {tuple(maps.shape)}; expected (N, {classes}, H, W) with H and W at least 16")
        return super().forward(maps)


class Adversary:
    """A discriminator that learns to tell source from target softmax maps, and the loss that makes target look source.

    In `step(model, batch)`: loss + weight * adversary(source_logits, target_logits). Each call first updates the
    discriminator by its own Adam (binary cross entropy, source 1, target 0, maps detached), then returns the cross
    entropy of its target patches against 1: its gradient reaches the target logits and nothing else. A call is for one
    backward pass before the next. A checkpoint of `fit` does not hold the discriminator.
    `history`: for each call the shares of source and of target patches that it sorted right before its update.
    Source: Tsai et al. 2018, AdaptSegNet, arXiv 1802.10349, Eq. 2 and 4.
    """

    def __init__(self, network: nn.Module, *, lr: float = 1e-3):
        self.network, self.history = network.requires_grad_(False), []
        self.optimizer = torch.optim.Adam(network.parameters(), lr=lr, betas=(0.9, 0.99))

    def __call__(self, source_logits: Tensor, target_logits: Tensor) -> Tensor:
        """logits (N, C, H, W), of any two N > 0; raises ValueError for different C and maps that do not fit."""
        if source_logits.shape[1:2] != target_logits.shape[1:2]:
            shapes = f"{tuple(source_logits.shape)} and {tuple(target_logits.shape)}"
            raise ValueError(f"source and target logits are {shapes}; expected as many classes in both")
        source, target = (_two_or_more(logits).softmax(1) for logits in (source_logits, target_logits))
        with torch.autocast(target.device.type, enabled=False):  # its cache would hold weights older than the update
            self._update(source.detach(), target.detach())
            return _cross_entropy(self.network(target), 1)

    def _update(self, source: Tensor, target: Tensor) -> None:
        self.network.requires_grad_(True)  # only here: the segmenter's backward pass leaves no gradient in it
        source, target = self.network(source), self.network(target)
        self.optimizer.zero_grad()
        ((_cross_entropy(source, 1) + _cross_entropy(target, 0)) / 2).backward()
        self.optimizer.step()
        self.network.requires_grad_(False)
        self.history.append(torch.stack([(source > 0).float().mean(), (target < 0).float().mean()]).tolist())

    def verdict(self, *, last: int = 50) -> str:
        """What the discriminator did in the last calls, in one sentence; ValueError if there was none, or last < 1."""
        at_least_one(last=last, calls=len(self.history))
        source, target = np.mean(self.history[-last:], axis=0)
        if min(source, target) >= ALWAYS_RIGHT:
            return "the discriminator is always right: its gradient teaches the segmenter next to nothing"
        if (source + target) / 2 <= GUESSING:
            return "the discriminator guesses: either source and target maps look alike, or it has learnt nothing"
        return "the discriminator is balanced: often right, not always"


def share_of_gap(
    value: ArrayLike,
    *,
    source: ArrayLike,
    oracle: ArrayLike,
    lower_is_better: bool = False,
    smallest: float = SMALLEST_GAP,
) -> np.ndarray:
    """(value − source) / (oracle − source), elementwise: 0 is no better than source only, 1 as good as target labels.

    NaN where the oracle is not better than the source by at least `smallest`, in the unit of the values.
    """
    value, source, oracle = (np.asarray(x, float) for x in (value, source, oracle))
    gap = oracle - source
    counts = (-gap if lower_is_better else gap) >= smallest
    return (value - source) / np.where(counts, gap, np.nan)


def _set_statistics(model: nn.Module, images: Tensor, batch_size: int) -> nn.Module:
    """`batchnorm_statistics_of`, in place."""
    at_least_one(batch_size=batch_size, images=len(images))
    layers, seen = _batch_norms(model.eval()), 0
    momenta = [layer.train().momentum for layer in layers]
    batches = -(-len(images) // batch_size)
    with torch.no_grad():
        for batch in (images[first::batches] for first in range(batches)):
            seen += len(batch)
            for layer in layers:
                layer.momentum = len(batch) / seen  # the first batch replaces what was there
            model(batch.to(layers[0].running_mean.device))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    return model.eval()


def _batch_norms(model: nn.Module) -> list[nn.Module]:
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    norms = [norm for norm in norms if norm.running_mean is not None]
    if not norms:
        raise ValueError(f"{type(model).__name__} has no batch norm with running statistics; expected at least one")
    return norms


def _two_or_more(logits: Tensor) -> Tensor:
    """The logits in fp32 or wider, those of one class as two."""
    if logits.ndim < 2 or not logits.numel():
        raise ValueError(f"logits have shape {tuple(logits.shape)}; expected (N, C, …), none of them 0")
    logits = wide(logits)
    return torch.cat([torch.zeros_like(logits), logits], 1) if logits.shape[1] == 1 else logits


def _cross_entropy(scores: Tensor, domain: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, domain))


def _check_same(**pair: Tensor) -> None:
    (name, first), (other, second) = pair.items()
    if first.shape != second.shape:
        raise ValueError(f"{name} have shape {tuple(first.shape)}; expected that of {other}, {tuple(second.shape)}")
