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
    """Pre-norm transformer block: tokens (N, T, D) exchange, then each is worked on by itself.

    layer_scale: if given, each of the two changes is multiplied by learned numbers, one a channel, that start there.
    Source: Touvron et al., Going deeper with image transformers, ICCV 2021, Eq. 4 (0.1 for up to 18 blocks).
    """

    def __init__(self, dim: int, *, heads: int, layer_scale: float | None = None):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(dim), SelfAttention(dim, heads=heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.scales = None if layer_scale is None else nn.Parameter(torch.full((2, dim), float(layer_scale)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = (1, 1) if self.scales is None else self.scales
        x = x + first * self.attention(self.norm1(x))
        return x + second * self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Vision transformer: square patches as tokens, positions, blocks, one token or the mean of all, a classifier.

    Images are (N, C, H, W), or (N, 1, H, W), whose channel is repeated; the patch divides H and W.
    positions: sines, or numbers that are learned, of the size / patch places a side; for other sizes in between.
    class_token: a token of no place, the first, from which the classifier reads; without it, it reads the mean.
    features(images): what the classifier gets, (N, D). rollout(images): how much each patch takes part in that.
    Raises ValueError for other images.
    Source: Dosovitskiy et al., ICLR 2021; sines and mean as in Beyer, Zhai and Kolesnikov, arXiv 2205.01580.
    """

    def __init__(
        self,
        *,
        size: int,
        patch: int,
        in_channels: int,
        classes: int,
        dim: int,
        depth: int,
        heads: int,
        class_token: bool = False,
        learned_positions: bool = False,
        layer_scale: float | None = None,
    ):
        super().__init__()
        self.patches = nn.Conv2d(in_channels, dim, patch, stride=patch)
        positions = sine_positions(size // patch, dim)
        if learned_positions:
            self.positions = nn.Parameter(positions)
        else:
            self.register_buffer("positions", positions)
        self.class_token = nn.Parameter(torch.zeros(1, dim)) if class_token else None
        self.blocks = nn.ModuleList(Block(dim, heads=heads, layer_scale=layer_scale) for _ in range(depth))
        self.norm, self.classifier = nn.LayerNorm(dim), nn.Linear(dim, classes)

    def tokens(self, images: torch.Tensor) -> torch.Tensor:
        h, w = self.grid(images)
        x = self.patches(images.expand(-1, self.patches.in_channels, -1, -1))  # (N, D, h, w)
        x = x.flatten(2).transpose(1, 2) + self.positions_of(h, w)  # (N, h·w, D)
        if self.class_token is None:
            return x
        return torch.cat([self.class_token.expand(len(x), 1, -1), x], 1)  # (N, 1 + h·w, D)

    def grid(self, images: torch.Tensor) -> tuple[int, int]:
        """How many patches an image is high and wide."""
        shape, patch, channels = tuple(images.shape), self.patches.kernel_size[0], self.patches.in_channels
        if len(shape) != 4 or shape[1] not in (1, channels) or any(side < patch or side % patch for side in shape[2:]):
            raise ValueError(f"images are {shape}; expected (N, {channels}, H, W), H and W multiples of {patch}")
        return shape[2] // patch, shape[3] // patch

    def positions_of(self, h: int, w: int) -> torch.Tensor:
        """Positions of h by w patches, (h·w, D): bicubic between those that there are."""
        side = round(len(self.positions) ** 0.5)
        if (h, w) == (side, side):
            return self.positions
        known = self.positions.T.view(1, -1, side, side)  # (1, D, side, side)
        return F.interpolate(known, size=(h, w), mode="bicubic")[0].flatten(1).T

    def features(self, images: torch.Tensor) -> torch.Tensor:
        x = self.tokens(images)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return x.mean(1) if self.class_token is None else x[:, 0]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(images))

    def stages(self) -> list[list[str]]:
        """Names of the parts before the classifier, those that belong together in one list, from input to output."""
        names = [["patches"], *([f"blocks.{i}"] for i in range(len(self.blocks)))]
        return [*names[:-1], [*names[-1], "norm"]]

    @torch.inference_mode()
    def rollout(self, images: torch.Tensor) -> torch.Tensor:
        """Attention rollout, (N, h, w): the product over blocks of ½ (mean over heads + identity), read as `features`.

        Source: Abnar and Zuidema, Quantifying attention flow in transformers, ACL 2020, Eq. 1.
        """
        x = self.tokens(images)
        same = torch.eye(x.shape[1]).to(x)
        flow = same
        for block in self.blocks:
            flow = (block.attention.weights(block.norm1(x)).mean(1) + same) / 2 @ flow
            x = block(x)
        h, w = self.grid(images)
        return (flow.mean(1) if self.class_token is None else flow[:, 0, 1:]).view(len(x), h, w)


def vit(
    *,
    size: int = 64,
    patch: int = 8,
    in_channels: int = 1,
    classes: int = 2,
    dim: int = 32,
    depth: int = 4,
    heads: int = 4,
    class_token: bool = False,
    learned_positions: bool = False,
    layer_scale: float | None = None,
    seed: int = 0,
) -> ViT:
    """ViT with freshly initialised weights; `model.config` holds the arguments. The defaults have 53,000 parameters.

    Raises ValueError if the patch does not divide the size, heads do not divide dim, or 4 does not.
    """
    if patch < 1 or size < 1 or size % patch:
        raise ValueError(f"size is {size} and patch {patch}; expected positive numbers, size divisible by patch")
    shape = dict(size=size, patch=patch, in_channels=in_channels, classes=classes, dim=dim, depth=depth, heads=heads)
    more = dict(class_token=class_token, learned_positions=learned_positions, layer_scale=layer_scale)
    model, rng = ViT(**shape, **more), np.random.default_rng(seed)
    for layer in model.modules():  # positions and scales start as they are made
        if not [*layer.children()]:
            init_weights(layer, rng)
    if model.class_token is not None:
        model.class_token.data = torch.from_numpy(rng.normal(scale=0.02, size=(1, dim)).astype(np.float32))
    model.config = {**shape, **more, "seed": seed}
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
