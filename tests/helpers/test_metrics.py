"""Operating points and calibration, against hand-made cases, SciPy and simulation."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar

from helpers.metrics import (
    calibration_error,
    fit_temperature,
    reliability,
    sensitivity_specificity,
    threshold_for_sensitivity,
)


@pytest.mark.parametrize(
    ("sensitivity", "expected"), [(0.2, 0.9), (0.21, 0.7), (0.4, 0.7), (0.6, 0.7), (0.61, 0.3), (0.8, 0.3), (1, 0.1)]
)
def test_threshold_by_hand(sensitivity, expected):
    labels = np.array([1, 0, 1, 1, 0, 1, 1])
    probs = np.array([0.7, 0.95, 0.9, 0.7, 0.2, 0.1, 0.3])  # abnormal: 0.9, 0.7, 0.7, 0.3, 0.1
    threshold = threshold_for_sensitivity(labels, probs, sensitivity=sensitivity)
    assert threshold == expected
    assert (probs[labels == 1] >= threshold).mean() >= sensitivity
    assert (probs[labels == 1] > threshold).mean() < sensitivity  # a higher one would miss too many


def test_threshold_is_not_a_rounding_error_too_low():
    labels, probs = np.ones(100, int), np.arange(1, 101) / 100
    for percent in range(1, 101):
        assert threshold_for_sensitivity(labels, probs, sensitivity=percent / 100) == probs[100 - percent]


@pytest.mark.parametrize("sensitivity", [0, -0.5, 1.01])
def test_sensitivity_outside_its_range_is_named(sensitivity):
    with pytest.raises(ValueError, match=rf"sensitivity is {sensitivity}; expected a number in \(0, 1\]"):
        threshold_for_sensitivity(np.ones(3), np.ones(3), sensitivity=sensitivity)


def test_threshold_needs_abnormal_images():
    with pytest.raises(ValueError, match="no image is abnormal; expected at least one to choose a threshold"):
        threshold_for_sensitivity(np.zeros(3), np.ones(3), sensitivity=0.9)


def wilson(hits: int, total: int) -> tuple[float, float]:
    """Wilson 1927, written out."""
    z, p = 1.959963984540054, hits / total
    centre, half = p + z**2 / (2 * total), z * np.sqrt(p * (1 - p) / total + z**2 / (4 * total**2))
    return (centre - half) / (1 + z**2 / total), (centre + half) / (1 + z**2 / total)


def test_sensitivity_and_specificity_by_hand():
    labels = np.array([1] * 10 + [0] * 20)
    probs = np.array([0.5] * 8 + [0.4] * 2 + [0.6] * 5 + [0.49] * 15)
    point = sensitivity_specificity(labels, probs, threshold=0.5)
    assert point["sensitivity"] == pytest.approx((0.8, *wilson(8, 10)))
    assert point["specificity"] == pytest.approx((0.75, *wilson(15, 20)))
    assert sensitivity_specificity(labels, probs, threshold=0.1)["sensitivity"] == pytest.approx((1, *wilson(10, 10)))


@pytest.mark.parametrize(("label", "name"), [(0, "sensitivity"), (1, "specificity")])
def test_a_class_without_images_is_named(label, name):
    with pytest.raises(ValueError, match=f"{name} is undefined: no image of its class; expected both classes"):
        sensitivity_specificity(np.full(4, label), np.ones(4), threshold=0.5)


def test_reliability_by_hand():
    probs = np.array([0.0, 0.2, 0.25, 0.4, 0.9, 1.0])
    labels = np.array([0, 1, 0, 1, 1, 1])
    predicted, observed, count = reliability(labels, probs, bins=5)  # (…0.2], (0.2…0.4], (0.8…1]
    assert predicted == pytest.approx([0.1, 0.325, 0.95])
    assert observed == pytest.approx([0.5, 0.5, 1])
    assert count.tolist() == [2, 2, 2]
    assert calibration_error(labels, probs, bins=5) == pytest.approx((0.4 + 0.175 + 0.05) / 3)


def test_calibration_error_of_simulated_forecasts():
    rng = np.random.default_rng(0)
    probs = rng.uniform(0, 1, 20_000)
    labels = (rng.random(20_000) < probs).astype(int)
    assert calibration_error(labels, probs) < 0.015
    too_sure = np.where(probs > 0.5, 1.0, 0.0)  # in truth right in three of four cases
    assert calibration_error(labels, too_sure) == pytest.approx(0.25, abs=0.01)


def sharpened(true_t: float, n: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(3)
    honest = rng.normal(0, 2, n)
    labels = (rng.random(n) < 1 / (1 + np.exp(-honest))).astype(int)
    return torch.from_numpy((honest * true_t).astype(np.float32)), torch.from_numpy(labels)


@pytest.mark.parametrize("true_t", [0.4, 1.0, 6.0])
def test_temperature_is_recovered_and_is_the_minimum(true_t):
    logits, labels = sharpened(true_t)

    def cross_entropy(t):
        return F.binary_cross_entropy_with_logits(logits.double() / t, labels.double()).item()

    t = fit_temperature(logits, labels)
    assert t == pytest.approx(true_t, rel=0.1)
    best = minimize_scalar(lambda log_t: cross_entropy(np.exp(log_t)), bounds=(-3, 5), method="bounded")
    assert t == pytest.approx(np.exp(best.x), rel=1e-4)
    assert cross_entropy(t) <= best.fun + 1e-10
    assert true_t == 1 or cross_entropy(t) < cross_entropy(1) - 1e-3
    assert fit_temperature(logits[:, None], labels) == pytest.approx(t)  # (N, 1) as a model gives it


@pytest.mark.parametrize(
    ("labels", "why", "side"),
    [
        (torch.linspace(-3, 3, 50) > 0, "right about all images", -1),
        (torch.linspace(-3, 3, 50) < 0, "no better than chance", 1),
        (torch.arange(50) % 2 == 0, "no better than chance", 1),
    ],
)
def test_a_temperature_without_an_end_is_told_and_finite(labels, why, side):
    with pytest.warns(UserWarning, match=f"^the logits are {why}: no temperature is best, stopped at"):
        t = fit_temperature(torch.linspace(-3, 3, 50), labels.long())
    assert 0 < t < np.inf and side * np.log(t) > 0.5
    with pytest.warns(UserWarning, match="no better than chance"):
        assert 0 < fit_temperature([0.0, 0.0], [0, 1]) < np.inf


@pytest.mark.parametrize(
    ("labels", "probs", "message"),
    [
        ([1, 0], [3.0, -2], "the scores hold 3; expected probabilities in 0…1, not logits"),
        ([1, 0], [np.nan, 0.5], "the scores hold nan; expected probabilities"),
        ([1, -1], [0.9, 0.1], "labels hold -1; expected 0 (normal) and 1 (abnormal)"),
        ([1, 2], [0.9, 0.1], "labels hold 2; expected 0"),
        ([], [], "labels have shape (0,) and scores (0,); expected (N,) of one or more images"),
        ([1, 0], [[0.9, 0.1], [0.2, 0.8]], "labels have shape (2,) and scores (2, 2); expected"),
    ],
)
@pytest.mark.parametrize("score", [calibration_error, reliability])
def test_what_is_no_probability_or_label_is_named(score, labels, probs, message):
    with pytest.raises(ValueError) as error:
        score(labels, probs)
    assert str(error.value).startswith(message)


def test_scores_that_are_not_numbers_give_no_threshold_and_no_temperature():
    labels, scores = np.array([0, 1, 1]), np.array([0.1, np.nan, 0.9])
    for score in (
        lambda y, s: threshold_for_sensitivity(y, s, sensitivity=1),
        lambda y, s: sensitivity_specificity(y, s, threshold=0.5),
        lambda y, s: fit_temperature(torch.tensor(s), torch.tensor(y)),
    ):
        with pytest.raises(ValueError, match="the scores hold nan; expected finite numbers"):
            score(labels, scores)
        with pytest.raises(ValueError, match="labels hold -1; expected 0"):
            score(2 * labels - 1, labels + 0.5)
    assert threshold_for_sensitivity([0, 1], [-4.0, 3], sensitivity=1) == 3  # logits may be cut, too


def test_lists_and_rounding_are_no_fault():
    assert calibration_error([1, 0], [np.float32(1) + np.finfo(np.float32).eps, 0.0]) == pytest.approx(0, abs=1e-6)
    assert calibration_error([True, False], [0.75, 0.25]) == calibration_error([1, 0], [0.75, 0.25]) == 0.25
