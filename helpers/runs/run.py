"""One run of a notebook: checked parameters, seeds, claims about its numbers, and the record it leaves behind."""

import hashlib
import importlib.metadata
import io
import json
import math
import os
import platform
import random
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from helpers.runs.code import code_hash, repo_root
from helpers.runs.grid import PROFILES
from helpers.runs.record import ADVICE, ClaimError, finite, metric, number, write_atomic

# torch is imported where it is used: who only reads records then starts at once.
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-image", "scikit-learn", "matplotlib")


@dataclass(repr=False)
class Run:
    """One run: its parameters, where it computes (`device`), and the claims made so far."""

    notebook: str
    params: dict
    device: object  # torch.device
    checked: bool  # whether a claim that fails stops the notebook
    folder: Path
    claims: list = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    @property
    def profile(self) -> str:
        return self.params["profile"]

    @property
    def seed(self) -> int:
        return self.params["seed"]

    def __repr__(self) -> str:
        state = "claims are checked" if self.checked else "claims are reported, not checked, for these parameters"
        said = [
            f"{self.notebook}: profile {self.profile}, seed {self.seed}, on {self.device.type}; {state}",
            *self._notes(),
        ]
        return "\n".join(said)

    def _notes(self) -> list[str]:
        """What a reader of this run must know before the first figure."""
        notes = []
        if self.profile == "smoke":
            notes.append("Profile smoke only shows that every cell runs: read no number and no map of it.")
        if self.params.get("data") == "folder":
            notes.append(
                "This run reads your folder. Every 'What we see', and what is marked recorded, tells of the book's own "
                "images, not of yours. Lines that begin with · test the book: skip them."
            )
        return notes

    def pick(self, *, smoke, teach, full):
        """The value that belongs to this run's profile."""
        return {"smoke": smoke, "teach": teach, "full": full}[self.profile]

    def claim(self, text: str, value, *, reference=None, atol=None, at_least=None, at_most=None) -> None:
        """State that `value` is `reference` ± `atol`, or within bounds; print one line without a drifting digit.

        Raises ClaimError if it does not hold and this run is checked (profile teach, the parameters that
        `start_run` calls `checked`). NaN never holds. With CLAIMS=report in the environment it is only recorded.
        """
        value = number(f"claim {text!r}", value)
        limits = [limit for limit in (at_least, at_most) if limit is not None]
        if (reference is None) != (atol is None) or (reference is None) == (not limits):
            raise ValueError(f"claim {text!r}: expected either reference and atol, or at_least and/or at_most")
        if reference is not None:
            holds, expected = abs(value - reference) <= atol, f"{reference} ± {atol}"
        else:
            low, high = (-math.inf if at_least is None else at_least), (math.inf if at_most is None else at_most)
            signs = ((at_least, "≥"), (at_most, "≤"))
            holds, expected = low <= value <= high, " and ".join(f"{s} {b}" for b, s in signs if b is not None)
        entry = {"text": text, "value": finite(value), "reference": reference, "atol": atol, "at_least": at_least}
        self.claims.append(entry | {"at_most": at_most, "holds": holds})
        if not self.checked:
            print(f"· {text}: {value:.4g} (not checked for these parameters; by default {expected})")
        elif holds:
            print(f"✓ {text}: {expected}")
        elif os.environ.get("CLAIMS") == "report":
            print(f"✗ {text}: {value:.6g}, expected {expected}")
        else:
            raise ClaimError(f"{text}: {value:.6g}, expected {expected}. {ADVICE}")

    def save(self, metrics: dict, *, data, model=None, figure=None) -> Path:
        """Write the run's record, with the weights of `model` and `figure` beside it if given; return its path.

        `metrics`: flat name → number or list of numbers (NaN and infinity become null). `data`: what was used
        (`.name`, `.content_hash()`), or None. Raises TypeError, before anything is written, for a metric that is none.
        """
        metrics = {name: metric(name, value) for name, value in metrics.items()}
        files, checkpoint = {}, None
        if model is not None:
            files["model.safetensors"] = weights = _weights(model)
            config = json.loads(json.dumps(getattr(model, "config", {})))
            checkpoint = {"file": "model.safetensors", "sha256": hashlib.sha256(weights).hexdigest(), "config": config}
        if figure is not None:
            picture = io.BytesIO()
            figure.savefig(picture, format="png", dpi=80)
            files["figure.png"] = picture.getvalue()
        record = {
            "notebook": self.notebook,
            "row": self.params.get("row", ""),
            "params": self.params | ({"data_dir": ""} if "data_dir" in self.params else {}),  # a name, never a path
            "metrics": metrics,
            "claims": self.claims,
            "seconds": round(time.monotonic() - self.started, 1),
            "peak_memory_mb": round(peak_memory_mb()),
            "versions": {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in PACKAGES},
            "device": describe(self.device),
            "data": None if data is None else {"name": data.name, "hash": data.content_hash()},
            "commit": commit(),
            "code": code_hash(self.notebook, self.params.get("row", "")),
            "checkpoint": checkpoint,
            "figure": None if figure is None else "figure.png",
        }
        path = self.folder / "metrics.json"
        files[path.name] = json.dumps(record, indent=1, allow_nan=False).encode()  # last: it is the mark of success
        self.folder.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        for name, content in files.items():
            write_atomic(self.folder / name, content)
        return path


def start_run(notebook: str, params: dict, *, choices: dict | None = None, checked: dict | None = None) -> Run:
    """Check the parameters, seed every generator, choose the device; return the Run.

    `choices`: parameter → allowed values. `checked`: the parameter values for which claims are checked (in profile
    teach). The device is the CPU, except in profile full: there CUDA, else MPS, else the CPU.

    What makes runs repeat: a fixed number of threads (a sum's order, hence its last bit, depends on it), torch's
    deterministic algorithms, and for CUDA a fixed cuBLAS workspace and cuDNN without autotuning. TF32 is off so that
    a recorded GPU run can be replayed on a CPU. Raises ValueError naming the parameter,
    its value and what was expected.
    """
    from helpers.data import takes

    choices = {"profile": PROFILES} | (choices or {})
    takes.check(notebook, params)
    for name in ("seed", *choices, *(checked or {})):
        if name not in params:
            raise ValueError(f"{name}: missing; the parameters are {', '.join(params)}")
    for name, allowed in choices.items():
        if params[name] not in allowed:
            raise ValueError(f"{name}: got {params[name]!r}, expected one of {', '.join(map(str, allowed))}")
    seed = params["seed"]
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"seed: got {seed!r}, expected a whole number from 0 to 2**32 - 1")
    full = params["profile"] == "full"
    folder = Path(os.environ.get("RUN_DIR") or repo_root() / "runs" / "interactive" / notebook)
    is_checked = params["profile"] == "teach" and all(params[name] == value for name, value in (checked or {}).items())
    return Run(notebook, dict(params), _prepare_torch(seed, full=full), is_checked, folder)


def _prepare_torch(seed: int, *, full: bool):
    """Seed everything, make torch deterministic, and return the device."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts, so before the first use
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    if not full:
        torch.set_num_threads(2)
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _weights(model) -> bytes:
    from safetensors.torch import save

    return save({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()})


def commit() -> str:
    """The commit of the repository, with `+changes` if tracked code is changed; `unknown` outside git."""
    code = ("helpers", "experiments", "notebooks")
    # Installed somewhere below another repository: that one does not count.
    options = {"cwd": repo_root(), "env": os.environ | {"GIT_CEILING_DIRECTORIES": str(repo_root().parent)}}
    options |= {"capture_output": True, "text": True, "check": True}
    try:
        head = subprocess.run(("git", "rev-parse", "HEAD"), **options).stdout.strip()
        changes = subprocess.run(
            ("git", "status", "--porcelain", "--untracked-files=no", "--", *code), **options
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+changes" if changes else "")


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / 2**20
    import resource  # Windows has none

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def describe(device) -> str:
    """The device in words: what decides the last digits of a result."""
    import torch

    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    if device.type == "mps":
        return "mps"
    return f"cpu ({torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads)"
