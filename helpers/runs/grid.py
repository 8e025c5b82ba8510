"""The parameters of notebooks, and grids: the runs of a table in a YAML file, as docs/batches.md explains it.

Chapters read grids for their recorded tables, so this module leaves papermill and Dask to those who run one.
"""

import ast
import json
import math
from pathlib import Path
from types import SimpleNamespace

import yaml

from helpers.runs.code import repo_root

PROFILES = ("smoke", "teach", "full")
KINDS = {"table": str, "notebook": str, "fixed": dict, "product": dict, "rows": list}
DEFAULTS = {"cell_timeout": 600, "timeout": 3600, "memory_gb": None, "gpus": 0, "threads": 2}
WHOLE = {"gpus": (0, 1), "threads": range(1, 1025)}


class RunError(ValueError):
    """A grid or a parameter that cannot be used, or a run that failed: one sentence with the reason."""


class _Loader(yaml.SafeLoader):
    """Refuses two equal keys: YAML keeps the last of them, which would silently drop runs."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.YAMLError(f"{twice[0]} stands twice in one mapping, expected once")
        return super().construct_mapping(node, deep)


def read_grid(path) -> SimpleNamespace:
    """A grid: its keys, `table` (a name), `notebook` (a path), `runs` (of unchecked parameters). Raises RunError."""
    from sklearn.model_selection import ParameterGrid  # takes a second, and who runs a notebook needs none

    path = Path(path)
    grid = DEFAULTS | {"fixed": {}, "product": {}, "rows": [{}]} | _load(path)
    if name := grid.get("table"):
        grid["fixed"] = grid["fixed"] | {"table": name}
        notebook, source = (repo_root() / "experiments" / file for file in ("run.ipynb", f"{name}.py"))
        kind, expected = "table", "the name of a module in experiments/"
    else:
        kind, name, expected = "notebook", grid["notebook"], "one of notebooks/ or the path of an .ipynb file"
        notebook = path.parent / name if name.endswith(".ipynb") else repo_root() / "notebooks" / f"{name}.ipynb"
        source = notebook
    if not source.is_file():
        raise RunError(f"{path}: {kind} is {name!r}, expected {expected}")
    grid |= {"path": path, "table": grid.get("table", notebook.stem), "notebook": notebook.resolve(), "runs": []}
    for row in grid["rows"]:
        if not isinstance(row, dict) or {*row} & {*grid["fixed"]} or {*row, *grid["fixed"]} & {*grid["product"]}:
            expected = "parameters; each stands in one of fixed, product, rows"
            raise RunError(f"{path}: rows: got {row!r}, expected {expected}")
        try:
            alone = {name: [value] for name, value in (grid["fixed"] | row).items()}
            grid["runs"] += ParameterGrid(alone | grid["product"])
        except (TypeError, ValueError) as error:
            raise RunError(f"{path}: product: {error}") from None
    return SimpleNamespace(**grid)


def _load(path: Path) -> dict:
    """The grid's keys with values of the right kinds."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RunError(f"{path}: not a readable grid ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict) or ("notebook" in content) == ("table" in content):
        raise RunError(f"{path}: expected a mapping with the key table or the key notebook")
    for key, value in content.items():
        if key in KINDS:
            fits, expected = isinstance(value, KINDS[key]) and value != [], KINDS[key].__name__
        elif key in DEFAULTS:
            number = type(value) in (int, float) and 0 < value < math.inf
            fits, expected = (value in WHOLE[key] if key in WHOLE else number), "a number above 0"
        else:
            raise RunError(f"{path}: unknown key {key!r}; the keys are {', '.join((*KINDS, *DEFAULTS))}")
        if not fits:
            raise RunError(f"{path}: {key} is {value!r}, expected {'0 or 1' if key == 'gpus' else expected}")
    return content


def default_parameters(notebook) -> dict:
    """The literals that a notebook's cell tagged `parameters` assigns, by name. Raises RunError if it cannot."""
    try:
        cells = json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]
        tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", ())]
        body = ast.parse("".join(tagged[0]["source"]) if tagged else "").body
        return {node.target.id: ast.literal_eval(node.value) for node in body if isinstance(node, ast.AnnAssign)}
    except (OSError, ValueError, LookupError, SyntaxError) as error:
        raise RunError(f"{notebook}: its parameters cannot be read ({error})") from error


def check_parameters(notebook, given: dict, defaults: dict | None = None) -> dict:
    """The parameters given, of the types of their defaults, before a kernel starts for them. Raises RunError.

    A whole number may stand for a float, and ~ in `data_dir` for the home folder, which is written out.
    """
    defaults, stem, checked = defaults or default_parameters(notebook), Path(notebook).stem, {}
    for name, value in given.items():
        if name not in defaults:
            raise RunError(f"{stem}: unknown parameter {name!r}; the parameters are {', '.join(defaults) or 'none'}")
        kind = type(defaults[name])
        checked[name] = float(value) if kind is float and type(value) is int else value
        if type(checked[name]) is not kind or (kind is float and not math.isfinite(value)):
            raise RunError(f"{stem}: {name} is {value!r}, expected {'a finite ' * (kind is float)}{kind.__name__}")
    if (profile := checked.get("profile", "teach")) not in PROFILES:
        raise RunError(f"{stem}: profile is {profile!r}, expected one of {', '.join(PROFILES)}")
    if not 0 <= checked.get("seed", 0) < 2**32:
        raise RunError(f"{stem}: seed is {checked['seed']}, expected a whole number from 0 to 2**32 - 1")
    if checked.get("data_dir") or "data" in checked:
        _check_data(stem, checked, defaults)
    return checked


def _check_data(stem: str, checked: dict, defaults: dict) -> None:
    """Writes out ~ in `data_dir`; raises RunError for a folder or a source that the notebook does not take."""
    from helpers.data import takes  # its readers take a second

    if folder := checked.get("data_dir"):
        checked["data_dir"] = str(takes.at_home(folder))
        if not (path := Path(checked["data_dir"])).is_absolute():
            raise RunError(f"{stem}: data_dir is {folder!r}, expected a whole path such as {str(path.absolute())!r}")
    try:
        takes.check(stem, defaults | checked)  # a folder is of no use to the source that is the default
    except ValueError as error:
        raise RunError(f"{stem}: {error}") from error
