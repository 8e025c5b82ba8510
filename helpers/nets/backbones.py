"""Pretrained networks by name: EfficientNet-lite0, which is among the samples, or a classifier of torchvision."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models

from helpers.nets.efficientnet import efficientnet_lite0

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as torchvision's weights expect


def build(name: str, *, weights: bool = True, classes: int = 1000, seed: int = 0) -> nn.Module:
    """A classifier of images (N, 1 or 3, H, W) in 0…1 with a last layer for `classes`; ImageNet weights, or none.

    It gives logits (N, classes); `features(images)`, what its last layer gets; `stages()`, see `layerwise`.
    name: "efficientnet_lite0", or one of `torchvision.models.list_models(torchvision.models)`, whose default weights
    come from torchvision's site; they are checked by their hash, and nothing is unpickled but tensors.
    Raises ValueError for another name, and for a network that does not end in a linear layer.
    """
    if name == "efficientnet_lite0":
        return efficientnet_lite0(weights=weights, classes=classes, seed=seed)
    if name not in models.list_models(models):
        raise ValueError(f"backbone is {name!r}; expected 'efficientnet_lite0' or a classifier of torchvision")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = models.get_model(name, weights=None)
        if weights:
            url = models.get_model_weights(name).DEFAULT.url
            state = torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
            network.load_state_dict(state)
        return Backbone(name, network, classes=classes)


@torch.inference_mode()
def frozen_features(backbone: nn.Module, images: Tensor, *, smallest: int = 64, batch_size: int = 50) -> np.ndarray:
    """What the last layer of a backbone gets, (N, D), of images (N, 1 or 3, H, W) in 0…1; in evaluation mode.

    Images with a side below `smallest` pixels are enlarged to a square of that size: a pretrained network halves its
    maps five times. Raises ValueError for no images.
    """
    if not len(images):
        raise ValueError("no images; expected at least one")
    if min(images.shape[2:]) < smallest:
        images = F.interpolate(images, size=smallest, mode="bilinear")
    training = backbone.training
    backbone.eval()
    found = [backbone.features(part) for part in images.split(batch_size)]
    backbone.train(training)
    return torch.cat(found).cpu().numpy()


class Backbone(nn.Module):
    """A network of torchvision that normalises its images itself, and whose last linear layer is a new one."""

    def __init__(self, name: str, network: nn.Module, *, classes: int):
        super().__init__()
        last, layer = list(network.named_modules())[-1]
        if not isinstance(layer, nn.Linear):
            raise ValueError(f"{name} ends in {type(layer).__name__}; expected a linear layer")
        network.set_submodule(last, nn.Identity())
        self.network, self.last = network, nn.Linear(layer.in_features, classes)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    def features(self, images: Tensor) -> Tensor:
        """What the last layer gets (N, D), of images (N, 1 or 3, H, W) in 0…1; one channel is repeated."""
        return self.network((images.expand(-1, 3, -1, -1) - self.mean) / self.std)

    def stages(self) -> list[list[str]]:
        """Names of the parts before the last layer, from input to output: none holds more than half of the weights.

        But a part that cannot be divided may.
        """
        parts, most = [("network", self.network)], _weights(self.network) / 2
        while too_large := [p for p in parts if _weights(p[1]) > most and any(map(_weights, p[1].children()))]:
            place, (name, module) = parts.index(too_large[0]), too_large[0]
            inside = [(f"{name}.{child}", part) for child, part in module.named_children() if _weights(part)]
            parts[place : place + 1] = inside
        return [[name] for name, _ in parts]

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.features(images))


def _weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
