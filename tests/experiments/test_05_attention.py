"""Experiments of chapter 05: the controls do what they say, and nothing but the test at the end sees test patients."""

from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from helpers.runs import records

table = import_module("experiments.05_attention")
SMOKE = SimpleNamespace(pick=lambda smoke, teach, full: smoke, seed=0)
GATED = ("gate", "sum", "other")


@pytest.fixture(scope="module")
def task():
    return table.slices(SMOKE, data="phantom", data_dir="")


def drawn(shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def parameters(name):
    return sum(p.numel() for p in table.network(name, 0).parameters())


def test_the_controls_have_as_many_parameters_and_the_same_first_weights():
    assert len({parameters(name) for name in GATED}) == 1
    assert parameters("plain") < parameters("constant") < parameters("gate")
    states = [table.network(name, 3).state_dict() for name in GATED]
    assert all(torch.equal(states[0][key], other[key]) for other in states for key in other)
    plain, gate = (table.network(name, 3).down.state_dict() for name in ("plain", "gate"))
    assert all(torch.equal(plain[key], gate[key]) for key in plain)


@pytest.mark.parametrize("count", [2, 7, 8])
def test_numbers_of_another_image_are_never_its_own(count):
    block = table.OfAnother(4).eval()
    skip, below = drawn((count, 4, 3, 3)), drawn((count, 4, 3, 3), seed=1)
    with torch.inference_mode():
        first = block(skip, below)
        for image in range(count):
            changed = below.clone()
            changed[image] += 1
            moved = (block(skip, changed) != first).flatten(1).any(1)
            assert moved.nonzero()[:, 0].tolist() == [(image + count // 2) % count] != [image]


def test_numbers_of_another_need_another():
    with pytest.raises(ValueError, match="the batch has 1 image; expected at least 2"):
        table.OfAnother(4)(drawn((1, 4, 3, 3)), drawn((1, 4, 3, 3)))


def test_a_constant_has_no_content_and_is_learned():
    block, skip = table.Constant(4), drawn((3, 4, 5, 5))
    assert torch.allclose(block(skip), skip * block.layer.bias.sigmoid())  # whatever the image
    block(skip).sum().backward()
    assert block.layer.bias.grad.abs() > 0 and not block.layer.weight.grad.any()


def test_the_sum_adds():
    gate, adds = (table.network(name, 0).merge[-1].attention.eval() for name in ("gate", "sum"))
    skip, below = drawn((2, 8, 4, 4)), drawn((2, 8, 4, 4), seed=1)
    a = gate.logits(skip, below)
    assert torch.equal(gate(skip, below), skip * a.sigmoid()) and torch.equal(adds(skip, below), skip + a)


def test_no_patient_is_in_two_parts_and_half_a_batch_away_is_another(task):
    patients = {name: task.images.patients[rows] for name, rows in task.parts.items()}
    assert sum(len(set(p)) for p in patients.values()) == len(np.unique(task.images.patients))
    for name in ("val", "test"):
        assert (patients[name] != np.roll(patients[name], len(patients[name]) // 2)).all()


def test_labelled_slices_are_of_training_patients_and_half_of_them_show_the_structure(task):
    rows = table.labelled(task, 10, draw=1)
    assert len(set(rows)) == 10 and set(rows) <= set(task.parts["train"])
    assert task.inside[rows].any((1, 2)).sum() == 5
    assert set(rows) != set(table.labelled(task, 10, draw=2))


def test_a_batch_has_eight_different_slices_and_only_validation_patients_are_looked_at(task, monkeypatch):
    seen, parts = [], []
    marked = table.found
    monkeypatch.setattr(table, "found", lambda task, net, part: [parts.append(part), marked(task, net, part)][1])
    fit = table.fit

    def spy(net, data, **options):
        seen.append(data[0])
        return fit(net, data, **options)

    monkeypatch.setattr(table, "fit", spy)
    table.trained(task, "other", 10, 0, steps=3, rate=1e-3, weight=1.0)
    assert all(len(set(batch.tolist())) == 8 for batch in seen[0]) and set(parts) == {"val"}


def test_dice_counts_sick_patients_and_false_alarms_healthy_ones(task):
    rows = task.parts["test"]
    sick = task.sick[rows]
    assert table.dice(task, task.inside[rows], "test") == 1
    assert table.false_alarms(task, task.inside[rows]) == 0
    marked = task.inside[rows].copy()
    marked[np.flatnonzero(~sick)[0], :2, :3] = True  # six pixels in one healthy patient
    healthy = len(np.unique(task.images.patients[rows[~sick]]))
    assert table.dice(task, marked, "test") == 1 and table.false_alarms(task, marked) == 6 / healthy


def test_settings_are_those_that_won_on_validation_patients():
    for one in records("05_attention_settings"):
        assert one["record"], "the settings of chapter 05 are not recorded"
        for name in table.BLOCKS:
            scores = {
                pair: one["record"]["metrics"][f"{name}: rate {pair[0]:g}, weight {pair[1]:g}"] for pair in table.TRIES
            }
            assert table.CHOSEN[one["params"]["data"], name] == max(scores, key=lambda pair: np.mean(scores[pair]))


def test_cascade_of_a_map_that_does_not_look_at_the_last_layer():
    net = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Flatten(), nn.Linear(16, 1))
    first = lambda net, images: net[0](images)[:, 0].detach().numpy()  # noqa: E731
    (_, same), (_, other) = table.cascade(net, first, drawn((5, 1, 4, 4)))
    assert same == pytest.approx(1) and other < 0.9
