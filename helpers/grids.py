"""A grid: the YAML file that names a notebook and the parameters of every run of a table.

    table: 05_attention             # made by the functions of experiments/05_attention.py; or, of a notebook alone,
    notebook: 01_explanation        # in notebooks/, or a path from the grid's folder
    fixed: {profile: teach}         # the same in every run
    product: {seed: [0, 1, 2]}      # every combination
    rows: [{row: a}, {row: b}]      # each combined with the product
    cell_timeout: 600               # seconds; also timeout (3600), memory_gb (none), gpus (0), threads (2)

Chapters import this module for their recorded tables, so it leaves papermill and Dask to those who run a grid.
"""

import ast
import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path

import yaml

from helpers.provenance import repo_root

LIMITS = {"cell_timeout": 600, "timeout": 3600, "memory_gb": None}
KINDS = {"table": str, "notebook": str, "fixed": dict, "product": dict, "rows": list, "gpus": int, "threads": int}


class GridError(ValueError):
    """A grid cannot be used: one sentence with the file, the key and the value."""


@dataclass(frozen=True)
class Grid:
    """What to run (the parameters given, per run), within which limits, on how many GPUs and threads a run."""

    path: Path
    table: str
    notebook: Path
    runs: list[dict]
    varying: list[str]
    limits: dict
    gpus: int
    threads: int


def read_grid(path) -> Grid:
    """Read a grid and combine its parameters, unchecked against the notebook. Raises GridError."""
    path = Path(path)
    content = _load(path)
    table, notebook = _table(path, content)
    fixed, product, rows = content.get("fixed", {}), content.get("product", {}), content.get("rows", [{}])
    _check_shape(path, fixed, product, rows)
    fixed = fixed | ({"table": table} if "table" in content else {})
    combinations = itertools.product(rows, *product.values())
    runs = [fixed | row | dict(zip(product, values, strict=True)) for row, *values in combinations]
    varying = list(dict.fromkeys(name for run in runs for name in run if name not in fixed))
    limits = {name: content.get(name, default) for name, default in LIMITS.items()}
    return Grid(path, table, notebook, runs, varying, limits, content.get("gpus", 0), content.get("threads", 2))


def default_parameters(notebook: Path) -> dict:
    """The literals that a notebook's cell tagged `parameters` assigns, by name."""
    cells = json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]
    tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", ())]
    found = {}
    for node in ast.parse("".join(tagged[0]["source"]) if tagged else "").body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value:
            try:
                value = ast.literal_eval(node.value)
            except ValueError:  # an expression: its source stands for it
                value = ast.unparse(node.value)
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id: value for target in targets if isinstance(target, ast.Name)}
    return found


def _load(path: Path) -> dict:
    """The grid's keys with values of the right kinds."""
    try:
        text = path.read_text(encoding="utf-8")
        content, node = yaml.safe_load(text), yaml.compose(text, Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise GridError(f"{path}: not a readable grid ({reason})") from error
    if not isinstance(content, dict) or ("notebook" in content) == ("table" in content):
        raise GridError(f"{path}: expected a mapping with the key table or the key notebook")
    _refuse_repeated(path, node)
    for key, value in content.items():
        if key in KINDS:
            wrong = not isinstance(value, KINDS[key]) or isinstance(value, bool)
            expected = KINDS[key].__name__
        elif key in LIMITS:
            wrong = isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf
            expected = "a number above 0"
        else:
            raise GridError(f"{path}: unknown key {key!r}; the keys are {', '.join((*KINDS, *LIMITS))}")
        if wrong:
            raise GridError(f"{path}: {key} is {value!r}, expected {expected}")
    for key, low, high in (("gpus", 0, 1), ("threads", 1, math.inf)):
        if not low <= content.get(key, 1) <= high:
            expected = "0 or 1" if high == 1 else "at least 1"
            raise GridError(f"{path}: {key} is {content[key]}, expected {expected}")
    return content


def _refuse_repeated(path: Path, node: yaml.Node) -> None:
    """YAML keeps the last of two equal keys, which would silently drop runs."""
    children = [child for pair in node.value for child in pair] if isinstance(node, yaml.MappingNode) else []
    keys = [key.value for key in children[::2]]
    for key in keys:
        if keys.count(key) > 1:
            raise GridError(f"{path}: {key} stands twice in one mapping, expected once")
    for child in node.value if isinstance(node, yaml.SequenceNode) else children:
        _refuse_repeated(path, child)


def _check_shape(path: Path, fixed: dict, product: dict, rows: list) -> None:
    """Lists to combine are lists, rows are mappings, and no parameter stands in two places."""
    for name, values in product.items():
        if not isinstance(values, list) or not values:
            raise GridError(f"{path}: product: {name} is {values!r}, expected a list of values")
    for row in rows:
        if not isinstance(row, dict):
            raise GridError(f"{path}: rows: got {row!r}, expected a mapping of parameters")
    if not rows:
        raise GridError(f"{path}: rows is empty, expected at least one mapping of parameters")
    places = {"fixed": set(fixed), "product": set(product), "rows": {name for row in rows for name in row}}
    for (first, a), (second, b) in itertools.combinations(places.items(), 2):
        if a & b:
            raise GridError(f"{path}: {min(a & b, key=str)} stands in {first} and in {second}, expected one of them")


def _table(path: Path, content: dict) -> tuple[str, Path]:
    """The name of the table, and the notebook that makes its rows."""
    if name := content.get("table"):
        if not (repo_root() / "experiments" / f"{name}.py").is_file():
            raise GridError(f"{path}: table is {name!r}, expected the name of a module in experiments/")
        return name, repo_root() / "experiments" / "run.ipynb"
    name = content["notebook"]
    inside = not name.endswith(".ipynb")
    notebook = repo_root() / "notebooks" / f"{name}.ipynb" if inside else path.parent / name
    if not notebook.is_file():
        raise GridError(f"{path}: notebook is {name!r}, expected one of notebooks/ or the path of an .ipynb file")
    return notebook.stem, notebook.resolve()
