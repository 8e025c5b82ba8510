"""Chapter 03: its idea equals the helper, exercises can be solved, grids fit its rows, and its texts the records."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from chapter import cell_with, cells
from torch import nn

from helpers import adapt
from helpers.active import paired_gain
from helpers.data import ImageSets, load
from helpers.grids import read_grid
from helpers.runs import records, repo_root

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
        ("home, its test tiles", "as trained"): 0.97,
        ("home, its test tiles", "new statistics"): 0.95,
        ("away, all tiles", "as trained"): 0.57,
        ("away, all tiles", "new statistics"): 0.96,
        ("away, eight tiles", "new statistics"): 0.88,
        ("away, only tumour", "new statistics"): 0.63,
        ("home, only tumour", "new statistics"): 0.63,
    }
    assert {key: round(mean[key], 2) for key in said} == said
    eight = table["away, eight tiles", "new statistics"]
    assert (round(min(eight), 2), round(max(eight), 2)) == (0.76, 0.97)
    assert all(abs(mean[case, "TENT"] - mean[case, "new statistics"]) < 0.01 for case, _ in mean)


def test_what_the_chapter_says_of_the_cameras():
    runs = records("transfer_adapt")
    assert {run["state"] for run in runs} == {"recorded"}
    cup = {}  # (camera, row, statistics): mean over seeds and test images
    for run in runs:
        for way in ("as trained", "target"):
            values = np.array(run["record"]["metrics"][f"cup, {way}"], float)
            cup.setdefault((run["params"]["data"], run["params"]["row"], way), []).append(np.nanmean(values))
    cup = {key: np.mean(values) for key, values in cup.items()}

    def share(camera, row, way):
        ends = (cup[camera, row, "as trained"] for row in ("source_only", "oracle"))
        return round(adapt.share_of_gap(cup[camera, row, way], **dict(zip(("source", "oracle"), ends, strict=True))), 2)

    assert all(cup["phantom", row, "target"] > 0.92 for row in rows("ADAPT"))
    assert share("phantom", "source_only", "target") >= 1 and share("phantom", "adversary", "as trained") == 0.80
    assert share("phantom", "mixed_norms", "as trained") == 0.66
    said = dict(source_only=0.60, oracle=0.82, adversary=0.59, entropy=0.48)
    assert {row: round(cup["public", row, "as trained"], 2) for row in said} == said
    assert cup["public", "source_only", "target"] < cup["public", "source_only", "as trained"]
    assert cup["public", "adversary", "target"] < cup["public", "adversary", "as trained"] - 0.1
    said = dict(histogram_match=0.76, fourier=0.67, mean_teacher=0.65, jitter=0.62, polar=0.60)
    assert {row: share("public", row, "as trained") for row in said} == said


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
        "pneumoniamnist probe 5": 0.72,
        "pneumoniamnist scratch 50": 0.79,
        "pneumoniamnist self_supervised 50": 0.8,
        "tissue finetune 5": 0.83,
        "tissue finetune 50": 0.85,
        "tissue norms 5": 0.83,
        "tissue norms 50": 0.86,
        "tissue probe 5": 0.74,
        "tissue probe 50": 0.88,
        "tissue self_supervised 50": 0.68,
        "xray finetune 50": 0.93,
        "xray norms 50": 0.87,
        "xray probe 50": 0.79,
    }
    assert {name: round(np.mean(table[name]), 2) for name in said} == said
    gains = {  # of a row over another: mean and half the interval
        ("histology finetune 50", "histology histogram 50"): (-0.02, 0.02),
        ("pneumoniamnist finetune 5", "pneumoniamnist histogram 5"): (0.15, 0.06),
        ("pneumoniamnist semi_supervised 5", "pneumoniamnist finetune 5"): (-0.16, 0.16),
        ("pneumoniamnist semi_supervised 50", "pneumoniamnist finetune 50"): (-0.01, 0.03),
        ("tissue semi_supervised 5", "tissue finetune 5"): (-0.15, 0.17),
    }
    for (row, control), told in gains.items():
        assert tuple(round(value, 2) for value in paired_gain(table[row], table[control])) == told


def test_recorded_eyes_are_those_that_are_made_now():
    """A generator that changes makes records stale; their hash of the data tells."""
    crop = dict(size=64, view="disc", target="disc")
    now = ImageSets(
        load("fundus", images=n, patients=n, scanner=name, seed=seed, **crop)
        for n, name, seed in ((80, "zeiss", 1), (90, "drishti", 2))
    )
    made = [run["record"] for run in records("transfer_adapt") if run["params"]["data"] == "phantom"]
    assert {(r["data"]["name"], r["data"]["hash"]) for r in made} == {(now.name, now.content_hash())}
