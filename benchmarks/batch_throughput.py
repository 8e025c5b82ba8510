"""Batches against bare papermill: throughput of two workers, overhead per run, and how fast recorded runs are skipped.

The notebook computes for a fixed number of steps, about `--seconds` on one core. Bare: two processes at a time, each
`python -m papermill`, as fast as they end. Batch: the whole command `python -m helpers.batch --workers 2`, start-up of
Dask, HTML pages and tables included. Both in one run, alternating. The CPU time of both is told as well: other work on
the machine changes it less than the time on the clock.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat

from helpers.batch_plan import name_runs
from helpers.grids import read_grid
from helpers.runs.code import code_hash
from helpers.runs.record import SCHEMA

RECORD = {key: (kind if isinstance(kind, type) else kind[0])() for key, kind in SCHEMA.items()}
WORK = "total = 0\nfor step in range({steps}):\n    total += step * step % 7"
SAVE = """import json, os, pathlib
from helpers.runs.code import code_hash
record = {record!r} | dict(code=code_hash("bench"), params=dict(seed=seed))
pathlib.Path(os.environ["RUN_DIR"], "metrics.json").write_text(json.dumps(record))"""
LIMITS = {"throughput": 0.9, "overhead": 6, "skip": 5}


def steps_for(seconds: float) -> int:
    start = time.perf_counter()
    exec(WORK.format(steps=2_000_000))
    return int(2_000_000 * seconds / (time.perf_counter() - start))


def write_notebook(folder: Path, seconds: float) -> Path:
    v4, path = nbformat.v4, folder / "bench.ipynb"
    sources = (WORK.format(steps=steps_for(seconds)), SAVE.format(record=RECORD))
    cells = [v4.new_code_cell("seed: int = 0", metadata={"tags": ["parameters"]}), *map(v4.new_code_cell, sources)]
    book = v4.new_notebook(cells=cells)
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, path)
    return path


def write_grid(folder: Path, runs: int) -> Path:
    path = folder / "bench.yaml"
    path.write_text(f"notebook: bench.ipynb\nthreads: 1\nproduct: {{seed: {list(range(runs))}}}\n")
    return path


def run(*command, run_dir: Path | None = None) -> float:
    """Seconds that a command takes."""
    start, environment = time.perf_counter(), os.environ | ({"RUN_DIR": str(run_dir)} if run_dir else {})
    subprocess.run([sys.executable, "-m", *map(str, command)], check=True, capture_output=True, env=environment)
    return time.perf_counter() - start


def cpu_seconds() -> float:
    """CPU time of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def bare(notebook: Path, folder: Path, runs: int) -> float:
    """Seconds of `runs` papermill processes, two at a time."""
    commands = [("papermill", notebook, folder / f"{seed}.ipynb", "-p", "seed", seed) for seed in range(runs)]
    start = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda command: run(*command, run_dir=folder), commands))
    return time.perf_counter() - start


def cell_seconds(out: Path) -> float:
    """What the cells of all executed notebooks took, by papermill's account."""
    books = [nbformat.read(path, as_version=4) for path in out.glob("*/bench.ipynb")]
    return sum(cell.metadata.papermill.duration or 0 for book in books for cell in book.cells)


def skip(folder: Path, runs: int) -> float:
    """Seconds of the whole command over runs that are all recorded."""
    grid, out, code = write_grid(folder, runs), folder / "skipped", code_hash("bench")
    for named in name_runs(read_grid(grid)):
        (out / named.key).mkdir(parents=True)
        record = RECORD | {"code": code, "params": named.full, "checkpoint": None, "figure": None}
        (out / named.key / "metrics.json").write_text(json.dumps(record))
    return run("helpers.batch", grid, "--out", out)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30, help="about how long a notebook computes (a chapter: 90)")
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    ratios, cpu_ratios, overheads = [], [], []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        notebook = write_notebook(folder, options.seconds)
        grid = write_grid(folder, options.runs)
        for turn in range(options.rounds):
            out = folder / f"batch{turn}"
            seconds, cpu = {}, {}
            for name in (("bare", "batch"), ("batch", "bare"))[turn % 2]:
                before = cpu_seconds()
                command = ("helpers.batch", grid, "--out", out, "--workers", 2)
                seconds[name] = run(*command) if name == "batch" else bare(notebook, folder, options.runs)
                cpu[name] = cpu_seconds() - before
            ratios.append(seconds["bare"] / seconds["batch"])
            cpu_ratios.append(cpu["bare"] / cpu["batch"])
            overheads.append((2 * seconds["batch"] - cell_seconds(out)) / options.runs)
            print(f"round {turn + 1}: bare {seconds['bare']:.1f} s, batch {seconds['batch']:.1f} s", flush=True)
        results = {
            "throughput": statistics.median(ratios),
            "overhead": statistics.median(overheads),
            "skip": skip(folder, 1000),
        }
    print(f"the same by CPU time {statistics.median(cpu_ratios):.2f}")
    words = {
        "throughput": "throughput of 2 workers / 2 bare papermill processes {:.2f} (at least {})",
        "overhead": "seconds per run beyond its cells, all start-up included {:.1f} (at most {})",
        "skip": "seconds to skip 1,000 recorded runs {:.1f} (at most {})",
    }
    for name, value in results.items():
        print(words[name].format(value, LIMITS[name]))
    held = results["throughput"] >= 0.9 and all(results[name] <= LIMITS[name] for name in ("overhead", "skip"))
    return int(not held)


if __name__ == "__main__":
    sys.exit(main())
