"""Chapter 06: its idea equals the helper, its own tools do what they say, its grid and texts fit what it ran."""

import itertools

import numpy as np
import pytest
from chapter import cell_with, cells, prose, recorded
from scipy import ndimage
from scipy.stats import ttest_rel
from skimage import feature, filters, measure, segmentation
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression

from helpers import segment
from helpers.runs import repo_root
from helpers.runs.grid import read_grid
from helpers.stats import detectable_gain, holm, paired_gain

CHAPTER = repo_root() / "notebooks" / "06_shallow_methods.ipynb"
SEEN, SLICES = [6, 12, 21, 60, 120, 201], [5, 10, 20, 50]


@pytest.mark.parametrize("smooth", [1, 2, 5])
def test_the_cheapest_path_written_out_equals_the_helper(smooth):
    (source,) = cells(CHAPTER, "idea")
    namespace = {"np": np}
    exec(source, namespace)
    cost = np.random.default_rng(smooth).normal(size=(20, 30))
    path = namespace["optimal_path"](cost, smooth)
    assert path.tolist() == segment.optimal_path(cost, smooth=smooth).tolist()
    assert path.tolist() != cost.argmin(0).tolist()  # not merely the best row of each column


@pytest.mark.parametrize("number", range(3))
def test_a_stub_is_not_yet_right_and_its_solution_is(number, capsys):
    namespace = {"np": np, "segment": segment, "filters": filters}
    namespace |= {"SelectKBest": SelectKBest, "LogisticRegression": LogisticRegression}
    for tag, answer in (("exercise", "not yet"), ("solution", "correct")):
        exec(cells(CHAPTER, tag)[number], namespace)
        assert capsys.readouterr().out.strip() == answer


def tool(name):
    """A function that the chapter defines."""
    names = dict(np=np, ndimage=ndimage, feature=feature, filters=filters, measure=measure, segmentation=segmentation)
    namespace = names | dict(segment=segment, RADIUS=3)
    exec(cell_with(CHAPTER, f"def {name}("), namespace)
    return namespace[name]


def disc(centre, radius, size=40) -> np.ndarray:
    return np.hypot(*(np.indices((size, size)) - np.reshape(centre, (2, 1, 1)))) <= radius


def test_watershed_parts_two_discs_that_touch_and_keeps_the_foreground():
    part, one, two = tool("part"), disc((20, 12), 9), disc((20, 26), 6)
    regions = part(one | two)
    assert measure.label(one | two).max() == 1 and regions.max() == 2
    assert ((regions > 0) == (one | two)).all()
    for own, other, centre in ((one, two, (20, 12)), (two, one, (20, 26))):  # the dam lies where they touch
        assert (regions[own & ~other] == regions[centre]).mean() > 0.9
    assert not part(np.zeros((40, 40), bool)).any()


def test_the_rule_takes_the_compact_bright_part_near_the_middle_with_its_holes():
    bright_blob, heart, liver = tool("bright_blob"), disc((22, 19), 6), disc((36, 36), 9)
    image = np.select([disc((22, 19), 1), heart, liver, disc((20, 20), 15)], [0.5, 1.0, 1.0, 0.5], 0.1)
    image += np.random.default_rng(0).normal(0, 0.03, image.shape)
    assert (bright_blob(image) ^ heart).sum() <= 4  # the opening takes the tips of a disc
    for constant in (0.0, 0.7):
        assert not bright_blob(np.full((40, 40), constant)).any()
    assert not bright_blob((np.indices((40, 40)).sum(0) % 2).astype(float)).any()  # two grey values: no three groups


def test_tools_from_a_click_stay_near_it_and_the_disc_does_not_look():
    from_a_dot = tool("from_a_dot")
    lesion = disc((30, 34), 9, size=64)
    noise = np.random.default_rng(0).normal(0, 0.03, lesion.shape)
    found = from_a_dot(np.where(lesion, 0.3, 0.7) + noise, (30, 34), 8)
    for name, region in found.items():
        overlap = 2 * (region & lesion).sum() / (region.sum() + lesion.sum())
        assert overlap > (0.8 if name != "region growing" else 0.3), name
    other = from_a_dot(1 - np.where(lesion, 0.3, 0.7) + noise, (30, 34), 8)
    assert (other["disc (control)"] == found["disc (control)"]).all()
    assert (other["graph search"] != found["graph search"]).any()


def test_the_limit_for_all_cuts_what_lies_far_from_the_click_or_apart_from_it():
    namespace = dict(np=np, ndimage=ndimage, RADIUS=3, usual=4)
    exec(cell_with(CHAPTER, "def limited("), namespace)
    near, far, apart = disc((20, 14), 6), disc((20, 34), 3), disc((33, 14), 2)
    bridge = np.zeros_like(near)
    bridge[20, 14:34] = True
    found = namespace["limited"](near | bridge | far | apart, (20, 14))
    assert found[near].all() and not found[far].any() and not found[apart].any()
    assert found[20, 14 + 12] and not found[20, 14 + 13]  # three usual radii, not one pixel more


def test_images_of_one_class_only_are_refused():
    one_class = np.zeros((6, 1, 64, 64)), np.ones(6, int), np.arange(4), np.arange(4, 6), []
    with pytest.raises(ValueError, match="the images to train with are all of class 1; expected two or more"):
        exec(cell_with(CHAPTER, "are all of class"), {"row": "classify", "np": np, "images_of": lambda: one_class})


def test_runs_of_the_grid_are_rows_of_the_chapter():
    runs = read_grid(repo_root() / "grids" / "shallow_methods.yaml").runs
    found = {(run["row"], run["data"], run["seed"]) for run in runs}
    tables = {"classify": ("phantom", "public", "sample"), "combine": ("phantom", "public")}
    assert found == {(row, data, seed) for row, places in tables.items() for data in places for seed in range(5)}
    assert len(runs) == len(found)


TABLE, PROBE, SCRATCH = "table, logistic", "frozen CNN, logistic", "CNN from scratch"
FOUR = [f"table, {one}" for one in ("logistic", "SVM", "forest", "boosting")]
DATA = ("phantom", "public", "sample")


def says(*texts):
    """Every text, each with numbers from the records, stands in the prose of the chapter."""
    for text in texts:
        assert text in prose(CHAPTER)


def told(pair, digits=2):
    """The mean gain of scores over a control, draw by draw, as the chapter writes it: "0.07 ± 0.02"."""
    mean, half = paired_gain(*pair)
    return f"{mean:.{digits}f} ± {half:.{digits}f}".replace("-", "−")


def gain(table, data, name, images):
    """Draws (5,) of a network, and of the table read by the same kind of classifier, with so many images."""
    k = SEEN.index(images)
    return tuple(table["classify", data, f"{one}: accuracy"][:, k] for one in (name, TABLE))


def gains(table):
    """{(data, network, images): draws of both} of all 36 comparisons, and the keys of those that are shown."""
    pairs = {key: gain(table, *key) for key in itertools.product(DATA, (PROBE, SCRATCH), SEEN)}
    adjusted = holm([ttest_rel(*pair).pvalue for pair in pairs.values()])
    return pairs, {key for key, p in zip(pairs, adjusted, strict=True) if p < 0.05}


def test_what_the_chapter_says_of_recorded_curves():
    pairs, shown = gains(recorded("shallow_methods"))
    assert len(pairs) == 36
    assert shown == {("phantom", PROBE, 60), ("phantom", SCRATCH, 21), ("phantom", SCRATCH, 120)}
    says(
        "There are 36 comparisons",
        f"Frozen features lead the table with 60 images by {told(pairs['phantom', PROBE, 60])}",
        f"behind with 21 ({told(pairs['phantom', SCRATCH, 21])}) and ahead with 120"
        f" ({told(pairs['phantom', SCRATCH, 120])}): the lines cross between 21 and 120. These three are shown",
    )
    mean, half = zip(*(paired_gain(*pairs["phantom", SCRATCH, n]) for n in (120, 201)), strict=True)
    assert mean[1] > mean[0] and half[1] > half[0]
    says("With 201 it is further ahead on average, and the draws differ more")
    tissue = sorted(paired_gain(*pairs["sample", PROBE, n])[0] for n in (120, 201))
    says("With 120 and 201 images frozen features are ahead by {:.2f} to {:.2f} on average".format(*tissue))


def test_what_five_draws_would_have_shown():
    pairs, _ = gains(recorded("shallow_methods"))
    least = [detectable_gain(*pair, comparisons=36) for (*_, n), pair in pairs.items() if n <= 21]
    says(f"With 6 to 21 images only a gain of {min(least):.2f} or more, in some places of {max(least):.2f}")
    says(
        f"and only a gain of {min(least):.1f} or more would have been",
        f"cannot be relied on to show a gain below {min(least):.1f}",
    )


def test_what_the_chapter_says_of_recorded_seconds():
    table = recorded("shallow_methods")
    last = {
        name: [table["classify", data, f"{name}: seconds"].mean(0)[-1] for data in DATA]
        for name in (*FOUR, PROBE, SCRATCH)
    }
    assert max(max(last[name]) for name in (*FOUR, PROBE)) < 2
    assert all(0.7 < probe / one < 1.3 for probe, one in zip(last[PROBE], last[TABLE], strict=True))
    ratios = [scratch / one for name in FOUR for scratch, one in zip(last[SCRATCH], last[name], strict=True)]
    low, high = min(ratios), max(ratios)
    says(
        "a table takes about as long as frozen features, one or two seconds at most",
        f"scratch takes {min(last[SCRATCH]):.0f} to {max(last[SCRATCH]):.0f} seconds, {low:.0f} to {high:.0f} times",
        f"training from scratch takes {low:.0f} to {high:.0f} times as long",
    )


def test_what_the_chapter_says_of_outlines_holds_in_the_records():
    table = recorded("shallow_methods")
    names = ("expert's outline", "click", "whole table, no outline")
    mean = {name: table["classify", "phantom", f"{name}: accuracy"].mean(0).round(2) for name in names}
    ten, sixty = ([mean[name][k] for name in names] for k in (0, 2))
    says(
        f"With the true outline of ten lesions balanced accuracy is {ten[0]:.2f}, with 60 it is {sixty[0]:.2f}",
        f"yet only {ten[1]:.2f} and {sixty[1]:.2f}",
        f"with no outline at all, lies between the two ({ten[2]:.2f} and {sixty[2]:.2f})",
    )


def test_which_outlines_are_shown_to_be_better():
    table = recorded("shallow_methods")
    true, click, whole = "expert's outline", "click", "whole table, no outline"
    ladder = itertools.product(((true, click), (click, "disc"), (click, whole), (true, whole)), range(4))
    pairs = {(p, k): [table["classify", "phantom", f"{n}: accuracy"][:, k] for n in p] for p, k in ladder}
    adjusted = dict(zip(pairs, holm([ttest_rel(*both).pvalue for both in pairs.values()]), strict=True))
    shown = {key for key, p in adjusted.items() if p < 0.05}
    assert shown == {((true, click), k) for k in (1, 2, 3)} | {((click, "disc"), k) for k in range(4)}
    gains = {key: np.subtract(*both) for key, both in pairs.items()}
    lost = [gains[(true, click), k] <= 0 for k in range(4)]
    assert np.sum(lost) == 1 and all((gains[(click, whole), k] < 0).all() for k in range(4))
    says("it loses in all draws but one, shown from 20 lesions on", "ahead of the click in every draw, but neither")
    says("at every number of lesions it is shown to be better than the disc")


PAIRS = (("rule as input", "empty input"), ("rule as teacher", "as many steps"), ("contour", "largest part"))
PAIRS += (("CRF", "largest part"), ("CRF", "U-Net"), ("largest part", "U-Net"))


def test_what_the_chapter_says_of_recorded_combinations():
    table = recorded("shallow_methods")
    dice = {(d, n): table["combine", d, f"{n}: Dice"] for d in DATA[:2] for pair in PAIRS for n in pair}
    scores = {(d, *pair): [dice[d, name].mean(1) for name in pair] for d in DATA[:2] for pair in PAIRS}
    adjusted = holm([ttest_rel(*pair).pvalue for pair in scores.values()])
    shown = [key for key, p in zip(scores, adjusted, strict=True) if p < 0.05]
    assert shown == [("public", "rule as input", "empty input"), ("public", "CRF", "U-Net")]
    says(
        f"the rule as input gains {told(scores[shown[0]], 3)} over an empty channel",
        f"the CRF {told(scores[shown[1]], 3)} over the bare network",
    )

    least = {key: detectable_gain(*pair, comparisons=len(scores)) for key, pair in scores.items()}
    tidied = [least[d, *pair] for d in DATA[:2] for pair in PAIRS[2:]]
    assert min(tidied) > 0.003 and max(tidied) < 0.04 and min(least["phantom", *pair] for pair in PAIRS[:2]) > 0.25
    says("a gain of some hundredths would have been shown", "on phantoms only a gain of a quarter or more")
    last = [dice[d, a].mean(0) - dice[d, "U-Net"].mean(0) for d in DATA[:2] for a in ("largest part", "contour", "CRF")]
    assert 0.04 < np.abs(last).max() < 0.05
    says("a contour or a CRF changes the mean by less than 0.05")


def test_what_the_chapter_says_of_each_number_of_slices():
    table = recorded("shallow_methods")
    keys = itertools.product(DATA[:2], PAIRS, range(len(SLICES)))
    pairs = {(d, p, SLICES[k]): [table["combine", d, f"{n}: Dice"][:, k] for n in p] for d, p, k in keys}
    adjusted = holm([ttest_rel(*pair).pvalue for pair in pairs.values()])
    shown = [key for key, p in zip(pairs, adjusted, strict=True) if p < 0.05]
    assert len(pairs) == 48 and shown == [("public", ("largest part", "U-Net"), 50)]
    assert np.subtract(*pairs[shown[0]]).mean() < 0.01
    says(
        "of the 48 comparisons, corrected as one family, only one is shown, and it is a trifle (the largest part, with"
    )

    def draws(data, pair, slices):
        return np.subtract(*pairs[data, pair, slices])

    rule, teacher = PAIRS[:2]
    assert (draws("public", rule, 5) > 0).all() and (draws("public", rule, 10) > 0).all()
    assert (draws("public", rule, 50) < 0).all() and all((draws("phantom", rule, n) < 0).all() for n in SLICES[1:])
    says("gains in all five draws with five and with ten slices, and *loses* in all five with fifty")
    says("it loses in all five with ten and more")
    alone = [table["combine", data, "rule alone: Dice"].mean() for data in DATA[:2]]
    assert alone[0] < alone[1] - 0.2
    says("on phantoms, where the rule is poorer")
    few, many = (detectable_gain(*pairs["public", rule, n], comparisons=len(pairs)) for n in (5, 50))
    says(f"a gain below {few:.2f} with five slices of real hearts, or a loss below {many:.2f} with fifty")
    saved = int(np.argmax(draws("phantom", teacher, 5)))
    assert pairs["phantom", teacher, 5][1][saved] < 0.05 and np.sort(draws("phantom", teacher, 5))[-2] < 0.25
    says("The rule as teacher helps much in one draw, on phantoms with five slices")
    later = [abs(draws(d, teacher, n).mean()) for d in DATA[:2] for n in SLICES[1:]]
    assert 0.035 < max(later) < 0.045
    says("With ten slices and more its mean is within 0.04 of them")


def test_what_the_chapter_says_of_ten_slices_of_phantoms():
    table = recorded("shallow_methods")
    mean = {n: table["combine", "phantom", f"{n}: Dice"][:, 1].mean() for pair in PAIRS for n in pair}
    rule = mean.pop("rule as input")
    draws = table["combine", "phantom", "U-Net: Dice"][:, 1]
    assert np.ptp(list(mean.values())) < draws.std(ddof=1) and min(mean.values()) - rule > 0.05
    says("means of all ways with a network lie closer together than the draws of one, with one exception: the rule as")
