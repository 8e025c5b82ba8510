"""One run of a batch, as a Dask worker does it: locked, in a folder of its own that appears whole or not at all.

OUT/<key>/                 the notebook, its page, metrics.json and what it names, stderr.log
OUT/<key>/failed/          the last attempt, if it failed: notebook with traceback, stderr.log, failure.json
OUT/.<key>.running/        at work; OUT/.<key>.old/ for the moment in which a new folder takes an old one's place
"""

import contextlib
import json
import shutil
from pathlib import Path

from filelock import FileLock

from helpers.provenance import code_hash, write_atomic
from helpers.runner import RunError, run_notebook
from helpers.runs import read_record


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
    except OSError as error:  # the disk is full, or gone
        return _sentence(error)


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
    staging = folder.with_name(f".{folder.name}.running")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        log, reason = staging / "stderr.log", ""
        try:
            run_notebook(notebook, staging, job["params"], log=log, environment=environment, **job["limits"])
        except (RunError, OSError) as error:
            reason = _sentence(error)
        if not reason:
            whole = staging / notebook.stem
            for file in (log, *staging.glob(f"{notebook.stem}.*")):
                file.rename(whole / file.name)
            _put(whole, folder)
        else:
            shutil.rmtree(staging / notebook.stem, ignore_errors=True)
            write_atomic(staging / "failure.json", json.dumps({"code": job["code"], "reason": reason}).encode())
            folder.mkdir(exist_ok=True)
            _put(staging, folder / "failed")
    except OSError as error:  # not even the failure can be written: the next batch tries again
        reason = reason or _sentence(error)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return reason


def _put(new: Path, folder: Path) -> None:
    """Give a whole folder its name; the one that had it stays until then."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _sentence(error: Exception) -> str:
    return getattr(error, "reason", None) or str(error).partition("\n")[0] or type(error).__name__
