"""Pretrained networks by name, EfficientNet-lite0 of the samples or one of torchvision; what a network makes of images.

`features` reads any layer of these, of a ViT and of your own network, and keeps on disk what it has read.
"""

from __future__ import annotations

import hashlib
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models

from helpers.data.download import unwritable
from helpers.data.fetch import cache_dir
from helpers.frontend import progress
from helpers.nets.dinov2 import SALIENCY, vit_s14_saliency
from helpers.nets.efficientnet import efficientnet_lite0
from helpers.nets.vit import ViT

KEPT = 4e9  # bytes: what the features on disk may take; the oldest go first
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


def features(
    images: Tensor,
    backbone: str | nn.Module,
    *,
    layer: int | str | None = None,
    form: str = "mean",
    size: int | None = 224,
    batch_size: int = 16,
    cache: bool = True,
) -> np.ndarray:
    """What a frozen network, in evaluation mode, makes of images (N, C, H, W), float32: numbers or maps of each.

    backbone: a network, or the name of a pretrained one: "vit_s14_saliency", or one of `build`.
    layer: the number of a stage (from 0, see its `stages()`) or of a block of a ViT (from 1); the name of a module; if
    not given, what the last layer gets, or the last block of a ViT: by its name the eighth, before those of its task.
    form: "mean" over all places, (N, D); "map", (N, D, h, w); "class", the class token of a ViT, (N, D).
    size: the side in pixels that images are resized to, as a square; None leaves them as they are.
    cache: keep the result in the folder of the samples, by the content of images, weights, code and settings.
    Raises ValueError for no images, and for a layer or form that the network lacks.
    """
    if not len(images):
        raise ValueError("no images; expected at least one")
    if isinstance(backbone, str):
        known = dict(depth=layer) if isinstance(layer, int) else {}  # later blocks are not needed
        backbone = vit_s14_saliency(**known) if backbone == SALIENCY else build(backbone)
    if layer is None and isinstance(backbone, ViT):
        layer = len(backbone.blocks)
    if not cache:
        return _run(backbone, images, layer, form, size, batch_size)
    return _kept(_run, backbone, images, layer, form, size, batch_size)


def _run(net: nn.Module, images: Tensor, layer: int | str | None, form: str, size: int | None, batch_size: int):
    """The features, in batches."""
    training, device, found = net.training, next(net.parameters()).device, []
    net.eval()
    try:
        for part in progress(images.split(batch_size), description="features"):
            part = part.to(device)
            if size is not None and part.shape[2:] != (size, size):
                part = F.interpolate(part, size=(size, size), mode="bilinear", antialias=True)
            found.append(_read(net, part, layer, form).float().cpu())
    finally:
        net.train(training)
    return torch.cat(found).numpy()


@torch.inference_mode()
def _read(net: nn.Module, images: Tensor, layer: int | str | None, form: str) -> Tensor:
    """What a layer makes of a batch, in a form."""
    out = net.features(images) if layer is None else _output(net, _module(net, layer), images)
    forms = {}
    if isinstance(net, ViT) and out.ndim == 3:  # (N, T, D)
        h, w = net.grid(images)
        forms = {"class": out[:, 0]} if net.class_token is not None else {}
        out = out[:, -h * w :].transpose(1, 2).unflatten(2, (h, w))  # (N, D, h, w)
    if out.ndim == 4:
        forms |= {"mean": out.mean((2, 3)), "map": out}
    elif out.ndim == 2:
        forms["mean"] = out
    if form not in forms:
        found = f"layer {layer!r}, which gives {tuple(out.shape)}"
        raise ValueError(f"form is {form!r} of {found}; expected {' or '.join(forms) or 'another layer'}")
    return forms[form]


def _module(net: nn.Module, layer: int | str) -> str:
    """The name of the module behind which a layer ends."""
    if isinstance(net, ViT):
        known = {i + 1: f"blocks.{i}" for i in range(len(net.blocks))}
    else:
        known = {i: stage[-1] for i, stage in enumerate(net.stages() if hasattr(net, "stages") else [])}
    names = known | {name: name for name, _ in net.named_modules() if name}
    if layer not in names:
        raise ValueError(f"layer is {layer!r}; expected one of {', '.join(map(str, known))} or the name of a module")
    return names[layer]


class _Reached(Exception):
    """Nothing that follows need be computed."""


def _output(net: nn.Module, name: str, images: Tensor) -> Tensor:
    """What the named module gives, where the network runs on images."""
    found = []

    def keep(_module, _inputs, output):
        found.append(output)
        raise _Reached

    hook = net.get_submodule(name).register_forward_hook(keep)
    try:
        with suppress(_Reached):
            net(images)
    finally:
        hook.remove()
    if not (found and isinstance(found[0], Tensor)):
        raise ValueError(f"{name} gives no tensor when the network runs; expected a layer that does")
    return found[0]


def _kept(run: Callable[..., np.ndarray], net: nn.Module, images: Tensor, *settings) -> np.ndarray:
    """run(net, images, *settings), or what it gave before; always run where the network's code is in no file."""
    sources = {getattr(sys.modules.get(type(part).__module__), "__file__", None) for part in net.modules()}
    if None in sources:
        return run(net, images, *settings)
    machine = (torch.__version__, torch.get_num_threads(), torch.backends.cpu.get_cpu_capability())
    digest = hashlib.sha256(repr((settings, machine, str(net))).encode())
    for source in sorted({*sources, __file__}):
        digest.update(Path(source).read_bytes())
    for name, values in [("images", images), *net.state_dict().items()]:
        digest.update(f"{name} {values.dtype} {tuple(values.shape)} {values.device}".encode())
        digest.update(values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    file = cache_dir() / "features" / f"{digest.hexdigest()}.npy"
    with suppress(OSError, ValueError, EOFError):  # absent, or damaged
        found = np.load(file, allow_pickle=False)
        os.utime(file)
        return found
    found = run(net, images, *settings)
    _keep(file, found)
    return found


def _keep(file: Path, values: np.ndarray) -> None:
    """Write an array, whole or not at all, and remove those not read for longest, down to KEPT bytes."""
    partial = file.with_suffix(f".{os.getpid()}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as out:
            np.save(out, values)
        partial.replace(file)
        left = KEPT
        for other in sorted(file.parent.glob("*.npy"), key=lambda f: f.stat().st_mtime, reverse=True):
            left -= other.stat().st_size
            if left < 0:
                other.unlink(missing_ok=True)
    except OSError as error:
        warnings.warn(f"the features are not kept: {unwritable(file.parent, error)}", stacklevel=2)


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
