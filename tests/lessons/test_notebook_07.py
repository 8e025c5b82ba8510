"""Chapter 07: its idea equals the helper, its own tools do what they say, its grid and texts fit what it ran."""

import functools
from types import SimpleNamespace

import chapter
import numpy as np
import pytest
import torch
from chapter import cells, prose, recorded
from scipy.stats import t, ttest_rel

from helpers import augmentation, priors
from helpers.data import load
from helpers.overlap import betti_error, slice_dice
from helpers.runs import repo_root
from helpers.runs.grid import read_grid
from helpers.stats import detectable_gain, holm, paired_gain

CHAPTER = repo_root() / "notebooks" / "07_domain_knowledge.ipynb"
tools = functools.partial(chapter.tools, CHAPTER, ("import time\n", "from helpers import augmentation"))


def disc(centre, radius, size=40) -> np.ndarray:
    return np.hypot(*(np.indices((size, size)) - np.reshape(centre, (2, 1, 1)))) <= radius


def random_probs(*shape, seed=0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(size=shape)).float()


def test_cl_dice_written_out_equals_the_helper():
    (source,) = cells(CHAPTER, "idea")
    namespace = {"torch": torch, "F": torch.nn.functional}
    exec(source, namespace)
    p = random_probs(3, 1, 24, 31)
    masks = torch.from_numpy(np.stack([disc((12, 9), 7)[:24, :31], disc((9, 20), 1)[:24, :31], np.zeros((24, 31))]))
    t = masks[:, None].float()
    assert torch.allclose(namespace["soft_skeleton"](p)[:, 0], priors.soft_skeleton(p[:, 0]), atol=1e-6)
    ours, theirs = namespace["soft_cl_dice"](p, t), priors.soft_cl_dice(p[:, 0], t[:, 0])
    assert torch.allclose(ours, theirs, atol=1e-6) and 0 < ours < 1
    assert namespace["soft_cl_dice"](t, t) < 1e-6


@pytest.mark.parametrize("number", range(3))
def test_a_stub_is_not_yet_right_and_its_solution_is(number, capsys):
    namespace = dict(np=np, torch=torch, priors=priors, slice_dice=slice_dice, betti_error=betti_error)
    for tag, answer in (("exercise", "not yet"), ("solution", "correct")):
        exec(cells(CHAPTER, tag)[number], namespace)
        assert capsys.readouterr().out.strip() == answer


def test_layers_and_loss_of_nested_structures():
    tool = tools("def layers(", "def region_loss(")
    y = torch.tensor([[[0, 1], [2, 1]]])
    t = tool.layers(y, 2)
    assert t.tolist() == [[[[0, 1], [1, 1]], [[0, 0], [1, 0]]]]
    assert tool.region_loss(t, t) < 1e-4 < tool.region_loss(0.9 * t, t) < tool.region_loss(1 - t, t)


def test_budgets_of_a_draw_are_nested_and_draws_differ():
    rows = np.arange(100, 200)
    of = [tools("def some(", run=SimpleNamespace(seed=seed)).some for seed in (0, 1)]
    assert of[0](rows, 10)[:5].tolist() == of[0](rows, 5).tolist() != of[1](rows, 5).tolist()
    assert set(of[0](rows, 100)) == set(rows)


def test_outside_finds_an_inner_pixel_that_the_outer_structure_lacks():
    outer, inner, moved = disc((20, 20), 10), disc((20, 20), 5), disc((20, 27), 5)
    found = np.array([[outer, inner], [outer, moved], [outer & False, outer & False]])
    assert tools("def outside(").outside(found).tolist() == [False, True, False]


def test_in_polar_keeps_what_lies_inside_and_comes_back():
    tool = tools("class Task", "def layers(", "def in_polar(")
    y = torch.from_numpy(disc((19.5, 19.5), 12) + 1 * disc((19.5, 19.5), 6))[None].long()
    task = tool.in_polar(tool.Task(y[:, None].float(), y, 2, np.arange(1), np.arange(1)))
    assert task.y.shape == y.shape and (task.y.diff(dim=1) <= 0).all()  # from the centre outwards: cup, rim, nothing
    back = tool.from_polar(tool.layers(task.y, 2), size=40) > 0.5
    for k, layer in enumerate(back[0]):
        assert slice_dice(layer[None].numpy(), (y > k).numpy())[0] > 0.95


def test_a_window_keeps_its_ends_and_clips_the_rest():
    assert tools("def windowed(").windowed(np.array([-1000, -160, 40, 240, 3000])).tolist() == [0, 0, 0.5, 1, 1]


def test_a_smooth_field_is_removed_and_borders_stay():
    x = np.full((1, 1, 64, 64), 0.3, np.float32)
    x[..., disc((32, 32), 10, 64)] = 0.5
    field = np.exp(0.8 * np.linspace(-1, 1, 64, dtype=np.float32))
    found = tools("def without_field(").without_field(torch.from_numpy(x * field))[0, 0].numpy()
    around, far = (~disc((32, 32), radius, 64) for radius in (12, 20))
    assert (x * field)[0, 0][far].std() / (x * field)[0, 0][far].mean() > 3 * found[far].std() / found[far].mean()
    assert found[disc((32, 32), 9, 64)].mean() > 1.3 * found[around & ~far].mean()


STAINS = {"a": ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11)), "b": ((0.55, 0.75, 0.37), (0.20, 0.90, 0.39))}


def stained(laboratory, amounts):
    """Images (1, 3, H, W) of amounts (H, W, 2) of two stains."""
    vectors = np.array(STAINS[laboratory]) / np.linalg.norm(STAINS[laboratory], axis=1, keepdims=True)
    return torch.from_numpy(np.exp(-amounts @ vectors)).permute(2, 0, 1)[None].float(), vectors


def test_stain_vectors_are_found_and_replaced():
    tool = tools("def stain_vectors(", "def restained(")
    rng = np.random.default_rng(0)
    kind = rng.integers(3, size=(64, 64, 1))  # nuclei, stroma, glass
    amounts = np.where(kind == 2, 0, np.where(kind == (0, 1), rng.uniform(0.5, 1.5, (64, 64, 2)), 0.0))
    (a, of_a), (b, of_b) = stained("a", amounts), stained("b", 0.6 * amounts)
    for image, true in ((a, of_a), (b, of_b)):
        vectors, most = tool.stain_vectors(image[0].permute(1, 2, 0).numpy().reshape(-1, 3))
        cosines = (vectors * true).sum(1) / np.linalg.norm(vectors, axis=1)
        assert (cosines > 0.999).all() and (most > 0).all()
    back = tool.restained(b, tool.stain_vectors(a[0].permute(1, 2, 0).numpy().reshape(-1, 3)))
    assert (back - a).abs().max() < 0.03 < (b - a).abs().max()


def test_an_atlas_is_carried_to_an_image_that_is_shifted_and_larger():
    shape = disc((18, 17), 8), disc((21, 22), 10)
    soft = [tools().ndimage.gaussian_filter(one.astype(float), 1.5) for one in shape]
    found = tools("def carried(").carried(soft[0], shape[0].astype(int), soft[1])
    assert found.dtype.kind == "i"
    assert slice_dice((found > 0)[None], shape[1][None])[0] > 0.95 > 0.8 > slice_dice(shape[0][None], shape[1][None])[0]


def test_half_of_the_slices_to_learn_from_have_a_tumour():
    tool = tools("class Task", "def some(", "def half_ill(", run=SimpleNamespace(seed=3))
    y = torch.zeros(60, 4, 4).long()
    y[::5, 1, 1] = 1
    rows = tool.half_ill(tool.Task(y[:, None].float(), y, 1, np.arange(40), np.arange(40, 60)), 7)
    assert len(set(rows)) == 7 and rows.max() < 40 and (rows % 5 == 0).sum() == 4


def test_ejection_fraction_is_the_share_of_the_volume_that_leaves():
    ejection_fractions = tools("def ejection_fractions(").ejection_fractions
    cavity = np.zeros((10, 20, 20), bool)
    sizes = [10, 30, 5, 15, 20, 20, 10, 6, 0, 0]
    for mask, size in zip(cavity, sizes, strict=True):
        mask.ravel()[:size] = True
    hearts = SimpleNamespace(
        patients=np.repeat([4, 7, 9], [4, 4, 2]), frames=np.array(["ED", "ED", "ES", "ES"] * 2 + ["ED", "ES"])
    )
    found = ejection_fractions(cavity, hearts, np.arange(10))
    assert found[:2] == pytest.approx([0.5, 0.6]) and np.isnan(found[2])


def test_the_check_rejects_what_no_heart_has_and_nothing_else():
    impossible = tools("def impossible(").impossible
    outer, inner, none = disc((20, 20), 10), disc((20, 20), 5), np.zeros((40, 40), bool)
    fine = [(outer, inner), (none, none), (outer, none)]
    island = inner | disc((4, 4), 2)
    wrong = [(outer | disc((4, 4), 2), inner), (outer, island), (outer & ~inner, inner), (outer, disc((20, 29), 5))]
    assert impossible(np.array(fine)).tolist() == [False] * 3
    assert impossible(np.array(wrong)).tolist() == [True] * 4


def test_shares_rejected_and_entropy():
    tool = tools("def caught(", "def entropy(")
    rejected, bad = np.array([1, 0, 1, 0, 0], bool), np.array([1, 1, 0, 0, 0], bool)
    assert tool.caught(rejected, bad) == [0.5, pytest.approx(1 / 3)]
    assert np.isnan(tool.caught(rejected, bad & False)[0])
    assert tool.entropy(np.array([0.5, 0.0, 1.0]).reshape(3, 1, 1, 1)) == pytest.approx([1, 0, 0], abs=1e-4)


def test_turned_views_come_back_and_differ_where_the_network_does():
    tool = tools("TURNS = ", "def turned(", "def turned_views(", "def find(")
    image = torch.from_numpy(tools().ndimage.gaussian_filter(disc((14, 24), 6).astype(float), 2))[None, None].float()
    back = tool.turned(tool.turned(image, 15), -15)
    assert (back - image).abs().max() < 0.05 < (tool.turned(image, 15) - image).abs().max()
    same = torch.nn.Conv2d(1, 1, 1)
    with torch.no_grad():
        same.weight.fill_(8.0)
        same.bias.fill_(-4.0)
    mean, spread = tool.turned_views(same, image)
    assert np.abs(mean - torch.sigmoid(8 * image - 4).numpy()).max() < 0.05 and spread.max() < 0.05


def test_terms_of_the_loss_charge_what_they_should():
    names = ("class Task", "def layers(", "def boundary_term(", "def size_term(", "def inclusion_term(")
    tool = tools(*names)
    y = torch.from_numpy(disc((20, 20), 12) + 1 * disc((20, 20), 6))[None].long().repeat(4, 1, 1)
    right = tool.layers(y, 2)
    rng = np.random.default_rng(0)
    assert tool.boundary_term(right, y, None, rng) < 0 < tool.boundary_term(1 - right, y, None, rng)
    assert tool.inclusion_term(right, y, None, rng) == 0 < tool.inclusion_term(right.flip(1), y, None, rng)
    task = tool.Task(y[:, None].float(), y, 2, np.arange(4), np.arange(4))
    term = tool.size_term(task, np.arange(4))
    assert term(right, y, lambda x: 100 * (tool.layers(x[:, 0].long(), 2) - 0.5), rng) == 0
    assert term(right, y, lambda x: 100 * (tool.layers(x[:, 0].long(), 2).flip(1) - 0.5), rng) > 0


def test_changes_of_hearts_keep_shapes_and_only_warps_move_masks():
    tool = tools("def geometric(", "def elastic(", "def everything(", '"geometric": geometric')
    x = random_probs(3, 1, 32, 32)
    y = torch.from_numpy(disc((16, 16), 6, 32)).long().repeat(3, 1, 1)
    for name, change in tool.CHANGES.items():
        changed, masks = change(x, y, np.random.default_rng(0))
        assert changed.shape == x.shape and masks.dtype == y.dtype and (changed != x).any(), name
        assert (masks != y).any() == (name in ("geometric", "elastic", "all changes")), name
    written_out, helper = (f(x, y, np.random.default_rng(0)) for f in (tool.everything, augmentation.mr_changes))
    assert all(map(torch.equal, written_out, helper))


def test_suspects_do_what_their_names_say():
    tool = tools("def by_chance(", "def hue(", "SUSPECTS = ")
    x = random_probs(40, 3, 8, 8)
    for name, back in (("mirror", x.flip(3)), ("half turn", x.flip(2, 3))):
        changed = tool.SUSPECTS[name](x, np.random.default_rng(0))
        moved, stays = ((changed == other).flatten(1).all(1) for other in (back, x))
        assert (moved ^ stays).all() and 10 < moved.sum() < 30
    grey = x[:, :1].repeat(1, 3, 1, 1)
    assert torch.allclose(tool.SUSPECTS["hue"](grey, np.random.default_rng(0)), grey, atol=1e-3)
    assert (tool.SUSPECTS["hue"](x, np.random.default_rng(0)) - x).abs().mean() > 0.05


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [(0.74, 0.5, "no verdict"), (0.75, 0.62, "alarm"), (0.75, 0.63, "fine"), (1, 0.74, "alarm"), (1, 1, "fine")],
)
def test_the_verdict_asks_for_half_of_the_lead_over_chance(before, after, said):
    assert tools("def verdict(").verdict(before, after) == said


def test_cross_validation_reads_a_label_and_no_noise():
    tool = tools("def cross_validated(")
    rng, y = np.random.default_rng(0), np.repeat([0, 1], 20)
    noise = rng.normal(size=(3, 40, 10))
    assert tool.cross_validated(noise + 4 * y[:, None], y) == 1
    assert tool.cross_validated(noise, y) < 0.7  # versions of one image stay on one side: the noise of each is its own
    shared = np.repeat(rng.normal(size=(1, 40, 300)), 4, 0)
    assert tool.cross_validated(shared, y) < 0.7  # and no image is recognised


def test_the_check_raises_an_alarm_where_the_label_is_the_side():
    names = ("def by_chance(", "def hue(", "SUSPECTS = ", "COPIES = ", "def thumbnails(", "def read(")
    tool = tools(*names, "def cross_validated(", "def verdict(", "def preserved(", run=SimpleNamespace(seed=0))
    rng, y = np.random.default_rng(0), np.arange(120) % 2
    x = torch.from_numpy(rng.uniform(0, 0.2, (120, 3, 32, 32))).float()
    for image, side in zip(x, y, strict=True):
        image[:, 8:24, 20 * side : 20 * side + 12] += 0.5
    found = tool.preserved(x, y, np.arange(60), np.arange(60, 120), 15, [tool.thumbnails])
    said = {name: tool.verdict(*values[:2]) for name, values in found.items()}
    assert said == dict.fromkeys(said, "fine") | {"mirror": "alarm", "half turn": "alarm"}
    assert found["warp"][2] == 1 and found["mirror"][3] < 0.8


def test_images_of_another_number_of_classes_are_refused():
    own = load("ultrasound", images=6, size=64)  # three classes
    tool = tools("def label_tasks(", run=None, data="folder", data_dir="x", classes="")
    tool.label_tasks.__globals__["load"] = lambda *_, **__: own
    with pytest.raises(ValueError, match="has 3 classes; expected images of two classes"):
        tool.label_tasks()


@pytest.mark.parametrize("row", ["tissue", "ultrasound", "chest"])
def test_changes_of_labelled_images_keep_shape_and_range(row):
    tool = tools("def shaken(", "def each(", "PHYSICS = ", "LABEL_CHANGES = ", "MIXED = ", row=row)
    x = random_probs(6, 3 if row == "tissue" else 1, 32, 32)
    torch.manual_seed(0)
    for name, change in tool.LABEL_CHANGES.items():
        changed = change(x, np.random.default_rng(0))
        assert changed.shape == x.shape and changed.dtype == x.dtype and 0 <= changed.min() <= changed.max() <= 1, name
        assert (changed != x).any(), name


def test_chest_films_are_not_mirrored():
    x = torch.zeros(8, 1, 32, 32)
    x[..., :10] = 1
    for row, mirrored in (("chest", False), ("tissue", True)):
        tool = tools("def shaken(", "def each(", "PHYSICS = ", "LABEL_CHANGES = ", row=row)
        changed = tool.LABEL_CHANGES["geometric"](x, np.random.default_rng(0))
        assert ((changed[..., -5:].mean((1, 2, 3)) > 0.5).any()).item() == mirrored


def test_runs_of_the_grid_are_rows_of_the_chapter():
    runs = read_grid(repo_root() / "grids" / "domain_knowledge.yaml").runs
    found = {(run["row"], run["data"], run["seed"]) for run in runs}
    rows = dict.fromkeys(("vessels", "tumours", "tissue", "ultrasound", "harm"), ("phantom",))
    rows |= {"hearts": ("phantom", "public"), "discs": ("phantom", "public"), "chest": ("public",)}
    assert found == {(row, data, seed) for row, places in rows.items() for data in places for seed in range(5)}
    assert len(runs) == len(found)


def sentences(table) -> dict[str, str]:
    """What the chapter says of its recorded tables, word for word, with the numbers of the records."""

    def mean(row, data, name, k=slice(None)):
        return table[row, data, name].mean(0)[k].mean()

    def pair(row, data, one, other, what, k=None):
        both = [table[row, data, f"{name}: {what}"] for name in (one, other)]
        return [v.mean(1) if k is None else v[:, k] for v in both]

    def gain(*names, k=None, digits=2):
        return f"{paired_gain(*pair(*names, k=k))[0]:.{digits}f}".replace("-", "−")

    def detectable(*names, digits=2):
        return f"{detectable_gain(*pair(*names), comparisons=15):.{digits}f}"

    def real(name, k):
        return mean("hearts", "public", f"{name}: Dice", k)

    def broken(row, data, name, k):
        return f"{100 * mean(row, data, f'{name}: outside', k):.0f} %"

    def lead(check, data):
        return (table["hearts", data, f"{check}, bad"] - table["hearts", data, f"{check}, good"]).mean(1)

    leads = {d: (lead("check", d), lead("views differ", d)) for d in ("phantom", "public")}
    parted = {d: "{:.2f} ± {:.2f}".format(*paired_gain(*both)) for d, both in leads.items()}
    rejected = [f"{100 * mean('hearts', 'public', f'check, {kind}'):.0f} %" for kind in ("bad", "good")]
    five = [gain("hearts", d, "all changes, longer", "plain, longer", "Dice", k=0) for d in ("phantom", "public")]
    plain, changed = (mean("hearts", "phantom", f"{name}: Dice", 0) for name in ("plain", "all changes"))
    elsewhere = "accuracy, elsewhere"
    alarms = alarms_of(table)
    return {
        "discs": f"breaks the rule in {broken('discs', 'phantom', 'plain', 0)} of the test images, with the penalty it "
        f"is {broken('discs', 'phantom', 'penalty', 0)}, with nested outputs none",
        "thin": f"with 20 images both have a clDice of {mean('vessels', 'phantom', 'plain: clDice', 2):.2f}",
        "thin, term": f"both have a clDice of {mean('vessels', 'phantom', 'clDice: clDice', 2):.2f}",
        "changes": f"from a mean of {plain:.2f} to {changed:.2f}",
        "few": f"the plain network has {real('plain', 0):.2f} with five labelled slices; with all changes and "
        f"twice the steps it has {real('all changes, longer', 0):.2f}",
        "fifty": f"lower than without ({real('all changes', 3):.2f} against {real('plain', 3):.2f})",
        "atlas": "it depends on its slice, from {:.2f} to {:.2f}".format(
            *np.quantile(table["hearts", "public", "atlas: Dice"][:, 0], (0, 1))
        ),
        "rules": f"in {broken('hearts', 'public', 'plain', 0)} of the test slices, with the penalty in "
        f"{broken('hearts', 'public', 'penalty', 0)}, with nested outputs in none",
        "check": "rejects {} of the bad masks, and {} of the good ones".format(*rejected),
        "lead": f"than the spread of views does, by {parted['phantom']}. On ACDC no difference is seen, "
        f"{parted['public']}: one of {detectable_gain(*leads['public']):.2f} would have been found",
        "nested": f"they change it by {gain('discs', 'phantom', 'nested', 'plain', 'error of vCDR', digits=3)} on "
        f"phantoms and by {gain('discs', 'public', 'nested', 'plain', 'error of vCDR', digits=3)} on REFUGE",
        "polar": f"by {gain('discs', 'phantom', 'polar', 'plain', 'Dice of the cup')} in the mean",
        "polar, real": f"by {gain('discs', 'public', 'polar', 'plain', 'Dice of the cup')} in the mean",
        "tumours": f"The window gains {gain('tumours', 'phantom', 'window', 'standardised', 'Dice')}, pasted tumours "
        f"{gain('tumours', 'phantom', 'window, pasted', 'window', 'Dice')} on top",
        "tissue": f"it has {mean('tissue', 'phantom', 'plain: accuracy', 3):.2f} at home, and "
        f"{mean('tissue', 'phantom', f'plain: {elsewhere}', 3):.2f} at the other laboratory",
        "restained": f"the *same* network has {mean('tissue', 'phantom', f'restained: {elsewhere}', 3):.2f} there",
        "ultrasound": "RandAugment and random contrast gain "
        f"{gain('ultrasound', 'phantom', 'RandAugment', 'plain', 'accuracy')} at home",
        "contrast": "RandAugment and random contrast gain "
        f"{gain('ultrasound', 'phantom', 'intensity', 'plain', 'accuracy')} at home",
        "portable": f"random contrast more ({gain('ultrasound', 'phantom', 'intensity', 'plain', elsewhere)})",
        "caught": "raises an alarm, {} of {};".format(*alarms["harmful", "many"][:2]),
        "false": "with many labels, {} of {} verdicts".format(*alarms["harmless", "many"][:2]),
        "detectable": "in four of five repetitions: "
        f"{detectable('hearts', 'phantom', 'all changes, longer', 'plain, longer', 'Dice')} in Dice for all changes",
        "detectable, pasted": "with twice the steps, "
        f"{detectable('tumours', 'phantom', 'window, pasted', 'window', 'Dice')} for pasted tumours",
        "detectable, nested": "shown with a change of "
        f"{detectable('discs', 'public', 'nested', 'plain', 'error of vCDR', digits=3)}",
        "detectable, thin": "shown with a change of "
        f"{detectable('vessels', 'phantom', 'clDice', 'plain', 'clDice', digits=3)}",
        "five": "gained {} in Dice on phantoms and {} on ACDC".format(*five),
        "labels": f"twice the steps have a Dice score of {real('all changes, longer', 0):.2f}, "
        f"twenty without {real('plain', 2):.2f}",
    }


def alarms_of(table) -> dict[tuple[str, str], tuple]:
    """Alarms, verdicts and pairs without one, of harmful and harmless pairs with many and with few labels."""
    tool, count = tools("def by_chance(", "def hue(", "HARMS = ", "def verdict("), {}
    for row, _, name in table:
        if row == "harm" and name.endswith(": before"):
            pair = name.removesuffix(": before")
            kind = "harmful" if tuple(pair.split(", ")) in tool.HARMS else "harmless"
            values = [table["harm", "phantom", f"{pair}: {what}"].ravel() for what in ("before", "after")]
            for k, said in enumerate(map(tool.verdict, *values)):
                count.setdefault((kind, "few" if k % 4 < 2 else "many"), []).append(said)
    return {
        key: (said.count("alarm"), len(said) - said.count("no verdict"), said.count("no verdict"))[
            : 3 if "few" in key else 2
        ]
        for key, said in count.items()
    }


def test_the_prose_says_what_is_recorded():
    for name, sentence in sentences(recorded("domain_knowledge")).items():
        assert sentence in prose(CHAPTER), name


def test_by_construction_no_inner_structure_ever_leaves_the_outer_one():
    table = recorded("domain_knowledge")
    for row, data in (("hearts", "phantom"), ("hearts", "public"), ("discs", "phantom"), ("discs", "public")):
        assert not table[row, data, "nested: outside"].any() and table[row, data, "plain: outside"].any()


def test_what_else_the_prose_says_of_the_records():
    table = recorded("domain_knowledge")

    def changes(row, data, name, what, control="plain"):
        return (table[row, data, f"{name}: {what}"] - table[row, data, f"{control}: {what}"]).mean(0)

    assert not any(table["hearts", data, "true masks rejected"].any() for data in ("phantom", "public"))
    assert table["discs", "public", "plain: outside"].mean() < 0.01  # hardly ever broken on real discs
    errors = [table["discs", "phantom", f"{name}: error of vCDR"].mean(0)[2] for name in ("plain", "penalty", "nested")]
    assert max(errors) - min(errors) < 0.005  # about the same for all three
    holes, betti = (table["vessels", "phantom", f"plain: {what}"].mean(0)[2] for what in ("holes off", "Betti error"))
    assert holes > 0.75 * betti  # above all holes
    found = table["tumours", "phantom", "window: Dice"]
    assert found[:, 2].min() == 0 and found[:, 2].max() > 0.7  # some trainings find tumours, and some none
    assert (table["tumours", "phantom", "standardised: Dice"] == 0).any()
    assert abs(changes("hearts", "phantom", "all changes", "Dice")[2]) < 0.03  # with twenty no difference
    assert changes("hearts", "phantom", "turned views", "Dice")[2] < 0  # nothing in the mean of the dots
    assert abs(changes("hearts", "public", "atlas", "Dice")[0]) < 0.03  # one label about as good as five
    for data in ("phantom", "public"):
        long = changes("hearts", data, "all changes, longer", "Dice", "plain, longer")
        assert long[3] > -0.01 > changes("hearts", data, "all changes", "Dice")[3]  # with fifty: the loss is gone
        assert changes("hearts", data, "plain, longer", "Dice")[0] < 0  # twice the steps alone do not help
        for name in ("penalty", "nested", "boundary"):  # no rule gains visibly
            assert changes("hearts", data, name, "Dice").mean() < 0.01
    assert changes("tissue", "phantom", "TrivialAugment", "accuracy").mean() > 0.08
    assert changes("tissue", "phantom", "TrivialAugment", "accuracy, elsewhere").mean() < 0.03  # next to nothing
    assert changes("tissue", "phantom", "intensity", "accuracy, elsewhere").mean() > 0.15
    assert changes("tissue", "phantom", "own physics", "accuracy, elsewhere").mean() < 0.05
    for name in ("CutMix", "cutout"):
        assert changes("ultrasound", "phantom", name, "accuracy").mean() < -0.05
    few = alarms_of(table)["harmful", "few"]
    assert round((few[1] - few[0]) / few[1], 2) == 0.33  # a third is missed


def test_tables_and_clouds_read_the_records():
    given = dict(BUDGETS=[5, 10, 20, 50], budgets=[20])
    names = ("runs = records(", "def recorded(key", "def told_line(key", "def among_draws(")
    tool = chapter.tools(CHAPTER, ("import time\n", "from helpers import augmentation"), *names, **given)
    table, key = recorded("domain_knowledge"), ("hearts", "phantom")
    values = table["hearts", "phantom", "atlas: Dice"]
    assert (tool.recorded(key, "atlas", "Dice") == values).all()
    assert np.isnan(tool.recorded(key, "atlas", "Dice, 3 T")).all() and tool.told_line(key, "atlas", "Dice, 3 T") == ""
    mean, half = paired_gain(values.mean(1), table["hearts", "phantom", "plain: Dice"].mean(1))
    assert tool.told_line(key, "atlas", "Dice").split("  ")[-1] == f"{mean:+.2f} ± {half:.2f}"
    assert "±" not in tool.told_line(key, "plain", "Dice")
    for n, live in ((None, 0.5), (5, None)):
        figure, axes = tool.panels(1, 1)
        tool.among_draws(axes[0, 0], key, "Dice", ["atlas"], {"atlas": [{"Dice": 0.5}]}, n)
        heights = [line.get_ydata() for line in axes[0, 0].lines]
        assert (heights[0] == values[:, 0]).all() and len(heights) == 2 + (live is not None)
        assert live is None or heights[2] == live
        tool.plt.close(figure)


def test_of_the_comparisons_that_were_named_one_is_shown():
    table, namespace = recorded("domain_knowledge"), {}
    (source,) = (source for source in cells(CHAPTER, "display") if source.startswith("PAIRS = "))
    exec(source.partition("known = ")[0], namespace)
    pairs = namespace["PAIRS"]
    scores = [[table[row, data, f"{name}: {what}"].mean(1) for name in two] for row, data, *two, what in pairs]
    p_values = [ttest_rel(*both).pvalue for both in scores]
    adjusted = holm(np.array(p_values))
    assert len(pairs) == 15
    least, needed = 0.05 / len(pairs), t.ppf(1 - 0.025 / len(pairs), 4)
    assert f"below {least:.4f}" in prose(CHAPTER) and min(p_values) < least
    assert f"a mean of {needed / 5**0.5:.1f} standard deviations" in prose(CHAPTER)
    assert [pair for pair, p in zip(pairs, adjusted, strict=True) if p < 0.05] == [
        ("tissue", "phantom", "restained", "plain", "accuracy, elsewhere")
    ]


def test_with_five_slices_changes_and_time_gain_more_than_any_other_prior():
    table = recorded("domain_knowledge")
    for data in ("phantom", "public"):
        five = {
            name.removesuffix(": Dice"): values[:, 0].mean()
            for (row, where, name), values in table.items()
            if (row, where) == ("hearts", data) and name.endswith(": Dice")
        }
        best = five.pop("all changes, longer") - five["plain, longer"]
        assert best > 0.3 and all(value - five["plain"] < best - 0.05 for value in five.values())


def test_another_scanner_changes_little():
    table = recorded("domain_knowledge")
    for (row, data, name), values in table.items():
        if name.endswith("Dice, 3 T"):
            home = table[row, data, name.removesuffix(", 3 T")]
            assert abs(values.mean() - home.mean()) < 0.03, name
