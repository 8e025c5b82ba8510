"""Chapter 04: its idea equals the helper, exercises can be solved, and the grid fits its rows."""

import numpy as np
import pytest
from chapter import cells, prose, recorded
from scipy.stats import ttest_rel

from helpers import stats
from helpers.grids import read_grid
from helpers.labels import acquire
from helpers.labels.acquire import Pool
from helpers.runs import repo_root
from helpers.stats import paired_gain

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
    namespace = {"np": np, "acquire": acquire, "stats": stats, "Pool": Pool}
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


def says(*texts):
    """Every text, each with numbers from the records, stands in the prose of the chapter."""
    for text in texts:
        assert text in prose(CHAPTER)


def told(mean, half):
    """A gain as the chapter writes it: "0.02 ± 0.01"."""
    return f"{mean:.2f} ± {half:.2f}"


def pairs_with_random(table, cases, pools=("",)):
    """{(row, data, pool, strategy): (areas, areas of random)} of all tests against random: a family."""
    return {
        (row, data, pool, m): [table[row, data, f"{pool}{name}: area"] for name in (m, "random")]
        for row, data in cases
        for pool in pools
        for m in acquire.STRATEGIES
        if m != "random" and (row, data, f"{pool}{m}: area") in table
    }


def survivors(family):
    """The tests whose p value stays below 0.05 with Holm's correction for the family."""
    adjusted = stats.holm([ttest_rel(*pair).pvalue for pair in family.values()])
    return {key for key, p in zip(family, adjusted, strict=True) if p < 0.05}


PLACES = ("phantom", "public", "sample")


def test_what_the_chapter_says_of_recorded_pools_as_they_are():
    table = recorded("active_learning")
    family = pairs_with_random(table, [(row, data) for row in ("probe", "finetune") for data in PLACES])
    assert len(family) == 42 and survivors(family) == set()
    says("corrected for 42 comparisons that is a hint")
    least = [stats.detectable_gain(*pair, comparisons=42) for pair in family.values()]
    says(f"only a true gain of {np.median(least):.2f} or more would have been seen")
    gain = {key: paired_gain(*pair) for key, pair in family.items()}
    assert max(mean - half for (*_, m), (mean, half) in gain.items() if m != "class_balanced") < 0
    looks = ("entropy", "least_confidence", "margin", "suggestive")
    doubt = [round(gain["probe", "sample", "", m][0], 2) for m in looks]
    assert doubt == [-0.05, -0.04, -0.03, -0.05]
    assert min(gain["probe", "sample", "", m][0] for m in ("bald", "badge")) > 0
    mean, half = gain["probe", "sample", "", "entropy"]
    says(f"(*entropy*: {told(-mean, half)})")
    three = [table["probe", "public", f"{m}: area"] for m in ("least_confidence", "margin", "entropy")]
    assert np.array_equal(three[0], three[1]) and np.array_equal(three[0], three[2])
    films = [pair for key, pair in gain.items() if key[:2] == ("finetune", "public")]
    assert all(0 < mean < half for mean, half in films)
    says(f"up to {max(mean for mean, _ in films):.2f} (the oracle)")


def test_what_the_chapter_says_of_recorded_harder_pools():
    table = recorded("active_learning")
    pools = ("rare ", "copies ", "noisy expert ")
    family = pairs_with_random(table, [("probe", data) for data in PLACES], pools)
    kept = {("probe", "sample", "rare ", m) for m in ("k_centre", "badge", "class_balanced")}
    assert len(family) == 45 and survivors(family) == kept
    gain = {key[1:]: paired_gain(*pair) for key, pair in family.items()}
    tissue = [gain["sample", "rare ", m][0] for m in ("k_centre", "badge", "class_balanced")]
    says(
        "gain {:.2f} and {:.2f} there, the oracle {:.2f}".format(*tissue),
        "stay below 0.05, corrected for 45 comparisons",
    )
    assert round(gain["sample", "rare ", "margin"][0], 2) == round(tissue[1], 2)
    others = [gain[data, "rare ", "k_centre"] for data in ("phantom", "public")]
    says("On phantoms and chest films *k-centre* gains {:.2f} and {:.2f}".format(*(mean for mean, _ in others)))
    assert all(mean > half for mean, half in others)
    assert max(gain[data, "rare ", m][0] for data in ("phantom", "public") for m in ("margin", "badge")) < 0.03
    says(f"*k-centre* gains {gain['sample', 'copies ', 'k_centre'][0]:.2f} on tissue")
    says(f"*TypiClust* gains {told(*gain['public', 'noisy expert ', 'typiclust'])} on chest films")
    shown = {key for key, (mean, half) in gain.items() if mean > half and "rare " not in key}
    assert shown == {("sample", "copies ", "k_centre"), ("public", "noisy expert ", "typiclust")}
    mean, half = gain["phantom", "noisy expert ", "margin"]
    says(f"with a noisy expert ({-mean:.2f}) has an interval that includes zero")
    assert half > -mean


def test_what_the_chapter_says_of_recorded_slices():
    table = recorded("active_learning")
    behind = []
    for place in ("phantom", "public"):
        last = {m: table["slices", place, f"{m}: Dice"][:, -1] for m in ("random", "k_centre", "entropy")}
        behind.append(last["k_centre"] < last["random"])
    assert np.all(behind) and (last["entropy"] < last["random"]).all()
    outlined = table["slices", "phantom", "k_centre: outlined"][:, -1]
    assert ((outlined >= 38) & (outlined <= 40)).all()
    falls = [np.diff(table["slices", place, "entropy: Dice"]).min() for place in ("phantom", "public")]
    says(f"it never falls by more than {np.ceil(-100 * min(falls)) / 100:.2f}")
