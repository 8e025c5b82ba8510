"""Frozen features with few labels: parts that share no patient, a strength that sees no test image, fair draws."""

from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from helpers.data import load
from helpers.transfer import draw_support

table = import_module("experiments.03_features")
SMOKE = SimpleNamespace(pick=lambda smoke, teach, full: smoke, seed=0)


def made_up(classes=2, count=60):
    """A task whose images are their own features: noise, and a place for each class."""
    rng, label = np.random.default_rng(0), np.arange(count) % classes
    x = rng.normal(size=(count, 1, 3, 3)).astype(np.float32)
    x[np.arange(count), 0, 0, label] += 4
    return table.Task([], torch.from_numpy(x), label, torch.from_numpy(x), label)


def flat(images):
    return images.flatten(1).numpy()


@pytest.mark.parametrize("classes", [2, 3])
def test_auc_is_high_where_features_tell_and_half_where_they_do_not(classes):
    task = made_up(classes)
    rows, x = draw_support(task.pool_label, per_class=10, seed=0), flat(task.pool)
    assert table.auc(task, x, x, rows) > 0.95
    noise = np.random.default_rng(1).normal(size=(60, 9))
    others = np.setdiff1d(np.arange(60), rows)
    task = table.Task([], task.pool, task.pool_label, task.test[others], task.test_label[others])
    assert abs(table.auc(task, noise, noise[others], rows) - 0.5) < 0.2


def test_the_strength_is_chosen_among_those_that_are_tried():
    task, rng = made_up(), np.random.default_rng(2)
    x, noise = flat(task.pool), rng.normal(size=(60, 200)).astype(np.float32)
    strong = table.probe(x, task.pool_label).best_params_["logisticregression__C"]
    weak = table.probe(noise, task.pool_label).best_params_["logisticregression__C"]
    assert {strong, weak} <= set(table.STRENGTHS) and strong > weak


def test_all_features_get_the_same_draws_and_a_number_for_each(monkeypatch):
    asked = []
    monkeypatch.setattr(table, "FEATURES", {"one": flat, "other": lambda images: -flat(images)})
    monkeypatch.setattr(table, "auc", lambda task, pool, test, rows: asked.append(rows.tolist()) or 0.5)
    metrics = table.compare(SMOKE, made_up())["metrics"]
    assert asked[:2] == asked[2:] and asked[0] != asked[1] and len(asked[0]) == 10
    assert {name: len(found) for name, found in metrics.items() if "AUC" in name} == {
        "one: AUC, 5 a class": 2,
        "other: AUC, 5 a class": 2,
    }


def test_no_patient_is_in_both_parts():
    data = load("ultrasound", images=120, patients=40, size=32)
    pool, test = table.divided(data).sets
    assert len(pool) + len(test) == 120 and not set(pool.patients.tolist()) & set(test.patients.tolist())


@pytest.mark.parametrize(("row", "data"), [("films", "phantom"), ("breasts", "phantom"), ("tissue", "sample")])
def test_each_row_runs(monkeypatch, row, data):
    monkeypatch.setattr(table, "FEATURES", {name: table.FEATURES[name] for name in ("thumbnail", "histogram")})
    result = getattr(table, row)(SMOKE, data=data, data_dir="")
    assert all(0.2 < value <= 1 for name, found in result["metrics"].items() if "AUC" in name for value in found)
    assert len(result["data"]) == 2 and row in table.ROWS


def test_features_are_as_they_are_called():
    images = torch.rand(2, 1, 32, 32)
    shapes = {name: make(images).shape for name, make in table.FEATURES.items()}
    assert shapes == {
        "lite0 at 64": (2, 1280),
        "lite0 at 224": (2, 1280),
        "ViT at 224": (2, 384),
        "thumbnail": (2, 256),
        "histogram": (2, 16),
    }
    assert not np.allclose(table.FEATURES["lite0 at 64"](images), table.FEATURES["lite0 at 224"](images), atol=1e-3)
