"""Phantom short-axis cine MR of the heart: a chest with two ventricles, imaged with bSSFP, from base to apex."""

from __future__ import annotations

import numpy as np
from scipy import fft, ndimage

from helpers.data.image_set import ImageSet
from helpers.data.phantoms.common import patients_of, quantise

FIELD = 224.0  # mm: side of the square field
SLICES = 10  # planes of a stack
ORDER = (0, 5, 2, 7, 4, 9, 1, 6, 3, 8)  # planes as they are taken: the first few already cover the heart
THICKNESS = 8.0  # mm
# Radius of the cavity, wall, length (mm) and ejection fraction at end-diastole of each group: means and spreads.
GROUPS = {
    "normal": ((21, 8.5, 86, 0.60), (1.6, 0.8, 4, 0.035)),
    "dilated": ((29, 7.5, 98, 0.24), (5.2, 0.8, 5, 0.06)),
    "hypertrophic": ((18, 14, 83, 0.72), (1.6, 1.8, 4, 0.035)),
}
# Proton density, then T1 and T2 in ms at 1.5 T and at 3 T, close to Stanisz et al. 2005, doi 10.1002/mrm.20605. Fat is
# negative: in bSSFP it is opposed to water, and the magnitude has a dark line where the two meet.
TISSUES = {
    "blood": (1.0, 1441, 290, 1932, 275),
    "venous": (1.0, 1441, 170, 1932, 140),
    "heart": (1.0, 1030, 47, 1471, 47),
    "muscle": (1.0, 1008, 44, 1412, 45),
    "liver": (1.0, 576, 46, 812, 42),
    "stomach": (1.0, 900, 90, 1200, 80),
    "marrow": (0.8, 550, 50, 600, 50),
    "fluid": (0.6, 3000, 1000, 3500, 1000),
    "fat": (-0.9, 343, 85, 382, 90),
    "lung": (0.12, 1200, 60, 1300, 50),
}
# Flip angle (degrees), column of T1, noise (over blood), strength of the receive field, resolution (mm), counts.
SCANNERS = {"1.5T": (60, 1, 0.022, 0.8, 2.0, 600), "3T": (45, 3, 0.014, 1.2, 1.8, 650)}


def _signals(scanner: str, difficulty: float) -> dict[str, float]:
    """bSSFP signal of each tissue over that of blood, for TR much shorter than T1 and T2.

    Source: Scheffler and Lehnhardt 2003, doi 10.1007/s00330-003-1957-x.
    """
    cosine, t1 = np.cos(np.deg2rad(SCANNERS[scanner][0])), SCANNERS[scanner][1]
    signals = {
        name: tissue[0] / (1 + cosine + (1 - cosine) * tissue[t1] / tissue[t1 + 1]) for name, tissue in TISSUES.items()
    }
    signals = {name: signal / signals["blood"] for name, signal in signals.items()}
    for pool in ("blood", "venous"):  # spent blood is hardly brighter than muscle
        signals[pool] -= 0.6 * difficulty * (signals[pool] - signals["heart"])
    return signals


def _patient(rng, group: int) -> dict:
    """Anatomy that all images of a patient share; lengths in mm, angles in radians."""
    mean, spread = list(GROUPS.values())[group]
    size = rng.normal(mean, spread).clip((15, 6, 70, 0.1), (41, 19, 115, 0.85))
    return dict(zip(("radius", "wall", "length", "ejection"), size, strict=True)) | {
        "asymmetry": rng.uniform(0, 0.35 if group == 2 else 0.1),
        "rv": rng.uniform((24, 0.85, -0.35), (34, 1.1, -0.05)),  # bulge, height over bulge, skew
        "tricuspid": rng.uniform(0, 8),
        "septum": np.pi + rng.uniform(-0.1, 0.75),
        "centre": rng.uniform(-9, 9, 2),
        "wobble": rng.uniform(-0.03, 0.03, 4),
        "papillary": rng.uniform((0.5, -1.2, 2.8, 0.13), (1.2, -0.5, 3.6, 0.2)),  # three directions, radius
        "body": rng.uniform((132, 38, 25, 6, 7), (150, 52, 45, 20, 11)),  # radius, centre (x, y), fat, muscle
        "outline": rng.uniform((-0.07, -0.09, -0.03, -0.03), (0.07, 0.02, 0.03, 0.03)),
        "ribs": rng.uniform(0, 2 * np.pi),
        "diaphragm": rng.uniform((-5, 12, 5, 0.1), (4, 28, 40, 0.6)),  # gap to the heart, rise, liver, slope
        "stomach": rng.uniform((22, 18, 20, 16), (45, 30, 32, 24)),
        "aorta": rng.uniform((40, 44, 8), (54, 56, 11)),
        "coils": rng.normal(0, 12, (3, 2)) + ((-110, 0), (-50, -110), (140, 120)),
        "top": rng.uniform(-0.04, 0.06),  # of the stack, in lengths below the valve
        "start": rng.integers(SLICES),
        "gain": np.exp(rng.normal(0, 0.12)),
    }


def _ventricle(heart: dict, frame: int) -> dict:
    """Left ventricle at a frame: inner and outer radius, and how far the valve plane has come down; in mm.

    The cavity shrinks by the ejection fraction, the muscle keeps its volume, and the apex stays where it is.
    """
    inner, outer, length = heart["radius"], heart["radius"] + heart["wall"], heart["length"]
    ejected = heart["ejection"] * frame
    descent = 0.2 * ejected * length
    stretch = length / (length - descent)
    cavity = inner**2 * (1 - ejected) * stretch
    outer = np.sqrt(cavity + (outer**2 - inner**2) * stretch)
    return {"inner": np.sqrt(cavity), "outer": outer, "descent": descent, "length": length - descent}


def _radii(shape: dict, z: float) -> tuple[float, float]:
    """Inner and outer radius (mm) in the plane z mm from the valve plane at end-diastole, 0 where it cuts nothing."""
    z, length = z - shape["descent"] - 0.2 * shape["length"], shape["length"]  # from where it is widest
    apex = 0.7 * (shape["outer"] - shape["inner"])
    halves = (0.8 * length, 0.8 * length + apex) if z > 0 else (0.6 * length, 0.6 * length)
    inner, outer = (np.sqrt(max(0.0, 1 - (z / half) ** 2)) for half in halves)
    return shape["inner"] * inner, shape["outer"] * outer


def _position(heart: dict, plane: int) -> float:
    """Distance (mm) of a plane from the valve plane at end-diastole; the stack begins and ends about with the heart."""
    return (heart["top"] + 1.05 * (plane + 0.5) / SLICES) * heart["length"]


def _wavy(angle: np.ndarray, waves: np.ndarray) -> np.ndarray:
    """Radius of a closed curve over that of a circle: waves are the cosines and sines of two and three a turn."""
    c, s, e, f = waves
    return 1 + c * np.cos(2 * angle) + s * np.sin(2 * angle) + e * np.cos(3 * angle) + f * np.sin(3 * angle)


def _papillary(heart, inner, p, q, left, texture) -> np.ndarray:
    """Distance (mm) to the papillary muscles, and to the trabeculae that reach into the cavity from its wall."""
    tips = [np.hypot(p + 0.72 * inner * np.cos(a), q + 0.72 * inner * np.sin(a)) for a in heart["papillary"][:3]]
    muscles = np.min(tips, axis=0) - heart["papillary"][3] * heart["radius"] + 1.5 * texture
    return np.minimum(muscles, 2 * (1.1 - texture) - left)


def _heart(heart, frame, plane, p, q, texture):
    """Layers of the heart (distance to the surface, width of its edge in mm, tissue), and its integer mask.

    p, q: mm from the axis of the left ventricle, p towards the right ventricle.
    """
    shape, z = _ventricle(heart, frame), _position(heart, plane)
    inner, outer = _radii(shape, z)
    edges = np.abs(np.subtract(_radii(shape, z - THICKNESS / 2), _radii(shape, z + THICKNESS / 2)))  # partial volume
    depth = (z - shape["descent"]) / shape["length"]
    atrium = depth < 0
    inner, outer = (heart["radius"], heart["radius"] + 2.5) if atrium else (inner, outer)
    angle = np.arctan2(q, p)
    left = np.hypot(p, q) - inner * _wavy(angle, heart["wobble"])
    epicardium = left - (outer - inner) * (1 + heart["asymmetry"] * np.cos(angle))
    taper = np.sqrt(max(0.0, 1 - (max(depth, 0) / 0.93) ** 2))
    bulge = heart["rv"][0] * taper * (1 - 0.45 * heart["ejection"] * frame)
    half = 0.25 * outer + bulge + 1e-3, 0.55 * outer + heart["rv"][1] * bulge + 1e-3
    skewed = (p - 0.75 * outer - heart["rv"][2] * q * taper) / half[0]
    right = (np.hypot(skewed, (q - 0.2 * bulge) / half[1]) - 1) * min(half)
    pad = 1 + (3 + 9 * max(depth, 0)) * (0.4 + 0.6 * np.cos(angle + 0.5)).clip(0) + 0.5 * texture
    layers = [
        (np.minimum(epicardium, right) - pad, 2, "fat"),
        (right, 1, "heart"),
        (right + 3, 2, "venous"),
        (np.maximum(2.2 * (1.6 - texture), right + 3), 2, "heart"),
        (epicardium, edges[1], "heart"),
        (left, edges[0], "blood"),
    ]
    if 0.15 < depth < 0.85:
        layers.append((np.maximum(_papillary(heart, inner, p, q, left, texture), left), 2, "heart"))
    if atrium:
        root = np.hypot(p - 0.9 * inner, q + 0.3 * inner) - 13
        layers += [(root, 1, "heart"), (root + 2, 1, "blood")]
    mask = np.zeros(p.shape, np.uint8)
    if z - shape["descent"] > heart["tricuspid"]:
        mask[right < -3] = 1
    if not atrium:
        mask[epicardium < 0] = 2
        mask[left < 0] = 3
    return layers, mask


def _chest(heart, depth, x, y, texture) -> list:
    """Layers of what surrounds the heart: chest wall, lungs with vessels, liver, stomach, spine and aorta."""
    radius, column, row, fat, muscle = heart["body"]
    column = column + 24 * (depth - 0.5)  # the apex is next to the chest wall
    angle, reach = np.arctan2(y - row, x - column), np.hypot(x - column, y - row)
    surface = reach - radius * _wavy(angle, heart["outline"])
    fascia = surface + fat * (1 + 0.25 * np.sin(3 * angle + heart["ribs"])) + 0.4 * texture
    cavity = fascia + muscle
    ribs = np.maximum(np.abs(fascia + muscle / 2) - muscle / 2 + 2, 8 * np.cos(13 * angle + heart["ribs"]) + 3)
    gap, rise, edge, slope = heart["diaphragm"]
    below = heart["centre"][1] + heart["radius"] + heart["wall"] + gap
    diaphragm = below - rise * depth + (x + 25) ** 2 / 450 + slope * x.clip(0) * (1 - depth) + texture - y
    abdomen = np.maximum(cavity, diaphragm)
    liver = np.maximum(abdomen + 2.5, (np.hypot((x + 70) / (edge + 70), (y - 115) / 95) - 1) * 70)
    sx, sy, wide, high = heart["stomach"]
    drop = np.hypot((x - sx) / wide, (y - below - sy + rise * depth) / high)
    stomach = np.maximum((drop - 0.5 - 0.5 * depth) * high, abdomen + 3) + texture
    spine = (np.hypot((x - 82) / 19, (y - 88) / 16) - 1) * 17 + 0.6 * texture
    ax, ay, vessel = heart["aorta"]
    aorta = np.hypot(x - ax, y - ay - 25 * depth) - vessel
    return [
        (surface, 1, "fat"),
        (fascia, 1, "muscle"),
        (ribs - 1.5, 1, "lung"),
        (ribs, 2, "marrow"),
        (cavity, 2, "lung"),
        (np.maximum(cavity + 4, 2.5 * (1.9 + reach / 200 - texture)), 2, "venous"),
        (abdomen, 2, "fat"),
        (np.maximum(abdomen + 6, 2.5 * (0.9 - texture)), 2, "muscle"),
        (liver, 1, "liver"),
        (np.maximum(liver + 4, 2.5 * (2.1 - texture)), 2, "venous"),
        (stomach, 1, "muscle"),
        (stomach + 3, 2, "stomach"),
        (spine - 9, 3, "muscle"),
        (spine - 1.5, 1, "lung"),
        (spine, 2, "marrow"),
        (np.hypot(x - 94, y - 111) - 6, 2, "fluid"),
        (aorta - 2, 1, "muscle"),
        (aorta, 1, "blood"),
    ]


def _anatomy(rng, heart, frame, plane, size):
    """All layers of one image from back to front, its integer mask, and a texture of unit variance."""
    pixel, depth = FIELD / size, plane / (SLICES - 1)
    grid = (np.arange(size) + 0.5) * pixel - FIELD / 2
    breath, turn = rng.normal(0, 2, 2), heart["septum"] + rng.normal(0, 0.04)  # each slice has its own breath-hold
    sigma = 2.5 / pixel
    texture = ndimage.gaussian_filter(rng.standard_normal((size, size)), sigma, mode="wrap")
    texture *= 2 * np.sqrt(np.pi) * sigma
    x, y = np.broadcast_arrays(grid[None, :] - breath[0], grid[:, None] - breath[1])
    across, along = x - heart["centre"][0] + 28 * (depth - 0.5), y - heart["centre"][1] - 4 * (depth - 0.5)
    p, q = np.cos(turn) * across + np.sin(turn) * along, np.cos(turn) * along - np.sin(turn) * across
    layers, mask = _heart(heart, frame, plane, p, q, texture)
    return _chest(heart, depth, x, y, texture) + layers, mask, texture


def _receive(heart: dict, size: int, strength: float) -> np.ndarray:
    """Receive field (size, size) of three surface coils, 1 in the middle: smooth, and strongest close to a coil."""
    grid = (np.arange(size) + 0.5) * FIELD / size - FIELD / 2
    field = sum((1 + ((grid - x) ** 2 + (grid[:, None] - y) ** 2) / 90**2) ** -2 for x, y in heart["coils"])
    return (field / field[size // 2, size // 2]) ** (strength / 2)


def _acquire(rng, layers, texture, heart, scanner, difficulty) -> np.ndarray:
    """uint16 magnitude image: signals of the layers, receive field, motion, a part of k-space, complex noise."""
    _, _, noise, strength, resolution, counts = SCANNERS[scanner]
    signals, size = _signals(scanner, difficulty), len(texture)
    pixel = FIELD / size
    signal = np.zeros((size, size))
    for distance, edge, tissue in layers:
        cover = (0.5 - distance / max(pixel, edge)).clip(0, 1)
        flow = 0.08 * texture if tissue in ("blood", "venous", "stomach") else 0.03 * texture
        signal += cover * (signals[tissue] * (1 + flow) - signal)
    signal *= _receive(heart, size, strength)
    rows, columns = np.meshgrid(*[fft.fftfreq(size, pixel)] * 2, indexing="ij")  # cycles per mm
    limit = 0.5 / max(resolution, pixel)
    window = np.prod([((limit - np.abs(k)) / (0.2 * limit)).clip(0, 1) for k in (rows, columns)], axis=0)
    move = rng.normal(0, 0.8, 2)  # mm during the exposure
    noise = (1 + difficulty) * noise / np.sqrt((window**2).mean())
    spectrum = fft.fft2(signal) * np.sinc(rows * move[0] + columns * move[1])
    spectrum += fft.fft2(noise * (rng.standard_normal((size, size)) + 1j * rng.standard_normal((size, size))))
    return quantise(counts * heart["gain"] * np.abs(fft.ifft2(spectrum * window)), np.uint16)


def mr(
    *,
    images: int = 200,
    patients: int | None = None,
    size: int = 128,
    difficulty: float = 0.0,
    scanner: str | tuple[str, ...] = "1.5T",
    seed: int = 0,
) -> ImageSet:
    """Phantom short-axis cine MR of the heart, in the manner of ACDC: three groups of patients, masks of three parts.

    images: magnitudes, uint16. masks: 1 right ventricle, 2 myocardium, 3 left ventricle with its papillary muscles.
    labels: group of the patient. A stack has ten slices from above the valve (0) to the apex, at end-diastole (frame 0)
    and end-systole (1). The images of a patient alternate between the frames and spread over the heart: 20 make two
    whole stacks, more a second examination with volumes of its own. difficulty: 0 (plain to see) to 1 (blood hardly
    brighter than muscle, twice the noise). scanner: "1.5T", or "3T" with less noise, finer pixels and a stronger
    receive field. The same seed gives the same anatomy on both.

    Raises ValueError as `patients_of`.
    """
    asked = dict(images=images, patients=patients, size=size, difficulty=difficulty, scanner=scanner)
    patient_of, scanner_of = patients_of(**asked, scanners=tuple(SCANNERS), turn=len(GROUPS))
    count = patient_of.max() + 1
    hearts = [_patient(np.random.default_rng([seed, 0, p]), p % len(GROUPS)) for p in range(count)]
    turn, frames = np.divmod(np.arange(images) // count, 2)
    start = np.array([heart["start"] for heart in hearts])[patient_of]
    slices = (np.array(ORDER)[turn % SLICES] + start) % SLICES
    pixels, masks = np.empty((images, 1, size, size), np.uint16), np.empty((images, size, size), np.uint8)
    for i, (patient, frame, plane) in enumerate(zip(patient_of, frames, slices, strict=True)):
        heart = hearts[patient]
        layers, masks[i], texture = _anatomy(np.random.default_rng([seed, 1, i]), heart, frame, plane, size)
        pixels[i, 0] = _acquire(np.random.default_rng([seed, 2, i]), layers, texture, heart, scanner_of[i], difficulty)
    return ImageSet(
        name=f"phantom-mr-{size}",
        modality="MR",
        images=pixels,
        value_range=(0, 1100),
        labels=patient_of % len(GROUPS),
        masks=masks,
        patients=patient_of,
        scanners=scanner_of,
        volumes=(turn // SLICES * count + patient_of) * 2 + frames,
        slices=slices,
        frames=frames,
        spacing=(FIELD / size, FIELD / size),
        slice_spacing=np.array([_position(heart, 1) - _position(heart, 0) for heart in hearts])[patient_of],
        class_names=tuple(GROUPS),
        mask_names=("background", "right ventricle", "myocardium", "left ventricle"),
        licence="Apache-2.0 (generated)",
        citation="Generated here; the task follows ACDC, Bernard et al. 2018, doi 10.1109/TMI.2018.2837502",
        steps=("generated",),
    )
