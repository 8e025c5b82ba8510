"""Phantom retinal OCT: B-scans through the macula with layers, drusen and fluid of known extent."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from helpers.data.image_set import ImageSet
from helpers.data.phantoms.common import patients_of, quantise

WIDTH, DEPTH = 6.0, 1.6  # mm
CLASSES = ("normal", "drusen", "fluid")
LAYERS = ("vitreous", "RNFL", "GCL+IPL", "INL", "OPL", "ONL", "EZ", "RPE", "choroid", "sclera", "drusen", "fluid")
# From top to bottom: layer, share of its thickness, attenuation coefficient in 1/mm. Drusen and subretinal fluid are
# strata of no thickness where the eye is healthy.
STRATA = (
    ("vitreous", 1.0, 0.02),
    ("RNFL", 1.0, 5.5),
    ("GCL+IPL", 0.45, 1.7),
    ("GCL+IPL", 0.55, 2.8),
    ("INL", 1.0, 1.1),
    ("OPL", 1.0, 2.4),
    ("ONL", 0.9, 0.65),
    ("ONL", 0.1, 1.8),  # external limiting membrane
    ("EZ", 0.25, 0.9),  # myoid
    ("EZ", 0.37, 9.0),  # ellipsoid
    ("EZ", 0.38, 2.5),  # outer segments
    ("fluid", 1.0, 0.06),
    ("RPE", 1.0, 14.0),
    ("drusen", 1.0, 3.5),
    ("choroid", 0.1, 6.0),  # choriocapillaris
    ("choroid", 0.9, 4.5),
    ("sclera", 1.0, 3.5),
)
BEGINS = [layer for layer, _, _ in STRATA]  # index of a layer: its first stratum
LUMEN = 0.25  # attenuation in the vessels of the choroid, relative to its stroma
SHADOW = 0.3  # share of the light that is left below a retinal vessel
# frames: independent speckle patterns averaged; axial, lateral: standard deviation of the amplitude point spread in
# pixels; noise: in units of signal (1/mm); the display shows range_db decibels upwards from floor_db.
SCANNERS = {
    "tracked": dict(frames=6, axial=0.55, lateral=0.75, noise=0.025, floor_db=-17.5, range_db=26.0),
    "cube": dict(frames=3, axial=0.7, lateral=0.5, noise=0.06, floor_db=-16.5, range_db=26.0),
}


def _patient(rng) -> dict:
    """Anatomy that all B-scans of a patient share, in mm."""
    return {
        "scale": dict(zip(LAYERS, np.exp(0.07 * rng.standard_normal(len(LAYERS))), strict=True)),
        "attenuation": np.exp(0.12 * rng.standard_normal(len(STRATA))),
        "pit": rng.uniform(0.42, 0.65),  # radius of the foveal pit
        "nasal": rng.choice((-1, 1)),  # side of the optic nerve
        "curvature": rng.uniform(-0.008, 0.02),
        "choroid": rng.uniform(0.18, 0.38),
        "hyaloid": rng.uniform(-0.5, 0.3),  # distance of the detached hyaloid membrane; negative: none is seen
    }


def _thickness(anatomy, across, off_centre) -> dict[str, np.ndarray]:
    """Healthy thickness of each layer in mm, (columns,): across and off_centre are the distance from the fovea."""
    distance = np.hypot(across, off_centre)
    nasal = anatomy["nasal"] * across / 3

    def outside(radius):
        return 1 - np.exp(-((distance / (radius * anatomy["pit"] / 0.5)) ** 2))

    thickness = {
        "RNFL": 0.012 + outside(0.75) * (0.016 + 0.022 * np.exp(1.3 * (nasal - 0.6))),
        "GCL+IPL": 0.002 + outside(0.6) * 0.105 * np.exp(-((distance / 4) ** 2)),
        "INL": 0.002 + outside(0.45) * 0.038,
        "OPL": 0.012 + outside(0.45) * 0.016,
        "ONL": 0.108 - 0.038 * outside(0.8),
        "EZ": 0.072 - 0.012 * outside(0.35),
        "RPE": np.full_like(across, 0.026),
        "choroid": anatomy["choroid"] * (1 - 0.25 * nasal - 0.05 * distance),
    }
    return {name: anatomy["scale"][name] * value for name, value in thickness.items()}


def _add_drusen(rng, thickness, columns, small) -> None:
    """Mounds between RPE and choroid, in place: the layers above give way from below; the rest lifts the ILM."""
    height = np.zeros_like(columns)
    for druse in range(rng.integers(3, 9)):
        large = druse == 0 or rng.random() < 0.35
        centre, radius = rng.uniform(-2.4, 2.4), rng.uniform(*((0.2, 0.42) if large else (0.06, 0.16)))
        top = small * rng.uniform(*((0.1, 0.17) if large else (0.04, 0.08)))
        height = np.maximum(height, top * np.exp(-(np.abs((columns - centre) / radius) ** 2.5)))
    thickness["drusen"] = height
    for names, share, most in ((("EZ",), 0.2, 0.3), (("ONL",), 0.8, 0.75), (("GCL+IPL", "INL", "OPL"), 0.7, 0.35)):
        room = sum(thickness[name] for name in names)
        taken = np.minimum(share * height, most * room)
        for name in names:
            thickness[name] = thickness[name] * (1 - taken / room)
        height = height - taken


def _add_fluid(rng, thickness, columns, fovea, small) -> list[tuple]:
    """Swells the middle layers, half the time with subretinal fluid, in place.

    Returns cysts between two layers, in mm across and in shares of the distance between the layers in depth:
    (layer in which they begin, layer that begins below them, centre, radius, middle, half height).
    """
    centre, radius = fovea + rng.uniform(-0.5, 0.5), rng.uniform(0.8, 1.5)
    swelling = small * rng.uniform(0.12, 0.28) * np.exp(-(((columns - centre) / radius) ** 2))
    for name, share in (("INL", 0.3), ("OPL", 0.1), ("ONL", 0.6)):
        thickness[name] = thickness[name] + share * swelling
    if rng.random() < 0.5:
        where, width, height = fovea + rng.uniform(-0.4, 0.4), rng.uniform(0.5, 1.1), small * rng.uniform(0.07, 0.18)
        thickness["fluid"] = height * (1 - ((columns - where) / width) ** 2).clip(0)
    cysts = []
    for above, below, count, reach in (
        ("OPL", "EZ", rng.integers(3, 7), 0.8),
        ("INL", "OPL", rng.integers(4, 10), 1.1),
    ):
        slot = 2 * reach * radius / count
        for i in range(count):
            where = centre - reach * radius + slot * (i + rng.uniform(0.2, 0.8))
            width, middle, tall = 0.5 * slot * rng.uniform(0.35, 1), rng.uniform(0.4, 0.6), rng.uniform(0.2, 0.45)
            cysts.append((above, below, where, width * (0.4 + 0.6 * small), middle, tall * (0.5 + 0.5 * small)))
    return cysts


def _edges(rng, anatomy, thickness, columns) -> np.ndarray:
    """Depth in mm at which each stratum but the vitreous begins, (strata - 1, columns), in increasing order."""
    strata = [share * thickness.get(layer, 0 * columns) for layer, share, _ in STRATA[1:-1]]
    edges = np.cumsum([0 * columns, *strata], axis=0)
    bruch = rng.uniform(0.8, 1.05) + rng.uniform(-0.06, 0.06) * columns - anatomy["curvature"] * columns**2
    edges += bruch - edges[BEGINS.index("choroid") - 1]
    return edges + max(0, 0.06 - edges[0].min())  # all of the retina is in the field


def _texture(rng, size, nodes) -> np.ndarray:
    """Smooth random field (size, size) of unit variance; nodes: how many random numbers in depth and across."""
    weights = []
    for count in nodes:
        at, node = (np.arange(size) + 0.5) / size * (count - 2) + 0.5, np.arange(count)
        basis = np.exp(-0.5 * ((at[:, None] - node) / 0.7) ** 2)
        weights.append(basis / np.sqrt((basis**2).sum(1, keepdims=True)))
    return weights[0] @ rng.standard_normal(nodes) @ weights[1].T


def _vessels(rng, columns, fovea, off_centre, top, rows) -> tuple[np.ndarray, np.ndarray]:
    """Retinal vessels in cross-section: where they lie and what lies below them, both 0…1, (size, size)."""
    inside, below = np.zeros((len(rows), len(columns))), np.zeros((len(rows), len(columns)))
    for _ in range(rng.integers(2, 7)):
        centre, radius = rng.uniform(-2.9, 2.9), rng.uniform(0.035, 0.075)
        if np.hypot(centre - fovea, off_centre) < 0.6:  # the fovea has none
            continue
        middle = np.interp(centre, columns, top) + radius
        near = ((radius - np.abs(columns - centre)) * len(columns) / WIDTH + 0.5).clip(0, 1)
        share = ((radius - np.hypot(columns - centre, rows - middle)) * len(rows) / DEPTH + 0.5).clip(0, 1)
        inside, below = np.maximum(inside, share), np.maximum(below, near * (rows > middle))
    return inside, below


def _tissue(rng, anatomy, label, difficulty, size) -> tuple[np.ndarray, np.ndarray]:
    """One B-scan: the signal in 1/mm, attenuation coefficient times light that comes back, and the mask."""
    rows = (np.arange(size)[:, None] + 0.5) / size * DEPTH
    columns = ((np.arange(size) + 0.5) / size - 0.5) * WIDTH
    fovea, off_centre, small = rng.uniform(-0.8, 0.8), 1.4 * rng.random() ** 1.5, 1 - 0.5 * difficulty
    thickness, cysts = _thickness(anatomy, columns - fovea, off_centre), []
    if CLASSES[label] == "drusen":
        _add_drusen(rng, thickness, columns, small)
    elif CLASSES[label] == "fluid":
        cysts = _add_fluid(rng, thickness, columns, fovea, small)
    edges = _edges(rng, anatomy, thickness, columns)
    share = ((rows - edges[:, None]) * size / DEPTH + 0.5).clip(0, 1)  # of the pixel that lies below each edge
    attenuation = np.array([value for _, _, value in STRATA]) * anatomy["attenuation"]
    attenuation[BEGINS.index("fluid")] *= 1 + 3 * difficulty
    tissue = attenuation[0] + np.einsum("k,kij->ij", np.diff(attenuation), share)
    mask = np.array([LAYERS.index(name) for name in BEGINS], np.uint8)[(share >= 0.5).sum(0)]
    texture = _texture(rng, size, (32, 32))
    tissue *= np.exp(0.12 * texture)
    lumen = (1.5 * _texture(rng, size, (24, 44)) - 0.3).clip(0, 1) * (mask == LAYERS.index("choroid"))
    tissue *= 1 - (1 - LUMEN) * lumen
    chord = np.interp(columns, columns[[0, -1]], edges[0][[0, -1]]) - anatomy["hyaloid"] * (1 - (columns / 3.2) ** 2)
    tissue += (anatomy["hyaloid"] > 0) * 0.15 * np.exp(-(((rows - np.minimum(chord, edges[0])) / 0.01) ** 2))
    for above, below, centre, radius, middle, tall in cysts:
        top, bottom = edges[BEGINS.index(above) - 1], edges[BEGINS.index(below) - 1]
        height = (rows - top) / (bottom - top)
        inside = ((columns - centre) / radius) ** 2 + ((height - middle) / tall) ** 2 < 1 + 0.3 * texture
        inside &= (height > 0.03) & (height < 0.97)  # the two layers stay continuous
        tissue[inside] = attenuation[BEGINS.index("fluid")]
        mask[inside] = LAYERS.index("fluid")
    inside, below = _vessels(rng, columns, fovea, off_centre, edges[1], rows)
    tissue += inside * (5 - tissue)
    depth = np.cumsum(tissue, axis=0) - tissue / 2
    return tissue * np.exp(-2 * depth * DEPTH / size) * SHADOW**below, mask


def _scan(rng, signal, settings) -> np.ndarray:
    """Grey values of a B-scan: gain, point spread, speckle averaged over frames, noise floor, logarithm."""
    size, spread = len(signal), (settings["axial"], settings["lateral"])
    gain = 0.8 * rng.standard_normal() + 0.8 * np.sin(rng.uniform(0, 6.28) + np.linspace(0, rng.uniform(2, 5), size))
    mean = ndimage.gaussian_filter(signal * 10 ** (gain / 10), np.array(spread) / 2**0.5, mode="nearest")
    field = rng.standard_normal((2 * settings["frames"], size, size))  # real and imaginary part of each frame
    field = ndimage.gaussian_filter(field, spread, axes=(1, 2), mode="wrap", truncate=2)
    speckle = np.einsum("kij,kij->ij", field, field)
    decibels = 10 * np.log10((mean + settings["noise"]) * speckle / speckle.mean())
    return quantise((decibels - settings["floor_db"]) / settings["range_db"] * 255)


def oct(
    *,
    images: int = 200,
    patients: int | None = None,
    size: int = 128,
    difficulty: float = 0.0,
    scanner: str | tuple[str, ...] = "tracked",
    seed: int = 0,
) -> ImageSet:
    """Phantom OCT B-scans of 6 × 1.6 mm through the macula: a third each normal, with drusen and with fluid.

    Masks: layers from top to bottom in the order of `LAYERS`, then drusen and fluid (cysts and subretinal); EZ are the
    inner and outer segments. Drusen lie between RPE and choroid, subretinal fluid between EZ and RPE. difficulty: 0
    (plain to see) to 1 (small lesions, turbid fluid). scanner: "tracked" averages 6 frames, "cube" 3 with more noise.

    Signal: attenuation coefficient times the light that comes back (Vermeer et al. 2014), times speckle.

    Raises ValueError as `patients_of`.
    """
    asked = dict(images=images, patients=patients, size=size, difficulty=difficulty, scanner=scanner)
    patient_of, scanner_of = patients_of(**asked, scanners=tuple(SCANNERS), turn=len(CLASSES))
    anatomies = [_patient(np.random.default_rng([seed, 0, patient])) for patient in range(patient_of.max() + 1)]
    labels = patient_of % len(CLASSES)
    pixels, masks = np.empty((images, 1, size, size), np.uint8), np.empty((images, size, size), np.uint8)
    for i in range(images):
        anatomy = anatomies[patient_of[i]]
        signal, masks[i] = _tissue(np.random.default_rng([seed, 1, i]), anatomy, labels[i], difficulty, size)
        pixels[i, 0] = _scan(np.random.default_rng([seed, 2, i]), signal, SCANNERS[scanner_of[i]])
    return ImageSet(
        name=f"phantom-oct-{size}",
        modality="OCT",
        images=pixels,
        value_range=(0, 255),
        labels=labels,
        masks=masks,
        patients=patient_of,
        scanners=scanner_of,
        spacing=(DEPTH / size, WIDTH / size),
        class_names=CLASSES,
        mask_names=LAYERS,
        licence="Apache-2.0 (generated)",
        citation=(
            "Generated here; the signal follows Vermeer et al. 2014, Biomedical Optics Express 5(1), 322; the classes "
            "follow Kermany et al. 2018, Cell 172(5), 1122"
        ),
        steps=("generated",),
    )
