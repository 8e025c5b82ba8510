"""Strategies of helpers.acquire against scikit-activeml and baal, on the same pool, and their growth with the pool.

k_centre and badge pick 50 of 10,000 images with 128 features and 10 classes, as scikit-activeml's CoreSet and Badge do;
bald scores 20 answers of members, as baal does, and picks the best. Calls alternate; medians of one run are compared,
and where no chance is involved the picks must be equal. A Pool checks its values when it is made; baal checks nothing,
so this time is told by itself. Then k_centre and badge on pools of 10^4 to 10^6 images.
"""

import argparse
import platform
import statistics
import time
import tracemalloc
from importlib.metadata import version

import numpy as np
from baal.active.heuristics import BALD
from skactiveml.classifier import SklearnClassifier
from skactiveml.pool import Badge, CoreSet
from sklearn.linear_model import LogisticRegression

from helpers.labels import acquire
from helpers.labels.acquire import Pool

FEATURES, CLASSES, PICKS, MEMBERS = 128, 10, 50, 20
LIMITS = {"k_centre": 5, "badge": 5, "bald": 2}


def drawn(images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=images)
    return rng.normal(size=(images, FEATURES)) + np.eye(CLASSES, FEATURES)[labels] * 3, labels


def calls(images: int, labelled: int) -> dict:
    """{strategy: (pool, ours, theirs)}: calls that make the pool, and that return picks."""
    x, labels = drawn(images)
    known = np.full(images, np.nan)
    known[:labelled] = labels[:labelled]
    model = SklearnClassifier(LogisticRegression(max_iter=1000), classes=range(CLASSES)).fit(x, known)
    members = np.random.default_rng(1).dirichlet(np.ones(CLASSES), size=(MEMBERS, images))
    theirs = np.ascontiguousarray(np.moveaxis(members, 0, -1))  # (N, C, M), baal's layout
    probs, first, none = model.predict_proba(x), np.arange(labelled), np.array([], int)
    query = dict(X=x, y=known, batch_size=PICKS)
    plain, informed, answered = Pool(x, first), Pool(x, first, probs=probs), Pool(x, none, members=members)
    return {
        "k_centre": (
            lambda: Pool(x, first),
            lambda: acquire.k_centre(plain, PICKS, seed=0),
            lambda: CoreSet(random_state=0).query(**query),
        ),
        "badge": (
            lambda: Pool(x, first, probs=probs),
            lambda: acquire.badge(informed, PICKS, seed=0),
            lambda: Badge(random_state=0).query(**query, clf=model, fit_clf=False),
        ),
        "bald": (
            lambda: Pool(x, none, members=members),
            lambda: acquire.bald(answered, PICKS, seed=0),
            lambda: BALD()(theirs)[:PICKS],
        ),
    }


def seconds(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compare(images: int, labelled: int, repeats: int) -> None:
    print(f"\npool {images} x {FEATURES}, {CLASSES} classes, {labelled} labelled, {PICKS} picks, {MEMBERS} members")
    for name, (make, ours, theirs) in calls(images, labelled).items():
        same = np.array_equal(ours(), np.ravel(theirs()))
        if name != "badge" and not same:
            raise SystemExit(f"{name}: other picks than the library's; the times would not compare the same thing")
        times = [(seconds(make), seconds(ours), seconds(theirs)) for _ in range(repeats)]
        made, fast, slow = (statistics.median(column) * 1e3 for column in zip(*times, strict=True))
        note = "drawn by chance: see tests for equal draws" if name == "badge" else "equal picks"
        told = f"{fast:6.1f} ms, library {slow:6.1f} ms: {slow / fast:5.1f} x (aim {LIMITS[name]} x)"
        print(f"{name:9s} {told}; with the pool's check, {made:.1f} ms: {slow / (fast + made):4.1f} x  {note}")


def growth(sizes: list[int]) -> None:
    print("\ngrowth with the pool, one call each: seconds, and peak memory above the features")
    for images in sizes:
        x, labels = drawn(images)
        probs = np.full((images, CLASSES), 0.5 / (CLASSES - 1))
        probs[np.arange(images), labels] = 0.5
        pool = Pool(x, np.arange(100), probs=probs)
        for strategy in (acquire.k_centre, acquire.badge):
            took = seconds(lambda strategy=strategy, pool=pool: strategy(pool, PICKS, seed=0))
            tracemalloc.start()
            strategy(pool, PICKS, seed=0)
            peak = tracemalloc.get_traced_memory()[1] / 2**20
            tracemalloc.stop()
            print(
                f"{strategy.__name__:9s} {images:>9,d} images  {took:7.2f} s  {took / images * 1e6:6.2f} us an image"
                f"  {peak:7.0f} MB (features {x.nbytes / 2**20:.0f} MB)"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000, help="pool of the comparison (%(default)s)")
    parser.add_argument("--labelled", type=int, nargs="*", default=[10, 100], help="with a label (%(default)s)")
    parser.add_argument("--repeats", type=int, default=7, help="calls of each (%(default)s)")
    parser.add_argument("--sizes", type=int, nargs="*", default=[10**4, 10**5, 10**6], help="pools of the growth")
    args = parser.parse_args()
    peers = ", ".join(f"{name} {version(name)}" for name in ("scikit-activeml", "baal", "numpy", "scikit-learn"))
    print(f"{platform.processor() or platform.machine()}, {peers}")
    for labelled in args.labelled:
        compare(args.images, labelled, args.repeats)
    growth(args.sizes)


if __name__ == "__main__":
    main()
