"""Statistics: intervals that cover, corrections, and what a number of draws could have shown."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp, ttest_rel
from sklearn.metrics import roc_auc_score

from helpers.stats import bootstrap_interval, detectable_gain, holm, paired_gain, t_interval, who_beats_whom


def test_bootstrap_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(300):
        low, high = bootstrap_interval(np.mean, rng.normal(2, 1, 60), samples=200, seed=trial)
        hits += low <= 2 <= high
    assert 0.90 <= hits / 300 <= 0.98


def test_bootstrap_interval_is_close_to_the_normal_one():
    values = np.random.default_rng(1).normal(0, 1, 400)
    half = values.std() / 20
    for level, z in ((0.95, 1.96), (0.68, 0.994)):
        interval = bootstrap_interval(np.mean, values, samples=4000, level=level)
        assert interval == pytest.approx((values.mean() - z * half, values.mean() + z * half), abs=0.15 * half)


def test_bootstrap_depends_on_the_seed_only():
    values = np.arange(20.0)
    first, again, other = (bootstrap_interval(np.mean, values, samples=50, seed=s) for s in (1, 1, 2))
    assert first == again != other


def test_resampling_whole_patients_is_wider_where_images_are_alike():
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(20), 10)
    values = rng.normal(0, 1, 20)[groups] + rng.normal(0, 0.1, 200)
    (low, high), (low_group, high_group) = (bootstrap_interval(np.mean, values, groups=g) for g in (None, groups))
    assert 2.2 < (high_group - low_group) / (high - low) < 4.2  # √10 = 3.2
    shuffled = rng.permutation(groups)  # not in a row: a group is its members, wherever they are
    low_mixed, high_mixed = bootstrap_interval(np.mean, values, groups=shuffled)
    assert (high_mixed - low_mixed) / (high - low) < 1.6
    assert bootstrap_interval(np.mean, values, groups=list(groups)) == (low_group, high_group)


def test_images_of_a_resample_stay_together():
    first, second = np.arange(10.0), np.arange(10.0) * 3
    assert bootstrap_interval(lambda a, b: float((b / np.maximum(a, 1e-9))[a > 0].mean()), first, second) == (3, 3)


def raising_auc(labels, scores):
    if len(set(labels)) < 2:
        raise ValueError("one class")
    return roc_auc_score(labels, scores)


@pytest.mark.filterwarnings("ignore:Only one class")
@pytest.mark.parametrize("auc", [roc_auc_score, raising_auc])
def test_resamples_of_one_class_are_left_out(auc):
    labels, scores = np.array([0, 0, 1]), np.array([0.1, 0.2, 0.9])  # 1 in 3 resamples has one class
    assert bootstrap_interval(auc, labels, scores, samples=100) == (1.0, 1.0)
    with pytest.raises(ValueError, match="the statistic is defined on no resample; expected images of both classes"):
        bootstrap_interval(auc, 0 * labels, scores, samples=20)


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match=r"arrays have lengths \[3, 4\]; expected one length"):
        bootstrap_interval(np.mean, np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match=r"arrays have lengths \[3, 4\]; expected one length"):
        bootstrap_interval(np.mean, np.zeros(4), groups=np.zeros(3))


def test_holm_as_in_the_paper_s_scheme():
    p = np.array([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(holm(p), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.5, 0.9])), [1, 1])
    assert len(holm(np.array([]))) == 0
    with pytest.raises(ValueError, match="p values are .*; expected numbers from 0 to 1"):
        holm(np.array([0.2, np.nan]))


def test_who_beats_whom_is_paired_and_adjusted():
    rng = np.random.default_rng(0)
    base = rng.normal(size=8)  # the draws differ much more than the rows
    rows = {"a": base + rng.normal(scale=0.05, size=8), "b": base + 0.3 + rng.normal(scale=0.05, size=8), "c": base}
    means, p = who_beats_whom(rows)
    assert means[1, 0] == pytest.approx(np.mean(rows["b"] - rows["a"])) == -means[0, 1]
    assert p[0, 1] < 0.001 and p[1, 2] < 0.001 and p[0, 2] == pytest.approx(ttest_rel(rows["a"], base).pvalue)
    assert (p == p.T).all() and (np.diag(p) == 1).all()


def test_chance_alone_rarely_wins_after_the_correction():
    rng = np.random.default_rng(0)
    wins = sum((who_beats_whom({k: rng.normal(size=5) for k in range(6)})[1] < 0.05).any() for _ in range(100))
    assert wins <= 10  # without the correction about 40


def test_rows_that_are_the_same_do_not_differ():
    means, p = who_beats_whom({"a": np.ones(3), "b": np.ones(3)})
    assert (means == 0).all() and (p == 1).all()


@pytest.mark.parametrize("rows", [{"a": [1.0], "b": [2.0]}, {"a": [1.0, 2.0], "b": [1.0, 2.0, 3.0]}])
def test_rows_that_cannot_be_paired_are_refused(rows):
    with pytest.raises(ValueError, match="expected the same two or more draws"):
        who_beats_whom(rows)


def test_paired_gain_is_scipy_s_interval():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=6), rng.normal(size=6)
    mean, half = paired_gain(a, b)
    found = ttest_rel(a, b).confidence_interval(0.95)
    np.testing.assert_allclose([mean - half, mean + half], [found.low, found.high])
    mean, half = t_interval(a, level=0.8)
    np.testing.assert_allclose([mean - half, mean + half], ttest_1samp(a, 0).confidence_interval(0.8))
    assert t_interval([2.0])[0] == 2 and np.isnan(t_interval([2.0])[1])
    with pytest.raises(ValueError, match="1 and 1 scores; expected the same two or more draws"):
        paired_gain([1.0], [2.0])


@pytest.mark.parametrize(("draws", "comparisons"), [(5, 1), (5, 15), (10, 30)])
def test_a_detectable_gain_is_shown_in_four_of_five_repetitions(draws, comparisons):
    """Simulated: differences of known spread around that gain, and a t test at the level of the first of n."""
    shape = np.random.default_rng(1).normal(size=draws)
    shape = (shape - shape.mean()) / shape.std(ddof=1)  # a sample whose standard deviation is 1
    gain = detectable_gain(shape, np.zeros(draws), comparisons=comparisons)
    repeated = np.random.default_rng(0).normal(gain, 1, size=(20_000, draws))
    shown = ttest_rel(repeated, np.zeros_like(repeated), axis=1).pvalue < 0.05 / comparisons
    assert shown.mean() == pytest.approx(0.8, abs=0.015)
    assert detectable_gain(3 * shape, np.zeros(draws), comparisons=comparisons) == pytest.approx(3 * gain)


def test_what_detectable_gain_refuses():
    with pytest.raises(ValueError, match="1 and 1 scores; expected the same two or more draws"):
        detectable_gain([1.0], [2.0])
    with pytest.raises(ValueError, match="comparisons is 0; expected 1 or more"):
        detectable_gain([1.0, 2.0], [2.0, 3.0], comparisons=0)
