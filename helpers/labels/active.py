"""The loop of active learning, played on images whose labels are known, and what its curves are worth."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from sklearn.metrics import cohen_kappa_score
from threadpoolctl import threadpool_limits

from helpers.labels.acquire import Pool
from helpers.transfer import linear_probe


@dataclass(frozen=True)
class Answer:
    """What a model says after a round: of the pool as in `Pool`, and measures of it on the test images, by name.

    features (N, D): those of this model, if it has learned its own.
    """

    probs: np.ndarray = field(repr=False)
    measures: dict[str, float]
    members: np.ndarray | None = field(default=None, repr=False)
    features: np.ndarray | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Curve:
    """A simulation: order, the images as they were asked for; counts (R,), labels at each of R models; and of these
    measures {name: (R,)} and decisions (R, N, …), the most probable classes in the pool."""

    order: np.ndarray
    counts: np.ndarray
    measures: dict[str, np.ndarray]
    decisions: np.ndarray = field(repr=False)


# Thousands of small products: sharing each of them between two threads takes longer than doing it.
@threadpool_limits.wrap(limits=1, user_api="blas")
def simulate(
    strategy: Callable[..., np.ndarray],
    fit: Callable[[np.ndarray], Answer],
    features: np.ndarray,
    *,
    start: Sequence[int],
    budget: int,
    rounds: int,
    seed: int,
    truth: np.ndarray | None = None,
) -> Curve:
    """Fit a model to the images `start`, and `rounds` times let a strategy ask for `budget` more and fit again.

    fit(labelled): a new model, trained on the images with these indices. features (N, D) and truth (N,), of the oracle
    only, are those of `Pool`. Round r asks with the seed (seed, r). Raises ValueError as the strategies do, and at once
    if the pool has too few images for all rounds.
    """
    if budget < 1 or rounds < 0 or len(start) + budget * rounds > len(features):
        raise ValueError(
            f"{len(start)} images to start, {rounds} rounds with budget {budget}; expected a budget of 1 or more, "
            f"and at most {len(features)} images in all"
        )
    order, measured, decisions = np.asarray(start, int), [], []
    for turn in range(rounds + 1):
        answer = fit(order)
        measured.append(answer.measures)
        decisions.append(answer.probs.argmax(1).astype(np.uint8))
        if turn < rounds:
            picks = ask(strategy, answer, features, order, budget, seed=seed, turn=turn, truth=truth)
            order = np.concatenate([order, picks])
    measures = {name: np.array([values[name] for values in measured]) for name in measured[0]}
    counts = len(start) + budget * np.arange(rounds + 1)
    return Curve(order, counts, measures, np.stack(decisions))


def ask(
    strategy: Callable[..., np.ndarray],
    answer: Answer,
    features: np.ndarray,
    labelled: np.ndarray,
    budget: int,
    *,
    seed: int,
    turn: int,
    truth: np.ndarray | None = None,
) -> np.ndarray:
    """What a strategy asks for in round `turn`, (budget,) indices; features are the model's own, if it has any."""
    own = features if answer.features is None else answer.features
    pool = Pool(own, labelled, probs=answer.probs, members=answer.members, truth=truth)
    return strategy(pool, budget, seed=int(np.random.default_rng([seed, turn]).integers(2**31)))


def once(fit: Callable[[np.ndarray], Answer], start: Sequence[int]) -> Callable[[np.ndarray], Answer]:
    """The same `fit`, but the model of the images `start`, which strategies share, is fitted once."""
    first = functools.cache(lambda: fit(np.asarray(start, int)))
    return lambda labelled: first() if np.array_equal(labelled, start) else fit(labelled)


def probe_probs(
    features: np.ndarray, labels: np.ndarray, labelled: np.ndarray, *, classes: int, members: int = 0, seed: int = 0
) -> np.ndarray:
    """Probabilities (N, classes) by a linear probe on the images `labelled`, for all features (N, D).

    A class that has not been seen gets 0; if one class has been seen, it gets 1. members: with M > 0 the answers
    (M, N, classes) of M probes instead, each fitted to a bootstrap sample of the labelled images.
    """
    rng = np.random.default_rng(seed)
    if members:
        samples = (rng.choice(labelled, len(labelled)) for _ in range(members))
        return np.stack([probe_probs(features, labels, sample, classes=classes) for sample in samples])
    seen, probs = np.unique(labels[labelled]), np.zeros((len(features), classes))
    if len(seen) == 1:
        probs[:, seen] = 1
    else:
        probs[:, seen] = linear_probe(features[labelled], labels[labelled]).predict_proba(features)
    return probs


def area(counts: np.ndarray, scores: np.ndarray) -> float:
    """Area under a learning curve, divided by its width: the mean score over the labels spent."""
    return float(np.trapezoid(scores, counts) / (counts[-1] - counts[0]))


def labels_needed(counts: np.ndarray, scores: np.ndarray, goal: float) -> float:
    """Labels at which a curve first reaches a goal, between two models by a straight line; NaN if it never does."""
    reached = np.flatnonzero(np.asarray(scores) >= goal)
    if not len(reached) or reached[0] == 0:
        return float(counts[0]) if len(reached) else float("nan")
    i = reached[0]
    return float(np.interp(goal, scores[i - 1 : i + 1], counts[i - 1 : i + 1]))


def stop_at(decisions: np.ndarray, *, agreement: float = 0.99, window: int = 3) -> int | None:
    """The first model at which to stop: decisions (R, N) have settled; None if they never do.

    They have if Cohen's kappa between one model and the next is, in the mean of `window` steps, at least `agreement`.
    Source: Bloodgood and Vijay-Shanker, CoNLL 2009, Section 4.
    """
    kappas = [
        1.0 if (a == b).all() else cohen_kappa_score(a.ravel(), b.ravel()) for a, b in itertools.pairwise(decisions)
    ]
    means = [np.mean(kappas[i - window : i]) for i in range(window, len(kappas) + 1)]
    return next((i + window for i, mean in enumerate(means) if mean >= agreement), None)
