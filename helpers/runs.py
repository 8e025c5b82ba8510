"""One run of a notebook: checked parameters, seeds, claims about its numbers, and the record it leaves behind."""

import hashlib
import io
import json
import math
import numbers
import os
import random
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from helpers.grids import default_parameters, read_grid
from helpers.provenance import commit, describe, peak_memory_mb, repo_root, versions, write_atomic
from helpers.used_code import code_hash

# torch is imported where it is used: the runner, which only reads records, then starts at once.

__all__ = ["PROFILES", "ClaimError", "Run", "read_record", "records", "records_in", "replay", "repo_root", "start_run"]

PROFILES = ("smoke", "teach", "full")
ADVICE = "Results vary between machines: see the README. If the code changed on purpose: `make refresh`."
NONE = type(None)
SCHEMA = {
    "notebook": str,
    "row": str,
    "params": dict,
    "metrics": dict,
    "claims": list,
    "seconds": (int, float),
    "peak_memory_mb": (int, float),
    "versions": dict,
    "device": str,
    "data": (dict, NONE),
    "commit": str,
    "code": str,
    "checkpoint": (dict, NONE),
    "figure": (str, NONE),
}


class ClaimError(AssertionError):
    """A number that a notebook states, or a record holds, was not found again."""


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
        return f"{self.notebook}: profile {self.profile}, seed {self.seed}, on {self.device.type}; {state}"

    def pick(self, *, smoke, teach, full):
        """The value that belongs to this run's profile."""
        return {"smoke": smoke, "teach": teach, "full": full}[self.profile]

    def claim(self, text: str, value, *, reference=None, atol=None, at_least=None, at_most=None) -> None:
        """State that `value` is `reference` ± `atol`, or within bounds; print one line without a drifting digit.

        Raises ClaimError if it does not hold and this run is checked (profile teach, the parameters that
        `start_run` calls `checked`). NaN never holds. With CLAIMS=report in the environment it is only recorded.
        """
        value = _number(f"claim {text!r}", value)
        limits = [limit for limit in (at_least, at_most) if limit is not None]
        if (reference is None) != (atol is None) or (reference is None) == (not limits):
            raise ValueError(f"claim {text!r}: expected either reference and atol, or at_least and/or at_most")
        if reference is not None:
            holds, expected = abs(value - reference) <= atol, f"{reference} ± {atol}"
        else:
            low, high = (-math.inf if at_least is None else at_least), (math.inf if at_most is None else at_most)
            signs = ((at_least, "≥"), (at_most, "≤"))
            holds, expected = low <= value <= high, " and ".join(f"{s} {b}" for b, s in signs if b is not None)
        entry = {"text": text, "value": _finite(value), "reference": reference, "atol": atol, "at_least": at_least}
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
        (`.name`, `.content_hash()`), or None. The record, `metrics.json`, is written last: it is the mark of success.
        Raises TypeError for a metric that is no number, before anything is written.
        """
        metrics = {name: _metric(name, value) for name, value in metrics.items()}
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
            "versions": versions(),
            "device": describe(self.device),
            "data": None if data is None else {"name": data.name, "hash": data.content_hash()},
            "commit": commit(),
            "code": code_hash(self.notebook),
            "checkpoint": checkpoint,
            "figure": None if figure is None else "figure.png",
        }
        text = json.dumps(record, indent=1, allow_nan=False)
        path = self.folder / "metrics.json"
        self.folder.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        for name, content in files.items():
            write_atomic(self.folder / name, content)
        write_atomic(path, text.encode())
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
    choices = {"profile": PROFILES} | (choices or {})
    for name in ("seed", *choices, *(checked or {})):
        if name not in params:
            raise ValueError(f"{name}: missing; the parameters are {', '.join(params)}")
    for name, allowed in choices.items():
        if params[name] not in allowed:
            raise ValueError(f"{name}: got {params[name]!r}, expected one of {', '.join(map(str, allowed))}")
    seed, data_dir = params["seed"], params.get("data_dir", "")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"seed: got {seed!r}, expected a whole number from 0 to 2**32 - 1")
    if data_dir and not Path(data_dir).is_dir():
        raise ValueError(f"data_dir: got {data_dir!r}, expected the path of an existing folder")
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


def read_record(path) -> dict:
    """Read one `metrics.json`. Raises ValueError naming the file and the key that is missing or of the wrong type."""
    path = Path(path)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not a readable record ({error})") from error
    for key, kind in SCHEMA.items():
        if not isinstance(record, dict) or key not in record:
            raise ValueError(f"{path}: the record has no {key!r}")
        if not isinstance(record[key], kind):
            kinds = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
            raise ValueError(f"{path}: {key!r} is {record[key]!r}, expected {kinds}")
    return record


def records_in(folder) -> list[dict]:
    """Every record below `folder`, sorted by path, each with `path` and `stale`: the code it ran has changed since."""
    paths = sorted(Path(folder).rglob("metrics.json"))
    found = [read_record(path) | {"path": path} for path in paths]
    now = {name: code_hash(name) for name in {record["notebook"] for record in found}}
    return [record | {"stale": record["code"] != now[record["notebook"]]} for record in found]


def records(grid, folder=None) -> list[dict]:
    """The runs of a grid (a path, or a name in grids/) in its order, each with the record that was made of it.

    Per run: `params` (all of them), `state` (recorded; stale: the code has changed since; missing), and `record`, None
    if missing. `folder`: where the records are, by default `results/<notebook>`. Raises ValueError if two records fit
    one run, and for a wrong grid.
    """
    path = Path(grid) if Path(grid).suffix else repo_root() / "grids" / f"{grid}.yaml"
    grid = read_grid(path)
    found = records_in(folder or repo_root() / "results" / grid.notebook.stem)
    found = [record for record in found if record["notebook"] == grid.notebook.stem]
    defaults = default_parameters(grid.notebook)
    return [_row(defaults | params, found) for params in grid.runs]


def _row(params: dict, found: list[dict]) -> dict:
    # A record holds no path of data, and not the parameters that the notebook has got since.
    wanted = params | {"data_dir": ""} if "data_dir" in params else params
    fitting = [r for r in found if all(r["params"].get(name, value) == value for name, value in wanted.items())]
    if len(fitting) > 1:
        paths = ", ".join(str(record["path"]) for record in fitting)
        raise ValueError(f"{len(fitting)} records fit the run {params}: {paths}; tell them apart by the parameter row")
    record = fitting[0] if fitting else None
    state = "missing" if record is None else "stale" if record["stale"] else "recorded"
    return {"params": params, "state": state, "record": record}


def replay(path, model, evaluate, *, atol: float = 1e-3) -> dict:
    """Load a record's checkpoint into `model`, evaluate it again, and compare; return what `evaluate(model)` returned.

    `evaluate` returns numbers under names of the record's metrics. Raises ValueError if the checkpoint is missing,
    changed or does not fit, ClaimError for the first number further than `atol` from the recorded one.
    """
    from safetensors.torch import load

    path = Path(path)
    record = read_record(path)
    if record["checkpoint"] is None:
        raise ValueError(f"{path}: this run kept no checkpoint")
    weights = (path.parent / record["checkpoint"]["file"]).read_bytes()
    if hashlib.sha256(weights).hexdigest() != record["checkpoint"]["sha256"]:
        raise ValueError(f"{path.parent / record['checkpoint']['file']}: sha256 differs from the record's")
    try:
        model.load_state_dict(load(weights))
    except RuntimeError as error:
        raise ValueError(f"{path}: the checkpoint does not fit the model ({str(error).splitlines()[0]})") from error
    again = {name: _number(name, value) for name, value in evaluate(model.eval()).items()}
    for name, value in again.items():
        recorded = record["metrics"].get(name)
        if not isinstance(recorded, numbers.Real):
            raise ValueError(f"{name}: the record holds no number of this name, only {', '.join(record['metrics'])}")
        if not abs(value - recorded) <= atol:
            raise ClaimError(f"{name}: {value:.6g} when replayed, {recorded:.6g} in the record (± {atol}). {ADVICE}")
    return again


def _plain(value):
    """A Python number or list from a NumPy or torch value; anything else unchanged."""
    return value.tolist() if hasattr(value, "tolist") else value


def _number(name: str, value) -> float | int:
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: got {value!r}, expected a real number")
    return value


def _finite(value):
    return value if math.isfinite(value) else None


def _metric(name: str, value):
    value = _plain(value)
    if isinstance(value, list | tuple):
        return [_finite(_number(name, item)) for item in value]
    return _finite(_number(name, value))


def _weights(model) -> bytes:
    from safetensors.torch import save

    return save({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()})
