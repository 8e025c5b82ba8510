"""Where a record comes from: the commit, versions, device; and atomic writing."""

import contextlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-image", "scikit-learn", "matplotlib")


def repo_root() -> Path:
    """The folder above the `helpers` package."""
    return Path(__file__).resolve().parents[1]


def write_atomic(path, content: bytes) -> None:
    """Write through a temporary name in the same folder: a reader sees the old file or the new one, never half."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def commit() -> str:
    """The commit of the repository, with `+changes` if tracked code is changed; `unknown` outside git."""
    here = _git("rev-parse", "--show-toplevel", "HEAD").split("\n")
    if len(here) != 2 or Path(here[0]).resolve() != repo_root():  # installed somewhere below another repository
        return "unknown"
    changes = _git("status", "--porcelain", "--untracked-files=no", "--", "helpers", "notebooks")
    return here[1] + ("+changes" if changes else "")


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(("git", "-C", repo_root(), *arguments), capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far."""
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def describe(device) -> str:
    """The device in words: what decides the last digits of a result."""
    import torch

    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    if device.type == "mps":
        return "mps"
    return f"cpu ({torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads)"
