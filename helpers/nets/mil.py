"""Multiple instance learning: a label for the bag, none for its instances. Bags of any sizes, without padding.

A bag is a slide, a volume, a film cut into patches; its instances are feature vectors. Those of several bags lie in one
tensor, instances (M, D), and bags (M,) says to which of B bags each belongs: integers 0 … B - 1, in any order.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from helpers.nets.init import init_weights

POOLS = ("attention", "mean", "max")


def segment_softmax(scores: torch.Tensor, bags: torch.Tensor) -> torch.Tensor:
    """Softmax of scores (M,) within each bag: (M,) numbers that sum to 1 in every bag.

    Raises ValueError for bags of another length, negative numbers, and a bag without instances.
    """
    count = _count(bags, len(scores))
    top = scores.new_full((count,), -torch.inf).scatter_reduce(0, bags, scores.detach(), "amax")
    shares = (scores - top[bags]).exp()
    return shares / shares.new_zeros(count).index_add(0, bags, shares)[bags]


def take(instances: torch.Tensor, bags: torch.Tensor, chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Instances and bags of the chosen bags (K,) only, which become bags 0 … K - 1 in this order.

    Raises ValueError for a bag without instances.
    """
    rows = [torch.nonzero(bags == bag)[:, 0] for bag in chosen]
    if empty := [int(bag) for bag, part in zip(chosen, rows, strict=True) if not len(part)]:
        raise ValueError(f"bag {empty[0]} is empty; expected an instance in each of the chosen bags")
    renumbered = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor([len(part) for part in rows]))
    return instances[torch.cat(rows)], renumbered


class MIL(nn.Module):
    """Embed each instance, average the embeddings of a bag with weights, classify the average: logits (B, 1).

    The three pools differ in the weights only. "attention": learned, softmax of wᵀ(tanh(V h) ⊙ σ(U h)); "mean": equal;
    "max": all on the instance whose own logit is highest, which is classical MIL, since the classifier is linear.
    Source: Ilse, Tomczak and Welling, Attention-based deep multiple instance learning, ICML 2018, Eq. 7 to 9.
    """

    def __init__(self, features: int, *, hidden: int, pool: str):
        super().__init__()
        self.pool = pool
        self.embed = nn.Sequential(nn.Linear(features, hidden), nn.ReLU())
        if pool == "attention":
            inner = max(1, hidden // 2)
            self.v, self.u, self.w = nn.Linear(hidden, inner), nn.Linear(hidden, inner), nn.Linear(inner, 1)
        self.classifier = nn.Linear(hidden, 1)

    def scores(self, h: torch.Tensor) -> torch.Tensor:
        """What the softmax is taken of, (M,), for embeddings h (M, hidden)."""
        if self.pool == "attention":
            return self.w(self.v(h).tanh() * self.u(h).sigmoid())[:, 0]
        return self.classifier(h)[:, 0] if self.pool == "max" else h.new_zeros(len(h))

    def forward(self, instances: torch.Tensor, bags: torch.Tensor, *, chunk: int | None = None) -> torch.Tensor:
        """Logits (B, 1). chunk: so many instances are embedded at a time, for bags larger than memory.

        Raises ValueError for instances of another width than the model's, no instances, a chunk below 1, and as
        `segment_softmax`.
        """
        parts = list(zip(*(x.split(self._chunk(instances, chunk)) for x in (instances, bags)), strict=True))
        weights = self.weights(torch.cat([self.scores(self.embed(part)) for part, _ in parts]), bags)
        pooled = weights.new_zeros(int(bags.max()) + 1, self.classifier.in_features)
        for (part, of_part), share in zip(parts, weights.split([len(part) for part, _ in parts]), strict=True):
            pooled = pooled.index_add(0, of_part, share[:, None] * self.embed(part))  # (B, hidden)
        return self.classifier(pooled)

    def weights(self, scores: torch.Tensor, bags: torch.Tensor) -> torch.Tensor:
        """Share of each instance in its bag, (M,); of several with the highest score "max" takes the mean."""
        if self.pool != "max":
            return segment_softmax(scores, bags)
        top = scores.new_full((_count(bags, len(scores)),), -torch.inf).scatter_reduce(0, bags, scores, "amax")
        return segment_softmax(torch.where(scores == top[bags], 0.0, -torch.inf), bags)

    @torch.inference_mode()
    def explain(self, instances: torch.Tensor, bags: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """For each instance its share in the bag, (M,), and the logit that it would have as a bag of its own, (M,)."""
        h = self.embed(instances)
        return self.weights(self.scores(h), bags), self.classifier(h)[:, 0]

    def _chunk(self, instances: torch.Tensor, chunk: int | None) -> int:
        width = self.embed[0].in_features
        if instances.ndim != 2 or instances.shape[1] != width or not len(instances):
            raise ValueError(f"instances are {tuple(instances.shape)}; expected (M, {width}) with M of 1 or more")
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk is {chunk}; expected 1 or more")
        return chunk or len(instances)


def mil(features: int, *, hidden: int = 64, pool: str = "attention", seed: int = 0) -> MIL:
    """MIL with freshly initialised weights; `model.config` holds the arguments. ValueError for an unknown pool."""
    if pool not in POOLS or features < 1 or hidden < 1:
        raise ValueError(f"pool is {pool!r}, features {features}, hidden {hidden}; expected {POOLS}, positive numbers")
    model = init_weights(MIL(features, hidden=hidden, pool=pool), np.random.default_rng(seed))
    model.config = dict(features=features, hidden=hidden, pool=pool, seed=seed)
    return model


def _count(bags: torch.Tensor, instances: int) -> int:
    """Number of bags, after a check that each has an instance."""
    if bags.shape != (instances,) or not instances or bags.is_floating_point() or bags.min() < 0:
        raise ValueError(f"bags are {tuple(bags.shape)}; expected ({instances},), integers of 0 or more")
    sizes = torch.bincount(bags)
    if not sizes.all():
        raise ValueError(f"bag {int(sizes.argmin())} is empty; expected an instance in each of {len(sizes)} bags")
    return len(sizes)
