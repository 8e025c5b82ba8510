"""Chapter 05: its idea equals the helper, exercises can be solved, its grid and texts fit what it ran."""

import nbformat
import numpy as np
import pytest
import torch
from scipy.stats import ttest_rel

from helpers.active import holm, paired_gain
from helpers.attention import SqueezeExcitation
from helpers.grids import read_grid
from helpers.mil import mil, segment_softmax
from helpers.runs import records, repo_root

NETS = ("plain", "gate", "gate sum", "se", "se sum", "cbam", "cbam sum", "wide")
CHAPTER = repo_root() / "notebooks" / "05_attention.ipynb"


def cells(tag: str) -> list[str]:
    """Sources of the code cells of the chapter that have a tag."""
    book = nbformat.read(CHAPTER, as_version=4)
    return [cell.source for cell in book.cells if cell.cell_type == "code" and tag in cell.metadata.get("tags", [])]


@pytest.mark.parametrize("seed", range(3))
def test_gated_attention_written_out_equals_the_helper(seed):
    (source,) = cells("idea")
    namespace = {"torch": torch}
    exec(source, namespace)
    rng, model = np.random.default_rng(seed), mil(6, hidden=8, seed=seed)
    for layer in (model.v, model.u, model.w):
        torch.nn.init.zeros_(layer.bias)  # the equation has none
    instances = torch.from_numpy(rng.normal(size=(20, 6)).astype(np.float32))
    bags = torch.from_numpy(rng.permutation(np.repeat(np.arange(4), [1, 4, 6, 9])))
    with torch.inference_mode():
        h = model.embed(instances)
        pooled, weights = namespace["gated_attention"](h, bags, model.v.weight, model.u.weight, model.w.weight[0])
        torch.testing.assert_close(weights, model.explain(instances, bags)[0])
        torch.testing.assert_close(model.classifier(pooled), model(instances, bags))
    assert weights.std() > 0.05  # not the mean


@pytest.mark.parametrize("number", range(3))
def test_a_stub_is_not_yet_right_and_its_solution_is(number, capsys):
    first = {"np": np, "torch": torch, "SqueezeExcitation": SqueezeExcitation, "segment_softmax": segment_softmax}
    namespace = first | {"cost": lambda net, *inputs: (sum(p.numel() for p in net.parameters()), 0)}
    for tag, answer in (("exercise", "not yet"), ("solution", "correct")):
        exec(cells(tag)[number], namespace)
        assert capsys.readouterr().out.strip() == answer


def test_runs_of_the_grid_are_rows_of_the_chapter():
    runs = read_grid(repo_root() / "grids" / "attention.yaml").runs
    found = {(run["row"], run["data"], run["seed"]) for run in runs}
    tables = {"segment": ("phantom", "public"), "bags": ("phantom", "sample"), "hunger": ("phantom", "public")}
    assert found == {(row, data, seed) for row, places in tables.items() for data in places for seed in range(5)}
    assert len(runs) == len(found)


def recorded():
    """(row, data, name of the metric): values of the five draws, in the order of the seeds."""
    runs, table = records("attention"), {}
    assert {run["state"] for run in runs} == {"recorded"}
    for run in runs:
        for name, value in run["record"]["metrics"].items():
            table.setdefault((run["params"]["row"], run["params"]["data"], name), []).append(value)
    assert {len(values) for values in table.values()} == {5}
    return {key: np.array(values) for key, values in table.items()}


def test_what_the_chapter_says_of_recorded_slices():
    table = recorded()

    def dice(data, name):
        return table["segment", data, f"{name}: Dice"]

    def gain(data, name, control):
        return [round(v, 2) for v in paired_gain(*(dice(data, one).mean(1) for one in (name, control)))]

    assert gain("phantom", "gate", "gate sum") == [0.06, 0.26]
    assert gain("public", "gate", "gate sum") == [0.01, 0.02]
    for data in ("phantom", "public"):
        for block in ("se", "cbam"):
            mean, half = paired_gain(*(dice(data, name).mean(1) for name in (block, f"{block} sum")))
            assert mean < half
    means = {name: dice("phantom", name).mean() for name in NETS}
    assert set(sorted(means, key=means.get)[:2]) == {"cbam", "cbam sum"}
    for name, low, high in (("plain", 0.01, 0.37), ("gate", 0.0, 0.6)):
        assert (round(dice("phantom", name)[:, 0].min(), 2), round(dice("phantom", name)[:, 0].max(), 2)) == (low, high)
    thirty = dice("phantom", "gate sum")[:, 1]
    assert round(thirty.min(), 2) == 0.28 and (np.sort(thirty)[2:] > 0.855).all()
    passed = {data: table["segment", data, "gate: pixel AUC"] for data in ("phantom", "public")}
    assert (round(passed["phantom"].min(), 2), round(passed["phantom"].max(), 2)) == (0.22, 0.88)
    assert (passed["public"] > 0.7).all()


def test_what_the_chapter_says_of_recorded_bags():
    table = recorded()

    def gain(data, control):
        pair = [table["bags", data, f"{name}: slide AUC"].mean(1) for name in ("attention", control)]
        return [round(v, 2) for v in paired_gain(*pair)]

    assert gain("phantom", "mean") == [0.0, 0.03]
    assert np.abs(gain("sample", "mean")).tolist() == [0.0, 0.12]
    assert gain("sample", "max") == [-0.14, 0.11]
    most = table["bags", "phantom", "max: slide AUC"].mean(0)
    assert (round(most[0], 2), round(most[-1], 2)) == (0.58, 0.9)
    for data, told in (("phantom", (0.79, 0.92)), ("sample", (0.93, 0.98))):
        by = [table["bags", data, f"{name}: AUC of tiles"] for name in ("attention", "own logit")]
        assert tuple(round(v.mean(), 2) for v in by) == told and (by[1] > by[0]).all()


def test_what_the_chapter_says_of_recorded_films_and_its_verdict():
    table = recorded()
    films = {
        (data, name): table["hunger", data, f"{name}: AUC"].mean(0).round(2).tolist()
        for data in ("phantom", "public")
        for name in ("histogram", "cnn", "vit")
    }
    assert films["phantom", "vit"][2:] == [0.58, 0.92]
    assert films["phantom", "histogram"][2] == 0.67
    assert films["phantom", "cnn"][1] == 0.99
    assert films["public", "vit"][2] == films["public", "cnn"][1] == 0.94
    found = {
        name: table["hunger", "phantom", name] for name in ("ViT rollout: AUPRC", "sobel: AUPRC", "CBAM: pixel AUC")
    }
    assert [round(v.mean(), 2) for v in list(found.values())[:2]] == [0.23, 0.13]
    signs = found["CBAM: pixel AUC"]
    assert (round(signs.min(), 2), round(signs.max(), 2)) == (0.09, 0.93)
    pairs = [("segment", d, "Dice", b, f"{b} sum") for d in ("phantom", "public") for b in ("se", "cbam", "gate")]
    pairs += [("bags", d, "slide AUC", "attention", "wide mean") for d in ("phantom", "sample")]
    pairs += [("hunger", d, "AUC", "vit", "cnn") for d in ("phantom", "public")]
    scores = {p: [table[p[0], p[1], f"{name}: {p[2]}"].mean(1) for name in p[3:]] for p in pairs}
    adjusted = holm([ttest_rel(*pair).pvalue for pair in scores.values()])
    assert [p[:2] for p, value in zip(pairs, adjusted, strict=True) if value < 0.05] == [("hunger", "phantom")]
    gains = {p: paired_gain(*pair) for p, pair in scores.items()}
    assert [round(v, 2) for v in gains[pairs[8]]] == [-0.28, 0.05]
    assert [round(v, 2) for v in gains[pairs[9]]] == [-0.03, 0.02]
    narrow = [p for p in pairs if p[:2] in {("segment", "public"), ("bags", "phantom")}]
    assert len(narrow) == 4 and all(sum(gains[p]) < 0.05 for p in narrow)
