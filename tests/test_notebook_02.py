"""Chapter 02: the size loss written out equals the helper, its exercises can be solved, its records are of its data."""

import numpy as np
import pytest
import torch
from chapter import cell_with, cells

from helpers import losses
from helpers.data import load
from helpers.data.resample import centred
from helpers.grids import read_grid
from helpers.runs import records, records_in, repo_root

CHAPTER = repo_root() / "notebooks" / "02_weak_supervision.ipynb"


@pytest.fixture
def size_loss():
    (source,) = cells(CHAPTER, "idea")
    namespace = {"torch": torch}
    exec(source, namespace)
    return namespace["size_loss"]


def value_and_slope(function, logits):
    logits = logits.clone().requires_grad_()
    value = function(logits)
    (slope,) = torch.autograd.grad(value, logits)
    return value.detach(), slope


def logits_of(images: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(0, 2, (images, 2, 8, 8)))


@pytest.mark.parametrize("bounds", [(0.0, 64.0), (20.0, 30.0), (40.0, 50.0), (5.0, 5.0)])
def test_size_loss_written_out_equals_the_helper(size_loss, bounds):
    logits, (lower, upper) = logits_of(3), (torch.full((3,), bound, dtype=torch.float64) for bound in bounds)
    ours = value_and_slope(lambda z: size_loss(z, lower, upper), logits)
    theirs = value_and_slope(lambda z: losses.size_penalty(losses.soft_sizes(z), lower, upper, pixels=64), logits)
    assert (ours[0] == 0) == (bounds == (0, 64))
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected, atol=1e-12, rtol=1e-10)


def test_size_loss_of_volumes_equals_the_helper(size_loss):
    logits, volumes = logits_of(5).float(), torch.tensor([7, 3, 7, 7, 3])
    true = torch.tensor([10.0, 0.0, 20.0, 5.0, 12.0])

    def helper(z):
        exact, slices = (losses.volume_sizes(values, volumes) for values in (true, torch.ones(5)))
        sizes = losses.volume_sizes(losses.soft_sizes(z), volumes)
        return losses.size_penalty(sizes, exact, exact, pixels=64 * slices)

    ours = value_and_slope(lambda z: size_loss(z, true, true, volumes), logits)
    for mine, expected in zip(ours, value_and_slope(helper, logits), strict=True):
        assert expected.abs().max() > 0
        torch.testing.assert_close(mine, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("number", range(3))
def test_a_stub_is_not_yet_right_and_its_solution_is(number, capsys):
    full, patch = np.zeros((1, 4, 4), np.uint8), np.full((1, 4, 4), 255, np.uint8)
    drawn = {"full": full, "eroded": patch, "box": full, "scribble": full, "point": patch, "centroid": patch}
    namespace = {"np": np, "torch": torch, "losses": losses, "drawn": drawn, "shown": 0}
    for tag, answer in (("exercise", "not yet"), ("solution", "correct")):
        exec(cells(CHAPTER, tag)[number], namespace)
        assert capsys.readouterr().out.strip() == answer


def test_rows_of_the_grid_are_rows_of_the_chapter():
    """Every row is in the grid for both data sets, the seed repository's and the best of ours with three seeds."""
    namespace = {}
    exec(cell_with(CHAPTER, "ROWS = {"), namespace)
    seeds = {}
    for run in read_grid(repo_root() / "grids" / "weak_supervision.yaml").runs:
        seeds.setdefault((run["data"], run["row"]), []).append(run["seed"])
    rows = namespace["ROWS"].items()
    wanted = {name: [0, 1, 2] if published or name == "scribble_crf" else [0] for name, (*_, published) in rows}
    assert seeds == {(data, name): numbers for data in ("phantom", "acdc") for name, numbers in wanted.items()}


@pytest.mark.parametrize("grid", ["weak_supervision", "weak_supervision_enet"])
def test_the_table_is_whole_and_of_the_present_code(grid):
    assert {run["state"] for run in records(grid)} == {"recorded"}


def test_recorded_hearts_are_those_that_are_made_now():
    """A generator that changes makes records stale; their hash of the data tells."""
    recorded = [
        r for r in records_in(repo_root() / "results" / "02_weak_supervision") if r["params"]["data"] == "phantom"
    ]
    now = centred(load("mr", images=720, patients=36, size=128), 64)
    assert {(r["data"]["name"], r["data"]["hash"]) for r in recorded} == {(now.name, now.content_hash())}


def recorded(data: str, metric: str = "dice") -> dict[str, float]:
    """Mean of the test patients of each row of the table, over the seeds."""
    values = {}
    for r in records_in(repo_root() / "results" / "02_weak_supervision"):
        if (r["params"]["data"], r["params"]["model"]) == (data, "unet"):
            values.setdefault(r["params"]["row"], []).append(np.mean(r["metrics"][metric]))
    return {row: float(np.mean(of_seeds)) for row, of_seeds in values.items()}


@pytest.mark.parametrize("data", ["phantom", "acdc"])
def test_what_the_chapter_says_of_both_tables(data):
    dice = recorded(data)
    bounds = [dice[row] for row in ("loose", "size_595", "presize_upper")]
    assert dice["partial"] < min(bounds) <= max(bounds) < dice["presize"] < dice["fs"]
    assert dice["k_means"] > dice["framework"]
    assert max(abs(dice[row] - dice["presize"]) for row in ("presize_10", "presize_20")) < 0.025
    others = dice.keys() - {"fs", "scribble_crf"}
    assert max(dice[row] for row in others) < dice["scribble_crf"] < dice["fs"]


def test_what_the_chapter_says_of_acdc():
    dice = recorded("acdc")
    assert all(0.55 < dice[row] < 0.75 for row in ("loose", "size_595", "presize_upper"))
    assert all(dice[row] >= 0.8 for row in ("presize", "3d_sizeloss")) and dice["fs"] > 0.9
    assert dice["3d_sizeloss"] < dice["presize"]
    assert dice["3d_sizeloss_random"] < dice["presize"] - 0.2
    assert recorded("acdc", "CRF dice")["3d_sizeloss_random"] > dice["3d_sizeloss_random"] + 0.05
    runs = [run["record"] for run in records("weak_supervision") if run["params"]["row"] == "3d_sizeloss_random"]
    seeds = [np.mean(r["metrics"]["dice"]).round(2) for r in runs if r["params"]["data"] == "acdc"]
    assert sorted(seeds) == [0.17, 0.47, 0.84]


def test_what_the_chapter_says_of_scribbles_and_phantoms():
    phantom, acdc = recorded("phantom"), recorded("acdc")
    assert phantom["scribble"] < phantom["partial"] + 0.05 and acdc["scribble"] > acdc["partial"] + 0.3
    assert recorded("phantom", "CRF dice")["size_595"] > phantom["size_595"] + 0.15
    assert sorted(phantom, key=phantom.get)[-3:] == ["3d_sizeloss_random", "scribble_crf", "fs"]
