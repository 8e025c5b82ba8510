"""Chapter 03: its idea equals the helper, exercises can be solved, grids fit its rows, and its texts the records."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from chapter import cell_with, cells, prose
from scipy.stats import ttest_rel
from torch import nn

from helpers import adapt
from helpers.data import ImageSets, load
from helpers.grids import read_grid
from helpers.runs import records, repo_root
from helpers.stats import detectable_gain, holm, paired_gain

CHAPTER = repo_root() / "notebooks" / "03_transfer_learning.ipynb"


def test_adversary_written_out_equals_the_helper():
    (source,) = cells(CHAPTER, "idea")
    namespace = {"torch": torch, "F": F}
    exec(source, namespace)
    judges = [adapt.discriminator(classes=3, width=4, seed=1) for _ in range(2)]
    optimizer = torch.optim.Adam(judges[0].parameters(), lr=1e-3, betas=(0.9, 0.99))
    terms = namespace["against"](judges[0], optimizer), adapt.Adversary(judges[1])
    rng = np.random.default_rng(0)
    for _ in range(3):
        maps = torch.from_numpy(rng.normal(0, 2, (2, 4, 3, 32, 32)).astype(np.float32))
        slopes = []
        for term in terms:
            source_logits, target_logits = (m.clone().requires_grad_() for m in maps)
            value = term(source_logits, target_logits)
            value.backward()
            assert source_logits.grad is None and target_logits.grad.abs().max() > 0
            slopes.append((value.detach(), target_logits.grad))
        for ours, theirs in zip(*slopes, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=1e-5)
    for ours, theirs in zip(*(judge.parameters() for judge in judges), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=1e-5)
    start = next(adapt.discriminator(classes=3, width=4, seed=1).parameters())
    assert not torch.equal(start, next(judges[0].parameters()))  # it has learnt


class Reader(nn.Module):
    """One batch norm, and a threshold between the classes if they are mixed: a batch of one class lies at 0."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1, affine=False)
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images):
        return self.weight * self.norm(images).mean((2, 3))


@pytest.mark.parametrize("number", range(3))
def test_a_stub_is_not_yet_right_and_its_solution_is(number, capsys):
    ya = np.repeat([0, 1], 30)
    noise = np.random.default_rng(0).normal(0, 0.1, (60, 1, 4, 4))
    xa = torch.from_numpy((noise + ya[:, None, None, None]).astype(np.float32))

    def right(net, x, y):
        answers = (net(x)[:, 0] > 0.3).numpy()
        return np.mean([(answers[y == c] == c).mean() for c in (0, 1)])

    namespace = {"np": np, "torch": torch, "nn": nn, "adapt": adapt, "ya": ya, "xa": xa, "right": right}
    namespace["reader"] = Reader()
    with torch.no_grad():
        for tag, answer in (("exercise", "not yet"), ("solution", "correct")):
            exec(cells(CHAPTER, tag)[number], namespace)
            assert capsys.readouterr().out.strip() == answer


def rows(name: str) -> list[str]:
    """The keys of a table of rows in the chapter."""
    namespace = {}
    exec(cell_with(CHAPTER, f"{name} = {{"), namespace)
    return list(namespace[name])


@pytest.mark.parametrize(
    ("grid", "table", "sources", "seeds"),
    [("reuse", "REUSE", ("phantom", "public", "sample"), 5), ("adapt", "ADAPT", ("phantom", "public"), 3)],
)
def test_rows_of_the_grids_are_rows_of_the_chapter(grid, table, sources, seeds):
    runs = read_grid(repo_root() / "grids" / f"transfer_{grid}.yaml").runs
    found = {(run["data"], run["row"], run["seed"]) for run in runs}
    assert found == {(data, row, seed) for data in sources for row in rows(table) for seed in range(seeds)}
    assert len(runs) == len(found)


def test_what_the_chapter_says_of_the_second_laboratory():
    runs = records("transfer_shift")
    assert {run["state"] for run in runs} == {"recorded"}
    table = {}  # (what came in, remedy): one balanced accuracy per seed
    for run in runs:
        for name, value in run["record"]["metrics"].items():
            table.setdefault(tuple(name.split(": ")), []).append(value)
    mean = {key: np.mean(values) for key, values in table.items()}
    said = {
        ("away, all tiles", "as trained"): 0.57,
        ("away, all tiles", "new statistics"): 0.96,
        ("away, only tumour", "new statistics"): 0.63,
        ("home, only tumour", "new statistics"): 0.63,
    }
    assert {key: round(mean[key], 2) for key in said} == said
    eight = table["away, eight tiles", "new statistics"]
    assert (round(min(eight), 2), round(max(eight), 2)) == (0.76, 0.97)
    at_home = table["home, its test tiles", "new statistics"], table["home, its test tiles", "as trained"]
    gain, half = paired_gain(*at_home)
    assert gain < 0 < gain + half and round(detectable_gain(*at_home), 2) == 0.05
    everywhere = np.subtract(table["away, all tiles", "new statistics"], table["away, all tiles", "as trained"])
    assert len(everywhere) == 5 and everywhere.min() > 0.2
    assert all(abs(mean[case, "TENT"] - mean[case, "new statistics"]) < 0.01 for case, _ in mean)


WINNERS = ("histogram_match", "fourier", "mean_teacher", "jitter", "polar")


def test_what_the_chapter_says_of_the_cameras():
    runs = records("transfer_adapt")
    assert {run["state"] for run in runs} == {"recorded"}
    every = {}  # (camera, row, statistics): cup Dice (seeds, test images)
    for run in runs:
        for way in ("as trained", "target"):
            values = np.array(run["record"]["metrics"][f"cup, {way}"], float)
            every.setdefault((run["params"]["data"], run["params"]["row"], way), []).append(values)
    seeds = {key: np.mean(values, axis=1) for key, values in every.items()}
    cup = {key: np.mean(values) for key, values in every.items()}

    def share(camera, row, way):
        ends = (cup[camera, row, "as trained"] for row in ("source_only", "oracle"))
        return round(adapt.share_of_gap(cup[camera, row, way], **dict(zip(("source", "oracle"), ends, strict=True))), 2)

    others = [row for row in rows("ADAPT") if row not in ("source_only", "oracle")]
    level = cup["phantom", "oracle", "as trained"]
    assert all(cup["phantom", row, "target"] > level for row in ("source_only", *others))
    assert all(cup["phantom", row, "as trained"] > cup["phantom", "source_only", "as trained"] for row in others)

    def lead(camera, one, other):
        """Of a row with its statistics over another: mean, and by seed."""
        gains = seeds[camera, *one] - seeds[camera, *other]
        return round(gains.mean(), 3), tuple(gains.round(2) + 0.0)

    alone, adversary = ("source_only", "as trained"), ("adversary", "as trained")
    assert lead("phantom", adversary, ("mixed_norms", "as trained")) == (0.010, (0.03, 0.01, -0.01))
    assert lead("public", adversary, alone) == (-0.008, (-0.14, -0.02, 0.13))
    assert lead("public", ("source_only", "target"), alone) == (-0.020, (-0.12, -0.01, 0.07))
    assert max(lead("public", ("entropy", "as trained"), alone)[1]) < 0
    said = dict(source_only=0.60, oracle=0.82)
    assert {row: round(cup["public", row, "as trained"], 2) for row in said} == said
    gap = cup["public", "oracle", "as trained"] - cup["public", "source_only", "as trained"]
    for one in (adversary, ("source_only", "target")):  # three seeds would have missed even the whole gap
        assert detectable_gain(seeds["public", *one], seeds["public", *alone]) > gap
    five = {row: every["public", row, "as trained"] for row in WINNERS}
    assert all(0.595 < share("public", row, "as trained") < 0.765 for row in five)
    assert all((seeds["public", row, "as trained"] > seeds["public", *alone]).all() for row in five)
    images = [np.mean(values, axis=0) for values in five.values()]
    pairs = list(itertools.combinations(images, 2))
    p_values = [ttest_rel(*pair).pvalue for pair in pairs]
    assert np.sum(np.array(p_values) < 0.05) == 1 and holm(np.array(p_values)).min() > 0.1
    matched = np.mean(five["histogram_match"], axis=0) - np.mean(five["jitter"], axis=0)
    assert round(matched.mean(), 3) == 0.031 and ttest_rel(matched, 0 * matched).pvalue == min(p_values)


def test_what_the_chapter_says_of_few_labels():
    runs = records("transfer_reuse")
    assert {run["state"] for run in runs} == {"recorded"}
    table = {}  # "task row labels": one balanced accuracy per draw, in the order of the seeds
    for run in runs:
        for name, value in run["record"]["metrics"].items():
            table.setdefault(name, []).append(value)
    said = {
        "pneumoniamnist finetune 5": 0.82,
        "pneumoniamnist histogram 5": 0.67,
        "xray finetune 50": 0.93,
        "xray histogram 50": 0.66,
    }
    mean = {name: np.mean(values) for name, values in table.items()}
    assert {name: round(mean[name], 2) for name in said} == said
    assert mean["tissue probe all"] >= 0.85  # the mark that was set for it
    tasks, counts = ("xray", "histology", "pneumoniamnist", "tissue"), (5, 10, 20, 50)
    for task, row, n in itertools.product(tasks, ("norms", "finetune"), counts):
        assert (mean[f"{task} {row} {n}"] > mean[f"{task} histogram {n}"]) == (task != "histology")
    for row, n in itertools.product(("scratch", "self_supervised"), counts):
        assert all(abs(mean[f"{task} {row} {n}"] - 0.5) < 0.05 for task in tasks[:2])
    for n in counts:
        assert mean[f"pneumoniamnist self_supervised {n}"] > mean[f"pneumoniamnist histogram {n}"]
        assert mean[f"tissue self_supervised {n}"] < mean[f"tissue histogram {n}"]
    assert all(mean[f"{task} semi_supervised 5"] < mean[f"{task} finetune 5"] for task in tasks)
    pairs = [(task, row, "histogram", n) for task in tasks for row in rows("REUSE")[1:] for n in counts]
    pairs += [(task, "semi_supervised", "finetune", n) for task in tasks for n in counts]
    both = {(t, a, b, n): (table[f"{t} {a} {n}"], table[f"{t} {b} {n}"]) for t, a, b, n in pairs}
    p_values = np.array([ttest_rel(*scores).pvalue for scores in both.values()])
    held = [pair for pair, p in zip(both, holm(p_values), strict=True) if p < 0.05]
    assert (len(both), np.sum(p_values < 0.05), len(held)) == (128, 70, 15)
    gains = {pair for pair in held if np.mean(both[pair][0]) > np.mean(both[pair][1])}
    assert gains == {("xray", row, "histogram", 50) for row in ("finetune", "semi_supervised")}
    assert not [pair for pair in held if pair[2] == "finetune"]
    smallest = [np.median([detectable_gain(*scores, comparisons=n) for scores in both.values()]) for n in (128, 1)]
    assert [round(value, 2) for value in smallest] == [0.32, 0.09]


def test_what_the_chapter_says_of_labels_saved():
    """The fewest labels with which a row reaches, in the mean of the draws, what the histogram has with fifty."""
    table = {}
    for run in records("transfer_reuse"):
        for name, value in run["record"]["metrics"].items():
            table.setdefault(name, []).append(value)
    needed = {}
    for task, row in itertools.product(("xray", "histology", "pneumoniamnist", "tissue"), rows("REUSE")):
        goal = np.mean(table[f"{task} histogram 50"])
        reached = [n for n in (5, 10, 20, 50) if np.mean(table[f"{task} {row} {n}"]) >= goal]
        needed[task, row] = reached
    for row in ("norms", "finetune"):
        assert needed["tissue", row][0] == needed["pneumoniamnist", row][0] == 5
        assert needed["xray", row][0] == 10 and needed["histology", row] == []
    assert needed["tissue", "histogram"][0] == 20
    assert needed["pneumoniamnist", "self_supervised"] == [5, 20, 50]  # not with ten
    assert [key for key, reached in needed.items() if key[0] == "histology" and reached] == [("histology", "histogram")]


def test_no_title_calls_a_forearm_a_chest():
    namespace = {}
    exec(cell_with(CHAPTER, "TITLES = {"), namespace)
    assert set(namespace["TITLES"]) == {"xray", "histology", "pneumoniamnist", "tissue"}
    assert namespace["TITLES"]["xray"].startswith("forearm")
    text = prose(CHAPTER)
    assert "seed repository" not in text and "phantom films" not in text and "films, phantom" not in text


def test_recorded_eyes_are_those_that_are_made_now():
    """A generator that changes makes records stale; their hash of the data tells."""
    crop = dict(size=64, view="disc", target="disc")
    now = ImageSets(
        load("fundus", images=n, patients=n, scanner=name, seed=seed, **crop)
        for n, name, seed in ((80, "zeiss", 1), (90, "drishti", 2))
    )
    made = [run["record"] for run in records("transfer_adapt") if run["params"]["data"] == "phantom"]
    assert {(r["data"]["name"], r["data"]["hash"]) for r in made} == {(now.name, now.content_hash())}
