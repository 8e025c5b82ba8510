"""Records of runs: the file a run leaves, the ledger in `results/` that keeps those of a table, and their replay.

A ledger is one file a table, a line a run:

    {"notebook": "05_attention",
     "code": {hash: {"commit": where this code stood, "verified": a commit that computes the same, or ""}},
     "runs": {"gate-full-phantom-seed0": record, …}}

The weights that a run kept lie beside it, as `05_attention-gate-full-phantom-seed0.safetensors`.
"""

import hashlib
import json
import math
import numbers
import os
from functools import cache
from pathlib import Path

from filelock import FileLock

from helpers.runs.code import code_hash, repo_root, root_of
from helpers.runs.grid import default_parameters, read_grid

ADVICE = "Results vary between machines: see the README. If the code changed on purpose: `make refresh`."
NONE = type(None)
SCHEMA = {"notebook": str, "row": str, "params": dict, "metrics": dict, "claims": list, "seconds": (int, float)}
SCHEMA |= {"peak_memory_mb": (int, float), "versions": dict, "device": str, "data": (dict, NONE), "commit": str}
SCHEMA |= {"code": str, "checkpoint": (dict, NONE)}
LEDGER = {"notebook": str, "code": dict, "runs": dict}


class ClaimError(AssertionError):
    """A number that a notebook states, or a record holds, was not found again."""


def write_atomic(path, content: bytes) -> None:
    """Write through a temporary name in the same folder: a reader sees the old file or the new one, never half."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_record(path) -> dict:
    """Read the `metrics.json` of a run, with its `path`. Raises ValueError naming file and key that are wrong."""
    return _checked(_read(Path(path), "record"), SCHEMA, f"{path}: the record") | {"path": Path(path)}


def read_ledger(path) -> dict:
    """The ledger of a table; one without runs if there is no file. Raises ValueError naming what is wrong."""
    path = Path(path)
    if not path.exists():
        return {"notebook": path.stem, "code": {}, "runs": {}}
    ledger = _checked(_read(path, "ledger"), LEDGER, f"{path}: the ledger")
    for name, record in ledger["runs"].items():
        _checked(record, SCHEMA, f"{path}: {name}: the record")
        if record["code"] not in ledger["code"]:
            raise ValueError(f"{path}: {name}: the ledger does not know its code {record['code'][:12]}")
    return ledger


def write_ledger(path, ledger: dict) -> None:
    """Write a ledger in the order of names, a line a run; codes that no run has are dropped."""
    used = {record["code"] for record in ledger["runs"].values()}
    parts = [f'{{"notebook": {json.dumps(ledger["notebook"])}']
    for key, entries in (("code", {c: ledger["code"][c] for c in used}), ("runs", ledger["runs"])):
        lines = [f"{json.dumps(name)}: {json.dumps(entries[name], allow_nan=False)}" for name in sorted(entries)]
        parts.append(f'"{key}": {{\n' + ",\n".join(lines) + "\n}")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, (",\n".join(parts) + "}\n").encode())


def record_name(params: dict) -> str:
    """Name of a run in its ledger: `<row>-<model>-<profile>-<data>-seed<seed>`.

    A run that is no row of a table is named without model, and a row of a notebook that has but one, too.
    """
    row = [params[name] for name in ("row", "model") if params.get("row") and params.get(name)]
    profile, data, seed = (params.get(name, "none") for name in ("profile", "data", "seed"))
    return "-".join([*row, f"{profile}-{data}-seed{seed}"])


def keep(record_path, ledger_path) -> None:
    """Take a run's record and its weights into a ledger, in place of an older one of the same name.

    Raises ValueError if either cannot be read or the ledger is of another notebook.
    """
    record, ledger_path = read_record(record_path), Path(ledger_path)
    folder, name = record.pop("path").parent, record_name(record["params"])
    record.pop("figure", None)
    ledger_path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(ledger_path.with_name(f".{ledger_path.name}.lock")):
        ledger = read_ledger(ledger_path)
        if ledger["notebook"] != record["notebook"]:
            owner = ledger["notebook"]
            raise ValueError(f"{ledger_path}: it is the ledger of {owner}; got a run of {record['notebook']}")
        weights = ledger_path.with_name(f"{ledger_path.stem}-{name}.safetensors")
        if record["checkpoint"]:
            write_atomic(weights, (folder / record["checkpoint"]["file"]).read_bytes())
            record["checkpoint"] |= {"file": weights.name}
        else:
            weights.unlink(missing_ok=True)
        ledger["runs"][name] = record
        ledger["code"].setdefault(record["code"], {"commit": record["commit"], "verified": ""})
        write_ledger(ledger_path, ledger)


def records_in(path) -> list[dict]:
    """Every record of a ledger, with its `name`, the ledger's `path` and `stale`: the code it ran has changed since."""
    path, now = Path(path), cache(code_hash)
    return [
        record
        | {
            "name": name,
            "path": path,
            "stale": record["code"] != now(record["notebook"], root_of(record["notebook"], record["row"])),
        }
        for name, record in read_ledger(path)["runs"].items()
    ]


def records(grid, ledger=None) -> list[dict]:
    """The runs of a grid (a path, or a name in experiments/ or grids/) in its order, each with the record made of it.

    Per run: `params` (all of them), `state` (recorded; stale: the code has changed since; missing), and `record`, None
    if missing. `ledger`: where the records are, by default `results/<table>.json`. Raises ValueError if two records
    fit one run, and for a wrong grid or ledger.
    """
    if not Path(grid).suffix:
        experiment, table = (repo_root() / folder / f"{grid}.yaml" for folder in ("experiments", "grids"))
        grid = experiment if experiment.exists() else table
    grid = read_grid(grid)
    found = records_in(ledger or repo_root() / "results" / f"{grid.table}.json")
    found = [record for record in found if record["notebook"] == grid.table]
    defaults = default_parameters(grid.notebook)
    return [_row(defaults | params, found) for params in grid.runs]


def _row(params: dict, found: list[dict]) -> dict:
    # A record holds no path of data, and not the parameters that the notebook has got since.
    wanted = params | {"data_dir": ""} if "data_dir" in params else params
    fitting = [r for r in found if all(r["params"].get(name, value) == value for name, value in wanted.items())]
    if len(fitting) > 1:
        names = ", ".join(record["name"] for record in fitting)
        raise ValueError(f"{len(fitting)} records fit the run {params}: {names}; tell them apart by the parameter row")
    record = fitting[0] if fitting else None
    state = "missing" if record is None else "stale" if record["stale"] else "recorded"
    return {"params": params, "state": state, "record": record}


def replay(record: dict, model, evaluate, *, atol: float = 1e-3) -> dict:
    """Load the weights that a run kept into `model`, evaluate it again, and compare; return what `evaluate` returned.

    `record`: of `read_record` or `records`. `evaluate(model)` returns numbers under names of the record's metrics.
    Raises ValueError if the weights are missing, changed or do not fit, ClaimError for the first number further than
    `atol` from the recorded one.
    """
    from safetensors.torch import load

    path = record["path"]
    if record["checkpoint"] is None:
        raise ValueError(f"{path}: this run kept no checkpoint")
    file = path.parent / record["checkpoint"]["file"]
    weights = file.read_bytes()
    if hashlib.sha256(weights).hexdigest() != record["checkpoint"]["sha256"]:
        raise ValueError(f"{file}: sha256 differs from the record's")
    try:
        model.load_state_dict(load(weights))
    except RuntimeError as error:
        raise ValueError(f"{file}: the checkpoint does not fit the model ({str(error).splitlines()[0]})") from error
    again = {name: number(name, value) for name, value in evaluate(model.eval()).items()}
    for name, value in again.items():
        recorded = record["metrics"].get(name)
        if not isinstance(recorded, numbers.Real):
            raise ValueError(f"{name}: the record holds no number of this name, only {', '.join(record['metrics'])}")
        if not abs(value - recorded) <= atol:
            raise ClaimError(f"{name}: {value:.6g} when replayed, {recorded:.6g} in the record (± {atol}). {ADVICE}")
    return again


def number(name: str, value) -> float | int:
    """A Python number from one of NumPy or torch. Raises TypeError if it is none."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: got {value!r}, expected a real number")
    return value


def finite(value):
    """The number, or None for NaN and infinity, which JSON does not have."""
    return value if math.isfinite(value) else None


def metric(name: str, value):
    """A number, or a list of numbers, as a record holds it."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, list | tuple):
        return [finite(number(name, item)) for item in value]
    return finite(number(name, value))


def _read(path: Path, kind: str):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not a readable {kind} ({error})") from error


def _checked(content, schema: dict, where: str) -> dict:
    for key, kind in schema.items():
        if not isinstance(content, dict) or key not in content:
            raise ValueError(f"{where} has no {key!r}")
        if not isinstance(content[key], kind):
            kinds = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
            raise ValueError(f"{where}: {key!r} is {content[key]!r}, expected {kinds}")
    return content
