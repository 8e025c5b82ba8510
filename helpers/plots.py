"""Figures: one colour per meaning, heat maps over images, and one way to explore a parameter."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from helpers.explain.maps import resize_map
from helpers.frontend import is_live
from helpers.stats import bootstrap_interval

# Okabe–Ito colours, told apart with any colour vision: the same meaning has the same colour in every chapter.
# "good" is what is right, and a third method where many are compared.
COLOURS = {
    "truth": "#56B4E9",  # masks drawn by an expert or known exactly
    "method": "#D55E00",  # what is being taught
    "other": "#0072B2",  # its alternatives
    "control": "#595959",  # simple controls
    "warning": "#CC79A7",  # shortcuts and mistakes
    "good": "#009E73",
}
EVIDENCE = "PuOr_r"  # orange: evidence for; purple: evidence against

plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 100})


def show(figure: Figure, alt: str, *, photograph: bool = False) -> None:
    """Display a figure with alternative text and close it; photographs as JPEG, which is a tenth the size."""
    if not alt.strip():
        raise ValueError("alt is empty; expected a sentence that says what the figure shows")
    kind, options = ("jpeg", {"pil_kwargs": {"quality": 82}}) if photograph else ("png", {})
    picture = io.BytesIO()
    figure.savefig(picture, format=kind, dpi=90, bbox_inches="tight", **options)
    plt.close(figure)
    display(Image(picture.getvalue(), format=kind, alt=alt))


def panels(rows: int, columns: int, *, width: float = 2.2, height: float | None = None) -> tuple[Figure, np.ndarray]:
    """A grid of axes (rows, columns); width and height of a panel in inches."""
    size = (columns * width, rows * (height or width))
    return plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")


def draw_image(ax: Axes, image: np.ndarray, *, mask=None, marker=None, heat=None, title: str = "") -> None:
    """A grey image (H, W) in 0…1 with the outline of a mask, a dashed one of a marker, and a signed heat map over it.

    The heat map is divided by its largest absolute value; it is as opaque as it is strong.
    """
    ax.imshow(image, cmap="gray", vmin=0, vmax=1)
    if heat is not None:
        strength = heat / max(float(np.abs(heat).max()), 1e-12)
        ax.imshow(strength, cmap=EVIDENCE, vmin=-1, vmax=1, alpha=np.abs(strength) ** 0.7 * 0.75)
    for outline, colour, style in ((mask, COLOURS["truth"], "solid"), (marker, COLOURS["warning"], "dashed")):
        if outline is not None and np.any(outline):
            ax.contour(outline, levels=[0.5], colors=[colour], linewidths=1.6, linestyles=style)
    ax.set_title(title, fontsize=11)
    ax.axis("off")


def draw_found(ax: Axes, found: np.ndarray, *, style: str = "dashed") -> None:
    """What a method found, a mask (H, W): its outline over a picture that is already drawn; nothing if it is empty."""
    if np.any(found):
        drawn = ax.contour(found, levels=[0.5], colors=[COLOURS["method"]], linewidths=1.6, linestyles=style)
        drawn.set_path_effects([withStroke(linewidth=3, foreground="black")])  # readable on orange tissue, too


def draw_cloud(
    ax: Axes, place: float, recorded: Sequence[float], live: float = float("nan"), *, colour="method"
) -> None:
    """One column of a figure: recorded draws as dots, a bar at their mean, and the live run as a diamond among them.

    place: of the column along x. A live value that is not finite (no live run) is left out.
    """
    ax.plot([place] * len(recorded), recorded, "o", ms=5, color=COLOURS[colour], alpha=0.45)
    ax.plot([place - 0.25, place + 0.25], [np.mean(recorded)] * 2, color=COLOURS[colour], lw=3)
    if np.isfinite(live):
        ax.plot(place, live, "D", ms=9, mfc="white", mec="black", mew=1.8, zorder=3)


def draw_flow(
    ax: Axes, boxes: dict[str, tuple[float, float]], arrows: Sequence[tuple[str, str]], *, taught: Sequence[str] = ()
) -> None:
    """A drawing of a computation: boxes {text: (x, y)} in 0…1 and arrows from box to box; orange is what is taught."""
    drawn = {}
    for text, (x, y) in boxes.items():
        colour = COLOURS["method" if text in taught else "control"]
        frame = dict(boxstyle="round,pad=0.35", facecolor="white", edgecolor=colour, linewidth=2)
        drawn[text] = ax.text(x, y, text, ha="center", va="center", fontsize=11, bbox=frame)
    for start, end in arrows:
        ends = dict(patchA=drawn[start].get_bbox_patch(), patchB=drawn[end].get_bbox_patch(), shrinkA=1, shrinkB=1)
        style = dict(arrowstyle="-|>", color=COLOURS["control"], linewidth=1.6, **ends)
        ax.annotate(
            "", boxes[end], boxes[start], arrowprops=style, zorder=4
        )  # after the boxes, whose size is then known
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.axis("off")


def explore(draw: Callable[..., None], *, alt: str, photograph: bool = True, **choices: list) -> None:
    """Show draw(ax, name=value, …) over one or two lists of choices as small multiples; as sliders, too, where live.

    The first choice runs along the columns, the second along the rows. Raises ValueError unless 1 or 2 are given.
    """
    if not 1 <= len(choices) <= 2 or not all(choices.values()):
        raise ValueError(f"choices are {list(choices)}; expected one or two names, each with at least one value")
    (first, columns), (second, rows) = [*choices.items(), (None, [None])][:2]
    figure, axes = panels(len(rows), len(columns))
    for row, line in zip(rows, axes, strict=True):
        for column, ax in zip(columns, line, strict=True):
            draw(ax, **({first: column} if second is None else {first: column, second: row}))
    show(figure, alt, photograph=photograph)
    if is_live():
        sliders = {name: ipywidgets.SelectionSlider(options=values) for name, values in choices.items()}
        ipywidgets.interact(lambda **chosen: _draw_one(draw, alt, photograph, chosen), **sliders)


def _draw_one(draw, alt, photograph, chosen) -> None:
    figure, axes = panels(1, 1, width=4)
    draw(axes[0, 0], **chosen)
    show(figure, alt, photograph=photograph)


def map_grid(images, maps: dict, *, masks: np.ndarray) -> Figure:
    """Images (N, 1, H, W) in 0…1, one a row, and beside each its signed maps {title: (N, h, w)}; masks (N, H, W)."""
    figure, axes = panels(len(images), len(maps) + 1, width=1.8)
    size = tuple(images.shape[2:])
    columns = {"image": None} | {title: resize_map(m.cpu(), size).numpy() for title, m in maps.items()}
    for column, (title, heat) in enumerate(columns.items()):
        for row, ax in enumerate(axes[:, column]):
            label = title.replace(" ", "\n", 1) if row == 0 else ""
            draw_image(ax, images[row, 0], mask=masks[row], heat=None if heat is None else heat[row], title=label)
    return figure


def forest(table: dict[str, dict], measures: Sequence[str], *, controls: Sequence[str] = (), interval=True) -> Figure:
    """Table {row: {measure: values}}: a mean with its 95 % bootstrap interval per row, or, without `interval`, dots.

    One panel per measure that the table has; all measures lie in 0…1. Controls are grey squares.
    """
    measures = [m for m in measures if all(m in row and None not in row[m] for row in table.values())]
    figure, axes = panels(1, len(measures), width=2.6, height=0.7 + 0.28 * len(table))
    for column, (measure, ax) in enumerate(zip(measures, axes[0], strict=True)):
        for position, (name, row) in enumerate(table.items()):
            colour, mark = (COLOURS["control"], "s") if name in controls else (COLOURS["method"], "o")
            values = [np.mean(row[measure])] if interval else row[measure]
            ax.plot(values, [position] * len(values), mark, color=colour, alpha=1 if interval else 0.6)
            if interval:
                ax.plot(
                    bootstrap_interval(np.mean, np.asarray(row[measure])), [position] * 2, color=colour, lw=3, alpha=0.5
                )
        ax.set(xlim=(-0.02, 1.02), title=measure, yticks=range(len(table)), yticklabels=[] if column else list(table))
        ax.invert_yaxis()
        ax.grid(axis="x", alpha=0.3)
    return figure
