"""The copies for a class, made by `make student`: no solution is left, all else is, and exercises are open."""

import nbformat
import pytest
from chapter import cells
from command import run
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from helpers.runs import repo_root

CHAPTERS = sorted((repo_root() / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("student")
    assert run("student", *CHAPTERS, "--out", folder).returncode == 0
    return folder


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_copy_lacks_the_solutions_and_nothing_else(copies, path):
    book, copy = (nbformat.read(one, as_version=4) for one in (path, copies / path.name))
    solutions = [cell for cell in book.cells if "solution" in cell.metadata.get("tags", [])]
    assert solutions and not cells(copies / path.name, "solution")
    kept = [cell for cell in book.cells if cell not in solutions]
    assert [cell.id for cell in copy.cells] == [cell.id for cell in kept]
    changed = [cell.source for cell, old in zip(copy.cells, kept, strict=True) if cell.source != old.source]
    assert len(changed) <= 1 and not any("folded below" in cell.source for cell in copy.cells)
    assert [cell.get("outputs") for cell in copy.cells] == [cell.get("outputs") for cell in kept]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_committed_exercises_are_open_and_their_solutions_are_right(path):
    book = nbformat.read(path, as_version=4)
    for tag, said in (("exercise", "not yet"), ("solution", "correct")):
        tagged = [cell for cell in book.cells if tag in cell.metadata.get("tags", [])]
        assert [cell.outputs[0].text.splitlines()[0] for cell in tagged] == [said] * len(tagged) and tagged


@pytest.mark.parametrize(("said", "status"), [("not yet\n", 0), ("correct\n", 1), ("", 1)])
def test_exercises_that_are_not_open_are_found(tmp_path, said, status):
    def exercise(text):
        return new_code_cell("x", metadata={"tags": ["exercise"]}, outputs=[new_output("stream", text=text)])

    nbformat.write(new_notebook(cells=[exercise("not yet\n"), exercise(said)]), tmp_path / "a.ipynb")
    done = run("student", tmp_path / "a.ipynb", "--open")
    assert done.returncode == status
    assert ("expected 'not yet' from each" in done.stderr) == bool(status)


def test_a_notebook_without_exercises_is_found(tmp_path):
    nbformat.write(new_notebook(cells=[new_markdown_cell("x")]), tmp_path / "a.ipynb")
    assert run("student", tmp_path / "a.ipynb", "--open").returncode == 1
