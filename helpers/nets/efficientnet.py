"""EfficientNet-lite0 with ImageNet weights: features for images of which there are few."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from helpers.data.fetch import path
from helpers.nets.init import fresh

WEIGHTS = "efficientnet_lite0.pth"
FEATURES = 1280
MEAN, STD = 0.498, 0.502  # of all three channels: about -1…1
# repeats, kernel, stride, expansion, channels of the stages (Tan and Le, Table 1; lite: no squeeze-and-excitation)
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class Convolution(nn.Conv2d):
    """Convolution without bias that pads as TensorFlow does ("same"): an odd row or column goes below and right."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, *, stride: int = 1, groups: int = 1):
        super().__init__(inputs, outputs, kernel, stride=stride, groups=groups, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pads = []
        for length, kernel, stride in zip(x.shape[:1:-1], self.kernel_size, self.stride, strict=True):
            missing = max((-(-length // stride) - 1) * stride + kernel - length, 0)
            pads += [missing // 2, missing - missing // 2]
        return super().forward(F.pad(x, pads))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; added to the input where the shape allows (Sandler et al., CVPR 2018)."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int, expansion: int):
        super().__init__()
        inner = inputs * expansion
        if expansion > 1:
            self._expand_conv, self._bn0 = Convolution(inputs, inner), _norm(inner)
        self._depthwise_conv = Convolution(inner, inner, kernel, stride=stride, groups=inner)
        self._bn1 = _norm(inner)
        self._project_conv, self._bn2 = Convolution(inner, outputs), _norm(outputs)
        self.expands, self.adds = expansion > 1, stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


class EfficientNetLite0(nn.Module):
    """Images (N, 1 or 3, H, W) in 0…1, H and W at least 32, to logits (N, classes); normalises them itself.

    The names of the parts are those of the published state dict. Source: Tan and Le, EfficientNet, ICML 2019.
    """

    def __init__(self, *, classes: int = 1000):
        super().__init__()
        self._conv_stem, self._bn0 = Convolution(3, 32, 3, stride=2), _norm(32)
        blocks, inputs = [], 32
        for repeats, kernel, stride, expansion, outputs in STAGES:
            for i in range(repeats):
                shape = dict(kernel=kernel, stride=1 if i else stride, expansion=expansion)
                blocks.append(InvertedResidual(inputs, outputs, **shape))
                inputs = outputs
        self._blocks = nn.Sequential(*blocks)
        self._conv_head, self._bn1 = Convolution(inputs, FEATURES), _norm(FEATURES)
        self._fc = nn.Linear(FEATURES, classes)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Pooled features (N, 1280) of images in 0…1; one channel is repeated. Raises ValueError for other shapes."""
        if images.ndim != 4 or images.shape[1] not in (1, 3) or min(images.shape[2:]) < 32:
            raise ValueError(f"images have shape {tuple(images.shape)}; expected (N, 1 or 3, at least 32, at least 32)")
        x = (images.expand(-1, 3, -1, -1) - MEAN) / STD
        x = self._blocks(F.relu6(self._bn0(self._conv_stem(x))))
        return F.relu6(self._bn1(self._conv_head(x))).mean(dim=(2, 3))

    def stages(self) -> list[list[str]]:
        """Names of the parts before the last layer, those that belong together in one list, from input to output."""
        ends = np.cumsum([repeats for repeats, *_ in STAGES])
        blocks = [[f"_blocks.{i}" for i in range(end - stage[0], end)] for end, stage in zip(ends, STAGES, strict=True)]
        return [["_conv_stem", "_bn0"], *blocks, ["_conv_head", "_bn1"]]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self._fc(self.features(images))


def efficientnet_lite0(*, weights: bool = True, classes: int = 1000, seed: int = 0) -> EfficientNetLite0:
    """EfficientNet-lite0 (3.4 million parameters without the last layer), with ImageNet weights or freshly initialised.

    With weights and another number of classes than 1000 the last layer is new. Raises FileNotFoundError, with the
    command that brings them, where the weights are absent.
    """
    model = fresh(lambda: EfficientNetLite0(classes=classes), seed)
    if weights:
        state = torch.load(path(WEIGHTS), map_location="cpu", weights_only=True)
        if classes != 1000:
            state |= {f"_fc.{key}": value for key, value in model._fc.state_dict().items()}
        model.load_state_dict(state)
    model.config = {"weights": weights, "classes": classes, "seed": seed}
    return model
