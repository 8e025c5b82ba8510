"""Batches without processes: what a grid says, what is run, skipped or refused, and how a run's folder changes."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_notebook import RECORD, write_grid, write_tiny

from helpers import batch, batch_plan, batch_run
from helpers.batch import main
from helpers.batch_plan import look, name_runs, write_tables
from helpers.batch_run import look_up, recover, run_job
from helpers.grids import GridError, read_grid
from helpers.provenance import repo_root
from helpers.runner import RunError, RunFailedError
from helpers.runs.code import code_hash
from helpers.runs.record import read_ledger, record_name, write_ledger

CODE = code_hash("05_tiny")


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A folder with the tiny notebook; Dask must not be asked."""
    write_tiny(tmp_path)
    monkeypatch.setattr(batch, "_execute", lambda *_: pytest.fail("something was started"))
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
    (
        "fixd: {}",
        "unknown key 'fixd'; the keys are table, notebook, fixed, product, rows, gpus, threads, cell_timeout, ",
    ),
    ("fixed: [seed]", "fixed is ['seed'], expected dict"),
    ("fixed: {sed: 1}", "05_tiny: unknown parameter 'sed'; the parameters are profile, seed, noise, fault, "),
    ("fixed: {seed: '1'}", "05_tiny: seed is '1', expected int"),
    ("fixed: {noise: 1e-3}", "05_tiny: noise is '1e-3', expected float"),
    ("fixed: {noise: .nan}", "05_tiny: noise is nan, expected a finite number"),
    ("fixed: {row: no}", "05_tiny: row is False, expected str"),
    ("fixed: {profile: tech}", "05_tiny: profile is 'tech', expected one of smoke, teach, full"),
    ("fixed: {seed: 1, seed: 2}", "seed stands twice in one mapping, expected once"),
    ("product: {seed: 3}", "product: seed is 3, expected a list of values"),
    ("product: {seed: []}", "product: seed is [], expected a list of values"),
    ("product: {seed: [0, 1, 0]}", "two runs are the same, {'seed': 0} and {'seed': 0}"),
    ("rows: [{noise: 0.5}, {}]", "two runs are the same, {} and {'noise': 0.5}"),
    ("rows: []", "rows is empty, expected at least one mapping of parameters"),
    ("rows: [3]", "rows: got 3, expected a mapping of parameters"),
    ("fixed: {seed: 1}\nproduct: {seed: [2]}", "seed stands in fixed and in product, expected one of them"),
    ("timeout: 0", "timeout is 0, expected a number above 0"),
    ("memory_gb: much", "memory_gb is 'much', expected a number above 0"),
    ("cell_timeout: .inf", "cell_timeout is inf, expected a number above 0"),
    ("gpus: 2", "gpus is 2, expected 0 or 1"),
    ("threads: 0", "threads is 0, expected at least 1"),
    ("fixed: {data_dir: none}", "expected the path of an existing folder"),
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
    with pytest.raises(GridError) as error:
        read_grid(path)
    assert str(error.value) == f"{path}: {message}"


def test_missing_grid_is_refused(tmp_path, capsys):
    assert main([str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml: not a readable grid ([Errno 2] No such file" in capsys.readouterr().err


def test_rows_are_combined_with_the_product(tiny):
    grid = read_grid(write_grid(tiny, "fixed: {noise: 1}\nproduct: {seed: [0, 1]}\nrows: [{row: a}, {fault: raise}]"))
    noise = {"noise": 1.0}
    assert [run.params for run in name_runs(grid)] == [
        noise | {"row": "a", "seed": 0},
        noise | {"row": "a", "seed": 1},
        noise | {"fault": "raise", "seed": 0},
        noise | {"fault": "raise", "seed": 1},
    ]
    assert (grid.varying, grid.limits["timeout"], grid.gpus) == (["row", "seed", "fault"], 3600, 0)
    assert name_runs(grid)[3].full["profile"] == "teach"
    assert [record_name(run.full) for run in name_runs(grid)] == [
        f"{row}teach-none-seed{seed}" for row in ("a-", "") for seed in (0, 1)
    ]


def test_key_stands_for_parameters_and_code_of_the_notebook(tiny):
    def key(text):
        return name_runs(read_grid(write_grid(tiny, text)))[0].key

    first = key("fixed: {seed: 1, noise: 1}")
    assert first == key("rows: [{noise: 1.0}]\nproduct: {seed: [1]}") == key("fixed: {noise: 1, seed: 1, row: ''}")
    assert first != key("fixed: {seed: 2, noise: 1}")
    notebook = tiny / "05_tiny.ipynb"
    notebook.write_text(notebook.read_text().replace("no such luck", "bad luck"))
    assert first != key("fixed: {seed: 1, noise: 1}")


def test_key_stands_for_the_content_of_the_data_folder_which_is_read_once(tiny, monkeypatch):
    reads, folder_hash = [], batch_plan._folder_hash

    def counted(path, folder):
        reads.append(folder)
        return folder_hash(path, folder)

    monkeypatch.setattr(batch_plan, "_folder_hash", counted)

    def keys(name):
        grid = write_grid(tiny, f"fixed: {{data_dir: {name}}}\nproduct: {{seed: [0, 1]}}")
        return [run.key for run in name_runs(read_grid(grid))]

    for name in ("a", "b"):
        (tiny / name / "in").mkdir(parents=True)
        (tiny / name / "in" / "1.png").write_bytes(b"image")
    first = keys("a")
    assert reads == [tiny / "a"]
    assert first == keys("b") == keys(tiny / "a")
    (tiny / "b" / "in" / "1.png").write_bytes(b"other")
    assert first != keys("b")
    (tiny / "a" / "in" / "1.png").rename(tiny / "a" / "1.png")
    assert first != keys("a")


def test_dry_run_prints_the_plan_and_writes_nothing(tiny, capsys):
    grid, out = write_grid(tiny, "product: {seed: [0, 1, 2, 3, 4]}"), tiny / "out"
    assert main([str(grid), "--out", str(out), "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("5 new, 0 recorded, 0 stale, 0 failed\n")
    assert not out.exists()
    folders = [out / run.key for run in name_runs(read_grid(grid))]
    store(folders[1])
    store(folders[2], code="older")
    fail(folders[3])
    fail(folders[4], code="older")
    before = sorted(out.rglob("*"))
    assert main([str(grid), "--out", str(out), "--dry-run", "--redo", "stale"]) == 0
    counts, *rows = capsys.readouterr().out.splitlines()
    assert counts == "2 new, 1 recorded, 1 stale, 1 failed"
    assert [row.split()[:2] for row in rows] == [
        ["run", "new"],
        ["skip", "recorded"],
        ["run", "stale"],
        ["skip", "failed"],
        ["run", "new"],  # it failed with other code
    ]
    assert rows[3].endswith("seed=3  no luck")
    assert sorted(out.rglob("*")) == before


def test_what_is_recorded_stale_or_failed_is_left_and_told(tiny, capsys):
    grid, out = write_grid(tiny, "product: {seed: [0, 1, 2]}"), tiny / "out"
    folders = [out / run.key for run in name_runs(read_grid(grid))]
    store(folders[0], metrics={"auc": 0.75, "dice": [1, 2]}, seconds=3)
    store(folders[1], code="older")
    fail(folders[2])
    assert main([str(grid), "--out", str(out)]) == 1
    said = capsys.readouterr().out
    assert "\n1 recorded before, 1 stale, 1 failed, in 0 s\n" in said
    assert f"\nfailed  {folders[2].name}  seed=2: no luck\n" in said
    assert "\nnot done again: add --redo stale failed\n" in said
    rows = list(csv.DictReader((out / "summary.csv").read_text().splitlines()))
    assert [(row["state"], row["seed"], row["auc"]) for row in rows] == [
        ("recorded", "0", "0.75"),
        ("stale", "1", ""),
        ("failed", "2", ""),
    ]
    assert rows[0].keys() == {"key", "state", "reason", "seed", "seconds", "peak_memory_mb", "auc"}
    page = (out / "index.html").read_text()
    assert '<td data-name="Result">recorded; 0 of 0 claims hold</td>' in page
    assert f'<a href="{folders[0].name}/metrics.json">record</a>' in page
    assert '<td data-name="Result"><span class="failed">failed</span>: no luck</td>' in page
    folders[2].rename(out / "elsewhere")
    assert main([str(write_grid(tiny, "product: {seed: [0, 1]}")), "--out", str(out)]) == 0, "stale is no failure"


@pytest.mark.parametrize("text", ["0", "-1", "two"])
def test_workers_are_a_whole_number_above_0(tiny, capsys, text):
    with pytest.raises(SystemExit) as error:
        main([str(write_grid(tiny, "")), f"--workers={text}"])
    assert error.value.code == 2
    assert f"got {text!r}, expected a whole number above 0" in capsys.readouterr().err


def test_two_runs_of_one_name_are_not_recorded(tiny, capsys):
    grid = write_grid(tiny, "product: {noise: [0.1, 0.2]}")
    assert main([str(grid), "--out", str(tiny / "out"), "--record", str(tiny / "05_tiny.json")]) == 2
    message = f"{grid}: 2 runs would be recorded as 'teach-none-seed0'; name them with the parameter row\n"
    assert capsys.readouterr().err == message


def test_what_is_recorded_elsewhere_is_not_run_again(tiny):
    out, recorded = tiny / "out", {}
    runs = name_runs(read_grid(write_grid(tiny, "fixed: {noise: 0.5, data_dir: .}\nproduct: {seed: [0, 1, 2, 3, 4]}")))
    for run, (code, changes) in enumerate([(CODE, {}), ("older", {}), (CODE, {"noise": 0.1}), (CODE, {})]):
        params = runs[run].full | {"data_dir": ""} | changes
        recorded[f"teach-none-seed{run}"] = RECORD | {"code": code, "params": params, "metrics": {"auc": 0.5}}
    store(out / runs[3].key, metrics={"auc": 0.75})
    entries = look(runs, out, CODE, recorded)
    assert [entry.state for entry in entries] == ["recorded", "new", "new", "recorded", "new"]
    assert [entry.record and entry.record["metrics"]["auc"] for entry in entries] == [0.5, None, None, 0.75, None]
    assert [entry.state for entry in look(runs, out, CODE)] == ["new", "new", "new", "recorded", "new"]


def test_records_count_for_notebooks_of_the_book_only(tiny):
    """The code of others is not in their records."""
    ledger = repo_root() / "results" / "01_explanation.json"
    chapter = read_grid(repo_root() / "grids" / "01_explanation.yaml")
    assert batch._recorded(chapter, SimpleNamespace(record=ledger)) == read_ledger(ledger)["runs"]
    assert batch._recorded(chapter, SimpleNamespace(record=None)) == {}
    write_ledger(tiny / "05_tiny.json", {"notebook": "05_tiny", "code": {}, "runs": {}})
    assert batch._recorded(read_grid(write_grid(tiny, "")), SimpleNamespace(record=tiny / "05_tiny.json")) == {}


def test_a_ledger_of_another_table_is_refused_before_anything_runs(tiny, capsys):
    ledger = repo_root() / "results" / "01_explanation.json"
    assert main([str(write_grid(tiny, "")), "--out", str(tiny / "out"), "--record", str(ledger)]) == 2
    assert "a ledger of 01_explanation, expected results/05_tiny.json" in capsys.readouterr().err
    assert not list((tiny / "out").glob("*/*"))


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A job, and a runner that writes what a notebook would write, or fails."""
    write_tiny(tmp_path)
    grid = read_grid(write_grid(tmp_path, ""))
    [entry] = look(name_runs(grid), tmp_path / "out", CODE)
    entry.folder.parent.mkdir()
    errors = []

    def run_notebook(notebook, out, params, *, log, **_):
        log.write_text("words")
        if errors:
            (out / "05_tiny.failed.ipynb").write_text("traceback")
            store(out / "05_tiny")
            raise errors.pop()
        (out / "05_tiny.ipynb").write_text("executed")
        return store(out / "05_tiny")

    monkeypatch.setattr(batch_run, "run_notebook", run_notebook)
    return batch._job(grid, entry, CODE, None) | {"errors": errors}


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_stale_record_stays_until_a_new_one_is_whole(work):
    folder = Path(work["folder"])
    store(folder, code="older")
    work["errors"].append(RunFailedError(folder / "05_tiny.failed.ipynb", "code cell 1, E: no"))
    assert run_job(work) == "code cell 1, E: no"
    failed = {"failed/05_tiny.failed.ipynb", "failed/stderr.log", "failed/failure.json"}
    assert names(folder) == {"metrics.json"} | failed
    state, reason, record = look_up(folder, CODE)
    assert (state, reason, record["code"]) == ("failed", "code cell 1, E: no", "older")
    assert run_job(work) == ""
    assert names(folder) == {"05_tiny.ipynb", "metrics.json", "stderr.log"}
    assert look_up(folder, CODE)[0] == "recorded"
    assert [path.name for path in folder.parent.iterdir() if path.name != ".locks"] == [folder.name]


def test_what_another_worker_recorded_meanwhile_is_not_run_again(work, monkeypatch):
    store(Path(work["folder"]))
    monkeypatch.setattr(batch_run, "run_notebook", lambda *_, **__: pytest.fail("it was run again"))
    assert run_job(work) == ""


def test_worker_with_other_code_refuses_the_run(work):
    assert run_job(work | {"code": "f" * 64}).startswith("this worker has other code of 05_tiny (")
    assert not Path(work["folder"]).exists()


def test_full_disk_that_takes_not_even_the_failure(work, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(batch_run, "write_atomic", full)
    work["errors"].append(RunError("no such luck"))
    assert run_job(work) == "[Errno 28] No space left on device"
    assert look_up(Path(work["folder"]), CODE)[0] == "new"
    assert [path.name for path in Path(work["folder"]).parent.iterdir()] == [".locks"]


def test_death_between_old_and_new_folder_is_made_good(tmp_path):
    folder, old = tmp_path / "key", tmp_path / ".key.old"
    store(old, code="older")
    recover(folder)
    assert names(tmp_path) == {"key/metrics.json"}
    store(old, code="oldest")
    recover(folder)
    assert names(tmp_path) == {"key/metrics.json"}
    assert look_up(folder, CODE)[0] == "stale"


def test_half_written_record_counts_as_none(tmp_path):
    store(tmp_path / "key").write_text('{"notebook": "05_ti')
    assert look_up(tmp_path / "key", CODE) == ("new", "", None)


def test_page_escapes_what_a_run_says(tiny):
    grid = read_grid(write_grid(tiny, "rows: [{row: '<script>a'}]"))
    [entry] = look(name_runs(grid), tiny, CODE)
    entry.state, entry.reason = "failed", "<script>b"
    write_tables(grid, tiny, [entry])
    page = (tiny / "index.html").read_text()
    assert "&lt;script&gt;a</td>" in page and "&lt;script&gt;b</td>" in page
    assert page.count("<script>") == 1


def test_gpus_are_those_that_the_batch_may_see(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-a1")
    assert batch._gpu_ids() == ["2", "GPU-a1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(RunError, match="asks for a GPU .* and this machine shows none"):
        batch._gpu_ids()


def test_workers_are_no_more_than_cores_or_gpus_allow(tiny, monkeypatch):
    monkeypatch.setattr(batch.os, "cpu_count", lambda: 5)
    grid = read_grid(write_grid(tiny, "threads: 2"))
    workers = lambda gpus, asked: batch._workers(grid, gpus, SimpleNamespace(workers=asked))  # noqa: E731
    assert [workers(None, None), workers(None, 1), workers(["2", "5", "7"], None)] == [2, 1, 3]
    with pytest.raises(RunError, match="--workers is 3, expected at most 2, for 5 cores and 2 threads a run"):
        workers(None, 3)
    with pytest.raises(RunError, match="--workers is 3, expected at most 2, the number of GPUs"):
        workers(["2", "GPU-a1"], 3)


@pytest.mark.parametrize(
    ("facts", "gpus", "message"),
    [
        (("other", "", 1, {}), 0, "has other code of 05_tiny than the batch; install the same version there"),
        ((CODE, "out", 1, {}), 0, "does not see out; expected a file system that all machines share"),
        ((CODE, "", 4, {}), 0, r"has 4 threads; expected one, so that it does one run at a time \(--nthreads 1\)"),
        ((CODE, "", 1, {}), 1, "offers no GPU; expected --resources GPU=1"),
    ],
)
def test_unfit_workers_of_a_cluster_are_refused(tiny, facts, gpus, message):
    class Client:
        def __init__(self, address, timeout):
            self.closed = False

        def wait_for_workers(self, *_, **__):
            pass

        def run(self, *_):
            return {"tcp://a:1": (CODE, "", 1, {"GPU": 1}), "tcp://b:2": facts}

        def close(self):
            closed.append(self)

    closed, grid = [], read_grid(write_grid(tiny, f"gpus: {gpus}"))
    with pytest.raises(RunError, match=f"^worker tcp://b:2 {message}$"):
        batch._connect(Client, grid, tiny, CODE, "tcp://a")
    assert len(closed) == 1
