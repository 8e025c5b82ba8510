"""Chapter 05: its idea equals the helper, exercises can be solved, its grid and texts fit what it ran."""

import numpy as np
import pytest
import torch
from chapter import cells, prose, recorded
from scipy.stats import ttest_rel

from helpers.active import holm, paired_gain
from helpers.attention import SqueezeExcitation
from helpers.grids import read_grid
from helpers.mil import mil, segment_softmax
from helpers.runs import repo_root

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
    mean = {key: values.mean(1) for key, values in dice.items()}
    gains = [told([mean[data, name] for name in ("gate", "gate sum")]) for data in ("phantom", "public")]
    says(f"the gate gains {gains[0]} on tumours and {gains[1]} on ventricles")
    for data in ("phantom", "public"):
        for block in ("se", "cbam"):
            gain, half = paired_gain(mean[data, block], mean[data, f"{block} sum"])
            assert gain < half
    assert set(sorted(NETS, key=lambda name: mean["phantom", name].mean())[:2]) == {"cbam", "cbam sum"}
    (plain, gate), thirty = (
        (dice["phantom", name][:, 0] for name in ("plain", "gate")),
        dice["phantom", "gate sum"][:, 1],
    )
    says(
        f"the plain network has between {plain.min():.2f} and {plain.max():.2f}",
        f"that with gates between {gate.min():.2f} and {gate.max():.2f}",
        "fell to {:.2f}, while its sisters have {:.2f} to {:.2f}".format(*np.sort(thirty)[[0, 1, -1]]),
    )
    hundred = [dice["phantom", name][:, 2].mean() for name in ("plain", "wide", "gate", "gate sum")]
    says(f"the plain, the wide and both gated networks have {min(hundred):.2f} to {max(hundred):.2f}")
    tumour, ventricle = (table["segment", data, "gate: pixel AUC"] for data in ("phantom", "public"))
    says(
        f"its AUC lies between {tumour.min():.2f} (dark) and {tumour.max():.2f} (bright)", "above 0.7 in all five draws"
    )
    assert (ventricle > 0.7).all()


def test_what_the_chapter_says_of_recorded_bags():
    table = recorded("attention")
    auc = {
        (d, n): table["bags", d, f"{n}: slide AUC"] for d in ("phantom", "sample") for n in ("attention", "mean", "max")
    }

    def gain(data, control):
        return told([auc[data, name].mean(1) for name in ("attention", control)])

    says(f"{gain('phantom', 'mean')} over the mean on phantoms, {gain('sample', 'mean')} on tissue")
    assert gain("sample", "max").startswith("-")
    says(f"beats attention by {gain('sample', 'max')[1:]}")
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
        "over edges by AUPRC ({:.2f} against {:.2f})".format(*both["AUPRC"]),
        "hardly ahead ({:.2f} against {:.2f})".format(*both["pointing game"]),
    )
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
    assert len(narrow) == 4 and max(narrow) < 0.05
    times = [
        table["segment", data, f"{block}: seconds"].mean() / table["segment", data, "plain: seconds"].mean()
        for data in ("phantom", "public")
        for block in ("se", "cbam", "gate")
    ]
    says(f"up to {max(times):.1f} times the time")
