"""The MR phantom: frozen pixels, the heart over the slices and the cycle, and the physics of the acquisition."""

from importlib import import_module

import numpy as np
import pytest
from scipy import ndimage

from helpers.data.phantoms.mr import mr

phantom = import_module("helpers.data.phantoms.mr")  # the package has the function under this name

RV, MYOCARDIUM, LV = 1, 2, 3


@pytest.fixture(scope="module")
def stacks():
    """Both whole stacks of six patients, two of each group."""
    return mr(images=120, patients=6, size=96, scanner=("1.5T", "3T"), seed=5)


def hearts(count: int) -> list[dict]:
    return [phantom._patient(np.random.default_rng([0, 0, p]), p % len(phantom.GROUPS)) for p in range(count)]


def cut(heart: dict, frame: int, z: float) -> np.ndarray:
    """Inner and outer radius in a plane, 0 above the valve."""
    shape = phantom._ventricle(heart, frame)
    return np.array(phantom._radii(shape, z) if z >= shape["descent"] else (0.0, 0.0))


# --- the contract --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (dict(images=6, patients=3, size=48, scanner=("1.5T", "3T"), seed=7), "b6809d444a859081"),
        (dict(images=5, patients=1, size=40, scanner="3T", difficulty=0.6, seed=1), "ae09cda5be7bc892"),
    ],
)
def test_pixels_are_frozen(settings, expected):
    assert mr(**settings).content_hash() == expected
    assert mr(**settings | dict(seed=8)).content_hash() != expected


def test_anatomy_is_the_same_on_all_scanners_and_at_all_difficulties():
    plain, other, hard = (mr(images=6, patients=3, size=64, **k) for k in ({}, {"scanner": "3T"}, {"difficulty": 1}))
    assert (plain.masks == other.masks).all() and (plain.masks == hard.masks).all()
    assert (plain.images != other.images).mean() > 0.9 and (plain.images != hard.images).mean() > 0.9


def test_twenty_images_of_a_patient_make_two_whole_stacks(stacks):
    assert stacks.labels.tolist() == [0, 1, 2] * 40
    assert (stacks.volumes == 2 * stacks.patients + stacks.frames).all()
    for volume in range(12):
        assert sorted(stacks.slices[stacks.volumes == volume]) == list(range(phantom.SLICES))
    assert (stacks.slice_spacing > 7).all() and (stacks.slice_spacing < 13).all()
    assert len(np.unique(stacks.slice_spacing)) == 6


def test_few_images_spread_over_the_heart_and_many_are_a_second_examination():
    few = mr(images=16, patients=2, size=32)
    gaps = np.diff(np.sort(few.slices[few.volumes == 0]))
    assert len(gaps) == 3 and gaps.min() >= 2 and gaps.max() <= 4
    many = mr(images=44, patients=2, size=32)
    assert (many.volumes[:40] == 2 * many.patients[:40] + many.frames[:40]).all()
    assert many.volumes[40:].tolist() == [4, 6, 5, 7]
    assert (mr(images=16, patients=2, size=32).images == many.images[:16]).all()
    assert mr(images=3, patients=3, size=32).frames.tolist() == [0, 0, 0]


# --- the heart -----------------------------------------------------------------------------------------------------


def test_ventricle_sizes_are_spread_like_real_ones():
    """Areas at 1.75 mm: median near 200 pixels, up to about 1,700, some slices without a left ventricle."""
    radii = [
        cut(h, frame, phantom._position(h, k))[0]
        for h in hearts(200)
        for frame in (0, 1)
        for k in range(phantom.SLICES)
    ]
    areas = np.pi * np.square(radii) / 1.75**2
    assert 175 < np.median(areas) < 245
    assert 1400 < areas.max() < 1750
    assert 0.05 < (areas < 1).mean() < 0.15
    assert np.percentile(areas, 5) < 20 and 800 < np.percentile(areas, 95) < 1100


def test_drawn_areas_are_those_of_the_geometry(stacks):
    for i in range(0, 120, 7):
        heart = phantom._patient(np.random.default_rng([5, 0, stacks.patients[i]]), stacks.labels[i])
        inner = cut(heart, stacks.frames[i], phantom._position(heart, stacks.slices[i]))[0]
        assert (stacks.masks[i] == LV).sum() == pytest.approx(
            np.pi * inner**2 / stacks.spacing[i].prod(), rel=0.03, abs=5
        )


def test_ejection_fractions_of_masks_tell_the_groups_apart(stacks):
    volume = np.array([(stacks.masks[stacks.volumes == v] == LV).sum() for v in range(12)]).reshape(6, 2)
    ejection = 1 - volume[:, 1] / volume[:, 0]
    normal, dilated, hypertrophic = (ejection[stacks.labels[:6] == group] for group in range(3))
    assert dilated.max() < 0.42 < 0.5 < normal.min() and normal.mean() < hypertrophic.mean()
    assert normal.max() < 0.7 and hypertrophic.min() > 0.6
    end_diastole = volume[:, 0] * stacks.slice_spacing[:6]
    assert end_diastole[1::3].min() > end_diastole[0::3].max() > end_diastole[2::3].min()


def test_muscle_keeps_its_volume_and_thickens():
    for heart in hearts(30):
        diastole, systole = (np.array([cut(heart, f, z) for z in np.arange(-10, 140, 0.5)]) for f in (0, 1))
        mass = [(radii[:, 1] ** 2 - radii[:, 0] ** 2).sum() for radii in (diastole, systole)]
        assert mass[1] == pytest.approx(mass[0], rel=0.06)
        thin, thick = (np.subtract(*radii.max(0)[::-1]) for radii in (diastole, systole))
        assert thick > 1.05 * thin


def test_ventricle_lies_within_its_muscle(stacks):
    both = 0
    for mask in stacks.masks:
        if (mask == LV).any() and (mask == MYOCARDIUM).any():
            around = ndimage.binary_dilation(mask == LV) & (mask != LV)
            assert (mask[around] == MYOCARDIUM).all()
            both += 1
    assert both > 80
    assert not (stacks.masks == LV)[~(stacks.masks == MYOCARDIUM).any((1, 2))].any()


def test_right_ventricle_is_beside_the_left(stacks):
    """It is towards the sternum (left in the image), touches the septum, and some slices have none."""
    left, right = ((stacks.masks == k) for k in (LV, RV))
    seen = left.any((1, 2)) & right.any((1, 2))
    assert 0.5 < seen.mean() < 0.95
    for mask in stacks.masks[seen]:
        assert np.argwhere(mask == RV)[:, 1].mean() < np.argwhere(mask == LV)[:, 1].mean()
        assert (ndimage.binary_dilation(mask == RV) & (mask == MYOCARDIUM)).any()


# --- the acquisition -----------------------------------------------------------------------------------------------


def scan(layers: list, *, size: int = 128, scanner: str = "1.5T", difficulty: float = 0.0, seed: int = 3) -> np.ndarray:
    """One image of given layers, without texture and without gain."""
    heart = hearts(1)[0] | {"gain": 1.0}
    return phantom._acquire(
        np.random.default_rng(seed), layers, np.zeros((size, size)), heart, scanner, difficulty
    ).astype(float)


@pytest.mark.parametrize("scanner", phantom.SCANNERS)
def test_noise_without_signal_is_rayleigh_distributed(scanner):
    """Mean over standard deviation is √(π / (4 - π)) = 1.91, and its level is that of the scanner at all sizes."""
    sigma = phantom.SCANNERS[scanner][2] * phantom.SCANNERS[scanner][5]
    for size, difficulty in ((128, 0), (128, 1), (200, 0)):
        air = scan([], size=size, scanner=scanner, difficulty=difficulty)
        assert air.mean() / air.std() == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.03)
        assert air.mean() == pytest.approx(np.sqrt(np.pi / 2) * sigma * (1 + difficulty), rel=0.02)


def test_noise_around_the_chest_is_rayleigh_distributed(stacks):
    """In the air beside the shoulder, which all images of this set show."""
    for patient in range(6):
        air = stacks.images[stacks.patients == patient, 0, 4:9, 4:9].astype(float)
        assert 1.7 < air.mean() / air.std() < 2.1


def test_noise_within_tissue_is_that_of_one_channel():
    """At high signal the standard deviation of a Rician magnitude is that of the real part of the noise."""
    first, second = (scan([(-np.ones((128, 128)), 1, "blood")], seed=k)[16:112, 16:112] for k in (3, 4))
    sigma = phantom.SCANNERS["1.5T"][2] * phantom.SCANNERS["1.5T"][5]
    assert (first - second).std() == pytest.approx(np.sqrt(2) * sigma, rel=0.04)


def test_receive_field_is_smooth_and_strongest_at_the_chest_wall():
    heart = hearts(1)[0]
    weak, strong = (phantom._receive(heart, 128, phantom.SCANNERS[s][3]) for s in ("1.5T", "3T"))
    assert strong.max() / strong.min() > weak.max() / weak.min() > 1.5
    assert np.abs(np.diff(np.log(strong), axis=0)).max() < 0.03 and np.abs(np.diff(np.log(strong))).max() < 0.03
    assert strong[64, 10] > strong[64, 64] and strong[10, 40] > strong[64, 64]
    assert strong[64, 64] == 1


@pytest.mark.parametrize("scanner", phantom.SCANNERS)
def test_tissues_have_the_contrast_of_bssfp(scanner):
    signals = phantom._signals(scanner, 0)
    assert 1 == signals["blood"] > signals["venous"] > signals["liver"] > signals["heart"] > signals["lung"] > 0
    assert signals["fat"] < -0.8
    faint = phantom._signals(scanner, 1)
    assert faint["blood"] - faint["heart"] == pytest.approx(0.4 * (1 - signals["heart"]))


def test_image_shows_what_the_mask_says(stacks):
    images = stacks.images[:, 0] / stacks.value_range[1]
    right, muscle, left = (np.median(images[stacks.masks == k]) for k in (RV, MYOCARDIUM, LV))
    assert muscle < 0.3 < right < left < 0.7
    assert images.max() > 1 and np.percentile(images, 25) < 0.1


@pytest.mark.parametrize("scanner", phantom.SCANNERS)
def test_k_space_is_limited_to_the_resolution_of_the_scanner(scanner):
    """Pixels of 0.875 mm show no finer detail than was acquired: what is beyond comes from rounding to counts."""
    image = scan([(-np.ones((256, 256)), 1, "blood")], size=256, scanner=scanner)
    power = np.abs(np.fft.fft2(image - image.mean())) ** 2
    outside = np.abs(np.fft.fftfreq(256, 0.875)) > 0.5 / phantom.SCANNERS[scanner][4]
    assert power[outside].mean() < 1e-2 * power[~outside][:, ~outside].mean()
