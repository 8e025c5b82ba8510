"""Chapter 04: its idea equals the helper, exercises can be solved, and the grid fits its rows."""

import numpy as np
import pytest
from chapter import cells, recorded
from scipy.stats import ttest_rel

from helpers import acquire, active
from helpers.acquire import Pool
from helpers.active import paired_gain
from helpers.grids import read_grid
from helpers.runs import repo_root

CHAPTER = repo_root() / "notebooks" / "04_active_learning.ipynb"


@pytest.mark.parametrize("seed", range(5))
def test_badge_written_out_equals_the_helper(seed):
    (source,) = cells(CHAPTER, "idea")
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
        exec(cells(CHAPTER, tag)[number], namespace)
        assert capsys.readouterr().out.strip() == answer


def test_runs_of_the_grid_are_rows_of_the_chapter():
    runs = read_grid(repo_root() / "grids" / "active_learning.yaml").runs
    found = {(run["row"], run["data"], run["seed"]) for run in runs}
    three, two = ("phantom", "public", "sample"), ("phantom", "public")
    tables = {"probe": three, "finetune": three, "slices": two}
    assert found == {(row, data, seed) for row, places in tables.items() for data in places for seed in range(5, 10)}
    assert len(runs) == len(found)


def test_what_the_chapter_says_of_recorded_runs():
    table = recorded("active_learning")

    def gain(row, data, strategy, pool=""):
        pair = [table[row, data, f"{pool}{name}: area"] for name in (strategy, "random")]
        return [*paired_gain(*pair), ttest_rel(*pair).pvalue]

    def shown(row, data, pool=""):
        """Strategies whose difference from random survives Holm's correction within the column."""
        others = [m for m in acquire.STRATEGIES if m != "random" and (row, data, f"{pool}{m}: area") in table]
        adjusted = active.holm([gain(row, data, m, pool)[2] for m in others])
        return {m for m, p in zip(others, adjusted, strict=True) if p < 0.05}

    places = ("phantom", "public", "sample")
    assert [shown("probe", data) for data in places] == [set(), set(), {"entropy"}]
    assert [shown("finetune", data) for data in places] == [set(), set(), set()]
    doubt = [round(gain("probe", "sample", m)[0], 2) for m in ("entropy", "least_confidence", "margin", "suggestive")]
    assert doubt == [-0.05, -0.04, -0.03, -0.05]
    three = [table["probe", "public", f"{m}: area"] for m in ("least_confidence", "margin", "entropy")]
    assert np.array_equal(three[0], three[1]) and np.array_equal(three[0], three[2])
    assert [round(gain("probe", data, "k_centre", "rare ")[0], 2) for data in places] == [0.08, 0.06, 0.15]
    for data, margin, badge in (("phantom", 0.01, 0.02), ("sample", 0.14, 0.14)):
        found = [round(gain("probe", data, m, "rare ")[0], 2) for m in ("margin", "badge")]
        assert found == [margin, badge]
    assert round(gain("probe", "sample", "k_centre", "copies ")[0], 2) == 0.06
    assert [shown("probe", data, "copies ") for data in places] == [set(), set(), {"k_centre"}]
    mean, half, _ = gain("probe", "phantom", "margin", "noisy expert ")
    assert round(mean, 2) == -0.09 and half > -mean


def test_what_the_chapter_says_of_recorded_slices():
    table = recorded("active_learning")
    for place, m, told in (("public", "entropy", (-0.03, 0.02)), ("phantom", "k_centre", (-0.05, 0.04))):
        last = [table["slices", place, f"{name}: Dice"][:, -1] for name in (m, "random")]
        assert tuple(round(v, 2) for v in paired_gain(*last)) == told
    outlined = table["slices", "phantom", "k_centre: outlined"][:, -1]
    assert ((outlined >= 38) & (outlined <= 40)).all()
    falls = [np.diff(table["slices", place, "entropy: Dice"]).min() for place in ("phantom", "public")]
    assert round(min(falls), 2) == -0.02
