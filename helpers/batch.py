"""Run a grid of notebook runs on Dask: `python -m helpers.batch GRID.yaml [--workers N] [--scheduler tcp://…] …`.

Dask hands out the runs, moves them when a worker dies, and shows a dashboard; papermill executes them; files keep what
is done. A run that is recorded with the present code is not run again, so a batch that was stopped goes on when it is
started again. `helpers.grids` reads the grid, `helpers.batch_run` is what a worker does.
"""

import argparse
import contextlib
import importlib.util
import logging
import os
import sys
import time
from collections import Counter
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from helpers.batch_plan import Entry, GridRun, label, look, name_runs, write_tables
from helpers.batch_run import look_up, recover, run_job
from helpers.grids import Grid, GridError, read_grid
from helpers.provenance import repo_root
from helpers.runner import RunError
from helpers.runs.code import code_hash
from helpers.runs.record import keep, read_ledger, record_name

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
QUIET = {
    "distributed.nanny.pre-spawn-environ": {},  # it would change the threads and the malloc of the runs
    # Workers only wait: looking at themselves 50 to 100 times a second would take a tenth of a core from the runs.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
}


def main(arguments=None) -> int:
    """The command line; 0 if the whole grid is recorded, 1 if a run failed or is missing, 2 if the batch is refused."""
    options = _parser().parse_args(arguments)
    out = (options.out or repo_root() / "runs" / options.grid.stem).resolve()
    try:
        grid = read_grid(options.grid)
        runs, code = name_runs(grid), code_hash(grid.notebook.stem)
        if options.record:
            _check_names(grid, runs)
        if options.dry_run:
            _print_plan(grid, look(runs, out, code, _recorded(grid, options)), options.redo)
            return 0
        out.mkdir(parents=True, exist_ok=True)
        with _alone(out):
            return _run_batch(grid, runs, out, code, options)
    except (RunError, GridError) as error:
        print(error, file=sys.stderr)
    except OSError as error:
        print(f"{out}: {error}", file=sys.stderr)
    return 2


def _run_batch(grid: Grid, runs: list[GridRun], out: Path, code: str, options) -> int:
    start, problem = time.monotonic(), ""
    for run in runs:
        recover(out / run.key)
    entries = look(runs, out, code, _recorded(grid, options))
    todo = [entry for entry in entries if entry.state in ("new", *options.redo)]
    write_tables(grid, out, entries)
    try:
        if todo:
            _execute(grid, out, code, entries, todo, options)
        for entry in entries if options.record else ():
            if entry.state == "recorded" and (entry.folder / "metrics.json").exists():
                keep(entry.folder / "metrics.json", options.record)
    except KeyboardInterrupt:
        problem = "interrupted; the same command goes on where this one stopped"
    except OSError as error:
        problem = f"stopped: {error}"
    return _print_summary(grid, out, entries, problem, time.monotonic() - start)


@contextlib.contextmanager
def _alone(out: Path):
    """Hold the folder, so that no second batch writes there; the system lets go of it if this process dies."""
    try:
        with FileLock(out / ".batch.lock", timeout=0):
            yield
    except Timeout:
        raise RunError(f"{out}: another batch is at work in this folder; wait for it or give another --out") from None


def _check_names(grid: Grid, runs: list[GridRun]) -> None:
    """A ledger knows its runs by name: each name may stand for one run only."""
    for name, count in Counter(record_name(run.full) for run in runs).items():
        if count > 1:
            raise RunError(f"{grid.path}: {count} runs would be recorded as {name!r}; name them with the parameter row")


def _execute(grid: Grid, out: Path, code: str, entries: list[Entry], todo: list[Entry], options) -> None:
    """Give the runs to Dask and take down how each ended, as they end."""
    from distributed import Client, as_completed

    with contextlib.ExitStack() as stack:
        gpus = None
        if options.scheduler:
            client = stack.enter_context(_connect(Client, grid, out, code, options.scheduler))
        else:
            gpus = _gpu_ids() if grid.gpus else None
            cluster = stack.enter_context(_local_cluster(min(_workers(grid, gpus, options), len(todo)), gpus))
            client = stack.enter_context(Client(cluster))
        seen = client.dashboard_link if importlib.util.find_spec("bokeh") else "not shown: bokeh is not installed"
        print(f"dashboard  {seen}\noverview   {out / 'index.html'}", flush=True)
        jobs = {}
        for entry in todo:
            resources = {"GPU": 1} if grid.gpus else None
            job = _job(grid, entry, code, gpus)
            jobs[client.submit(run_job, job, pure=False, resources=resources)] = entry
        progress = stack.enter_context(tqdm(total=len(todo), desc=grid.path.stem, unit="run"))
        for future in as_completed(jobs):
            entry = jobs[future]
            entry.ran, (entry.state, entry.reason, entry.record) = True, _outcome(future, entry, code)
            progress.set_postfix(failed=sum(e.state == "failed" for e in entries))
            progress.update()
            with contextlib.suppress(OSError):  # a full disk must not end the runs that are left
                write_tables(grid, out, entries)


def _recorded(grid: Grid, options) -> dict[str, dict]:
    """The runs that the ledger has. Those of a notebook from elsewhere do not tell its code: they do not count."""
    if not options.record:
        return {}
    try:
        ledger = read_ledger(options.record)
    except ValueError as error:
        raise RunError(str(error)) from None
    if ledger["notebook"] != grid.notebook.stem:
        expected = f"expected results/{grid.notebook.stem}.json"
        raise RunError(f"--record {options.record}: a ledger of {ledger['notebook']}, {expected}")
    return ledger["runs"] if grid.notebook.parent == repo_root() / "notebooks" else {}


def _job(grid: Grid, entry: Entry, code: str, gpus: list[str] | None) -> dict:
    environment = {name: str(grid.threads) for name in THREAD_VARIABLES}
    if not grid.gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ""  # else every run of a profile that looks for a GPU takes the first
    job = {"notebook": str(grid.notebook), "code": code, "params": entry.run.params, "folder": str(entry.folder)}
    return job | {"limits": grid.limits, "environment": environment, "gpus": gpus}


def _outcome(future, entry: Entry, code: str) -> tuple[str, str, dict | None]:
    """What became of a run: the files say, unless there is a reason why they cannot."""
    reason = future.result() if future.status == "finished" else ""
    if future.status != "finished":
        reason = str(future.exception() if future.status == "error" else f"the run was {future.status} by Dask")
    state, told, record = look_up(entry.folder, code)
    if reason or state != "recorded":
        return "failed", reason.partition("\n")[0] or told or "the run left no record", record
    return state, "", record


def _gpu_ids() -> list[str]:
    """The GPUs of this machine that the batch may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        import torch

        visible = ",".join(map(str, range(torch.cuda.device_count())))
    ids = [name.strip() for name in visible.split(",") if name.strip()]
    if not ids:
        raise RunError("the grid asks for a GPU (gpus: 1) and this machine shows none")
    return ids


def _workers(grid: Grid, gpus: list[str] | None, options) -> int:
    """How many runs at the same time on this machine. Two that fight for a core may each be many times slower."""
    cores = os.cpu_count() or 1
    most = len(gpus) if gpus else max(1, cores // grid.threads)
    if options.workers and options.workers > most:
        reason = (
            "the number of GPUs"
            if gpus
            else f"for {cores} cores and {grid.threads} threads a run (threads: in the grid)"
        )
        raise RunError(f"--workers is {options.workers}, expected at most {most}, {reason}")
    return options.workers or most


def _local_cluster(workers: int, gpus: list[str] | None):
    """Worker processes on this machine, one run each, reachable from this machine only."""
    import dask
    from distributed import LocalCluster

    dask.config.set(QUIET)
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        memory_limit=0,  # of the worker alone; the runs are processes of their own, with `memory_gb`
        resources={"GPU": 1} if gpus else None,
        silence_logs=logging.CRITICAL,
    )


def _connect(client_class, grid: Grid, out: Path, code: str, address: str):
    """A client of an existing cluster whose workers have this code, see this folder, and do one run at a time."""
    try:
        client = client_class(address, timeout=20)
        client.wait_for_workers(1, timeout=60)
        facts = client.run(_worker_facts, grid.notebook.stem, [str(grid.notebook), str(out / ".batch.lock")])
    except Exception as error:  # whatever a network, a scheduler or a worker without this package says
        raise RunError(f"--scheduler {address}: {type(error).__name__}: {error}") from error
    for worker, (worker_code, missing, threads, resources) in facts.items():
        if worker_code != code:
            problem = f"has other code of {grid.notebook.stem} than the batch; install the same version there"
        elif missing:
            problem = f"does not see {missing}; expected a file system that all machines share"
        elif threads != 1:
            problem = f"has {threads} threads; expected one, so that it does one run at a time (--nthreads 1)"
        elif grid.gpus and not resources.get("GPU"):
            problem = "offers no GPU; expected --resources GPU=1"
        else:
            continue
        client.close()
        raise RunError(f"worker {worker} {problem}")
    return client


def _worker_facts(notebook: str, files: list[str], dask_worker) -> tuple[str, str, int, dict]:
    missing = next((file for file in files if not Path(file).exists()), "")
    return code_hash(notebook), missing, dask_worker.state.nthreads, dask_worker.state.total_resources


def _print_plan(grid: Grid, entries: list[Entry], redo: list[str]) -> None:
    counts = Counter(entry.state for entry in entries)
    print(", ".join(f"{counts[state]} {state}" for state in ("new", "recorded", "stale", "failed")))
    for entry in entries:
        does = "run" if entry.state in ("new", *redo) else "skip"
        print(f"{does:5}{entry.state:9} {entry.run.key}  {label(grid, entry)}  {entry.reason}".rstrip())


def _print_summary(grid: Grid, out: Path, entries: list[Entry], problem: str, seconds: float) -> int:
    """Say how the batch ended; its exit status."""
    counts = Counter("done" if e.ran and e.state == "recorded" else e.state for e in entries)
    words = {"done": "done", "recorded": "recorded before", "stale": "stale", "failed": "failed", "new": "not run"}
    print(f"\n{', '.join(f'{counts[s]} {word}' for s, word in words.items() if counts[s])}, in {seconds:.0f} s")
    for entry in entries:
        if entry.state == "failed":
            print(f"failed  {entry.run.key}  {label(grid, entry)}: {entry.reason}")
    hints = [s for s in ("stale", "failed") if any(e.state == s and not e.ran for e in entries)]
    if hints:
        print(f"not done again: add --redo {' '.join(hints)}")
    if problem:
        print(problem)
    print(f"overview  {out / 'index.html'}")
    return int(bool(problem) or counts["failed"] + counts["new"] > 0)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number above 0")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m helpers.batch", description="Run a grid; what is done stays done.")
    parser.add_argument("grid", type=Path, metavar="GRID.yaml")
    parser.add_argument("--workers", type=_positive, help="runs at the same time (cores / threads, or number of GPUs)")
    parser.add_argument("--scheduler", metavar="tcp://…", help="use the workers of this Dask cluster")
    parser.add_argument("--dry-run", action="store_true", help="print what would be run, and stop")
    parser.add_argument("--out", type=Path, help="folder of the runs (runs/<name of the grid>)")
    parser.add_argument("--record", type=Path, help="ledger of the table: runs are kept there, and not run again")
    parser.add_argument("--redo", nargs="+", default=[], choices=["stale", "failed"], help="run these again")
    return parser


if __name__ == "__main__":
    sys.exit(main())
