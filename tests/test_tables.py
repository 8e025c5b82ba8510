"""Recorded tables: records found by the grid that asked for them, and spreads that are what they say."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from tiny_notebook import RECORD, write_grid, write_tiny

from helpers import tables
from helpers.provenance import repo_root
from helpers.runs import records
from helpers.runs.code import code_hash
from helpers.runs.record import read_ledger, write_ledger

PARAMS = {"profile": "teach", "seed": 0, "noise": 0.5, "fault": "none", "data_dir": "", "row": ""}
AUC = (0.6, 0.7, 0.9)


def store(root: Path, name: str, *, metrics=None, data=None, code=None, **params) -> None:
    path = root / "results" / "05_tiny.json"
    path.parent.mkdir(exist_ok=True)
    record = RECORD | {"notebook": "05_tiny", "params": PARAMS | params, "metrics": metrics or {}, "data": data}
    record |= {"code": code or code_hash("05_tiny"), "checkpoint": None}
    ledger = read_ledger(path)
    ledger["runs"][name] = record
    ledger["code"][record["code"]] = {"commit": "", "verified": ""}
    write_ledger(path, ledger)


def rows(root: Path, text: str) -> list[dict]:
    return records(write_grid(root, text), root / "results" / "05_tiny.json")


@pytest.fixture
def tiny(tmp_path):
    """Seeds 0 to 2 of one setting, and runs that are none of it."""
    write_tiny(tmp_path)
    for seed, auc in enumerate(AUC):
        dice = [0.5 + seed / 10, 0.7, None if seed == 2 else 0.9, 0.4]
        store(tmp_path, f"seed{seed}", seed=seed, metrics={"auc": auc, "dice": dice})
    store(tmp_path, "noisy", noise=0.9, metrics={"auc": 0.1})
    return tmp_path


def test_records_are_found_by_all_their_parameters(tiny):
    found = rows(tiny, "product: {seed: [2, 0, 3]}")
    assert [row["state"] for row in found] == ["recorded", "recorded", "missing"]
    assert [row["record"] and row["record"]["name"] for row in found] == ["seed2", "seed0", None]
    assert found[2]["params"] == PARAMS | {"seed": 3}
    assert tables.points(found, "auc") == [0.9, 0.6]
    assert tables.provenance(found) == "2 of 3 runs recorded; missing: seed 3"
    assert rows(tiny, "fixed: {noise: 0.8}")[0]["state"] == "missing"


def test_record_of_older_code_is_stale(tiny):
    store(tiny, "old", seed=5, code="older")
    found = rows(tiny, "product: {seed: [0, 5], noise: [0.5]}")
    assert [row["state"] for row in found] == ["recorded", "stale"]
    assert tables.provenance(found) == "2 of 2 runs recorded; stale: seed 5"


def test_record_from_before_a_parameter_was_added_still_fits(tiny):
    path = tiny / "results" / "05_tiny.json"
    ledger = read_ledger(path)
    del ledger["runs"]["seed0"]["params"]["noise"]
    write_ledger(path, ledger)
    assert rows(tiny, "fixed: {seed: 0, noise: 0.5}")[0]["state"] == "recorded"


def test_two_records_of_one_run_are_refused(tiny):
    store(tiny, "again", seed=1)
    with pytest.raises(ValueError, match=r"2 records fit the run .*again, seed1; tell them apart by"):
        rows(tiny, "product: {seed: [0, 1]}")


def test_runs_that_saw_different_data_are_told(tiny):
    store(tiny, "a", row="a", data={"name": "films", "hash": "1"})
    store(tiny, "b", row="b", data={"name": "films", "hash": "2"})
    found = rows(tiny, "product: {row: [a, b]}")
    assert tables.provenance(found) == "2 of 2 runs recorded; the runs saw different data of the name films"
    assert tables.provenance(found[:1]) == "1 of 1 runs recorded"


def test_groups_keep_the_order_of_the_grid(tiny):
    found = rows(tiny, "product: {noise: [0.9, 0.5], seed: [0, 1]}")
    assert [(name, len(group)) for name, group in tables.groups(found, "noise").items()] == [(0.9, 2), (0.5, 2)]
    assert list(tables.groups(found, "noise", "seed")) == [(0.9, 0), (0.9, 1), (0.5, 0), (0.5, 1)]
    assert tables.points(tables.groups(found, "noise")[0.9], "auc") == [0.1]


def test_spread_over_seeds(tiny):
    found = rows(tiny, "product: {seed: [0, 1, 2, 3]}")
    spread = tables.over_seeds(found, "auc")
    assert spread == {"points": list(AUC), "mean": pytest.approx(np.mean(AUC)), "low": 0.6, "high": 0.9}
    expected = stats.t.interval(0.95, 2, loc=np.mean(AUC), scale=stats.sem(AUC))
    spread = tables.over_seeds(found, "auc", interval="t")
    assert (spread["low"], spread["high"]) == pytest.approx(expected)
    assert tables.over_seeds(found, "dice")["points"] == pytest.approx([0.625, 0.65, 0.6])
    one = tables.over_seeds(found[:1], "auc", interval="t")
    assert one["mean"] == 0.6 and math.isnan(one["low"]) and math.isnan(one["high"])
    assert tables.over_seeds(found, "none")["points"] == [] and math.isnan(tables.over_seeds(found, "none")["mean"])
    with pytest.raises(ValueError, match="interval is 'sd', expected range or t"):
        tables.over_seeds(found, "auc", interval="sd")


def test_interval_over_patients_is_that_of_their_means_over_seeds(tiny):
    found = rows(tiny, "product: {seed: [0, 1, 2]}")
    spread = tables.over_patients(found, "dice")
    assert spread["points"] == pytest.approx([0.6, 0.7, 0.4]), "the third patient has a run without a number"
    assert spread["mean"] == pytest.approx(17 / 30)
    expected = tables.bootstrap_interval(np.mean, np.array([0.6, 0.7, 0.4]))
    assert (spread["low"], spread["high"]) == pytest.approx(expected)
    assert 0.4 <= spread["low"] < spread["mean"] < spread["high"] <= 0.7


@pytest.mark.parametrize("metric", ["auc", "none", "uneven"])
def test_interval_over_patients_needs_one_value_a_patient(tiny, metric):
    store(tiny, "c", seed=7, metrics={"uneven": [1, 2]})
    store(tiny, "d", seed=8, metrics={"uneven": [1]})
    with pytest.raises(ValueError, match=f"^{metric}: lists of lengths .*; expected one value per patient"):
        tables.over_patients(rows(tiny, "product: {seed: [0, 7, 8]}"), metric)


def test_table_of_chapter_01_is_what_its_records_hold():
    found = records("01_explanation")
    runs = read_ledger(repo_root() / "results" / "01_explanation.json")["runs"]
    said = [runs[f"teach-sample-seed{seed}"]["metrics"] for seed in range(3)]
    for metric in ("CAM/AUPRC", "integrated gradients/pointing"):
        assert tables.points(found, metric) == [metrics[metric] for metrics in said]
