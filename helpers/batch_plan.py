"""What a batch has to do and how it stands: its runs, checked and named, their folders, and the tables over them."""

import csv
import hashlib
import html
import io
import itertools
import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from helpers.batch_run import look_up
from helpers.grids import Grid, GridError, default_parameters
from helpers.overview import link_files, result_cells, write_page
from helpers.provenance import repo_root, write_atomic
from helpers.runner import RunError, check_parameters, known_parameters
from helpers.runs.record import record_name


@dataclass(frozen=True)
class GridRun:
    """One run: the parameters given, all of them (defaults included), and a name that depends on what is run."""

    key: str
    params: dict
    full: dict


@dataclass
class Entry:
    """A run of the grid, its folder, and how it stands: new, recorded, stale or failed; `ran` in this batch."""

    run: GridRun
    folder: Path
    state: str
    reason: str
    record: dict | None
    ran: bool = False


def look(runs: list[GridRun], out: Path, code: str, recorded: dict[str, dict] | None = None) -> list[Entry]:
    """How each run stands in the folder `out`, for this hash of the code; of what is new there, among the `recorded`.

    `recorded`: the runs of a ledger, by name.
    """
    entries = [Entry(run, out / run.key, *look_up(out / run.key, code)) for run in runs]
    return [_kept(entry, recorded or {}, code) if entry.state == "new" else entry for entry in entries]


def _kept(entry: Entry, recorded: dict[str, dict], code: str) -> Entry:
    """The entry as the ledger has it, if it has this run with this code; else as it is."""
    record = recorded.get(record_name(entry.run.full))
    params = entry.run.full | ({"data_dir": ""} if "data_dir" in entry.run.full else {})  # a record names no folder
    if record and record["code"] == code and record["params"] == params:
        return Entry(entry.run, entry.folder, "recorded", "", record)
    return entry


def name_runs(grid: Grid) -> list[GridRun]:
    """The runs of a grid, their parameters checked as papermill infers them. Raises RunError or GridError."""
    known = known_parameters(grid.notebook)
    given = [_checked(grid, params, known) for params in grid.runs]
    defaults, code = default_parameters(grid.notebook), _outside_code(grid.notebook)
    folder_hash, runs = cache(_folder_hash), {}  # each folder is read once
    for params in given:
        full, data = defaults | params, ""
        if full.get("data_dir"):
            data = folder_hash(grid.path, grid.notebook.parent / full["data_dir"])
        # What differs from the defaults, so that a new parameter leaves the keys as they are; data by its content.
        named = {name: value for name, value in full.items() if value != defaults.get(name) and name != "data_dir"}
        run = GridRun(_hash([grid.notebook.stem, code, named, data])[:16], params, full)
        if run.key in runs:
            raise GridError(f"{grid.path}: two runs are the same, {params} and {runs[run.key].params}")
        runs[run.key] = run
    return list(runs.values())


def _checked(grid: Grid, params: dict, known: dict[str, str]) -> dict:
    """One run's parameters, checked; whole numbers for a float become floats."""
    try:
        check_parameters(grid.notebook, params, known=known)
    except RunError as error:
        raise GridError(f"{grid.path}: {error}") from None
    for name, value in params.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise GridError(f"{grid.path}: {grid.notebook.stem}: {name} is {value}, expected a finite number")
    return {name: float(value) if known[name] == "float" else value for name, value in params.items()}


def _outside_code(notebook: Path) -> str:
    """Of a notebook that is not in notebooks/, a hash of its code: the records' hash of code does not see it."""
    if notebook.parent == repo_root() / "notebooks":
        return ""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return _hash(["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"])


def _folder_hash(path: Path, folder: Path) -> str:
    """sha256 over the names and contents of all files."""
    if not folder.is_dir():
        raise GridError(f"{path}: data_dir is {str(folder)!r}, expected the path of an existing folder")
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{file.relative_to(folder).as_posix()}\0{content}\0".encode())
    return digest.hexdigest()


def _hash(value) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_tables(grid: Grid, out: Path, entries: list[Entry]) -> None:
    """Write `summary.csv` and the page `index.html` over all runs of the grid."""
    numbers = [
        {k: v for k, v in ((e.record or {}).get("metrics") or {}).items() if not isinstance(v, list)} for e in entries
    ]
    names = list(dict.fromkeys(itertools.chain.from_iterable(numbers)))
    table = io.StringIO()
    writer = csv.writer(table)
    params = list(dict.fromkeys(name for e in entries for name in e.run.params))
    writer.writerow(["key", "state", "reason", *params, "seconds", "peak_memory_mb", *names])
    for entry, metrics in zip(entries, numbers, strict=True):
        record = entry.record or {}
        values = [entry.run.params.get(name) for name in params]
        values += [record.get("seconds"), record.get("peak_memory_mb"), *(metrics.get(name) for name in names)]
        writer.writerow([entry.run.key, entry.state, entry.reason, *values])
    write_atomic(out / "summary.csv", table.getvalue().encode())
    rows = [_page_row(grid, out, entry) for entry in entries]
    write_page(out, grid.path.stem, ("Run", *grid.varying), rows)


def _page_row(grid: Grid, out: Path, entry: Entry) -> tuple:
    key, stem = entry.run.key, grid.notebook.stem
    files = [f"{key}/{stem}.html", f"{key}/{stem}.ipynb", f"{key}/metrics.json", f"{key}/stderr.log"]
    if entry.state == "failed":
        files = [f"{key}/failed/{name}" for name in (f"{stem}.failed.html", f"{stem}.failed.ipynb", "stderr.log")]
    values = [html.escape(str(entry.run.params.get(name, ""))) for name in grid.varying]
    cells = result_cells(label(grid, entry), key, entry.record, state=entry.state, reason=entry.reason)
    return f"<strong>{key}</strong><br>{link_files(out, files)}", *values, *cells


def label(grid: Grid, entry: Entry) -> str:
    return " ".join(f"{name}={entry.run.params[name]}" for name in grid.varying if name in entry.run.params)
