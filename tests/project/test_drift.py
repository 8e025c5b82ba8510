"""`make drift`: other arithmetic is really used, and what it changes is listed once, without a second run."""

import json
import sys

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from tiny_notebook import RECORD

from tools import drift

# Stands for the runner: what it prints and claims depends on a variable. It counts its runs in the file `trace`.
RUNNER = """#!{python} -S
import json, os, pathlib, sys
source, out, other = pathlib.Path(sys.argv[3]), pathlib.Path(sys.argv[5]), "OTHER" in os.environ
with open({trace!r}, "a") as trace:
    print("other" if other else "plain", os.environ["CLAIMS"], file=trace)
book = json.loads(source.read_text())
if "luck" in str(book):
    sys.exit("05_tiny failed: no such luck")
for cell in book["cells"]:
    if cell["id"] == "run":
        cell["outputs"][0]["text"] = "Dice 0.81, AUC 0.90" if other else "Dice 0.83, AUC 0.90"
(out / source.stem / source.name).write_text(json.dumps(book))
claim = dict(text="it leads", value=0.1, reference=None, atol=None, at_least=0.2, at_most=None, holds=not other)
(out / source.stem / "metrics.json").write_text(json.dumps(dict(claims=[claim])))"""
SENTENCE = "**What we see.** Dice 0.83, AUC 0.90."
SETUP = {"tags": ["setup"]}


def notebook(*cells) -> nbformat.NotebookNode:
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=[new_code_cell("SLUG = ''", metadata=SETUP), *cells], metadata={"kernelspec": kernel})


def section(seen: str, output: str) -> nbformat.NotebookNode:
    run = new_code_cell("score()", id="run", outputs=[new_output("stream", text=output)])
    return notebook(new_markdown_cell("## 1 · One"), run, new_markdown_cell(seen, id="seen"))


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A folder with a notebook that depends on the arithmetic, of which there are two."""
    runner = tmp_path / "python"
    runner.write_text(RUNNER.format(python=sys.executable, trace=str(tmp_path / "trace")))
    runner.chmod(0o755)
    plain, other = (drift.Arithmetic(environment, python=str(runner)) for environment in ({}, {"OTHER": "1"}))
    monkeypatch.setattr(drift, "ARITHMETICS", {"plain": plain, "other": other})
    nbformat.write(section(SENTENCE, "Dice 0.83, AUC 0.90"), tmp_path / "05_tiny.ipynb")
    return tmp_path


def command(folder) -> list[str]:
    return [str(folder / "05_tiny.ipynb"), "--out", str(folder / "out")]


def runs(folder) -> list[str]:
    return (folder / "trace").read_text().splitlines()


def test_what_other_arithmetic_changes_is_listed_and_a_run_is_not_repeated(tiny, capsys):
    for _ in range(2):
        assert drift.main(command(tiny)) == 1
        assert capsys.readouterr().out.splitlines() == [
            "| chapter | cell | sentence or claim | committed | plain | other |",
            "| --- | --- | --- | --- | --- | --- |",
            "| 05_tiny | claim | it leads | ≥ 0.2 |  | 0.1 |",
            f"| 05_tiny | seen | {SENTENCE} | 0.83 |  | 0.81 |",
        ]
    assert runs(tiny) == ["plain report", "other report"]
    assert drift.main([*command(tiny), "--only", "plain"]) == 0
    assert capsys.readouterr().out == "all claims and all stated decimals hold\n"


@pytest.mark.parametrize(("old", "new", "count"), [(SENTENCE, "Dice.", 1), ("score()", "score(2)", 2)])
def test_changed_code_is_run_again_and_changed_prose_is_not(tiny, old, new, count):
    path = tiny / "05_tiny.ipynb"
    for _ in range(2):
        assert drift.main([*command(tiny), "--only", "plain"]) == 0
        path.write_text(path.read_text().replace(old, new))
    assert len(runs(tiny)) == count


def test_a_notebook_that_fails_is_told_and_tried_again(tiny, capsys):
    path = tiny / "05_tiny.ipynb"
    path.write_text(path.read_text().replace("score()", "luck()"))
    for _ in range(2):
        assert drift.main([*command(tiny), "--only", "plain"]) == 1
        assert "| the notebook runs |  | 05_tiny failed: no such luck |" in capsys.readouterr().out
    assert len(runs(tiny)) == 2


def test_one_thread_stays_one_when_a_run_asks_for_two():
    threads, kept = torch.get_num_threads(), torch.set_num_threads
    try:
        kept(2)
        exec(drift.ONE_THREAD, {})
        torch.set_num_threads(2)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads = kept
        kept(threads)


def test_another_processor_is_what_torch_computes_with(tmp_path):
    """Through the runner and its kernel; the variables are those that torch reads."""
    says = new_code_cell("import os, torch; print(torch.backends.cpu.get_cpu_capability())", id="says")
    saves = f"open(os.environ['RUN_DIR'] + '/metrics.json', 'w').write({json.dumps(RECORD)!r})"
    nbformat.write(notebook(says, new_code_cell(saves)), tmp_path / "05_tiny.ipynb")
    assert drift.run(tmp_path / "05_tiny.ipynb", drift.ARITHMETICS["default"], tmp_path / "out") == ""
    ran = nbformat.read(tmp_path / "out" / "05_tiny" / "05_tiny.ipynb", as_version=4)
    assert [cell.outputs[0].text for cell in ran.cells if cell.id == "says"] == ["DEFAULT\n"]


@pytest.mark.parametrize(
    ("seen", "committed", "prints", "moved"),
    [
        ("0.83, 0.5.", "0.83 0.5", "0.83 0.5", {}),
        ("0.83, 0.5.", "0.83 0.5", "0.5 0.83", {"0.83": "0.5", "0.5": "0.83"}),  # the same digits, at another place
        ("0.83, 0.5.", "0.83 0.5", "0.83", {"0.5": "gone"}),
        ("0.83.", "0.83 0.83", "0.81 0.83", {}),  # one of several places is enough
        ("0.83.", "0.83 0.83", "0.81 0.84", {"0.83": "0.81 / 0.84"}),
        ("0.99.", "0.83", "0.81", {}),  # was never printed: another test's business
    ],
)
def test_a_decimal_holds_where_a_place_that_prints_it_still_does(seen, committed, prints, moved):
    seen = f"**What we see.** {seen}"
    found = drift.decimals(section(seen, committed), section(seen, prints))
    assert {number: value for (_, _, number), value in found.items()} == moved


def test_claims_that_fail_are_told_with_what_was_expected():
    bare = dict(reference=None, atol=None, at_least=None, at_most=None, holds=False)
    record = [
        bare | dict(text="a", value=0.123456, reference=0.2, atol=0.05),
        bare | dict(text="b", value=None, at_most=1),
    ]
    record += [
        bare | dict(text="c", value=3, at_least=1, at_most=2),
        bare | dict(text="d", value=1, at_least=0, holds=True),
    ]
    assert drift.claims({"claims": record}) == {
        ("claim", "a", "0.2 ± 0.05"): "0.1235",
        ("claim", "b", "≤ 1"): "not finite",
        ("claim", "c", "≥ 1 and ≤ 2"): "3",
    }
