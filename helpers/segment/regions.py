"""Classical steps of weak supervision: from a dot to a region, from a rough map to an outline, regions, and boxes.

Masks and seeds are bool (H, W); pixels are connected over their four sides; box coordinates are (row, col).
"""

import numpy as np
from scipy import ndimage
from skimage import measure, segmentation
from sklearn.cluster import KMeans


def region_growing(image: np.ndarray, seeds: np.ndarray, *, spread: float = 3.0) -> np.ndarray:
    """The connected region (H, W) of the seeds among pixels within mean ± `spread` standard deviations of the seeds.

    Both are taken over the seed pixels alone, once: a single seed (deviation 0) grows over its own intensity only. The
    seeds are always part of the region; without seeds it is empty. Source: Adams & Bischof 1994, with a fixed window.
    Raises ValueError for seeds that do not fit the image, NaN, and a negative `spread`.
    """
    image, seeds = _image_and_seeds(image, seeds)
    if not spread >= 0:
        raise ValueError(f"spread is {spread}; expected a number of standard deviations >= 0")
    if not seeds.any():
        return seeds
    within = np.abs(image - image[seeds].mean()) <= spread * image[seeds].std()
    return ndimage.binary_propagation(seeds, mask=within)


def k_means(image: np.ndarray, seeds: np.ndarray, *, clusters: int = 3, seed: int = 0) -> np.ndarray:
    """The connected region (H, W) of the seeds in the intensity cluster to which most of them belong.

    The seeds are always part of the region; without seeds it is empty. Fewer intensities than `clusters`: one each.
    Raises ValueError for seeds that do not fit the image, NaN, and fewer than one cluster.
    """
    image, seeds = _image_and_seeds(image, seeds)
    if not seeds.any():
        return seeds
    clusters = min(clusters, len(np.unique(image)))
    which = KMeans(clusters, n_init=4, random_state=seed).fit_predict(image.reshape(-1, 1)).reshape(image.shape)
    return ndimage.binary_propagation(seeds, mask=which == np.bincount(which[seeds]).argmax())


def random_walker(
    image: np.ndarray, seeds: np.ndarray, *, background: np.ndarray | None = None, beta: float = 130.0
) -> np.ndarray:
    """Pixels (H, W) from which a random walk that shuns edges reaches the seeds before the background.

    `background` (H, W) bool are its seeds, by default the image's border; the larger `beta`, the more an edge holds.
    Intensities are first scaled to -1 … 1, so that `beta` does not depend on their unit. Without seeds: empty.
    Source: Grady, IEEE TPAMI 2006. Raises ValueError for seeds and background that do not fit the image or overlap,
    no background, NaN, an image of one intensity.
    """
    image, seeds = _image_and_seeds(image, seeds)
    if background is None:
        background = ~seeds
        background[1:-1, 1:-1] = False
    _, background = _image_and_seeds(image, background, name="background")
    shared = (seeds & background).sum()
    if shared or not background.any():
        raise ValueError(f"background has {background.sum()} pixels, {shared} of them seeds; expected >= 1 and 0")
    if not seeds.any() or (seeds | background).all():
        return seeds
    if np.ptp(image) == 0:
        raise ValueError(f"every pixel of the image is {image.flat[0]:g}; expected edges for the random walk")
    image = 2 * (image - image.min()) / np.ptp(image) - 1
    # "bf" solves directly: the iterative solvers do not converge on noise with edges that hold.
    return segmentation.random_walker(image, seeds + 2 * background, beta=beta, mode="bf") == 1


def closed_path(cost: np.ndarray, *, smooth: int = 1) -> np.ndarray:
    """The cheapest closed path through a polar cost (A, R): one radius index (A,) per angle, exactly optimal.

    Neighbouring angles, the last and the first included, differ by at most `smooth` indices. Dynamic programming for
    all R start radii at once: best[s, r] is the cheapest way from start radius s to radius r at the present angle.
    Source: Sonka, Hlavac & Boyle, Image Processing, Analysis, and Machine Vision: border detection by dynamic
    programming. Raises ValueError for an empty or infinite cost, NaN, `smooth` < 1.
    """
    cost = _finite(cost, "cost")
    if int(smooth) != smooth or smooth < 1:
        raise ValueError(f"smooth is {smooth}; expected a whole number of radius steps >= 1")
    smooth, index = min(int(smooth), cost.shape[1]), np.arange(cost.shape[1])
    gap = np.abs(index[:, None] - index)  # between start and present radius
    best = [np.where(gap == 0, cost[0], np.inf)]
    for step in cost[1:]:
        reached = ndimage.minimum_filter1d(best[-1], 2 * smooth + 1, axis=1, mode="constant", cval=np.inf)
        best.append(reached + step)
    start, r = np.unravel_index(np.where(gap <= smooth, best[-1], np.inf).argmin(), gap.shape)
    path = [r]
    for before in best[-2::-1]:  # back from the last angle: the cheapest predecessor within reach
        low = max(r - smooth, 0)
        r = low + before[start, low : r + smooth + 1].argmin()
        path.append(r)
    return np.array(path[::-1])


def optimal_path(cost: np.ndarray, *, smooth: int = 1) -> np.ndarray:
    """The cheapest path from the left to the right of a cost (H, W): one row index (W,) per column, exactly optimal.

    Neighbouring columns differ by at most `smooth` rows. Dynamic programming, as in `closed_path`, which ends where it
    began. Source: Sonka, Hlavac & Boyle, Image Processing, Analysis, and Machine Vision: border detection by dynamic
    programming. Raises ValueError for an empty or infinite cost, NaN, `smooth` < 1.
    """
    cost = _finite(cost, "cost")
    if int(smooth) != smooth or smooth < 1:
        raise ValueError(f"smooth is {smooth}; expected a whole number of rows >= 1")
    smooth = min(int(smooth), len(cost))
    best = [cost[:, 0]]  # best[c][r]: the cheapest way from anywhere on the left to row r of column c
    for step in cost.T[1:]:
        best.append(ndimage.minimum_filter1d(best[-1], 2 * smooth + 1, mode="constant", cval=np.inf) + step)
    path = [int(best[-1].argmin())]
    for before in best[-2::-1]:
        low = max(path[-1] - smooth, 0)
        path.append(low + int(before[low : path[-1] + smooth + 1].argmin()))
    return np.array(path[::-1])


def graph_search(
    cost: np.ndarray, centre: tuple[float, float], *, angles: int = 90, radii: np.ndarray | None = None, smooth: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """The cheapest closed contour around `centre` (row, col): its filled mask (H, W) and its points (A, 2) (row, col).

    The cost (H, W) is resampled at `angles` directions × `radii` (pixels, increasing; by default 64 from 1 to half
    the shorter side) and its sum along the contour minimised by `closed_path`. Outside the image the border's cost
    goes on. A region is star-shaped: all of it sees the centre.
    Raises ValueError for NaN, a centre outside the image, fewer than 3 angles, radii that do not increase from >= 0.
    """
    cost = _finite(cost, "cost")
    centre = np.asarray(centre, dtype=float)
    if centre.shape != (2,) or not ((centre >= 0) & (centre <= np.subtract(cost.shape, 1))).all():
        raise ValueError(f"centre is {centre.tolist()}; expected (row, col) inside an image of shape {cost.shape}")
    if angles < 3:
        raise ValueError(f"angles is {angles}; expected at least 3")
    radii = np.linspace(1, max(min(cost.shape) / 2, 2), 64) if radii is None else np.asarray(radii, dtype=float)
    if radii.ndim != 1 or not radii.size or not (np.diff(radii, prepend=-1e-9) > 0).all() or np.isinf(radii).any():
        raise ValueError(f"radii are {radii.tolist()}; expected at least one, increasing, from 0 pixels on")
    theta = np.linspace(0, 2 * np.pi, angles, endpoint=False)
    direction = np.stack([np.sin(theta), np.cos(theta)])  # (2, A): rows go down, columns to the right
    points = centre[:, None, None] + direction[:, :, None] * radii
    # Cubic: linear interpolation has its extremes at pixel centres and would pull the contour there.
    polar = ndimage.map_coordinates(cost, points, order=3, mode="nearest")  # (A, R)
    contour = radii[closed_path(polar, smooth=smooth)]
    down, right = np.indices(cost.shape) - centre[:, None, None]
    mask = np.hypot(down, right) <= np.interp(np.arctan2(down, right), theta, contour, period=2 * np.pi)
    return mask, (centre[:, None] + direction * contour).T


def contour_cost(image: np.ndarray, centre: tuple[float, float], *, sigma: float = 1.0) -> np.ndarray:
    """How much an image (H, W) brightens away from `centre`, per pixel: lowest where bright inside meets dark outside.

    The derivative, along the ray from the centre (row, col), of the image smoothed by a Gaussian of `sigma` pixels;
    give the negative image for a dark structure. Raises ValueError for NaN and a `sigma` that is not positive.
    """
    image = _finite(image, "image")
    if not sigma > 0:
        raise ValueError(f"sigma is {sigma}; expected a number of pixels > 0")
    down, right = np.indices(image.shape) - np.reshape(centre, (2, 1, 1))
    rows, cols = (ndimage.gaussian_filter(image, sigma, order=order, mode="nearest") for order in ((1, 0), (0, 1)))
    return (rows * down + cols * right) / np.maximum(np.hypot(down, right), 1e-9)


def refine_by_contour(probs: np.ndarray, *, sigma: float = 1.0, angles: int = 90, smooth: int = 1) -> np.ndarray:
    """A probability map (H, W) as one region (H, W) with one closed outline, by `graph_search` on its `contour_cost`.

    The centre is the centroid of the largest component above 0.5; radii, a pixel apart or less, go to 1.5 × that
    component's reach and 2 pixels more. Outside the image is background. Empty stays empty.
    Raises ValueError for NaN and values outside 0 … 1.
    """
    probs = _finite(probs, "probs")
    if probs.min() < 0 or probs.max() > 1:
        raise ValueError(f"probs go from {probs.min():g} to {probs.max():g}; expected values in 0 … 1")
    if probs.max() <= 0.5:
        return np.zeros(probs.shape, dtype=bool)
    pad = int(3 * abs(sigma)) + 1
    probs = np.pad(probs, pad)
    points = np.argwhere(largest(probs > 0.5))
    centre = points.mean(0)
    reach = 1.5 * np.linalg.norm(points - centre, axis=1).max() + 2
    radii = np.linspace(0.75, reach, max(32, int(np.ceil(reach))))  # from 0.75: one pixel at least stays inside
    cost = contour_cost(probs, centre, sigma=sigma)
    return graph_search(cost, centre, angles=angles, radii=radii, smooth=smooth)[0][pad:-pad, pad:-pad]


def seeds_from_map(heat: np.ndarray, *, threshold: float) -> np.ndarray:
    """Where a heat map (H, W) reaches `threshold`, in (0, 1], of its maximum; evidence against (≤ 0) never counts.

    A map without a positive value gives no seeds, a constant positive one the whole image.
    Raises ValueError for NaN and a threshold outside (0, 1].
    """
    heat = _finite(heat, "heat")
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is {threshold}; expected a share of the maximum in (0, 1]")
    return (heat > 0) & (heat >= threshold * heat.max())


def boxes(mask: np.ndarray) -> np.ndarray:
    """Bounding boxes (B, 4) of a mask's connected regions, largest region first: row0, col0, row1, col1 (exclusive)."""
    regions = measure.regionprops(measure.label(_bool(mask, "mask"), connectivity=1))
    regions.sort(key=lambda region: -region.area)
    return np.array([region.bbox for region in regions], dtype=int).reshape(-1, 4)


def largest(mask: np.ndarray) -> np.ndarray:
    """The largest connected region (H, W) of a mask, the first of equals from the top; empty stays empty."""
    regions = measure.label(_bool(mask, "mask"), connectivity=1)
    return regions == np.bincount(regions[regions > 0]).argmax() if regions.any() else regions > 0


def _image_and_seeds(image: np.ndarray, seeds: np.ndarray, *, name: str = "seeds") -> tuple[np.ndarray, np.ndarray]:
    image, seeds = _finite(image, "image"), _bool(seeds, name)
    if image.shape != seeds.shape:
        raise ValueError(f"{name} have shape {seeds.shape}; expected that of the image, {image.shape}")
    return image, seeds


def _finite(values: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise ValueError(f"{name} of shape {values.shape}: expected (H, W) numbers, none of them NaN or infinite")
    return values


def _bool(mask: np.ndarray, name: str) -> np.ndarray:
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype != bool:  # an integer label map would count 255, unlabelled, as foreground
        raise ValueError(f"{name}: shape {mask.shape}, type {mask.dtype}; expected bool (H, W)")
    return mask.copy()
