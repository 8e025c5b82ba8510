"""Chapter 04: its idea equals the helper, exercises can be solved, and the grid fits its rows."""

import nbformat
import numpy as np
import pytest

from helpers import acquire, active
from helpers.acquire import Pool
from helpers.grids import read_grid
from helpers.runs import repo_root

CHAPTER = repo_root() / "notebooks" / "04_active_learning.ipynb"


def cells(tag: str) -> list[str]:
    """Sources of the code cells of the chapter that have a tag."""
    book = nbformat.read(CHAPTER, as_version=4)
    return [cell.source for cell in book.cells if cell.cell_type == "code" and tag in cell.metadata.get("tags", [])]


@pytest.mark.parametrize("seed", range(5))
def test_badge_written_out_equals_the_helper(seed):
    (source,) = cells("idea")
    namespace = {"np": np}
    exec(source, namespace)
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(3), size=80)
    pool = Pool(rng.normal(size=(80, 12)), rng.choice(80, 9, replace=False), probs=probs)
    picks = acquire.badge(pool, 20, seed=seed)
    assert namespace["badge"](pool, 20, seed=seed).tolist() == picks.tolist()
    assert picks.tolist() != acquire.entropy(pool, 20, seed=seed).tolist()


@pytest.mark.parametrize("number", range(3))
def test_a_stub_is_not_yet_right_and_its_solution_is(number, capsys):
    namespace = {"np": np, "acquire": acquire, "active": active, "Pool": Pool}
    for tag, answer in (("exercise", "not yet"), ("solution", "correct")):
        exec(cells(tag)[number], namespace)
        assert capsys.readouterr().out.strip() == answer


def test_runs_of_the_grid_are_rows_of_the_chapter():
    runs = read_grid(repo_root() / "grids" / "active_learning.yaml").runs
    found = {(run["row"], run["data"], run["seed"]) for run in runs}
    three, two = ("phantom", "public", "sample"), ("phantom", "public")
    tables = {"probe": three, "finetune": three, "slices": two}
    assert found == {(row, data, seed) for row, places in tables.items() for data in places for seed in range(5, 10)}
    assert len(runs) == len(found)
