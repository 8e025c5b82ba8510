"""How good: operating points, and calibration."""

from __future__ import annotations

import warnings

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import binomtest


def threshold_for_sensitivity(labels: np.ndarray, probs: np.ndarray, *, sensitivity: float) -> float:
    """The highest threshold at which at least `sensitivity` of the abnormal images have a probability ≥ it.

    Raises ValueError without abnormal images, for a sensitivity outside (0, 1], labels other than 0 and 1, and NaN.
    """
    labels, probs = _checked(labels, probs, top=np.inf)
    if not 0 < sensitivity <= 1:
        raise ValueError(f"sensitivity is {sensitivity}; expected a number in (0, 1]")
    positives = np.sort(probs[labels == 1])[::-1]
    if len(positives) == 0:
        raise ValueError("no image is abnormal; expected at least one to choose a threshold")
    needed = int(np.ceil(sensitivity * len(positives) - 1e-9))  # 0.55 · 100 is 55.000000000000007
    return float(positives[max(needed, 1) - 1])


def sensitivity_specificity(labels: np.ndarray, probs: np.ndarray, *, threshold: float) -> dict[str, tuple]:
    """Sensitivity and specificity at a threshold, each as (value, low, high) with the 95 % Wilson interval.

    Raises ValueError where a class has no images, for labels other than 0 and 1, and NaN.
    """
    labels, probs = _checked(labels, probs, top=np.inf)
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

    Raises ValueError for no images, labels other than 0 and 1, and probabilities outside 0…1.
    Source: Niculescu-Mizil & Caruana 2005.
    """
    labels, probs = _checked(labels, probs, top=1)
    edges = np.linspace(0, 1, bins + 1)
    which = np.digitize(probs, edges[1:-1], right=True)
    used = np.unique(which)
    predicted, observed = (np.array([values[which == b].mean() for b in used]) for values in (probs, labels))
    return predicted, observed, np.array([(which == b).sum() for b in used])


def calibration_error(labels: np.ndarray, probs: np.ndarray, *, bins: int = 10) -> float:
    """Expected calibration error: Σ_b (n_b / n) |observed_b − predicted_b|. Source: Naeini et al. 2015, Eq. 1.

    Raises ValueError as `reliability`.
    """
    predicted, observed, count = reliability(labels, probs, bins=bins)
    return float((count / count.sum() * np.abs(observed - predicted)).sum())


def fit_temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """The temperature T > 0 that minimises the cross entropy of logits / T, for one logit per image (N,).

    Where no T is best, it warns and says where it stopped: logits that are right about all images ask for ever smaller
    ones, logits that know less than chance for ever larger ones. Raises ValueError for no images, labels other than 0
    and 1, and NaN. Source: Guo et al. 2017, Eq. 9. Fit it on validation images, never on the test set.
    """
    logits, labels = torch.as_tensor(logits), torch.as_tensor(labels)
    _checked(labels, logits.detach().flatten(), top=np.inf)
    log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_t], max_iter=100, line_search_fn="strong_wolfe")
    logits, labels = logits.double().flatten(), labels.double()

    def closure():
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(logits / log_t.exp(), labels)
        loss.backward()
        return loss

    optimizer.step(closure)
    right = (2 * labels - 1) * logits  # by how much each image is on its own side
    if right.min() >= 0 or right.sum() <= 0:
        why = "no better than chance" if right.sum() <= 0 else "right about all images"
        temperature = float(log_t.detach().clamp(-15, 15).nan_to_num(15).exp())
        warnings.warn(f"the logits are {why}: no temperature is best, stopped at {temperature:.2g}", stacklevel=2)
        return temperature
    return float(log_t.detach().exp())


def _checked(labels, probs, *, top: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities (or, with an infinite top, scores) of images as arrays; ValueError if they are none."""
    labels, probs = np.asarray(labels), np.asarray(probs)
    if labels.shape != probs.shape or labels.ndim != 1 or not len(labels):
        raise ValueError(
            f"labels have shape {labels.shape} and scores {probs.shape}; expected (N,) of one or more images"
        )
    if not np.isin(labels, (0, 1)).all():
        bad = labels[~np.isin(labels, (0, 1))][0]
        raise ValueError(f"labels hold {bad}; expected 0 (normal) and 1 (abnormal)")
    low, slack = (0 if top == 1 else -np.inf), 1e-6  # a sum of float32 may be a little more than 1
    fits = np.isfinite(probs) & (probs >= low - slack) & (probs <= top + slack)
    if not fits.all():
        expected = "probabilities in 0…1, not logits" if top == 1 else "finite numbers"
        raise ValueError(f"the scores hold {probs[~fits][0]:g}; expected {expected}")
    return labels, probs
