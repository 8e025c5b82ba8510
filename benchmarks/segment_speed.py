"""One training step of our ENet and U-Net, batch of 8 × 96 × 96, against the U-Nets of MONAI and smp.

A step is forward, cross entropy, backward, AdamW. Every network does one step per round on the same images, the rounds
are interleaved, and the medians of one run are compared as ratios. What the size loss adds is measured twice: as the
median ratio of steps with and without it in the same round, and on given logits (forward and backward of the losses
alone), which the noise of a whole step does not hide.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from monai.networks.nets import BasicUNet
from torch import Tensor, nn

from helpers.losses import size_penalty, soft_sizes
from helpers.nets.segmenters import enet, unet

LIMIT = 0.03  # of a step, for the size loss
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "enet": enet,
    "unet": unet,
    "unet, width 8": lambda: unet(width=8),
    "BasicUNet": lambda: BasicUNet(spatial_dims=2, in_channels=1, out_channels=2),
    "BasicUNet, small": lambda: BasicUNet(
        spatial_dims=2, in_channels=1, out_channels=2, features=(16, 16, 32, 64, 128, 16)
    ),
    "smp resnet18": lambda: smp.Unet("resnet18", encoder_weights=None, in_channels=1, classes=2),
    "smp mobilenet_v2": lambda: smp.Unet("mobilenet_v2", encoder_weights=None, in_channels=1, classes=2),
}
SIZED = ("enet", "unet", "unet, width 8")


def disks(rng: np.random.Generator, n: int, size: int) -> tuple[Tensor, Tensor]:
    """Noise (n, 1, size, size) with a bright disk each, and where it is (n, size, size)."""
    y, x = np.mgrid[:size, :size] / size
    row, col = rng.uniform(0.3, 0.7, (2, n, 1, 1))
    labels = torch.from_numpy((y - row) ** 2 + (x - col) ** 2 < 0.2**2)
    images = torch.from_numpy(rng.standard_normal((n, 1, size, size)).astype(np.float32)) + 2 * labels[:, None]
    return images, labels.long()


def plain(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels)


def sized(logits: Tensor, labels: Tensor) -> Tensor:
    truth = labels.sum((1, 2)).float()
    penalty = size_penalty(soft_sizes(logits), 0.9 * truth, 1.1 * truth, pixels=labels[0].numel())
    return F.cross_entropy(logits, labels) + 0.05 * penalty


def stepper(model: nn.Module, loss: Callable, images: Tensor, labels: Tensor, bf16: bool) -> Callable[[], None]:
    """A function that does one training step."""
    model.train().to(memory_format=torch.channels_last)  # as helpers.train.fit does
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(images)
        value = loss(logits.float(), labels)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    return step


def on_logits(loss: Callable, logits: Tensor, labels: Tensor) -> Callable[[], None]:
    """A function that computes a loss of given logits and its gradient."""
    leaf = logits.clone().requires_grad_()
    return lambda: torch.autograd.grad(loss(leaf, labels), leaf)


def measure(functions: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each function in each round, after one round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return {name: values[1:] for name, values in seconds.items()}


def report(seconds: dict[str, list[float]], parameters: dict[str, int], batch: int) -> None:
    """Print one row per network: size, images per second, and seconds of a step as ratios to both of ours."""
    median = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"  {'':18} {'parameters':>10} {'images/s':>9} {'/ enet':>7} {'/ unet':>7}")
    for name in parameters:
        ratios = [median[name] / median[ours] for ours in ("enet", "unet")]
        print(f"  {name:18} {parameters[name]:10,} {batch / median[name]:9.1f} {ratios[0]:7.2f} {ratios[1]:7.2f}")


def added(seconds: dict[str, list[float]]) -> dict[str, tuple[float, float]]:
    """What the size loss adds, as shares of a step: whole steps compared round by round, and the loss alone."""
    loss = statistics.median(b - a for a, b in zip(seconds["plain loss"], seconds["sized loss"], strict=True))
    result = {}
    for name in SIZED:
        pairs = zip(seconds[name], seconds[f"{name}, sized"], strict=True)
        whole = statistics.median(b / a for a, b in pairs) - 1
        result[name] = (whole, loss / statistics.median(seconds[name]))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=96, help="side of the images, divisible by 32")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="forward pass in autocast(bfloat16)")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    packages = {name: version(name) for name in ("torch", "monai", "segmentation_models_pytorch")}
    print(f"{platform.machine()}, {options.threads} threads, {packages}, batch {options.batch} of {options.size}²")
    images, labels = disks(np.random.default_rng(0), options.batch, options.size)
    models = {name: make() for name, make in NETWORKS.items()}
    steps = {name: stepper(model, plain, images, labels, options.bf16) for name, model in models.items()}
    steps |= {f"{name}, sized": stepper(NETWORKS[name](), sized, images, labels, options.bf16) for name in SIZED}
    logits = models["unet"](images).detach()
    steps |= {f"{loss.__name__} loss": on_logits(loss, logits, labels) for loss in (plain, sized)}
    seconds = measure(steps, options.rounds)
    parameters = {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()}
    print(f"median of {options.rounds} interleaved rounds, {'bf16' if options.bf16 else 'fp32'}, channels last")
    report(seconds, parameters, options.batch)
    print(f"the size loss adds, of a step (limit {LIMIT:.0%}):")
    for name, (whole, alone) in added(seconds).items():
        print(f"  {name:18} {whole:+.1%} steps compared, {alone:+.1%} loss alone")
    if options.json:
        results = {"packages": packages, "options": vars(options) | {"json": None}, "parameters": parameters}
        options.json.write_text(json.dumps(results | {"seconds": seconds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
