"""Phantom H&E histology: nests of tumour, stroma and inflammation, each nucleus known, from two laboratories.

Lengths are in µm, amounts of stain in natural optical density (Beer–Lambert).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import ndimage, sparse
from scipy.spatial import cKDTree
from skimage.segmentation import relabel_sequential

from helpers.data.image_set import ImageSet
from helpers.data.phantoms.common import patients_of, quantise

FIELD = 128.0  # µm: side of the square field, as 256 pixels of a 20x objective
CONNECTIVE, INFLAMMATORY, NEOPLASTIC = 1, 2, 3
NUCLEI = {  # of each type, after an entry for the background
    "length": np.array((0, 6.4, 3.5, 7.2)),  # half the long axis, µm
    "spread": np.array((0, 0.25, 0.10, 0.17)),  # of the logarithm of the length
    "ratio": np.array((0, 0.30, 0.88, 0.72)),  # short by long axis
    "room": np.array((0, 1.15, 1.05, 0.95)),  # radius that is kept free of others: below 1 they may overlap
    "uneven": np.array((0, 0.06, 0.04, 0.07)),  # outline
    "density": np.array((0, 1.7, 2.6, 1.05)),  # haematoxylin
    "clumps": np.array((0, 0.22, 0.22, 0.42)),  # of chromatin, as a share of the density
    "rim": np.array((0, 0.25, 0.0, 0.75)),  # darker nuclear membrane, likewise
    "nucleoli": np.array((0, 0.0, 0.0, 1.5)),  # haematoxylin
}
# Stain vectors (haematoxylin, eosin; optical density of red, green, blue), strength of each stain, white point, blur in
# µm, photons a pixel. The haematoxylin of "purple" is Ruifrok & Johnston's; "pink" is pale, warm and out of focus.
SCANNERS = {
    "purple": (((0.65, 0.70, 0.29), (0.20, 0.92, 0.32)), (1.05, 1.0), (248, 246, 248), 0.42, 6e3),
    "pink": (((0.62, 0.71, 0.34), (0.11, 0.88, 0.46)), (0.72, 1.05), (251, 244, 236), 0.75, 2.5e3),
}


@lru_cache(maxsize=32)
def _splines(size: int, scale: float) -> sparse.csr_array:
    """Cubic B-splines (size, knots) on knots `scale` µm apart, each row of unit norm."""
    knots, at = np.arange(-1, np.ceil(FIELD / scale) + 2), (np.arange(size) + 0.5) / size * FIELD / scale
    away = np.abs(at[:, None] - knots)
    basis = np.where(away < 1, 4 - 6 * away**2 + 3 * away**3, (2 - away).clip(0) ** 3)
    return sparse.csr_array(basis / np.linalg.norm(basis, axis=1, keepdims=True))


def _noise(rng, size, scale) -> np.ndarray:
    """Gaussian field (size, size) of unit variance that varies over `scale` µm, the same at every size."""
    basis = _splines(size, scale)
    return basis @ rng.standard_normal((basis.shape[1],) * 2) @ basis.T


def _step(value, width) -> np.ndarray:
    """A soft threshold at zero: 0 below, 1 above, linear over `width`."""
    return (value / width + 0.5).clip(0, 1)


def _slide(rng) -> dict:
    """What all images of a slide share: architecture, and how thick and how strongly stained the section is."""
    return {
        "share": rng.uniform(0.2, 0.6),  # of the images, with tumour
        "angle": rng.uniform(0, np.pi),
        "lumen": rng.choice((0.65, 1.5)),  # glands with a lumen or solid nests
        "inflamed": rng.uniform(-0.9, 0.9),
        "loose": rng.uniform(1.0, 1.9),
        "fat": rng.exponential(0.6),
        "cytoplasm": rng.uniform((0.08, 0.22), (0.4, 0.5)),  # haematoxylin and eosin, of tumour cells
        "grade": rng.uniform(0.9, 1.12),  # size of tumour nuclei
        "stain": rng.lognormal(0, 0.1, (2, 1, 1)),
    }


def _fibres(rng, angle, size):
    """Distance across the wavy collagen bundles (size, size) in µm, and their texture of variance about 1."""
    pixel = (np.arange(size) + 0.5) / size * FIELD
    angle = angle + rng.normal(0, 0.3)
    across = np.cos(angle) * pixel[:, None] - np.sin(angle) * pixel
    across += 7 * _noise(rng, size, 30) + 1.2 * _noise(rng, size, 9)
    along = np.sin(angle) * pixel[:, None] + np.cos(angle) * pixel + 3 * _noise(rng, size, 12)
    texture = np.zeros((size, size))
    for width, length in ((5.0, 45.0), (1.4, 16.0)):
        grid, at = rng.standard_normal((256, 32)), (across / width, along / length)
        texture += 1.05 * ndimage.map_coordinates(grid, at, order=1, mode="grid-wrap")
    return across, texture


def _tissue(rng, slide, tumour, distinct, size) -> dict:
    """Fields (size, size) of one image before its nuclei: stains, holes, inflammation, fibres and depth in a nest."""
    across, texture = _fibres(rng, slide["angle"], size)
    grain, soft, bump = (_noise(rng, size, scale) for scale in (2.6, 9, 20))
    inflamed = slide["inflamed"] + _noise(rng, size, 35)
    depth = _noise(rng, size, 26)
    depth -= np.quantile(depth, 1 - rng.uniform(0.15, 0.7) * (0.35 + 0.65 * distinct))
    depth = depth if tumour else np.full_like(depth, -1.0)
    nest, loose = _step(depth, 0.1), _step(inflamed - 0.3, 0.6)
    ground, collagen = rng.uniform((0.05, 0.4), (0.5, 0.85))  # myxoid to fibrous stroma
    eosin = collagen * np.exp(0.4 * texture + 0.15 * soft)
    strands = np.exp(-(((grain + 0.4 * texture) / 0.6) ** 2)) * _step(soft + 0.5, 3)
    eosin += 0.9 * loose * (0.05 + 0.55 * strands - eosin)
    blue, red = slide["cytoplasm"]
    eosin += distinct * nest * (red + 0.1 * soft + 0.1 * grain - eosin)
    haematoxylin = ground * (1 + 0.3 * soft) + 0.05 * grain + loose * (0.4 * strands - 0.1)
    haematoxylin += distinct * nest * (blue + 0.1 * soft + 0.08 * grain - haematoxylin)
    holes = _step(0.3 * soft + 0.25 * grain - texture - slide["loose"], 0.8)
    holes = np.maximum(holes, _step(3 * bump - across % 61, 1.5)) * (1 - nest)
    pixel = (np.arange(size) + 0.5) / size * FIELD
    for _ in range(rng.poisson(slide["fat"])):
        row, column, radius, flat = *rng.uniform(0, FIELD, 2), *rng.uniform((8, 0.6), (22, 1.4))
        away = np.hypot((pixel[:, None] - row) * flat, (pixel - column) / flat)
        holes = np.maximum(holes, _step(radius + 3 * bump - away, 2) * (1 - nest))
    cleft = _step(0.12 * bump - np.abs(depth), 0.15)
    lumen = _step(depth - slide["lumen"] * depth.max() * rng.uniform(0.7, 1), 0.1) * nest
    holes = np.maximum(holes, np.maximum(cleft, lumen))
    stains = np.stack([haematoxylin, eosin]).clip(0.03) * (1 - 0.96 * holes)
    return {"stains": stains, "holes": holes, "inflamed": inflamed, "across": across, "depth": depth}


def _scatter(rng, tissue, slide, distinct):
    """Nuclei that hardly overlap: types (K,), centres (K, 2) and half axes (K, 2) in µm, and angles (K,)."""
    tries, size = 320, len(tissue["depth"])
    centre, chance, normal = rng.uniform(-6, FIELD + 6, (tries, 2)), rng.random((2, tries)), rng.normal(size=(3, tries))
    if (tissue["depth"] > 0).any():  # the first nucleus lies deep in a nest: no image belies its label
        deepest = np.argmax(tissue["depth"] - 9 * tissue["holes"])
        centre[0], chance[:, 0] = (np.array(divmod(deepest, size)) + 0.5) / size * FIELD, 0.5
    at = tuple((centre.T / FIELD * size).astype(int).clip(0, size - 1))
    nest = tissue["depth"][at] > 0
    inflamed = chance[0] < np.where(nest, 0.04, 0.05 + 0.9 / (1 + np.exp(-5 * (tissue["inflamed"][at] - 0.3))))
    kind = np.where(inflamed, INFLAMMATORY, np.where(nest, NEOPLASTIC, CONNECTIVE))
    wanted = (tissue["holes"][at] < 0.5) & (chance[1] < np.array([0, 0.12, 0.65, 1])[kind])
    across, depth = (np.arctan2(*(slope[at] for slope in np.gradient(tissue[name]))) for name in ("across", "depth"))
    angle = np.where(kind == CONNECTIVE, across + np.pi / 2 + 0.15 * normal[0], depth + 0.5 * normal[0])
    kind, centre, angle, normal = kind[wanted], centre[wanted], angle[wanted], normal[1:, wanted].clip(-2, 2)
    length = NUCLEI["length"][kind] * np.exp(NUCLEI["spread"][kind] * normal[0])
    length[kind == NEOPLASTIC] *= slide["grade"] * (0.65 + 0.35 * distinct)
    axes = np.stack([length, length * (NUCLEI["ratio"][kind] * np.exp(0.15 * normal[1])).clip(0.2, 1)], 1)
    kept = _apart(centre, axes, angle, NUCLEI["room"][kind])
    return kind[kept], centre[kept], axes[kept], angle[kept]


def _apart(centre, axes, angle, room) -> np.ndarray:
    """Which of K ellipses to keep so that none comes nearer to an earlier one than both radii (times room) allow."""
    one, other = cKDTree(centre).query_pairs(30, output_type="ndarray").T
    apart, reach = (centre[one] - centre[other]) @ (1j, 1), 0
    for end in (one, other):
        local = apart * np.exp(-1j * angle[end])
        reach = reach + room[end] / np.hypot(local.real / axes[end, 0], local.imag / axes[end, 1])
    clash, kept = reach > 1, np.ones(len(centre), bool)
    for first, second in sorted(zip(one[clash].tolist(), other[clash].tolist(), strict=True)):
        kept[second] &= not kept[first]
    return kept


def _draw(rng, kind, centre, axes, angle, size):
    """Instances (size, size), and the place of each pixel in its nucleus: complex, 0 its centre, modulus 1 its edge."""
    instances, places = np.zeros((size, size), np.int32), np.zeros((size, size), complex)
    waves = rng.standard_normal((len(kind), 3, 2)) @ (1, 1j) * NUCLEI["uneven"][kind, None] * (1, 0.7, 0.5)
    bend = rng.normal(0, 0.12, len(kind)) * (kind == CONNECTIVE)
    pixel = FIELD / size
    for one in np.unique(kind):  # windows of one size for all nuclei of a type
        which = np.flatnonzero(kind == one)
        half = int(np.ceil(1.25 * axes[which].max() / pixel))
        index = np.floor(centre[which] / pixel).astype(int)[:, :, None] + np.arange(-half, half + 1)
        rows, columns = np.moveaxis((index + 0.5) * pixel - centre[which, :, None], 1, 0)
        place = (columns[:, None, :] + 1j * rows[:, :, None]) * np.exp(-1j * angle[which, None, None])
        long, short = axes[which].T[:, :, None, None]
        x = place.real / long
        place = x + 1j * (place.imag - bend[which, None, None] * long * (x**2 - 0.3)) / short
        unit = place / np.abs(place).clip(1e-9)
        a, b, c = waves[which].T[:, :, None, None]
        place /= 1 + (unit**2 * (a + unit * (b + unit * c))).real  # the outline has waves of two to four lobes
        seen = (index >= 0) & (index < size)
        nucleus, row, column = np.nonzero((np.abs(place) < 1) & seen[:, 0, :, None] & seen[:, 1, None, :])
        at = index[nucleus, 0, row], index[nucleus, 1, column]
        instances[at], places[at] = which[nucleus] + 1, place[nucleus, row, column]
    return instances, places


def _chromatin(rng, kind, axes, owner, place, clumps, distinct) -> np.ndarray:
    """Haematoxylin of pixels (P,) inside nuclei: of which nucleus, where in it, and the texture there are (P,) too."""

    def look(name):  # tumour nuclei as themselves, or as the mean of the others
        values, usual = NUCLEI[name][kind], NUCLEI[name][[CONNECTIVE, INFLAMMATORY]].mean()
        return np.where(kind == NEOPLASTIC, usual + distinct * (values - usual), values)

    density = look("density") * rng.lognormal(0, 0.18, len(kind))
    amount = density[owner] * (1 + look("clumps")[owner] * clumps + look("rim")[owner] * np.abs(place) ** 6)
    for _ in range(2):
        spot, strength = rng.normal(0, 0.3, (len(kind), 2)) @ (1, 1j), look("nucleoli") * rng.uniform(0.2, 1, len(kind))
        apart = np.abs(place - spot[owner]) * np.sqrt(axes.prod(1))[owner]
        amount += strength[owner] * np.exp(-((apart / 1.1) ** 2))
    return amount.clip(0.1)


def _section(rng, slide, tumour, difficulty, size):
    """Haematoxylin and eosin (2, size, size) of one image, its instances and the types of their nuclei (size, size)."""
    distinct = 1 - 0.9 * difficulty
    tissue = _tissue(rng, slide, tumour, distinct, size)
    kind, centre, axes, angle = _scatter(rng, tissue, slide, distinct)
    instances, places = _draw(rng, kind, centre, axes, angle, size)
    inside, clumps = instances > 0, _noise(rng, size, 1.3)
    stains = tissue["stains"] * (1 + 0.15 * clumps.clip(-3))
    chromatin = _chromatin(rng, kind, axes, instances[inside] - 1, places[inside], clumps[inside], distinct)
    stains[:, inside] = chromatin, 0.2 + 0.4 * stains[1, inside]
    stains = stains * slide["stain"] * rng.lognormal(0, 0.15, (2, 1, 1))  # thickness differs within a section
    return stains, relabel_sequential(instances)[0], np.append(0, kind)[instances]


def _transmit(stains, scanner) -> np.ndarray:
    """Light (3, H, W) through stains (2, H, W), white = 1: Beer–Lambert with the stain vectors of a laboratory."""
    vectors, strength, *_ = SCANNERS[scanner]
    return np.exp(-np.einsum("sc,s,shw->chw", vectors, strength, stains))


def _scan(rng, stains, scanner) -> np.ndarray:
    """uint8 image (3, H, W): light through the stains, optical blur, photon noise, white point."""
    *_, white, blur, photons = SCANNERS[scanner]
    light = _transmit(stains, scanner)
    blur *= rng.uniform(0.8, 1.5) * light.shape[1] / FIELD  # some tiles are less well in focus
    light = ndimage.gaussian_filter(light, (0, blur, blur))
    light += np.sqrt(light / photons) * rng.standard_normal(light.shape)
    return quantise(light * np.array(white)[:, None, None])


def histology(
    *,
    images: int = 200,
    patients: int | None = None,
    size: int = 128,
    difficulty: float = 0.0,
    scanner: str | tuple[str, ...] = "purple",
    seed: int = 0,
) -> ImageSet:
    """Phantom H&E tiles, one slide a patient: every second slide has tumour in some of its tiles, with exact nuclei.

    Labels: 1 if the tile has tumour. A slide (`volumes`) of an odd patient has 20 to 60 % such tiles (at least one), of
    an even patient none: a bag label is the maximum. Masks: 1 connective, 2 inflammatory, 3 neoplastic nuclei;
    instances: each nucleus its number. difficulty: 0 to 1 (tumour nuclei fewer, smaller, darker, as the others).
    scanner: the laboratory, "purple" or "pink" (paler, warmer, blurred). Tiles are 128 µm wide at every size.

    Raises ValueError as `patients_of`.
    """
    patient_of, scanner_of = patients_of(
        images=images, patients=patients, size=size, difficulty=difficulty, scanner=scanner, scanners=tuple(SCANNERS)
    )
    count = patient_of.max() + 1
    slides = [_slide(np.random.default_rng([seed, 0, patient])) for patient in range(count)]
    share = np.array([slide["share"] for slide in slides])[patient_of] * (patient_of % 2)
    tile = np.arange(images) // count
    labels = (np.ceil((tile + 1) * share) - np.ceil(tile * share)).astype(int)  # ceil(n share) of the first n tiles
    pixels = np.empty((images, 3, size, size), np.uint8)
    instances, masks = np.empty((images, size, size), np.int32), np.empty((images, size, size), np.uint8)
    for i in range(images):
        slide = slides[patient_of[i]]
        stains, instances[i], masks[i] = _section(
            np.random.default_rng([seed, 1, i]), slide, labels[i] == 1, difficulty, size
        )
        pixels[i] = _scan(np.random.default_rng([seed, 2, i]), stains, scanner_of[i])
    return ImageSet(
        name=f"phantom-histology-{size}",
        modality="histology",
        images=pixels,
        value_range=(0, 255),
        labels=labels,
        masks=masks,
        instances=instances,
        patients=patient_of,
        scanners=scanner_of,
        volumes=patient_of,
        spacing=(FIELD / size / 1000,) * 2,
        class_names=("no tumour", "tumour"),
        mask_names=("background", "connective", "inflammatory", "neoplastic"),
        licence="Apache-2.0 (generated)",
        citation="Generated here; stain mixing after Ruifrok & Johnston 2001, Anal Quant Cytol Histol 23:291-299",
        steps=("generated",),
    )
