"""Grad-CAM at the four dense blocks of DenseNet-169 plus CAM, 3 × 320 × 320: ours, the floor and three libraries.

Every method runs once per round on the same model and images, the rounds are interleaved, and the medians of one run
are compared as ratios. The libraries are called as their documentation shows: one call per layer, which gives no CAM.
"""

import argparse
import copy
import gc
import json
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytorch_grad_cam
import torch
import torchcam.methods
from captum.attr import LayerGradCam
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from helpers.explain import cam, capture, grad_cam
from helpers.nets.densenet import densenet

BLOCKS = [f"features.denseblock{block}" for block in range(1, 5)]
LIMITS = {"floor": 1.15, "captum": 2.5, "torchcam": 2.5, "grad-cam": 3.5}
CALLS = {
    "ours": 'capture(model, images, [4 blocks, "relu"], target=1), then grad_cam × 4 and cam',
    "floor": "frozen; stem, leaf at denseblock1, rest of the model, torch.autograd.grad(logits[:, 1].sum(), leaf)",
    "captum": "LayerGradCam(model, block).attribute(images, target=1), 4 calls",
    "torchcam": "with GradCAM(model, block) as m: m(1, model(images), normalized=False), 4 calls",
    "torchcam, list": "with GradCAM(model, [4 blocks]) as m: m(1, model(images), normalized=False), 1 call",
    "grad-cam": "with GradCAM(model, [block]) as m: m(images, targets=[ClassifierOutputTarget(1)] * N), 4 calls",
    "ours, bf16": "as ours, in torch.autocast(bfloat16), model and images channels_last",
}


def spots(rng: np.random.Generator, n: int, size: int) -> tuple[Tensor, Tensor]:
    """Smooth noise (n, 3, size, size), every second image with a bright spot, and whether it has one."""
    coarse = torch.from_numpy(rng.standard_normal((n, 3, size // 8, size // 8)).astype(np.float32))
    images = nn.functional.interpolate(coarse, size, mode="bicubic")
    side = (torch.arange(size) + 0.5) / size
    for row, col, image in zip(*rng.uniform(0.2, 0.8, (2, n)), images[1::2], strict=False):
        image += 3 * torch.exp(-((side[:, None] - row) ** 2 + (side - col) ** 2) / 2 / 0.06**2)
    return images, torch.arange(n) % 2


def trained(rng: np.random.Generator) -> nn.Module:
    """DenseNet-169 after ten steps: maps of an untrained network are sums of noise, which rounding changes most."""
    model = densenet("densenet169", in_channels=3, classes=2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.3
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(10):
        images, labels = spots(rng, 8, 160)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return model.eval()


def ours(model: nn.Module, images: Tensor) -> list[Tensor]:
    captured = capture(model, images, [*BLOCKS, "relu"], target=1)
    maps = [grad_cam(captured.features[block], captured.grads[block]) for block in BLOCKS]
    return [*maps, cam(captured.features["relu"], model.classifier.weight[1])]


def ours_bf16(model: nn.Module, images: Tensor) -> list[Tensor]:
    with torch.autocast(images.device.type, torch.bfloat16):
        return [heat.float() for heat in ours(model, images.contiguous(memory_format=torch.channels_last))]


def floor(model: nn.Module, images: Tensor) -> None:
    """The least that any way to these maps has to compute: one forward pass, gradients down to the first block."""
    flags = [parameter.requires_grad for parameter in model.parameters()]
    model.requires_grad_(False)
    x = images
    for name, stage in model.features.named_children():
        x = stage(x)
        if name == "denseblock1":
            x = first = x.requires_grad_()
    logits = model.classifier(model.relu(x).mean((2, 3)))
    torch.autograd.grad(logits[:, 1].sum(), first)
    for parameter, flag in zip(model.parameters(), flags, strict=True):
        parameter.requires_grad_(flag)


def captum(model: nn.Module, images: Tensor) -> list[Tensor]:
    layers = [model.get_submodule(block) for block in BLOCKS]
    return [LayerGradCam(model, layer).attribute(images, target=1)[:, 0].detach() for layer in layers]


def torchcam_calls(model: nn.Module, images: Tensor) -> list[Tensor]:
    maps = []
    for block in BLOCKS:
        with torchcam.methods.GradCAM(model, block) as method:
            maps += method(1, model(images), normalized=False)
    return maps


def torchcam_list(model: nn.Module, images: Tensor) -> list[Tensor]:
    with torchcam.methods.GradCAM(model, BLOCKS) as method:
        return method(1, model(images), normalized=False)


def grad_cam_package(model: nn.Module, images: Tensor) -> list[np.ndarray]:
    maps = []
    for block in BLOCKS:
        with pytorch_grad_cam.GradCAM(model=model, target_layers=[model.get_submodule(block)]) as method:
            maps.append(method(images, targets=[ClassifierOutputTarget(1)] * len(images)))
    return maps


def differences(maps: dict[str, list]) -> dict[str, float]:
    """Largest difference from our maps, a share of each map's maximum, after the library's ReLU and scaling."""
    expected = [heat.numpy() for heat in maps["ours"]]
    peers = {
        "captum": expected[:4],
        "torchcam": [np.maximum(heat, 0) for heat in expected[:4]],
        "grad-cam": [scale_cam_image(scale_cam_image(np.maximum(heat, 0), (320, 320))) for heat in expected[:4]],
        "ours, bf16": expected,
    }
    peers["torchcam, list"] = peers["torchcam"]
    result = {}
    for name, reference in peers.items():
        pairs = [(np.asarray(theirs), our) for theirs, our in zip(maps[name], reference, strict=True)]
        assert all(theirs.shape == our.shape for theirs, our in pairs), name
        result[name] = float(max((abs(a - b).max((1, 2)) / abs(b).max((1, 2))).max() for a, b in pairs))
    return result


def measure(model: nn.Module, images: Tensor, rounds: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of each method in each round, and the largest differences of the maps."""
    nhwc = copy.deepcopy(model).to(memory_format=torch.channels_last)
    methods: dict[str, Callable] = {
        "ours": lambda: ours(model, images),
        "floor": lambda: floor(model, images),
        "captum": lambda: captum(model, images),
        "torchcam": lambda: torchcam_calls(model, images),
        "torchcam, list": lambda: torchcam_list(model, images),
        "grad-cam": lambda: grad_cam_package(model, images),
        "ours, bf16": lambda: ours_bf16(nhwc, images),
    }
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    maps = {}
    for name in ("ours", "floor"):  # warm-up
        methods[name]()
    for _ in range(rounds):
        for name, method in methods.items():
            gc.collect()
            start = time.perf_counter()
            maps[name] = method()
            seconds[name].append(time.perf_counter() - start)
            model.zero_grad(set_to_none=True)
    return seconds, differences(maps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args()
    packages = {name: version(name) for name in ("torch", "torchvision", "captum", "torchcam", "grad-cam")}
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, {packages}")
    for name, call in CALLS.items():
        print(f"  {name:15} {call}")
    rng = np.random.default_rng(0)
    model = trained(rng)
    results = {"packages": packages, "threads": torch.get_num_threads(), "calls": CALLS, "batches": {}}
    for batch in options.batches:
        images, _ = spots(rng, batch, 320)
        seconds, unequal = measure(model, images, options.rounds)
        results["batches"][batch] = {"seconds": seconds, "largest_difference": unequal}
        report(batch, seconds, unequal)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


def report(batch: int, seconds: dict[str, list[float]], unequal: dict[str, float]) -> None:
    """Print one table: medians, ratios (of ours to the floor, of the others to ours), limits and differences."""
    median = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"\nbatch {batch}, median of {len(seconds['ours'])} interleaved rounds")
    print(f"  {'':15} {'seconds':>8} {'ratio':>7}  {'limit':>8}  maps differ by (of each map's maximum)")
    for name, value in median.items():
        ratio = median["ours"] / value if name == "floor" else value / median["ours"]
        limit = f"{'≤' if name == 'floor' else '≥'} {LIMITS[name]}" if name in LIMITS else ""
        difference = f"{unequal[name]:.1e}" if name in unequal else ""
        print(f"  {name:15} {value:8.2f} {ratio:7.2f}  {limit:>8}  {difference}")
    print("  ratio: ours / floor in the row 'floor', method / ours in the others")


if __name__ == "__main__":
    main()
