"""Weights in the form of DINOv2 for the ViT of `helpers.nets.vit`: a ViT-S/14 of the samples, official ones by path.

Source of the form: Oquab et al., DINOv2: learning robust visual features without supervision, TMLR 2024.
"""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from helpers.data.download import unwritable
from helpers.data.fetch import cache_dir, path
from helpers.nets import onnx
from helpers.nets.vit import ViT, vit

SALIENCY = "vit_s14_saliency"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, for which the weights were made
# Pieces of names, official or of Hugging Face, in the order in which they are replaced by those of ViT.
NAMES = {
    "backbone.": "",
    "patch_embeddings.projection": "patches",
    "patch_embed.proj": "patches",
    "position_embeddings": "positions",
    "pos_embed": "positions",
    "embeddings.": "",
    "cls_token": "class_token",
    "encoder.layer": "blocks",
    "attention.attention": "attention",
    "attention.output.dense": "attention.out",
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.out",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.2",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "layernorm": "norm",
}


def vit_s14_saliency(*, weights: bool = True, depth: int = 8, classes: int = 1000, seed: int = 0) -> ViT:
    """A DINOv2-shaped ViT-S/14 tuned for saliency, or freshly initialised, its first `depth` of 12 blocks; a new head.

    Images (N, 1 or 3, H, W) in 0…1, H and W multiples of 14. The last blocks serve saliency: eight are the default.
    Raises FileNotFoundError, with the command that brings them, where the weights are absent; ValueError: depth.
    """
    if weights:
        return _with(prepare(), SALIENCY, depth=depth, classes=classes, seed=seed)
    shape = dict(size=518, patch=14, in_channels=3, dim=384, heads=6, class_token=True, learned_positions=True)
    return vit(**shape, depth=depth, layer_scale=0.1, classes=classes, seed=seed)


def dinov2(file: str | Path, *, depth: int | None = None, classes: int = 1000, seed: int = 0) -> ViT:
    """A ViT with weights of DINOv2 that you have, its first `depth` blocks, all if not said; a new head.

    file: a state dict, official (`dinov2_vits14_pretrain.pth`) or of Hugging Face (`model.safetensors`); nothing is
    unpickled but tensors. Images (N, 1 or 3, H, W) in 0…1, H and W multiples of the patch. At 518 pixels the positions
    are those of the file; at other sizes the official code, unlike Hugging Face's, takes them 0.1 patches beside.
    Raises ValueError for a file of other tensors, such as registers.
    """
    file = Path(file)
    try:
        if file.suffix == ".safetensors":
            state = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
        state = converted(state)
    except (SafetensorError, UnpicklingError, RuntimeError, LookupError, AttributeError, EOFError) as error:
        raise ValueError(
            f"{file} holds no weights of DINOv2; expected its state dict, and nothing but tensors"
        ) from error
    return _with(state, str(file), depth=depth, classes=classes, seed=seed)


def converted(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of DINOv2 as ViT calls them: queries, keys and values in one; the class token with its position."""
    found = {}
    for name, value in state.items():
        for theirs, ours in NAMES.items():
            name = name.replace(theirs, ours)
        found[name] = value.float()
    found.pop("mask_token", None)  # of the pretraining
    for name in [name for name in found if "attention.query." in name]:
        parts = [found.pop(name.replace("query", part)) for part in ("query", "key", "value")]
        found[name.replace("query", "qkv")] = torch.cat(parts)
    for name in [name for name in found if name.endswith("ls1.gamma")]:
        scales = [found.pop(name), found.pop(name.replace("ls1", "ls2"))]
        found[name.replace("ls1.gamma", "scales")] = torch.stack(scales)
    first, found["positions"] = found["positions"][0].split([1, found["positions"].shape[1] - 1])
    found["class_token"] = found["class_token"][0] + first
    return found


def prepare() -> dict[str, Tensor]:
    """Weights of `vit_s14_saliency` as ViT calls them: written once, from the ONNX file of the samples, all 32 bits.

    16 bits would move the tokens of the last block by 0.015, where the largest is 11. Raises FileNotFoundError, with
    the command that brings the ONNX file; warns where the cache cannot be written.
    """
    file = cache_dir() / f"{SALIENCY}.safetensors"
    with suppress(OSError, SafetensorError):  # absent, or damaged
        return load_file(file)
    arrays = onnx.weights(path(f"{SALIENCY}.onnx"))
    first, others = sorted((array for name, array in arrays.items() if name.startswith("onnx::")), key=np.size)
    arrays = {name: array for name, array in arrays.items() if name.startswith("backbone.")}  # without the decoder
    arrays["position_embeddings"] = np.concatenate([first, others], 1)
    state = converted({name: torch.tensor(array) for name, array in arrays.items()})
    partial = file.with_suffix(f".{os.getpid()}.partial")
    try:
        partial.write_bytes(save(state))
        partial.replace(file)
    except OSError as error:
        warnings.warn(f"the weights are not kept: {unwritable(file.parent, error)}", stacklevel=2)
    return state


def _with(state: dict[str, Tensor], file: str, *, depth: int | None, classes: int, seed: int) -> ViT:
    """The ViT of these weights, which normalises its images itself: by other numbers in the patches' projection."""
    held = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    depth = held if depth is None else depth
    if not 1 <= depth <= held:
        raise ValueError(f"depth is {depth}; expected 1 to {held}, the blocks of {file}")
    dim, channels, patch, _ = state["patches.weight"].shape
    size = round(len(state["positions"]) ** 0.5) * patch
    shape = dict(size=size, patch=patch, in_channels=channels, dim=dim, depth=depth, heads=dim // 64)
    net = vit(**shape, class_token=True, learned_positions=True, layer_scale=1.0, classes=classes, seed=seed)
    for layer in net.modules():
        if isinstance(layer, nn.LayerNorm):
            layer.eps = 1e-6
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    weight = state["patches.weight"] / std
    state = state | {"patches.weight": weight, "patches.bias": state["patches.bias"] - (weight * mean).sum((1, 2, 3))}
    fresh = ("classifier.", "norm.") if depth < held else ("classifier.",)  # the last norm belongs to the last block
    later = tuple(f"blocks.{i}." for i in range(depth, held))
    state = {name: value for name, value in state.items() if not name.startswith((*fresh, *later))}
    if strange := state.keys() ^ {name for name in net.state_dict() if not name.startswith(fresh)}:
        raise ValueError(f"{file}: {min(strange)} is one of {len(strange)} names too many or too few for a ViT")
    net.load_state_dict(state, strict=False)
    return net
