"""A notebook of one second that can fail in every way, for the tests of batches."""

import os
import time
from pathlib import Path

import nbformat
import psutil
from nbformat.v4 import new_code_cell, new_notebook

from helpers.runs.record import SCHEMA

RECORD = {key: (kind if isinstance(kind, type) else kind[0])() for key, kind in SCHEMA.items()}
PARAMETERS = """profile: str = "teach"  # how long
seed: int = 0  # of every generator
noise: float = 0.5  # of the images
fault: str = "none"  # raise, die, slow, memory, wait
data_dir: str = ""  # a folder
row: str = ""  # its name"""
START = """import json, os, pathlib, signal, sys, time
from helpers.provenance import write_atomic
from helpers.runs.code import code_hash

folder = pathlib.Path(os.environ["RUN_DIR"])
print("started", file=sys.__stderr__, flush=True)
with open({trace!r}, "a") as trace:
    print("start", seed, fault, os.getpid(), os.environ["CUDA_VISIBLE_DEVICES"] or "-", file=trace)"""
FAULT = """if fault == "raise":
    raise ValueError("no such luck\\nand more")
if fault == "die":
    os.kill(os.getpid(), signal.SIGKILL)
if fault == "memory":
    hog = bytearray(2**30)
    hog[::4096] = bytes([1]) * len(hog[::4096])
while fault in ("slow", "memory") or (fault == "wait" and not pathlib.Path({trace!r}).with_name("go").exists()):
    time.sleep(0.05)"""
SAVE = """(folder / "figure.png").write_bytes(b"figure")
params = dict(profile=profile, seed=seed, noise=noise, fault=fault, data_dir="", row=row)
record = {record!r} | dict(notebook="05_tiny", row=row, params=params, figure="figure.png", code=code_hash("05_tiny"))
record |= dict(metrics=dict(auc=0.5 + seed / 10, dice=[0.5, 0.6, None]), checkpoint=None)
write_atomic(folder / "metrics.json", json.dumps(record).encode())
with open({trace!r}, "a") as trace:
    print("end", seed, fault, file=trace)"""


def write_tiny(folder: Path) -> Path:
    """Write `05_tiny.ipynb`; its runs tell in the file `trace` beside it when they start and end."""
    places, path = {"trace": str(folder / "trace"), "record": RECORD}, folder / "05_tiny.ipynb"
    sources = (START.format(**places), FAULT.format(**places), SAVE.format(**places))
    cells = [new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}), *map(new_code_cell, sources)]
    book = new_notebook(cells=cells)
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, path)
    return path


def write_grid(folder: Path, text: str, *, name: str = "tiny") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(f"notebook: 05_tiny.ipynb\n{text}\n")
    return path


def trace(folder: Path) -> list[list[str]]:
    """The lines that the runs left, in words."""
    path = folder / "trace"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def until(condition, *, seconds: float = 60):
    """Wait until `condition()` is true, and return what it is."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "nothing came of it"
        time.sleep(0.05)
    return value


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
