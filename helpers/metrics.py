"""How good and how certain: intervals, operating points, calibration."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import binomtest
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


def threshold_for_sensitivity(labels: np.ndarray, probs: np.ndarray, *, sensitivity: float) -> float:
    """The highest threshold at which at least `sensitivity` of the abnormal images have a probability ≥ it.

    Raises ValueError without abnormal images and for a sensitivity outside (0, 1].
    """
    if not 0 < sensitivity <= 1:
        raise ValueError(f"sensitivity is {sensitivity}; expected a number in (0, 1]")
    positives = np.sort(probs[labels == 1])[::-1]
    if len(positives) == 0:
        raise ValueError("no image is abnormal; expected at least one to choose a threshold")
    needed = int(np.ceil(sensitivity * len(positives) - 1e-9))  # 0.55 · 100 is 55.000000000000007
    return float(positives[max(needed, 1) - 1])


def sensitivity_specificity(labels: np.ndarray, probs: np.ndarray, *, threshold: float) -> dict[str, tuple]:
    """Sensitivity and specificity at a threshold, each as (value, low, high) with the 95 % Wilson interval."""
    called = probs >= threshold
    counts = {
        "sensitivity": (int((called & (labels == 1)).sum()), int((labels == 1).sum())),
        "specificity": (int((~called & (labels == 0)).sum()), int((labels == 0).sum())),
    }
    result = {}
    for name, (hits, total) in counts.items():
        if total == 0:
            raise ValueError(f"{name} is undefined: no image of its class; expected both classes")
        interval = binomtest(hits, total).proportion_ci(method="wilson")
        result[name] = (hits / total, interval.low, interval.high)
    return result


def reliability(labels: np.ndarray, probs: np.ndarray, *, bins: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean predicted probability, observed share of abnormal images, and count, per bin of equal width; empty left out.

    Source: Niculescu-Mizil & Caruana 2005.
    """
    edges = np.linspace(0, 1, bins + 1)
    which = np.digitize(probs, edges[1:-1], right=True)
    used = np.unique(which)
    predicted, observed = (np.array([values[which == b].mean() for b in used]) for values in (probs, labels))
    return predicted, observed, np.array([(which == b).sum() for b in used])


def calibration_error(labels: np.ndarray, probs: np.ndarray, *, bins: int = 10) -> float:
    """Expected calibration error: Σ_b (n_b / n) |observed_b − predicted_b|. Source: Naeini et al. 2015, Eq. 1."""
    predicted, observed, count = reliability(labels, probs, bins=bins)
    return float((count / count.sum() * np.abs(observed - predicted)).sum())


def fit_temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """The temperature T > 0 that minimises the cross entropy of logits / T, for one logit per image (N,).

    Source: Guo et al. 2017, Eq. 9. Fit it on validation images, never on the test set.
    """
    log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_t], max_iter=100, line_search_fn="strong_wolfe")
    logits, labels = logits.double().flatten(), labels.double()

    def closure():
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(logits / log_t.exp(), labels)
        loss.backward()
        return loss

    optimizer.step(closure)
    return float(log_t.detach().exp())
