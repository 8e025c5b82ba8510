"""A training step with an adversary against one on the source alone, as chapter 03 does them.

The step with an adversary adds three things: the target images pass the U-Net forward and backward, the discriminator
learns, and it judges. The target's part is timed for a target batch as large as the source's and for half of it; the
discriminator's part also on given logits. All do one step per round, interleaved; medians of one run are compared.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from helpers import adapt
from helpers.nets.segmenters import unet

LIMIT = 1.6
SHAPES = {"teach": dict(width=8, size=64, batch=16), "full": dict(width=16, size=96, batch=8)}


def stepper(width: int, images: Tensor, masks: Tensor, targets: Tensor | None, weight: float) -> Callable[[], None]:
    """A function that does one training step: on the source, and, where there are targets, against a discriminator."""
    net = unet(in_channels=3, classes=3, width=width).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    judge = adapt.Adversary(adapt.discriminator(classes=3))

    def step() -> None:
        logits = net(images)
        value = F.cross_entropy(logits, masks)
        if targets is not None:
            other = net(targets)
            value = value + (weight * judge(logits, other) if weight else 0 * other.mean())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    return step


def judging(logits: Tensor) -> Callable[[], None]:
    """A function in which a discriminator learns from given logits, judges them, and gives their gradient."""
    judge, leaf = adapt.Adversary(adapt.discriminator(classes=3)), logits.clone().requires_grad_()
    return lambda: torch.autograd.grad(judge(logits, leaf), leaf)


def medians(functions: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each function over the rounds, after one to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds + 1):
        for name, function in functions.items():
            start = time.process_time()
            function()
            seconds[name].append(time.process_time() - start)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{platform.machine()}, {options.threads} threads, torch {version('torch')}, fp32, CPU time")
    for profile, shape in SHAPES.items():
        rng, (width, size, batch) = np.random.default_rng(0), shape.values()
        images = torch.from_numpy(rng.random((2, batch, 3, size, size), np.float32))
        masks = torch.from_numpy(rng.integers(0, 3, (batch, size, size)))
        steps = {"source alone": stepper(width, images[0], masks, None, 0.0)}
        for name, targets in (("as many targets", images[1]), ("half as many", images[1, ::2])):
            steps[f"{name}, no discriminator"] = stepper(width, images[0], masks, targets, 0.0)
            steps[f"{name}, adversary"] = stepper(width, images[0], masks, targets, 0.2)
        steps["discriminator on given logits"] = judging(torch.from_numpy(rng.standard_normal(images[0].shape)).float())
        found = medians(steps, options.rounds)
        print(f"\n{profile}: U-Net of width {width}, {batch} images of {size}²; ratios to a step on the source alone")
        for name, seconds in found.items():
            print(f"  {name:38} {seconds * 1e3:7.1f} ms  {seconds / found['source alone']:5.2f}")
    print(f"\nlimit for the adversary: {LIMIT}")


if __name__ == "__main__":
    main()
