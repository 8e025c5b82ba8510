"""DenseNets whose post-norm, post-ReLU features are a named tensor."""

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import DenseNet

from helpers.nets.init import fresh

# growth rate, layers per dense block, channels of the stem
_DENSENETS = {
    "small": (12, (2, 2, 2, 2), 16),
    "densenet121": (32, (6, 12, 24, 16), 64),
    "densenet169": (32, (6, 12, 32, 32), 64),
    "densenet201": (32, (6, 12, 48, 32), 64),
}


class ExplainableDenseNet(DenseNet):
    """torchvision's DenseNet (same state-dict keys) in which the module `relu` outputs the features that are pooled.

    torchvision applies that ReLU in place and outside any module, so a hook on `features` sees another tensor than the
    one that is returned. Every ReLU is out of place here: hooks see what the layer computed.
    """

    def __init__(self, *, in_channels: int, small_stem: bool, **kwargs):
        super().__init__(**kwargs)
        stem = self.features.conv0.out_channels
        if small_stem:  # 3×3 and no max-pool: the four blocks live at 1/2, 1/4, 1/8 and 1/16 of the image
            self.features.conv0 = nn.Conv2d(in_channels, stem, 3, stride=2, padding=1, bias=False)
            del self.features.pool0
        else:
            self.features.conv0 = nn.Conv2d(in_channels, stem, 7, stride=2, padding=3, bias=False)
        self.relu = nn.ReLU()
        for module in self.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.relu(self.features(images))
        return self.classifier(F.adaptive_avg_pool2d(features, 1).flatten(1))


def densenet(name: str = "small", *, in_channels: int = 1, classes: int = 1, seed: int = 0) -> ExplainableDenseNet:
    """DenseNet with freshly initialised weights; `model.config` holds the arguments (to be kept with a checkpoint).

    `small` has 56,000 parameters and suits images of 96–128 pixels; the other names are torchvision's networks.
    (N, in_channels, H, W) images in, (N, classes) logits out. Raises ValueError for an unknown name.
    Source: Huang et al., Densely Connected Convolutional Networks, CVPR 2017, Eq. 2 (features concatenated).
    """
    if name not in _DENSENETS:
        raise ValueError(f"unknown network {name!r}: expected one of {', '.join(_DENSENETS)}")
    growth, blocks, stem = _DENSENETS[name]
    options = dict(growth_rate=growth, block_config=blocks, num_init_features=stem, num_classes=classes)
    options |= dict(in_channels=in_channels, small_stem=name == "small")
    model = fresh(lambda: ExplainableDenseNet(**options), seed)
    model.config = {"name": name, "in_channels": in_channels, "classes": classes, "seed": seed}
    return model
