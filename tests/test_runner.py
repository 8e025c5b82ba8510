"""The notebook runner: what it refuses, how it ends runs, and what it leaves behind."""

import json
import shutil
import subprocess
import time
from pathlib import Path

import nbformat
import papermill
import psutil
import pytest

from helpers import runner
from helpers.overview import first_error, write_overview
from helpers.runner import RunError, check_parameters, main, parse_parameters, run_notebook
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
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


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
        ({"noise": False}, "05_tiny: noise is False, expected float"),
        ({"marker": 1}, "05_tiny: marker is 1, expected bool"),
        ({"profile": "tech"}, "05_tiny: profile is 'tech', expected one of smoke, teach, full"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_starts(tmp_path, no_process, parameters, message):
    notebook = write_notebook(tmp_path)
    with pytest.raises(RunError) as error:
        run_notebook(notebook, tmp_path / "out", parameters)
    assert str(error.value) == message
    assert not (tmp_path / "out").exists()


def test_right_parameters_pass(tmp_path):
    notebook = write_notebook(tmp_path)
    assert check_parameters(notebook, {"noise": 1, "seed": 3, "marker": True, "profile": "full"}) is None


def test_command_line_values_get_the_type_of_the_parameter(tmp_path):
    notebook = write_notebook(tmp_path)
    pairs = [("seed", "3"), ("noise", "1e-3"), ("marker", "True"), ("profile", "smoke")]
    assert parse_parameters(notebook, pairs) == {"seed": 3, "noise": 1e-3, "marker": True, "profile": "smoke"}


@pytest.mark.parametrize(("name", "text"), [("seed", "3.5"), ("noise", "much"), ("marker", "1")])
def test_command_line_refuses_a_wrong_value_for_every_notebook(tmp_path, no_process, capsys, name, text):
    notebook = write_notebook(tmp_path)
    assert main([str(notebook), str(notebook), "-p", name, text, "--out", str(tmp_path / "out")]) == 2
    assert f"{name} is {text!r}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_command_line_without_a_notebook_is_refused(capsys):
    with pytest.raises(SystemExit):
        main([])
    assert "no notebook" in capsys.readouterr().err


def test_unusable_notebook_and_untyped_parameter_are_refused(tmp_path, no_process):
    (tmp_path / "text.ipynb").write_text("no notebook")
    with pytest.raises(RunError, match="text.ipynb: its parameters cannot be read"):
        run_notebook(tmp_path / "text.ipynb", tmp_path)
    with pytest.raises(RunError, match="no such notebook"):
        run_notebook(tmp_path / "99_none.ipynb", tmp_path)
    notebook = write_notebook(tmp_path)
    notebook.write_text(notebook.read_text().replace("seed: int = 0", "seed = 0"))
    with pytest.raises(RunError, match="the type of seed is 'None', expected str, int, float, bool"):
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
    files = {"05_tiny.ipynb", "05_tiny.html", "05_tiny/metrics.json", "05_tiny/figure.png", "index.html"}
    assert names(out) == files
    record = json.loads((out / "05_tiny" / "metrics.json").read_text())
    assert (record["params"]["seed"], record["metrics"]) == (3, {"auc": 0.9})
    printed = capfd.readouterr().out
    assert "05_tiny  cell 5/5  " in printed
    assert "1 of 1 notebooks ran" in printed
    assert str(out / "index.html") in printed
    page = (out / "index.html").read_text()
    assert "0 of 0 claims hold" in page
    assert '<img loading="lazy" alt="Key figure of 05_tiny" src="05_tiny/figure.png">' in page


def test_failing_cell_keeps_the_notebook_with_its_traceback_and_the_others_run(tmp_path, capfd):
    bad = write_notebook(tmp_path, WRITE_RECORD, "1 / 0", "print('not reached')", name="01_bad")
    good = write_notebook(tmp_path, WRITE_RECORD, name="02_good")
    out = tmp_path / "out"
    (out / "01_bad").mkdir(parents=True)
    (out / "01_bad.ipynb").write_text("the last success")
    assert main([str(bad), str(good), "--out", str(out)]) == 1
    files = {"01_bad.failed.ipynb", "01_bad.failed.html", "02_good.ipynb", "02_good.html", "02_good/metrics.json"}
    assert names(out) == files | {"index.html"}
    failed = nbformat.read(out / "01_bad.failed.ipynb", as_version=4)
    assert first_error(failed).endswith("ZeroDivisionError: division by zero")
    [error] = [output for cell in failed.cells for output in cell.get("outputs", []) if output.output_type == "error"]
    assert len(error.traceback) > 1
    printed = capfd.readouterr()
    assert "ZeroDivisionError: division by zero" in printed.err
    assert "1 of 2 notebooks ran" in printed.out
    assert "division by zero" in (out / "index.html").read_text()


def test_run_that_leaves_no_record_failed(tmp_path):
    (tmp_path / "out" / "05_tiny").mkdir(parents=True)
    (tmp_path / "out" / "05_tiny" / "metrics.json").write_text(json.dumps(RECORD))  # of an earlier run
    with pytest.raises(RunError, match="left no record"):
        run_notebook(write_notebook(tmp_path, "print(1)"), tmp_path / "out")
    assert names(tmp_path / "out") == {"05_tiny.failed.ipynb", "05_tiny.failed.html"}


def test_a_process_that_dies_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))  # no Python starts with this
    with pytest.raises(RunError, match="the process ended with status 1"):
        run_notebook(write_notebook(tmp_path), tmp_path / "out")
    assert names(tmp_path / "out") == {"05_tiny.failed.ipynb", "05_tiny.failed.html"}


def test_an_interrupted_run_leaves_nothing_half_written(tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "_run_child", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_notebook(write_notebook(tmp_path), tmp_path / "out")
    assert names(tmp_path / "out") == set()


def test_cell_time_out_is_told_in_the_cell(tmp_path):
    notebook = write_notebook(tmp_path, "import time; time.sleep(60)", "print(1)")
    with pytest.raises(RunError, match="CellTimeoutError: .* after 3 seconds"):
        run_notebook(notebook, tmp_path / "out", cell_timeout=3)
    failed = nbformat.read(tmp_path / "out" / "05_tiny.failed.ipynb", as_version=4)
    assert first_error(failed).startswith("code cell 2, CellTimeoutError")


def test_process_time_out_ends_the_kernel_too(tmp_path, monkeypatch):
    pids = tmp_path / "out" / "05_tiny" / "pids"

    class PatientPopen(subprocess.Popen):
        """Counts the time only once the kernel is there, however long its start takes on a loaded machine."""

        def wait(self, timeout=None):
            while timeout and not pids.exists() and self.poll() is None:
                time.sleep(0.1)
            return super().wait(timeout)

    monkeypatch.setattr(subprocess, "Popen", PatientPopen)
    notebook = write_notebook(
        tmp_path,
        "import os, pathlib, signal, subprocess, sys",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "pathlib.Path(os.environ['RUN_DIR'], 'pids').write_text(f'{os.getpid()} {child.pid}')\n"
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
    runner._execute(str(write_notebook(tmp_path)), str(target), {}, 1)
    assert len(calls) == 3
    assert first_error(nbformat.read(target, as_version=4)) == ""


@pytest.mark.parametrize(("cells_before", "expected_calls"), [(0, 3), (1, 1)])
def test_a_start_that_keeps_failing_and_a_failed_cell_end_the_run(tmp_path, monkeypatch, cells_before, expected_calls):
    target = shutil.copy(write_notebook(tmp_path), tmp_path / "target.ipynb")
    calls = failing_papermill(monkeypatch, cells_before=cells_before, failures=99)
    with pytest.raises(RuntimeError, match="didn't respond"):
        runner._execute(str(write_notebook(tmp_path)), str(target), {}, 1)
    assert len(calls) == expected_calls
    assert "Kernel didn't respond" in first_error(nbformat.read(target, as_version=4))


def test_overview_escapes_what_it_shows(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x")])
    notebook.cells[0].outputs = [nbformat.v4.new_output("error", ename="E", evalue="<script>\nmore", traceback=[])]
    nbformat.write(notebook, tmp_path / "a&b.failed.ipynb")
    page = write_overview(tmp_path).read_text()
    assert "code cell 1, E: &lt;script&gt;</td>" in page
    assert "<strong>a&amp;b</strong>" in page
    assert 'href="a%26b.failed.ipynb"' in page
    assert page.count("<script") == 1, "the page's own"
