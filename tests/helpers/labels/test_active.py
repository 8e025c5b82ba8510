"""The simulated loop, and its curves."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from helpers.labels import acquire
from helpers.labels.active import Answer, area, labels_needed, once, probe_probs, simulate, stop_at


def told(labelled, n=30):
    """A model that answers by the number of labels; its score counts the even indices among them."""
    probs = np.full((n, 2), 0.5)
    return Answer(probs, {"even": float(np.sum(np.asarray(labelled) % 2 == 0)), "n": float(len(labelled))})


def evens_first(pool, budget, *, seed):
    rows = pool.unlabelled
    return rows[np.argsort(rows % 2, kind="stable")][:budget]


def test_simulate_asks_fits_and_keeps_the_order():
    curve = simulate(evens_first, told, np.zeros((30, 1)), start=[1, 3], budget=4, rounds=3, seed=0)
    assert curve.order.tolist() == [1, 3, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22]
    assert curve.counts.tolist() == [2, 6, 10, 14] == curve.measures["n"].tolist()
    assert curve.measures["even"].tolist() == [0, 4, 8, 12]
    assert curve.decisions.shape == (4, 30)


def test_simulate_hands_the_model_and_the_truth_to_the_strategy():
    seen = []

    def look(pool, budget, *, seed):
        seen.append((pool.probs[0, 0], pool.members.shape, pool.truth.sum(), seed))
        return pool.unlabelled[:budget]

    def fit(labelled):
        share = 1 / len(labelled)
        probs = np.tile([share, 1 - share], (9, 1))
        return Answer(probs, {"score": 0.0}, members=np.stack([probs] * 2))

    simulate(look, fit, np.zeros((9, 1)), start=[0], budget=3, rounds=2, seed=5, truth=np.ones(9, int))
    assert [s[:3] for s in seen] == [(1.0, (2, 9, 2), 9), (0.25, (2, 9, 2), 9)]
    assert seen[0][3] != seen[1][3]  # each round has draws of its own


def test_a_model_that_learns_features_shows_its_own():
    seen = []

    def look(pool, budget, *, seed):
        seen.append(pool.features[0, 0])
        return pool.unlabelled[:budget]

    def fit(labelled):
        own = np.full((9, 1), float(len(labelled)))
        return Answer(np.full((9, 2), 0.5), {"score": 0.0}, features=own if len(labelled) > 1 else None)

    simulate(look, fit, np.full((9, 1), -1.0), start=[0], budget=3, rounds=2, seed=0)
    assert seen == [-1, 4]


def test_a_simulation_is_the_same_again_and_another_with_another_seed():
    x, once = np.zeros((30, 1)), dict(start=[0], budget=5, rounds=3)
    orders = [simulate(acquire.random, told, x, **once, seed=seed).order.tolist() for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize(("budget", "rounds"), [(0, 2), (-1, 2), (15, 2), (5, -1)])
def test_a_simulation_the_pool_is_too_small_for_is_refused_before_any_fit(budget, rounds):
    with pytest.raises(ValueError, match="at most 30 images in all"):
        simulate(acquire.random, lambda _: 1 / 0, np.zeros((30, 1)), start=[0, 1], budget=budget, rounds=rounds, seed=0)


def test_strategies_with_the_same_start_share_its_model():
    fitted = []
    fit = once(lambda labelled: fitted.append(labelled.tolist()) or told(labelled), [0, 5])
    game = dict(start=[0, 5], budget=4, rounds=2, seed=0)
    for strategy in (acquire.random, evens_first):
        simulate(strategy, fit, np.zeros((30, 1)), **game)
    assert len(fitted) == 5 and fitted.count([0, 5]) == 1


def test_a_probe_of_half_the_digits_tells_the_others():
    x, y = load_digits(return_X_y=True)
    probs = probe_probs(x[:600], y[:600], np.arange(300), classes=10)
    np.testing.assert_allclose(probs.sum(1), 1)
    assert np.mean(probs[300:].argmax(1) == y[300:600]) > 0.8  # other writers; by chance 0.1


def test_classes_not_seen_get_nothing_and_one_class_alone_gets_all():
    x, y = load_digits(return_X_y=True)
    two = probe_probs(x[:100], y[:100], np.flatnonzero(np.isin(y[:100], (3, 7))), classes=10)
    assert two[:, [3, 7]].sum() == pytest.approx(100) and two[:, 0].max() == 0
    one = probe_probs(x[:100], y[:100], np.flatnonzero(y[:100] == 4), classes=10)
    assert (one == np.eye(10)[4]).all()


def test_members_differ_most_where_labels_are_few():
    x, y = load_digits(return_X_y=True)
    spread = [probe_probs(x[:400], y[:400], np.arange(n), classes=10, members=5).std(0).mean() for n in (30, 300)]
    assert spread[0] > 1.5 * spread[1]


def test_area_is_the_mean_height():
    assert area(np.array([10, 20, 40]), np.array([0.5, 0.7, 0.9])) == pytest.approx((10 * 0.6 + 20 * 0.8) / 30)


@pytest.mark.parametrize(("goal", "expected"), [(0.4, 10), (0.6, 15), (0.7, 20), (0.8, 30), (0.95, np.nan)])
def test_labels_needed(goal, expected):
    found = labels_needed(np.array([10, 20, 40, 60]), np.array([0.5, 0.7, 0.9, 0.6]), goal)
    assert found == pytest.approx(expected, nan_ok=True)


def test_stopping_waits_until_decisions_have_settled():
    rng = np.random.default_rng(0)
    wild, calm = rng.integers(3, size=(4, 200)), np.tile(np.arange(200) % 3, (5, 1))
    assert stop_at(wild) is None
    assert stop_at(np.concatenate([wild, calm])) == 7  # models 4 to 7 agree: the first three steps of calm
    assert stop_at(np.concatenate([wild, calm]), window=1) == 5
    assert stop_at(calm[:3]) is None  # too few models for the window


def test_agreement_by_chance_does_not_stop():
    # 99 % answer "no" whatever the image: the share of equal answers is high, kappa is not.
    rng = np.random.default_rng(0)
    decisions = (rng.random((6, 1000)) < 0.01).astype(int)
    assert stop_at(decisions, agreement=0.9, window=1) is None
