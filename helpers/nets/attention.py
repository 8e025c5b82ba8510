"""Attention blocks for convolutional networks, each with a control that has the same layers and adds, not multiplies.

All take and give (N, C, H, W). A block computes a number a for each channel, each pixel or both; attention is
x · σ(a). With product=False a block gives x + a: as many parameters, as many operations, but no attention.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from helpers.nets.init import init_weights
from helpers.nets.segmenters import UNet


class SqueezeExcitation(nn.Module):
    """A number for each channel, from the means of all channels over the image.

    reduction: channels by width of the bottleneck, which is at least 1. Raises ValueError for arguments below 1.
    Source: Hu, Shen and Sun, Squeeze-and-excitation networks, CVPR 2018, Eq. 2 to 4.
    """

    def __init__(self, channels: int, *, reduction: int = 4, product: bool = True):
        super().__init__()
        inner, self.product = _bottleneck(channels, reduction), product
        self.fc1, self.fc2 = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        means = x.mean((2, 3), keepdim=True)  # (N, C, 1, 1)
        return _apply(x, self.fc2(F.relu(self.fc1(means))), self.product)


class CBAM(nn.Module):
    """A number for each channel, from means and maxima over the image; then one for each pixel, from its neighbours.

    spatial(x): that second number, (N, 1, H, W), of what the first has passed on. Raises ValueError as
    `SqueezeExcitation`, and for an even kernel.
    Source: Woo et al., CBAM: convolutional block attention module, ECCV 2018, Eq. 2 and 3.
    """

    def __init__(self, channels: int, *, reduction: int = 4, kernel: int = 7, product: bool = True):
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"kernel is {kernel}; expected an odd number of 1 or more")
        inner, self.product = _bottleneck(channels, reduction), product
        self.fc1, self.fc2 = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1)
        self.place = nn.Conv2d(2, 1, kernel, padding=kernel // 2)

    def channel(self, x: torch.Tensor) -> torch.Tensor:
        pooled = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        return sum(self.fc2(F.relu(self.fc1(part))) for part in pooled)  # (N, C, 1, 1)

    def spatial(self, x: torch.Tensor) -> torch.Tensor:
        return self.place(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = _apply(x, self.channel(x), self.product)
        return _apply(x, self.spatial(x), self.product)


class AttentionGate(nn.Module):
    """A number for each pixel of a skip connection, from it and from what comes up from below (of the same size).

    forward(skip, below): the skip, gated. Raises ValueError for arguments below 1.
    Source: Oktay et al., Attention U-Net, arXiv 1804.03999, Eq. 1 and 2; norms as in MONAI's AttentionBlock.
    """

    def __init__(self, channels: int, *, reduction: int = 2, product: bool = True):
        super().__init__()
        inner, self.product = _bottleneck(channels, reduction), product
        self.of_skip = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.BatchNorm2d(inner))
        self.of_below = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.BatchNorm2d(inner))
        self.psi = nn.Sequential(nn.Conv2d(inner, 1, 1), nn.BatchNorm2d(1))

    def logits(self, skip: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
        return self.psi(F.relu(self.of_skip(skip) + self.of_below(below)))  # (N, 1, H, W)

    def forward(self, skip: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
        return _apply(skip, self.logits(skip, below), self.product)


class Gated(nn.Module):
    """The block of a U-Net that merges a skip and what comes from below, (N, 2C, H, W), after attention to the skip."""

    def __init__(self, attention: nn.Module, merge: nn.Module):
        super().__init__()
        self.attention, self.merge = attention, merge

    def forward(self, both: torch.Tensor) -> torch.Tensor:
        skip, below = both.chunk(2, 1)
        inputs = (skip, below) if isinstance(self.attention, AttentionGate) else (skip,)
        return self.merge(torch.cat([self.attention(*inputs), below], 1))


def gate_skips(model: UNet, block: Callable[..., nn.Module], **options) -> UNet:
    """Put block(channels, **options) on every skip connection of a U-Net, in place; returns the model.

    The weights of the U-Net stay as they are; those of the blocks come from a NumPy generator with the model's seed.
    """
    rng = np.random.default_rng([model.config["seed"], 1])
    channels = [merge[0].out_channels for merge in model.merge]
    attention = [init_weights(block(count, **options), rng) for count in channels]
    model.merge = nn.ModuleList(Gated(*pair) for pair in zip(attention, model.merge, strict=True))
    return model


def _apply(x: torch.Tensor, a: torch.Tensor, product: bool) -> torch.Tensor:
    return x * a.sigmoid() if product else x + a


def _bottleneck(channels: int, reduction: int) -> int:
    if channels < 1 or reduction < 1:
        raise ValueError(f"channels are {channels} and reduction {reduction}; expected at least 1 each")
    return max(1, channels // reduction)
