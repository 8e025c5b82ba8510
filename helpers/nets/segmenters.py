"""Segmentation networks: ENet as published, and a plain U-Net of any width; both give logits at full resolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from helpers.check import at_least_one
from helpers.nets.init import fresh


def enet(*, in_channels: int = 1, classes: int = 2, seed: int = 0) -> ENet:
    """ENet with freshly initialised weights, 0.36 M parameters; `model.config` holds the arguments.

    (N, in_channels, H, W) images in, (N, classes, H, W) logits out; H and W divisible by 8, else ValueError. In
    training mode, batch norm needs more than one value per channel: one image of 16 × 16, or two of 8 × 8.
    Raises ValueError for in_channels outside 1–15 (the initial block has 16 channels, the image among them).
    Source: Paszke et al., ENet, arXiv 1606.02147, Table 1 and Fig. 2.
    """
    at_least_one(in_channels=in_channels, classes=classes)
    if in_channels > 15:
        raise ValueError(f"in_channels is {in_channels}; expected at most 15: ENet's initial block has 16 channels")
    return _build(ENet, seed, in_channels=in_channels, classes=classes)


def unet(*, in_channels: int = 1, classes: int = 2, width: int = 16, depth: int = 3, seed: int = 0) -> UNet:
    """U-Net with freshly initialised weights; `model.config` holds the arguments.

    width: channels at full resolution, doubled on each of the `depth` levels below. 16 × 3 has 0.48 M parameters;
    width 8 (0.12 M) or 6 (0.07 M) suits live training. (N, in_channels, H, W) images in, (N, classes, H, W) logits
    out; H and W divisible by 2^depth, else ValueError. Raises ValueError for arguments below 1.
    Source: Ronneberger et al., U-Net, arXiv 1505.04597, Fig. 1, with padding and batch norm.
    """
    at_least_one(in_channels=in_channels, classes=classes, width=width, depth=depth)
    return _build(UNet, seed, in_channels=in_channels, classes=classes, width=width, depth=depth)


class ENet(nn.Module):
    """ENet; the names of the blocks are those of the paper's Table 1."""

    def __init__(self, *, in_channels: int, classes: int):
        super().__init__()
        self.initial = nn.Conv2d(in_channels, 16 - in_channels, 3, stride=2, padding=1, bias=False)
        self.initial_norm = nn.Sequential(nn.BatchNorm2d(16), nn.PReLU(16))
        self.down1 = Down(16, 64, dropout=0.01)
        self.stage1 = nn.Sequential(*(Bottleneck(64, dropout=0.01) for _ in range(4)))
        self.down2 = Down(64, 128, dropout=0.1)
        kinds = [{}, {"dilation": 2}, {"asymmetric": True}, {"dilation": 4}]
        kinds += [{}, {"dilation": 8}, {"asymmetric": True}, {"dilation": 16}]
        self.stage2 = nn.Sequential(*(Bottleneck(128, dropout=0.1, **kind) for kind in kinds))
        self.stage3 = nn.Sequential(*(Bottleneck(128, dropout=0.1, **kind) for kind in kinds))
        self.up4 = Up(128, 64, dropout=0.1)
        self.stage4 = nn.Sequential(*(Bottleneck(64, dropout=0.1, activation=_relu) for _ in range(2)))
        self.up5 = Up(64, 16, dropout=0.1)
        self.stage5 = Bottleneck(16, dropout=0.1, activation=_relu)
        self.fullconv = nn.ConvTranspose2d(16, classes, 2, stride=2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        _check_images(images, self.initial.in_channels, divisor=8)
        x = self.initial_norm(torch.cat([self.initial(images), F.max_pool2d(images, 2)], 1))
        x, indices1 = self.down1(x)
        x, indices2 = self.down2(self.stage1(x))
        x = self.up4(self.stage3(self.stage2(x)), indices2)
        x = self.up5(self.stage4(x), indices1)
        return self.fullconv(self.stage5(x))


class Bottleneck(nn.Module):
    """x + expand(conv(project(x))), activated: 1×1 to a quarter of the channels, a main convolution, 1×1 back."""

    def __init__(self, channels: int, *, dropout: float, dilation: int = 1, asymmetric: bool = False, activation=None):
        super().__init__()
        activation, inner = activation or nn.PReLU, channels // 4
        if asymmetric:
            tall = nn.Conv2d(inner, inner, (5, 1), padding=(2, 0), bias=False)
            main = [tall, *_conv(inner, inner, (1, 5), padding=(0, 2), activation=activation)]
        else:
            main = _conv(inner, inner, 3, padding=dilation, dilation=dilation, activation=activation)
        project = _conv(channels, inner, 1, activation=activation)
        self.residual = nn.Sequential(*project, *main, *_expand(inner, channels, dropout))
        self.activation = activation(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.residual(x) + x)


class Down(nn.Module):
    """Bottleneck that halves the resolution; returns the features and where each maximum of the pooled path was."""

    def __init__(self, in_channels: int, out_channels: int, *, dropout: float):
        super().__init__()
        inner, self.new_channels = out_channels // 4, out_channels - in_channels
        project = _conv(in_channels, inner, 2, stride=2, activation=nn.PReLU)
        main = _conv(inner, inner, 3, padding=1, activation=nn.PReLU)
        self.residual = nn.Sequential(*project, *main, *_expand(inner, out_channels, dropout))
        self.activation = nn.PReLU(out_channels)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pooled, indices = F.max_pool2d(x, 2, return_indices=True)
        padded = F.pad(pooled, (0, 0, 0, 0, 0, self.new_channels))  # zeros as the further channels
        return self.activation(self.residual(x) + padded), indices


class Up(nn.Module):
    """Bottleneck that doubles the resolution: the other path goes back to where the maxima of a `Down` were."""

    def __init__(self, in_channels: int, out_channels: int, *, dropout: float):
        super().__init__()
        inner = out_channels // 4
        project = _conv(in_channels, inner, 1, activation=_relu)
        options = dict(stride=2, padding=1, output_padding=1, kind=nn.ConvTranspose2d)
        main = _conv(inner, inner, 3, activation=_relu, **options)
        self.residual = nn.Sequential(*project, *main, *_expand(inner, out_channels, dropout))
        self.shortcut = nn.Sequential(*_conv(in_channels, out_channels, 1))

    def forward(self, x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        return F.relu(self.residual(x) + max_unpool(self.shortcut(x), indices))


class UNet(nn.Module):
    """U-Net: two 3×3 convolutions per level, max-pooling down, 2×2 transposed convolutions up, skips concatenated."""

    def __init__(self, *, in_channels: int, classes: int, width: int, depth: int):
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        inputs = [in_channels, *widths]
        self.down = nn.ModuleList(_double(*pair) for pair in zip(inputs, widths, strict=False))
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))  # deepest first
        self.up = nn.ModuleList(nn.ConvTranspose2d(deep, shallow, 2, stride=2) for deep, shallow in pairs)
        self.merge = nn.ModuleList(_double(2 * shallow, shallow) for _, shallow in pairs)
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        _check_images(images, self.down[0][0].in_channels, divisor=2 ** len(self.up))
        x, skips = self.down[0](images), []
        for block in self.down[1:]:
            skips.append(x)
            x = block(F.max_pool2d(x, 2))
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([skips.pop(), up(x)], 1))
        return self.classifier(x)


def max_unpool(pooled: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) to (N, C, 2H, 2W): each value at the index its 2 × 2 maximum came from, zeros elsewhere.

    Same values as `torch.nn.functional.max_unpool2d`, which raises where deterministic algorithms are required.
    """
    n, c, h, w = pooled.shape
    pixels, places = (tensor.permute(0, 2, 3, 1).reshape(n, h * w, c) for tensor in (pooled, indices))
    full = pooled.new_zeros(n, 4 * h * w, c).scatter(1, places, pixels)  # channels last, as the convolutions like it
    return full.view(n, 2 * h, 2 * w, c).permute(0, 3, 1, 2)


def _relu(_channels: int) -> nn.ReLU:
    return nn.ReLU()  # out of place: hooks see what the layer before computed


def _conv(
    in_channels: int, out_channels: int, kernel, *, activation=None, kind=nn.Conv2d, **options
) -> list[nn.Module]:
    """Convolution without bias, batch norm, and the activation if there is one."""
    layers = [kind(in_channels, out_channels, kernel, bias=False, **options), nn.BatchNorm2d(out_channels)]
    return [*layers, activation(out_channels)] if activation else layers


def _expand(in_channels: int, out_channels: int, dropout: float) -> list[nn.Module]:
    return [*_conv(in_channels, out_channels, 1), nn.Dropout2d(dropout)]


def _double(in_channels: int, out_channels: int) -> nn.Sequential:
    options = dict(padding=1, activation=_relu)
    return nn.Sequential(
        *_conv(in_channels, out_channels, 3, **options), *_conv(out_channels, out_channels, 3, **options)
    )


def _build(network: type, seed: int, **arguments) -> nn.Module:
    model = fresh(lambda: network(**arguments), seed)
    model.config = {**arguments, "seed": seed}
    return model


def _check_images(images: torch.Tensor, channels: int, *, divisor: int) -> None:
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[1] != channels or shape[2] % divisor or shape[3] % divisor or 0 in shape:
        raise ValueError(f"images are {shape}; expected (N, {channels}, H, W) with H and W divisible by {divisor}")
