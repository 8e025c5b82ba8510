"""Phantom breast ultrasound: tissues filled with scatterers, seen by a scanner; cysts, fibroadenomas and cancers."""

from __future__ import annotations

import numpy as np
from scipy import fft, ndimage

from helpers.data.image_set import ImageSet
from helpers.data.phantoms.common import patients_of, quantise

FIELD = 40.0  # mm: side of the square field; rows are depth
WAVES = np.arange(2, 9)  # waves of a lesion's outline in one turn
CLASSES = ("normal", "benign", "malignant")
# Echogenicity in dB, acoustic impedance relative to the soft tissues' mean, attenuation in dB/cm/MHz.
TISSUES = {
    "gel": (-45, -1.0, 0.1),
    "skin": (3, 1.0, 1.0),
    "fat": (-11, -0.5, 0.5),
    "septum": (2, 0.7, 0.9),
    "gland": (0, 0.1, 0.8),
    "muscle": (-9, 0.1, 0.9),
    "fascia": (7, 1.4, 0.9),
    "bone": (-10, 12.0, 15.0),
    "lung": (-10, -8.0, 3.0),
    "cyst": (-60, -0.6, 0.05),
    "fibroadenoma": (-17, -0.1, 0.65),
    "cancer": (-15, 0.1, 1.6),
}
TGC = 0.7  # dB/cm/MHz that the time-gain compensation takes for granted
# Lengths in mm: sigma of the pulse and of the beam at its focus, depth of the focus, spread per mm away from it.
# Decibels: displayed range, gain, electronic noise.
SCANNERS = {
    "premium": dict(mhz=10, pulse=0.09, beam=0.18, focus=18, spread=0.014, range_db=64, gain_db=-34, noise_db=-85),
    "portable": dict(mhz=6.5, pulse=0.16, beam=0.28, focus=24, spread=0.02, range_db=54, gain_db=-27, noise_db=-59),
}


def _basis(at: np.ndarray, scale: float) -> np.ndarray:
    """(points, nodes) weights that make a smooth curve of unit variance from one normal number per node."""
    nodes = np.arange(-FIELD, FIELD + 3 * scale, scale)
    weights = np.exp(-0.5 * ((at[:, None] - nodes) / (0.7 * scale)) ** 2)
    return weights / np.sqrt((weights**2).sum(1, keepdims=True))


def _curve(rng, at, scale) -> np.ndarray:
    basis = _basis(at, scale)
    return basis @ rng.standard_normal(basis.shape[1])


def _texture(rng, depth, side, scales) -> np.ndarray:
    """Smooth random field of unit variance; scales: mm in depth and across."""
    rows, columns = _basis(depth, scales[0]), _basis(side, scales[1])
    return rows @ rng.standard_normal((rows.shape[1], columns.shape[1])) @ columns.T


def _lay(tissue, name, share, contrast=1.0) -> None:
    """Replaces a share (0…1 a pixel) of what is there by another tissue, in place."""
    for channel, value in zip(tissue, TISSUES[name], strict=True):
        channel += contrast * share * (value - channel)


def _distance(level, pixel) -> np.ndarray:
    """Distance in mm, to first order, from the line where a smooth map is 0."""
    return level / (np.hypot(*np.gradient(level, pixel)) + 0.02)


def _inside(distance, edge=0.3) -> np.ndarray:
    """0 outside to 1 inside, over an edge of some mm; distance: mm, positive inside."""
    return np.clip(0.5 + distance / edge, 0, 1)


def _patient(rng, label) -> dict:
    """Anatomy that all images of a patient share, in mm; `lesion` is None in a normal breast."""
    kind = (None, rng.choice(("cyst", "fibroadenoma")), "cancer")[label]
    sick = kind == "cancer"
    waviness = 0.08 / (WAVES - 1) ** 0.6 if sick else 0.025 / (WAVES - 1) ** 1.5
    spikes = int(rng.integers(0, 12)) * sick
    return {
        "fat": rng.uniform(6.5, 11),
        "gland": rng.uniform(22, 27),
        "density": rng.uniform(-0.6, 1.2),
        "bone": rng.random() < 0.5,
        "lesion": kind,
        "radius": rng.uniform(4, 6) if sick else rng.uniform(4.5, 8.5),
        "aspect": rng.uniform(0.85, 1.3) if sick else rng.uniform(0.5, 0.8),
        "centre": (rng.uniform(14, 18), rng.uniform(-7, 7)),
        "waves": waviness * rng.standard_normal((2, len(WAVES))),
        "spikes": np.stack([rng.uniform(0, 2 * np.pi, spikes), rng.uniform(0.15, 0.45, spikes)]),
    }


def _lesion(rng, person, depth, side) -> np.ndarray:
    """Distance in mm to the outline of the patient's lesion in this view: a wavy, spiculated ellipse; > 0 inside."""
    turn, width = rng.uniform(-0.25, 0.25), person["radius"] * rng.uniform(0.8, 1.05)
    down = depth - person["centre"][0] - rng.uniform(-2, 2)
    right = side - person["centre"][1] - rng.uniform(-3, 3)
    y = (np.cos(turn) * down - np.sin(turn) * right) / (width * person["aspect"])
    x = (np.sin(turn) * down + np.cos(turn) * right) / width
    angles, (even, odd), (where, length) = np.linspace(-np.pi, np.pi, 721), person["waves"], person["spikes"]
    outline = 1 + even @ np.cos(np.outer(WAVES, angles)) + odd @ np.sin(np.outer(WAVES, angles))
    outline += length @ np.exp((np.cos(angles - where[:, None]) - 1) / 0.012)  # spikes are about 0.1 radian wide
    return _distance(np.interp(np.arctan2(y, x), angles, outline) - np.hypot(y, x), FIELD / len(depth))


def _layers(rng, person, depth, side) -> np.ndarray:
    """Echogenicity (dB), impedance and attenuation (3, rows, columns) of a breast without a lesion."""
    down, pixel = depth[:, None], FIELD / len(depth)
    tissue = np.tile(np.reshape(TISSUES["fat"], (3, 1, 1)), (1, len(depth), len(side)))
    tissue[0] += 2 * _texture(rng, depth, side, (0.8, 2))
    lobules = _texture(rng, depth, side, (3, 9)) * _texture(rng, depth, side, (5, 12))  # septa where either is 0
    _lay(tissue, "septum", np.exp(-((_distance(lobules, pixel) / 0.22) ** 2)), 0.8)

    top = person["fat"] + 1.5 * _curve(rng, side, 7)
    bottom = person["gland"] + 0.7 * _curve(rng, side, 9)
    grain = _texture(rng, depth, side, (0.7, 4))
    islands = _inside(person["density"] + 0.8 * _texture(rng, depth, side, (3, 6)) + 0.3 * grain, 0.8)
    gland = _inside(down - top) * _inside(bottom - down) * islands
    _lay(tissue, "gland", gland)
    tissue[0] += 3.5 * gland * grain

    muscle = bottom + 1.5 + 0.5 * _curve(rng, side, 6)
    end = muscle + rng.uniform(6, 9) + 0.5 * _curve(rng, side, 12)
    inside = _inside(down - muscle) * _inside(end - down)
    _lay(tissue, "muscle", inside)
    tissue[0] += 5 * inside * _texture(rng, depth, side, (0.45, 6))
    _lay(tissue, "fascia", np.exp(-(((down - muscle) / 0.3) ** 2)), 0.8)
    if person["bone"]:
        rib = np.hypot((side - rng.uniform(-12, 12)) / 8, (down - end - 4.5) / 4.5)
        _lay(tissue, "bone", _inside(4.5 * (1 - rib)))
    else:
        _lay(tissue, "lung", _inside(down - end - 1))

    skin = 1.8 + 0.15 * _curve(rng, side, 8)
    _lay(tissue, "skin", _inside(skin - down))
    _lay(tissue, "gel", _inside(0.5 + 0.1 * _curve(rng, side, 8) - down))
    return tissue


def _breast(rng, person, difficulty, size):
    """Complex scatterers (size, size), attenuation in dB/cm/MHz, and the lesion's mask, of one view of a patient."""
    depth = (np.arange(size) + 0.5) / size * FIELD
    side, contrast = depth - FIELD / 2, 1 - 0.5 * difficulty
    tissue = _layers(rng, person, depth, side)
    mask, kind = np.zeros((size, size), np.uint8), person["lesion"]
    if kind:
        distance = _lesion(rng, person, depth[:, None], side)
        mask[distance > 0] = 1
        inside = _inside(distance, 0.8 if kind == "cancer" else 0.3)
        if kind == "cancer":
            tissue[0] += contrast * 8 * np.exp(-((distance.clip(None, 0) / 2.0) ** 2))  # echogenic halo
        else:
            _lay(tissue, "septum", np.exp(-((distance / 0.35) ** 2)), 0.7 * contrast)  # thin bright wall
        _lay(tissue, kind, inside, contrast)
        tissue[0] += {"cancer": 4, "fibroadenoma": 1.5, "cyst": 0}[kind] * inside * _texture(rng, depth, side, (1, 1.4))
    echo, impedance, attenuation = tissue
    random = rng.standard_normal((2, size, size))
    scatterers = 10 ** (echo / 20) * (random[0] + 1j * random[1]) / np.sqrt(2)
    reflection = np.abs(np.diff(impedance, axis=0, prepend=impedance[:1]))  # where it changes along the beam
    scatterers += reflection * (0.7 + 0.7 * random[0])  # from an interface that is partly rough
    return scatterers, attenuation, mask


def _spread(echoes, sigma) -> np.ndarray:
    """Gaussian blur by sigma pixels (a number, or one a row) along rows, of unit energy: speckle keeps its variance."""
    size = echoes.shape[1]
    padded = fft.next_fast_len(size + size // 8)
    kernel = np.exp(-0.5 * (padded * fft.fftfreq(padded) / np.reshape(sigma, (-1, 1))) ** 2)
    kernel /= np.sqrt((kernel**2).sum(1, keepdims=True))
    return fft.ifft(fft.fft(echoes, padded) * fft.fft(kernel).real)[:, :size]


def _scan(rng, scatterers, attenuation, scanner) -> np.ndarray:
    """Complex echoes (size, size): attenuation, point spread function, noise, imperfect time-gain compensation."""
    size, machine = len(scatterers), SCANNERS[scanner]
    pixel = FIELD / size
    depth = (np.arange(size) + 0.5) * pixel
    gain = 2 * machine["mhz"] * TGC * depth / 10 + 1.5 * _curve(rng, depth, 12) + rng.normal(0, 3.5)
    to_edge = rng.choice((-1, 1)) * (depth / FIELD - 0.5)  # 0.5 at the edge where the probe may lose contact
    late = round(rng.uniform(3, 6) / pixel)
    contact = _curve(rng, depth, 10) - rng.uniform(0, 40) * np.clip(to_edge - 0.2, 0, None)

    loss = 2 * machine["mhz"] * np.cumsum(attenuation, axis=0) * pixel / 10  # dB, there and back
    loss = ndimage.gaussian_filter1d(loss, 0.9 / pixel, axis=1)  # a beam is as wide as its aperture
    echoes = scatterers * 10 ** ((contact - loss) / 20)
    beam = np.hypot(machine["beam"], machine["spread"] * (depth - machine["focus"]))
    echoes = _spread(_spread(echoes.T, machine["pulse"] / pixel).T, beam / pixel)
    echoes[late:] += 0.012 * echoes[:-late]  # reverberation: a faint haze in the near part of cysts
    noise = rng.standard_normal((2, size, size)) / np.sqrt(2)
    echoes += 10 ** (machine["noise_db"] / 20) * (noise[0] + 1j * noise[1])
    return echoes * 10 ** (gain[:, None] / 20)


def _compress(echoes, scanner, stretch) -> np.ndarray:
    """uint8 B-mode image of complex echoes: envelope, and `stretch` times the scanner's range of decibels as 0…255."""
    power = ndimage.gaussian_filter(np.abs(echoes) ** 2, 0.6)  # a display's pixel averages
    decibels = 10 * np.log10(power + 1e-12) + SCANNERS[scanner]["gain_db"]
    return quantise((1 + decibels / SCANNERS[scanner]["range_db"] / stretch) * 255)


def ultrasound(
    *,
    images: int = 200,
    patients: int | None = None,
    size: int = 128,
    difficulty: float = 0.0,
    scanner: str | tuple[str, ...] = "premium",
    seed: int = 0,
) -> ImageSet:
    """Phantom B-mode images of the breast, in the manner of BUSI: normal, benign or malignant, with exact lesion masks.

    Benign lesions are cysts (anechoic, enhancement beneath) and fibroadenomas; malignant ones are irregular, with a
    bright halo and a shadow. Labels: 0 normal, 1 benign, 2 malignant, by turns from patient to patient. difficulty: 0
    (plain to see) to 1 (half the contrast in decibels). scanner: "premium" (10 MHz), or "portable" (6.5 MHz) with
    coarser speckle, more noise and a smaller dynamic range. Speckle follows from random scatterers, as in Wagner et al.
    1983, IEEE Trans. Sonics Ultrason. 30(3); the outline, tissues and scatterers are the same on both scanners.

    Raises ValueError as `patients_of`.
    """
    asked = dict(images=images, patients=patients, size=size, difficulty=difficulty, scanner=scanner)
    patient_of, scanner_of = patients_of(**asked, scanners=tuple(SCANNERS), turn=len(CLASSES))
    people = [_patient(np.random.default_rng([seed, 0, p]), p % len(CLASSES)) for p in range(patient_of.max() + 1)]
    pixels, masks = np.empty((images, 1, size, size), np.uint8), np.empty((images, size, size), np.uint8)
    for i in range(images):
        anatomy_rng, scan_rng = np.random.default_rng([seed, 1, i]), np.random.default_rng([seed, 2, i])
        *breast, masks[i] = _breast(anatomy_rng, people[patient_of[i]], difficulty, size)
        stretch = scan_rng.uniform(0.85, 1.15)  # chosen by the user
        pixels[i, 0] = _compress(_scan(scan_rng, *breast, scanner_of[i]), scanner_of[i], stretch)
    return ImageSet(
        name=f"phantom-ultrasound-{size}",
        modality="ultrasound",
        images=pixels,
        value_range=(0, 255),
        labels=patient_of % len(CLASSES),
        masks=masks,
        patients=patient_of,
        scanners=scanner_of,
        spacing=(FIELD / size, FIELD / size),
        class_names=CLASSES,
        mask_names=("background", "lesion"),
        licence="Apache-2.0 (generated)",
        citation="Generated here; the task follows BUSI, Al-Dhabyani et al. 2020, doi:10.1016/j.dib.2019.104863",
        steps=("generated",),
    )
