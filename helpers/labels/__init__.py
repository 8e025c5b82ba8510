"""Labels that cost less: which images to label next, and what a scribble, a box or a size says."""

from helpers.labels.acquire import STRATEGIES, Pool, foreground_random, margin
from helpers.labels.active import Answer, area, ask, once, probe_probs, simulate

__all__ = [
    "STRATEGIES",
    "Answer",
    "Pool",
    "area",
    "ask",
    "foreground_random",
    "margin",
    "once",
    "probe_probs",
    "simulate",
]
