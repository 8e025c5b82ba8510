"""One run of a batch, as a Dask worker does it: locked, in a folder of its own that appears whole or not at all.

OUT/<key>/                 the notebook, its page, metrics.json and what it names, stderr.log
OUT/<key>/failed/          the last attempt, if it failed: notebook with traceback, stderr.log, failure.json
OUT/.<key>.running/        at work; OUT/.<key>.old/ for the moment in which a new folder takes an old one's place
"""

import contextlib
import json
import os
import shutil
import time
from pathlib import Path

from filelock import FileLock

from helpers.provenance import write_atomic
from helpers.runner import RunError, run_notebook
from helpers.runs import read_record
from helpers.runs.code import code_hash


def run_job(job: dict) -> str:
    """Run a notebook unless it is recorded with this code already; why it failed, or "".

    `job`: notebook, code (its hash), params, folder, limits (of `run_notebook`), environment, and gpus (ids by the
    worker's name, for workers that this machine's batch started) or None.
    """
    folder, notebook = Path(job["folder"]), Path(job["notebook"])
    if (here := code_hash(notebook.stem)) != job["code"]:
        return f"this worker has other code of {notebook.stem} ({here[:8]}) than the batch ({job['code'][:8]})"
    environment = dict(job["environment"])
    if job["gpus"]:
        from distributed import get_worker

        environment["CUDA_VISIBLE_DEVICES"] = job["gpus"][get_worker().name]
    try:
        locks = folder.parent / ".locks"
        locks.mkdir(exist_ok=True)
        with FileLock(locks / folder.name):  # a worker that was given up for lost may still be at it
            recover(folder)
            if look_up(folder, job["code"])[0] == "recorded":
                return ""
            return _run(notebook, folder, job, environment)
    except OSError as error:  # the disk is full, or gone: nothing is kept, the next batch tries again
        return str(error)


def look_up(folder: Path, code: str) -> tuple[str, str, dict | None]:
    """State of a run (recorded, failed, stale or new, for this hash of the code), why it failed, its record."""
    record, failure = None, {}
    with contextlib.suppress(OSError, ValueError):
        record = read_record(folder / "metrics.json")
    if record and record["code"] == code:
        return "recorded", "", record
    with contextlib.suppress(OSError, ValueError):
        failure = json.loads((folder / "failed" / "failure.json").read_text(encoding="utf-8"))
    if failure.get("code") == code:  # a failure of other code says nothing
        return "failed", failure["reason"], record
    return ("stale" if record else "new"), "", record


def recover(folder: Path) -> None:
    """Bring back the old folder if the process died just between taking it away and putting the new one there."""
    old = folder.with_name(f".{folder.name}.old")
    if old.exists() and not folder.exists():
        old.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _run(notebook: Path, folder: Path, job: dict, environment: dict) -> str:
    for left in folder.parent.glob(f".{folder.name}.*.running"):
        shutil.rmtree(left, ignore_errors=True)
    # A name of its own: what a killed worker left may write for another moment.
    staging = folder.with_name(f".{folder.name}.{os.getpid()}-{time.time_ns()}.running")
    staging.mkdir()
    log, whole = staging / "stderr.log", staging / notebook.stem
    try:
        run_notebook(notebook, staging, job["params"], log=log, environment=environment, **job["limits"])
        for file in (log, *staging.glob(f"{notebook.stem}.*")):
            file.rename(whole / file.name)
        _put(whole, folder)
        return ""
    except RunError as error:  # the run's own fault: it stays, and is told until it is redone
        reason = getattr(error, "reason", str(error))
        shutil.rmtree(whole, ignore_errors=True)
        write_atomic(staging / "failure.json", json.dumps({"code": job["code"], "reason": reason}).encode())
        folder.mkdir(exist_ok=True)
        _put(staging, folder / "failed")
        return reason
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _put(new: Path, folder: Path) -> None:
    """Give a whole folder its name; the one that had it stays until then."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
