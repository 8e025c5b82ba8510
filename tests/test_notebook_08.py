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

from helpers.active import holm, paired_gain
from helpers.data import UNLABELLED
from helpers.data import weak_labels as weak
from helpers.grids import read_grid
from helpers.runs import repo_root

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
        draw = tools("def draw_classes(", run=run, some=some, train=train, classes=classes).draw_classes
        assert set(classes[train[draw(5)]]) == {0, 1, 2}
        assert draw(20)[:5].tolist() == draw(5).tolist() and len(set(draw(50))) == 50


def test_doubtful_images_come_after_a_random_half():
    rng, classes = np.random.default_rng(0), np.repeat([0, 1], 50)
    features = {"transfer": classes[:, None] * 4.0 + rng.normal(size=(100, 3))}
    run, train = SimpleNamespace(seed=0), np.arange(100)
    some = tools("def some(", run=run).some
    given = dict(run=run, some=some, train=train, classes=classes)
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


def listed(names) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def shown_in(table, row) -> str:
    """Which methods of a row are shown to be better or worse, in words."""
    parts = []
    titles = {"hearts": ("phantoms", "ACDC"), "classes": ("ultrasound", "chest films")}[row]
    for data, title in zip(PLACES, titles, strict=True):
        for better, said in ((True, "better"), (False, "worse")):
            names = [f"*{key[2]}*" for key, up in shown(table).items() if key[:2] == (row, data) and up == better]
            if names:
                parts.append(f"{said} on {title}: {listed(names)}")
    return "Shown after correction, " + "; ".join(parts)


def sentences(table) -> dict[str, str]:
    """What the chapter says of its recorded tables, word for word, with the numbers of the records."""
    worth = idea_of_the_chapter().worth

    def score(row, data, name, k):
        return table[row, data, f"{name}: {MEASURE[row]}"][:, k]

    def two(row, name, k):
        return "{:.2f} and {:.2f}".format(*[score(row, data, name, k).mean() for data in PLACES])

    def gain(row, name, data, k=slice(4)):
        means = (score(row, data, one, k).reshape(10, -1).mean(1) for one in (name, CONTROL[row]))
        return "{:+.2f} ± {:.2f}".format(*paired_gain(*means)).replace("-", "−")

    def gains(row, name, k=slice(4)):
        return " and ".join(gain(row, name, data, k) for data in PLACES)

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

    def cpu(row, name):
        return np.mean([table[row, data, f"{name}: CPU seconds"][:, 2].mean() for data in PLACES])

    return {
        "shown hearts": shown_in(table, "hearts"),
        "shown classes": shown_in(table, "classes"),
        "three minutes": f"Three minutes buy twenty augmented scribbles and {two('hearts', 'scribble, augmented', 2)}",
        "same price": "five outlines, with augmentation and a teacher, have "
        f"{two('hearts', 'augmented + teacher', 0)}, "
        f"and fifty augmented scribbles {two('hearts', 'scribble, augmented', 3)}",
        "half an hour": f"With half an hour outlines are ahead: {two('hearts', 'augmented + teacher', 2)} "
        "with twenty of "
        f"them, {two('hearts', 'scribble, augmented', 4)} with two hundred scribbles",
        "two minutes": "On ultrasound two minutes buy {:.2f} and seven {:.2f}; on chest films {:.2f} and {:.2f}".format(
            *[score("classes", data, "network, augmented", k).mean() for data in PLACES for k in (0, 2)]
        ),
        "plain": "With five outlines the plain network has a Dice score "
        f"of {two('hearts', 'plain', 0)} (phantoms and ACDC)",
        "augmented": f"augmented {two('hearts', 'augmented', 0)}, and with a teacher "
        f"as well {two('hearts', 'augmented + teacher', 0)}",
        "fifty": f"With fifty it is {two('hearts', 'plain', 3)}, and augmented {two('hearts', 'augmented', 3)}",
        "lost": "Of {1} trainings with weak labels {0} ended below 0.2".format(*lost(*WEAK)),
        "none lost": "of the {1} with augmented outlines {0}".format(*lost("augmented", "augmented + teacher")),
        "lost plain": "of the {1} plain ones {0}".format(*lost("plain")),
        "scribbles": f"twenty scribbles, augmented, {two('hearts', 'scribble, augmented', 2)}",
        "many scribbles": f"two hundred {two('hearts', 'scribble, augmented', 4)}",
        "forest": f"The forest starts at {two('hearts', 'forest', 0)} and "
        f"ends, with fifty, at {two('hearts', 'forest', 3)}",
        "gain augmented": f"augmentation {gains('hearts', 'augmented')}",
        "gain both": f"with the teacher {gains('hearts', 'augmented + teacher')}",
        "gain teacher": f"the teacher alone {gains('hearts', 'teacher')}",
        "gain chosen": f"chosen slices {gains('hearts', 'chosen')}",
        "gain gate": f"attention gates {gains('hearts', 'attention gate')}",
        "worth augmented": f"Twenty augmented outlines are worth {worths('hearts', 'augmented', 2)} plain ones",
        "worth both": f"with a teacher {worths('hearts', 'augmented + teacher', 2)}",
        "worth five": f"five augmented ones {worths('hearts', 'augmented', 0)}",
        "worth scribbles": f"twenty augmented scribbles {worths('hearts', 'scribble, augmented', 2)}",
        "cpu": f"With a teacher the computer works {cpu('hearts', 'teacher'):.0f} CPU seconds instead of "
        f"{cpu('hearts', 'plain'):.0f}",
        "classes five": f"With five images the network from scratch has an AUC of {two('classes', 'network', 0)} "
        "(ultrasound and chest films)",
        "classes augmented": f"with changed copies {two('classes', 'network, augmented', 0)}",
        "classes fifty": f"With fifty it is {two('classes', 'network', 3)}, "
        f"and {two('classes', 'network, augmented', 3)}",
        "table": f"The table has {two('classes', 'table', 0)} with five, and {two('classes', 'table', 3)} with fifty",
        "transfer": f"borrowed features {two('classes', 'transfer', 0)}, and {two('classes', 'transfer', 3)}",
        "transfer augmented": f"with changed copies {two('classes', 'transfer, augmented', 0)}, "
        f"and {two('classes', 'transfer, augmented', 3)}",
        "gain network": f"changed copies for the network {gains('classes', 'network, augmented')}",
        "gain table": f"the table {gains('classes', 'table')}",
        "gain transfer": f"borrowed features {gains('classes', 'transfer')}",
        "gain transfer augmented": f"with changed copies {gains('classes', 'transfer, augmented')}",
        "gain asked": f"chosen images {gains('classes', 'transfer, chosen')}",
        "worth classes": f"Twenty images with changed copies are worth {worths('classes', 'network, augmented', 2)} "
        "without",
        "worth transfer": f"twenty with borrowed features {worths('classes', 'transfer', 2)}",
        "worth transfer augmented": f"with copies {worths('classes', 'transfer, augmented', 2)}",
    }


@pytest.fixture(scope="module")
def table():
    return recorded("label_budget", draws=10)


def test_the_prose_says_what_is_recorded(table):
    text = prose(CHAPTER)
    for name, sentence in sentences(table).items():
        assert sentence in text, name


def test_what_else_the_prose_says_of_the_records(table):
    fifty = [
        table["hearts", data, f"{name}: Dice"][:, 3].mean() - table["hearts", data, "plain: Dice"][:, 3].mean()
        for data in PLACES
        for name in COMPARED["hearts"]
    ]
    assert max(fifty) < 0.04
    for data in PLACES:  # what a teacher adds to augmentation
        both, one = (np.mean(pair_of(table, "hearts", data, name)[0]) for name in ("augmented + teacher", "augmented"))
        assert 0 < both - one < 0.02
    forest, plain = (table["hearts", "public", f"{name}: Dice"].mean(0) for name in ("forest", "plain"))
    assert abs(forest[0] - plain[0]) < 0.1 and (forest[1:4] < plain[1:4] - 0.05).all()
    better = {key[2] for key, up in shown(table).items() if key[:2] == ("hearts", "public") and up}
    assert better == {"augmented", "augmented + teacher"}
    assert not any(name in ("chosen", "attention gate") for _, _, name in shown(table))
    assert not shown(table)["classes", "public", "transfer"]
