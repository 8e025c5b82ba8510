"""Strategies of active learning: the picks of scikit-activeml and baal, and what is asked of every strategy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from baal.active import heuristics
from skactiveml.classifier import SklearnClassifier
from skactiveml.pool import Badge, CoreSet, TypiClust, UncertaintySampling
from sklearn.linear_model import LogisticRegression

from helpers.labels import acquire
from helpers.labels.acquire import STRATEGIES, Pool, bald_scores

CLASSES, LABELLED = 3, np.arange(0, 60, 5)
PIXELS_ONLY, IMAGES_ONLY = {"foreground_random"}, {"badge"}


@pytest.fixture(scope="module")
def world():
    """A pool of 200 images with a fitted classifier, and the same in the form that scikit-activeml expects."""
    rng = np.random.default_rng(0)
    x, truth = rng.normal(size=(200, 8)), rng.integers(CLASSES, size=200)
    x[:, 0] += truth
    known = np.full(200, np.nan)
    known[LABELLED] = truth[LABELLED]
    model = SklearnClassifier(LogisticRegression(), classes=range(CLASSES)).fit(x, known)
    members = rng.dirichlet(np.ones(CLASSES), size=(6, 200))
    pool = Pool(x, LABELLED, probs=model.predict_proba(x), members=members, truth=truth)
    return {"x": x, "known": known, "model": model, "pool": pool}


def pool_of(n=40, labelled=(3, 8, 21), pixels=False, seed=1, **other):
    rng = np.random.default_rng(seed)
    shape = (n, CLASSES, 4, 4) if pixels else (n, CLASSES)
    probs = np.moveaxis(rng.dirichlet(np.ones(CLASSES), size=(n, 4, 4) if pixels else n), -1, 1)
    members = np.moveaxis(rng.dirichlet(np.ones(CLASSES), size=(5, n, 4, 4) if pixels else (5, n)), -1, 2)
    assert probs.shape == shape
    given = dict(probs=probs, members=members, truth=rng.integers(CLASSES, size=n)) | other
    return Pool(rng.normal(size=(n, 6)), np.array(labelled, int), **given)


def fitting(name, **options):
    return pool_of(pixels=name in PIXELS_ONLY, **options)


# --- equal to the standard libraries ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("least_confidence", "least_confident"), ("margin", "margin_sampling"), ("entropy", "entropy")],
)
def test_uncertainty_picks_as_scikit_activeml(world, ours, theirs):
    query = UncertaintySampling(method=theirs, random_state=0)
    expected = query.query(X=world["x"], y=world["known"], clf=world["model"], fit_clf=False, batch_size=20)
    assert STRATEGIES[ours](world["pool"], 20, seed=0).tolist() == expected.tolist()


def test_k_centre_picks_as_scikit_activeml(world):
    expected = CoreSet(random_state=0).query(X=world["x"], y=world["known"], batch_size=30)
    assert acquire.k_centre(world["pool"], 30, seed=0).tolist() == expected.tolist()


class SameDraws(np.random.RandomState):
    """Draws by weight from the numbers of our generator."""

    def __init__(self, seed):
        super().__init__(0)
        self.rng = np.random.default_rng(seed)

    def choice(self, n, size, replace, p):
        sums = np.cumsum(p)
        return np.searchsorted(sums / sums[-1], self.rng.random(size), side="right")


def test_badge_picks_as_scikit_activeml(world, monkeypatch):
    monkeypatch.setattr("skactiveml.base.check_random_state", lambda *_: SameDraws(4))
    expected = Badge().query(X=world["x"], y=world["known"], clf=world["model"], fit_clf=False, batch_size=30)
    assert acquire.badge(world["pool"], 30, seed=4).tolist() == np.ravel(expected).tolist()


@pytest.mark.parametrize("labelled", [[], [0, 60, 61]])
def test_typiclust_picks_as_scikit_activeml(labelled):
    sizes = [50, 41, 33, 27, 22, 15, 9]  # all different: equal sizes are settled by chance there
    rng = np.random.default_rng(0)
    x = np.repeat(40 * np.eye(7), sizes, axis=0) + rng.normal(size=(sum(sizes), 7))
    known = np.full(len(x), np.nan)
    known[labelled] = 0
    budget = 7 - len(labelled)
    expected = TypiClust(random_state=1, k=20).query(X=x, y=known, batch_size=budget)
    assert acquire.typiclust(Pool(x, np.array(labelled, int)), budget, seed=1).tolist() == expected.tolist()


def test_bald_scores_and_picks_as_baal(world):
    members = world["pool"].members
    theirs = heuristics.BALD()
    expected = theirs.get_uncertainties(np.moveaxis(members, 0, -1))
    np.testing.assert_allclose(bald_scores(members), expected, atol=1e-12)
    rows = world["pool"].unlabelled
    order = theirs(np.moveaxis(members[:, rows], 0, -1))
    assert acquire.bald(world["pool"], 20, seed=0).tolist() == rows[order[:20]].tolist()


def test_bald_of_pixels_as_baal():
    pool = pool_of(pixels=True)
    theirs = heuristics.BALD(reduction="mean")
    order = theirs(np.moveaxis(pool.members[:, pool.unlabelled], 0, -1))
    assert acquire.bald(pool, 10, seed=0).tolist() == pool.unlabelled[order[:10]].tolist()


# --- what each is for ------------------------------------------------------------------------------------------------


def test_badge_distances_are_those_of_the_gradients():
    pool = pool_of(n=30, labelled=())
    error = pool.probs - np.eye(CLASSES)[pool.probs.argmax(1)]
    gradients = (error[:, :, None] * pool.features[:, None]).reshape(30, -1)
    picks = acquire.badge(pool, 2, seed=5)
    assert picks[0] == np.linalg.norm(gradients, axis=1).argmax()
    squares = (gradients**2).sum(1)
    nearest = np.minimum(squares, ((gradients - gradients[picks[0]]) ** 2).sum(1))
    shares = np.cumsum(nearest) / nearest.sum()
    assert picks[1] == np.searchsorted(shares, np.random.default_rng(5).random(), side="right")


def test_k_centre_spreads_over_clusters():
    rng = np.random.default_rng(0)
    centres = np.repeat(np.eye(5) * 20, 10, axis=0)
    pool = Pool(centres + rng.normal(size=centres.shape), np.array([0]))
    assert sorted(acquire.k_centre(pool, 4, seed=0) // 10) == [1, 2, 3, 4]


def test_k_centre_passes_over_near_duplicates_of_float32():
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(1000, 1, size=(20, 64)), 5, axis=0).astype(np.float32)
    picks = acquire.k_centre(Pool(x, np.arange(5)), 95, seed=0)
    assert sorted(picks) == list(range(5, 100)) and len(set(picks[:19] // 5)) == 19


def test_k_centre_in_blocks_is_k_centre_in_one(monkeypatch):
    pool = pool_of(labelled=range(0, 20, 2))
    whole = acquire.k_centre(pool, 10, seed=0)
    monkeypatch.setattr(acquire, "CHUNK", 30)
    assert acquire.k_centre(pool, 10, seed=0).tolist() == whole.tolist()


def test_typiclust_takes_one_of_each_cluster_from_its_middle():
    rng = np.random.default_rng(0)
    centres = np.repeat(np.eye(4) * 30, 25, axis=0)
    x = centres + rng.normal(size=centres.shape)
    picks = acquire.typiclust(Pool(x, np.array([], int)), 4, seed=0)
    assert sorted(picks // 25) == [0, 1, 2, 3]
    for pick in picks:
        members = x[pick // 25 * 25 :][:25]
        distances = np.linalg.norm(members[:, None] - members, axis=2)
        nearest = np.sort(distances, axis=1)[:, :21].sum(1)
        assert nearest.argmin() == pick % 25


def test_suggestive_covers_the_pool_with_unsure_images():
    # Of four unsure images two are alike; the other, sure ones look like either kind. Two picks must differ in kind.
    x = np.array([[1, 0], [1, 0.01], [0, 1], [0.01, 1], *[[1, 0]] * 5, *[[0, 1]] * 5], float)
    probs = np.array([[0.5, 0.5]] * 4 + [[0.99, 0.01]] * 10)
    picks = acquire.suggestive(Pool(x, np.array([], int), probs=probs), 2, seed=0)
    assert set(picks) <= {0, 1, 2, 3} and (min(picks) < 2 <= max(picks))


def test_class_balanced_evens_out_what_is_there():
    truth = np.array([0] * 30 + [1] * 6 + [2] * 4)
    pool = Pool(np.ones((40, 1)), np.array([0, 1, 2]), truth=truth)
    picks = acquire.class_balanced(pool, 9, seed=0)
    assert np.bincount(truth[[0, 1, 2, *picks]]).tolist() == [4, 4, 4]
    rest = acquire.class_balanced(pool, 37, seed=0)
    assert sorted(rest) == pool.unlabelled.tolist()


def test_foreground_random_takes_its_share_where_a_structure_is():
    probs = np.zeros((60, 2, 4, 4))
    probs[:, 0] = 1
    probs[:12, :, 1, 1] = [0.2, 0.8]
    pool = Pool(np.ones((60, 1)), np.array([], int), probs=probs)
    inside = [np.sum(acquire.foreground_random(pool, 12, seed=seed, share=2 / 3) < 12) for seed in range(20)]
    assert min(inside) >= 8 and np.mean(inside) < 11
    assert sorted(acquire.foreground_random(pool, 12, seed=0)) == list(range(12))
    nothing = Pool(np.ones((60, 1)), np.array([], int), probs=probs[12:][np.arange(60) % 48])
    assert len(set(acquire.foreground_random(nothing, 12, seed=0))) == 12


def test_random_is_uniform():
    pool = pool_of(n=20, labelled=(0, 1))
    counts = np.bincount(np.concatenate([acquire.random(pool, 6, seed=seed) for seed in range(600)]), minlength=20)
    assert counts[:2].sum() == 0 and abs(counts[2:] - 200).max() < 60


# --- what is asked of all --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("labelled", [(), (3,), (3, 8, 21)])
@pytest.mark.parametrize("budget", [0, 1, 7])
def test_picks_are_new_different_and_the_same_again(name, labelled, budget):
    pool = fitting(name, labelled=labelled)
    picks = STRATEGIES[name](pool, budget, seed=3)
    assert picks.shape == (budget,) and picks.dtype.kind == "i"
    assert len(set(picks)) == budget and set(picks) <= set(pool.unlabelled)
    assert picks.tolist() == STRATEGIES[name](pool, budget, seed=3).tolist()


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_whole_rest_can_be_picked(name):
    pool = fitting(name, n=12, labelled=(3, 8, 11))
    assert sorted(STRATEGIES[name](pool, 9, seed=0)) == pool.unlabelled.tolist()


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("budget", [-1, 38])
def test_a_budget_the_pool_has_not_is_refused(name, budget):
    with pytest.raises(ValueError, match=f"budget is {budget}; expected 0 to 37"):
        STRATEGIES[name](fitting(name), budget, seed=0)


@pytest.mark.parametrize("name", STRATEGIES)
def test_nothing_left_is_an_empty_pick(name):
    pool = fitting(name, n=5, labelled=range(5))
    assert STRATEGIES[name](pool, 0, seed=0).tolist() == []
    with pytest.raises(ValueError, match="budget is 1; expected 0 to 0"):
        STRATEGIES[name](pool, 1, seed=0)


@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - PIXELS_ONLY))
def test_one_class_seen_leaves_a_choice_by_chance(name):
    """A model that knows one class answers it for sure everywhere: no image stands out, and seeds differ."""
    sure = np.tile([1.0, 0.0], (40, 1))
    pool = pool_of(probs=sure, members=np.stack([sure] * 3), truth=np.zeros(40, int))
    picks = [STRATEGIES[name](pool, 5, seed=seed).tolist() for seed in (0, 1)]
    assert all(len(set(pick)) == 5 for pick in picks)
    if name not in ("k_centre", "typiclust", "suggestive"):  # these look at features
        assert picks[0] != picks[1]


@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - PIXELS_ONLY))
def test_a_single_class_column_is_a_model_without_doubt(name):
    one = np.ones((40, 1))
    pool = pool_of(probs=one, members=np.stack([one] * 3), truth=np.zeros(40, int))
    assert len(set(STRATEGIES[name](pool, 5, seed=0))) == 5


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
@pytest.mark.parametrize("name", ["k_centre", "badge", "typiclust", "suggestive"])
def test_images_all_alike_are_picked_once_each(name):
    pool = Pool(np.ones((9, 3)), np.array([4]), probs=np.full((9, 2), 0.5))
    assert len(set(STRATEGIES[name](pool, 8, seed=0))) == 8


@pytest.mark.parametrize("name", ["least_confidence", "margin", "entropy", "bald"])
def test_uncertainty_of_pixels_is_their_mean(name):
    pool = pool_of(pixels=True)
    flat = np.full((40, CLASSES, 4, 4), 1e-9)
    flat[:, 0] = 1 - 2e-9
    probs, members = flat.copy(), np.stack([flat] * 2)
    probs[17, :, 2, 2], members[:, 17, :, 2, 2] = 1 / 3, np.eye(CLASSES)[:2]
    pool = Pool(pool.features, pool.labelled, probs=probs, members=members)
    assert STRATEGIES[name](pool, 1, seed=0).tolist() == [17]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(features=np.zeros((0, 3))), "at least one image"),
        (dict(features=np.zeros(4)), "expected \\(N, D\\)"),
        (dict(features=np.full((4, 3), np.nan)), "features hold NaN"),
        (dict(labelled=np.array([1, 1])), "different indices below 4"),
        (dict(labelled=np.array([4])), "different indices below 4"),
        (dict(labelled=np.array([-1])), "different indices below 4"),
        (dict(probs=np.full((4, 2), np.nan)), "probs hold NaN"),
        (dict(probs=np.full((4, 2), 0.6)), "do not sum to 1"),
        (dict(probs=np.tile([1.5, -0.5], (4, 1))), "negative"),
        (dict(probs=np.full((3, 2), 0.5)), "expected \\(N, C\\)"),
        (dict(probs=np.full((4, 0), 0.5)), "expected \\(N, C\\)"),
        (dict(members=np.full((4, 2), 0.5)), "expected \\(M, N, C\\)"),
        (dict(members=np.full((3, 4, 2), 0.4)), "do not sum to 1"),
        (dict(labelled=np.array([0.5])), "labelled is \\[0.5\\]; expected integers"),
        (dict(labelled=np.array([True, False])), "expected integers"),
        (dict(truth=np.array([0, 1, np.nan, 1])), "expected integers"),
        (dict(features=[["a"], ["b"], ["c"], ["d"]]), "features hold <U1; expected numbers"),
        (dict(truth=np.zeros(3, int)), "truth has shape \\(3,\\); expected \\(4,\\)"),
    ],
)
def test_a_pool_that_is_none_is_refused(change, message):
    given = dict(features=np.zeros((4, 3)), labelled=np.array([0])) | change
    with pytest.raises(ValueError, match=message):
        Pool(**given)


@pytest.mark.parametrize(
    ("name", "lacks"),
    [("entropy", "probs"), ("badge", "probs"), ("bald", "members"), ("class_balanced", "truth")],
)
def test_a_strategy_says_what_the_pool_lacks(name, lacks):
    with pytest.raises(ValueError, match=f"the pool has no {lacks}"):
        STRATEGIES[name](Pool(np.zeros((4, 3)), np.array([0])), 1, seed=0)


def test_strategies_of_images_and_of_pixels_are_told_apart():
    with pytest.raises(ValueError, match="badge expects \\(N, C\\)"):
        acquire.badge(pool_of(pixels=True), 1, seed=0)
    with pytest.raises(ValueError, match="foreground_random expects \\(N, C, H, W\\)"):
        acquire.foreground_random(pool_of(), 1, seed=0)


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16])
def test_features_of_any_type_are_picked_as_those_of_float64(name, dtype):
    rng = np.random.default_rng(3)
    whole = pool_of(pixels=name == "foreground_random")
    features = rng.integers(0, 256, whole.features.shape).astype(dtype)
    picks = [
        STRATEGIES[name](replace(whole, features=x), 6, seed=0).tolist() for x in (features, features.astype(float))
    ]
    assert picks[0] == picks[1] and len(set(picks[0])) == 6


@pytest.mark.parametrize("make", [np.ndarray.tolist, torch.from_numpy, lambda a: torch.from_numpy(a).requires_grad_()])
def test_lists_and_tensors_are_kept_as_arrays(make):
    rng = np.random.default_rng(0)
    x, p = rng.normal(size=(9, 2)), rng.dirichlet([1, 1], (3, 9))
    plain = Pool(x, np.array([0]), probs=p[0], members=p, truth=np.arange(9) % 2)
    other = Pool(make(x), [0], probs=make(p[0]), members=make(p), truth=(np.arange(9) % 2).tolist())
    for name in STRATEGIES:
        if name != "foreground_random":
            assert STRATEGIES[name](other, 3, seed=1).tolist() == STRATEGIES[name](plain, 3, seed=1).tolist()
    assert len(Pool(x, []).unlabelled) == 9
    assert Pool(x.astype(np.float32), [0]).features.dtype == np.float32
