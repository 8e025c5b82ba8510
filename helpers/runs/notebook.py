"""One notebook, executed by papermill in a process of its own, which ends in time and with everything it started.

papermill runs a notebook with its defaults when a parameter is misspelt, has no limit on the whole run, and leaves a
partial file behind. Here a wrong parameter is refused before a kernel starts, and success means: every cell ran and
the notebook left a record.
"""

import contextlib
import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path

import psutil

from helpers.runs.code import code_hash
from helpers.runs.grid import RunError, check_parameters
from helpers.runs.record import read_record, write_atomic

START_ATTEMPTS = 3  # a kernel fails to start now and then on a loaded machine
POLL = 0.25  # seconds between two looks at a process


def run_notebook(
    notebook, folder, parameters=None, *, cell_timeout=600.0, timeout=3600.0, memory_gb=None, environment=None
) -> Path:
    """Execute a notebook; return the path of its record, `<folder>/metrics.json`.

    The folder appears whole, in place of an older one: the executed notebook, its page, the record and what the run
    kept, `stderr.log`. A run that failed lies in `<folder>/failed`, with its traceback and `failure.json`; an older
    record stays. Times in seconds, for a cell and for the run; `memory_gb` limits what the process, its kernel and
    their children hold together (resident, in 10⁹ bytes). `environment`: variables to set. Raises RunError.
    """
    notebook, folder = Path(notebook).resolve(), Path(folder).resolve()
    parameters = check_parameters(notebook, parameters or {})
    for left in folder.parent.glob(f".{folder.name}.*.running"):
        shutil.rmtree(left, ignore_errors=True)
    # A name of its own: what a killed process left may write for another moment.
    work = folder.with_name(f".{folder.name}.{os.getpid()}-{time.time_ns()}.running")
    work.mkdir(parents=True)
    try:
        job = [str(notebook), shutil.copy(notebook, work), parameters, cell_timeout, os.getpid()]
        reason = _run_in(work, job, environment or {}, timeout, memory_gb)
        target = folder / "failed" if reason else folder
        target.parent.mkdir(exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if reason:
        raise RunError(reason)
    return folder / "metrics.json"


def _run_in(work: Path, job: list, environment: dict, timeout: float, memory_gb: float | None) -> str:
    """Execute a notebook into a folder; why it failed, or ""."""
    # Waiting threads sleep: spinning ones make two runs on two cores ten times slower.
    environment = {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ | environment | {"RUN_DIR": str(work)}
    environment.pop("JPY_SESSION_NAME", None)  # no live front end
    command = [sys.executable, "-m", "helpers.runs.notebook", json.dumps(job)]
    executed, parameters = Path(job[1]), job[2]
    reason = told(executed, _supervise(command, environment, work / "stderr.log", timeout, memory_gb))
    try:
        read_record(work / "metrics.json")
    except ValueError as error:
        reason = reason or told(executed, f"RunError: the notebook left no record ({error})")
    if reason:
        (work / "metrics.json").unlink(missing_ok=True)
        code = code_hash(parameters.get("table") or executed.stem, parameters.get("row", ""))
        write_atomic(work / "failure.json", json.dumps({"code": code, "reason": reason}).encode())
    from nbconvert import HTMLExporter  # here, because the process that executes needs none

    write_atomic(executed.with_suffix(".html"), HTMLExporter().from_filename(str(executed))[0].encode())
    return reason


def told(path: Path, error: str = "") -> str:
    """Where and why an executed notebook failed, or "". An error ("Name: text") without a cell gets one first."""
    import nbformat

    book = nbformat.read(path, as_version=4)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    if error:
        if not cells:
            book.cells += (cells := [nbformat.v4.new_code_cell()])
        begun = sum(bool(cell.metadata.get("papermill", {}).get("start_time")) for cell in cells)
        name, _, text = error.partition(": ")
        output = nbformat.v4.new_output("error", ename=name, evalue=text, traceback=[error])
        cells[max(begun - 1, 0)].outputs.insert(0, output)
        write_atomic(path, nbformat.writes(book).encode())
    for number, cell in enumerate(cells, start=1):
        for output in cell.outputs:
            if output.output_type == "error":
                return f"code cell {number}, {output.ename}: {(output.evalue.strip().splitlines() or [''])[0]}"
    return ""


def _supervise(command, environment, log: Path, timeout: float, memory_gb: float | None) -> str:
    """Run a command, its stderr in `log`, and end it with all it started; "Name: text" of an error, or ""."""
    deadline = time.monotonic() + timeout
    with log.open("wb") as file:
        child = psutil.Popen(command, env=environment, stderr=file)
    try:
        while child.poll() is None:
            if time.monotonic() > deadline:
                return f"RunTimeout: the run was ended after {timeout:g} s"
            with contextlib.suppress(psutil.NoSuchProcess):  # one ended during the look: the next look tells
                family = [*child.children(recursive=True), child] if memory_gb else []
                if (held := sum(process.memory_info().rss for process in family) / 1e9) > (memory_gb or 0):
                    return (
                        f"RunMemory: the run was ended: it held {held:.2f} GB of memory, the limit is {memory_gb:g} GB"
                    )
            with contextlib.suppress(psutil.TimeoutExpired):
                child.wait(POLL)
    finally:
        _end(child)
    last = (log.read_text(errors="replace").strip().splitlines() or [""])[-1]
    return f"RunError: the process ended with status {child.poll()} {last}".strip() if child.poll() else ""


def _end(process: psutil.Process) -> None:
    """End a process and all it started: kernels lead process groups of their own, so a group is not enough."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for member in (family := [*process.children(recursive=True), process]):
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(family, timeout=10)


def _end_with(parent: int) -> None:
    """End this process and all it started once its parent is gone: a killed worker leaves no kernel behind."""
    while os.getppid() == parent and psutil.pid_exists(parent):  # Windows keeps the number of a parent that is gone
        time.sleep(POLL)
    _end(psutil.Process())


def _execute(notebook: str, target: str, parameters: dict, cell_timeout: float) -> None:
    """Execute with papermill, a line per cell; only a failing start-up is repeated. Errors end up in `target`."""
    import papermill

    begun = []

    def begin(cell, cell_index):
        begun.append(cell_index)
        print(f"{time.strftime('%H:%M:%S')}  {Path(notebook).stem}  cell {len(begun)}", flush=True)

    options = {"kernel_name": "python3", "cwd": str(Path(notebook).parent), "progress_bar": False}
    options |= {"execution_timeout": cell_timeout, "coalesce_streams": True, "on_cell_execute": begin}
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            papermill.execute_notebook(notebook, target, parameters, **options)
        except papermill.PapermillExecutionError:  # its traceback is in the cell
            return
        except Exception as error:
            if begun or attempt == START_ATTEMPTS:
                told(Path(target), f"{type(error).__name__}: {error}")
                return
        else:
            return


if __name__ == "__main__":
    *job, parent = json.loads(sys.argv[1])
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _execute(*job)
