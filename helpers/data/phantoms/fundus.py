"""Phantom photographs of the fundus of the eye: disc and cup, fovea, branching vessels, lesions of retinopathy."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from helpers.data.image_set import ImageSet
from helpers.data.phantoms.common import patients_of, quantise

VIEWS = {"retina": 13.2, "disc": 3.0}  # mm: side of the picture; 45 degrees of 0.29 mm each
RADIUS = 0.49 * VIEWS["retina"]  # mm: of the round field
TARGETS = {
    "disc": ("background", "disc rim", "cup"),
    "vessels": ("background", "vessel"),
    "lesions": ("background", "dark lesion", "bright lesion"),
}
# gains of red, green and blue, gamma, blur in 128ths of the picture, veil of stray light, vignette, unevenness of the
# flash, height of the field as a share of its width, noise
SCANNERS = {
    "zeiss": ((1.07, 1.20, 1.15), 1.2, 0.5, 0.00, 0.35, 0.1, 1.00, 0.012),
    "drishti": ((0.92, 0.61, 0.25), 0.78, 1.0, 0.12, 0.10, 0.3, 0.94, 0.016),
}
LOWEST = min(camera[6] for camera in SCANNERS.values())
WHITE, EXUDATE, LENS = np.array([[0.98, 0.78, 0.50], [1.00, 0.88, 0.42], [0.10, 0.45, 1.00]])
# in red, green, blue: reflectance (twice), optical density of a lens, of melanin, two kinds of blood, macular pigment
ABSORPTION = np.array([[0.92, 0.90, 1.05], [0.16, 1.00, 0.90], [0.30, 1.05, 0.90], [0.00, 0.15, 0.60]])
STEP, THINNEST, CLEAR = 0.16, 0.035, 0.45  # mm: step along a vessel, thinnest that is drawn, zone of the fovea without
ANGLES = np.linspace(-np.pi, np.pi, 181)
COURSES = np.array([[1.7, 0.0, 2.2], [1.8, 2.5, 1.3], [0.6, 0.1, 1.2], [2.4, 2.7, 1.2]])  # as named in _tree


def _patient(rng, glaucoma) -> dict:
    """Anatomy that both eyes of a patient share; height of the disc in mm as in Quigley et al. 1990."""
    return {
        "height": np.clip(rng.normal(1.88, 0.13), 1.55, 2.2),
        "ratio": rng.uniform(*((0.64, 0.82) if glaucoma else (0.39, 0.56))),  # vertical, of cup to disc
        "notch": glaucoma * rng.uniform(0.1, 0.35),
        "melanin": rng.uniform(0.30, 0.75),
        "choroid": rng.uniform(0.30, 0.65),
        "tigroid": rng.uniform(0.0, 1.0),
        "tortuosity": rng.uniform(0.4, 1.3),
        "vein": rng.uniform(0.145, 0.175),
        "artery": rng.uniform(0.70, 0.85),  # width as a share of the vein's
    }


def _walk(rng, start, heading, final, bend, widths, fovea, tortuosity):
    """Points (V, K, 2), headings (V, K) and widths of vessels that turn to a final heading and end at the fovea."""
    arc = np.arange(widths.shape[1]) * STEP
    length, phase, height = rng.uniform((1.0, 0, 0), (3.5, 2 * np.pi, 0.28), (2, len(start), 3)).transpose(2, 0, 1)
    waves = (height[..., None] * np.sin(2 * np.pi * arc / length[..., None] + phase[..., None])).sum(0)
    heading = final[:, None] + (heading - final)[:, None] * np.exp(-arc / bend[:, None]) + tortuosity * waves
    moves = STEP * np.stack([np.cos(heading), np.sin(heading)], -1)
    points = start[:, None] + np.cumsum(moves, 1) - moves[:, :1]
    return points, heading, widths * np.cumprod(np.linalg.norm(points - fovea, axis=-1) > CLEAR, axis=1)


def _branches(rng, points, headings, widths, count, steps, fovea, tortuosity):
    """Side branches of vessels, `count` each; parents narrow in place by Murray's law: cubes of widths add up."""
    (vessels, length), every = widths.shape, np.arange(len(widths))[:, None]
    at = (((np.arange(count) + 0.6 * rng.random((vessels, count))) / count * 0.9 + 0.05) * length).astype(int)
    share = rng.uniform(0.42, 0.72, at.shape)  # width of the branch in that of its parent
    rest = np.cbrt(1 - share**3)
    widths *= np.where(np.arange(length) >= at[..., None], rest[..., None], 1).prod(1)
    start, along = points[every, at].reshape(-1, 2), headings[every, at].ravel()
    side, (turn, away, bend, end) = rng.choice((-1.0, 1.0), at.size), rng.random((4, at.size))
    inward = np.angle((fovea - start) @ (1, 1j) * np.exp(-1j * along))  # from the parent's heading to the fovea
    heading = along + side * (0.6 + 0.5 * turn)
    final = along + np.where(side * inward > 0, 0.5 * (heading - along + inward), side * (0.1 + 0.5 * away))
    widths = (share / rest * widths[every, at]).reshape(-1, 1) * (np.arange(steps) < (0.4 + 0.6 * end[:, None]) * steps)
    return _walk(rng, start, heading, final, 0.6 + bend, widths, fovea, tortuosity)


def _tree(rng, patient, fovea, hilum):
    """Three generations of vessels: a list of (points in mm, widths in mm, vein or not)."""
    kind, up, vein = np.indices((4, 2, 2)).reshape(3, -1)  # arcades to the temple and to the nose, twigs to both
    up, vein, jitter = 2.0 * up - 1, vein == 1, rng.normal(0, 1, (4, 16))  # rows count downwards: -1 is superior
    heading, final, bend = COURSES[kind].T
    split = rng.uniform(0.80, 0.88, 4)  # the trunks have branched once: into arcades to the temple and to the nose
    trunk = np.concatenate([split, np.cbrt(1 - split**3), rng.uniform(0.3, 0.45, 8)])
    width = patient["vein"] * np.where(vein, 1, patient["artery"]) * trunk
    widths = width[:, None] * (np.arange(72) < np.where(kind < 2, 72, 30)[:, None])
    start = hilum + np.stack([0.05 * jitter[3], up * rng.uniform(0.02, np.where(kind < 2, 0.1, 0.5))], -1)
    heading, final = up * (heading + np.where(kind < 2, 0.14, 0.35) * jitter[0]), up * (final + 0.15 * jitter[1])
    common = fovea, patient["tortuosity"]
    vessels = _walk(rng, start, heading, final, bend * np.exp(0.1 * jitter[2]), widths, *common)
    tree = [(vessels[0], vessels[2], vein)]
    for count, steps in ((7, 30), (3, 14)):
        vessels, vein = _branches(rng, *vessels, count, steps, *common), np.repeat(vein, count)
        tree.append((vessels[0], vessels[2], vein))
    return tree


def _eye(rng, patient) -> dict:
    """Anatomy of one eye, the same in all its photographs: x in mm from the disc to the temple, y downwards."""
    half = patient["height"] / 2 * np.array([rng.uniform(0.87, 0.99), 1.0])
    ratio = patient["ratio"] + rng.uniform(-0.03, 0.03)
    wide = min(rng.uniform(0.98, 1.15), 0.86 / ratio)  # cups are wider than high
    waves = np.cos(np.outer((2, 3), ANGLES) + rng.uniform(0, 2 * np.pi, (2, 2, 1)))
    disc = (1 + (0.015, 0.012) @ waves[0]) / np.hypot(np.cos(ANGLES) / half[0], np.sin(ANGLES) / half[1])
    cup = (1 + (0.04, 0.03) @ waves[1]) / np.hypot(np.cos(ANGLES) / (half[0] * wide), np.sin(ANGLES) / half[1])
    where = rng.choice((-1, 1)) * rng.uniform(0.9, 1.3)  # the rim is thinned above or below, to the temple
    cup *= 1 + patient["notch"] * np.exp((np.cos(ANGLES - where) - 1) / 0.1)
    cup *= ratio * np.ptp(disc * np.sin(ANGLES)) / np.ptp(cup * np.sin(ANGLES))
    centre = (1 - ratio) * half * rng.uniform((0.0, -0.2), (0.3, 0.2))
    fovea = np.array([2.5 * patient["height"] * rng.uniform(0.94, 1.06), rng.uniform(0.2, 0.9)])
    tree = _tree(rng, patient, fovea, centre + cup.mean() * rng.uniform((-0.6, -0.1), (-0.3, 0.1)))
    for points, _, _ in tree:  # vessels lean on the nasal wall of the cup, and bend at its edge
        points[..., 0] -= 0.28 * cup.mean() / (1 + (np.linalg.norm(points - centre, axis=-1) / cup.mean()) ** 8)
    crescent, slope = max(0.0, rng.uniform(-0.4, 0.35)), rng.uniform(0.06, 0.2)  # mm: beside the disc; wall of the cup
    anatomy = dict(disc=disc, cup=cup, centre=centre, fovea=fovea, tree=tree, crescent=crescent, slope=slope)
    return patient | anatomy | {"noise": rng.standard_normal((2, 96, 96))}


def _texture(noise, y, x, step):
    """Smooth random field of unit variance from a lattice of normal numbers, `step` mm apart and centred at 0."""
    lattice = (np.arange(len(noise)) - len(noise) / 2) * step
    rows, columns = (np.exp(-(((axis[:, None] - lattice) / step) ** 2)) for axis in (y, x))
    return rows @ noise @ columns.T / np.outer(np.linalg.norm(rows, axis=1), np.linalg.norm(columns, axis=1))


def _pixels(points, x, y):
    """Row and column of points in mm, in pixels from the upper left corner of a picture."""
    return (points - (x[0], y[0]))[..., ::-1] / (x[1] - x[0]) + 0.5


def _stamps(centres, reach, margin, size):
    """Pixels around centres (S, 2; row, column): flat indices (S, P) in a canvas with a margin, and offsets (S, P)."""
    corner, row = np.floor(centres), size + 2 * margin
    window = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, 1, -1)
    rows, columns = window + (corner - centres + 0.5).T[..., None]
    return ((corner + margin) @ (row, 1)).astype(int)[:, None] + window[0] * row + window[1], rows, columns


def _draw_vessels(tree, x, y):
    """Blood (size, size) of arteries and of veins, and the mask of all vessels: each step is a capsule."""
    size, pixel = len(x), x[1] - x[0]
    margin = int((tree[0][1].max() + 2 * STEP) / pixel) + 4  # twice the largest reach
    canvas = np.zeros((4, size + 2 * margin, size + 2 * margin))  # arteries, veins, light reflex of arteries, mask
    blood, reflex, mask = canvas[:2].reshape(-1), canvas[2].reshape(-1), canvas[3].reshape(-1)
    for points, widths, vein in tree:
        ends = _pixels(points, x, y)
        centres, moves = (ends[:, 1:] + ends[:, :-1]) / 2, ends[:, 1:] - ends[:, :-1]
        length = np.linalg.norm(moves, axis=-1)
        reach = int((widths.max() / pixel + length.max()) / 2 + 1)
        drawn = (widths[:, 1:] > THINNEST) & (np.abs(centres - size / 2) < size / 2 + reach - 1).all(-1)
        width, vein = widths[:, 1:][drawn] / pixel, np.broadcast_to(vein[:, None], drawn.shape)[drawn]
        index, rows, columns = _stamps(centres[drawn], reach, margin, size)
        length, (down, right) = length[drawn][:, None], (moves[drawn] / length[drawn][:, None]).T[..., None]
        beyond = (np.abs(rows * down + columns * right) - length / 2).clip(0)
        distance = np.hypot(rows * right - columns * down, beyond)
        step, near = np.nonzero(distance < width[:, None] / 2 + 0.5)
        index, distance, width, vein = index[step, near], distance[step, near], width[step], vein[step]
        cover = (width / 2 + 0.5 - distance).clip(0, 1) * np.minimum(1, 4 * width / (1 + width) ** 2)
        depth = np.sqrt((1 - (2 * distance / width) ** 2).clip(0)) * 0.45 + 0.55
        amount = cover * depth * (width * pixel / 0.15) ** 0.35
        np.maximum.at(blood, index + vein * len(mask), amount)
        mask[index[distance < np.maximum(width, 1) / 2]] = 1
        wide = (width > 2) & ~vein
        shine = np.exp(-((distance[wide] / (0.16 * width[wide])) ** 2)) * (width[wide] / 2 - 1).clip(0, 1)
        np.maximum.at(reflex, index[wide], shine)
    arteries, veins, reflex, mask = canvas[:, margin:-margin, margin:-margin]
    return arteries * (1 - 0.45 * reflex), veins, mask


def _draw_lesions(rng, fovea, difficulty, x, y):
    """Cover (size, size) of blood (dots and blots) and of exudates (in clusters), and the mask of both."""
    size, pixel, dark, clusters = len(x), x[1] - x[0], rng.integers(10, 22), rng.integers(2, 5)
    far, angle = rng.uniform(((0.6,), (0,)), ((4.6,), (2 * np.pi,)), (2, dark + clusters))
    places = fovea + np.stack([far * np.cos(angle), far * np.sin(angle)], -1)
    exudates = (places[dark:, None] + rng.normal(0, 0.35, (clusters, 7, 2))).reshape(-1, 2)
    places, bright = np.concatenate([places[:dark], exudates]), np.arange(dark + len(exudates))[:, None] >= dark
    low, high = np.where(bright, (0.05, 0.15), np.where(rng.random(bright.shape) < 0.5, (0.05, 0.09), (0.12, 0.28))).T
    radii = rng.uniform(low, high)[:, None] * (1 - 0.45 * difficulty) / pixel
    two, three = rng.uniform(0, 2 * np.pi, (2, len(radii), 1))
    centres, reach = _pixels(places, x, y), int(np.ceil(0.42 / pixel + 1))
    drawn = (np.abs(centres - size / 2) < size / 2 + reach).all(1) & (np.linalg.norm(places, axis=1) > 1.5)  # no disc
    index, rows, columns = _stamps(centres[drawn], reach, 2 * reach, size)
    angle, bright = np.arctan2(rows, columns), bright[drawn]
    edge = radii[drawn] * (1 + 0.25 * np.cos(2 * angle + two[drawn]) + 0.18 * np.cos(3 * angle + three[drawn]))
    inside = edge.clip(0.5) + 0.5 - np.hypot(rows, columns)
    canvas = np.zeros((3, size + 4 * reach, size + 4 * reach))  # dark, bright, mask
    np.maximum.at(canvas.reshape(-1), index + bright * canvas[0].size, inside.clip(0, 1))
    np.maximum.at(canvas[2].reshape(-1), index, (inside > 0.5) * (1 + bright))
    return canvas[:, 2 * reach : -2 * reach, 2 * reach : -2 * reach]


def _outline(x, y, centre, radii):
    """Distance (mm, along the radius) inside an outline of radii by angle; far from it only below 0."""
    level = np.full((len(y), len(x)), -9.0)
    rows, columns = (np.flatnonzero(np.abs(axis) < 1.8) for axis in (y, x))
    dy, dx = y[rows, None] - centre[1], x[None, columns] - centre[0]
    level[np.ix_(rows, columns)] = np.interp(np.arctan2(dy, dx), ANGLES, radii) - np.hypot(dy, dx)
    return level


def _reflectance(rng, eye, ill, difficulty, x, y):
    """Reflectance (3, size, size) of a fundus, and its masks by target: light passes absorbers before white tissue."""
    pixel, visible, sharp = x[1] - x[0], 1 - 0.4 * difficulty, 1 - 0.6 * difficulty
    arteries, veins, vessels = _draw_vessels(eye["tree"], x, y)
    dark, bright, lesions = _draw_lesions(rng, eye["fovea"], difficulty, x, y) if ill else np.zeros((3, len(y), len(x)))
    disc = _outline(x, y, (0, 0), eye["disc"])
    cup = np.minimum(_outline(x, y, eye["centre"], eye["cup"]), disc - 0.05)  # some rim is left
    tissue = (disc / max(pixel, 0.06) + 0.5).clip(0, 1)
    pallor = sharp * (cup / max(pixel, eye["slope"] * (1 + 2 * difficulty)) + 0.5).clip(0, 1)
    coarse, fine = _texture(eye["noise"][0], y, x, 0.5), _texture(eye["noise"][1], y, x, len(x) * pixel / 44)
    network = eye["tigroid"] * (np.exp(-((coarse / 0.7) ** 2)) + 0.3 * fine)  # ridges: the vessels of the choroid
    temporal = x / np.hypot(x, y[:, None])
    crescent = ((disc + eye["crescent"] * temporal.clip(0) ** 2) / 0.08 + 0.5).clip(0, 1) - tissue
    off = np.hypot(x - eye["fovea"][0], y[:, None] - eye["fovea"][1])
    melanin = eye["melanin"] * (1.2 + 0.07 * fine + 0.06 * coarse - 0.3 * network) + 0.35 * np.exp(-((off / 1.1) ** 2))
    capillaries = 0.42 - 0.06 * temporal + 0.025 * fine - 0.3 * pallor - 0.1 * (1 - difficulty) * (cup / 0.5).clip(0, 1)
    absorbers = [
        (melanin + 0.12 * crescent) * (1 - tissue) + 0.18 * (tissue - pallor),
        eye["choroid"] * (1 + 0.3 * network) * (1 - 0.4 * crescent) * (1 - tissue)
        + capillaries * tissue
        + 0.75 * visible * arteries,
        1.2 * visible * veins * (1 - 0.5 * arteries) + sharp * dark,  # arteries cross over veins
        0.8 * np.exp(-((off / 0.75) ** 2)),
    ]
    light = WHITE[:, None, None] * np.exp(-np.tensordot(ABSORPTION, np.stack(absorbers), (0, 0)))
    light += 0.85 * sharp * bright * (EXUDATE[:, None, None] - light)
    return light, {"disc": (disc > 0) * (1 + (cup > 0)), "vessels": vessels, "lesions": lesions}


def _photograph(rng, light, x, y, camera):
    """uint8 picture of a reflectance; x and y from -1 to 1 over the field: flash, lens, sensor, gamma."""
    gains, gamma, blur, veil, vignette, uneven, height, noise = camera
    y, turn, blur = y[:, None], rng.uniform(0, 2 * np.pi), blur * rng.uniform(0.8, 1.3) * len(x) / 128
    flash = 1 - vignette * np.hypot(x, y) ** 2 + uneven * (np.cos(turn) * x + np.sin(turn) * y)
    light = ndimage.gaussian_filter(light * flash * np.exp(rng.normal(0, 0.10)), (0, blur, blur))
    light += veil * (light.mean((1, 2), keepdims=True) - light)
    signal = (light.T * gains * np.exp(-rng.normal(0, 0.15) * LENS)).T * ((np.hypot(x, y) < 1) & (np.abs(y) < height))
    signal += noise * np.sqrt(0.1 + signal.clip(0)) * rng.standard_normal(signal.shape)
    return quantise(255 * signal.clip(0) ** gamma)


def fundus(
    *,
    images: int = 200,
    patients: int | None = None,
    size: int = 128,
    difficulty: float = 0.0,
    scanner: str | tuple[str, ...] = "zeiss",
    seed: int = 0,
    view: str = "retina",
    target: str = "disc",
) -> ImageSet:
    """Phantom fundus photographs (RGB) of both eyes in turn, every second patient with glaucoma, after REFUGE.

    view: "retina" (45 degrees) or "disc" (3 mm). target: what masks and labels hold; "disc" and "vessels": normal or
    glaucoma (vertical cup-to-disc ratio above 0.6), "lesions": healthy or retinopathy, which is independent of it. All
    targets show the same pictures. Vessels do not interrupt the disc, and masks end where some camera sees nothing.
    difficulty: 0 (plain to see) to 1 (faint cup, vessels and lesions, small lesions). scanner: "zeiss", or "drishti"
    with other colours, more blur and noise, and a field cut above and below.

    Raises ValueError as `patients_of`, for an unknown view or target, and for lesions in the view of the disc.
    """
    for name, value, known in (("view", view, VIEWS), ("target", target, TARGETS)):
        if value not in known:
            raise ValueError(f"{name} is {value!r}; expected one of {', '.join(known)}")
    if (view, target) == ("disc", "lesions"):
        raise ValueError("target is 'lesions' with view 'disc'; expected view 'retina': there are none beside the disc")
    asked = dict(images=images, patients=patients, size=size, difficulty=difficulty, scanner=scanner)
    patient_of, scanner_of = patients_of(**asked, scanners=tuple(SCANNERS), turn=4)
    glaucoma, retinopathy = patient_of % 2, (patient_of + patient_of // 2) % 2
    count, grid, eyes = patient_of.max() + 1, ((np.arange(size) + 0.5) / size - 0.5) * VIEWS[view], {}
    pixels, masks = np.empty((images, 3, size, size), np.uint8), np.empty((images, size, size), np.uint8)
    for i, p in enumerate(patient_of):
        patient = _patient(np.random.default_rng([seed, 0, p]), glaucoma[i])
        left = (p // 4 + i // count) % 2
        if (p, left) not in eyes:
            eyes[p, left] = _eye(np.random.default_rng([seed, 0, p, 1 + left]), patient)
        rng = np.random.default_rng([seed, 1, i])
        gaze, shift = rng.uniform((2.4, -0.6), (5.2, 0.8)), rng.uniform(-0.12, 0.12, 2)
        x, y = grid + (gaze if view == "retina" else shift)[:, None]
        light, truths = _reflectance(rng, eyes[p, left], retinopathy[i], difficulty, x, y)
        x, y = (x - gaze[0]) / RADIUS, (y - gaze[1]) / RADIUS
        flip = np.s_[..., :: 2 * left - 1]  # the temple is on the right in a picture of a left eye
        pixels[i] = _photograph(np.random.default_rng([seed, 2, i]), light, x, y, SCANNERS[scanner_of[i]])[flip]
        masks[i] = (truths[target] * (np.hypot(x, y[:, None]) < 1) * (np.abs(y[:, None]) < LOWEST))[flip]
    retina = target == "lesions"
    return ImageSet(
        name=f"phantom-fundus-{size}",
        modality="fundus",
        images=pixels,
        value_range=(0, 255),
        labels=retinopathy if retina else glaucoma,
        masks=masks,
        patients=patient_of,
        scanners=scanner_of,
        spacing=(VIEWS[view] / size, VIEWS[view] / size),
        class_names=("healthy", "retinopathy") if retina else ("normal", "glaucoma"),
        mask_names=TARGETS[target],
        licence="Apache-2.0 (generated)",
        citation="Generated here; the task follows REFUGE, Orlando et al. 2020, Medical Image Analysis 59, 101570",
        steps=("generated",),
    )
