"""Phantom CT of the abdomen: axial slices in Hounsfield units (HU), venous phase, half of the patients with tumours.

Painted from back to front in a standard patient, in mm to the patient's left (x; right in the image), to the back (y)
and to the head (z, 0 at the renal hilum), who is then stretched and bent.
"""

from __future__ import annotations

import numpy as np
from scipy import fft, ndimage

from helpers.data.image_set import ImageSet
from helpers.data.phantoms.common import patients_of, quantise

FIELD = 360.0  # mm: side of the square field
SLICES, SPACING = 16, 5.0  # of a volume; mm from one slice to the next
ATTENUATION = 0.01  # per mm: what the bow-tie filter and the modulated tube current leave of that of water
# Kernels of the reconstruction: where the transfer falls off (cycles a pixel), its overshoot, noise (HU) at dose 1.
SCANNERS = {"soft": (0.38, 0.0, 9.0), "sharp": (0.46, 3.0, 20.0)}
LIVER, KIDNEY, SPLEEN, TUMOUR = 1, 2, 3, 4
# Ellipsoids: centre x, y, z and semi-axes x, y, z (mm), tilt (radians), how far x moves for each mm of z.
SHAPES = {
    "liver": ((-76, -4, 62, 72, 84, 88, 0, 0.36), (6, -58, 72, 62, 34, 46, 0.15, 0.2), (-18, -8, 58, 18, 14, 26, 0, 0)),
    "gallbladder": ((-50, -48, 16, 14, 19, 27, 0.4, 0),),
    "spleen": ((95, 36, 60, 33, 52, 54, 0.45, 0.2),),
    "stomach": ((58, -26, 70, 42, 36, 50, 0.6, 0.3),),
    "pancreas": ((-28, -24, 8, 16, 15, 26, 0, 0), (14, -28, 22, 32, 10, 12, -0.3, 0), (58, -8, 36, 28, 11, 14, 0.5, 0)),
    "flexures": ((-84, -38, -22, 24, 22, 34, 0.2, 0), (66, -60, 22, 25, 17, 20, 0.5, 0)),
    "colon": ((-42, -66, 6, 27, 15, 17, 0.2, 0), (18, -70, 14, 30, 14, 16, 0, 0), (100, -14, 4, 17, 19, 46, 0, -0.1)),
    "portal": ((-12, -22, 24, 7, 6, 22, 0.3, -1.1), (36, -14, 26, 36, 4, 7, 0.3, 0)),  # and splenic vein
    "mesenteric": ((4, -27, -30, 5.5, 5.5, 42, 0, -0.1), (14, -27, -30, 3.5, 3.5, 46, 0, -0.15)),  # vein and artery
    "kidneys": ((-66, 35, -4, 26, 30, 54, -0.5, 0.22), (66, 35, 8, 26, 30, 56, 0.5, -0.22)),
    "renal": ((-34, 6, 0, 25, 4.5, 6, -0.75, 0), (32, -2, 5, 32, 4.5, 6, 0.75, 0)),  # veins
    "trunks": ((6, -11, 0, 9.5, 9.5, 1e4, 0, 0), (-25, -9, 0, 12, 8.5, 1e4, 0.2, 0)),  # aorta, inferior vena cava
}
MIRROR = np.array(((1, 1, 1, 1, 1, 1, 1, 1), (-1, 1, 1, 1, 1, 1, -1, -1)))  # what follows is on both sides
MUSCLES = ((32, 67, 0, 30, 19, 500, 0.2, 0), (33, 28, -45, 15, 17, 85, 0, -0.1), (15, 2, 55, 4, 15, 50, 0.3, 0))
ARCH = ((16, 44, 6, 5.5, 10, 9, 0, 0), (10, 59, -5, 14, 5, 16, -0.6, 0))  # of a vertebra, z from its middle
PROCESSES = ((32, 53, 5, 17, 4.5, 7, -0.25, 0), (18, 53, -14, 8, 8, 11, 0.3, 0), (0, 71, -8, 4, 16, 13, 0, 0))


class _Slice:
    """A slice at z to paint on: HU and labels, bent axes x, y and ripples in mm, two textures of unit variance."""

    def __init__(self, rng, anatomy, z, size):
        grid = (np.arange(size) + 0.5) / size * FIELD - FIELD / 2
        self.columns, self.rows, self.z = grid / anatomy["stretch"][0], grid / anatomy["stretch"][1], z
        height, down, across, along, first, second = np.moveaxis(anatomy["waves"], 2, 0)[..., None]
        fields = (height * np.sin(down * self.rows + along * z + first)).swapaxes(1, 2)  # change slowly with z
        across, down, self.ripples = fields @ np.sin(across * self.columns + second)
        self.x, self.y = across + self.columns, down + self.rows[:, None]
        sigmas = 1.8 * size / FIELD, 6.0 * size / FIELD
        grains = [ndimage.gaussian_filter(rng.standard_normal((size, size)), sigma, mode="wrap") for sigma in sigmas]
        self.fine, self.coarse = (grain / grain.std() for grain in grains)
        self.hu, self.mask = np.full((size, size), -1000.0), np.zeros((size, size), np.uint8)

    def paint(self, distance, value, label=None, *, box=np.s_[:, :]):
        """Give what lies at distance < 0 a value (HU), and a label if there is one; edges are a pixel wide."""
        hu = self.hu[box]
        hu += (0.5 - distance / (self.columns[1] - self.columns[0])).clip(0, 1) * (value - hu)
        if label is not None:
            self.mask[box][distance < 0] = label

    def cut(self, shapes, *, z=None):
        """Of the ellipsoids that the slice cuts: themselves, a window around each, the distance (mm) to its surface."""
        z = self.z if z is None else z
        for shape in shapes:
            x, y, middle, a, b, c, _, lean = shape[:8]
            depth = z - middle
            if abs(depth) < c:
                x, span = x + lean * depth, (max(a, b) * np.sqrt(1 - (depth / c) ** 2) + 12) * np.array((-1, 1))
                box = slice(*np.searchsorted(self.rows, y + span)), slice(*np.searchsorted(self.columns, x + span))
                yield shape, box, _ellipsoid(shape, self.x[box], self.y[box], z)


def _ellipsoid(shape, x, y, z):
    """Distance (mm) to the surface of an ellipsoid, to first order, negative inside."""
    x0, y0, z0, a, b, c, tilt, lean = shape[:8]
    x, y, z = x - x0 - lean * (z - z0), y - y0, z - z0
    u, v = np.cos(tilt) * x + np.sin(tilt) * y, np.cos(tilt) * y - np.sin(tilt) * x
    near = np.sqrt((u / a) ** 2 + (v / b) ** 2 + (z / c) ** 2)
    slope = np.sqrt((u / a**2) ** 2 + (v / b**2) ** 2 + (z / c**2) ** 2)
    return near * (near - 1) / (slope + 1e-9)


def _oval(x, y, a, b):
    """Distance (mm) to an oval somewhat squarer than an ellipse, to first order, negative inside."""
    u, v = (x / a) ** 2, (y / b) ** 2
    near = 0.65 * np.sqrt(u + v) + 0.35 * np.sqrt(np.sqrt(u**2 + v**2))
    return (near - 1) * np.hypot(x, y) / (near + 1e-9)


def _tumours(rng, anatomy, difficulty):
    """Ellipsoids deep in the liver, one large or three small, close to the middle of the volume."""
    large, tumours = rng.random() < 0.2, []
    heights = rng.uniform(-10, 10, 1) if large else np.array((-23, 0, 23)) + rng.uniform(-5, 5, 3)
    for z in anatomy["middle"] + heights:
        radii = rng.uniform(*((24, 31) if large else (12, 17)), 3) * (1 - 0.2 * difficulty)
        x, y = rng.uniform((-98, -55), (-40, 45), (60, 2)).T
        liver = np.min([_ellipsoid(lobe, x, y, z) for lobe in anatomy["liver"]], axis=0)
        outside = [9 - _ellipsoid(anatomy[organ][0], x, y, z) for organ in ("kidneys", "gallbladder")]
        deepest = np.argmin(np.max([liver, *outside], axis=0).clip(-16))
        tumours.append((x[deepest], y[deepest], z, *radii, rng.uniform(0, np.pi), 0))
    return tumours


def _patient(rng, ill: bool, difficulty: float) -> dict:
    """Anatomy that all images of a patient share: ellipsoids by organ, and what else varies, in mm."""
    anatomy = {}
    for organ, shapes in SHAPES.items():
        grown = np.array(shapes) * np.exp(rng.normal(0, (0, 0, 0, 0.07, 0.07, 0.07, 0, 0), (len(shapes), 8)))
        moved = grown + rng.normal(0, (3, 3, 6, 0, 0, 0, 0.1, 0), grown.shape)
        anatomy[organ] = np.column_stack([moved, rng.uniform(-1.1, 0.4, len(shapes))])  # the last: level of the gas
    low, high = (-25, -68, -50, 12, 9, 16, -1, 0, -1.8), (90, -30, 46, 19, 13, 30, 1, 0, -0.2)
    anatomy["bowel"] = rng.uniform(low, high, (16, 9))
    low, high = (0, 10, 10, 2, 5, 0, -1), (75, 105, 22, 4, 14, 6.3, 1)
    reach, *vessels = rng.uniform(low, high, (24, 7)).T  # in the liver, radial from its hilum
    anatomy["vessels"] = np.column_stack([reach * np.cos(vessels[4]) - 45, reach * np.sin(vessels[4]) - 10, *vessels])
    anatomy["middle"] = rng.uniform(24, 55)
    anatomy["tumours"] = _tumours(rng, anatomy, difficulty) if ill else []
    bend, ripple = (1.5, 0.045, 0.045, 0.01, 9, 9), (0.8, 0.13, 0.13, 0.04, 9, 9)
    return anatomy | {
        "waves": rng.standard_normal((3, 8, 6)) * np.array((bend, bend, ripple))[:, None],
        "stretch": rng.uniform((0.92, 0.92), (1.06, 1.12)),
        "fat": rng.uniform(6, 24) * rng.uniform((0.8, 0.6, 0.9), (1.2, 1.3, 1.2)),  # at the sides, front, back
        "phases": rng.random(2),  # of ribs and vertebrae
    }


def _trunk(plane, anatomy):
    """Paint table, skin, fat, muscles, ribs, the lungs behind the liver, and the fat in the abdomen: where that is."""
    x, y, z, fine = plane.x, plane.y, plane.z, plane.fine
    side, front, back = anatomy["fat"]
    plane.paint(np.abs(np.hypot(plane.columns, plane.rows[:, None] + 402 - back) - 500) - 2.5, 150)
    body = _oval(x, y - (back - front) / 2, 132 + side, 94 + (front + back) / 2)
    plane.paint(body, 10)
    plane.paint(body + 2, -106 + 5 * fine)
    fascia, muscle = _oval(x, y, 132, 94), 58 + 6 * fine - 25 * (plane.coarse - 1).clip(0)
    plane.paint(fascia, muscle)
    plane.paint(np.abs(fascia + 5 + plane.ripples) + plane.ripples - 0.4, -60)  # fat between the layers of the wall
    around, period = np.arctan2(np.abs(x), y), 2 * np.pi / 11
    turn = (around + (z / 28 + anatomy["phases"][0] + 0.3 * (x > 0)) * period) % period - period / 2
    rib = 4 * np.hypot((fascia + 7) / 4, turn / 0.11) - 4  # ribs slope down to the front
    rib = np.maximum(rib, 100 * np.maximum(around - 1.4 - 0.016 * z, 0.6 - around))
    plane.paint(rib, 620)
    plane.paint(rib + 2.2, 230)
    plane.paint(_oval(x, y - 72, 62, 28), -85 + 6 * fine)
    cavity = np.maximum(_oval(x, y + 4, 120, 82), 44 - np.hypot(0.85 * x, y - 76))
    rise = 0.45 * max(0.0, z - 48)  # the abdomen narrows under the diaphragm
    within = np.maximum(cavity, _oval(x, y + 4 + 0.6 * rise, 120 - 0.5 * rise, 82 - 0.6 * rise))
    plane.paint(cavity + 1.5, -865 + 25 * fine + 500 * (fine - 1.9).clip(0))
    plane.paint(within - 2, muscle)
    plane.paint(within, -104 + 7 * fine + 220 * (fine - 1.7).clip(0, 1))
    return within


def _organs(plane, shapes, value, label, within, moat=1.5):
    """Paint organs, with fat between them and what lies behind; yields each, its window and its distances (mm)."""
    for shape, box, distance in plane.cut(shapes):
        distance = np.maximum(distance + (0.4 if label else 1) * plane.ripples[box], within[box] + 1)
        plane.paint(distance - moat, -100, 0, box=box)
        plane.paint(distance, value + 4 * plane.fine[box], label, box=box)
        yield shape, box, distance


def _digestive(plane, anatomy, within, contrast):
    """Paint liver with vessels and tumours, gallbladder, spleen, pancreas, veins, and hollow organs with gas on top."""
    fine, coarse = plane.fine, plane.coarse
    lobes = [_ellipsoid(lobe, plane.x, plane.y, plane.z).clip(-80, 80) for lobe in anatomy["liver"]]
    union = -8 * np.log(np.exp(np.divide(lobes, -8)).sum(axis=0))  # rounded where lobes meet
    liver = np.maximum(union + 0.4 * plane.ripples, within + 1)
    plane.paint(liver, 105 + 3 * fine + 2 * coarse, LIVER)
    for _, box, distance in plane.cut(anatomy["vessels"]):
        plane.paint(np.maximum(distance + plane.ripples[box], liver[box] + 3), 152, box=box)
    for shape, box, distance in plane.cut(anatomy["tumours"]):
        distance = np.maximum(distance + 1.5 * plane.ripples[box], liver[box])
        plane.paint(distance - 1.5, 105 + 0.35 * contrast, box=box)
        plane.paint(distance, 105 - contrast * (1 + 0.1 * coarse[box]), TUMOUR, box=box)
        plane.paint(distance + 0.5 * shape[3], 105 - contrast * (1.4 + 0.1 * coarse[box]), box=box)
    solid = {"gallbladder": 12, "spleen": 118, "pancreas": 92, "portal": 152, "mesenteric": 152}
    for organ, value in solid.items():
        list(_organs(plane, anatomy[organ], value, SPLEEN if organ == "spleen" else 0, within))
    beside, faeces = np.maximum(within, 2 - liver), 40 - 420 * (fine - 0.2).clip(0, 1.5)
    contents = {"bowel": 35 + 5 * fine, "flexures": faeces, "colon": faeces, "stomach": 20 + 8 * coarse}
    for organ, inside in contents.items():
        for shape, box, distance in _organs(plane, anatomy[organ], 88, 0, beside):
            above = plane.rows[box[0], None] - shape[1] - shape[8] * shape[4]
            plane.paint(distance + 3, inside[box], box=box)
            plane.paint(np.maximum(distance + 3, above), -980, box=box)


def _kidneys(plane, anatomy, within):
    """Paint the kidneys in their fat: cortex, medulla, and a sinus that opens to the middle and the front."""
    kidneys, moat = anatomy["kidneys"], 3 + 0.25 * anatomy["fat"][0]
    for shape, box, distance in _organs(plane, kidneys, 186, KIDNEY, within + 3, moat):
        plane.paint(distance + 7 + 2.5 * plane.ripples[box], 156, box=box)
        x, y, z, lean, side = *shape[:3], shape[7], np.sign(shape[0])
        sinus = [(x - 14 * side, y - 7, z, 21 - d, 9 - d, 31 - d, 0.5 * side, lean) for d in (0, 5)]
        for (_, box, distance), value in zip(plane.cut(sinus), (-90, 30), strict=False):  # fat and the pelvis in it
            plane.paint(distance + plane.ripples[box], value, 0, box=box)


def _back(plane, anatomy):
    """Paint the muscles of the back, a vertebra or disc with its canal, and the large vessels in front of them."""
    for _, box, distance in plane.cut([shape for row in MUSCLES for shape in row * MIRROR]):
        distance += plane.ripples[box]
        plane.paint(distance - 1, -90, 0, box=box)
        plane.paint(distance, 58 + 6 * plane.fine[box] - 60 * (plane.coarse[box] - 0.9).clip(0), box=box)
    height = (plane.z + 35 * anatomy["phases"][1]) % 35 - 21  # above the middle of the vertebra; the disc is at -17.5
    for _, box, distance in plane.cut([shape for row in ARCH + PROCESSES for shape in row * MIRROR], z=height):
        plane.paint(distance, 480, 0, box=box)
        plane.paint(distance + 2.5, 260, box=box)
    bony = np.clip(min(abs(height + 17.5), abs(height - 17.5)) / SPACING - 0.2, 0, 1)  # the rest is disc
    for _, box, _ in plane.cut([(0, 22, 0, 45, 45, np.inf, 0, 0)]):
        x, y = plane.x[box], plane.y[box]
    body = np.maximum(_oval(x, y - 22, 26, 19), 11 - np.hypot(x, y - 50))
    plane.paint(body - 1.5, -60, 0, box=box)
    plane.paint(body, 100 + 400 * bony, box=box)
    plane.paint(body + 1.8, 85 + (110 + 25 * plane.fine[box]) * bony, box=box)
    plane.paint(np.hypot(x, y - 49) - 8.5, 25, box=box)
    for _, window, distance in plane.cut([*anatomy["renal"], *anatomy["trunks"]]):
        plane.paint(distance, 152, 0, box=window)


def _acquire(rng, hu, anatomy, scanner, dose) -> np.ndarray:
    """int16 HU with the blur and noise of a kernel: Riederer, Pelc and Chesler 1978, Phys. Med. Biol. 23, 446."""
    (width, overshoot, noise), size = SCANNERS[scanner], len(hu)
    down, across = np.meshgrid(fft.fftfreq(size), fft.rfftfreq(size), indexing="ij")  # cycles a pixel
    frequency = np.hypot(down, across)
    transfer = (1 + overshoot * frequency**2) * np.exp(-((frequency / width) ** 2))
    side, front, back = anatomy["fat"]
    a, b = anatomy["stretch"] * (132 + side, 94 + (front + back) / 2)  # mm: half the width and height of the body
    path = 2 * a * b * frequency / (np.hypot(a * across, b * down) + 1e-12)  # mm of the rays in such a view
    power = frequency * transfer**2  # of filtered back-projection: a ramp times the squared transfer
    power *= np.exp(ATTENUATION * (path - 260)) / power.mean()
    grain = fft.irfft2(fft.rfft2(rng.standard_normal((size, size))) * np.sqrt(power), s=hu.shape)
    grid = (np.arange(size) + 0.5) / size * FIELD - FIELD / 2
    inside = np.sqrt((1 - (grid / a) ** 2 - (grid[:, None] / b) ** 2).clip(0))
    level = noise / np.sqrt(dose) * np.exp(ATTENUATION * np.sqrt(a * b) * (inside - 1))
    return quantise((fft.irfft2(fft.rfft2(hu) * transfer, s=hu.shape) + level * grain).clip(-1024, 3071), np.int16)


def ct(
    *,
    images: int = 200,
    patients: int | None = None,
    size: int = 128,
    difficulty: float = 0.0,
    scanner: str | tuple[str, ...] = "soft",
    dose: float = 1.0,
    seed: int = 0,
) -> ImageSet:
    """Phantom CT slices of the abdomen in Hounsfield units, int16: every second patient has tumours in the liver.

    masks: 1 liver with its vessels, 2 kidneys, 3 spleen, 4 tumour. labels: whether the slice shows a tumour. A volume
    has 16 slices, 5 mm apart, numbered towards the head; a patient's images grow from its middle, so that any number is
    contiguous, and more than 16 are a second examination. difficulty: 0 (plain to see) to 1 (tumours a third as dark,
    four fifths as large). scanner: kernel "soft", or "sharp" with more detail and noise. Standard deviation of the
    noise: as 1 / sqrt(dose). The same seed gives the same anatomy for all kernels and doses.

    Raises ValueError as `patients_of`, and for a dose that is not above 0 and finite.
    """
    if not 0 < dose < np.inf:
        raise ValueError(f"dose is {dose}; expected a finite number above 0")
    patient_of, scanner_of = patients_of(
        images=images, patients=patients, size=size, difficulty=difficulty, scanner=scanner, scanners=tuple(SCANNERS)
    )
    count = patient_of.max() + 1
    anatomies = [_patient(np.random.default_rng([seed, 0, p]), p % 2 == 1, difficulty) for p in range(count)]
    volumes, step = np.divmod(np.arange(images) // count, SLICES)
    slices = SLICES // 2 - 1 + (step + 1) // 2 * np.where(step % 2, 1, -1)
    pixels, masks = np.empty((images, 1, size, size), np.int16), np.empty((images, size, size), np.uint8)
    for i, anatomy in enumerate(anatomies[patient] for patient in patient_of):
        z = anatomy["middle"] + (slices[i] - SLICES / 2) * SPACING + 1.7 * volumes[i] % SPACING
        plane = _Slice(np.random.default_rng([seed, 1, i]), anatomy, z, size)
        within = _trunk(plane, anatomy)
        _digestive(plane, anatomy, within, 45 - 30 * difficulty)
        _kidneys(plane, anatomy, within)
        _back(plane, anatomy)
        masks[i] = plane.mask
        pixels[i, 0] = _acquire(np.random.default_rng([seed, 2, i]), plane.hu, anatomy, scanner_of[i], dose)
    return ImageSet(
        name=f"phantom-ct-{size}",
        modality="CT",
        images=pixels,
        value_range=(-160, 240),
        labels=(masks == TUMOUR).any(axis=(1, 2)).astype(np.int64),
        masks=masks,
        patients=patient_of,
        scanners=scanner_of,
        volumes=volumes * count + patient_of,
        slices=slices,
        spacing=(FIELD / size, FIELD / size),
        slice_spacing=np.full(images, SPACING),
        class_names=("no tumour", "tumour"),
        mask_names=("background", "liver", "kidneys", "spleen", "tumour"),
        licence="Apache-2.0 (generated)",
        citation="Generated here; the task follows LiTS, Bilic et al. 2023, doi 10.1016/j.media.2022.102680",
        steps=("generated",),
    )
