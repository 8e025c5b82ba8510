"""Chapter 08: its idea equals the standard library's, its own tools do what they say, its grid and texts fit."""

import functools
from types import SimpleNamespace

import chapter
import numpy as np
import pytest
import torch
from chapter import cells, prose, recorded
from scipy.stats import ttest_rel
from sklearn.isotonic import IsotonicRegression

from helpers.data import UNLABELLED
from helpers.labels import weak
from helpers.runs import repo_root
from helpers.runs.grid import read_grid
from helpers.shallow import feature_table
from helpers.stats import detectable_gain, holm, paired_gain

CHAPTER = repo_root() / "notebooks" / "08_label_budget.ipynb"
tools = functools.partial(chapter.tools, CHAPTER, ("import copy\n", "from helpers import adapt"))


def discs(*radii, size=32) -> np.ndarray:
    away = np.hypot(*(np.indices((size, size)) - size / 2))
    return np.array([away < radius for radius in radii])


def idea_of_the_chapter() -> SimpleNamespace:
    (source,) = cells(CHAPTER, "idea")
    namespace = {"np": np}
    exec(source, namespace)
    return SimpleNamespace(**namespace)


@pytest.fixture(scope="module")
def idea():
    return idea_of_the_chapter()


def test_the_non_decreasing_curve_equals_isotonic_regression(idea):
    rng = np.random.default_rng(0)
    for n in (1, 2, 5, 40):
        scores = rng.normal(size=n) + np.linspace(0, 1, n)
        theirs = IsotonicRegression().fit_transform(np.arange(n), scores)
        assert np.allclose(idea.non_decreasing(scores), theirs, atol=1e-12)


def test_worth_reads_the_curve_backwards(idea):
    labels, control = np.array([5, 10, 20, 50, 200]), np.array([0.5, 0.6, 0.7, 0.8, 0.9])
    assert np.allclose([idea.worth(score, labels, control) for score in control], labels)
    assert idea.worth(0.65, labels, control) == pytest.approx(np.sqrt(10 * 20))
    assert idea.worth(0.1, labels, control) == pytest.approx(5)
    assert idea.worth(0.99, labels, control) == pytest.approx(200)
    flat = [0.5, 0.7, 0.7, 0.6, 0.9]  # 10 to 50 labels have 0.667, and the fewest of them count
    assert idea.worth(2 / 3, labels, flat) == pytest.approx(10)
    scores = np.linspace(0.5, 0.9, 50)
    assert (np.diff([idea.worth(score, labels, flat) for score in scores]) >= 0).all()


@pytest.mark.parametrize("number", range(3))
def test_a_stub_is_not_yet_right_and_its_solution_is(number, idea, capsys):
    namespace = dict(np=np, worth=idea.worth, paired_gain=paired_gain)
    for tag, answer in (("exercise", "not yet"), ("solution", "correct")):
        exec(cells(CHAPTER, tag)[number], namespace)
        assert capsys.readouterr().out.strip() == answer


def test_drawings_contradict_no_mask_and_an_empty_slice_is_all_background():
    masks = discs(9, 0, 5)
    run = SimpleNamespace(seed=0, device="cpu")
    drawn = tools("def drawings(", run=run, row="classes", live=False).drawings(masks)
    assert (drawn["outline"].numpy() == masks).all()
    for kind in ("outline", "patch", "scribble"):
        labels = drawn[kind].numpy()
        weak.check_labels(labels, masks.astype(np.uint8))
        assert (labels[1] == 0).all() and (labels[[0, 2]] == 1).any((1, 2)).all()
    assert {kind: (maps == UNLABELLED).any().item() for kind, maps in drawn.items()} == {
        "outline": False, "patch": True, "scribble": True,
    }  # fmt: skip


def test_losses_of_drawings():
    loss_of = tools("def loss_of(").loss_of
    masks = torch.from_numpy(discs(9, 5)).long()
    perfect = 20 * torch.stack([1 - 2 * masks, 2 * masks - 1], 1).float()
    images, sizes = masks[:, None].float(), masks.sum((1, 2)).float()
    assert loss_of("outline", perfect, masks, images, sizes) < 1e-4 < loss_of("outline", -perfect, masks, images, sizes)
    patch = torch.from_numpy(weak.eroded(masks.bool().numpy()))
    everywhere = torch.full_like(perfect, -20)
    everywhere[:, 1] = 20
    assert loss_of("patch", perfect, patch, images, sizes) < 1e-3  # a patch alone would allow to paint everything
    assert loss_of("patch", everywhere, patch, images, sizes) > 1
    scribble = torch.from_numpy(weak.scribble(masks.bool().numpy()))
    assert loss_of("scribble", perfect, scribble, images, sizes) < loss_of(
        "scribble", everywhere, scribble, images, sizes
    )
    elsewhere = torch.where((scribble == UNLABELLED)[:, None], -perfect, perfect)
    said = [
        loss_of("scribble", logits, scribble, images.new_zeros(2, 1, 32, 32), sizes) for logits in (perfect, elsewhere)
    ]
    assert said[0] != said[1]  # only the term of the edges sees pixels without a label


def test_budgets_of_a_draw_are_nested_and_draws_differ():
    of = [tools("def some(", run=SimpleNamespace(seed=seed)).some for seed in (0, 1)]
    rows = np.arange(100, 300)
    assert of[0](rows, 10)[:5].tolist() == of[0](rows, 5).tolist() != of[1](rows, 5).tolist()


def test_chosen_slices_are_a_random_half_and_then_where_the_model_finds_something():
    run, to_train = SimpleNamespace(seed=0, device="cpu"), np.arange(40, 80)
    x = torch.zeros(100, 1, 8, 8)
    x[60:] = 1  # the network finds a ventricle in rows 60 and beyond
    given = dict(run=run, to_train=to_train, x=x, learn=lambda known: None)
    given["predict"] = lambda net, images: torch.cat([1 - images, images], 1) * 9
    known = tools("def some(", **given)
    known = tools("def chosen(", **given, some=known.some).chosen(20)
    assert len(set(known)) == 20 and set(known) <= set(to_train)
    assert known[:10].tolist() == to_train[np.random.default_rng(0).permutation(40)[:10]].tolist()
    assert (known[10:] >= 60).all()


def test_the_first_images_hold_one_of_each_class():
    classes = np.repeat([0, 1, 2], [90, 8, 2])
    train = np.random.default_rng(1).permutation(100)
    for seed in range(5):
        run = SimpleNamespace(seed=seed)
        some = tools("def some(", run=run).some
        draw = tools("def draw_classes(", run=run, some=some, train=train, class_of=classes).draw_classes
        assert set(classes[train[draw(5)]]) == {0, 1, 2}
        assert draw(20)[:5].tolist() == draw(5).tolist() and len(set(draw(50))) == 50


def test_doubtful_images_come_after_a_random_half():
    rng, classes = np.random.default_rng(0), np.repeat([0, 1], 50)
    features = {"transfer": classes[:, None] * 4.0 + rng.normal(size=(100, 3))}
    run, train = SimpleNamespace(seed=0), np.arange(100)
    some = tools("def some(", run=run).some
    given = dict(run=run, some=some, train=train, class_of=classes)
    draw = tools("def draw_classes(", **given).draw_classes
    picked = tools("def most_doubtful(", **given, features=features, draw_classes=draw).most_doubtful(20)
    assert picked[:10].tolist() == draw(10).tolist() and len(set(picked)) == 20
    middle = np.abs(features["transfer"].mean(1) - 2)
    assert middle[picked[10:]].mean() < 0.5 * middle.mean()


def test_minutes_pay_for_what_is_drawn_and_for_tags():
    prices = dict(live=False, SECONDS={"tag": 1, "class": 20}, PRICES={"outline": 80, "scribble": 10})
    tool = tools("def minutes(", **prices)
    assert tool.minutes("scribble", 20, 15) == pytest.approx((15 * 10 + 5) / 60)
    assert tool.minutes("class", np.array([3, 6]), None).tolist() == [1, 2]


def test_the_front_holds_what_nothing_beats():
    front = tools("def front(", by_task={}).front
    costs, scores = np.array([1, 2, 3, 3, 4]), np.array([0.5, 0.4, 0.7, 0.6, 0.7])
    assert front(costs, scores).tolist() == [True, False, True, False, False]


def test_good_enough_is_a_small_gap_for_sure_and_not_a_gap_that_nobody_can_show():
    page = tools("def good_enough(")
    first = 0.80 + 0.01 * np.arange(10) / 9
    steady = first - 0.02 + 0.004 * (-1) ** np.arange(10)  # slightly behind, and sure
    noisy = np.where(np.arange(10) % 3, 0.86, 0.3)
    gap, half = paired_gain(first, noisy)
    assert 0 < gap < half  # not shown to be worse
    assert page.good_enough(steady, first) and not page.good_enough(noisy, first)
    assert page.good_enough(first, first) and page.good_enough(first + 0.1, first)
    assert not page.good_enough(first - 0.04, first) and page.good_enough(first - 0.04, first, margin=0.05)
    assert page.MARGIN == 0.03
    gap, half = paired_gain(first, steady)
    assert not page.good_enough(steady, first, margin=gap + half)  # the upper end itself is not below the margin


def test_the_page_orders_by_the_worst_draw():
    found = {"noisy": np.array([0.9, 0.9, 0.3]), "steady": np.array([0.7, 0.7, 0.7]), "poor": np.array([0.5, 0.5, 0.2])}
    assert tools("def by_worst(").by_worst(found) == ["steady", "noisy", "poor"]


def test_one_more_draw_falls_below_the_worst_of_ten_once_in_eleven_times():
    draws = np.random.default_rng(0).normal(size=(20000, 11))
    assert (draws[:, 10] < draws[:, :10].min(1)).mean() == pytest.approx(1 / 11, abs=0.006)


def test_the_page_reads_between_two_numbers_of_labels_and_counts_what_failed_there():
    scores = np.array([[0.1, 0.5, 0.7], [0.3, 0.1, 0.9]])
    given = dict(ROWS={"hearts": ["a", "dear"]}, of_runs=lambda key, name: scores, by_worst=sorted)
    given |= dict(spent_minutes=lambda key, name: np.array([2.0, 8.0, 32.0]) * (100 if name == "dear" else 1))
    page = tools("def at_minutes(", **given)
    assert page.at_minutes(("hearts", ""), "a", 4) == pytest.approx([0.3, 0.2])
    assert page.at_minutes(("hearts", ""), "a", 1) is None and page.at_minutes(("hearts", ""), "a", 33) is None
    assert list(page.affordable(("hearts", ""), 4)) == ["a"]
    lost = tools("def failed_near(", **given, FAILED={"hearts": 0.2}).failed_near
    assert lost(("hearts", ""), "a", 4) == (2, 4) and lost(("hearts", ""), "a", 16) == (1, 4)
    assert lost(("hearts", ""), "a", 1.99) == (2, 4) and lost(("hearts", ""), "a", 32.1) == (1, 4)


def test_a_live_run_stands_among_the_draws_with_as_many_labels(monkeypatch):
    metrics = [{"plain: labels": [5, 20], "plain: Dice": [0.1 * k, 0.2 * k]} for k in (1, 2)]
    params = dict(row="hearts", data="phantom")
    rows = [{"record": {"metrics": one}, "params": params} for one in metrics] + [{"record": None, "params": params}]
    space = tools("def recorded_draws(", records=lambda grid: rows)
    assert space.recorded_draws("hearts", "plain", "Dice", 20) == pytest.approx([0.2, 0.4])
    assert np.isnan(space.recorded_draws("hearts", "plain", "Dice", 50)).all()
    assert len(space.recorded_draws("classes", "network", "AUC", 20)) == 0


def test_ten_draws_make_the_bootstrap_too_narrow():
    rng, inside = np.random.default_rng(0), 0
    for _ in range(500):
        draws = rng.normal(size=10)
        low, high = np.quantile(draws[rng.integers(10, size=(500, 10))].mean(1), (0.025, 0.975))
        inside += low <= 0 <= high
    assert 0.84 < inside / 500 < 0.93


def test_runs_of_the_grid_are_parts_of_the_chapter():
    runs = read_grid(repo_root() / "grids" / "label_budget.yaml").runs
    found = {(run["row"], run["data"], run["seed"]) for run in runs}
    assert found == {(r, d, s) for r in ("hearts", "classes") for d in ("phantom", "public") for s in range(10)}
    assert len(runs) == len(found) == 40


WEAK = ("patch + size", "scribble", "scribble, augmented")
PLACES = ("phantom", "public")
COMPARED = {"hearts": ("augmented", "attention gate", "teacher", "chosen", "augmented + teacher", *WEAK, "forest")}
COMPARED |= {"classes": ("network, augmented", "table", "transfer", "transfer, augmented", "transfer, chosen")}
COMPARED["classes"] += ("transfer + table",)
CONTROL = {"hearts": "plain", "classes": "network"}
MEASURE = {"hearts": "Dice", "classes": "AUC"}


def pair_of(table, row, data, name):
    """Scores of a method and of its control (draws,), means over 5, 10, 20 and 50 labels."""
    return [table[row, data, f"{one}: {MEASURE[row]}"][:, :4].mean(1) for one in (name, CONTROL[row])]


def shown(table) -> dict[tuple[str, str, str], bool]:
    """The comparisons that are shown after Holm's correction, and whether the method is better."""
    keys = [(row, data, name) for row, names in COMPARED.items() for data in PLACES for name in names]
    pairs = [pair_of(table, *key) for key in keys]
    adjusted = holm(np.array([ttest_rel(*pair).pvalue for pair in pairs]))
    assert len(keys) == 30
    return {key: a.mean() > b.mean() for key, (a, b), p in zip(keys, pairs, adjusted, strict=True) if p < 0.05}


def sentences(table) -> dict[str, str]:
    """What the chapter says of its recorded tables, word for word, with the numbers of the records."""
    worth = idea_of_the_chapter().worth

    def score(row, data, name, k):
        return table[row, data, f"{name}: {MEASURE[row]}"][:, k]

    def mean(row, data, name, k):
        return f"{score(row, data, name, k).mean():.2f}"

    def two(row, name, k):
        return " and ".join(mean(row, data, name, k) for data in PLACES)

    def lost(*names):
        found = [table["hearts", data, f"{name}: Dice"] < 0.2 for data in PLACES for name in names]
        return sum(values.sum() for values in found), sum(values.size for values in found)

    def worth_of(row, name, data, k):
        labels = table[row, data, f"{CONTROL[row]}: labels"][0]
        score_of_control = score(row, data, CONTROL[row], slice(None)).mean(0)
        value = worth(score(row, data, name, k).mean(), labels, score_of_control)
        return "200 or more" if value > 199.5 else f"{value:.0f}"

    def worths(row, name, k):
        return " and ".join(worth_of(row, name, data, k) for data in PLACES)

    def up(data, k=0):
        return f"from {mean('hearts', data, 'plain', k)} to {mean('hearts', data, 'augmented', k)}"

    def seen(data, name):
        return f"{detectable_gain(*pair_of(table, 'hearts', data, name), comparisons=30):.2f}"

    failed = lost(*WEAK), lost("plain"), lost("augmented", "augmented + teacher")
    assert failed[2][0] == 0
    (both,) = {worth_of("hearts", "augmented", data, 2) for data in PLACES}
    of_twenty = {name: mean("hearts", "phantom", name, 2) for name in ("augmented", "plain", *WEAK, "forest")}
    of_class = {name: mean("classes", "phantom", name, 2) for name in ("network", *COMPARED["classes"])}
    return {
        "live": "augmented {augmented}, plain {plain}.".format(**of_twenty),
        "live weak": f"patches with sizes have {of_twenty['patch + size']}, scribbles {of_twenty['scribble']}, and "
        f"{of_twenty['scribble, augmented']} if they are augmented",
        "live forest": f"single pixels, {of_twenty['forest']}",
        "live classes": f"its recorded mean is {of_class['network']}, behind a table of textures ({of_class['table']})",
        "live copies": f"lift it to {of_class['network, augmented']}, the best of the seven",
        "live borrowed": f"({of_class['transfer']} to {of_class['transfer, augmented']})",
        "five": f"lifts the plain network {up('phantom')} on phantoms and {up('public')} on ACDC",
        "lost": "{} of {} with weak labels ended below 0.2, which is useless, {} of {} plain ones, "
        "and none of {} with".format(*failed[0], *failed[1], failed[2][1]),
        "three minutes": f"Three minutes buy twenty augmented scribbles and {two('hearts', 'scribble, augmented', 2)}",
        "unseen on ACDC": f"on ACDC a teacher alone would have had to gain {seen('public', 'teacher')}, "
        f"chosen slices {seen('public', 'chosen')}",
        "unseen gates": f"Gates are narrower: {seen('phantom', 'attention gate')} and "
        f"{seen('public', 'attention gate')} would have been shown",
        "worth augmented": f"Twenty augmented outlines are worth about {both} plain ones on both sets",
        "worth five": f"five augmented ones are worth {worths('hearts', 'augmented', 0)}",
        "worth scribbles": f"twenty augmented scribbles are worth {worths('hearts', 'scribble, augmented', 2)}",
        "worth classes": f"Twenty images with changed copies are worth {worths('classes', 'network, augmented', 2)} "
        "without",
    }


@pytest.fixture(scope="module")
def table():
    return recorded("label_budget", draws=10)


def test_the_prose_says_what_is_recorded(table):
    text = prose(CHAPTER)
    for name, sentence in sentences(table).items():
        assert sentence in text, name


def test_which_differences_are_shown(table):
    said = {
        ("hearts", "phantom"): {"augmented + teacher": True, "patch + size": False, "scribble": False, "forest": False},
        ("hearts", "public"): {"augmented": True, "augmented + teacher": True, "patch + size": False, "forest": False},
        ("classes", "phantom"): {"network, augmented": True, "table": True, "transfer, augmented": True},
        ("classes", "public"): {name: False for name in COMPARED["classes"] if name.startswith("transfer")},
    }
    assert shown(table) == {(*key, name): up for key, names in said.items() for name, up in names.items()}
    text = prose(CHAPTER)
    for sentence in (
        "Augmented outlines with a teacher are shown to be better on both sets, augmentation alone on ACDC; patches "
        "with sizes and the forest are shown to be worse on both, plain scribbles on phantoms. Nothing else is shown",
        "Changed copies for the network, the table, and changed copies for borrowed features are shown to be better "
        "on ultrasound. On chest films nothing is shown to be better, and all four rows with borrowed features are "
        "shown to be worse",
    ):
        assert sentence in text


def test_what_else_the_prose_says_of_the_records(table):
    def dice(data, name):
        return table["hearts", data, f"{name}: Dice"]

    outlined = ("augmented", "attention gate", "teacher", "chosen", "augmented + teacher")
    for data in PLACES:
        at_fifty = [dice(data, name)[:, 3].mean() - dice(data, "plain")[:, 3].mean() for name in outlined]
        assert max(map(abs, at_fifty)) < 0.03  # close together with fifty
        both, one = (pair_of(table, "hearts", data, name)[0] for name in ("augmented + teacher", "augmented"))
        gain, half = paired_gain(both, one)  # what a teacher adds to augmentation: 0.01, and not shown
        assert f"{gain:.2f}" == "0.01" and half > gain
        between = [dice(data, name)[:, :3].mean(0) for name in ("plain", "teacher", "augmented")]
        assert (np.diff(between, axis=0) > 0).all()
        assert all(dice(data, "plain")[:, 4].mean() > dice(data, name)[:, 4].mean() for name in WEAK)
    for few, many in ((0, 3), (2, 4)):  # outlines against scribbles for about the same minutes
        pairs = [(dice(d, "augmented + teacher")[:, few], dice(d, "scribble, augmented")[:, many]) for d in PLACES]
        gains = [paired_gain(*pair) for pair in pairs]
        assert all(abs(gain) < half for gain, half in gains)
        assert few == 0 or all(gain > 0 for gain, _ in gains)
        could = [f"{detectable_gain(*pair, comparisons=4):.2f}" for pair in pairs]
        assert few or "less than {} and {} would often have been missed".format(*could) in prose(CHAPTER)
    lost = [dice(data, "scribble, augmented")[:, :2] < 0.2 for data in PLACES]
    assert np.mean(lost) == pytest.approx(0.25, abs=0.05)  # one training in four
    gaps = [paired_gain(dice("public", "forest")[:, k], dice("public", "plain")[:, k]) for k in range(4)]
    assert [abs(gap) < half for gap, half in gaps] == [True, True, False, False] and gaps[3][0] < 0
    assert not any(name in ("chosen", "attention gate") for _, _, name in shown(table))
    cpu = {
        name: np.mean([table["hearts", d, f"{name}: CPU seconds"] for d in PLACES]) for name in ("augmented", "plain")
    }
    both = np.mean([table["hearts", d, "augmented + teacher: CPU seconds"] for d in PLACES])
    assert both > 2 * cpu["augmented"] > 2 * cpu["plain"]
    films = {name: table["classes", "public", f"{name}: AUC"].mean(0) for name in ("network", *COMPARED["classes"])}
    best = ("network", "network, augmented", "table")
    assert np.ptp([films[name][:4] for name in best], axis=0).max() < 0.03
    borrowed = [films[name][:3] for name in films if name not in best]
    assert (np.max(borrowed, axis=0) < np.min([films[name][:3] for name in best], axis=0)).all()


def test_the_table_has_as_many_numbers_as_the_text_says():
    images, kinds = np.random.default_rng(0).random((2, 64, 64), np.float32), tools("TEXTURE = (", row="hearts").TEXTURE
    columns = feature_table(images, kinds=kinds)[0].shape[1]
    assert f"| table | 06 | {columns} numbers of an image" in prose(CHAPTER)


def test_over_the_logarithm_of_the_labels_the_control_is_closer_to_a_straight_line(table):
    labels = np.array([5, 10, 20, 50, 200])
    for row, control in CONTROL.items():
        for data in PLACES:
            curve = table[row, data, f"{control}: {MEASURE[row]}"].mean(0)
            for k in (1, 2, 3):
                sides = [k - 1, k + 1]
                by_log = np.interp(np.log(labels[k]), np.log(labels[sides]), curve[sides])
                assert abs(by_log - curve[k]) < abs(np.interp(labels[k], labels[sides], curve[sides]) - curve[k])


@pytest.fixture(scope="module")
def pages(table):
    """What is good enough, by task and minutes, the best worst draw first, as the cells of the page say it."""
    seconds = {name: value for name, (value, source) in weak.SECONDS.items()} | {"class": 20}
    given = dict(
        SECONDS=seconds, live=False, METHODS={"patch + size": {"kind": "patch"}} | dict.fromkeys(COMPARED["hearts"], {})
    )
    given["METHODS"] |= {name: {"kind": "patch" if "patch" in name else "scribble"} for name in WEAK} | {"plain": {}}
    given["PRICES"] = {"outline": seconds["full"], "patch": seconds["eroded"] + seconds["size"]}
    given["PRICES"]["scribble"] = seconds["scribble"]
    given |= dict(MEASURE=MEASURE, ROWS={row: [CONTROL[row], *names] for row, names in COMPARED.items()})
    given["of_runs"] = lambda key, name, measure="": table[(*key, f"{name}: {measure or MEASURE[key[0]]}")]
    for text in ("def minutes(", "def kind_of(", "def spent_minutes(", "def good_enough(", "def at_minutes("):
        given |= vars(tools(text, **given))
    found = {}
    for row, budgets in {"hearts": (3, 10, 25, 50), "classes": (2, 4, 8, 16)}.items():
        for data in PLACES:
            for budget in budgets:
                page = given["affordable"]((row, data), budget)
                first = next(iter(page.values()))
                found[row, data, budget] = [name for name, s in page.items() if given["good_enough"](s, first)]
    return found


def test_what_the_prose_says_of_the_page(pages):
    for data in PLACES:
        assert pages["hearts", data, 3] == ["scribble, augmented"]
        for budget in (10, 25, 50):
            page = pages["hearts", data, budget]
            assert {"augmented", "augmented + teacher"} <= set(page) and "scribble" not in page
    assert pages["hearts", "public", 10][0] == "scribble, augmented" not in pages["hearts", "phantom", 10]
    assert set(pages["hearts", "phantom", 50]) == {"plain", *COMPARED["hearts"][:5]}
    assert "teacher" not in pages["hearts", "phantom", 10]  # steady, and surely more than the margin behind
    for budget in (2, 4, 8, 16):
        assert pages["classes", "phantom", budget][0] == "network, augmented"
        assert set(pages["classes", "public", budget]) <= {"network", "network, augmented", "table"}
