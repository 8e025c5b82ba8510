"""What frozen features are worth with few labels: a row is a kind of images, a function(run, *, data, data_dir).

Each returns what `Run.save` takes: of each kind of features the AUC on test images that are the same for all, in thirty
draws of the labelled images. A draw is the same for all features, and the 5 of a class are among its 10.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers.data import ImageSet, ImageSets, load, split
from helpers.nets.backbones import features
from helpers.nets.dinov2 import SALIENCY
from helpers.transfer import draw_support, histogram_features

COUNTS = (5, 10, 20, 50)  # labelled images of a class
STRENGTHS = tuple(10.0**power for power in range(-5, 2))  # of the logistic regression: C, tried for all features
ROWS = ("films", "breasts", "tissue")


def thumbnail(images: torch.Tensor) -> np.ndarray:
    """Images (N, C, H, W) at 16 × 16 pixels, as rows (N, C · 256): the control that any lab has."""
    return F.interpolate(images, size=16, mode="bilinear", antialias=True).flatten(1).numpy()


def histogram(images: torch.Tensor) -> np.ndarray:
    """The shares of grey values or colours, (N, C · 16)."""
    return histogram_features(images.clamp(0, 1)).numpy()


FEATURES: dict[str, Callable[[torch.Tensor], np.ndarray]] = {
    "lite0 at 64": partial(features, backbone="efficientnet_lite0", size=64),
    "lite0 at 224": partial(features, backbone="efficientnet_lite0"),
    "ViT at 224": partial(features, backbone=SALIENCY),
    "thumbnail": thumbnail,
    "histogram": histogram,
}


@dataclass(frozen=True)
class Task:
    """Images to draw labelled ones from and images to test on, x (N, C, H, W) in 0…1 and label (N,) of both."""

    sets: list[ImageSet]
    pool: torch.Tensor
    pool_label: np.ndarray
    test: torch.Tensor
    test_label: np.ndarray


def films(run, *, data: str, data_dir: str) -> dict:
    """Phantom forearms, one a patient, with or without a lesion; or the chests of PneumoniaMNIST."""
    if data == "public":
        options = dict(source="public", data_dir=data_dir and f"{data_dir}/pneumoniamnist", seed=0)
        count = run.pick(smoke=60, teach=200, full=1000)
        return compare(run, task_of([load("pneumoniamnist", part=part, images=count, **options) for part in _PARTS]))
    images = run.pick(smoke=100, teach=300, full=1200)
    return compare(
        run, divided(load("xray", images=images, patients=images, size=run.pick(smoke=32, teach=64, full=128)))
    )


def breasts(run, *, data: str, data_dir: str) -> dict:
    """Ultrasound, normal, benign or malignant: phantoms, or BUSI, whose patients are not published."""
    if data == "public":
        return compare(run, divided(load("busi", source="public", data_dir=data_dir and f"{data_dir}/busi", size=224)))
    images = run.pick(smoke=90, teach=300, full=1200)
    return compare(run, divided(load("ultrasound", images=images, patients=images, size=64)))


def tissue(run, *, data: str, data_dir: str) -> dict:
    """Tiles of one real H&E section by the kind of most nuclei: of one patient, and neighbours overlap."""
    count = run.pick(smoke=60, teach=200, full=None)
    return compare(run, task_of([load("tissue", source="sample", part=part, size=64, images=count) for part in _PARTS]))


_PARTS = ("train", "test")


def divided(data: ImageSet) -> Task:
    """Two thirds of the patients to draw labelled images from, a third to test on."""
    cut = split(data, fractions=(0.55, 0.1, 0.35), seed=0)
    return task_of([data[np.sort(np.concatenate([cut.train, cut.val]))], data[cut.test]])


def task_of(sets: list[ImageSet]) -> Task:
    pool, test = sets
    return Task(sets, pool.tensor(), np.asarray(pool.labels), test.tensor(), np.asarray(test.labels))


def compare(run, task: Task) -> dict:
    """The AUC of each kind of features, a number a draw for each count of labels, and the seconds they take."""
    torch.set_num_threads(1)
    draws, metrics = run.pick(smoke=2, teach=5, full=30), {}
    counts = [n for n in COUNTS if n <= np.bincount(task.pool_label).min()][: run.pick(smoke=1, teach=2, full=4)]
    for name, make in FEATURES.items():
        start = time.perf_counter()
        pool, test = make(task.pool), make(task.test)
        metrics[f"{name}: seconds an image"] = (time.perf_counter() - start) / (len(pool) + len(test))
        for n in counts:
            metrics[f"{name}: AUC, {n} a class"] = [
                auc(task, pool, test, draw_support(task.pool_label, per_class=n, seed=draw)) for draw in range(draws)
            ]
    return dict(metrics=metrics, data=ImageSets(task.sets))


def auc(task: Task, pool: np.ndarray, test: np.ndarray, rows: np.ndarray) -> float:
    """AUC of the test images after a logistic regression on some; of three classes the mean of each to the rest."""
    said = probe(pool[rows], task.pool_label[rows]).predict_proba(test)
    return float(roc_auc_score(task.test_label, said[:, 1] if said.shape[1] == 2 else said, multi_class="ovr"))


def probe(known: np.ndarray, label: np.ndarray) -> GridSearchCV:
    """Logistic regression on standardised features; its strength is chosen by leaving out a fifth at a time."""
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    tried = {"logisticregression__C": STRENGTHS}
    return GridSearchCV(model, tried, cv=folds, scoring="neg_log_loss").fit(known.astype(np.float64), label)
