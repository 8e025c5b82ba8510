"""Supports are nested and balanced, probes separate, and each parameter moves at the rate it was given."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.metrics import balanced_accuracy_score
from torch import nn
from torch.nn.utils import parametrize

from helpers.nets.efficientnet import STAGES, efficientnet_lite0
from helpers.train import fit
from helpers.transfer import (
    draw_support,
    freeze_except_norms,
    histogram_features,
    layerwise,
    linear_probe,
    set_rates,
)


def small() -> nn.Module:
    """Two convolutions with norms and a last layer; equal at every call, as if pretrained."""
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    second = nn.Sequential(nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU())
    return nn.Sequential(first, second, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2))


def task() -> tuple[torch.Tensor, torch.Tensor]:
    images = np.random.default_rng(0).standard_normal((24, 1, 8, 8)).astype(np.float32)
    return torch.from_numpy(images), torch.arange(24) % 2


def trained(model: nn.Module, **options) -> nn.Module:
    settings = dict(epochs=3, batch_size=8, lr=1e-2, weight_decay=0, loss=F.cross_entropy, clip=float("inf"))
    fit(model, task(), val=task(), **settings | options)
    return model


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """What the layers of a `small` network compute with, by name, whatever rates they have."""
    places = {name: name.rpartition(".") for name in small().state_dict()}
    return {name: getattr(model.get_submodule(path), key).detach().clone() for name, (path, _, key) in places.items()}


def moved(model: nn.Module, start: dict) -> set[str]:
    return {name for name, value in weights(model).items() if not torch.equal(value, start[name])}


# Supports ------------------------------------------------------------------------------------------------------------


def test_supports_are_balanced_sorted_nested_and_drawn_by_the_seed():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 7], [60, 200, 90]))
    draws = {n: draw_support(labels, per_class=n, seed=3) for n in (5, 10, 60)}
    for n, rows in draws.items():
        assert np.unique(labels[rows], return_counts=True)[1].tolist() == [n] * 3
        assert (np.diff(rows) > 0).all()  # sorted, and none twice
    assert set(draws[5]) < set(draws[10]) < set(draws[60])
    assert np.array_equal(draws[10], draw_support(labels, per_class=10, seed=3))
    assert not np.array_equal(draws[10], draw_support(labels, per_class=10, seed=4))


def test_supports_draw_all_images_equally_often():
    labels = np.repeat([0, 1], 10)
    counts = np.bincount(np.concatenate([draw_support(labels, per_class=5, seed=seed) for seed in range(400)]))
    assert counts.min() > 160 and counts.max() < 240  # 200 ± 4 standard deviations


@pytest.mark.parametrize("per_class, match", [(4, "class 7 has 3 images; expected at least 4"), (0, "per_class is 0")])
def test_impossible_supports_are_refused(per_class, match):
    with pytest.raises(ValueError, match=match):
        draw_support(np.repeat([0, 7], [9, 3]), per_class=per_class, seed=0)


# Features and probe --------------------------------------------------------------------------------------------------


def test_histogram_of_known_pixels():
    images = torch.tensor([[0.0, 0.25, 0.5, 1.0], [0.5, 0.51, 0.74, 0.74]]).view(1, 2, 2, 2)
    assert histogram_features(images, bins=4).tolist() == [[0.5, 0.5, 0.5, 0.5, 0, 0, 1, 0]]  # roots of shares


def test_histograms_are_numpys():
    images = torch.from_numpy(np.random.default_rng(0).random((3, 2, 9, 7), dtype=np.float32))
    features = histogram_features(images)
    assert features.shape == (3, 32)
    for row, image in zip(features, images.numpy(), strict=True):
        counts = np.concatenate([np.histogram(channel, bins=16, range=(0, 1))[0] for channel in image])
        np.testing.assert_allclose(row.numpy() ** 2, counts / 63, atol=1e-6)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_histograms_of_other_ranges_are_refused(value):
    images = torch.full((1, 1, 2, 2), 0.5)
    images[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match="in 0…1"):
        histogram_features(images)
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        histogram_features(torch.zeros(2, 2))


def test_probe_does_not_depend_on_scale_and_offset_of_features():
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat([3, 5], 100))
    features = rng.standard_normal((200, 20))
    features[:, 0] += 8.0 * (labels == 5)
    scaled = features * np.geomspace(1e-3, 1e3, 20) + 100  # the informative one is the smallest
    plain, probe = linear_probe(features[:100], labels[:100]), linear_probe(scaled[:100], labels[:100])
    assert (probe.predict(scaled[100:]) == labels[100:]).mean() > 0.95
    np.testing.assert_allclose(probe.predict_proba(scaled), plain.predict_proba(features), atol=1e-4)


def test_penalty_of_the_probe_suits_any_number_of_features():
    labels = np.arange(40) % 2
    features = np.random.default_rng(0).standard_normal((40, 8)) + labels[:, None]
    few, many = (linear_probe(np.tile(features, times), labels) for times in (1, 50))
    np.testing.assert_allclose(many.predict_proba(np.tile(features, 50)), few.predict_proba(features), atol=1e-3)


@pytest.mark.parametrize("per_class, reference", [(5, 0.84), (20, 0.93)])
def test_probe_reads_digits_as_documented(per_class, reference):
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    pool, held_out = order[:900], order[900:]
    scores = []
    for seed in range(5):
        rows = pool[draw_support(labels[pool], per_class=per_class, seed=seed)]
        called = linear_probe(images[rows], labels[rows]).predict(images[held_out])
        scores.append(balanced_accuracy_score(labels[held_out], called))
    assert np.mean(scores) == pytest.approx(reference, abs=0.01)


def test_probe_weighs_classes_equally():
    labels = np.repeat([0, 1], [190, 10])
    features = np.random.default_rng(0).standard_normal((200, 1)) + labels[:, None]
    recall = (linear_probe(features, labels).predict(features) == labels)[labels == 1].mean()
    assert recall > 0.5  # without weights nearly all are called 0


# Norms only ----------------------------------------------------------------------------------------------------------


def test_only_norms_and_the_last_layer_train_even_with_weight_decay():
    model = freeze_except_norms(small())
    start = copy.deepcopy(model.state_dict())
    trained(model, weight_decay=0.5)
    expected = {f"{i}.1.{key}" for i in (0, 1) for key in ("weight", "bias")} | {"4.weight", "4.bias"}
    statistics = {f"{i}.1.{key}" for i in (0, 1) for key in ("running_mean", "running_var", "num_batches_tracked")}
    assert moved(model, start) == expected | statistics


def test_norms_of_the_network_are_counted():
    model = freeze_except_norms(efficientnet_lite0(weights=False, classes=2))
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert len(trainable) == 49 * 2 + 2 and {"_fc.weight", "_fc.bias"} < trainable
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 42016 + 2 * 1281


@pytest.mark.parametrize("model", [nn.Linear(2, 2), nn.BatchNorm1d(2)])
def test_norms_only_needs_both(model):
    with pytest.raises(ValueError, match="expected both"):
        freeze_except_norms(model)
    assert all(parameter.requires_grad for parameter in model.parameters())


# Learning rates of layers --------------------------------------------------------------------------------------------

RATES = {"0": 0.1, "1": 0.4}


def adamw(model: nn.Module, groups: dict[str, float], *, steps: int, eps: float = 1e-8) -> dict:
    """Weights after steps of AdamW with one parameter group per module; without decay, clipping or schedule."""
    groups = [dict(params=list(model.get_submodule(n).parameters()), lr=1e-2 * rate) for n, rate in groups.items()]
    optimizer = torch.optim.AdamW(groups, weight_decay=0, eps=eps)
    images, labels = task()
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return weights(model)


def test_rates_are_those_of_parameter_groups():
    expected = adamw(small(), {**RATES, "4": 1.0}, steps=5)
    plain = adamw(small(), {"0": 1.0, "1": 1.0, "4": 1.0}, steps=5)
    found = adamw(set_rates(small(), RATES), {"": 1.0}, steps=5)
    start = small().state_dict()
    assert found.keys() == expected.keys()
    for name in dict(small().named_parameters()):
        step = (expected[name] - start[name]).abs().max()
        assert (found[name] - expected[name]).abs().max() < 0.01 * step, name
        if name[0] in RATES:
            assert (plain[name] - expected[name]).abs().max() > step, name


def test_rates_hold_in_the_training_loop():
    start, model = small(), trained(set_rates(small(), {"0": 1e-3}))
    first, second = ((model[i][0].weight - start[i][0].weight).abs().max().item() for i in (0, 1))
    assert 0 < first < 9 * 1e-2 * 1e-3 * 1.01  # at most the rate per step: nine steps
    assert second > 20 * first


def test_nothing_changes_until_training():
    images, model = task()[0], trained(small())
    start, before = weights(model), model.eval()(images)
    set_rates(model, RATES)
    torch.testing.assert_close(model(images), before, rtol=0, atol=1e-6)
    assert not moved(model, start) and "0.0.weight" not in model.state_dict()
    trained(model)
    with torch.no_grad():
        assert (model.eval()(images) - before).abs().max() > 0.01


def test_weight_decay_draws_to_the_start_and_the_rest_to_zero():
    start = small().state_dict()
    model = trained(set_rates(small(), RATES), weight_decay=50.0, epochs=60)  # far stronger than the loss
    found = weights(model)
    for name in dict(small().named_parameters()):
        if name[0] in RATES:
            assert (found[name] - start[name]).abs().max() < 0.02, name
    assert start["0.0.weight"].abs().max() > 0.2
    assert model[4].weight.abs().max() < 0.1 * start["4.weight"].abs().max()


def test_best_state_and_resuming_work_with_rates(tmp_path):
    model = set_rates(small(), RATES)
    best = fit(model, task(), val=task(), epochs=4, loss=F.cross_entropy).best_state
    again = set_rates(small(), RATES)
    again.load_state_dict(best)
    seen = []

    def score(net: nn.Module) -> float:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(1)
        return float(len(seen))

    resume = partial(fit, data=task(), val=task(), epochs=4, loss=F.cross_entropy, checkpoint=tmp_path / "fit.pt")
    with pytest.raises(KeyboardInterrupt):
        resume(set_rates(small(), RATES), score=score)
    for parameter in (other := small()).parameters():
        nn.init.zeros_(parameter)  # another start: the checkpoint brings its own
    resume(set_rates(other, RATES))
    expected, found = weights(model), weights(other)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_rates_and_frozen_layers_go_together():
    free = {name for name, parameter in freeze_except_norms(small()).named_parameters() if parameter.requires_grad}
    for model in (freeze_except_norms(set_rates(small(), RATES)), set_rates(freeze_except_norms(small()), RATES)):
        start = weights(model)
        trained(model, weight_decay=0.5)
        assert moved(model, start) & set(dict(small().named_parameters())) == free


@pytest.mark.parametrize("rates", [{"0": 0.0}, {"0": -1.0}, {"0": float("nan")}, {"absent": 1.0}])
def test_bad_rates_are_refused(rates):
    with pytest.raises(ValueError, match="expected a positive rate and the name of a module"):
        set_rates(small(), rates)


def test_a_second_rate_is_refused():
    with pytest.raises(ValueError, match="'0.0' has a rate already"):
        set_rates(set_rates(small(), {"0": 0.5}), {"0.0": 0.5})


def test_layers_of_the_network_fall_from_head_to_stem():
    model = efficientnet_lite0(weights=False, classes=2)
    names = [name for name, _ in model.named_parameters()]
    layerwise(model, decay=0.5)
    rates = {}
    for name in names:
        module, key = model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]
        rates[name] = module.parametrizations[key][0].rate if parametrize.is_parametrized(module) else 1.0
    blocks = [0.5 ** (8 - i) for i, (repeats, *_) in enumerate(STAGES) for _ in range(repeats)]
    for name, rate in rates.items():
        top, block = name.split(".")[:2]
        known = {"_fc": 1.0, "_conv_head": 0.5, "_bn1": 0.5, "_conv_stem": 0.5**9, "_bn0": 0.5**9}
        assert rate == (blocks[int(block)] if top == "_blocks" else known[top]), name
    assert rates["_blocks.15._bn2.bias"] == 0.25 and rates["_blocks.0._bn1.weight"] == 0.5**8
    assert model.config == {"weights": False, "classes": 2, "seed": 0}
