"""The retinal OCT phantom: frozen pixels, order of the layers, and the physics of speckle, shadow and attenuation."""

from importlib import import_module

import numpy as np
import pytest
from scipy import ndimage

from helpers.data.phantoms.oct import CLASSES, DEPTH, LAYERS, SCANNERS, STRATA, oct

module = import_module("helpers.data.phantoms.oct")  # the package has the function under this name

NUMBER = {name: i for i, name in enumerate(LAYERS)}
BOTH = tuple(SCANNERS)


def of_layer(scans, name) -> np.ndarray:
    return scans.masks == NUMBER[name]


def mean_grey(scans, where) -> float:
    return scans.images[:, 0][where].mean()


@pytest.fixture(scope="module")
def plain():
    return oct(images=30, patients=15, seed=5)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (dict(size=48, scanner=BOTH, seed=7), "3fc7b3ec43a6c8c7"),
        (dict(size=65, scanner=BOTH, difficulty=0.6, seed=8), "9fb7997d687396ba"),
    ],
)
def test_phantom_is_frozen(arguments, expected):
    assert oct(images=9, patients=6, **arguments).content_hash() == expected


def test_anatomy_is_the_same_on_both_scanners_and_differs_between_seeds():
    tracked, cube = (oct(images=6, size=64, scanner=s, seed=1) for s in BOTH)
    assert (tracked.masks == cube.masks).all()
    assert (tracked.images != cube.images).mean() > 0.9
    assert (tracked.masks != oct(images=6, size=64, seed=2).masks).any((1, 2)).all()


@pytest.mark.parametrize("size", [32, 96])
@pytest.mark.parametrize("difficulty", [0, 1])
def test_labels_agree_with_masks(size, difficulty):
    scans = oct(images=30, patients=15, size=size, difficulty=difficulty)
    for label, name in enumerate(CLASSES[1:], start=1):
        assert (of_layer(scans, name).any((1, 2)) == (scans.labels == label)).all()
    assert np.bincount(scans.labels).tolist() == [10, 10, 10]


@pytest.mark.parametrize("size", [32, 128])
def test_layers_are_in_order_in_every_column(size):
    scans = oct(images=15, patients=15, size=size, seed=3)
    for column in np.moveaxis(scans.masks, 1, 2).reshape(-1, size):
        layers = column[column < NUMBER["drusen"]].astype(int)
        assert (np.diff(layers) >= 0).all()
        assert layers[0] == NUMBER["vitreous"] and layers[-1] >= NUMBER["choroid"]


def test_outer_layers_are_in_every_column(plain):
    for name in ("vitreous", "EZ", "RPE", "choroid"):
        assert of_layer(plain, name).any(1).all()


def test_drusen_lie_between_rpe_and_choroid_and_lift_the_rpe(plain):
    masks, drusen = plain.masks, of_layer(plain, "drusen")
    first, last = drusen & ~np.roll(drusen, 1, axis=1), drusen & ~np.roll(drusen, -1, axis=1)
    assert (np.roll(masks, 1, axis=1)[first] == NUMBER["RPE"]).all()
    assert (np.roll(masks, -1, axis=1)[last] == NUMBER["choroid"]).all()


def test_fluid_thickens_the_retina_and_lies_inside_it(plain):
    retina = np.isin(plain.masks, [NUMBER[n] for n in (*LAYERS[1:8], "fluid")]).sum(1).max(1) * DEPTH / 128
    assert retina[plain.labels == 2].mean() > retina[plain.labels == 0].mean() + 0.1
    fluid = of_layer(plain, "fluid")
    above, below = np.roll(plain.masks, 1, axis=1)[fluid], np.roll(plain.masks, -1, axis=1)[fluid]
    assert set(above) <= {NUMBER[name] for name in ("RNFL", "GCL+IPL", "INL", "OPL", "ONL", "EZ", "fluid")}
    assert set(below) <= {NUMBER[name] for name in ("INL", "OPL", "ONL", "EZ", "RPE", "fluid")}


def test_healthy_thickness_is_that_of_eyes():
    """Retina from ILM to Bruch's membrane: about 0.22 mm in the foveal pit, 0.34 mm on its rim, thinner further out."""
    across = np.array([0.0, 1.0, 3.0])
    totals = []
    for patient in range(40):
        layers = module._thickness(module._patient(np.random.default_rng(patient)), across, 0.0)
        totals.append(sum(value for name, value in layers.items() if name != "choroid"))
    pit, rim, far = np.mean(totals, axis=0)
    assert 0.19 < pit < 0.25 and 0.31 < rim < 0.37 and far < rim - 0.02
    assert np.std(totals, axis=0)[1] > 0.008


def test_brightness_of_the_layers(plain):
    grey = {name: mean_grey(plain, of_layer(plain, name)) for name in LAYERS}
    assert min(grey["RPE"], grey["RNFL"]) > grey["GCL+IPL"] > grey["INL"] > grey["ONL"] > grey["vitreous"] + 20
    assert grey["OPL"] > grey["INL"] + 10
    assert grey["EZ"] > grey["ONL"] + 35
    assert grey["choroid"] > grey["sclera"] + 10


@pytest.mark.parametrize("scanner", BOTH)
@pytest.mark.parametrize(("difficulty", "least"), [(0, 40), (1, 15)])
def test_fluid_is_darker_than_its_surroundings(scanner, difficulty, least):
    scans = oct(images=12, patients=12, scanner=scanner, difficulty=difficulty)
    for image, fluid in zip(
        scans.images[scans.labels == 2, 0], of_layer(scans, "fluid")[scans.labels == 2], strict=True
    ):
        ring = ndimage.binary_dilation(fluid, iterations=3) & ~ndimage.binary_dilation(fluid)
        assert image[ring].mean() - image[fluid].mean() > least


@pytest.mark.parametrize("frames", [1, 4, 16])
def test_speckle_contrast_falls_with_averaging(frames):
    """Intensity without signal: mean at the noise level, standard deviation of 1/√frames; exponential for one frame."""
    settings = dict(frames=frames, axial=0.7, lateral=0.6, noise=0.05, floor_db=-50.0, range_db=60.0)
    grey = module._scan(np.random.default_rng(0), np.zeros((256, 256)), settings)
    intensity = 10 ** ((grey / 255 * 60 - 50) / 10)
    assert intensity.mean() == pytest.approx(0.05, rel=0.01)
    assert intensity.std() / intensity.mean() == pytest.approx(frames**-0.5, rel=0.03)
    if frames == 1:
        assert (intensity < intensity.mean()).mean() == pytest.approx(1 - np.exp(-1), abs=0.02)


def test_neighbouring_speckle_is_correlated_as_far_as_the_point_spread():
    settings = SCANNERS["cube"] | dict(frames=1, axial=1.0, lateral=0.5, floor_db=-50.0, range_db=60.0)
    grey = module._scan(np.random.default_rng(0), np.zeros((256, 256)), settings).astype(float)
    along, across = (np.corrcoef(grey.ravel(), np.roll(grey, 1, axis).ravel())[0, 1] for axis in (0, 1))
    far = np.corrcoef(grey.ravel(), np.roll(grey, 8, 0).ravel())[0, 1]
    assert along > 0.4 > 0.2 > across > 0.05 > abs(far)


def test_vessels_cast_shadows(monkeypatch, plain):
    """Without absorption by vessels, columns below them are brighter, and nothing else changes."""
    monkeypatch.setattr(module, "SHADOW", 1.0)
    without = oct(images=30, patients=15, seed=5)
    gained = without.images[:, 0].astype(float) - plain.images[:, 0]
    shadow = gained > 3
    assert 0.01 < shadow.mean() < 0.2
    assert (shadow & of_layer(plain, "RPE")).sum() > 100
    assert gained[of_layer(plain, "RPE") & shadow].mean() > 20
    assert (gained[of_layer(plain, "vitreous")] == 0).mean() > 0.999


def test_drusen_and_light_below():
    """Below larger drusen less light comes back from the choroid; away from them nothing changes."""
    large, small = (oct(images=40, patients=40, size=96, difficulty=d, seed=6) for d in (0, 1))
    choroid = of_layer(large, "choroid") & of_layer(small, "choroid") & (large.labels == 1)[:, None, None]
    under = np.broadcast_to(of_layer(large, "drusen").sum(1, keepdims=True), choroid.shape)
    change = large.images[:, 0].astype(float) - small.images[:, 0]
    assert change[choroid & (under > 3)].mean() < -5
    assert abs(change[choroid & (under == 0)].mean()) < 1


def test_light_decays_with_depth():
    """Through homogeneous sclera the signal falls by exp(-2 μ z)."""
    slopes, expected = [], []
    for patient in range(20):
        anatomy = module._patient(np.random.default_rng(patient))
        signal, mask = module._tissue(np.random.default_rng(patient), anatomy, 0, 0, 128)
        sclera = mask == NUMBER["sclera"]
        both = sclera[:-1] & sclera[1:]
        slopes.append(np.diff(np.log(signal), axis=0)[both].mean() * 128 / DEPTH)
        expected.append(-2 * STRATA[-1][2] * anatomy["attenuation"][-1])
    assert np.mean(slopes) == pytest.approx(np.mean(expected), rel=0.05)


def test_images_of_a_patient_share_the_anatomy():
    """The choroid is about as thick in all B-scans of a patient, and less alike between patients."""
    scans = oct(images=60, patients=6, size=64, seed=1)
    thick = of_layer(scans, "choroid").sum(1).mean(1)
    means = np.array([thick[scans.patients == p].mean() for p in range(6)])
    within = np.mean([thick[scans.patients == p].std() for p in range(6)])
    assert means.std() > 2 * within


def test_brightness_does_not_give_the_label_away():
    scans = oct(images=180, patients=180, size=40)
    for values in (scans.images.mean((1, 2, 3)), scans.images.var((1, 2, 3))):
        for label in (1, 2):
            above = values[scans.labels == label][:, None] > values[scans.labels == 0]
            assert 0.3 < above.mean() < 0.7  # area under the ROC curve
