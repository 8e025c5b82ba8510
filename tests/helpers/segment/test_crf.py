"""Dense CRF: the grid against the exact mean field and pydensecrf, and what any such filter must do."""

import sys

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from helpers.segment.crf import dense_crf, mean_field_exact


def example(size=40, *, colour=False, classes=2, noise=8.0, seed=0):
    """Probs (C, H, W) from noisy logits, an image 0–255 of noisy regions with a slow shading, and its labels."""
    rng = np.random.default_rng(seed)
    labels = np.stack([gaussian_filter(rng.standard_normal((size, size)), size / 12) for _ in range(classes)]).argmax(0)
    shading = gaussian_filter(rng.standard_normal((size, size, 3)), (size / 15, size / 15, 0))
    tints = np.array([[0, 0, 0], [40, -20, 30], [-35, 35, 10]])[labels]
    image = 110 + tints + 20 * shading / shading.std() + noise * rng.standard_normal((size, size, 3))
    logits = 2 * np.eye(classes)[labels] + 1.2 * rng.standard_normal((size, size, classes))
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    image = np.clip(image.round(), 0, 255).astype(np.uint8)
    return probs.transpose(2, 0, 1).astype(np.float32), image if colour else image[..., 0], labels


def rms(a, b):
    return float(np.sqrt(np.mean((a - b) ** 2)))


def dice(mask, truth):
    return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())


CASES = {
    "grey": dict(sxy=3, schan=10),
    "grey, wide": dict(sxy=80, schan=13),
    "grey, odd cells": dict(sxy=10, schan=10),
    "grey, narrow": dict(sxy=1, schan=20),
    "colour": dict(sxy=3, schan=10, colour=True),
    "colour, wide": dict(sxy=80, schan=20, colour=True),
    "three classes": dict(sxy=3, schan=10, classes=3, smooth_compat=1, smooth_sxy=1.5),
}


def refined(case, *backends):
    """Probs, and what several backends make of them."""
    options = dict(CASES[case])
    kinds = {name: options.pop(name) for name in ("colour", "classes") if name in options}
    probs, image, _ = example(**kinds)
    return probs, *(dense_crf(probs, image, compat=3, iterations=5, backend=name, **options) for name in backends)


@pytest.mark.parametrize("case", CASES)
def test_grid_is_near_the_exact_mean_field(case):
    probs, grid, exact = refined(case, "grid", "exact")
    assert rms(exact, probs) > 0.05  # the CRF does something
    assert rms(grid, exact) < 0.005


if sys.version_info < (3, 13):  # later, pydensecrf2 does not build

    @pytest.mark.parametrize("case", CASES)
    def test_grid_is_three_times_nearer_to_the_exact_mean_field_than_pydensecrf(case):
        probs, grid, exact, peer = refined(case, "grid", "exact", "pydensecrf")
        assert rms(grid, exact) <= rms(peer, exact) / 3
        assert peer.shape == probs.shape and peer.dtype == np.float32
        np.testing.assert_allclose(peer.sum(0), 1, atol=1e-5)


def test_exact_mean_field_is_the_double_loop():
    probs, image, _ = example(6, classes=3)
    weights = np.zeros((2, 36, 36))
    for i in range(36):
        for j in range(36):
            distance2 = (i // 6 - j // 6) ** 2 + (i % 6 - j % 6) ** 2
            contrast2 = (float(image.flat[i]) - float(image.flat[j])) ** 2
            weights[:, i, j] = np.exp([-distance2 / 2 / 4 - contrast2 / 2 / 225, -distance2 / 2 / 2.25])
    scale = weights.sum(2) ** -0.5
    weights *= scale[:, :, None] * scale[:, None, :]
    q = probs.reshape(3, -1)
    for _ in range(4):
        q = probs.reshape(3, -1) * np.exp(2 * q @ weights[0] + 0.7 * q @ weights[1])
        q /= q.sum(0)
    options = dict(sxy=2, schan=15, compat=2, smooth_sxy=1.5, smooth_compat=0.7, iterations=4)
    np.testing.assert_allclose(mean_field_exact(probs, image, **options).reshape(3, -1), q, atol=1e-5)


@pytest.mark.parametrize("backend", ["grid", "exact"])
def test_probabilities_are_float32_and_sum_to_one(backend):
    probs, image, _ = example(24, classes=3)
    refined = dense_crf(probs, image, backend=backend)
    assert refined.shape == probs.shape and refined.dtype == np.float32
    assert refined.min() >= 0
    np.testing.assert_allclose(refined.sum(0), 1, atol=1e-5)


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3), (3, 20, 30), (1, 1), (1, 9), (9, 1)])
def test_uniform_probs_on_a_uniform_image_stay_uniform(shape):
    size = tuple(n for n in shape if n != 3)
    probs = np.full((4, *size), 0.25, np.float32)
    for sxy in (2, 40):
        np.testing.assert_allclose(dense_crf(probs, np.full(shape, 7.0), sxy=sxy, compat=2), 0.25, atol=1e-6)


def test_no_iterations_or_no_pairwise_terms_return_the_probs():
    probs, image, _ = example(24, classes=3)
    for options in (dict(compat=0), dict(iterations=0)):
        for function in (dense_crf, mean_field_exact):
            np.testing.assert_allclose(function(probs, image, **options), probs, atol=1e-5)


def test_a_noisy_segmentation_is_cleaned():
    probs, image, labels = example(96, noise=4)
    truth = labels == 1
    before, after = (dice(q[1] > 0.5, truth) for q in (probs, dense_crf(probs, image)))
    assert before < 0.9 and after > 0.97


def test_colour_axes_may_come_first_or_last_and_units_do_not_matter():
    probs, image, _ = example(24, colour=True)
    expected = dense_crf(probs, image, schan=10)
    np.testing.assert_array_equal(dense_crf(probs, np.moveaxis(image, -1, 0), schan=10), expected)
    np.testing.assert_allclose(dense_crf(probs, image / 255, schan=10 / 255), expected, atol=1e-3)


@pytest.mark.parametrize("sxy", [0.4, 0.9, 1.4, 3, 8])
@pytest.mark.parametrize("colour", [False, True])
def test_without_contrast_the_appearance_kernel_is_the_smoothness_kernel(colour, sxy):
    probs, image, _ = example(32, colour=colour)
    smooth = dense_crf(probs, image, compat=0, smooth_sxy=sxy, smooth_compat=2)
    assert rms(dense_crf(probs, np.zeros_like(image), sxy=sxy, compat=2), smooth) < 0.005
    assert rms(dense_crf(probs, image, sxy=sxy, schan=1e6, compat=2), smooth) < 0.005


@pytest.mark.parametrize("colour", [False, True])
def test_without_alike_pixels_each_strengthens_itself_alone(colour):
    probs, _, _ = example(32)
    alone = np.arange(32 * 32.0).reshape(32, 32) * 100
    logit = np.log(probs[1] / probs[0])
    expected = logit.copy()
    for _ in range(3):
        expected = logit + 2 * np.tanh(expected / 2)
    refined = dense_crf(probs, np.stack([alone] * 3) if colour else alone, sxy=3, schan=1, compat=2, iterations=3)
    np.testing.assert_allclose(refined[1], 1 / (1 + np.exp(-expected)), atol=1e-4)


def test_certain_probs_and_strong_weights_stay_finite():
    probs, image, _ = example(24)
    for compat in (10, 1000):
        refined = dense_crf((probs > 0.5).astype(np.float32), image, compat=compat)
        assert np.isfinite(refined).all() and refined.max() > 0.99


def test_a_certain_but_isolated_error_can_be_corrected():
    mask = np.zeros((16, 16))
    mask[8, 8] = 1
    assert dense_crf(np.stack([1 - mask, mask]), np.zeros((16, 16)), compat=20)[1].max() < 0.01


def test_strips_of_the_grid_join_without_a_seam(monkeypatch):
    probs, image, _ = example(48)
    whole = dense_crf(probs, image, compat=3)
    for cells in (1, 1500):
        monkeypatch.setattr("helpers.segment.crf.STRIP", cells)
        np.testing.assert_allclose(dense_crf(probs, image, compat=3), whole, atol=1e-4)


def good(**changes):
    probs, image, _ = example(8)
    return dict(probs=probs, image=image.astype(np.float32)) | changes


NAN = np.full((8, 8), np.nan)
BAD = {
    "the image has shape": good(image=np.zeros((8, 9))),
    "probs have shape": good(probs=np.ones((1, 8, 8))),
    "NaN or infinity in the probs": good(image=NAN),
    "finite numbers": good(probs=np.stack([NAN, NAN])),
    "sums of 1": good(probs=np.full((2, 8, 8), 0.6)),
    "least prob is -0.5": good(probs=np.stack([np.full((8, 8), -0.5), np.full((8, 8), 1.5)])),
    "sxy is 0": good(sxy=0),
    "schan is -1": good(schan=-1),
    "smooth_sxy is nan": good(smooth_sxy=np.nan),
    "compat is -2": good(compat=-2),
    "iterations is -1": good(iterations=-1),
    "backend is 'lattice'": good(backend="lattice"),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_one_clear_sentence(message):
    with pytest.raises(ValueError, match=message):
        dense_crf(**BAD[message])


def test_too_many_pixels_for_the_exact_sum_and_too_many_cells_for_a_grid():
    probs = np.full((2, 65, 64), 0.5)
    with pytest.raises(ValueError, match="4160 pixels; expected at most 4096"):
        mean_field_exact(probs, np.zeros((65, 64)))
    probs = np.full((2, 200, 200), 0.5)
    image = np.random.default_rng(0).uniform(0, 255, (200, 200, 3))
    with pytest.raises(ValueError, match="sxy and schan need .* cells or .* pairs; expected at most"):
        dense_crf(probs, image, sxy=80, schan=0.1)


def test_missing_pydensecrf_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    with pytest.raises(ImportError, match=r'pip install "\.\[pydensecrf\]"'):
        dense_crf(**good(backend="pydensecrf"))
