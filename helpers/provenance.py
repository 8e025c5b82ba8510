"""Where a record comes from: the commit, the code that a notebook runs, versions, device; and atomic writing."""

import ast
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
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


def code_hash(notebook: str) -> str:
    """sha256 of what a notebook runs: its code cells and every module of `helpers` that they import, in turn.

    Prose, outputs, and helpers that only other chapters use leave it unchanged; so do the modules that make or read
    images, for which the record has the hash of what came out of them. A notebook that is not in `notebooks/` counts
    as one without cells.
    """
    path = repo_root() / "notebooks" / f"{notebook}.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"] if path.exists() else []
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    seen, todo = {}, {name for source in sources for name in _imports(source, "")} | {"helpers.runs"}
    while todo:
        file = _module_file(todo.pop())
        if file is None or file in seen or _makes_images(file):
            continue
        seen[file] = file.read_text(encoding="utf-8")
        package = ".".join(file.relative_to(repo_root()).parent.parts)
        todo |= _imports(seen[file], package)
    parts = sources + [part for file, text in sorted(seen.items()) for part in (file.name, text)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _makes_images(file: Path) -> bool:
    inside = file.relative_to(repo_root()).parts
    return inside[:2] == ("helpers", "data") and file.stem not in ("image_set", "splits")


def _imports(source: str, package: str) -> set[str]:
    """Names of `helpers` modules (and of what is taken from them) that a piece of Python imports."""
    source = "\n".join(line for line in source.splitlines() if not line.lstrip().startswith(("%", "!")))
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    names = {name for name in names if name.split(".")[0] == "helpers"}
    return names | {".".join(name.split(".")[:end]) for name in names for end in range(1, name.count(".") + 1)}


def _module_file(name: str) -> Path | None:
    """The file of a module or package of this repository; None for a name that is neither (a function, a class)."""
    path = repo_root().joinpath(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


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
