"""Which images to label next: the strategies of active learning, all called as strategy(pool, budget, seed=…)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestNeighbors

CHUNK = 2**20  # numbers in a block of distances: 8 MB


@dataclass(frozen=True)
class Pool:
    """What a strategy may know of N images, of which some have a label.

    features: (N, D) finite numbers. labelled: (L,) different indices, may be empty. probs: (N, C), what the present
    model answers, or (N, C, H, W) for every pixel. members: (M, N, C) or (M, N, C, H, W), the answers of M models, or
    of one with dropout left on. truth: (N,) integer labels, for the oracle only. Lists and tensors become arrays, and
    features and probabilities of other types float64 (float32 stays): squares of 8-bit integers would overflow.
    Raises ValueError for no images, other shapes, and values that are no features, indices or probabilities.
    """

    features: np.ndarray
    labelled: np.ndarray
    probs: np.ndarray | None = None
    members: np.ndarray | None = None
    truth: np.ndarray | None = None

    def __post_init__(self):
        for name in ("features", "probs", "members", "labelled", "truth"):
            if (values := getattr(self, name)) is not None:
                values = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
                convert = _integers if name in ("labelled", "truth") else _floats
                object.__setattr__(self, name, convert(name, values))
        features, labelled = self.features, self.labelled
        if features.ndim != 2 or not len(features):
            raise ValueError(f"features have shape {features.shape}; expected (N, D) with at least one image")
        if not np.isfinite(features).all():
            raise ValueError("features hold NaN or infinite values; expected finite numbers")
        if (
            labelled.ndim != 1
            or len(set(labelled.tolist())) != len(labelled)
            or not np.isin(labelled, range(len(features))).all()
        ):
            raise ValueError(f"labelled is {labelled.tolist()}; expected different indices below {len(features)}")
        for name, axis in (("probs", 1), ("members", 2)):
            if getattr(self, name) is not None:
                _check_probs(name, getattr(self, name), axis, len(features))
        if self.truth is not None and self.truth.shape != (len(features),):
            raise ValueError(f"truth has shape {self.truth.shape}; expected ({len(features)},)")

    @property
    def unlabelled(self) -> np.ndarray:
        """Sorted indices of the images without a label."""
        return np.setdiff1d(np.arange(len(self.features)), self.labelled)


def random(pool: Pool, budget: int, *, seed: int) -> np.ndarray:
    """Any `budget` of the images without a label: the control of every other strategy.

    Like all strategies it returns (budget,) indices, raises ValueError for a budget below 0 or above the number of
    images without a label, and for a pool that lacks what the strategy needs, and settles ties by chance.
    """
    return np.random.default_rng(seed).permutation(_candidates(pool, budget))[:budget]


def least_confidence(pool: Pool, budget: int, *, seed: int) -> np.ndarray:
    """The images whose most probable class is least probable. Needs probs. Source: Lewis and Gale, SIGIR 1994."""
    rows = _candidates(pool, budget, "probs")
    return _highest(1 - _of_images(pool.probs[rows].max(1)), rows, budget, seed)


def margin(pool: Pool, budget: int, *, seed: int) -> np.ndarray:
    """The images whose two most probable classes are closest. Needs probs. Source: Scheffer et al., IDA 2001."""
    rows = _candidates(pool, budget, "probs")
    first_two = np.sort(pool.probs[rows], axis=1)[:, -2:]  # one class: its margin is 0 everywhere
    return _highest(-_of_images(first_two[:, -1] - first_two[:, 0]), rows, budget, seed)


def entropy(pool: Pool, budget: int, *, seed: int) -> np.ndarray:
    """The images with the highest entropy, -Σ p log p; of pixels the mean. Needs probs. Source: Shannon, 1948."""
    rows = _candidates(pool, budget, "probs")
    return _highest(_of_images(_entropy(pool.probs[rows], axis=1)), rows, budget, seed)


def bald(pool: Pool, budget: int, *, seed: int) -> np.ndarray:
    """The images on which the members disagree most, see `bald_scores`. Needs members."""
    rows = _candidates(pool, budget, "members")
    return _highest(_of_images(bald_scores(pool.members)[rows]), rows, budget, seed)


def bald_scores(members: np.ndarray) -> np.ndarray:
    """Entropy of the mean answer minus mean entropy of the answers, (M, N, C, …) to (N, …), in nats.

    Members who are all unsure alike score 0; members who are sure, each of something else, score high.
    Source: Houlsby et al., arXiv 1112.5745, Eq. 2; with dropout Gal, Islam and Ghahramani, ICML 2017.
    """
    one_by_one = sum(_entropy(answers, axis=1) for answers in members)  # a member's answers fit into the cache
    return _entropy(members.mean(0), axis=1) - one_by_one / len(members)


def k_centre(pool: Pool, budget: int, *, seed: int) -> np.ndarray:
    """Again and again the image farthest from all images with a label or picked: a core-set. Needs features only.

    Source: Sener and Savarese, ICLR 2018, Algorithm 1.
    """
    _candidates(pool, budget)
    x, picks = pool.features, []
    squares = np.einsum("nd,nd->n", x, x)
    nearest = _nearest(x, x[pool.labelled])
    compared = np.zeros(len(x), int)  # with so many picks; a distance to the nearest can only fall with more of them
    nearest[pool.labelled] = -1
    for _ in range(budget):
        block = 64
        while compared[nearest.argmax()] < len(picks):  # only the farthest images need to be up to date
            top = np.argpartition(nearest, -min(block, len(x)))[-block:]
            distances = squares[top, None] - 2 * x[top] @ x[picks].T + squares[picks]
            nearest[top] = np.minimum(nearest[top], distances.min(1).clip(min=0))
            compared[top], block = len(picks), 2 * block
        first = np.isinf(nearest).all()
        picks.append(int(np.random.default_rng(seed).integers(len(x)) if first else nearest.argmax()))
        nearest[picks[-1]] = -1  # an image is picked once, also where all are alike
    return np.array(picks, int)


def badge(pool: Pool, budget: int, *, seed: int) -> np.ndarray:
    """Images with large and different gradients of the last layer. Needs probs (N, C).

    The gradient, if the most probable class were true, is (p - onehot) ⊗ features. The first pick has the longest one;
    the next are drawn by the squared distance to the nearest pick, or to zero if that is nearer, as in scikit-activeml
    (k-means++). Distances come from products of the two factors, so the (N, C·D) gradients are never built.
    Source: Ash et al., ICLR 2020, Algorithm 1; there zero does not count.
    """
    _candidates(pool, budget, "probs")
    if pool.probs.ndim != 2:
        raise ValueError(f"probs have shape {pool.probs.shape}; badge expects (N, C)")
    rng, x, p, taken = np.random.default_rng(seed), pool.features, pool.probs, list(pool.labelled)
    error = p - np.eye(p.shape[1])[p.argmax(1)]  # (N, C)
    squares = np.einsum("nc,nc->n", error, error) * np.einsum("nd,nd->n", x, x)
    nearest = squares.copy()
    for turn in range(budget):
        nearest[taken] = 0
        at = int(nearest.argmax()) if turn == 0 and nearest.any() else _draw(nearest, taken, rng)
        taken.append(at)
        distances = squares - 2 * (error @ error[at]) * (x @ x[at]) + squares[at]
        np.minimum(nearest, distances.clip(min=0), out=nearest)
    return np.array(taken[len(pool.labelled) :], int)


def typiclust(pool: Pool, budget: int, *, seed: int, neighbours: int = 20) -> np.ndarray:
    """The most typical image of each of the largest clusters without a label. Needs features only: no model yet.

    As many clusters (k-means) as there will be labels; typical is who is near to its `neighbours` nearest in the
    cluster. Where clusters are used up, any images follow.
    Source: Hacohen, Dekel and Weinshall, ICML 2022, Algorithm 1.
    """
    rows = _candidates(pool, budget)
    if not budget:
        return rows[:0]
    found = KMeans(len(pool.labelled) + budget, random_state=seed).fit_predict(pool.features)
    sizes = np.bincount(found, minlength=found.max() + 1)
    sizes[found[pool.labelled]] = 0
    largest = [c for c in np.argsort(-sizes, kind="stable")[:budget] if sizes[c]]
    picks = [_most_typical(pool.features, np.flatnonzero(found == cluster), neighbours) for cluster in largest]
    rest = np.random.default_rng(seed).permutation(np.setdiff1d(rows, picks))
    return np.concatenate([np.array(picks, int), rest[: budget - len(picks)]])


def suggestive(pool: Pool, budget: int, *, seed: int, ratio: int = 2) -> np.ndarray:
    """Of the ratio · budget images with the highest entropy those that represent the pool best. Needs probs.

    Greedily: the pick that raises Σ over the pool of the highest cosine similarity to a pick.
    Source: Yang et al., MICCAI 2017, Section 2.3 (there the uncertainty is a variance of several networks).
    """
    rows = _candidates(pool, budget, "probs")
    unsure = entropy(pool, min(ratio * budget, len(rows)), seed=seed)
    unit = pool.features / np.linalg.norm(pool.features, axis=1, keepdims=True).clip(min=1e-12)
    alike = unit[unsure] @ unit[rows].T  # (ratio · budget, n)
    covered, picks = np.full(len(rows), -1.0), []
    for _ in range(budget):
        gains = np.maximum(alike, covered).sum(1)
        gains[picks] = -np.inf
        picks.append(int(gains.argmax()))
        covered = np.maximum(covered, alike[picks[-1]])
    return unsure[picks]


def class_balanced(pool: Pool, budget: int, *, seed: int) -> np.ndarray:
    """An oracle: images at random, each of the class with the fewest labels so far. Needs truth, which nobody has."""
    rows = np.random.default_rng(seed).permutation(_candidates(pool, budget, "truth"))
    truth, picks = np.asarray(pool.truth), []
    for _ in range(budget):
        open_rows = rows[~np.isin(rows, picks)]
        known = truth[np.concatenate([pool.labelled, picks]).astype(int)]
        counts = {c: np.sum(known == c) for c in np.unique(truth[open_rows])}
        picks.append(open_rows[truth[open_rows] == min(counts, key=counts.get)][0])
    return np.array(picks, int)


def foreground_random(pool: Pool, budget: int, *, seed: int, share: float = 1.0, smallest: float = 0.005) -> np.ndarray:
    """Any images, but a `share` of them among those where the model finds a structure. Needs probs (N, C, H, W).

    Class 0 is background; what covers less than `smallest` of the pixels is a stray, no structure. Where the model
    finds too few, any images follow.
    Source: Lüth et al., nnActive, 2025 (there patches, the true foreground, and a share of a third or two).
    """
    rows = _candidates(pool, budget, "probs")
    if pool.probs.ndim != 4:
        raise ValueError(f"probs have shape {pool.probs.shape}; foreground_random expects (N, C, H, W)")
    mixed = np.random.default_rng(seed).permutation(rows)
    found = (pool.probs[mixed].argmax(1) > 0).mean((1, 2)) >= smallest
    first = mixed[found][: round(share * budget)]
    return np.concatenate([first, mixed[~np.isin(mixed, first)][: budget - len(first)]])


STRATEGIES: dict[str, Callable[..., np.ndarray]] = {
    strategy.__name__: strategy
    for strategy in (
        *(random, least_confidence, margin, entropy, bald, k_centre, badge, typiclust, suggestive),
        *(class_balanced, foreground_random),
    )
}


def _candidates(pool: Pool, budget: int, *needs: str) -> np.ndarray:
    """Images without a label, after a check of the budget and of what the strategy needs."""
    rows = pool.unlabelled
    if not 0 <= budget <= len(rows):
        raise ValueError(f"budget is {budget}; expected 0 to {len(rows)}, the images without a label")
    for name in needs:
        if getattr(pool, name) is None:
            raise ValueError(f"the pool has no {name}; expected them for this strategy")
    return rows


def _floats(name: str, values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{name} hold {values.dtype}; expected numbers")
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)


def _integers(name: str, values: np.ndarray) -> np.ndarray:
    """Integers, also of floats without a fraction; no booleans, which are a mask."""
    if values.dtype.kind not in "iuf" or not (values == np.rint(values)).all():
        raise ValueError(f"{name} is {values.tolist()}; expected integers")
    return values if values.dtype.kind in "iu" else values.astype(int)


def _check_probs(name: str, values: np.ndarray, axis: int, images: int) -> None:
    if values.ndim not in (axis + 1, axis + 3) or values.shape[axis - 1] != images or 0 in values.shape:
        shape = "(M, N, C) or (M, N, C, H, W)" if axis == 2 else "(N, C) or (N, C, H, W)"
        raise ValueError(f"{name} have shape {values.shape}; expected {shape} with N = {images}")
    if not (values >= 0).all() or np.abs(values.sum(axis) - 1).max() > 1e-3:
        raise ValueError(f"{name} hold NaN or negative values, or do not sum to 1; expected probabilities of classes")


def _highest(scores: np.ndarray, rows: np.ndarray, budget: int, seed: int) -> np.ndarray:
    """The rows with the highest scores, best first; ties by chance."""
    order = np.random.default_rng(seed).permutation(len(rows))
    return rows[order[np.argsort(-scores[order], kind="stable")[:budget]]]


def _of_images(scores: np.ndarray) -> np.ndarray:
    """(n, …) to (n,): the mean over pixels, if there are any."""
    return scores.reshape(len(scores), -1).mean(1) if len(scores) else scores.reshape(0)


def _entropy(probs: np.ndarray, *, axis: int) -> np.ndarray:
    return -(probs * np.log(probs.clip(min=np.finfo(probs.dtype).tiny))).sum(axis)


def _nearest(x: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Squared distance of x (n, D) to the nearest of centres (k, D), block by block; infinite without centres."""
    nearest, squares = np.full(len(x), np.inf, x.dtype), np.einsum("kd,kd->k", centres, centres)
    step = max(1, CHUNK // max(1, len(centres)))
    for start in range(0, len(x) if len(centres) else 0, step):
        part = x[start : start + step]
        products = part @ centres.T  # (n, k)
        distances = (squares - 2 * products).min(1) + np.einsum("nd,nd->n", part, part)
        nearest[start : start + step] = distances.clip(min=0)
    return nearest


def _draw(weights: np.ndarray, taken: list[int], rng: np.random.Generator) -> int:
    """An index drawn by its weight; any but those taken, if all weights are 0."""
    if not weights.any():
        weights = np.ones(len(weights))
        weights[taken] = 0
    sums = np.cumsum(weights)
    return int(np.searchsorted(sums / sums[-1], rng.random(), side="right"))


def _most_typical(features: np.ndarray, members: np.ndarray, neighbours: int) -> int:
    if len(members) == 1:
        return int(members[0])
    near = NearestNeighbors(n_neighbors=min(neighbours + 1, len(members))).fit(features[members])
    return int(members[near.kneighbors(features[members])[0].sum(1).argmin()])
