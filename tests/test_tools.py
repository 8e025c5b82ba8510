"""The tools behind `make badges` and `make refresh`."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def run(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)


@pytest.fixture
def copy(tmp_path) -> Path:
    """A repository with one notebook, as `tools/badges.py` sees it, that has moved to another owner."""
    for name in ("README.md", "CITATION.cff", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    toml = (tmp_path / "pyproject.toml").read_text(encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text(re.sub(r"github\.com/[\w/-]+", "github.com/somebody/else", toml))
    v4 = nbformat.v4
    setup = v4.new_code_cell('SLUG = "a/b"\nTAG = "v0"\nprint(SLUG)', metadata={"tags": ["setup"]})
    setup.outputs = [v4.new_output("stream", text="a/b\n")]
    title = v4.new_markdown_cell("# One\n<!-- badges --><!-- /badges -->\nafter")
    cells = [title, setup, v4.new_code_cell('TAG = "x"')]
    (tmp_path / "notebooks").mkdir()
    nbformat.write(v4.new_notebook(cells=cells), tmp_path / "notebooks" / "01_one.ipynb")
    return tmp_path


def test_badges_rewrites_every_marked_place_once(copy):
    assert run("tools/badges.py", "--check", "--root", copy).returncode == 1
    assert run("tools/badges.py", "--root", copy).returncode == 0
    written = {file: file.read_bytes() for file in copy.rglob("*.*") if file.is_file()}
    assert run("tools/badges.py", "--root", copy).stdout.endswith("nothing rewritten\n")
    assert written == {file: file.read_bytes() for file in written}

    title, setup, other = nbformat.read(copy / "notebooks" / "01_one.ipynb", as_version=4).cells
    version = PROJECT["version"]
    assert f"/github/somebody/else/blob/v{version}/notebooks/01_one.ipynb" in title.source
    assert f"/gh/somebody/else/v{version}?labpath=notebooks%2F01_one.ipynb" in title.source
    assert any(line.startswith("[![Open in Colab](") for line in title.source.splitlines())  # or it is not rendered
    assert title.source.startswith("# One\n")
    assert title.source.endswith("\nafter")
    assert setup.source == f'SLUG = "somebody/else"\nTAG = "v{version}"\nprint(SLUG)'
    assert setup.outputs[0].text == "a/b\n"
    assert other.source == 'TAG = "x"'
    readme = (copy / "README.md").read_text(encoding="utf-8")
    assert "git clone https://github.com/somebody/else small-sample\n" in readme
    assert "PengyiZhang" not in readme
    assert "somebody/else" in (copy / "CITATION.cff").read_text(encoding="utf-8")


def test_badges_names_the_notebook_that_has_no_marks(copy):
    path = copy / "notebooks" / "01_one.ipynb"
    path.write_text(path.read_text(encoding="utf-8").replace("<!-- badges -->", ""), encoding="utf-8")
    done = run("tools/badges.py", "--root", copy)
    assert done.returncode == 1
    assert done.stderr.startswith("01_one.ipynb: its first cell has no")


CLAIM = {
    "text": "AUC",
    "value": 0.93,
    "reference": 0.93,
    "atol": 0.02,
    "at_least": None,
    "at_most": None,
    "holds": True,
}


def refresh(folder: Path, *, claim: dict, source: str = "print(1 + 1)") -> subprocess.CompletedProcess:
    """Refresh a notebook without outputs from an executed one that has `claim` in its record."""
    v4, runs, book = nbformat.v4, folder / "runs", folder / "01_one.ipynb"
    nbformat.write(v4.new_notebook(cells=[v4.new_code_cell("print(1 + 1)", id="one")]), book)
    ran = v4.new_code_cell(source, id="other", execution_count=1, metadata={"papermill": {"duration": 1.5}})
    ran.outputs = [v4.new_output("stream", text="2\n")]
    (runs / "01_one").mkdir(parents=True)
    nbformat.write(v4.new_notebook(cells=[ran]), runs / book.name)
    (runs / "01_one" / "metrics.json").write_text(json.dumps({"claims": [claim]}))
    return run("tools/refresh.py", runs, book)


def test_refresh_takes_over_outputs_and_nothing_else(tmp_path):
    done = refresh(tmp_path, claim=CLAIM)
    assert done.returncode == 0, done.stderr
    assert "holds  0.93  reference 0.93 ± 0.02  AUC" in done.stdout
    [cell] = nbformat.read(tmp_path / "01_one.ipynb", as_version=4).cells
    assert (cell.outputs[0].text, cell.execution_count, cell.id, cell.metadata) == ("2\n", 1, "one", {})


@pytest.mark.parametrize("value", [0.99, None])
def test_refresh_prints_the_reference_that_moved_and_leaves_the_notebook(tmp_path, value):
    done = refresh(tmp_path, claim=CLAIM | {"value": value, "holds": False})
    assert done.returncode == 1
    assert f"MOVED  {value}  reference 0.93 ± 0.02  AUC" in done.stdout
    assert nbformat.read(tmp_path / "01_one.ipynb", as_version=4).cells[0].outputs == []


def test_refresh_refuses_outputs_of_other_code(tmp_path):
    done = refresh(tmp_path, claim=CLAIM, source="print(2)")
    assert done.returncode == 1
    assert "has other cells" in done.stderr
    assert nbformat.read(tmp_path / "01_one.ipynb", as_version=4).cells[0].outputs == []
