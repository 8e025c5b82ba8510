"""A process with a limit on time and memory, that ends with all it started, and with who started it."""

import contextlib
import os
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import psutil

PARENT_POLL, MEMORY_POLL = 0.2, 0.5  # seconds between two looks


def run_process(command, *, environment, log=None, timeout, memory_gb=None) -> tuple[tuple[str, str] | None, str]:
    """Run a command: why it had to be ended (name and text of an error, or None), and what it died of (or "").

    `timeout` in seconds; `memory_gb` limits what it and all it started hold together. `log`: a file for stdout and
    stderr; without one, stdout is this process's, and only the last line of stderr is told, for a bad end.
    """
    with Path(log).open("w+b") if log else tempfile.TemporaryFile() as file:
        child = subprocess.Popen(command, env=environment, stdout=file if log else None, stderr=file)
        try:
            ended = _wait(child, timeout=timeout, memory_gb=memory_gb)
        finally:
            _end_tree(child)
        file.seek(0)
        last = (file.read().decode(errors="replace").strip().splitlines() or [""])[-1]
    status = child.returncode
    return ended, f"the process ended with status {status} {last}".strip() if status and not ended else ""


def _wait(child: subprocess.Popen, *, timeout: float, memory_gb: float | None) -> tuple[str, str] | None:
    """Wait for a process; the name and text of the error if it takes too long or its family too much memory."""
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        try:
            child.wait(left if memory_gb is None else min(left, MEMORY_POLL))
            return None
        except subprocess.TimeoutExpired:
            if memory_gb is not None and (held := _resident_gb(child.pid)) > memory_gb:
                return "RunMemory", f"the run was ended: it held {held:.2f} GB of memory, the limit is {memory_gb:g} GB"
    return "RunTimeout", f"the run was ended after {timeout:g} s"


def _resident_gb(pid: int) -> float:
    """Resident memory of a process and all it started; pages that they share count for each."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for member in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += member.memory_info().rss
    return total / 1e9


def _end_tree(process: subprocess.Popen) -> None:
    """End a process and all it started: kernels lead process groups of their own, so a group is not enough."""
    if process.poll() is not None:
        return
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(family, timeout=10)
    process.wait()


def end_with(parent: int) -> None:
    """End this process and all it started once the process `parent` is gone: a killed worker leaves no kernel behind.

    Returns at once; a thread looks. (On Linux a parent-death signal would miss what this process started.)
    """
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent and psutil.pid_exists(parent):  # Windows keeps the number of a parent that is gone
        time.sleep(PARENT_POLL)
    for member in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    os._exit(1)
