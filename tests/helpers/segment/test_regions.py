import itertools

import numpy as np
import pytest
from skimage import graph, segmentation

from helpers import segment
from helpers.segment import (
    boxes,
    closed_path,
    contour_cost,
    crf,
    graph_search,
    k_means,
    largest,
    optimal_path,
    random_walker,
    refine_by_contour,
    region_growing,
    seeds_from_map,
)

ROWS, COLS = np.indices((64, 64))
CENTRE = (30.4, 34.7)


def disc(radius: float, centre=CENTRE) -> np.ndarray:
    return np.hypot(ROWS - centre[0], COLS - centre[1]) <= radius


def dot(*points: tuple[int, int], shape=(64, 64)) -> np.ndarray:
    seeds = np.zeros(shape, bool)
    for point in points:
        seeds[point] = True
    return seeds


def noise(*shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


GROW = [region_growing, k_means, random_walker]

# --- from a dot to a region ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("grow", GROW)
def test_dots_grow_into_the_disc_and_not_into_its_twin(grow):
    """Two discs of one intensity, one of them seeded; the image is not changed and neither are the seeds."""
    image = 100.0 * (disc(12, (20, 20)) | disc(12, (44, 46))) + 4 * noise(64, 64)
    seeds = disc(4, (20, 20))
    before = image.copy(), seeds.copy()
    assert dice(grow(image, seeds), disc(12, (20, 20))) > 0.97
    assert (image == before[0]).all() and (seeds == before[1]).all()


@pytest.mark.parametrize("grow", GROW)
def test_no_seeds_give_nothing_and_outlying_seeds_are_kept(grow):
    image = 1.0 * disc(15)
    nothing = dot()
    assert not grow(image, nothing).any() and not np.shares_memory(grow(image, nothing), nothing)
    seeds = disc(5) | dot((5, 5))
    region = grow(image, seeds)
    assert region.dtype == bool and region[seeds].all()


@pytest.mark.parametrize("grow", [region_growing, k_means])
def test_regions_do_not_connect_over_corners(grow):
    image = np.array([[9.0, 9, 0], [0, 0, 9], [9, 9, 9]])
    assert grow(image, dot((0, 0), shape=(3, 3)), **({"clusters": 2} if grow is k_means else {})).tolist() == [
        [True, True, False],
        [False, False, False],
        [False, False, False],
    ]


@pytest.mark.parametrize("spread", [0.5, 1.0, 3.0])
def test_region_growing_equals_flood_fill(spread):
    """One flood per seed within the same window of intensities: mean ± spread · deviation of the seeds, fixed."""
    image = np.cumsum(noise(64, 64), axis=1).round(1)
    seeds = dot((10, 10), (10, 12), (40, 30), (41, 30))
    values = image[seeds]
    expected = seeds.copy()
    within = (image >= values.mean() - spread * values.std()) & (image <= values.mean() + spread * values.std())
    for point in zip(*np.nonzero(seeds), strict=True):
        expected |= segmentation.flood(within | seeds, point, connectivity=1)
    region = region_growing(image, seeds, spread=spread)
    assert (region == expected).all() and region.sum() > seeds.sum()


def test_region_growing_from_a_neighbour_of_an_outlying_seed():
    """The seed 9 lies outside the window 0 … 5.57 and still connects the 3 on its right."""
    image = np.array([[0.0, 0, 0, 0, 9, 3, 8]])
    seeds = np.array([[True, True, True, True, True, False, False]])
    assert region_growing(image, seeds, spread=1).tolist() == [[True] * 6 + [False]]


def test_region_growing_from_one_pixel_keeps_its_intensity():
    image = np.array([[0.1, 0.1, 0.2], [0.1, 0.2, 0.1]], np.float32)
    expected = [[True, True, False], [True, False, False]]
    assert region_growing(image, dot((0, 0), shape=(2, 3))).tolist() == expected


def test_k_means_separates_three_intensities():
    image = 40.0 * disc(25) + 60 * disc(10) + 3 * noise(64, 64)
    ring = dot(*[(30 + 17, 34), (30 - 17, 34), (30, 34)])  # most of the seeds lie in the ring
    region = k_means(image, ring, clusters=3)
    assert dice(region & ~disc(10), disc(25) & ~disc(10)) > 0.99
    assert dice(k_means(image, disc(2), clusters=2), disc(10)) < 0.9 < dice(k_means(image, disc(2)), disc(10))


def test_k_means_repeats_with_its_seed():
    """On a ramp, which has no clusters, each start ends elsewhere."""
    ramp = np.sort(noise(4096)).reshape(64, 64)
    regions = [k_means(ramp, dot((30, 30)), clusters=12, seed=seed) for seed in (1, 1, 1, 2)]
    assert (regions[0] == regions[1]).all() and (regions[0] == regions[2]).all() and (regions[0] != regions[3]).any()


def test_k_means_with_fewer_intensities_than_clusters(recwarn):
    assert k_means(np.ones((4, 5)), dot((0, 0), shape=(4, 5))).all()
    assert (k_means(1.0 * disc(9), dot((30, 34)), clusters=5) == disc(9)).all()
    assert not recwarn


def test_random_walker_bridges_a_gap_where_growing_leaks():
    """A bright disc opens over a bridge three pixels wide into a bright band below it."""
    image = 1.0 * (disc(10, (25, 32)) | ((np.abs(COLS - 32) <= 1) & (ROWS > 30)) | (ROWS > 48)) + 0.01 * noise(64, 64)
    seeds = disc(3, (25, 32))
    assert region_growing(image, seeds, spread=5)[60].all()
    assert dice(random_walker(image, seeds), disc(10, (25, 32))) > 0.9


def test_random_walker_does_not_depend_on_the_unit_of_intensity(recwarn):
    image = 1.0 * disc(12) + 0.3 * noise(64, 64)
    region = random_walker(image, disc(3))
    assert (random_walker(1000 * image - 300, disc(3)) == region).all()
    assert dice(region, random_walker(image, disc(3), beta=0.1)) < 0.9
    assert not recwarn


def test_random_walker_on_a_line():
    """Eleven pixels, one dark step: the border lies there; the given background replaces the image's border."""
    image = np.tile(np.repeat([1.0, 0.0], [7, 4]), (3, 1))
    region = random_walker(image, dot((1, 1), shape=(3, 11)), background=dot((1, 10), shape=(3, 11)))
    assert (region == (image == 1)).all()
    assert not random_walker(image, dot((1, 1), shape=(3, 11)))[0].any()


# --- the closed contour --------------------------------------------------------------------------------------------


def is_closed(path: np.ndarray, smooth: int) -> bool:
    return bool((np.abs(path - np.roll(path, 1)) <= smooth).all())


@pytest.mark.parametrize(
    ("angles", "radii", "smooth"), [(6, 5, 1), (5, 6, 2), (7, 4, 1), (3, 4, 10**9), (4, 1, 1), (1, 5, 1)]
)
def test_closed_path_equals_brute_force(angles, radii, smooth):
    """Over every closed path there is, for ten costs with a jump at the seam, so that closure has a price."""
    paths = np.array([p for p in itertools.product(range(radii), repeat=angles) if is_closed(np.array(p), smooth)])
    for seed in range(10):
        cost = noise(angles, radii, seed=seed) + np.linspace(0, 3, angles)[:, None] * np.linspace(-1, 1, radii)
        path = closed_path(cost, smooth=smooth)
        assert path.shape == (angles,) and is_closed(path, smooth)
        totals = cost[np.arange(angles), paths].sum(1)
        assert cost[np.arange(angles), path].sum() == pytest.approx(totals.min(), abs=1e-12)
        assert (path == paths[totals.argmin()]).all()


def test_closure_costs_something():
    """A spiral valley: the cheapest open path climbs it, the closed one may not."""
    cost = np.ones((8, 8)) - np.eye(8)
    path = closed_path(cost)
    assert is_closed(path, 1) and cost[np.arange(8), path].sum() == 3  # up to index 4 and down again
    assert (closed_path(cost, smooth=7) == np.arange(8)).all()


@pytest.mark.parametrize(("rows", "columns", "smooth"), [(5, 6, 1), (6, 5, 2), (4, 3, 10**12), (1, 4, 1), (5, 1, 1)])
def test_optimal_path_equals_brute_force(rows, columns, smooth):
    paths = np.array(list(itertools.product(range(rows), repeat=columns)))
    paths = paths[(np.abs(np.diff(paths, axis=1)) <= smooth).all(1)]
    for seed in range(10):
        cost = noise(rows, columns, seed=seed) + 4 * (seed % 2)  # of both signs, and positive
        path = optimal_path(cost, smooth=smooth)
        totals = cost[paths, np.arange(columns)].sum(1)
        assert (path == paths[totals.argmin()]).all()


@pytest.mark.parametrize("smooth", [1, 3])
def test_optimal_path_is_that_of_skimage(smooth):
    cost = noise(40, 60, seed=smooth) + 6  # it knows no negative costs
    found = graph.MCP(cost, offsets=[(step, 1) for step in range(-smooth, smooth + 1)])
    totals, _ = found.find_costs([(row, 0) for row in range(40)])
    expected = found.traceback((totals[:, -1].argmin(), 59))
    assert optimal_path(cost, smooth=smooth).tolist() == [row for row, _ in expected]


def test_optimal_path_finds_a_layer_in_noise():
    """A wavy bright layer, dark below it, as noisy as it is bright: its border to within a pixel."""
    border = np.round(30 + 5 * np.sin(np.arange(64) / 10)).astype(int)
    image = (border > ROWS) + 0.7 * noise(64, 64)
    rows = optimal_path(np.cumsum(0.5 - image, axis=0)[:-1], smooth=1)  # bright above, dark below: lowest at the border
    assert np.abs(rows + 1 - border).mean() < 1
    assert np.abs(np.diff(image, axis=0).argmin(0) + 1 - border).mean() > 5  # each column by itself: lost


@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_graph_search_recovers_a_noisy_disc(sigma):
    image = disc(18) + 0.5 * noise(64, 64)
    centre = (32, 32)
    mask, points = graph_search(contour_cost(image, centre, sigma=sigma), centre, radii=np.arange(1, 31))
    assert mask.dtype == bool and dice(mask, disc(18)) >= 0.95 > dice(image > 0.5, disc(18))
    radius = np.linalg.norm(points - centre, axis=1)
    assert points.shape == (90, 2) and is_closed(radius, 1 + 1e-9)


def test_graph_search_bridges_a_gap_in_the_edge():
    """A sector without any edge, where the disc fades into a bright neighbour: thresholds leak, the contour closes."""
    sector = np.abs(np.arctan2(ROWS - CENTRE[0], COLS - CENTRE[1])) < 0.35
    image = 1.0 * (disc(15) | sector) + 0.1 * noise(64, 64)
    assert dice(region_growing(image, disc(5)), disc(15)) < 0.9
    mask, _ = graph_search(contour_cost(image, CENTRE), CENTRE, radii=np.arange(1, 29))
    assert dice(mask, disc(15)) >= 0.97


def test_contour_is_where_the_cost_is_low_row_and_column_not_swapped():
    """A valley along an ellipse, upright, off the middle of an image that is not square."""
    rows, cols = np.indices((70, 50))
    level = np.hypot((rows - 40) / 20, (cols - 22) / 12)
    mask, points = graph_search(np.abs(level - 1), (40, 22), angles=180, radii=np.arange(2, 30, 0.5), smooth=2)
    assert dice(mask, level <= 1) > 0.98
    assert np.abs(np.hypot((points[:, 0] - 40) / 20, (points[:, 1] - 22) / 12) - 1).max() < 0.05


def test_default_radii_stay_within_half_the_shorter_side():
    cost = -np.hypot(*(np.indices((40, 80)) - np.array([20, 40])[:, None, None]))  # further out is always cheaper
    mask, points = graph_search(cost, (20, 40))
    radius = np.linalg.norm(points - (20, 40), axis=1)
    assert radius.max() == pytest.approx(20) and radius.min() > 19
    assert mask.sum() == pytest.approx(np.pi * 20**2, rel=0.03)


def test_contour_cost_is_the_outward_derivative():
    """A cone of slope -2 has -2 everywhere but at its tip and at the image's border; its negative has +2."""
    cone = -2 * np.hypot(ROWS - 30.0, COLS - 34.0)
    inner = (np.hypot(ROWS - 30, COLS - 34) > 8) & (np.hypot(ROWS - 30, COLS - 34) < 24)
    cost = contour_cost(cone, (30, 34))
    assert np.abs(cost[inner] + 2).max() < 0.03 and cost[30, 34] == 0
    assert contour_cost(-cone, (30, 34)) == pytest.approx(-cost)


# --- the outline of a probability map ------------------------------------------------------------------------------


def test_refine_turns_a_noisy_map_into_one_region():
    """Noise and a false islet go, holes are filled."""
    probs = np.clip(0.1 + 0.8 * disc(16) + 0.25 * noise(64, 64), 0, 1)
    probs[4:9, 4:9], probs[28:33, 33:38] = 1, 0
    rough, mask = probs > 0.5, refine_by_contour(probs)
    assert dice(mask, disc(16)) >= 0.97 > 0.95 > dice(largest(rough), disc(16))
    assert len(boxes(mask)) == 1 and mask[28:33, 33:38].all() and not mask[:12].any()


def test_refine_bridges_a_bay():
    """A slit is cut from the edge to the middle of the disc."""
    probs = 0.9 * disc(16)
    probs[28:32, 36:] = 0
    assert dice(refine_by_contour(probs), disc(16)) >= 0.97 > dice(probs > 0.5, disc(16))


@pytest.mark.parametrize("radius", [1, 2.5, 5, 12, 20])
def test_refine_keeps_a_clean_disc(radius):
    assert dice(refine_by_contour(1.0 * disc(radius)), disc(radius)) >= 0.96


def test_refine_follows_the_larger_of_two_and_its_edge_beyond_one_half():
    probs = 0.55 * disc(10, (40, 40)) + 0.45 * (disc(15, (40, 40)) & ~disc(10, (40, 40))) + 0.9 * disc(7, (12, 12))
    assert dice(refine_by_contour(probs), disc(15, (40, 40))) >= 0.97


def test_refine_at_the_border_of_the_image():
    half = disc(20, (32, 60))
    assert dice(refine_by_contour(1.0 * half), half) >= 0.97
    assert refine_by_contour(np.ones((20, 30))).mean() > 0.9  # outside the image is background


def test_refine_of_nothing_is_nothing_and_of_one_pixel_is_something():
    assert not refine_by_contour(np.full((20, 30), 0.5)).any()
    assert refine_by_contour(1.0 * dot((3, 4)))[3, 4]
    assert refine_by_contour(1.0 * disc(1, (30.37, 34.63)), sigma=0.5).any()
    assert refine_by_contour(np.ones((1, 1))).tolist() == [[True]]


# --- localisation from a heat map ----------------------------------------------------------------------------------


def test_seeds_from_map_by_hand():
    heat = np.array([[-9.0, 0.0, 2.0], [1.0, 4.0, 0.5]])
    assert seeds_from_map(heat, threshold=0.5).tolist() == [[False, False, True], [False, True, False]]
    assert seeds_from_map(heat, threshold=1).tolist() == [[False, False, False], [False, True, False]]
    assert seeds_from_map(heat, threshold=1e-9).sum() == 4  # evidence against and none at all never count


@pytest.mark.parametrize(("value", "share"), [(0.0, 0), (-3.0, 0), (2.0, 1)])
def test_constant_heat_maps(value, share):
    assert seeds_from_map(np.full((5, 6), value), threshold=0.3).mean() == share


def test_boxes_and_largest_by_hand():
    mask = np.array([[1, 0, 0, 1, 1], [0, 1, 0, 1, 1], [0, 1, 0, 0, 0]], bool)
    assert boxes(mask).tolist() == [[0, 3, 2, 5], [1, 1, 3, 2], [0, 0, 1, 1]]
    assert largest(mask).astype(int).tolist() == [[0, 0, 0, 1, 1], [0, 0, 0, 1, 1], [0, 0, 0, 0, 0]]
    assert largest(np.eye(3, dtype=bool)).tolist() == dot((0, 0), shape=(3, 3)).tolist()  # the first of equals
    assert boxes(~mask & mask).shape == (0, 4) and not largest(~mask & mask).any() and largest(mask | True).all()


# --- bad input -----------------------------------------------------------------------------------------------------

IMAGE, SEEDS, COST = np.arange(20.0).reshape(4, 5), dot((1, 1), shape=(4, 5)), np.ones((9, 9))
NAN = np.where(SEEDS, np.nan, IMAGE)


@pytest.mark.parametrize("grow", GROW)
def test_bad_seeds_are_refused(grow):
    with pytest.raises(ValueError, match=r"seeds have shape \(64, 64\); expected that of the image, \(4, 5\)"):
        grow(IMAGE, dot((1, 1)))
    with pytest.raises(ValueError, match=r"seeds: shape \(4, 5\), type uint8; expected bool"):
        grow(IMAGE, np.full((4, 5), 255, np.uint8))
    with pytest.raises(ValueError, match="image of shape .* NaN"):
        grow(NAN, SEEDS)
    with pytest.raises(ValueError, match=r"image of shape \(1, 4, 5\)"):
        grow(IMAGE[None], SEEDS[None])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: region_growing(IMAGE, SEEDS, spread=-1), "spread is -1; expected"),
        (lambda: region_growing(IMAGE, SEEDS, spread=np.nan), "spread is nan; expected"),
        (lambda: k_means(IMAGE, SEEDS, clusters=0), "n_clusters.* Got 0"),
        (lambda: random_walker(IMAGE, SEEDS, background=SEEDS), "background has 1 pixels, 1 of them seeds"),
        (lambda: random_walker(IMAGE, SEEDS, background=~SEEDS & SEEDS), "background has 0 pixels"),
        (lambda: random_walker(IMAGE, SEEDS, background=SEEDS[:2]), r"background have shape \(2, 5\)"),
        (lambda: random_walker(np.ones((4, 5)), SEEDS), "every pixel of the image is 1; expected edges"),
        (lambda: closed_path(NAN), "cost of shape .* NaN"),
        (lambda: closed_path(np.ones((4, 0))), r"cost of shape \(4, 0\)"),
        (lambda: closed_path(IMAGE, smooth=0), "smooth is 0; expected a whole number of radius steps >= 1"),
        (lambda: closed_path(IMAGE, smooth=1.5), "smooth is 1.5; expected a whole number"),
        (lambda: optimal_path(NAN), "cost of shape .* NaN"),
        (lambda: optimal_path(np.ones((0, 4))), r"cost of shape \(0, 4\)"),
        (lambda: optimal_path(IMAGE, smooth=0), "smooth is 0; expected a whole number of rows >= 1"),
        (lambda: optimal_path(IMAGE, smooth=1.5), "smooth is 1.5; expected a whole number of rows"),
        (lambda: graph_search(NAN, (1, 1)), "cost of shape .* NaN"),
        (lambda: graph_search(COST, (4, 4), smooth=0), "smooth is 0; expected"),
        (lambda: graph_search(COST, (4, 9)), r"centre is \[4.0, 9.0\]; expected \(row, col\) inside"),
        (lambda: graph_search(COST, (-1, 4)), r"centre is \[-1.0, 4.0\]; expected"),
        (lambda: graph_search(COST, (np.nan, 4)), "centre is .*; expected"),
        (lambda: graph_search(COST, (4, 4), angles=2), "angles is 2; expected at least 3"),
        (lambda: graph_search(COST, (4, 4), radii=[]), r"radii are \[\]; expected at least one"),
        (lambda: graph_search(COST, (4, 4), radii=[2, 2, 3]), "radii are .*; expected at least one, increasing"),
        (lambda: graph_search(COST, (4, 4), radii=[-1, 2]), "radii are .*; expected at least one, increasing"),
        (lambda: graph_search(COST, (4, 4), radii=[1, np.inf]), "radii are .*; expected at least one, increasing"),
        (lambda: contour_cost(NAN, (1, 1)), "image of shape .* NaN"),
        (lambda: contour_cost(IMAGE, (1, 1), sigma=0), "sigma is 0; expected"),
        (lambda: refine_by_contour(COST, sigma=0), "sigma is 0; expected"),
        (lambda: refine_by_contour(IMAGE), "probs go from 0 to 19; expected values in 0 … 1"),
        (lambda: refine_by_contour(NAN), "probs of shape .* NaN"),
        (lambda: seeds_from_map(IMAGE, threshold=0), r"threshold is 0; expected a share of the maximum in \(0, 1\]"),
        (lambda: seeds_from_map(IMAGE, threshold=1.01), "threshold is 1.01; expected"),
        (lambda: seeds_from_map(NAN, threshold=0.5), "heat of shape .* NaN"),
        (lambda: boxes(IMAGE), "mask: shape .*, type float64; expected bool"),
        (lambda: largest(SEEDS[None]), r"mask: shape \(1, 4, 5\)"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_dense_crf_is_offered_beside_the_other_ways():
    assert segment.dense_crf is crf.dense_crf


def test_random_walker_without_seeds_needs_no_edges():
    """A blank slice in which nothing was marked must not stop a whole data set."""
    assert not random_walker(np.ones((4, 5)), np.zeros((4, 5), bool)).any()
