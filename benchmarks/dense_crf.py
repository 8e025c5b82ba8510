"""The dense CRF's bilateral grid against the exact mean field (64 × 64) and against pydensecrf, on one thread.

Both backends run once per round on the same image, the rounds are interleaved, and medians of one run are compared as
ratios, in CPU time. The images are smooth regions with noise of standard deviation 3 and 10, on a scale of 0–255.
The limits hold for sxy = 3, schan = 10; the wider kernel's times are reported without a limit. In a process that has
never freed a large array, page faults of the temporaries add about a half to the grid's time at 256².
"""

import argparse
import gc
import json
import statistics
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from threadpoolctl import threadpool_limits

from helpers.segment.crf import dense_crf, mean_field_exact

BACKENDS = ("grid", "pydensecrf")
KERNELS = {"sxy 3, schan 10": dict(sxy=3, schan=10), "sxy 80, schan 13": dict(sxy=80, schan=13)}
LIMITED = "sxy 3, schan 10"
ERROR_LIMIT, TIME_LIMIT, LIMITED_SIZES = 1 / 3, 1.0, (256, 512)


def example(size: int, *, colour: bool, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probs (2, H, W) from noisy logits, and the uint8 image (H, W) or (H, W, 3) that they are refined with."""
    rng = np.random.default_rng(seed)
    labels = gaussian_filter(rng.standard_normal((size, size)), size / 16) > 0
    shading = gaussian_filter(rng.standard_normal((size, size, 3)), (size / 20, size / 20, 0))
    image = 110 + 25 * shading / shading.std() + labels[..., None] * np.array([40, -20, 28])
    image = np.clip((image + noise * rng.standard_normal(image.shape)).round(), 0, 255).astype(np.uint8)
    foreground = 1 / (1 + np.exp(1 - 2 * labels + 1.5 * rng.standard_normal((size, size))))
    return np.stack([1 - foreground, foreground]).astype(np.float32), image if colour else image[..., 0]


def errors(options: dict, *, colour: bool, noise: float) -> dict[str, float]:
    """Root mean square difference from the exact probabilities, of each backend, over three images of 64 × 64."""
    squares = {backend: [] for backend in BACKENDS}
    for seed in range(3):
        probs, image = example(64, colour=colour, noise=noise, seed=seed)
        exact = mean_field_exact(probs, image, **options)
        for backend in BACKENDS:
            squares[backend].append(np.mean((dense_crf(probs, image, backend=backend, **options) - exact) ** 2))
    return {backend: float(np.sqrt(np.mean(values))) for backend, values in squares.items()}


def seconds(options: dict, size: int, rounds: int, *, colour: bool, noise: float) -> dict[str, list[float]]:
    """CPU seconds of each backend in each round."""
    probs, image = example(size, colour=colour, noise=noise)
    result = {backend: [] for backend in BACKENDS}
    for turn in range(rounds + 1):  # the first one warms up
        for backend in BACKENDS:
            gc.collect()
            start = time.process_time()
            dense_crf(probs, image, backend=backend, **options)
            if turn:
                result[backend].append(time.process_time() - start)
    return result


def line(what: str, values: dict[str, float], limit: float | None) -> dict:
    """Print both values, their ratio and its limit; return them."""
    ratio = values["grid"] / values["pydensecrf"]
    verdict = "" if limit is None else f"≤ {limit:.2f} {'met' if ratio <= limit else 'MISSED'}"
    print(f"  {what:40} {values['grid']:8.4f} {values['pydensecrf']:10.4f} {ratio:7.2f}  {verdict}")
    return {**values, "ratio": ratio, "limit": limit}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--compat", type=float, default=3)
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    arguments = parser.parse_args()
    shared = dict(iterations=arguments.iterations, compat=arguments.compat)
    packages = {name: version(name) for name in ("numpy", "scipy", "torch", "pydensecrf2")}
    print(f"{packages}, {shared}\n  {'':40} {'grid':>8} {'pydensecrf':>10} {'ratio':>7}  limit")
    results = {"packages": packages, **shared, "rows": {}}
    torch.set_num_threads(1)
    np.empty(30 * 2**20, np.uint8)  # freed at once: glibc keeps freed memory from now on, as in any longer session
    with threadpool_limits(1):
        for name, kernel in KERNELS.items():
            for colour, noise in ((False, 3), (False, 10), (True, 3), (True, 10)):
                what, options = f"{name}, {'RGB' if colour else 'grey'}, noise {noise}", kernel | shared
                found = errors(options, colour=colour, noise=noise)
                results["rows"][f"{what}, error"] = line(f"{what}, error", found, ERROR_LIMIT)
                for size in arguments.sizes:
                    times = seconds(options, size, arguments.rounds, colour=colour, noise=noise)
                    medians = {backend: statistics.median(values) for backend, values in times.items()}
                    limit = TIME_LIMIT if name == LIMITED and size in LIMITED_SIZES else None
                    results["rows"][f"{what}, {size}²"] = line(f"{what}, {size}², s", medians, limit)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
