"""What a difference is worth: intervals, paired gains, what they could have shown, and corrections for many of them."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.stats import nct, t, ttest_rel
from sklearn.exceptions import UndefinedMetricWarning


def bootstrap_interval(
    statistic: Callable[..., float],
    *arrays: np.ndarray,
    groups: np.ndarray | None = None,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of statistic(*arrays) over images, or over whole groups (patients).

    Resamples on which the statistic is not a number, or raises ValueError (one class only), are left out.
    Source: Efron 1979; groups: Field & Welsh 2007 (cluster bootstrap). Raises ValueError for unequal lengths.
    """
    groups = np.arange(len(arrays[0])) if groups is None else np.asarray(groups)
    lengths = {len(array) for array in (*arrays, groups)}
    if len(lengths) != 1:
        raise ValueError(f"arrays have lengths {sorted(lengths)}; expected one length")
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(samples):
        rows = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        with warnings.catch_warnings(), contextlib.suppress(ValueError):
            warnings.simplefilter("ignore", UndefinedMetricWarning)  # said below, once
            values.append(statistic(*(array[rows] for array in arrays)))
    if np.isnan(values).all():  # none, or scikit-learn's answer to one class
        raise ValueError("the statistic is defined on no resample; expected images of both classes")
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def t_interval(values: Sequence[float], *, level: float = 0.95) -> tuple[float, float]:
    """Mean of values (S,), and half the width of its interval by Student's t; NaN for the width of a single one."""
    values, free = np.asarray(values, float), len(values) - 1
    if not free:
        return float(values.mean()), float("nan")
    return float(values.mean()), float(t.ppf((1 + level) / 2, free) * values.std(ddof=1) / len(values) ** 0.5)


def holm(p: np.ndarray) -> np.ndarray:
    """P values (n,) adjusted for n comparisons: the smallest times n, the next times n - 1, and so on; at most 1.

    Source: Holm, Scand. J. Statist. 6, 1979. Raises ValueError for numbers outside 0…1.
    """
    p = np.asarray(p, float)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p values are {p.tolist()}; expected numbers from 0 to 1")
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return adjusted


def paired_gain(scores: Sequence[float], control: Sequence[float]) -> tuple[float, float]:
    """Mean of scores - control (S,), paired by draw, and half the width of its 95 % interval (Student's t).

    Raises ValueError for fewer than two draws or unequal numbers of them.
    """
    if len(scores) != len(control) or len(scores) < 2:
        raise ValueError(f"{len(scores)} and {len(control)} scores; expected the same two or more draws")
    return t_interval(np.subtract(scores, control))


def detectable_gain(
    scores: Sequence[float], control: Sequence[float], *, comparisons: int = 1, power: float = 0.8
) -> float:
    """The smallest true gain over the control that as many draws would show in `power` of all repetitions.

    From the spread of the paired differences (S,), for a two-sided t test at 0.05 / comparisons: what Holm's correction
    asks of the first of so many. Source: the noncentral t distribution; Cohen, Statistical power analysis, 1988.
    Raises ValueError for fewer than two draws, unequal numbers of them, or comparisons below 1.
    """
    if len(scores) != len(control) or len(scores) < 2:
        raise ValueError(f"{len(scores)} and {len(control)} scores; expected the same two or more draws")
    if comparisons < 1:
        raise ValueError(f"comparisons is {comparisons}; expected 1 or more")
    gain, free = np.subtract(scores, control), len(scores) - 1
    error = float(gain.std(ddof=1)) / len(gain) ** 0.5
    needed = t.ppf(1 - 0.025 / comparisons, free)
    return error * float(brentq(lambda shift: nct.sf(needed, free, shift) - power, 0, 10 * needed))


def who_beats_whom(scores: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """For K rows with scores (S,) of the same S draws: mean differences row - column (K, K), and p values (K, K).

    The p values are of paired t tests, adjusted for all K (K - 1) / 2 comparisons (`holm`).
    Raises ValueError for fewer than two draws or unequal numbers of them.
    """
    values = list(scores.values())
    if len({len(row) for row in values}) != 1 or len(values[0]) < 2:
        raise ValueError(f"rows have {[len(row) for row in values]} scores; expected the same two or more draws")
    table = np.array(values, float)
    means, p = table.mean(1)[:, None] - table.mean(1), np.ones((len(table), len(table)))
    pairs = list(itertools.combinations(range(len(table)), 2))
    raw = [1.0 if (table[i] == table[j]).all() else ttest_rel(table[i], table[j]).pvalue for i, j in pairs]
    for (i, j), value in zip(pairs, holm(np.array(raw)), strict=True):
        p[i, j] = p[j, i] = value
    return means, p
