"""A small vision transformer, and what its attention says of the image."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from helpers.nets.init import init_weights


class SelfAttention(nn.Module):
    """Each token, (N, T, D), becomes a mean of all tokens, weighted by how well its query fits their keys.

    weights(x): the shares (N, heads, T, T); each row sums to 1. Raises ValueError if heads do not divide dim.
    Source: Vaswani et al., Attention is all you need, NeurIPS 2017, Eq. 1 and Section 3.2.2.
    """

    def __init__(self, dim: int, *, heads: int = 4):
        super().__init__()
        if heads < 1 or dim < 1 or dim % heads:
            raise ValueError(f"dim is {dim} and heads {heads}; expected positive numbers, dim divisible by heads")
        self.heads = heads
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def weights(self, x: torch.Tensor) -> torch.Tensor:
        q, k, _ = self._split(x)
        return (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(-1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = F.scaled_dot_product_attention(*self._split(x))  # the same weights, never stored
        return self.out(values.transpose(1, 2).flatten(2))

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        n, tokens, _ = x.shape
        return self.qkv(x).view(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # three of (N, heads, T, D/heads)


class Block(nn.Module):
    """Pre-norm transformer block: tokens (N, T, D) exchange, then each is worked on by itself."""

    def __init__(self, dim: int, *, heads: int):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(dim), SelfAttention(dim, heads=heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Vision transformer: square patches as tokens, fixed sine positions, blocks, the mean of the tokens, a classifier.

    rollout(images): how much each patch takes part in the mean, (N, h, w), see there. Images (N, C, H, W).
    Source: Dosovitskiy et al., ICLR 2021; positions and mean as in Beyer, Zhai and Kolesnikov, arXiv 2205.01580.
    """

    def __init__(self, *, size: int, patch: int, in_channels: int, classes: int, dim: int, depth: int, heads: int):
        super().__init__()
        self.size = size
        self.patches = nn.Conv2d(in_channels, dim, patch, stride=patch)
        self.register_buffer("positions", sine_positions(size // patch, dim))
        self.blocks = nn.ModuleList(Block(dim, heads=heads) for _ in range(depth))
        self.norm, self.classifier = nn.LayerNorm(dim), nn.Linear(dim, classes)

    def tokens(self, images: torch.Tensor) -> torch.Tensor:
        shape = tuple(images.shape)
        if len(shape) != 4 or shape[1] != self.patches.in_channels or shape[2:] != (self.size, self.size):
            expected = f"(N, {self.patches.in_channels}, {self.size}, {self.size})"
            raise ValueError(f"images are {shape}; expected {expected}")
        return self.patches(images).flatten(2).transpose(1, 2) + self.positions  # (N, T, D)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.tokens(images)
        for block in self.blocks:
            x = block(x)
        return self.classifier(self.norm(x).mean(1))

    @torch.inference_mode()
    def rollout(self, images: torch.Tensor) -> torch.Tensor:
        """Attention rollout: the product over blocks of ½ (mean over heads + identity), mean over the tokens.

        Source: Abnar and Zuidema, Quantifying attention flow in transformers, ACL 2020, Eq. 1.
        """
        x = self.tokens(images)
        same = torch.eye(x.shape[1]).to(x)
        flow = same
        for block in self.blocks:
            flow = (block.attention.weights(block.norm1(x)).mean(1) + same) / 2 @ flow
            x = block(x)
        side = round(x.shape[1] ** 0.5)
        return flow.mean(1).view(len(x), side, side)


def vit(
    *,
    size: int = 64,
    patch: int = 8,
    in_channels: int = 1,
    classes: int = 2,
    dim: int = 32,
    depth: int = 4,
    heads: int = 4,
    seed: int = 0,
) -> ViT:
    """ViT with freshly initialised weights; `model.config` holds the arguments. The defaults have 53,000 parameters.

    Raises ValueError if the patch does not divide the size, heads do not divide dim, or 4 does not.
    """
    if patch < 1 or size < 1 or size % patch:
        raise ValueError(f"size is {size} and patch {patch}; expected positive numbers, size divisible by patch")
    arguments = dict(
        size=size, patch=patch, in_channels=in_channels, classes=classes, dim=dim, depth=depth, heads=heads
    )
    model = init_weights(ViT(**arguments), np.random.default_rng(seed))
    model.config = {**arguments, "seed": seed}
    return model


def sine_positions(side: int, dim: int) -> torch.Tensor:
    """Sines and cosines of row and column at dim/4 wavelengths from 2π to 20,000π: (side², dim). ValueError: dim % 4.

    Source: Beyer, Zhai and Kolesnikov, arXiv 2205.01580, Section 3 (after Vaswani et al. 2017, Section 3.5).
    """
    if dim < 4 or dim % 4:
        raise ValueError(f"dim is {dim}; expected a multiple of 4")
    rates = 10_000 ** -(torch.arange(dim // 4) / max(1, dim // 4 - 1))
    angles = torch.arange(side)[:, None] * rates  # (side, dim/4)
    rows, columns = angles.repeat_interleave(side, 0), angles.repeat(side, 1)
    return torch.cat([columns.sin(), columns.cos(), rows.sin(), rows.cos()], 1)
