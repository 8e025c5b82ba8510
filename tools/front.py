"""The pictures of the first page, from what is recorded and what the notebooks showed last: `make front`.

    python tools/front.py [--out docs/_static]

`front.png` is for the README: what twenty labelled slices bought, read from `results/08_label_budget.json`. Each
chapter has a picture for the front page of the site: a part of one of its figures, found by how the alternative text
begins.
"""

import argparse
import io
import json
from base64 import b64decode
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D
from PIL import Image

from helpers.labels.weak import SECONDS
from helpers.plots import COLOURS
from helpers.runs import records, repo_root, tables
from helpers.stats import paired_gain

LABELS = 20
TASKS = {"public": "real hearts (ACDC)", "phantom": "generated hearts"}
PRICES = {"outline": SECONDS["full"][0], "patch": SECONDS["eroded"][0] + SECONDS["size"][0]}  # seconds a slice
PRICES |= {"scribble": SECONDS["scribble"][0], "tag": SECONDS["tag"][0]}
# What the expert draws: row of chapter 08, what it is called here, and its colour.
METHODS = {
    "outline": {
        "augmented + teacher": ("changed copies, and other slices", "method"),
        "augmented": ("changed copies of the slices", "method"),
        "teacher": ("other slices, not labelled", "method"),
        "plain": ("a small network, nothing added", "control"),
        "chosen": ("half of the slices chosen", "method"),
        "attention gate": ("attention in the network", "method"),
        "forest": ("no network: a forest of pixels", "good"),
    },
    "patch": {"patch + size": ("patches and two diameters", "other")},
    "scribble": {
        "scribble, augmented": ("scribbles, and changed copies", "other"),
        "scribble": ("scribbles", "other"),
    },
}
HEADS = {"outline": f"{LABELS} slices outlined", "patch": f"{LABELS} slices marked faster"}
# Chapter: how the alternative text of its figure begins, and which part of it is shown (left, top, right, bottom).
FIGURES = {
    "00_medical_images": ("Seven modalities", (3 / 7, 0, 1, 1)),
    "01_explanation": ("CAM of three test images", (0, 0, 1, 0.65)),
    "02_weak_supervision": (
        "Two validation slices: the true outline, and the segmentation of each network.",
        (0.2, 0, 1, 1),
    ),
    "03_transfer_learning": ("Photographs of optic discs", (0, 0, 4 / 6, 1)),
    "04_active_learning": ("The pool in two dimensions", (0, 0, 0.6, 1)),
    "05_attention": ("A CT slice with an outlined tumour, and what the gates", (0, 0, 4 / 6, 1)),
    "06_shallow_methods": ("Three lesions", (0, 0, 4 / 6, 0.67)),
    "07_domain_knowledge": ("Two discs", (0, 0, 1, 0.5)),
    "08_label_budget": ("A heart, enlarged, labelled three times", (0, 0, 1, 1)),
}
WIDTH = 480  # pixels of a chapter's picture


def figure_of(chapter: str, alt: str) -> Image.Image:
    """The one figure of a committed notebook whose alternative text begins so; raises ValueError if it is not one."""
    book = json.loads((repo_root() / "notebooks" / f"{chapter}.ipynb").read_text(encoding="utf-8"))
    outputs = [output for cell in book["cells"] for output in cell.get("outputs", [])]
    kinds = [
        (kind, output) for output in outputs for kind in ("image/png", "image/jpeg") if kind in output.get("data", {})
    ]
    found = [output["data"][kind] for kind, output in kinds if output["metadata"][kind]["alt"].startswith(alt)]
    if len(found) != 1:
        raise ValueError(f"{chapter} has {len(found)} figures that begin with {alt!r}, expected one")
    return Image.open(io.BytesIO(b64decode("".join(found[0])))).convert("RGB")


def thumbnail(chapter: str) -> Image.Image:
    """The picture of a chapter, `WIDTH` pixels wide."""
    alt, part = FIGURES[chapter]
    whole = figure_of(chapter, alt)
    cut = whole.crop([round(share * length) for share, length in zip(part, whole.size * 2, strict=True)])
    return cut.resize((WIDTH, round(cut.height * WIDTH / cut.width)), Image.Resampling.LANCZOS)


def bought(rows: list[dict], name: str, kind: str) -> tuple[np.ndarray, float]:
    """Dice of each draw of a method with `LABELS` slices, and the minutes of an expert, mean over the draws."""
    at = np.array(tables.points(rows, f"{name}: labels")) == LABELS
    scores, shown = (np.array(tables.points(rows, f"{name}: {what}"))[at] for what in ("Dice", "with structure"))
    return scores, float((shown * PRICES[kind] + (LABELS - shown) * PRICES["tag"]).mean() / 60)


def draw_task(ax, rows: list[dict]) -> list[str]:
    """A line a method: its draws, their mean with its 95 % interval, and the minutes; returns the names."""
    names = []
    for kind, methods in METHODS.items():
        names += [HEADS[kind]] if kind in HEADS else []
        for name, (said, colour) in methods.items():
            scores, minutes = bought(rows, name, kind)
            mean, half = paired_gain(scores, np.zeros(len(scores)))
            style = dict(color=COLOURS[colour], capsize=4, lw=2.2, ms=9, fmt="s" if colour == "control" else "D")
            ax.plot(scores, [len(names)] * len(scores), "o", ms=7, color=COLOURS[colour], alpha=0.35, mew=0)
            ax.errorbar(mean, len(names), xerr=[[half], [min(half, 1 - mean)]], **style)
            place = dict(transform=ax.get_yaxis_transform(), va="center", ha="right", fontsize=15)
            ax.text(1.16, len(names), f"{minutes:.0f} min", **place)
            if colour == "control":
                ax.axvline(mean, color=COLOURS[colour], ls=":", lw=1.5, zorder=0)
            names.append(said)
    ax.text(1.16, 0, "labelling", **place)
    ax.set(xlim=(0, 1), ylim=(len(names) - 0.4, -0.6))
    ax.set_xlabel("Dice score in patients held out (1: perfect)", fontsize=15)
    ax.tick_params(labelsize=14)
    ax.tick_params(axis="y", length=0)
    return names


def draw_labels(ax) -> None:
    """What an expert draws in a slice, from the figure of chapter 08: outline, patch and diameters, scribble."""
    whole = figure_of("08_label_budget", FIGURES["08_label_budget"][0])
    wide, high = whole.width / 3, whole.height
    for place, kind in enumerate(METHODS):
        box = ax.inset_axes([0.01 + 0.235 * place, 0.54, 0.225, 0.27])
        box.imshow(whole.crop([round(wide * (place + 0.01)), round(high * 0.12), round(wide * (place + 0.99)), high]))
        said = "patch and\ndiameters" if kind == "patch" else f"\n{kind}"
        box.set_title(f"{said}\n{PRICES[kind]:.0f} s", fontsize=12)
        box.axis("off")


def front(rows: list[dict]):
    """The picture of the README: twenty labelled slices, real and generated hearts."""
    tasks = tables.groups([row for row in rows if row["record"]], "row", "data")
    figure, axes = plt.subplots(1, 2, figsize=(15, 7.2), layout="constrained", sharey=True)
    for ax, (data, title) in zip(axes, TASKS.items(), strict=True):
        names = draw_task(ax, tasks["hearts", data])
        ax.set_title(title, fontsize=18, loc="left")
    figure.get_layout_engine().set(w_pad=0.15)
    draw_labels(axes[1])
    axes[0].set_yticks(range(len(names)), names, fontsize=15)
    for label in axes[0].get_yticklabels():
        label.set_weight("bold" if label.get_text() in HEADS.values() else "normal")
    grey = dict(ls="", color=COLOURS["control"])
    marks = [
        Line2D([], [], marker="o", ms=8, alpha=0.5, label="one draw of slices and first weights", **grey),
        Line2D([], [], marker="D", ms=9, label="mean of ten draws, 95 % interval", **grey),
        Line2D([], [], ls=":", lw=1.8, color=COLOURS["control"], label="nothing added"),
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=3, frameon=False, fontsize=15)
    return figure


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=repo_root() / "docs" / "_static", help="where the pictures go")
    options = parser.parse_args()
    rows = records("label_budget")
    print(tables.provenance(rows))
    front(rows).savefig(options.out / "front.png", dpi=100)
    for chapter in FIGURES:
        thumbnail(chapter).save(options.out / f"{chapter}.jpg", quality=85)
    for file in sorted([options.out / "front.png", *options.out.glob("*.jpg")]):
        print(f"{file.name:28s} {file.stat().st_size / 1000:4.0f} kB")


if __name__ == "__main__":
    main()
