"""What is recorded: every record whole, of a known commit, with its checkpoint, and small; tables without gaps."""

import hashlib
import json
import re
from pathlib import Path

import pytest
from chapter import prose

from helpers.data import load
from helpers.runs import SCHEMA, read_record, repo_root

ROOT = repo_root()
FILE_LIMIT, TOTAL_LIMIT = 5e6, 40e6
MEASURES = ("pointing", "IoU", "AUPRC", "deletion", "insertion")
CHAPTER = ROOT / "notebooks" / "01_explanation.ipynb"
METHODS = ("CAM", "sobel", "centre", "random")


def record_paths(results: Path) -> list[Path]:
    return sorted(results.glob("*/*/metrics.json"))


def check_record(path: Path, notebooks: Path) -> None:
    """Raises ValueError or AssertionError with what is wrong with one record and the files beside it."""
    record = read_record(path)
    assert re.fullmatch("[0-9a-f]{40}", record["commit"]), f"{path}: commit is {record['commit']!r}"
    assert record["notebook"] == path.parent.parent.name, f"{path} is of notebook {record['notebook']}"
    assert (notebooks / f"{record['notebook']}.ipynb").is_file(), f"{path}: no notebook {record['notebook']}"
    assert record["params"].get("data_dir", "") == "", f"{path}: data_dir is a path"
    named = {"metrics.json"}
    if record["checkpoint"] is not None:
        named.add(record["checkpoint"]["file"])
        weights = (path.parent / record["checkpoint"]["file"]).read_bytes()
        assert hashlib.sha256(weights).hexdigest() == record["checkpoint"]["sha256"], f"{path}: sha256 differs"
    if record["figure"] is not None:
        named.add(record["figure"])
    there = {file.name for file in path.parent.iterdir()}
    assert there == named, f"{path}: the record names {sorted(named)}, the folder holds {sorted(there)}"


def check_sizes(results: Path) -> None:
    sizes = {file: file.stat().st_size for file in results.rglob("*") if file.is_file()}
    assert sizes, "no results"
    assert max(sizes.values()) <= FILE_LIMIT, f"{max(sizes, key=sizes.get)} has {max(sizes.values())} bytes"
    assert sum(sizes.values()) <= TOTAL_LIMIT, f"the results have {sum(sizes.values())} bytes"


def check_explanation_table(found: list[dict]) -> None:
    """Seeds 0 to 2 of the live settings, each with every number of the notebook's table."""
    wanted = {"profile": "teach", "data": "sample", "model": "small"}
    teach = [record for record in found if record["params"]["profile"] == "teach"]
    assert all({k: r["params"][k] for k in wanted} == wanted for r in teach), "a teach record is of other settings"
    seeds = sorted(record["params"]["seed"] for record in teach)
    assert seeds == [0, 1, 2], f"recorded seeds are {seeds}"
    assert len({json.dumps(record["data"]) for record in teach}) == 1, "the seeds saw different data"
    for record in teach:
        for name in (f"{method}/{measure}" for method in METHODS for measure in MEASURES):
            value = record["metrics"].get(name)
            assert isinstance(value, float) and 0 <= value <= 1, f"seed {record['params']['seed']}: {name} is {value}"


def test_records_are_there():
    assert record_paths(ROOT / "results"), "results/ holds no record"


def test_every_record_is_whole():
    paths = record_paths(ROOT / "results")
    assert paths == sorted((ROOT / "results").rglob("metrics.json")), "a record is not in results/<notebook>/<run>/"
    assert paths, "results/ holds no record"
    for path in paths:
        check_record(path, ROOT / "notebooks")


def test_results_are_small():
    check_sizes(ROOT / "results")


def test_explanation_table_can_be_built():
    folder = ROOT / "results" / "01_explanation"
    check_explanation_table([read_record(path) for path in sorted(folder.glob("*/metrics.json"))])


def chapter_01_metrics(run: str) -> dict:
    return read_record(ROOT / "results" / "01_explanation" / run / "metrics.json")["metrics"]


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
    assert said_in_chapter_01("in the recorded trainings it did so once in three")


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
        record = read_record(ROOT / "results" / "01_explanation" / f"full-{data}-seed0" / "metrics.json")
        assert (record["params"]["profile"], record["params"]["model"]) == ("full", "densenet169")
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
    for seed in range(3):
        record = read_record(ROOT / "results" / "01_explanation" / f"teach-sample-seed{seed}" / "metrics.json")
        assert record["data"] == {"name": now.name, "hash": now.content_hash()}


def test_replayed_checkpoint_is_that_of_seed_0():
    record = read_record(ROOT / "results" / "01_explanation" / "teach-sample-seed0" / "metrics.json")
    assert record["params"]["seed"] == 0 and record["params"]["profile"] == "teach"
    assert record["checkpoint"] is not None


# --- the checks themselves, on made-up records ---------------------------------------------------------------------


def made_up(**changes) -> dict:
    """A record that is as it should be, but for the changes."""
    empty = {kind: kind() for kind in (str, dict, list)} | {(int, float): 1.0}
    record = {key: empty.get(kind) for key, kind in SCHEMA.items()}
    record |= {
        "notebook": "01_made_up",
        "commit": "0123456789" * 4,
        "params": {"profile": "teach", "data": "sample", "model": "small", "seed": 0, "data_dir": ""},
        "metrics": {f"{method}/{measure}": 0.5 for method in METHODS for measure in MEASURES},
        "checkpoint": {"file": "model.safetensors", "sha256": hashlib.sha256(b"weights").hexdigest()},
    }
    return record | changes


def store(root: Path, record: dict, *, run: str = "a", weights: bytes = b"weights") -> Path:
    folder = root / "results" / "01_made_up" / run
    folder.mkdir(parents=True)
    (root / "notebooks").mkdir(exist_ok=True)
    (root / "notebooks" / "01_made_up.ipynb").touch()
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "metrics.json").write_text(json.dumps(record))
    return folder / "metrics.json"


def test_a_good_record_passes(tmp_path):
    path = store(tmp_path, made_up())
    check_record(path, tmp_path / "notebooks")
    check_sizes(tmp_path / "results")
    assert record_paths(tmp_path / "results") == [path]
    assert record_paths(tmp_path / "notebooks") == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"commit": "0123456789" * 4 + "+changes"}, "commit is '0123"),
        ({"commit": "unknown"}, "commit is 'unknown'"),
        ({"notebook": "02_other"}, "is of notebook 02_other"),
        ({"params": {"data_dir": "films"}}, "data_dir is a path"),
        ({"checkpoint": {"file": "model.safetensors", "sha256": "0" * 64}}, "sha256 differs"),
        ({"checkpoint": None}, "the folder holds"),
        ({"figure": "figure.png"}, "the record names"),
        ({"seconds": "3"}, "'seconds' is '3', expected int or float"),
    ],
)
def test_a_bad_record_is_seen(tmp_path, changes, message):
    path = store(tmp_path, made_up(**changes))
    with pytest.raises((AssertionError, ValueError), match=re.escape(message)):
        check_record(path, tmp_path / "notebooks")


@pytest.mark.parametrize("key", SCHEMA)
def test_a_missing_key_is_seen(tmp_path, key):
    record = made_up()
    del record[key]
    with pytest.raises(ValueError, match=f"the record has no '{key}'"):
        check_record(store(tmp_path, record), tmp_path / "notebooks")


def test_a_record_of_a_missing_notebook_is_seen(tmp_path):
    path = store(tmp_path, made_up())
    with pytest.raises(AssertionError, match="no notebook 01_made_up"):
        check_record(path, tmp_path)


def test_large_results_are_seen(tmp_path):
    store(tmp_path, made_up(), weights=bytes(5_000_001))
    with pytest.raises(AssertionError, match="model.safetensors has 5000001 bytes"):
        check_sizes(tmp_path / "results")
    (tmp_path / "many").mkdir()
    for number in range(9):
        (tmp_path / "many" / str(number)).write_bytes(bytes(4_900_000))
    with pytest.raises(AssertionError, match="the results have 44100000 bytes"):
        check_sizes(tmp_path / "many")


def three_seeds() -> list[dict]:
    return [made_up(params=made_up()["params"] | {"seed": seed}) for seed in range(3)]


def test_a_whole_table_passes():
    full = made_up(params={"profile": "full", "data": "phantom", "model": "densenet169", "seed": 0})
    check_explanation_table([*three_seeds(), full])
    assert len(three_seeds()) == 3


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda found: found.clear(), r"recorded seeds are \[\]"),
        (lambda found: found.pop(), r"recorded seeds are \[0, 1\]"),
        (lambda found: found.append(found[0]), r"recorded seeds are \[0, 0, 1, 2\]"),
        (lambda found: found[1]["params"].update(data="phantom"), "a teach record is of other settings"),
        (lambda found: found[1].update(data={"name": "x", "hash": "y"}), "the seeds saw different data"),
        (lambda found: found[1]["metrics"].pop("sobel/IoU"), "seed 1: sobel/IoU is None"),
        (lambda found: found[2]["metrics"].update({"CAM/deletion": None}), "seed 2: CAM/deletion is None"),
    ],
)
def test_a_gap_in_the_table_is_seen(spoil, message):
    found = three_seeds()
    spoil(found)
    with pytest.raises(AssertionError, match=message):
        check_explanation_table(found)
