"""The recorded runs are whole and small, their weights are theirs, and chapter 01 says of its table what it holds."""

import hashlib
import re

import pytest
from chapter import prose

from helpers.data import load
from helpers.runs import records, repo_root
from helpers.runs.record import read_ledger, record_name, records_in

ROOT = repo_root()
RESULTS = ROOT / "results"
FILE_LIMIT, TOTAL_LIMIT = 5e6, 40e6
MEASURES = ("pointing", "IoU", "AUPRC", "deletion", "insertion")
CHAPTER = ROOT / "notebooks" / "01_explanation.ipynb"
METHODS = ("CAM", "sobel", "centre", "random")
LEDGERS = sorted(RESULTS.glob("*.json"))


@pytest.mark.parametrize("ledger", LEDGERS, ids=lambda path: path.stem)
def test_every_ledger_is_whole(ledger):
    places = (ROOT / "notebooks" / f"{ledger.stem}.ipynb", ROOT / "experiments" / f"{ledger.stem}.py")
    assert any(place.is_file() for place in places)
    content = read_ledger(ledger)
    assert content["notebook"] == ledger.stem and content["runs"]
    assert set(content["code"]) == {record["code"] for record in content["runs"].values()}
    for entry in content["code"].values():
        assert re.fullmatch("[0-9a-f]{40}", entry["commit"]) and re.fullmatch("([0-9a-f]{40})?", entry["verified"])
    for name, record in content["runs"].items():
        assert record["notebook"] == ledger.stem and record_name(record["params"]) == name
        assert re.fullmatch("[0-9a-f]{40}", record["commit"]), f"{name}: made from {record['commit']}"
        assert record["params"].get("data_dir", "") == "", f"{name}: data_dir is a path"


def test_weights_are_those_of_their_records_and_nothing_else_lies_there():
    kept = {}
    for ledger in LEDGERS:
        for record in records_in(ledger):
            if record["checkpoint"]:
                kept[record["checkpoint"]["file"]] = record["checkpoint"]["sha256"]
    there = {file.name for file in RESULTS.iterdir() if file.suffix not in (".json", ".lock")}
    assert kept and there == set(kept)
    for name, digest in kept.items():
        assert hashlib.sha256((RESULTS / name).read_bytes()).hexdigest() == digest, name


def test_results_are_small():
    sizes = {file: file.stat().st_size for file in RESULTS.iterdir()}
    assert 0 < max(sizes.values()) <= FILE_LIMIT and sum(sizes.values()) <= TOTAL_LIMIT


def test_explanation_table_can_be_built():
    """Seeds 0 to 2 of the live settings, each with every number of the notebook's table, on the same data."""
    found = [row["record"] for row in records("01_explanation")]
    assert [record["params"]["seed"] for record in found] == [0, 1, 2]
    assert len({record["data"]["hash"] for record in found}) == 1
    for record in found:
        values = [record["metrics"][f"{method}/{measure}"] for method in METHODS for measure in MEASURES]
        assert all(0 <= value <= 1 for value in values)


def chapter_01_metrics(run: str) -> dict:
    return read_ledger(RESULTS / "01_explanation.json")["runs"][run]["metrics"]


def said_in_chapter_01(*sentences: str) -> bool:
    text = prose(CHAPTER)
    return all(sentence in text for sentence in sentences)


SMALL = [f"teach-sample-seed{seed}" for seed in range(3)]


def test_what_chapter_01_says_of_its_recorded_table():
    """The order of the maps in every seed, and the numbers in the text, in the order of the seeds."""
    metrics = [chapter_01_metrics(run) for run in SMALL]
    for m in metrics:
        for measure in ("AUPRC", "pointing"):
            best = m[f"integrated gradients/{measure}"]
            assert all(best >= m[name] for name in m if name.endswith(f"/{measure}"))
        assert m["difference/pointing"] > m["occlusion/pointing"]
        assert m["difference/IoU"] > m["integrated gradients/IoU"]
        assert all(m[f"difference/{measure}"] > m[f"CAM/{measure}"] for measure in MEASURES[:3])
    assert said_in_chapter_01(
        "integrated gradients come first by AUPRC and pointing",
        "the difference is ahead of occlusion by pointing, and of integrated gradients by IoU, in all three",
        "the plain difference is ahead of CAM by all three measures of localisation",
    )
    unlettered = "shortcut auc, fooled, no letters"
    for name in ("CAM/AUPRC", "shuffled integrated gradients/AUPRC", "sensitivity", unlettered):
        said = "{:.2f}, {:.2f} and {:.2f}".format(*(m[name] for m in metrics))
        assert said_in_chapter_01(said), f"the text does not say that {name} is {said}"
    assert sum(m["ece_scaled"] < m["ece_raw"] for m in metrics) == 1
    assert said_in_chapter_01("of the recorded ones it did so in one of three")


def test_what_chapter_01_says_of_shuffled_labels():
    """CAM loses the lesion in most networks; integrated gradients keep a part in the small ones, none in the large."""
    small, large = [chapter_01_metrics(run) for run in SMALL], chapter_01_metrics("full-sample-seed0")
    lost = [m["shuffled CAM/AUPRC"] < m["random/AUPRC"] + 0.01 for m in [*small, large]]
    assert lost == [True, True, False, True]
    assert all(m["shuffled integrated gradients/AUPRC"] > 3 * m["random/AUPRC"] for m in small)
    assert large["shuffled integrated gradients/AUPRC"] < large["random/AUPRC"] + 0.01
    third = "{:.2f} becomes {:.2f}".format(*(small[2][f"{labels}CAM/AUPRC"] for labels in ("", "shuffled ")))
    nothing = f"keep nothing ({large['shuffled integrated gradients/AUPRC']:.2f})"
    assert said_in_chapter_01("with DenseNet-169 and in two of three small networks", third, nothing)


def test_what_chapter_01_says_of_the_cascade():
    """Grad-CAM 3 climbs back above one half after block 3 in two of three trainings, at one stage."""
    curves = [chapter_01_metrics(run)["randomised Grad-CAM 3"] for run in SMALL]
    assert [sum(value > 0.5 for value in curve[5:]) for curve in curves] == [1, 0, 1]
    assert said_in_chapter_01(
        "In two of the three recorded trainings Grad-CAM 3 climbs back above one half at one late"
    )


def test_what_chapter_01_says_of_the_large_network():
    for data in ("phantom", "sample"):
        params = read_ledger(RESULTS / "01_explanation.json")["runs"][f"full-{data}-seed0"]["params"]
        assert (params["profile"], params["model"]) == ("full", "densenet169")
    chest, arms = chapter_01_metrics("full-sample-seed0"), chapter_01_metrics("full-phantom-seed0")
    assert chest["CAM/AUPRC"] > chest["difference/AUPRC"]
    assert all(m["CAM/AUPRC"] < m["difference/AUPRC"] for m in map(chapter_01_metrics, SMALL))
    assert arms["integrated gradients/AUPRC"] == max(arms[name] for name in arms if name.endswith("/AUPRC"))
    assert abs(arms["Grad-CAM 1/AUPRC"] - arms["guided backprop/AUPRC"]) < 0.02
    assert arms["integrated gradients/deletion"] > arms["random/deletion"]
    assert arms["shortcut auc, fooled, letters swapped"] < arms["shortcut auc, fooled, no letters"] - 0.1
    assert said_in_chapter_01(
        "CAM of the large network is above the plain difference by AUPRC, which the small network's CAM never was",
        f"Guided backprop, our bad example, has an AUPRC of {arms['guided backprop/AUPRC']:.2f}",
        f"Even the edge filter ({arms['sobel/AUPRC']:.2f}) beats CAM ({arms['CAM/AUPRC']:.2f})",
        "have {:.2f}, no better than smooth noise ({:.2f})".format(
            *(arms[f"{name}/deletion"] for name in ("integrated gradients", "random"))
        ),
    )


def test_records_of_chapter_01_saw_the_images_that_are_made_now():
    """A generator or a reader that changes makes records stale; their hash of the data tells."""
    now = load("xray", source="sample", images=900, size=96)
    for row in records("01_explanation"):
        assert row["record"]["data"] == {"name": now.name, "hash": now.content_hash()}


def test_replayed_checkpoint_is_that_of_seed_0():
    first = records("01_explanation")[0]["record"]
    assert first["name"] == "teach-sample-seed0" and first["checkpoint"] is not None
