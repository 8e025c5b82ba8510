"""The recorded tables of chapter 05: a row is a function(run, *, data, data_dir) of this module.

Each returns what `Run.save` takes: metrics {name: number or list of numbers}, the images that it saw, and a network
whose weights are worth keeping, or None. A draw (the seed of the run) is the labelled images, the initial weights and
the order of the batches, the same for all networks of a run.
"""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import nn

from helpers.data import ImageSet, ImageSets, load, split
from helpers.explain.maps import capture, grad_cam, resize_map
from helpers.explain.trust import average_precision, control_map, pointing_game, randomise_cascade, rank_correlation
from helpers.nets.attention import CBAM, AttentionGate, gate_skips
from helpers.nets.backbones import build
from helpers.nets.densenet import densenet
from helpers.nets.init import init_weights
from helpers.nets.mil import MIL, mil, take
from helpers.nets.segmenters import UNet, unet
from helpers.nets.vit import vit
from helpers.overlap import volume_dice
from helpers.train import Fit, binary_loss, fit, predict
from helpers.transfer import draw_support, histogram_features, linear_probe

WINDOW = np.s_[..., 21:69, 13:69]  # of a CT slice of 96 × 96 pixels: it holds the livers of all patients
TRIES = tuple(itertools.product((3e-3, 1e-2), (1.0, 10.0)))  # for each network: learning rate, weight of the structure
CHOSEN = {  # of these, by the validation patients of the row `settings`: {(data, network): (rate, weight)}
    ("phantom", "plain"): (0.01, 10.0),
    ("phantom", "gate"): (0.01, 1.0),
    ("phantom", "sum"): (0.01, 10.0),
    ("phantom", "other"): (0.01, 1.0),
    ("phantom", "constant"): (0.01, 10.0),
    ("public", "plain"): (0.01, 1.0),
    ("public", "gate"): (0.01, 10.0),
    ("public", "sum"): (0.01, 10.0),
    ("public", "other"): (0.01, 10.0),
    ("public", "constant"): (0.01, 10.0),
}
ROWS = ("settings", "slices_10", "slices_30", "slices_100", "bags", "hunger")
FILMS = (50, 200, 800, 2000)  # labelled images


class OfAnother(AttentionGate):
    """The gate with the numbers of another image, half a batch away: all that attention has but the content."""

    def forward(self, skip: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
        if len(skip) < 2:
            raise ValueError(f"the batch has {len(skip)} image; expected at least 2, to take the numbers of another")
        return skip * self.logits(skip, below).roll(len(skip) // 2, 0).sigmoid()


class Constant(nn.Module):
    """One learned number for the whole skip connection, whatever the image: a multiplication without content."""

    def __init__(self, channels: int):
        super().__init__()
        self.layer = nn.Conv2d(channels, 1, 1)

    def forward(self, skip: torch.Tensor) -> torch.Tensor:
        return skip * self.layer(torch.zeros_like(skip[:, :, :1, :1])).sigmoid()  # of zeros: its bias alone


BLOCKS = {"plain": None, "gate": AttentionGate, "sum": AttentionGate, "other": OfAnother, "constant": Constant}


def network(name: str, draw: int) -> UNet:
    """A U-Net: "plain", or with a block on each skip. "sum" has the layers of "gate", and adds."""
    net, options = unet(width=8, seed=draw), {"product": False} if name == "sum" else {}
    return gate_skips(net, BLOCKS[name], **options) if BLOCKS[name] else net


@dataclass(frozen=True)
class Slices:
    """Slices with one structure: x (N, 1, H, W), inside (N, H, W), patients (N,), volumes (N,), and rows of each part.

    Rows are sorted by patient; sick: the slice belongs to a patient with the structure.
    """

    images: ImageSet
    x: torch.Tensor
    inside: np.ndarray
    sick: np.ndarray
    parts: dict[str, np.ndarray]


def slices(run, *, data: str, data_dir: str) -> Slices:
    """Tumours in phantom CT, half of the patients healthy, or the left ventricle of ACDC; parts share no patient."""
    if data == "public":
        images = load("acdc_slices", source="public", data_dir=data_dir and f"{data_dir}/acdc_slices", size=96)
        small = images.images.reshape(len(images), 1, 48, 2, 48, 2).mean((3, 5))  # half the resolution
        images = replace(images, images=small, masks=images.masks[:, ::2, ::2], scribbles=None)
    else:
        patients = run.pick(smoke=20, teach=100, full=100)
        images = load("ct", images=8 * patients, patients=patients, size=96)
        images = replace(images, images=images.images[WINDOW], masks=images.masks[WINDOW])
    inside = images.masks == images.mask_names.index("left ventricle" if data == "public" else "tumour")
    cut = split(images, fractions=(0.4, 0.2, 0.4), seed=0)
    order = np.argsort(images.patients, kind="stable")
    parts = {name: order[np.isin(order, getattr(cut, name))] for name in ("train", "val", "test")}
    sick = np.isin(images.patients, images.patients[inside.any((1, 2))])
    return Slices(images, images.tensor(), inside, sick, parts)


def labelled(task: Slices, n: int, draw: int) -> np.ndarray:
    """n slices of the training patients, drawn at random, half of them with the structure if so many are without."""
    pool, rng = task.parts["train"], np.random.default_rng(draw)
    has = task.inside[pool].any((1, 2))
    without = min(n // 2, int((~has).sum())) if not task.sick.all() else 0
    kinds = [(pool[has], n - without), (pool[~has], without)] if without else [(pool, n)]
    return np.concatenate([rng.permutation(rows)[:count] for rows, count in kinds])


def overlap_loss(logits: torch.Tensor, masks: torch.Tensor, *, weight: float) -> torch.Tensor:
    """Cross entropy, in which the structure counts `weight` times, plus one minus the soft Dice of the batch."""
    p = logits.softmax(1)[:, 1]
    dice = 2 * (p * masks).sum() / (p.sum() + masks.sum()).clamp(min=1)
    return F.cross_entropy(logits, masks, weight=torch.tensor([1.0, weight])) + 1 - dice


def found(task: Slices, net: nn.Module, part: str) -> np.ndarray:
    """What a network marks in the slices of a part, (n, H, W); all in one batch, so that half a batch is far away."""
    rows = task.parts[part]
    return predict(net, task.x[rows], batch_size=len(rows)).argmax(1).numpy() == 1


def dice(task: Slices, marked: np.ndarray, part: str) -> float:
    """Mean volume Dice of the patients of a part who have the structure."""
    rows, sick = task.parts[part], task.sick[task.parts[part]]
    return float(np.mean(volume_dice(marked[sick], task.inside[rows[sick]], task.images.volumes[rows[sick]])))


def false_alarms(task: Slices, marked: np.ndarray) -> float:
    """Pixels marked in a test volume of a healthy patient; where all have the structure, in a slice without it."""
    rows = task.parts["test"]
    healthy = ~task.sick[rows]
    if healthy.any():
        return float(marked[healthy].sum() / len(np.unique(task.images.volumes[rows[healthy]])))
    return float(marked[~task.inside[rows].any((1, 2))].sum((1, 2)).mean())


def trained(
    task: Slices, name: str, n: int, draw: int, *, steps: int, rate: float, weight: float
) -> tuple[nn.Module, Fit]:
    """A network after `steps` batches of 8 of n labelled slices; validation Dice is taken three times on the way."""
    rows, rng = labelled(task, n, draw), np.random.default_rng([draw, 1])
    batches = torch.from_numpy(np.stack([rng.permutation(rows)[:8] for _ in range(max(1, steps // 3))]))
    masks, net = torch.from_numpy(task.inside).long(), network(name, draw)

    def step(net: nn.Module, batch: tuple) -> torch.Tensor:
        (chosen,) = batch[0]  # eight different slices: a gate that takes the numbers of another never gets its own
        return overlap_loss(net(task.x[chosen]), masks[chosen], weight=weight)

    score = lambda net: dice(task, found(task, net, "val"), "val")  # noqa: E731
    return net, fit(net, (batches,), val=(batches,), epochs=3, step=step, score=score, batch_size=1, lr=rate, seed=draw)


def let_through(net: nn.Module, layer: nn.Module, images: torch.Tensor) -> np.ndarray:
    """What attention with the numbers of this layer lets through, (N, H, W) between 0 and 1."""
    seen = []
    watch = layer.register_forward_hook(lambda *passed: seen.append(passed[-1]))
    predict(net, images, batch_size=16)
    watch.remove()
    return torch.cat(seen).sigmoid()[:, 0].float().numpy()


def pixel_auc(task: Slices, net: nn.Module) -> float:
    """Do the numbers of the finest gate put the pixels of the structure before all others, in sick test patients?"""
    rows = task.parts["test"][task.sick[task.parts["test"]]]
    passed = let_through(net, net.merge[-1].attention.psi, task.x[rows])
    return float(roc_auc_score(task.inside[rows].ravel(), passed.ravel()))


def settings(run, *, data: str, data_dir: str) -> dict:
    """Validation Dice with 30 slices, two draws of their own, for each network and each try."""
    torch.set_num_threads(1)
    task, steps, metrics = slices(run, data=data, data_dir=data_dir), run.pick(smoke=3, teach=150, full=150), {}
    for name, (rate, weight) in itertools.product(BLOCKS, TRIES):
        fits = [trained(task, name, 30, draw, steps=steps, rate=rate, weight=weight)[1] for draw in (100, 101)]
        metrics[f"{name}: rate {rate:g}, weight {weight:g}"] = [one.val_score[-1] for one in fits]
    return _result(metrics, [task.images])


def compare(run, n: int, *, data: str, data_dir: str) -> dict:
    """Test Dice, false alarms and cost of the networks after n slices; the gate's weights, in half precision."""
    torch.set_num_threads(1)
    task, steps, metrics = slices(run, data=data, data_dir=data_dir), run.pick(smoke=3, teach=150, full=150), {}
    for name in BLOCKS:
        start, (rate, weight) = time.perf_counter(), CHOSEN[data, name]
        net, history = trained(task, name, n, run.seed, steps=steps, rate=rate, weight=weight)
        metrics[f"{name}: seconds"] = time.perf_counter() - start
        marked = found(task, net, "test")
        metrics[f"{name}: Dice"], metrics[f"{name}: false alarms"] = (
            dice(task, marked, "test"),
            false_alarms(task, marked),
        )
        if name in ("gate", "sum"):
            metrics[f"{name}: pixel AUC"] = pixel_auc(task, net)
        if name == "gate":
            kept = copy.deepcopy(net).half().float()
            metrics["kept gate: Dice"] = dice(task, found(task, kept, "test"), "test")
        net.load_state_dict(history.best_state)
        metrics[f"{name}: best Dice"] = dice(task, found(task, net, "test"), "test")
    replayed = data == "phantom" and n == 30  # by the lesson
    return _result(metrics, [task.images], kept.half() if replayed else None)


def slices_10(run, *, data: str, data_dir: str) -> dict:
    """`compare` with 10 labelled slices."""
    return compare(run, 10, data=data, data_dir=data_dir)


def slices_30(run, *, data: str, data_dir: str) -> dict:
    """`compare` with 30 labelled slices."""
    return compare(run, 30, data=data, data_dir=data_dir)


def slices_100(run, *, data: str, data_dir: str) -> dict:
    """`compare` with 100 labelled slices."""
    return compare(run, 100, data=data, data_dir=data_dir)


# --- bags: a label for a slide, none for its tiles ---

POOLS = {"attention": 64, "mean": 64, "max": 64, "wide mean": 67}  # width of the embedding


@dataclass(frozen=True)
class Slides:
    """Tiles of slides: image (M,), the row of each in images; phi (M, D), its features; slide (M,); truth (M,), 0 or 1.

    label (S,): 1 if a tile of the slide is positive. train, test: slides.
    """

    images: torch.Tensor
    sets: list[ImageSet]
    rows: np.ndarray
    phi: torch.Tensor
    slide: torch.Tensor
    truth: np.ndarray
    label: torch.Tensor
    train: torch.Tensor
    test: torch.Tensor


def phantom_slides(count: int) -> tuple:
    """Tiles, and for each tile of each slide its row, its slide and whether it has tumour; the sets of images."""
    tiles = load("histology", images=20 * count, patients=count, size=64)
    sizes = np.random.default_rng(0).integers(6, 21, count)  # slides are of unequal size
    rows = np.flatnonzero(np.arange(len(tiles)) // count < sizes[tiles.patients])
    return tiles.tensor(), rows, tiles.patients[rows], tiles.labels[rows], [tiles]


def section_slides(count: int) -> tuple:
    """The same with made-up slides of real tiles: in every second one, a tenth to a half are inflammatory."""
    pools, rng = [load("tissue", source="sample", part=part) for part in ("train", "test")], np.random.default_rng(0)
    truth = np.concatenate([p.labels == p.class_names.index("inflammatory") for p in pools]).astype(int)
    ends, rows, slides = np.cumsum([0, *map(len, pools)]), [], []
    for slide in range(count):
        size = rng.integers(6, 21)
        positive = slide % 2 * max(1, round(size * rng.uniform(0.1, 0.5)))
        here = np.arange(*ends[slide // 2 % 2 :][:2])  # two slides of the training region, two of the test region
        for value, of_value in ((1, positive), (0, size - positive)):
            rows.append(rng.choice(here[truth[here] == value], of_value))
        slides.append(np.full(size, slide))
    rows = np.concatenate(rows)
    return torch.cat([p.tensor() for p in pools]), rows, np.concatenate(slides), truth[rows], pools


def slides(run, *, data: str) -> Slides:
    """Slides of phantom tissue or of real tiles, with frozen ImageNet features, standardised by those to train with."""
    made = section_slides if data == "sample" else phantom_slides
    images, rows, slide, truth, sets = made(run.pick(smoke=8, teach=40, full=120))
    frozen = build("efficientnet_lite0")
    frozen.forward = frozen.features
    phi, slide = predict(frozen, images)[torch.from_numpy(rows)], torch.from_numpy(slide)
    label = torch.zeros(int(slide.max()) + 1, dtype=torch.long)
    label = label.scatter_reduce(0, slide, torch.from_numpy(truth), "amax")
    every = torch.arange(len(label))
    train, test = every[every // 2 % 2 == 0], every[every // 2 % 2 == 1]  # of each two with tumour in one
    seen = phi[torch.isin(slide, train)]
    phi = (phi - seen.mean(0)) / seen.std(0).clamp(min=1e-6)
    return Slides(images, sets, rows, phi, slide, truth, label, train, test)


def bag_model(task: Slides, name: str, n: int, draw: int, *, epochs: int) -> MIL:
    """A MIL model trained on n slides, half of them with tumour; no label of a tile is used."""
    chosen = task.train[draw_support(task.label[task.train].numpy(), per_class=n // 2, seed=draw)]
    known, of_bag = take(task.phi, task.slide, chosen)
    model = mil(task.phi.shape[1], hidden=POOLS[name], pool=name.split()[-1], seed=draw)
    batch = torch.arange(n), task.label[chosen]
    step = lambda model, batch: binary_loss(model(*take(known, of_bag, batch[0])), batch[1])  # noqa: E731
    options = dict(val=batch, epochs=epochs, batch_size=8, lr=1e-3, weight_decay=1e-2, seed=draw)
    fit(model, batch, step=step, score=lambda model: 0.0, **options)
    return model.eval()


def tile_auc(task: Slides, score: np.ndarray) -> float:
    """Mean over the test slides with tumour: does the score put the tumour tiles of a slide before its others?"""
    measured = []
    for slide in task.test[task.label[task.test] == 1].tolist():
        here = (task.slide == slide).numpy()
        if 0 < task.truth[here].sum() < here.sum():
            measured.append(roc_auc_score(task.truth[here], np.asarray(score)[here]))
    return np.mean(measured)


def slide_auc(task: Slides, model: MIL) -> float:
    """AUC of the test slides by the logit of the slide."""
    known, of_bag = take(task.phi, task.slide, task.test)
    with torch.inference_mode():
        return roc_auc_score(task.label[task.test], model(known, of_bag)[:, 0])


def bags(run, *, data: str, data_dir: str) -> dict:
    """Four ways to weigh the tiles of a slide, over slides to train with; and scores of tiles."""
    torch.set_num_threads(1)  # layers are so small that a second thread is only in the way
    task, counts, metrics = slides(run, data=data), run.pick(smoke=[4], teach=[20], full=[10, 20, 40]), {}
    epochs = run.pick(smoke=2, teach=40, full=40)
    for name in POOLS:
        start, by_count = time.perf_counter(), []
        for n in counts:
            model = bag_model(task, name, n, run.seed, epochs=epochs)
            weights, logits = model.explain(task.phi, task.slide)
            by_count.append((slide_auc(task, model), tile_auc(task, weights), tile_auc(task, logits)))
        for k, measure in enumerate(("slide AUC", "tile AUC by weight", "tile AUC by logit")):
            metrics[f"{name}: {measure}"] = [values[k] for values in by_count]
        metrics[f"{name}: seconds"] = time.perf_counter() - start
        if name == "attention":
            metrics |= {"attention: AUC of tiles": by_count[-1][1], "own logit: AUC of tiles": by_count[-1][2]}
    metrics["dark tile: AUC of tiles"] = tile_auc(task, -task.images.mean((1, 2, 3)).numpy()[task.rows])
    weights = mil(task.phi.shape[1], seed=100 + run.seed).explain(task.phi, task.slide)[0]
    metrics["untrained attention: AUC of tiles"] = tile_auc(task, weights)
    return _result(metrics, task.sets)


# --- hunger: a vision transformer against a convolutional network over the number of images ---


@dataclass(frozen=True)
class Films:
    """Images of two classes: x (N, 1, H, W), z the same in units of the training images' spread, label (N,), rows."""

    sets: list[ImageSet]
    x: torch.Tensor
    z: torch.Tensor
    label: np.ndarray
    train: np.ndarray
    test: np.ndarray


def films(*, data: str, data_dir: str, classes: str = "") -> Films:
    """Phantom forearms, PneumoniaMNIST enlarged to 64 × 64, or a folder with two classes."""
    if data == "public":
        options = dict(source="public", data_dir=data_dir and f"{data_dir}/pneumoniamnist")
        sets = [load("pneumoniamnist", part=part, **options) for part in ("train", "test")]
        x = torch.cat([F.interpolate(part.tensor(), size=64, mode="bilinear") for part in sets])
        label, train = np.concatenate([part.labels for part in sets]), np.arange(len(sets[0]))
        test = np.arange(len(sets[0]), len(x))
    else:
        phantom = dict(images=3600, patients=1200)
        folder = dict(source="folder", data_dir=data_dir, classes=classes) if data == "folder" else phantom
        sets = [load("xray", size=64, **folder)]
        cut, x, label = split(sets[0], fractions=(0.6, 0.1, 0.3), seed=0), sets[0].tensor()[:, :1], sets[0].labels > 0
        label, train, test = label.astype(int), cut.train, cut.test
    if len(np.unique(label[train])) < 2:
        raise ValueError(f"the images to train with are all of class {label[train][0]}; expected two classes")
    z = (x - x[train].mean()) / x[train].std()  # a transformer has no batch norm that would do it
    return Films(sets, x, z, label, train, test)


def film_network(name: str, draw: int) -> nn.Module:
    """ "vit", "cnn", or "cnn + cbam", where the features are 8 × 8, as the patches of the ViT are."""
    if name == "vit":
        return vit(classes=1, seed=draw)
    net = densenet("small", seed=draw)
    if name == "cnn + cbam":
        block = CBAM(net.features.transition3.conv.in_channels)
        block = init_weights(block, np.random.default_rng([draw, 1]))
        net.features.denseblock3 = nn.Sequential(net.features.denseblock3, block)
    return net


def film_auc(task: Films, net: nn.Module) -> float:
    """AUC of the test images."""
    return roc_auc_score(task.label[task.test], predict(net, task.z[task.test])[:, 0])


def trained_film(task: Films, name: str, n: int, draw: int, *, epochs: int, patience: int) -> nn.Module:
    """A network trained with n images, as many of each class. patience: how many times the epochs a ViT gets."""
    rows = task.train[draw_support(task.label[task.train], per_class=n // 2, seed=draw)]
    batch, is_vit = (task.z[rows], torch.from_numpy(task.label[rows])), name == "vit"
    epochs *= patience if is_vit else 1  # it learns more slowly, and one epoch takes it a third of the time
    net = film_network(name, draw)
    fit(net, batch, val=batch, epochs=epochs, score=lambda net: 0.0, lr=1e-3 if is_vit else 3e-3, seed=draw)
    return net


def histogram_auc(task: Films, n: int, draw: int) -> float:
    """AUC of the test images by a linear probe on their grey values."""
    rows = task.train[draw_support(task.label[task.train], per_class=n // 2, seed=draw)]
    known, asked = (histogram_features(task.x[part]).numpy() for part in (rows, task.test))
    said = linear_probe(known, task.label[rows]).predict_proba(asked)
    return roc_auc_score(task.label[task.test], said[:, 1])


def localised(task: Films, nets: dict[str, nn.Module]) -> dict[str, float]:
    """How well maps of the lesion, and maps that know nothing of a network, find it in 100 test images."""
    lesion = task.sets[0].masks == 1
    shown = task.test[lesion[task.test].any((1, 2))][:100]
    cnn, metrics, rng = nets["cnn + cbam"].eval(), {}, np.random.default_rng(0)
    seen = capture(cnn, task.z[shown], "relu", target=1)  # the last features, where Grad-CAM is at home
    grad = grad_cam(seen.features["relu"], seen.grads["relu"]).relu()
    maps = {"CBAM": cbam_map(cnn, task.z[shown]), "ViT rollout": rollout_map(nets["vit"].eval(), task.z[shown])}
    maps |= {"Grad-CAM": grad.numpy()}
    maps |= {name: control_map(name, task.x[shown], rng=rng).numpy() for name in ("sobel", "centre", "random")}
    for name, small in maps.items():
        one, outline = resize_map(torch.from_numpy(small), 64).numpy(), lesion[shown]
        order = [roc_auc_score(mask.ravel(), each.ravel()) for mask, each in zip(outline, one, strict=True)]
        values = {"pointing game": pointing_game(one, outline), "AUPRC": average_precision(one, outline)}
        metrics |= {f"{name}: {measure}": float(v.mean()) for measure, v in values.items()}
        metrics[f"{name}: pixel AUC"] = float(np.mean(order))
    return metrics


def cbam_map(net: nn.Module, images: torch.Tensor) -> np.ndarray:
    """CBAM's number for each place, (N, 8, 8)."""
    return let_through(net, net.features.denseblock3[1].place, images)


def rollout_map(net: nn.Module, images: torch.Tensor) -> np.ndarray:
    """How much each patch takes part, by the ViT's attention, (N, 8, 8)."""
    return net.rollout(images).numpy()


def cascade(net: nn.Module, map_of: Callable, images: torch.Tensor) -> list[tuple[str, float]]:
    """Rank correlation with the map of the trained network, after one more layer from the top is random."""
    first, steps = map_of(net, images), []
    for layer, changed in randomise_cascade(net, rng=np.random.default_rng(0)):
        steps.append((layer, rank_correlation(first, map_of(changed.eval(), images)).mean()))
    return steps


def hunger(run, *, data: str, data_dir: str) -> dict:
    """AUC over the number of images for a histogram, a small DenseNet and a small ViT; on phantoms, what maps find."""
    torch.set_num_threads(1)
    task, sizes, metrics, nets = (
        films(data=data, data_dir=data_dir),
        run.pick(smoke=[8], teach=[400], full=FILMS),
        {},
        {},
    )
    epochs = lambda n: run.pick(smoke=1, teach=8, full=max(10, 6400 // n))  # noqa: E731
    patience = run.pick(smoke=1, teach=3, full=6)
    metrics["histogram: AUC"] = [histogram_auc(task, n, run.seed) for n in sizes]
    for name in ("cnn", "vit", "cnn + cbam"):
        start, metrics[f"{name}: AUC"] = time.perf_counter(), []
        for n in sizes if name in ("cnn", "vit") else sizes[-1:]:
            nets[name] = trained_film(task, name, n, run.seed, epochs=epochs(n), patience=patience)
            metrics[f"{name}: AUC"].append(film_auc(task, nets[name]))
        metrics[f"{name}: seconds"] = time.perf_counter() - start
    if data != "phantom":
        return _result(metrics, task.sets)
    kept = {name: nets[name] for name in ("vit", "cnn + cbam")}
    metrics |= localised(task, kept) | {f"{name}: last AUC": metrics[f"{name}: AUC"][-1] for name in kept}
    lesion = task.sets[0].masks == 1
    shown = task.test[lesion[task.test].any((1, 2))][:20]
    for name, net, map_of in (("ViT rollout", "vit", rollout_map), ("CBAM", "cnn + cbam", cbam_map)):
        metrics[f"{name}: rank correlation"] = [v for _, v in cascade(kept[net].eval(), map_of, task.z[shown])]
    return _result(metrics, task.sets, nn.ModuleDict(kept))


def _result(metrics: dict, sets: list[ImageSet], model: nn.Module | None = None) -> dict:
    return {"metrics": metrics, "data": ImageSets(sets), "model": model}
