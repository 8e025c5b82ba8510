"""Each chapter, run whole in profile smoke on a small folder of each kind that it takes."""

import pytest
from own_folders import MAKE, NEEDED, classes

from helpers.data.takes import LEAST, TAKES
from helpers.runs import repo_root
from helpers.runs.notebook import run_notebook
from helpers.runs.record import read_record

CASES = [(chapter, kind) for chapter, (_, kinds) in TAKES.items() for kind in kinds]


def run(chapter, folder, out, **given):
    given = {"profile": "smoke", "data": "folder", "data_dir": str(folder), **given}
    record = read_record(run_notebook(repo_root() / "notebooks" / f"{chapter}.ipynb", out / chapter, given))
    assert record["data"]["name"].startswith("own-") or " own-" in record["data"]["name"]
    return record


@pytest.mark.parametrize(("chapter", "kind"), CASES)
def test_a_chapter_runs_on_what_it_takes(tmp_path, chapter, kind):
    structure = {"structure": 3} if (chapter[:2], kind) == ("08", "volumes") else {}
    run(chapter, MAKE[kind](tmp_path / kind), tmp_path / "out", **NEEDED.get(kind, {}), **structure)


@pytest.mark.parametrize("chapter", [chapter for chapter, kind in CASES if kind == "classes" and chapter[:2] != "00"])
def test_a_chapter_runs_where_a_class_is_rare(tmp_path, chapter):
    """Three of sixty images are abnormal: one for each part of a split; or as many as the chapter asks for."""
    run(chapter, classes(tmp_path / "few", abnormal=LEAST[chapter]), tmp_path / "out")
