"""Chapter 06: its idea equals the helper, its own tools do what they say, its grid and texts fit what it ran."""

import numpy as np
import pytest
from chapter import cell_with, cells, prose, recorded
from scipy import ndimage
from scipy.stats import ttest_rel
from skimage import feature, filters, measure, segmentation
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression

from helpers import segment
from helpers.active import holm, paired_gain
from helpers.grids import read_grid
from helpers.runs import repo_root

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


TABLE, PROBE, SCRATCH = ("logistic", "SVM", "forest", "boosting"), "frozen CNN, logistic", "CNN from scratch"
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
    """Draws (5,) of a network and of the mean of the four classifiers of the table, with so many images."""
    four = np.mean([table["classify", data, f"table, {one}: accuracy"] for one in TABLE], axis=0)
    k = SEEN.index(images)
    return table["classify", data, f"{name}: accuracy"][:, k], four[:, k]


def test_what_the_chapter_says_of_recorded_curves():
    table = recorded("shallow_methods")
    probe = {(data, n): told(gain(table, data, PROBE, n)) for data in DATA for n in SEEN}
    scratch = {(data, n): told(gain(table, data, SCRATCH, n)) for data in DATA for n in SEEN}
    says(
        f"gain {probe['phantom', 60]} over the table with 60 images, and {probe['phantom', 201]} with 201",
        f"behind with 21 ({scratch['phantom', 21]}) and ahead with 120 ({scratch['phantom', 120]}) and 201",
        f"201 ({scratch['phantom', 201]}): it crosses between 21 and 120",
        f"frozen features are ({probe['sample', 120]} and {probe['sample', 201]})",
    )
    chest = [table["classify", "public", f"{n}: accuracy"].mean(0)[-1] for n in ("table, forest", PROBE, SCRATCH)]
    says("the forest on the table has {:.2f}, the two networks {:.2f}".format(*chest[:2]))
    assert round(chest[1], 2) == round(chest[2], 2)


def test_no_other_gain_over_the_table_is_shown():
    table = recorded("shallow_methods")
    keys = [(data, name, n) for data in DATA for name in (PROBE, SCRATCH) for n in SEEN]
    gains = {key: paired_gain(*gain(table, *key)) for key in keys}
    ahead = {key for key, (mean, half) in gains.items() if round(mean - half, 3) > 0}
    expected = {("phantom", PROBE, n) for n in (60, 120, 201)} | {("phantom", SCRATCH, n) for n in (120, 201)}
    assert ahead == expected | {("sample", PROBE, n) for n in (120, 201)}


def test_what_the_chapter_says_of_recorded_seconds():
    table = recorded("shallow_methods")
    names = ("table, logistic", PROBE, SCRATCH)
    last = [[table["classify", data, f"{name}: seconds"].mean(0)[-1] for data in DATA] for name in names]
    (t0, t1), (p0, p1), (s0, s1) = ((min(seconds), max(seconds)) for seconds in last)
    says(
        f"logistic regression takes {t0:.1f} to {t1:.1f} seconds, features included",
        f"frozen features {p0:.1f} to {p1:.1f}, and the network from scratch {s0:.0f} to {s1:.0f}",
    )


def test_what_the_chapter_says_of_outlines_holds_in_the_records():
    table = recorded("shallow_methods")
    names = ("expert's outline", "click", "disc", "whole image", "whole table, no outline")
    mean = {name: table["classify", "phantom", f"{name}: accuracy"].mean(0).round(2) for name in names}
    ten, sixty = ([mean[name][k] for name in names] for k in (0, 2))
    says(
        f"With the expert's outline of ten lesions balanced accuracy is {ten[0]:.2f}, with 60 it is {sixty[0]:.2f}",
        f"yet only {ten[1]:.2f} and {sixty[1]:.2f}",
        f"The disc has {ten[2]:.2f} and {sixty[2]:.2f}, the 15 numbers of the whole image",
        f"of the whole image {ten[3]:.2f} and {sixty[3]:.2f}",
        f"no outline at all ({ten[4]:.2f} and {sixty[4]:.2f})",
    )


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

    def at(data, pair, slices):
        return told([dice[data, name][:, SLICES.index(slices)] for name in pair])

    few, many = (at("public", PAIRS[0], slices) for slices in (5, 50))
    assert many.startswith("−")
    says(f"gains {few} with five slices, and *loses* {many[1:]} with fifty")
    rule = [table["combine", data, "rule alone: Dice"].mean() for data in ("phantom", "public")]
    says("the rule is poorer ({:.2f}, on real hearts {:.2f})".format(*rule))
    assert all(at("phantom", PAIRS[0], slices).startswith("−") for slices in SLICES)
    says(f"The rule as teacher gains {at('phantom', PAIRS[1], 5)} on phantoms with five slices")
    teacher = [dice[d, PAIRS[1][0]].mean(0)[1:] - dice[d, PAIRS[1][1]].mean(0)[1:] for d in DATA[:2]]
    assert 0.035 < np.abs(teacher).max() < 0.045
    says("With ten slices and more it is within 0.04 of as many steps")
    last = [dice[d, a].mean(0) - dice[d, b].mean(0) for d in DATA[:2] for a, b in PAIRS[2:]]
    assert np.abs(last).max() < 0.045
    says("a contour or a CRF changes at most 0.04")
