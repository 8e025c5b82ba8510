"""Execute one row in this process and write down what it computed: `python tools/witness.py OUT TABLE PARAMETERS TAGS`.

Run in the root of a tree, with that tree on PYTHONPATH. Noted are a digest of the weights after every step of every
optimizer, the arrays and numbers that each public function of `helpers` and `experiments` returned, the values that
`pick` was given for profile `full`, the metrics and the hash of the data. `tools/verify.py` compares two such
notes. Cells with one of the TAGS only show something and are left out.
"""

import argparse
import functools
import hashlib
import importlib.abc
import inspect
import json
import os
import sys
import types
from collections import defaultdict
from importlib.machinery import PathFinder
from pathlib import Path

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

# Modules whose results are no results of a run: what it looks like, how long it took.
LEFT_OUT = {"plots", "explore", "game", "runs", "provenance"}
weights, picks, outputs = [], [], defaultdict(set)


class Watch(importlib.abc.MetaPathFinder):
    """Wraps what the modules of the tree define, as they are imported."""

    def find_spec(self, name, path, target=None):
        parts = name.split(".")
        spec = PathFinder.find_spec(name, path) if parts[0] in ("helpers", "experiments") else None
        if spec and spec.loader:
            execute = spec.loader.exec_module
            spec.loader.exec_module = lambda module: (execute(module), watch(module, LEFT_OUT.isdisjoint(parts)))
        return spec


def watch(module: types.ModuleType, counts: bool) -> None:
    for name, value in list(vars(module).items()):
        here = getattr(value, "__module__", None) == module.__name__
        if counts and here and isinstance(value, types.FunctionType) and not name.startswith("_"):
            outputs[name] = outputs[name]
            setattr(module, name, noted(value))
        elif here and name == "Run":
            value.pick = noted_pick(value.pick)


def noted(function):
    @functools.wraps(function)
    def call(*args, **options):
        result = function(*args, **options)
        if seen := digest(result):
            outputs[function.__name__].add(seen)
        return result

    return function if inspect.isgeneratorfunction(function) else call


def noted_pick(pick):
    def call(run, **values):
        picks.append(str(getattr(values["full"], "__name__", values["full"])))
        return pick(run, **values)

    return call


def digest(*values) -> str:
    """sha256 over all arrays and numbers in nested tuples, lists and dicts; "" if there is none."""
    total = hashlib.sha256()
    return total.hexdigest() if sum(_feed(value, total) for value in values) else ""


def _feed(value, total) -> int:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().contiguous()
        value = value.numpy() if value.dtype != torch.bfloat16 else value.float().numpy()
    if isinstance(value, dict):
        value = [value[key] for key in sorted(value, key=str) if not str(key).endswith("seconds")]  # no result
    if isinstance(value, tuple | list):
        return sum(_feed(item, total) for item in value)
    if not isinstance(value, np.ndarray | np.generic | int | float) or np.asarray(value).dtype.kind not in "biufc":
        return 0
    array = np.ascontiguousarray(value)
    total.update(f"{array.dtype}{np.shape(value)}".encode() + array.tobytes())
    return 1


def note_weights(optimizer, *_) -> None:
    weights.append(digest([group["params"] for group in optimizer.param_groups]))


def main() -> None:
    """Run the cells of `experiments/run.ipynb`, or of the notebook of that name, but for those that only show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("out", "table", "parameters"):
        parser.add_argument(name)
    parser.add_argument("tags", nargs="*")
    options = parser.parse_args()
    out, table = options.out, options.table
    parted = Path("experiments", f"{table}.py").exists()
    notebook = Path("experiments/run.ipynb" if parted else f"notebooks/{table}.ipynb").resolve()
    params = json.loads(options.parameters) | ({"table": table} if parted else {})
    register_optimizer_step_post_hook(note_weights)
    sys.meta_path.insert(0, Watch())
    os.environ["RUN_DIR"] = folder = str(Path(out).with_suffix(""))
    os.chdir(notebook.parent)
    main_module = sys.modules["__main__"] = types.ModuleType("__main__")
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        tags = set(cell["metadata"].get("tags", []))
        if cell["cell_type"] == "code" and tags.isdisjoint(options.tags):
            lines = "".join(cell["source"]).splitlines()
            source = "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))
            exec(compile(source, cell["id"], "exec"), vars(main_module))
            if "parameters" in tags:
                vars(main_module).update(params)
    record = json.loads(Path(folder, "metrics.json").read_text(encoding="utf-8"))
    note = {"metrics": record["metrics"], "data": record["data"], "weights": weights, "picks": sorted(picks)}
    note["outputs"] = {name: sorted(seen) for name, seen in outputs.items()}
    Path(out).write_text(json.dumps(note), encoding="utf-8")


if __name__ == "__main__":
    main()
