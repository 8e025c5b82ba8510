"""Batches without processes: what a grid says, what is run, skipped or refused, and how a run's folder changes."""

import csv
import json
from pathlib import Path

import distributed
import pytest
from tiny_notebook import RECORD, write_grid, write_tiny

from helpers.runs import batch, repo_root
from helpers.runs import notebook as notebook_module
from helpers.runs.batch import main, plan, run_job
from helpers.runs.code import code_hash
from helpers.runs.grid import RunError, read_grid
from helpers.runs.record import read_ledger, record_name, write_ledger

CODE = code_hash("05_tiny")
PARAMS = ("profile", "seed", "noise", "fault", "data_dir", "row")


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A folder with the tiny notebook; Dask must not be asked."""
    write_tiny(tmp_path)
    monkeypatch.setattr(batch, "_on_dask", lambda *_: pytest.fail("something was started"))
    return tmp_path


def store(folder: Path, *, code: str = CODE, **changes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    params = {"profile": "teach", "seed": 0}
    record = RECORD | {"params": params, "code": code, "checkpoint": None, "figure": None} | changes
    (folder / "metrics.json").write_text(json.dumps(record))
    return folder / "metrics.json"


def fail(folder: Path, *, code: str = CODE) -> None:
    (folder / "failed").mkdir(parents=True)
    (folder / "failed" / "failure.json").write_text(json.dumps({"code": code, "reason": "no luck"}))


MISTAKES = [
    ("fixd: {}", "unknown key 'fixd'; the keys are table, notebook, fixed, product, rows, cell_timeout, timeout, "),
    ("fixed: [seed]", "fixed is ['seed'], expected dict"),
    ("fixed: {sed: 1}", "05_tiny: unknown parameter 'sed'; the parameters are profile, seed, noise, fault, "),
    ("fixed: {seed: '1'}", "05_tiny: seed is '1', expected int"),
    ("fixed: {noise: 1e-3}", "05_tiny: noise is '1e-3', expected a finite float"),
    ("fixed: {noise: .nan}", "05_tiny: noise is nan, expected a finite float"),
    ("fixed: {row: no}", "05_tiny: row is False, expected str"),
    ("fixed: {profile: tech}", "05_tiny: profile is 'tech', expected one of smoke, teach, full"),
    ("fixed: {seed: 1, seed: 2}", "seed stands twice in one mapping, expected once"),
    (
        "product: {seed: 3}",
        "product: Parameter grid for parameter 'seed' needs to be a list",
    ),
    ("product: {seed: []}", "product: Parameter grid for parameter 'seed' need"),
    ("product: {seed: [0, 1, 0]}", "two runs are the same, {'seed': 0} and {'seed': 0}"),
    ("rows: [{noise: 0.5}, {}]", "two runs are the same, {} and {'noise': 0.5}"),
    ("rows: []", "rows is [], expected list"),
    ("rows: [3]", "rows: got 3, expected parameters"),
    ("fixed: {seed: 1}\nproduct: {seed: [2]}", "each stands in one of fixed, product, rows"),
    ("rows: [{seed: 1}]\nproduct: {seed: [2]}", "rows: got {'seed': 1}, expected parameters; each stands in one of "),
    ("timeout: 0", "timeout is 0, expected a number above 0"),
    ("memory_gb: much", "memory_gb is 'much', expected a number above 0"),
    ("cell_timeout: .inf", "cell_timeout is inf, expected a number above 0"),
    ("gpus: 2", "gpus is 2, expected 0 or 1"),
    ("threads: 0", "threads is 0, expected a number above 0"),
    ("fixed: {data_dir: none}", "data_dir is 'none', expected a whole path such as '/"),
    ("fixed: {data_dir: /none}", "data_dir: got '/none', expected the path of an existing folder"),
    ("fixed: {seed: -1}", "seed is -1, expected a whole number from 0 to 2**32 - 1"),
    ("fixed: !!python/object/apply:os.getcwd []", "not a readable grid (could not determine a constructor"),
    ("fixed: {", "not a readable grid (while parsing"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_mistakes_in_a_grid_are_refused_in_one_sentence(tiny, capsys, text, message):
    grid = write_grid(tiny, text)
    assert main([str(grid), "--out", str(tiny / "out")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{grid}: ") and message in said and said.count("\n") == 1
    assert not (tiny / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- 1", "expected a mapping with the key table or the key notebook"),
        ("notebook: 99_none", "notebook is '99_none', expected one of notebooks/ or the path of an .ipynb file"),
        ("notebook: 3", "notebook is 3, expected str"),
    ],
)
def test_grid_without_a_notebook_is_refused(tmp_path, content, message):
    path = tmp_path / "grid.yaml"
    path.write_text(content)
    with pytest.raises(RunError) as error:
        read_grid(path)
    assert str(error.value) == f"{path}: {message}"


def test_missing_grid_is_refused(tmp_path, capsys):
    assert main([str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml: not a readable grid ([Errno 2] No such file" in capsys.readouterr().err


def test_rows_are_combined_with_the_product(tiny):
    grid = read_grid(write_grid(tiny, "fixed: {noise: 1}\nproduct: {seed: [0, 1]}\nrows: [{row: a}, {fault: raise}]"))
    noise = {"noise": 1.0}
    entries = plan(grid, tiny / "out")
    assert [entry.given for entry in entries] == [
        noise | {"row": "a", "seed": 0},
        noise | {"row": "a", "seed": 1},
        noise | {"fault": "raise", "seed": 0},
        noise | {"fault": "raise", "seed": 1},
    ]
    assert (entries[0].limits, grid.gpus) == ({"cell_timeout": 600, "timeout": 3600, "memory_gb": None}, 0)
    assert entries[3].params["profile"] == "teach"
    names = [f"{row}teach-none-seed{seed}" for row in ("a-", "") for seed in (0, 1)]
    assert [record_name(entry.params) for entry in entries] == names
    assert [entry.folder.name[:-9] for entry in entries] == names


def test_folder_stands_for_parameters_and_code_of_the_notebook(tiny):
    def folder(text):
        return plan(read_grid(write_grid(tiny, text)), tiny)[0].folder

    first = folder("fixed: {seed: 1, noise: 1}")
    assert (
        first == folder("rows: [{noise: 1.0}]\nproduct: {seed: [1]}") == folder("fixed: {noise: 1, seed: 1, row: ''}")
    )
    assert first != folder("fixed: {seed: 1, noise: 2}")
    notebook = tiny / "05_tiny.ipynb"
    notebook.write_text(notebook.read_text().replace("no such luck", "bad luck"))
    assert first != folder("fixed: {seed: 1, noise: 1}")


def test_folder_stands_for_the_content_of_the_data_which_is_read_once(tiny, monkeypatch):
    reads, content = [], batch._content

    def counted(folder):
        reads.append(folder)
        return content(folder)

    monkeypatch.setattr(batch, "_content", counted)

    def folders(name):
        grid = write_grid(tiny, f"fixed: {{data_dir: {tiny / name}}}\nproduct: {{seed: [0, 1]}}")
        return [entry.folder for entry in plan(read_grid(grid), tiny)]

    for name in ("a", "b"):
        (tiny / name / "in").mkdir(parents=True)
        (tiny / name / "in" / "1.png").write_bytes(b"image")
    first = folders("a")
    assert reads == [tiny / "a"]
    assert first == folders("b") == folders(tiny / "a")
    (tiny / "b" / "in" / "1.png").write_bytes(b"other")
    assert first != folders("b")
    (tiny / "a" / "in" / "1.png").rename(tiny / "a" / "1.png")
    assert first != folders("a")


def test_dry_run_prints_the_plan_and_writes_nothing(tiny, capsys):
    grid, out = write_grid(tiny, "product: {seed: [0, 1, 2, 3, 4]}"), tiny / "out"
    assert main([str(grid), "--out", str(out), "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("5 new\n")
    assert not out.exists()
    folders = [entry.folder for entry in plan(read_grid(grid), out)]
    store(folders[1])
    store(folders[2], code="older")
    fail(folders[3])
    fail(folders[4], code="older")
    before = sorted(out.rglob("*"))
    assert main([str(grid), "--out", str(out), "--dry-run", "--redo", "stale"]) == 0
    said = capsys.readouterr()
    counts, *rows = said.out.splitlines()
    assert counts == "2 new, 1 recorded, 1 stale, 1 failed"
    assert rows == [
        f"new     {folders[0].name} seed=0",
        f"stale   {folders[2].name} seed=2",
        f"new     {folders[4].name} seed=4",  # it failed with other code
        "not done again: add --redo failed stale",
    ]
    assert said.err == f"failed  {folders[3].name} seed=3: no luck\n"
    assert sorted(out.rglob("*")) == before


def test_what_is_recorded_stale_or_failed_is_left_and_told(tiny, capsys):
    grid, out = write_grid(tiny, "product: {seed: [0, 1, 2]}"), tiny / "out"
    folders = [entry.folder for entry in plan(read_grid(grid), out)]
    store(folders[0], metrics={"auc": 0.75, "dice": [1, 2]}, seconds=3)
    store(folders[1], code="older")
    fail(folders[2])
    assert main([str(grid), "--out", str(out)]) == 1
    said = capsys.readouterr()
    assert said.out.startswith("\nin 0 s: 1 recorded, 1 stale, 1 failed\n")
    assert said.err == f"failed  {folders[2].name} seed=2: no luck\n"
    assert "\nnot done again: add --redo failed stale\n" in said.out
    rows = list(csv.DictReader((out / "summary.csv").read_text().splitlines()))
    assert [(row["state"], row["seed"], row["auc"]) for row in rows] == [
        ("recorded", "0", "0.75"),
        ("stale", "1", ""),
        ("failed", "2", ""),
    ]
    assert rows[0].keys() == {"run", "state", "reason", *PARAMS, "seconds", "peak_memory_mb", "auc"}
    page = (out / "index.html").read_text()
    assert f'<td>{folders[0].name}<td>recorded <td>0.1<td>0 MB<td><a href="{folders[0].name}/metrics.json">' in page
    assert (
        f'<td>{folders[2].name}<td>failed no luck<td><td><td><a href="{folders[2].name}/failed/failure.json">' in page
    )
    folders[2].rename(out / "elsewhere")
    assert main([str(write_grid(tiny, "product: {seed: [0, 1]}")), "--out", str(out)]) == 0, "stale is no failure"


def test_two_runs_of_one_name_are_not_recorded(tiny, capsys):
    grid = write_grid(tiny, "product: {noise: [0.1, 0.2]}")
    assert main([str(grid), "--out", str(tiny / "out"), "--record", str(tiny / "05_tiny.json")]) == 2
    message = f"{grid}: 2 runs would be recorded as 'teach-none-seed0'; name them with the parameter row\n"
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("of_the_book", [True, False])
def test_what_a_ledger_holds_is_not_run_again(tiny, monkeypatch, of_the_book):
    """With the present code and the same parameters, of the book, whose records know their code."""
    home, out, runs, path = tiny / "notebooks", tiny / "out", {}, tiny / "05_tiny.json"
    (tiny / "films").mkdir()
    home.mkdir()
    (tiny / "05_tiny.ipynb").rename(home / "05_tiny.ipynb")
    if of_the_book:
        monkeypatch.setattr(batch, "repo_root", lambda: tiny)
    text = f"fixed: {{noise: 0.5, data_dir: {tiny / 'films'}}}\nproduct: {{seed: [0, 1, 2, 3, 4]}}"
    grid = read_grid(write_grid(home, text))
    entries = plan(grid, out)
    for seed, (code, changes) in enumerate([(CODE, {}), ("older", {}), (CODE, {"noise": 0.1}), (CODE, {})]):
        params = entries[seed].params | {"data_dir": ""} | changes
        record = {"notebook": "05_tiny", "code": code, "params": params, "metrics": {"auc": 0.5}, "checkpoint": None}
        runs[f"teach-none-seed{seed}"] = RECORD | record
    codes = dict.fromkeys((CODE, "older"), {"commit": "", "verified": ""})
    write_ledger(path, {"notebook": "05_tiny", "code": codes, "runs": runs})
    store(entries[3].folder, metrics={"auc": 0.75})
    found = plan(grid, out, path)
    there = [0.5, None, None, 0.75, None] if of_the_book else [None, None, None, 0.75, None]
    assert [entry.record and entry.record["metrics"]["auc"] for entry in found] == there
    assert [entry.state for entry in found] == ["new" if value is None else "recorded" for value in there]
    assert [entry.state for entry in plan(grid, out)] == ["new", "new", "new", "recorded", "new"]


def test_records_of_the_book_count(tiny):
    found = plan(
        read_grid(repo_root() / "grids" / "01_explanation.yaml"), tiny, repo_root() / "results" / "01_explanation.json"
    )
    runs = read_ledger(repo_root() / "results" / "01_explanation.json")["runs"]
    assert [entry.record for entry in found] == [runs[f"teach-sample-seed{seed}"] for seed in range(3)]
    assert {entry.state for entry in found} == {"recorded"}


def test_a_ledger_of_another_table_is_refused_before_anything_runs(tiny, capsys):
    ledger = repo_root() / "results" / "01_explanation.json"
    assert main([str(write_grid(tiny, "")), "--out", str(tiny / "out"), "--record", str(ledger)]) == 2
    assert "a ledger of 01_explanation, expected results/05_tiny.json" in capsys.readouterr().err
    assert not list((tiny / "out").glob("*/*"))


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A run, and a process in its place that writes what papermill and the notebook would write, or fails."""
    write_tiny(tmp_path)
    [entry] = plan(read_grid(write_grid(tmp_path, "")), tmp_path / "out")
    entry.folder.parent.mkdir()
    entry.errors = []

    def supervise(command, environment, log, *_):
        log.write_text("words")
        store(Path(environment["RUN_DIR"]))
        return entry.errors.pop() if entry.errors else ""

    monkeypatch.setattr(notebook_module, "_supervise", supervise)
    return entry


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


WHOLE = {"05_tiny.ipynb", "05_tiny.html", "metrics.json", "stderr.log"}


def test_stale_record_stays_until_a_new_one_is_whole(work):
    store(work.folder, code="older")
    work.errors.append("E: no")
    assert run_job(work) == "code cell 1, E: no"
    failed = {"failed/05_tiny.ipynb", "failed/05_tiny.html", "failed/stderr.log", "failed/failure.json"}
    assert names(work.folder) == {"metrics.json"} | failed
    work.look()
    assert (work.state, work.reason, work.record["code"]) == ("failed", "code cell 1, E: no", "older")
    assert run_job(work) == ""
    assert names(work.folder) == WHOLE
    work.look()
    assert (work.state, work.reason) == ("recorded", "")
    assert [path.name for path in work.folder.parent.iterdir() if path.suffix != ".lock"] == [work.folder.name]


def test_what_another_worker_recorded_meanwhile_is_not_run_again(work, monkeypatch):
    store(work.folder)
    monkeypatch.setattr(batch, "run_notebook", lambda *_, **__: pytest.fail("it was run again"))
    assert run_job(work) == ""


def test_full_disk_that_takes_not_even_the_failure(work, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    work.errors.append("E: no such luck")
    monkeypatch.setattr(notebook_module, "write_atomic", full)
    assert run_job(work) == "[Errno 28] No space left on device"
    work.look()
    assert work.state == "new"
    assert [path.suffix for path in work.folder.parent.iterdir()] == [".lock"]


def test_half_written_record_counts_as_none(work):
    store(work.folder).write_text('{"notebook": "05_ti')
    work.look()
    assert (work.state, work.reason, work.record) == ("new", "", None)


def test_names_of_rows_are_safe_in_paths(tiny):
    [entry] = plan(read_grid(write_grid(tiny, "rows: [{row: '../<b>'}]")), tiny)
    assert entry.folder.parent == tiny and entry.folder.name.startswith("..__b_-teach-none-seed0-")


def places(folder: Path, text: str, asked=None):
    return batch._places(read_grid(write_grid(folder, text)), asked)


def test_gpus_are_those_that_the_batch_may_see(tiny, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-a1")
    assert places(tiny, "gpus: 1") == (2, ["2", "GPU-a1"])
    assert places(tiny, "gpus: 0")[1] == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(RunError, match=r"--workers asks for 1, this machine has room for 0 \(GPUs: none\)"):
        places(tiny, "gpus: 1")


def test_workers_are_no_more_than_cores_or_gpus_allow(tiny, monkeypatch):
    monkeypatch.setattr(batch.os, "cpu_count", lambda: 5)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,7")
    found = [
        places(tiny, "threads: 2"),
        places(tiny, "threads: 2", 1),
        places(tiny, "threads: 8"),
        places(tiny, "gpus: 1"),
    ]
    assert [workers for workers, _ in found] == [2, 1, 1, 3]
    for asked in (3, -1):
        with pytest.raises(
            RunError, match=rf"asks for {asked}, this machine has room for 2 \(5 cores, 2 threads a run\)"
        ):
            places(tiny, "threads: 2", asked)
    with pytest.raises(RunError, match=r"--workers asks for 4, this machine has room for 3 \(GPUs: 2, 5, 7\)"):
        places(tiny, "gpus: 1", 4)


class Done:
    status, result = "finished", staticmethod(lambda: "")


class Cluster:
    """In place of Dask: does each run at once, and times out when it is closed."""

    def __init__(self, *_, **__):
        pass

    __enter__ = wait_for_workers = lambda self, *_, **__: self

    def __exit__(self, *_):
        raise TimeoutError("closing")

    def run(self, function, *arguments):
        return {"tcp://a:1": function(*arguments)}

    def submit(self, function, entry, *_, **__):
        store(entry.folder, notebook="05_tiny")
        return Done()


def test_a_cluster_that_times_out_over_its_own_end_fails_nothing(tmp_path, monkeypatch):
    write_tiny(tmp_path)
    grid, out, ledger = write_grid(tmp_path, ""), tmp_path / "out", tmp_path / "05_tiny.json"
    monkeypatch.setattr(batch, "_local_cluster", Cluster)
    monkeypatch.setattr(distributed, "Client", Cluster)
    monkeypatch.setattr(distributed, "as_completed", list)
    assert main([str(grid), "--out", str(out), "--record", str(ledger)]) == 0
    assert read_ledger(ledger)["runs"].keys() == {"teach-none-seed0"}
