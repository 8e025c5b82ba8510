"""Phantom CT: frozen pixels, Hounsfield units of the organs, volumes, and the noise of filtered back-projection."""

from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from helpers.data.phantoms.ct import SCANNERS, SLICES, SPACING, ct

NOISELESS = 1e12  # dose


@cache
def noise(*, dose=1.0, scanner="soft", images=10, size=128):
    """Noise (N, H, W) in HU that a dose adds to noiseless slices."""
    settings = {"images": images, "patients": images, "size": size, "scanner": scanner, "seed": 4}
    return (ct(**settings, dose=dose).images.astype(float) - ct(**settings, dose=NOISELESS).images)[:, 0]


def middle(pixels):
    """The part of (N, H, W) that lies in every body."""
    size = pixels.shape[-1]
    return pixels[:, size * 2 // 5 : size * 3 // 5, size // 3 : size * 2 // 3]


def power(pixels):
    """Mean power of the Fourier transform, and the frequencies down and across in cycles a pixel."""
    spectrum = (np.abs(np.fft.fft2(pixels)) ** 2).mean(axis=0)
    return spectrum, *np.meshgrid(*[np.fft.fftfreq(pixels.shape[-1])] * 2, indexing="ij")


@pytest.mark.parametrize(
    ("settings", "digest"),
    [
        ({"images": 4, "patients": 2, "size": 64, "seed": 1}, "b0b0db73dc5c51a4"),
        (
            {"images": 3, "size": 48, "difficulty": 0.7, "scanner": ("sharp", "soft"), "patients": 3, "dose": 0.3},
            "60a98cc9085c98c8",
        ),
    ],
)
def test_pixels_are_frozen(settings, digest):
    assert ct(**settings).content_hash() == digest


def test_anatomy_is_the_same_for_all_kernels_and_doses_but_not_for_all_seeds():
    plain = ct(images=4, patients=2, size=64)
    for other in (ct(images=4, patients=2, size=64, scanner="sharp"), ct(images=4, patients=2, size=64, dose=0.1)):
        assert np.array_equal(other.masks, plain.masks)
        assert not np.array_equal(other.images, plain.images)
    assert not np.array_equal(ct(images=4, patients=2, size=64, seed=1).masks, plain.masks)


def test_organs_have_the_hounsfield_units_of_the_venous_phase():
    images = ct(images=12, patients=12, size=256, seed=2)
    expected = {1: (107, 3), 2: (166, 4), 3: (118, 3), 4: (53, 8)}
    for organ, (value, tolerance) in expected.items():
        inside = ndimage.binary_erosion(images.masks == organ, np.ones((1, 3, 3)), iterations=2)
        assert inside.sum() > 500
        assert images.images[:, 0][inside].mean() == pytest.approx(value, abs=tolerance), images.mask_names[organ]


def test_there_is_air_around_the_patient_gas_and_bone_within_and_nothing_beyond_twelve_bits():
    images = ct(images=8, patients=4, scanner="sharp", dose=0.02)
    assert images.images.min() >= -1024 and images.images.max() <= 3071
    assert ct(images=8, patients=4).images[:, 0, :10].mean() == pytest.approx(-1000, abs=2)
    noiseless = ct(images=8, patients=4, dose=NOISELESS).images[:, 0]
    assert noiseless.max() > 400 and middle(noiseless).min() < -900


def test_labels_say_which_slices_show_a_tumour_and_only_every_second_patient_has_one():
    for difficulty in (0, 1):
        images = ct(images=10 * SLICES, patients=10, size=40, difficulty=difficulty, seed=1)
        assert np.array_equal(images.labels, (images.masks == 4).any(axis=(1, 2)))
        ill = images.patients % 2 == 1
        assert not images.labels[~ill].any()
        assert 0.55 < images.labels[ill].mean() < 0.95


def test_difficulty_makes_tumours_fainter_and_smaller_and_leaves_the_organs():
    easy, hard = (ct(images=12, patients=6, dose=NOISELESS, difficulty=difficulty) for difficulty in (0, 1))
    contrast = [np.median(s.images[:, 0][s.masks == 1]) - np.median(s.images[:, 0][s.masks == 4]) for s in (easy, hard)]
    assert 35 < contrast[0] < 60 and contrast[1] == pytest.approx(contrast[0] / 3, abs=6)
    assert 0.45 < (hard.masks == 4).sum() / (easy.masks == 4).sum() < 0.8
    healthy = easy.patients % 2 == 0
    assert np.array_equal(easy.images[healthy], hard.images[healthy])


def test_slices_of_a_volume_are_contiguous_and_their_anatomy_changes_smoothly():
    images = ct(images=2 * SLICES + 2, patients=2, size=64)
    assert (images.slice_spacing == SPACING).all()
    assert images.volumes.tolist() == [0, 1] * SLICES + [2, 3]
    first = np.flatnonzero(images.volumes == 0)
    assert images.slices[first[:5]].tolist() == [7, 8, 6, 9, 5]
    liver = images.masks[first[np.argsort(images.slices[first])]] == 1
    assert sorted(images.slices[first]) == list(range(SLICES))
    overlap = [2 * (liver[n:] & liver[:-n]).sum() / (liver[n:].sum() + liver[:-n].sum()) for n in (1, 6)]
    assert overlap[0] > 0.9 > overlap[1] + 0.05


def test_noise_doubles_when_the_dose_falls_to_a_quarter():
    full, quarter = (middle(noise(dose=dose)).std() for dose in (1, 0.25))
    assert quarter / full == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize("scanner", SCANNERS)
def test_noise_has_the_level_of_the_kernel_and_is_strongest_in_the_middle_of_the_patient(scanner):
    pixels = noise(scanner=scanner)
    level = middle(pixels).std()
    assert level == pytest.approx(SCANNERS[scanner][2], rel=0.25)
    assert pixels[:, :10].std() < 0.5 * level


@pytest.mark.parametrize("scanner", SCANNERS)
def test_noise_power_is_a_ramp_at_low_frequencies_unlike_white_noise(scanner):
    pixels = noise(scanner=scanner)
    spectrum, down, across = power(pixels)
    frequency = np.hypot(down, across)
    bands = [spectrum[(frequency >= low) & (frequency < low + 0.04)].mean() for low in (0.03, 0.07, 0.13)]
    assert spectrum[0, 0] < 0.1 * spectrum.mean()  # white: as much as elsewhere
    assert bands[1] / bands[0] == pytest.approx(9 / 5, rel=0.25) and bands[2] > 1.2 * bands[1]


def test_noise_streaks_along_the_wide_side_of_the_patient():
    spectrum, down, across = power(noise())
    steep, flat = np.abs(down) > 4 * np.abs(across), np.abs(across) > 4 * np.abs(down)
    assert spectrum[steep].mean() > 1.5 * spectrum[flat].mean()


def test_the_sharp_kernel_shows_edges_sharper():
    soft, sharp = (ct(images=4, dose=NOISELESS, scanner=scanner).images.astype(float) for scanner in SCANNERS)
    assert np.abs(np.diff(sharp)).mean() > 1.1 * np.abs(np.diff(soft)).mean()


@pytest.mark.parametrize("dose", [0, -1, float("nan"), float("inf")])
def test_a_dose_that_is_none_is_refused(dose):
    with pytest.raises(ValueError, match=f"dose is {dose}; expected"):
        ct(images=1, dose=dose)
