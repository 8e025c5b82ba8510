"""Figures: alternative text, small multiples, outlines, tables of intervals, colours; and who is watching."""

import itertools
import sys

import ipywidgets
import matplotlib.colors
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from helpers import frontend, plots
from helpers.plots import COLOURS, draw_cloud, draw_found, draw_image, explore, forest, map_grid, panels, show


@pytest.fixture(autouse=True)
def shown(monkeypatch) -> list:
    """What was displayed: (data, metadata) of each image; afterwards no figure is left open."""
    pictures = []
    monkeypatch.setattr(plots, "display", lambda image: pictures.append(image._repr_mimebundle_()))
    yield pictures
    plt.close("all")


@pytest.mark.parametrize(("photograph", "kind"), [(False, "image/png"), (True, "image/jpeg")])
def test_show_displays_once_with_alternative_text_and_closes(shown, photograph, kind):
    figure, _ = panels(1, 1)
    show(figure, "A sentence.", photograph=photograph)
    ((data, metadata),) = shown
    assert list(data) == [kind] and len(data[kind]) > 100
    assert metadata[kind]["alt"] == "A sentence." if kind in metadata else metadata["alt"] == "A sentence."
    assert plt.get_fignums() == []


@pytest.mark.parametrize("alt", ["", "  \n"])
def test_a_figure_without_alternative_text_is_refused(shown, alt):
    with pytest.raises(ValueError, match="alt is empty; expected a sentence that says what the figure shows"):
        show(panels(1, 1)[0], alt)
    assert shown == []


def test_panels_are_a_grid():
    figure, axes = panels(2, 3, width=2, height=1)
    assert axes.shape == (2, 3) and figure.get_size_inches().tolist() == [6, 2]
    assert panels(1, 1)[1].shape == (1, 1)


# --- explore -------------------------------------------------------------------------------------------------------


def no_widgets(*_, **__):
    raise AssertionError("a widget was made")


def test_explore_draws_each_combination_once_and_makes_no_widget(shown, monkeypatch):
    monkeypatch.setattr(plots, "is_live", lambda: False)
    monkeypatch.setattr(ipywidgets, "interact", no_widgets)
    calls = []
    explore(lambda ax, **chosen: calls.append((ax, chosen)), alt="Six.", layer=["a", "b", "c"], threshold=[1, 2])
    expected = [dict(layer=layer, threshold=t) for t in (1, 2) for layer in "abc"]
    assert [chosen for _, chosen in calls] == expected
    assert len({ax for ax, _ in calls}) == 6
    positions = [(ax.get_subplotspec().rowspan.start, ax.get_subplotspec().colspan.start) for ax, _ in calls]
    assert positions == list(itertools.product(range(2), range(3)))  # the first choice along the columns
    assert len(shown) == 1
    calls.clear()
    explore(lambda ax, **chosen: calls.append(chosen), alt="Two.", layer=["a", "b"])
    assert calls == [dict(layer="a"), dict(layer="b")]


def test_explore_makes_sliders_where_live(shown, monkeypatch):
    monkeypatch.setattr(plots, "is_live", lambda: True)
    made = []
    monkeypatch.setattr(ipywidgets, "interact", lambda call, **sliders: made.append((call, sliders)))
    calls = []
    explore(lambda ax, **chosen: calls.append(chosen), alt="Four.", layer=["a", "b"], threshold=[1, 2])
    ((call, sliders),) = made
    assert {name: slider.options for name, slider in sliders.items()} == dict(layer=("a", "b"), threshold=(1, 2))
    assert len(shown) == 1  # the static figure is there all the same
    call(layer="b", threshold=1)
    assert calls[4:] == [dict(layer="b", threshold=1)] and len(shown) == 2


@pytest.mark.parametrize("choices", [{}, dict(a=[1], b=[1], c=[1]), dict(a=[]), dict(a=[1], b=[])])
def test_a_wrong_number_of_choices_is_named(choices):
    with pytest.raises(ValueError) as error:
        explore(lambda ax, **_: None, alt="None.", **choices)
    expected = f"choices are {list(choices)}; expected one or two names, each with at least one value"
    assert str(error.value) == expected


# --- images --------------------------------------------------------------------------------------------------------


def outlines(ax) -> list[str]:
    contours = [c for c in ax.collections if c.get_edgecolor().size]
    return [matplotlib.colors.to_hex(c.get_edgecolor()[0]).upper() for c in contours]


def test_outlines_of_mask_and_marker():
    mask, marker = np.zeros((2, 8, 8), bool)
    mask[2:5, 2:5], marker[6:, 6:] = True, True
    axes = panels(1, 3)[1][0]
    draw_image(axes[0], np.zeros((8, 8)), mask=mask, marker=marker, title="both")
    draw_image(axes[1], np.zeros((8, 8)), mask=mask)
    draw_image(axes[2], np.zeros((8, 8)), mask=mask & False)
    assert [outlines(ax) for ax in axes] == [[COLOURS["truth"], COLOURS["warning"]], [COLOURS["truth"]], []]
    path = axes[1].collections[0].get_paths()[0].vertices
    assert (path.min(0).tolist(), path.max(0).tolist()) == ([1.5, 1.5], [4.5, 4.5])
    assert axes[0].get_title() == "both" and axes[0].images[0].get_clim() == (0, 1)


def test_what_is_found_is_dashed_in_the_colour_of_the_method_and_may_be_empty():
    found = np.zeros((8, 8), bool)
    axes = panels(1, 2)[1][0]
    draw_found(axes[1], found)
    found[2:5, 2:5] = True
    draw_found(axes[0], found)
    draw_found(axes[0], found, style="dotted")
    assert [outlines(ax) for ax in axes] == [[COLOURS["method"]] * 2, []]
    dashes = [drawn.get_linestyles()[0][1] for drawn in axes[0].collections]
    assert dashes[0] != dashes[1] and all(dashes)
    assert all(drawn.get_path_effects() for drawn in axes[0].collections)  # the dark edge


def test_a_cloud_has_every_draw_its_mean_and_the_live_run_among_them():
    _, axes = panels(1, 1)
    draw_cloud(axes[0, 0], 2, [0.1, 0.2, 0.6], 0.9)
    dots, mean, live = axes[0, 0].lines
    assert dots.get_ydata().tolist() == [0.1, 0.2, 0.6] and set(dots.get_xdata()) == {2}
    assert mean.get_ydata() == pytest.approx([0.3, 0.3]) and mean.get_color() == COLOURS["method"]
    assert (live.get_xdata(), live.get_ydata()) == ([2], [0.9]) and live.get_zorder() > dots.get_zorder()
    draw_cloud(axes[0, 0], 3, [0.5], float("nan"), colour="control")
    assert len(axes[0, 0].lines) == 5 and axes[0, 0].lines[-1].get_color() == COLOURS["control"]


def test_heat_is_signed_and_as_opaque_as_strong():
    heat = np.array([[-4.0, 0.0], [1.0, 2.0]])
    axes = panels(1, 2)[1][0]
    draw_image(axes[0], np.zeros((2, 2)), heat=heat)
    draw_image(axes[1], np.zeros((2, 2)), heat=0 * heat)
    over = axes[0].images[1]
    assert over.get_array().tolist() == [[-1, 0], [0.25, 0.5]] and over.get_clim() == (-1, 1)
    alpha = over.get_alpha()
    assert alpha[0, 1] == 0 and alpha[0, 0] == pytest.approx(0.75) and alpha[0, 0] > alpha[1, 1] > alpha[1, 0] > 0
    assert np.isfinite(axes[1].images[1].get_array()).all()


def test_map_grid_has_one_row_an_image_and_one_column_a_map():
    maps = {"CAM": torch.ones(2, 2, 2), "Grad-CAM 4": torch.eye(4).repeat(2, 1, 1)}
    figure = map_grid(torch.zeros(2, 1, 8, 8), maps, masks=np.ones((2, 8, 8)))
    axes = np.array(figure.axes).reshape(2, 3)
    assert [ax.get_title() for ax in axes[0]] == ["image", "CAM", "Grad-CAM\n4"]
    assert [[len(ax.images) for ax in row] for row in axes] == [[1, 2, 2]] * 2
    assert axes[1, 2].images[1].get_array().shape == (8, 8)


# --- forest --------------------------------------------------------------------------------------------------------

TABLE = {
    "CAM": {"IoU": [0.2, 0.4, 0.6], "AUPRC": [0.5, 0.5, 0.5], "pointing": [1, 1, 1]},
    "sobel": {"IoU": [0.1, 0.1, 0.4], "AUPRC": [0.1, 0.2, 0.3], "deletion": [0, 0, 0], "pointing": [1, None, 1]},
}


def test_forest_leaves_out_what_a_row_lacks():
    figure = forest(TABLE, ("pointing", "IoU", "AUPRC", "deletion", "insertion"), controls=("sobel",))
    assert [ax.get_title() for ax in figure.axes] == ["IoU", "AUPRC"]  # pointing has a gap, deletion one row only
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["CAM", "sobel"]


def test_forest_shows_mean_and_interval_and_marks_controls():
    ax = forest(TABLE, ("IoU",), controls=("sobel",)).axes[0]
    (cam, cam_bar), (sobel, sobel_bar) = ax.lines[:2], ax.lines[2:4]
    assert cam.get_xdata() == pytest.approx([0.4]) and sobel.get_xdata() == pytest.approx([0.2])
    assert (cam.get_marker(), sobel.get_marker()) == ("o", "s")
    assert (cam.get_color(), sobel.get_color()) == (COLOURS["method"], COLOURS["control"])
    for bar, mean, position in ((cam_bar, 0.4, 0), (sobel_bar, 0.2, 1)):
        low, high = bar.get_xdata()
        assert low < mean < high and list(bar.get_ydata()) == [position] * 2


def test_forest_without_interval_shows_every_value():
    lines = forest(TABLE, ("IoU",), interval=False).axes[0].lines
    assert [list(line.get_xdata()) for line in lines] == [[0.2, 0.4, 0.6], [0.1, 0.1, 0.4]]


# --- colours -------------------------------------------------------------------------------------------------------

# Linear RGB as seen without green cones: Viénot, Brettel and Mollon 1999
DEUTERANOPIA = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])


def test_colours_are_told_apart_with_and_without_green_cones():
    rgb = np.array([matplotlib.colors.to_rgb(colour) for colour in COLOURS.values()])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    for seen in (linear, linear @ DEUTERANOPIA.T):
        apart = [np.abs(a - b).max() for a, b in itertools.combinations(seen.clip(0) ** (1 / 2.2), 2)]
        assert min(apart) > 0.15


# --- who is watching -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("modules", "environment", "live"),
    [
        (["ipykernel"], {}, False),  # papermill, nbclient, nbval
        (["ipykernel"], {"JPY_SESSION_NAME": "a.ipynb"}, True),
        (["ipykernel"], {"VSCODE_PID": "1"}, True),
        (["ipykernel", "google.colab"], {}, True),
    ],
)
def test_live_front_ends_are_known_by_their_marks(monkeypatch, modules, environment, live):
    for name in ("JPY_SESSION_NAME", "VSCODE_PID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    for name in modules:
        monkeypatch.setitem(sys.modules, name, object())
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert frontend.is_live() is live


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_is_live(monkeypatch, terminal):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    assert frontend.is_live() is terminal


@pytest.mark.parametrize("live", [True, False])
def test_progress_gives_the_same_items_and_a_bar_only_where_live(monkeypatch, capsys, live):
    monkeypatch.setattr(frontend, "is_live", lambda: live)
    assert list(frontend.progress([3, 1, 2], description="epochs")) == [3, 1, 2]
    assert ("epochs" in capsys.readouterr().err) is live


def test_a_drawing_has_its_boxes_an_arrow_for_each_pair_and_orange_for_what_is_taught():
    figure, axes = plots.panels(1, 1)
    boxes = {"x": (0.1, 0.5), "σ": (0.5, 0.5), "×": (0.9, 0.5)}
    plots.draw_flow(axes[0, 0], boxes, [("x", "σ"), ("σ", "×")], taught=("×",))
    texts = {text.get_text(): text for text in axes[0, 0].texts if text.get_text()}
    arrows = [text for text in axes[0, 0].texts if not text.get_text()]
    assert {name: text.get_position() for name, text in texts.items()} == boxes
    assert [(arrow.xyann, arrow.xy) for arrow in arrows] == [((0.1, 0.5), (0.5, 0.5)), ((0.5, 0.5), (0.9, 0.5))]
    edges = {
        name: matplotlib.colors.to_hex(text.get_bbox_patch().get_edgecolor()).upper() for name, text in texts.items()
    }
    assert edges == dict.fromkeys(("x", "σ"), plots.COLOURS["control"]) | {"×": plots.COLOURS["method"]}
