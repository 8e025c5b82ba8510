"""Runs of notebooks: what is refused, how a run ends, and what it leaves behind."""

import json
import shutil
import subprocess
import time
from pathlib import Path

import nbformat
import papermill
import psutil
import pytest

from helpers.runs import batch
from helpers.runs import notebook as module
from helpers.runs.batch import Entry, main
from helpers.runs.grid import RunError, check_parameters
from helpers.runs.notebook import run_notebook, told
from helpers.runs.overview import write_tables
from helpers.runs.record import SCHEMA

PARAMETERS = """profile: str = "teach"  # how long
seed: int = 0  # of every generator
noise: float = 0.5  # of the images
marker: bool = False  # a laterality marker"""

RECORD = {key: (kind if isinstance(kind, type) else kind[0])() for key, kind in SCHEMA.items()}
WRITE_RECORD = f"""import os, pathlib
pathlib.Path(os.environ["RUN_DIR"], "metrics.json").write_text({json.dumps(RECORD)!r})"""


def write_notebook(folder: Path, *sources: str, name: str = "05_tiny") -> Path:
    v4, path = nbformat.v4, folder / f"{name}.ipynb"
    cells = [v4.new_markdown_cell("# Tiny"), v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})]
    book = v4.new_notebook(cells=cells + [v4.new_code_cell(source) for source in sources])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, path)
    return path


def names(folder: Path) -> set[str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path.relative_to(folder).as_posix() for path in files}


@pytest.fixture
def no_process(monkeypatch):
    """Fail the test if anything is started."""
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"sed": 1}, "05_tiny: unknown parameter 'sed'; the parameters are profile, seed, noise, marker"),
        ({"seed": "3"}, "05_tiny: seed is '3', expected int"),
        ({"seed": True}, "05_tiny: seed is True, expected int"),
        ({"seed": 3.0}, "05_tiny: seed is 3.0, expected int"),
        ({"noise": False}, "05_tiny: noise is False, expected a finite float"),
        ({"marker": 1}, "05_tiny: marker is 1, expected bool"),
        ({"profile": "tech"}, "05_tiny: profile is 'tech', expected one of smoke, teach, full"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_starts(tmp_path, no_process, parameters, message):
    notebook = write_notebook(tmp_path)
    with pytest.raises(RunError) as error:
        run_notebook(notebook, tmp_path / "out" / "05_tiny", parameters)
    assert str(error.value) == message
    assert not (tmp_path / "out").exists()


def test_right_parameters_pass(tmp_path):
    notebook = write_notebook(tmp_path)
    given = {"noise": 1, "seed": 3, "marker": True, "profile": "full"}
    assert check_parameters(notebook, given) == given


def test_command_line_values_get_the_type_of_the_parameter(tmp_path):
    notebook = write_notebook(tmp_path)
    pairs = [("seed", "3"), ("noise", "1e-3"), ("marker", "True"), ("profile", "smoke")]
    options = batch._parser().parse_args([str(notebook), *(word for pair in pairs for word in ("-p", *pair))])
    [entry] = batch._plan_notebooks(options, tmp_path)
    assert entry.params == {"seed": 3, "noise": 1e-3, "marker": True, "profile": "smoke"}


@pytest.mark.parametrize(("name", "text"), [("seed", "3.5"), ("noise", "much"), ("marker", "1")])
def test_command_line_refuses_a_wrong_value_for_every_notebook(tmp_path, no_process, capsys, name, text):
    notebook = write_notebook(tmp_path)
    assert main([str(notebook), str(notebook), "-p", name, text, "--out", str(tmp_path / "out")]) == 2
    assert f"{name} is {text!r}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_command_line_without_a_notebook_is_refused(capsys):
    with pytest.raises(SystemExit):
        main([])
    assert "the following arguments are required: GRID.yaml | NOTEBOOK.ipynb" in capsys.readouterr().err


def test_unusable_notebook_and_untyped_parameter_are_refused(tmp_path, no_process):
    (tmp_path / "text.ipynb").write_text("no notebook")
    with pytest.raises(RunError, match="text.ipynb: its parameters cannot be read"):
        run_notebook(tmp_path / "text.ipynb", tmp_path)
    with pytest.raises(RunError, match="99_none.ipynb: its parameters cannot be read .*No such file"):
        run_notebook(tmp_path / "99_none.ipynb", tmp_path)
    notebook = write_notebook(tmp_path)
    notebook.write_text(notebook.read_text().replace("seed: int = 0", "seed = 0"))
    with pytest.raises(RunError, match="unknown parameter 'seed'; the parameters are profile, noise, marker"):
        run_notebook(notebook, tmp_path, {"seed": 1})


def test_success_leaves_notebook_page_record_and_overview(tmp_path, capfd):
    save = "run.save({'auc': 0.9}, data=None, figure=plt.figure(figsize=(1, 1)))"
    notebook = write_notebook(
        tmp_path,
        "import matplotlib.pyplot as plt\nfrom helpers.runs import start_run",
        "run = start_run('05_tiny', dict(profile=profile, seed=seed, noise=noise))",
        save,
    )
    out = tmp_path / "out"
    assert main([str(notebook), "-p", "profile", "smoke", "-p", "seed", "3", "--out", str(out)]) == 0
    files = {"05_tiny.ipynb", "05_tiny.html", "metrics.json", "figure.png", "stderr.log"}
    assert names(out) == {f"05_tiny/{name}" for name in files} | {"index.html", "summary.csv"}
    record = json.loads((out / "05_tiny" / "metrics.json").read_text())
    assert (record["params"]["seed"], record["metrics"]) == (3, {"auc": 0.9})
    printed = capfd.readouterr().out
    assert "05_tiny  cell 5\n" in printed
    assert "1 done\n" in printed
    assert str(out / "index.html") in printed
    page = (out / "index.html").read_text()
    assert "<td>05_tiny<td>recorded <td>0.0<td>" in page
    assert all(f'<a href="05_tiny/{name}">{name}</a>' in page for name in files)


def test_failing_cell_keeps_the_notebook_with_its_traceback_and_the_others_run(tmp_path, capfd):
    bad = write_notebook(tmp_path, WRITE_RECORD, "1 / 0", "print('not reached')", name="01_bad")
    good = write_notebook(tmp_path, WRITE_RECORD, name="02_good")
    out = tmp_path / "out"
    assert main([str(bad), str(good), "--out", str(out)]) == 1
    files = {f"01_bad/failed/{name}" for name in ("01_bad.ipynb", "01_bad.html", "failure.json", "stderr.log")}
    files |= {f"02_good/{name}" for name in ("02_good.ipynb", "02_good.html", "metrics.json", "stderr.log")}
    assert names(out) == files | {"index.html", "summary.csv"}
    path = out / "01_bad" / "failed" / "01_bad.ipynb"
    assert told(path).endswith("ZeroDivisionError: division by zero")
    failed = nbformat.read(path, as_version=4)
    [error] = [output for cell in failed.cells for output in cell.get("outputs", []) if output.output_type == "error"]
    assert len(error.traceback) > 1
    printed = capfd.readouterr()
    assert "ZeroDivisionError: division by zero" in printed.err
    assert "1 failed, 1 done\n" in printed.out
    assert "division by zero" in (out / "index.html").read_text()


FAILED = {f"05_tiny/failed/{name}" for name in ("05_tiny.ipynb", "05_tiny.html", "failure.json", "stderr.log")}


def test_run_that_leaves_no_record_failed_and_an_older_one_stays(tmp_path):
    folder = tmp_path / "out" / "05_tiny"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(RECORD))  # of an earlier run
    with pytest.raises(RunError, match="code cell 2, RunError: the notebook left no record .*metrics.json"):
        run_notebook(write_notebook(tmp_path, "print(1)"), folder)
    assert names(tmp_path / "out") == FAILED | {"05_tiny/metrics.json"}


def test_a_record_that_is_none_is_told(tmp_path):
    save = WRITE_RECORD.replace('"versions"', '"version"')
    with pytest.raises(RunError, match="code cell 2, RunError: .*metrics.json: the record has no 'versions'"):
        run_notebook(write_notebook(tmp_path, save), tmp_path / "out" / "05_tiny")
    assert names(tmp_path / "out") == FAILED


def test_a_process_that_dies_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))  # no Python starts with this
    with pytest.raises(RunError, match="the process ended with status 1"):
        run_notebook(write_notebook(tmp_path), tmp_path / "out" / "05_tiny")
    assert names(tmp_path / "out") == FAILED


def test_an_interrupted_run_leaves_nothing_half_written(tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_supervise", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_notebook(write_notebook(tmp_path), tmp_path / "out" / "05_tiny")
    assert list((tmp_path / "out").iterdir()) == []


def test_cell_time_out_is_told_in_the_cell(tmp_path):
    notebook = write_notebook(tmp_path, "import time; time.sleep(60)", "print(1)")
    with pytest.raises(RunError, match="CellTimeoutError: .* after 3 seconds"):
        run_notebook(notebook, tmp_path / "out", cell_timeout=3)
    assert told(tmp_path / "out" / "failed" / "05_tiny.ipynb").startswith("code cell 2, CellTimeoutError")


def test_process_time_out_ends_the_kernel_too(tmp_path, monkeypatch):
    pids = tmp_path / "pids"

    class PatientPopen(psutil.Popen):
        """Counts the time only once the kernel is there, however long its start takes on a loaded machine."""

        def wait(self, timeout=None):
            while not pids.exists() and self.poll() is None:
                time.sleep(0.1)
            return super().wait(timeout)

    monkeypatch.setattr(psutil, "Popen", PatientPopen)
    notebook = write_notebook(
        tmp_path,
        "import os, pathlib, signal, subprocess, sys",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(pids)!r}).write_text(f'{{os.getpid()}} {{child.pid}}')\n"
        "child.wait()",
    )
    with pytest.raises(RunError, match="code cell 3, RunTimeout: the run was ended after 1 s"):
        run_notebook(notebook, tmp_path / "out", timeout=1)
    kernel, its_child = map(int, pids.read_text().split())
    assert not is_alive(kernel)
    assert not is_alive(its_child)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def failing_papermill(monkeypatch, *, cells_before: int, failures: int) -> list:
    """Replace papermill: `failures` calls raise after `cells_before` cells; returns the list that counts the calls."""
    calls = []

    def execute_notebook(*_, on_cell_execute, **__):
        calls.append(1)
        for index in range(1, 1 + cells_before):
            on_cell_execute(cell=None, cell_index=index)
        if len(calls) <= failures:
            raise RuntimeError("Kernel didn't respond in 60 seconds")

    monkeypatch.setattr(papermill, "execute_notebook", execute_notebook)
    return calls


def test_kernel_start_is_tried_again(tmp_path, monkeypatch):
    target = shutil.copy(write_notebook(tmp_path), tmp_path / "target.ipynb")
    calls = failing_papermill(monkeypatch, cells_before=0, failures=2)
    module._execute(str(write_notebook(tmp_path)), str(target), {}, 1)
    assert len(calls) == 3
    assert told(target) == ""


@pytest.mark.parametrize(("cells_before", "expected_calls"), [(0, 3), (1, 1)])
def test_a_start_that_keeps_failing_and_a_failed_cell_end_the_run(tmp_path, monkeypatch, cells_before, expected_calls):
    target = shutil.copy(write_notebook(tmp_path), tmp_path / "target.ipynb")
    calls = failing_papermill(monkeypatch, cells_before=cells_before, failures=99)
    module._execute(str(write_notebook(tmp_path)), str(target), {}, 1)
    assert len(calls) == expected_calls
    assert "RuntimeError: Kernel didn't respond" in told(target)


def test_page_escapes_what_a_run_says(tmp_path):
    (tmp_path / "a&b" / "failed").mkdir(parents=True)
    (tmp_path / "a&b" / "failed" / "<b>.html").touch()
    entry = Entry(Path("a.ipynb"), {}, {}, "", tmp_path / "a&b", {}, {}, state="failed", reason="E: <script>")
    write_tables(tmp_path, "<i>", [entry])
    page = (tmp_path / "index.html").read_text()
    assert "<td>a&amp;b<td>failed E: &lt;script&gt;<td>" in page and "<h1>&lt;i&gt;</h1>" in page
    assert '<a href="a%26b/failed/%3Cb%3E.html">&lt;b&gt;.html</a>' in page
    assert "<script>" not in page
