"""A grid: the YAML file that names a notebook and the parameters of every run of a table.

notebook: 01_explanation        # in notebooks/, or a path from the grid's folder
fixed: {profile: teach}         # the same in every run
product: {seed: [0, 1, 2]}      # every combination
rows: [{row: a}, {row: b}]      # each combined with the product
cell_timeout: 600               # seconds; also timeout (3600), memory_gb (none), gpus (0), threads (2)
"""

import ast
import hashlib
import itertools
import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from helpers.provenance import repo_root
from helpers.runner import RunError, check_parameters, inspect_parameters, record_name

LIMITS = {"cell_timeout": 600, "timeout": 3600, "memory_gb": None}
KINDS = {"notebook": str, "fixed": dict, "product": dict, "rows": list, "gpus": int, "threads": int}


@dataclass(frozen=True)
class GridRun:
    """One run: the parameters given, all of them (defaults included), and a name that depends on what is run."""

    key: str
    params: dict
    full: dict

    @property
    def record_name(self) -> str:
        return record_name(self.full)


@dataclass(frozen=True)
class Grid:
    """A checked grid: what to run (at most one notebook), within which limits, on how many GPUs and threads a run."""

    path: Path
    notebook: Path
    runs: list[GridRun]
    varying: list[str]
    limits: dict
    gpus: int
    threads: int


def read_grid(path, *, with_data: bool = True) -> Grid:
    """Read and check a grid before anything is started. Raises RunError: one sentence with the key and the value.

    Without `with_data` the data folders are not looked at, and the keys of runs that have one are not theirs.
    """
    path = Path(path)
    content = _load(path)
    notebook = _notebook(path, content["notebook"])
    fixed, product, rows = content.get("fixed", {}), content.get("product", {}), content.get("rows", [{}])
    _check_shape(path, fixed, product, rows)
    inspected = inspect_parameters(notebook)
    known = {name: parameter["inferred_type_name"] for name, parameter in inspected.items()}
    defaults = {name: _literal(parameter["default"]) for name, parameter in inspected.items()}
    code, folder_hash = _outside_code(notebook), cache(_folder_hash)  # each folder is read once
    runs, seen = [], {}
    for row, *values in itertools.product(rows, *product.values()):
        params = _checked(path, notebook, fixed | row | dict(zip(product, values, strict=True)), known)
        full, data = defaults | params, ""
        if with_data and full.get("data_dir"):
            data = folder_hash(path, notebook.parent / full["data_dir"])
        # What differs from the defaults, so that a new parameter leaves the keys as they are; data by its content.
        named = {name: value for name, value in full.items() if value != defaults[name] and name != "data_dir"}
        run = GridRun(_hash([notebook.stem, code, named, data])[:16], params, full)
        if run.key in seen:
            raise RunError(f"{path}: two runs are the same, {params} and {seen[run.key]}")
        seen[run.key] = params
        runs.append(run)
    varying = list(dict.fromkeys(name for run in runs for name in run.params if name not in fixed))
    limits = {name: content.get(name, default) for name, default in LIMITS.items()}
    return Grid(path, notebook, runs, varying, limits, content.get("gpus", 0), content.get("threads", 2))


def _load(path: Path) -> dict:
    """The grid's keys with values of the right kinds."""
    try:
        text = path.read_text(encoding="utf-8")
        content, node = yaml.safe_load(text), yaml.compose(text, Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise RunError(f"{path}: not a readable grid ({reason})") from error
    if not isinstance(content, dict) or "notebook" not in content:
        raise RunError(f"{path}: expected a mapping with the key notebook")
    _refuse_repeated(path, node)
    for key, value in content.items():
        if key in KINDS:
            wrong = not isinstance(value, KINDS[key]) or isinstance(value, bool)
            expected = KINDS[key].__name__
        elif key in LIMITS:
            wrong = isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf
            expected = "a number above 0"
        else:
            raise RunError(f"{path}: unknown key {key!r}; the keys are {', '.join((*KINDS, *LIMITS))}")
        if wrong:
            raise RunError(f"{path}: {key} is {value!r}, expected {expected}")
    for key, low, high in (("gpus", 0, 1), ("threads", 1, math.inf)):
        if not low <= content.get(key, 1) <= high:
            expected = "0 or 1" if high == 1 else "at least 1"
            raise RunError(f"{path}: {key} is {content[key]}, expected {expected}")
    return content


def _refuse_repeated(path: Path, node: yaml.Node) -> None:
    """YAML keeps the last of two equal keys, which would silently drop runs."""
    children = [child for pair in node.value for child in pair] if isinstance(node, yaml.MappingNode) else []
    keys = [key.value for key in children[::2]]
    for key in keys:
        if keys.count(key) > 1:
            raise RunError(f"{path}: {key} stands twice in one mapping, expected once")
    for child in node.value if isinstance(node, yaml.SequenceNode) else children:
        _refuse_repeated(path, child)


def _check_shape(path: Path, fixed: dict, product: dict, rows: list) -> None:
    """Lists to combine are lists, rows are mappings, and no parameter stands in two places."""
    for name, values in product.items():
        if not isinstance(values, list) or not values:
            raise RunError(f"{path}: product: {name} is {values!r}, expected a list of values")
    for row in rows:
        if not isinstance(row, dict):
            raise RunError(f"{path}: rows: got {row!r}, expected a mapping of parameters")
    if not rows:
        raise RunError(f"{path}: rows is empty, expected at least one mapping of parameters")
    places = {"fixed": set(fixed), "product": set(product), "rows": {name for row in rows for name in row}}
    for (first, a), (second, b) in itertools.combinations(places.items(), 2):
        if a & b:
            raise RunError(f"{path}: {min(a & b, key=str)} stands in {first} and in {second}, expected one of them")


def _notebook(path: Path, name: str) -> Path:
    inside = not name.endswith(".ipynb")
    notebook = repo_root() / "notebooks" / f"{name}.ipynb" if inside else path.parent / name
    if not notebook.is_file():
        raise RunError(f"{path}: notebook is {name!r}, expected one of notebooks/ or the path of an .ipynb file")
    return notebook.resolve()


def _checked(path: Path, notebook: Path, params: dict, known: dict[str, str]) -> dict:
    """One run's parameters, checked; whole numbers for a float become floats."""
    try:
        check_parameters(notebook, params, known=known)
    except RunError as error:
        raise RunError(f"{path}: {error}") from None
    for name, value in params.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise RunError(f"{path}: {notebook.stem}: {name} is {value}, expected a finite number")
    return {name: float(value) if known[name] == "float" else value for name, value in params.items()}


def _literal(source: str):
    try:
        return ast.literal_eval(source)
    except (ValueError, SyntaxError):  # an expression: then the notebook alone knows
        return source


def _outside_code(notebook: Path) -> str:
    """Of a notebook that is not in notebooks/, a hash of its code: the records' hash of code does not see it."""
    if notebook.parent == repo_root() / "notebooks":
        return ""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return _hash(["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"])


def _folder_hash(path: Path, folder: Path) -> str:
    """sha256 over the names and contents of all files."""
    if not folder.is_dir():
        raise RunError(f"{path}: data_dir is {str(folder)!r}, expected the path of an existing folder")
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{file.relative_to(folder).as_posix()}\0{content}\0".encode())
    return digest.hexdigest()


def _hash(value) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
