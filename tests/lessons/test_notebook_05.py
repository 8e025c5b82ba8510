"""Chapter 05: its idea equals the helper, exercises can be solved, its grid and texts fit what it ran."""

import numpy as np
import pytest
import torch
from chapter import cells, prose, recorded
from scipy.stats import ttest_rel

from helpers.grids import read_grid
from helpers.nets.attention import SqueezeExcitation
from helpers.nets.mil import mil, segment_softmax
from helpers.runs import repo_root
from helpers.stats import detectable_gain, holm, paired_gain

NETS = ("plain", "gate", "gate sum", "se", "se sum", "cbam", "cbam sum", "wide")
TRUST = ("pointing game", "AUPRC")
CHAPTER = repo_root() / "notebooks" / "05_attention.ipynb"


@pytest.mark.parametrize("seed", range(3))
def test_gated_attention_written_out_equals_the_helper(seed):
    (source,) = cells(CHAPTER, "idea")
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
        exec(cells(CHAPTER, tag)[number], namespace)
        assert capsys.readouterr().out.strip() == answer


def test_runs_of_the_grid_are_rows_of_the_chapter():
    runs = read_grid(repo_root() / "grids" / "attention.yaml").runs
    found = {(run["row"], run["data"], run["seed"]) for run in runs}
    tables = {"segment": ("phantom", "public"), "bags": ("phantom", "sample"), "hunger": ("phantom", "public")}
    assert found == {(row, data, seed) for row, places in tables.items() for data in places for seed in range(5)}
    assert len(runs) == len(found)


def says(*texts):
    """Every text, each with numbers from the records, stands in the prose of the chapter."""
    for text in texts:
        assert text in prose(CHAPTER)


def told(pair):
    """The mean gain of scores over a control, draw by draw, as the chapter writes it: "0.06 ± 0.26"."""
    mean, half = paired_gain(*pair)
    return f"{0 if abs(mean) < 0.005 else mean:.2f} ± {half:.2f}"


def test_what_the_chapter_says_of_recorded_slices():
    table = recorded("attention")
    dice = {(d, name): table["segment", d, f"{name}: Dice"] for d in ("phantom", "public") for name in NETS}

    def pair(data, size, block="gate"):
        return [dice[data, name][:, size] for name in (block, f"{block} sum")]

    few, many = pair("phantom", 0), pair("phantom", 2)
    says(
        f"The gain of the gates over their control is {told(few)}",
        f"only a gain as large as {detectable_gain(*few):.2f} would have been seen four times in five",
        f"the gain is {told(many)}, and {detectable_gain(*many):.2f} would have been seen",
        f"On ventricles the gates gain {told(pair('public', 2))} with 100 slices",
    )
    keys = [(d, size, block) for d in ("phantom", "public") for size in range(3) for block in ("gate", "se", "cbam")]
    gains = [paired_gain(*pair(*key)) for key in keys]
    outside = sorted(round(mean, 2) for mean, half in gains if abs(mean) > half)
    assert len(gains) == 18 and outside == [-0.02, 0.02]
    for size in range(3):
        mean, half = paired_gain(*[dice["phantom", name][:, size] for name in ("wide", "plain")])
        assert mean < half
    plain, gate = (dice["phantom", name][:, 0] for name in ("plain", "gate"))
    says(
        f"the plain network has between {plain.min():.2f} and {plain.max():.2f}",
        f"that with gates between {gate.min():.2f} and {gate.max():.2f}",
    )
    hundred = [dice["phantom", name][:, 2].mean() for name in ("plain", "wide", "gate", "gate sum")]
    says(f"plain, the wide and both gated networks have {min(hundred):.2f} to {max(hundred):.2f}")
    tumour, ventricle = (table["segment", data, "gate: pixel AUC"] for data in ("phantom", "public"))
    says(
        f"the gate's AUC lies between {tumour.min():.2f} and {tumour.max():.2f}, against all other pixels of the slice",
        "above 0.7 in all five draws",
    )
    assert (ventricle > 0.7).all()
    scattered, below = (table["segment", data, "gate sum: pixel AUC"] for data in ("phantom", "public"))
    assert np.ptp(scattered) > np.ptp(tumour) and (below < 0.7).all()


def test_what_the_chapter_says_of_recorded_bags():
    table = recorded("attention")
    auc = {
        (d, n): table["bags", d, f"{n}: slide AUC"] for d in ("phantom", "sample") for n in ("attention", "mean", "max")
    }

    def pair(data, control, size):
        return [auc[data, name][:, size] for name in ("attention", control)]

    level = pair("phantom", "mean", 2)
    says(
        f"no gain over the mean on phantoms with 20 slides, {told(level)} with 40",
        f"where {detectable_gain(*level):.2f} would have been seen",
        f"On tissue the intervals are wide (± {paired_gain(*pair('sample', 'mean', 2))[1]:.2f} with 40)",
    )
    assert abs(paired_gain(*pair("phantom", "mean", 1))[0]) < 0.005
    ahead = told(pair("sample", "max", 2))
    assert ahead.startswith("-")
    says(f"With 40 slides it is {ahead[1:]} ahead of attention")
    slides = auc["phantom", "max"].mean(0)
    says(f"climbs from {slides[0]:.2f} with 10 to {slides[-1]:.2f} with 40")
    weight, logit = (
        [table["bags", data, f"{name}: AUC of tiles"] for data in ("phantom", "sample")]
        for name in ("attention", "own logit")
    )
    assert (np.array(logit) > np.array(weight)).all()
    says("with {:.2f} (phantom) and {:.2f} (tissue)".format(*np.mean(weight, axis=1)))
    says("better by their own logit, {:.2f} and {:.2f}".format(*np.mean(logit, axis=1)))


def test_what_the_chapter_says_of_recorded_films_and_maps():
    table = recorded("attention")
    auc = {
        (d, n): table["hunger", d, f"{n}: AUC"].mean(0)
        for d in ("phantom", "public")
        for n in ("histogram", "cnn", "vit")
    }
    vit, cnn = auc["phantom", "vit"], auc["phantom", "cnn"]
    says(
        f"still near chance ({vit[2]:.2f}), and behind the histogram ({auc['phantom', 'histogram'][2]:.2f})",
        f"With 2,000 it wakes up ({vit[3]:.2f}). The CNN has {cnn[1]:.2f} with 200.",
        f"With 800 films the ViT is where the CNN was with 200 ({auc['public', 'vit'][2]:.2f})",
    )
    assert cnn[1] > vit[3] and round(auc["public", "cnn"][1], 2) == round(auc["public", "vit"][2], 2)
    both = {m: [table["hunger", "phantom", f"{n}: {m}"].mean() for n in ("ViT rollout", "sobel")] for m in TRUST}
    says(
        "ahead of edges by AUPRC (in the mean {:.2f} against {:.2f})".format(*both["AUPRC"]),
        "hardly ahead ({:.2f} against {:.2f})".format(*both["pointing game"]),
    )
    assert (table["hunger", "phantom", "ViT rollout: AUPRC"] > table["hunger", "phantom", "sobel: AUPRC"]).all()
    signs, ends = (table["hunger", "phantom", name] for name in ("CBAM: pixel AUC", "cnn + cbam: last AUC"))
    says(f"its AUC of pixels is between {signs.min():.2f} and {signs.max():.2f}", "that all end with an AUC of 1.00")
    assert (ends.round(2) == 1).all()


def test_what_the_verdict_says():
    table = recorded("attention")
    pairs = [("segment", d, "Dice", b, f"{b} sum") for d in ("phantom", "public") for b in ("se", "cbam", "gate")]
    pairs += [("bags", d, "slide AUC", "attention", "wide mean") for d in ("phantom", "sample")]
    pairs += [("hunger", d, "AUC", "vit", "cnn") for d in ("phantom", "public")]
    scores = {p[:2] + p[3:4]: [table[p[0], p[1], f"{name}: {p[2]}"].mean(1) for name in p[3:]] for p in pairs}
    adjusted = holm([ttest_rel(*pair).pvalue for pair in scores.values()])
    assert [key[:2] for key, p in zip(scores, adjusted, strict=True) if p < 0.05] == [("hunger", "phantom")]
    phantom, chest = (told(scores["hunger", data, "vit"]) for data in ("phantom", "public"))
    assert phantom.startswith("-")
    says(f"the ViT is {phantom[1:]} behind the CNN", f"Chest films point the same way ({chest})")
    narrow = [
        sum(paired_gain(*scores[key])) for key in scores if key[:2] in {("segment", "public"), ("bags", "phantom")}
    ]
    says("no room for a gain above 0.05")
    gate, tissue = (scores["segment", "phantom", "gate"], scores["bags", "sample", "attention"])
    could = [detectable_gain(*pair, comparisons=10) for pair in (scores["segment", "public", "gate"], gate, tissue)]
    says("it is {:.2f} for gates, and there".format(*could))
    says("it is {1:.2f} for gates, and on tissue it is {2:.2f}".format(*could))
    hundred = [table["segment", "phantom", f"{name}: Dice"][:, 2] for name in ("gate", "gate sum")]
    says(f"with 100 they do not help by more than {sum(paired_gain(*hundred)):.2f}")
    assert len(narrow) == 4 and max(narrow) < 0.05
    times = [
        table["segment", data, f"{block}: seconds"].mean() / table["segment", data, "plain: seconds"].mean()
        for data in ("phantom", "public")
        for block in ("se", "cbam", "gate")
    ]
    says(f"up to {max(times):.1f} times the time")
