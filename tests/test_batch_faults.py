"""Batches on Dask with everything going wrong for real: processes are killed, kernels die, files are refused."""

import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from tiny_notebook import ENVIRONMENT, RECORD, alive, trace, until, write_grid, write_tiny

from helpers import batch
from helpers.batch import main
from helpers.batch_run import look_up, run_job
from helpers.grids import read_grid
from helpers.runs.code import code_hash
from helpers.runs.record import read_ledger


def job(folder: Path, grid: Path, **changes) -> dict:
    """The job of a grid's first run."""
    grid, code = read_grid(grid), code_hash("05_tiny")
    [entry, *_] = batch.look(batch.name_runs(grid), folder / "out", code)
    (folder / "out").mkdir(exist_ok=True)
    return batch._job(grid, entry, code, None) | changes


def records(out: Path) -> dict[tuple, dict]:
    found = [json.loads(path.read_text()) for path in out.glob("*/metrics.json")]
    return {(record["params"]["seed"], record["params"]["fault"]): record for record in found}


def start(*arguments) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", *map(str, arguments)], env=ENVIRONMENT, stderr=subprocess.DEVNULL)


def test_faults_of_single_runs_leave_the_others_alone(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    write_tiny(tmp_path)
    rows = "rows: [{fault: slow}, {fault: memory}, {fault: die}, {fault: raise}, {}, {seed: 1}]"
    grid = write_grid(tmp_path, f"gpus: 1\ncell_timeout: 6\nmemory_gb: 0.8\n{rows}")
    out, kept = tmp_path / "out", tmp_path / "05_tiny.json"
    assert main([str(grid), "--out", str(out), "--workers", "2"]) == 1
    starts = [line for line in trace(tmp_path) if line[0] == "start"]
    assert sorted(line[1:3] for line in starts) == sorted(
        [["0", f] for f in ("slow", "memory", "die", "raise", "none")] + [["1", "none"]]
    ), "a failed cell is not repeated"
    assert {line[4] for line in starts} == {"3", "5"}, "each worker has a GPU of its own"
    assert not any(alive(int(line[3])) for line in starts)
    assert records(out).keys() == {(0, "none"), (1, "none")}
    said = capfd.readouterr().out
    assert "2 done, 4 failed, in " in said
    assert "fault=raise: code cell 4, ValueError: no such luck\n" in said
    assert "fault=die: code cell 4, DeadKernelError: Kernel died\n" in said
    assert "fault=slow: code cell 4, CellTimeoutError: " in said
    sentence = r"fault=memory: .* RunMemory: the run was ended: it held (\d\.\d\d) GB of memory, the limit is 0.8 GB\n"
    assert 0.8 <= float(re.search(sentence, said)[1]) < 2
    logs = list(out.glob("*/stderr.log")) + list(out.glob("*/failed/stderr.log"))
    assert len(logs) == 6 and all("started" in log.read_text() for log in logs)
    page, table = (out / "index.html").read_text(), (out / "summary.csv").read_text().splitlines()
    assert page.count("failed</span>") == 4 and page.count('/figure.png"') == 2
    assert table[0].endswith("seconds,peak_memory_mb,auc") and len(table) == 7
    # Nothing is run again, but all that is there is kept elsewhere.
    monkeypatch.setattr(batch, "_execute", lambda *_: pytest.fail("something was run again"))
    arguments = [str(write_grid(tmp_path, "product: {seed: [0, 1]}\nrows: [{fault: none}]")), "--out", str(out)]
    assert main([*arguments, "--record", str(kept)]) == 0
    assert "2 recorded before, in " in capfd.readouterr().out
    assert read_ledger(kept)["runs"].keys() == {"teach-none-seed0", "teach-none-seed1"}


def test_killed_worker_of_an_existing_cluster(tmp_path, capfd, monkeypatch):
    """Its run and the kernel die with it; another worker does the run; nothing is done twice."""
    write_tiny(tmp_path)
    grid, out = write_grid(tmp_path, "fixed: {fault: wait}\nproduct: {seed: [0, 1]}"), tmp_path / "out"
    address = tmp_path / "scheduler.json"
    where = ("--scheduler-file", address, "--no-dashboard")
    cluster = [start("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", *where)]
    try:
        for _ in range(2):
            options = ("--no-nanny", "--nthreads", "1", "--local-directory", tmp_path)
            cluster.append(start("distributed.cli.dask_worker", *where, *options))
        until(address.exists)
        scheduler = until(lambda: json.loads(address.read_text() or "{}"))["address"]
        arguments = [str(grid), "--out", str(out), "--scheduler", scheduler]
        with monkeypatch.context() as patch:
            patch.setattr(batch, "code_hash", lambda notebook: "another")
            assert main(arguments) == 2
        assert "has other code of 05_tiny than the batch" in capfd.readouterr().err
        killed = []

        def kill():
            until(lambda: len(trace(tmp_path)) == 2)
            kernel = int(trace(tmp_path)[0][3])
            child = psutil.Process(kernel).parent()
            killed.append(child.parent().pid)
            child.parent().kill()
            until(lambda: not alive(kernel) and not alive(child.pid))
            (tmp_path / "go").touch()

        killer = threading.Thread(target=kill)
        killer.start()
        assert main(arguments) == 0
        killer.join()
        assert killed[0] in {process.pid for process in cluster[1:]}
    finally:
        for process in cluster:
            process.kill()
            process.wait()
    assert records(out).keys() == {(0, "wait"), (1, "wait")}
    lines = trace(tmp_path)
    assert len([line for line in lines if line[0] == "start"]) == 3
    assert sorted(line for line in lines if line[0] == "end") == [["end", "0", "wait"], ["end", "1", "wait"]]


def test_killed_driver_leaves_no_process_and_its_batch_goes_on(tmp_path, capfd):
    write_tiny(tmp_path)
    grid, out = write_grid(tmp_path, "rows: [{}, {seed: 1, fault: wait}]"), tmp_path / "out"
    driver = start("helpers.batch", grid, "--out", out, "--workers", "1")
    until(lambda: trace(tmp_path)[2:3])
    assert main([str(grid), "--out", str(out)]) == 2
    message = f"{out}: another batch is at work in this folder; wait for it or give another --out\n"
    assert capfd.readouterr().err == message
    family = psutil.Process(driver.pid).children(recursive=True)
    assert int(trace(tmp_path)[2][3]) in {process.pid for process in family}
    driver.kill()
    driver.wait()
    until(lambda: not any(alive(process.pid) for process in family))
    first = {path: path.read_bytes() for path in out.glob("*/metrics.json")}
    assert len(first) == 1
    (tmp_path / "go").touch()
    assert main([str(grid), "--out", str(out)]) == 0
    assert "1 done, 1 recorded before" in capfd.readouterr().out
    assert all(path.read_bytes() == content for path, content in first.items())
    assert [line[:3] for line in trace(tmp_path)] == [
        ["start", "0", "none"],
        ["end", "0", "none"],
        ["start", "1", "wait"],
        ["start", "1", "wait"],
        ["end", "1", "wait"],
    ]
    assert not list(out.glob(".*.running"))


def test_a_kernel_that_does_not_start_is_started_again(tmp_path):
    write_tiny(tmp_path)
    spec = tmp_path / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    script = (
        "import pathlib, runpy, sys\n"
        f"count = pathlib.Path({str(tmp_path / 'starts')!r})\n"
        "count.write_text(count.read_text() + 'x' if count.exists() else 'x')\n"
        "len(count.read_text()) == 1 and sys.exit(3)\n"
        "runpy.run_module('ipykernel_launcher', run_name='__main__')"
    )
    argv = [sys.executable, "-c", script, "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}))
    work = job(tmp_path, write_grid(tmp_path, ""))
    work["environment"]["JUPYTER_PATH"] = str(tmp_path / "jupyter")
    assert run_job(work) == ""
    assert (tmp_path / "starts").read_text() == "xx"
    assert len(list((tmp_path / "out").glob("*/metrics.json"))) == 1


def test_refused_writes_fail_the_run_and_leave_the_old_record(tmp_path):
    """A limit on the size of files refuses writes half-way, as a full disk does."""
    write_tiny(tmp_path)
    work = job(tmp_path, write_grid(tmp_path, ""))
    folder = Path(work["folder"])
    folder.mkdir()
    old = json.dumps(RECORD | {"code": "older"})
    (folder / "metrics.json").write_text(old)
    limit = "import json, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))"
    code = f"{limit}; from helpers.batch_run import run_job; print(run_job(json.loads(sys.argv[1])))"
    command = [sys.executable, "-c", code, json.dumps(work)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.stdout == "[Errno 27] File too large\n", done.stderr
    assert trace(tmp_path)[-1] == ["end", "0", "none"], "the run itself was not limited"
    assert look_up(folder, work["code"])[0] == "stale", "no fault of the run: the next batch tries again"
    assert (folder / "metrics.json").read_text() == old
    assert {path.name for path in folder.parent.iterdir()} == {".locks", folder.name}
