"""`python -m helpers.runs GRID.yaml` runs a grid on Dask, `python -m helpers.runs NOTEBOOK…` notebooks one by one.

Dask hands out the runs, gives them to another worker when one dies, and shows a dashboard; papermill executes them;
files keep what is done. A run that is recorded with the present code is not run again, so a batch that was stopped
goes on when it is started again.
"""

import argparse
import contextlib
import hashlib
import json
import logging
import os
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

from helpers.runs.code import code_hash, repo_root, root_of
from helpers.runs.grid import RunError, check_parameters, default_parameters, read_grid
from helpers.runs.notebook import run_notebook
from helpers.runs.overview import write_tables
from helpers.runs.record import keep, read_ledger, read_record, record_name

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
QUIET = {
    "distributed.nanny.pre-spawn-environ": {},  # it would change the threads and the malloc of the runs
    # Workers only wait: looking at themselves 50 to 100 times a second would take a tenth of a core from the runs.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
}


@dataclass
class Entry:
    """A run: what is executed and how, its folder, its code; and how it stands: new, recorded, stale or failed."""

    notebook: Path
    given: dict  # parameters
    params: dict  # all of them
    code: str  # its hash; "": any counts
    folder: Path
    limits: dict
    environment: dict
    state: str = "new"
    reason: str = ""
    record: dict | None = None
    ran: bool = False

    def __str__(self) -> str:
        return " ".join([self.folder.name, *(f"{name}={value}" for name, value in self.given.items())])

    def look(self) -> None:
        """Take the state from the files; a failure of other code says nothing."""
        failure, self.record, self.reason = {}, None, ""
        with contextlib.suppress(OSError, ValueError):
            self.record = read_record(self.folder / "metrics.json")
        with contextlib.suppress(OSError, ValueError):
            failure = json.loads((self.folder / "failed" / "failure.json").read_text(encoding="utf-8"))
        if self.record and self.record["code"] == (self.code or self.record["code"]):
            self.state = "recorded"
        elif failure.get("code") == self.code:
            self.state, self.reason = "failed", failure["reason"]
        else:
            self.state = "stale" if self.record else "new"


def main(arguments=None) -> int:
    """The command line; 0 if all is recorded, 1 if a run failed or is missing, 2 if it was refused."""
    options = _parser().parse_args(arguments)
    single = options.paths[0].suffix == ".ipynb"
    out = (options.out or repo_root() / "runs" / ("book" if single else options.paths[0].stem)).resolve()
    try:
        grid = None if single else read_grid(options.paths[0])
        entries = _plan_notebooks(options, out) if single else plan(grid, out, options.record)
        todo = [entry for entry in entries if single or entry.state in ("new", *options.redo)]
        if options.dry_run:
            return _tell(entries, todo)
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / ".batch.lock", timeout=0):  # the system lets go of it if this process dies
            return _run(grid, entries, todo, out, options)
    except Timeout:
        print(f"{out}: another batch is at work in this folder; wait for it or give another --out", file=sys.stderr)
    except (RunError, OSError) as error:
        print(error, file=sys.stderr)
    return 2


def plan(grid, out: Path, ledger=None) -> list[Entry]:
    """The runs of a grid, checked, and how each stands in the folder `out`, or else in a ledger. Raises RunError.

    A folder is named after its record, the parameters, the content of the data, and the code of a notebook from
    elsewhere, which the hash of a record's code does not see.
    """
    defaults, codes, content = default_parameters(grid.notebook), cache(code_hash), cache(_content)
    ours = grid.notebook.parent in (repo_root() / "notebooks", repo_root() / "experiments")
    elsewhere = "" if ours else grid.notebook.read_text(encoding="utf-8")
    recorded = _runs_in(ledger, grid, defaults) if ledger else {}
    limits = {name: getattr(grid, name) for name in ("cell_timeout", "timeout", "memory_gb")}
    # Without a GPU of its own a run sees none: else every run of a profile that looks for one takes the first.
    environment = dict.fromkeys(THREADS, str(grid.threads)) | ({} if grid.gpus else {"CUDA_VISIBLE_DEVICES": ""})
    entries = {}
    for given in grid.runs:
        try:
            given = check_parameters(grid.notebook, given, defaults)
            data = content(grid.notebook.parent / given["data_dir"]) if given.get("data_dir") else ""
        except RunError as error:
            raise RunError(f"{grid.path}: {error}") from None
        params = defaults | given
        # What differs from the defaults, so that a new parameter leaves the names as they are; data by its content.
        differs = {name: value for name, value in given.items() if value != defaults[name] and name != "data_dir"}
        digest = hashlib.sha256(json.dumps([differs, data, elsewhere], sort_keys=True).encode()).hexdigest()
        folder = out / f"{re.sub(r'[^-.a-zA-Z0-9]', '_', record_name(params))}-{digest[:8]}"
        if folder in entries:
            raise RunError(f"{grid.path}: two runs are the same, {given} and {entries[folder].given}")
        code = codes(grid.table, root_of(grid.table, params.get("row", "")))
        entry = entries[folder] = Entry(grid.notebook, given, params, code, folder, limits, environment)
        entry.look()
        record = recorded.get(record_name(params)) if ours and entry.state == "new" else None
        if (
            record and record["code"] == code and defaults | record["params"] == params | {"data_dir": ""}
        ):  # it names no folder
            entry.state, entry.record = "recorded", record
    return list(entries.values())


def _content(folder: Path) -> str:
    """sha256 over the names and contents of all files."""
    if not folder.is_dir():
        raise RunError(f"data_dir is {str(folder)!r}, expected the path of an existing folder")
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(folder).as_posix()}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _runs_in(ledger: Path, grid, defaults: dict) -> dict[str, dict]:
    """The runs that a ledger has, which knows them by name. Raises RunError if it is not the grid's."""
    content = read_ledger(ledger)
    if content["notebook"] != grid.table:
        raise RunError(f"--record {ledger}: a ledger of {content['notebook']}, expected results/{grid.table}.json")
    [(name, count)] = Counter(record_name(defaults | given) for given in grid.runs).most_common(1)
    if count > 1:
        raise RunError(f"{grid.path}: {count} runs would be recorded as {name!r}; name them with the parameter row")
    return content["runs"]


def _plan_notebooks(options, out: Path) -> list[Entry]:
    """The runs of single notebooks with the parameters of the command line, each in a folder of its name."""
    entries, limits = [], {"cell_timeout": options.cell_timeout, "timeout": options.timeout}
    for notebook in options.paths:
        defaults, given = default_parameters(notebook), dict(options.parameter)
        for name, text in given.items():
            kind = type(defaults.get(name, ""))
            with contextlib.suppress(ValueError, KeyError):  # what is no value of this type is refused below
                given[name] = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
        given = check_parameters(notebook, given, defaults)
        entries.append(Entry(notebook, given, defaults | given, "", out / notebook.stem, limits, {}))
        entries[-1].look()
    return entries


def _run(grid, entries: list[Entry], todo: list[Entry], out: Path, options) -> int:
    start, problem, title = time.monotonic(), "", grid.path.stem if grid else "Executed notebooks"
    ended = _on_dask(grid, todo, options) if grid and todo else ((entry, run_job(entry)) for entry in todo)
    write_tables(out, title, entries)
    try:
        for number, (entry, error) in enumerate(ended, start=1):
            entry.look()
            entry.ran = True
            if error:
                entry.state, entry.reason = "failed", error.partition("\n")[0]
            print(f"{number}/{len(todo)}  {entry.folder.name}  {entry.state}", flush=True)
            with contextlib.suppress(OSError):  # a full disk must not end the runs that are left
                write_tables(out, title, entries)
        for entry in entries if options.record else ():
            if entry.state == "recorded" and (entry.folder / "metrics.json").exists():
                keep(entry.folder / "metrics.json", options.record)
    except KeyboardInterrupt:
        problem = "interrupted; the same command goes on where this one stopped"
    except OSError as error:
        problem = f"stopped: {error}"
    print(f"\nin {time.monotonic() - start:.0f} s: ", end="")
    _tell(entries)
    print(f"overview  {out / 'index.html'}\n{problem}".rstrip())
    return int(bool(problem) or any(entry.state in ("failed", "new") for entry in entries))


def _tell(entries: list[Entry], todo=()) -> int:
    """Say how many runs stand how, which are to be done, and what has failed."""
    counts = Counter("done" if entry.ran and entry.state == "recorded" else entry.state for entry in entries)
    print(", ".join(f"{count} {state}" for state, count in counts.items()))
    for entry in todo:
        print(f"{entry.state:8}{entry}")
    for entry in entries:
        if entry.state == "failed":
            print(f"failed  {entry}: {entry.reason}", file=sys.stderr)
    if left := {entry.state for entry in entries if not entry.ran} & {"stale", "failed"}:
        print(f"not done again: add --redo {' '.join(sorted(left))}")
    return 0


def run_job(entry: Entry, gpus=()) -> str:
    """Run an entry, unless it was recorded meanwhile; why it failed, or ""."""
    before, environment = entry.state, dict(entry.environment)
    if gpus:
        from distributed import get_worker

        environment["CUDA_VISIBLE_DEVICES"] = gpus[get_worker().name]
    try:
        # A worker that was given up for lost, or whose batch is gone, may still be at it.
        with FileLock(entry.folder.with_name(f".{entry.folder.name}.lock")):
            entry.look()
            if entry.state != "recorded" or before == "recorded":
                run_notebook(entry.notebook, entry.folder, entry.given, environment=environment, **entry.limits)
    except (OSError, RunError) as error:  # the disk is full, or gone: nothing is kept, the next batch tries again
        return str(error)
    return ""


def _on_dask(grid, todo: list[Entry], options):
    """Give the runs to Dask: each as it ends, with the reason why it failed, or ""."""
    from distributed import Client, as_completed

    with contextlib.ExitStack() as stack:
        workers, gpus = (0, ()) if options.scheduler else _places(grid, options.workers)
        where = options.scheduler or stack.enter_context(_local_cluster(min(workers, len(todo)), gpus))
        rows = {(grid.table, entry.params.get("row", "")): entry.code for entry in todo}
        try:
            client = stack.enter_context(Client(where, timeout=20))
            client.wait_for_workers(1, timeout=60)
            found = {row: client.run(code_hash, *row) for row in rows}
        except Exception as error:  # whatever a network, a scheduler or a worker without this package says
            raise RunError(f"--scheduler {where}: {type(error).__name__}: {error}") from error
        if others := {name for row, there in found.items() for name, code in there.items() if code != rows[row]}:
            raise RunError(f"worker {min(others)} has other code of {grid.table} than the batch; install the same")
        share = {"resources": {"GPU": 1}} if grid.gpus else {}
        jobs = {client.submit(run_job, entry, gpus, pure=False, **share): entry for entry in todo}
        for job in as_completed(jobs):
            yield jobs[job], job.result() if job.status == "finished" else f"{job.status} in Dask: {job.exception()}"
        with contextlib.suppress(OSError):  # all is done; on a loaded machine Dask may time out over its own end
            stack.close()


def _places(grid, asked: int | None) -> tuple[int, list[str]]:
    """How many runs work at a time on this machine, and its GPUs. Two that fight for a core may be many times slower.

    Raises RunError if as many workers as `asked` are too many, or there is no GPU where one is needed.
    """
    visible, cores, gpus = os.environ.get("CUDA_VISIBLE_DEVICES"), os.cpu_count() or 1, []
    if grid.gpus:
        import torch

        every = ",".join(map(str, range(torch.cuda.device_count())))
        gpus = [name.strip() for name in (every if visible is None else visible).split(",") if name.strip()]
    most = len(gpus) if grid.gpus else max(1, cores // grid.threads)
    if not 0 < (most if asked is None else asked) <= most:
        why = f"GPUs: {', '.join(gpus) or 'none'}" if grid.gpus else f"{cores} cores, {grid.threads} threads a run"
        raise RunError(f"--workers asks for {asked or 1}, this machine has room for {most} ({why})")
    return asked or most, gpus


def _local_cluster(workers: int, gpus: list[str]):
    """Worker processes on this machine, one run each, reachable from this machine only."""
    import dask
    from distributed import LocalCluster

    dask.config.set(QUIET)
    options = {"threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    options |= {"resources": {"GPU": 1} if gpus else None, "silence_logs": logging.CRITICAL}
    return LocalCluster(n_workers=workers, memory_limit=0, **options)  # the runs' memory is limited by `memory_gb`


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m helpers.runs", description="Run a grid, or notebooks.")
    parser.add_argument("paths", nargs="+", type=Path, metavar="GRID.yaml | NOTEBOOK.ipynb")
    parser.add_argument("--out", type=Path, help="folder of the runs (runs/<name of the grid>, runs/book)")
    parser.add_argument("--workers", type=int, help="of a grid: runs at the same time (cores / threads, or GPUs)")
    parser.add_argument("--scheduler", metavar="tcp://…", help="of a grid: use the workers of this Dask cluster")
    parser.add_argument("--dry-run", action="store_true", help="print what would be run, and stop")
    parser.add_argument("--record", type=Path, help="of a grid: the ledger that keeps its runs and knows older ones")
    parser.add_argument("--redo", nargs="+", default=[], choices=["stale", "failed"], help="of a grid: run these again")
    parser.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    parser.add_argument("--cell-timeout", type=float, default=600, help="of notebooks: seconds for one cell (600)")
    parser.add_argument("--timeout", type=float, default=3600, help="of notebooks: seconds for one notebook (3600)")
    return parser
