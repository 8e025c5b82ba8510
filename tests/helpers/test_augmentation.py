"""Augmentations: what they leave alone, what they are made of, and how they equal torchvision."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.color import hed2rgb, rgb2hed
from torchvision.transforms import v2

from helpers.augmentation import bias_field, cutmix, dose, mixup, motion, paste, speckle, stain, warp


def rng(seed=0) -> np.random.Generator:
    return np.random.default_rng(seed)


def blobs(n=4, channels=1, size=32) -> torch.Tensor:
    noise = rng(5).normal(size=(n, channels, size, size))
    smooth = ndimage.gaussian_filter(noise, (0, 0, 2, 2))
    return torch.from_numpy((0.5 + 2 * smooth).clip(0.05, 0.95)).float()


STILL = {  # with nothing to change
    "warp": lambda x, r: warp(x, r, degrees=0, scale=0, shift=0, elastic=0)[0],
    **{f.__name__: lambda x, r, f=f: f(x, r, strength=0) for f in (bias_field, motion, speckle, dose, stain)},
}
CHANGES = {
    "warp": lambda x, r: warp(x, r, elastic=0.02)[0],
    **{f.__name__: f for f in (bias_field, motion, speckle, dose, stain)},
}


@pytest.mark.parametrize("name", STILL)
def test_nothing_to_change_changes_nothing(name):
    images = blobs(channels=3)
    torch.testing.assert_close(STILL[name](images, rng()), images, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", CHANGES)
def test_each_image_gets_its_own_change_which_the_seed_repeats(name):
    images = blobs(n=1, channels=3).expand(3, -1, -1, -1)
    before = images.clone()
    first, again, other = (CHANGES[name](images, rng(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and torch.equal(images, before)
    assert first.min() >= 0 and first.max() <= 1 and first.dtype == images.dtype
    for one, another in ((first, other), (first[0], first[1]), (first[0], images[0])):
        assert (one - another).abs().max() > 0.02


@pytest.mark.parametrize("name", CHANGES)
def test_more_strength_changes_more(name):
    images, option = blobs(channels=3), "elastic" if name == "warp" else "strength"
    still = dict(degrees=0, scale=0, shift=0) if name == "warp" else {}
    change = {f.__name__: f for f in (warp, bias_field, motion, speckle, dose, stain)}[name]
    differ = []
    for amount in (0.01, 0.02, 0.04):
        changed = change(images, rng(), **still, **{option: amount})
        differ.append(((changed[0] if name == "warp" else changed) - images).abs().mean().item())
    assert differ[1] > 1.5 * differ[0] > 0 and differ[2] > 1.5 * differ[1]


def test_a_mask_goes_where_its_image_goes():
    masks = (blobs()[:, 0] > 0.5).long() * 3
    images = (masks > 0).float()[:, None]
    bent, moved = warp(images, rng(), masks=masks, degrees=30, scale=0.2, shift=0.1, elastic=0.02)
    assert set(moved.unique().tolist()) == {0, 3} and moved.dtype == masks.dtype
    assert (moved != masks).float().mean() > 0.1
    sure = (bent[:, 0] - 0.5).abs() > 0.49
    assert sure.float().mean() > 0.5 and torch.equal((moved > 0)[sure], bent[:, 0][sure] > 0.5)


def test_warp_turns_resizes_and_moves_by_what_was_asked():
    image = torch.zeros(200, 1, 65, 65)
    image[..., 12:53, 28:37] = 1  # an upright bar
    turned = warp(image, rng(), degrees=30, scale=0, shift=0)[0][:, 0].numpy() > 0.5
    angles = [np.degrees(np.arctan2(*np.linalg.eigh(np.cov(np.argwhere(bar).T))[1][::-1, 1])) for bar in turned]
    angles = np.minimum(np.abs(angles), 180 - np.abs(angles))
    assert 27 < max(angles) < 31 and 12 < np.mean(angles) < 18
    resized = warp(image, rng(), degrees=0, scale=0.2, shift=0)[0].mean((1, 2, 3)) / image[0].mean()
    assert 1.36 < resized.max() < 1.46 and 0.62 < resized.min() < 0.70  # areas: 1.2² and 0.8²
    moved = warp(image, rng(), degrees=0, scale=0, shift=0.1)[0][:, 0].numpy()
    centres = np.array([ndimage.center_of_mass(one) for one in moved]) - 32
    assert 5.5 < np.abs(centres).max() < 6.6 and np.abs(centres.mean(0)).max() < 1  # a tenth of 65


def test_a_bias_field_is_smooth_and_multiplies():
    images = torch.full((8, 1, 32, 32), 0.2)
    field = bias_field(images, rng())[:, 0] / 0.2
    assert field.std() > 0.1
    assert field.diff(dim=1).abs().max() < 0.1 and field.diff(dim=2).abs().max() < 0.1
    images[:, :, 10:20] = 0.4
    torch.testing.assert_close(bias_field(images, rng())[:, 0] / images[:, 0], field)


def test_motion_makes_ghosts_up_and_down_only():
    image = torch.zeros(1, 1, 64, 64)
    image[..., 28:36, 20:30] = 1
    ghosts = motion(image, rng(), strength=3)[0, 0] - image[0, 0]
    assert ghosts[:20, 20:30].max() > 0.01
    outside = torch.ones(64, dtype=torch.bool)
    outside[20:30] = False
    assert ghosts[:, outside].abs().max() < 1e-6


@pytest.mark.parametrize(("grain", "power"), [(speckle, 1.0), (dose, 0.5)])
def test_grain_grows_with_the_value_as_physics_says(grain, power):
    dark, bright = torch.full((1, 1, 200, 200), 0.1), torch.full((1, 1, 200, 200), 0.4)
    noise = [(grain(x, rng(), strength=0.1) - x).std().item() for x in (dark, bright)]
    assert noise[1] / noise[0] == pytest.approx(4**power, rel=0.02)
    assert noise[1] == pytest.approx(0.1 * 0.4**power, rel=0.02)


def test_stain_scales_the_amounts_of_stains():
    amounts = torch.tensor([0.08, 0.04, 0.01]).expand(2, 8, 8, 3)  # as scikit-image counts them
    images = torch.from_numpy(hed2rgb(amounts.numpy())).permute(0, 3, 1, 2).float()
    factors = (
        rgb2hed(stain(images, rng(), strength=0.3).permute(0, 2, 3, 1).numpy())[:, 0, 0] / amounts[:, 0, 0].numpy()
    )
    drawn = 1 + 0.3 * np.stack([r.uniform(-1, 1, 2) for r in [rng()] * 3], 1)
    np.testing.assert_allclose(factors, drawn, rtol=1e-3)


def test_mixup_equals_torchvision():
    images, targets = blobs(6), torch.eye(3)[[0, 1, 2, 0, 1, 2]]
    ours, ours_targets = mixup(images, targets, rng())
    drawn, mixer = rng(), v2.MixUp(num_classes=3)
    shares, others = drawn.beta(0.4, 0.4, 6), drawn.permutation(6)
    for i, (share, other) in enumerate(zip(shares, others, strict=True)):
        pair = torch.stack([images[other], images[i]])  # theirs mixes each image with the one before, all by one share
        asked = dict(lam=float(share), labels=targets[[other, i]].argmax(1), batch_size=2)
        torch.testing.assert_close(ours[i], mixer.transform(pair, asked)[1])
    assert (ours - images).abs().max() > 0.1
    torch.testing.assert_close(ours_targets.sum(1), torch.ones(6))


def test_targets_are_mixed_as_the_pixels_are():
    images = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, 40, 30) / 2
    targets = torch.eye(3)
    for mix in (mixup, cutmix):
        mixed, probs = mix(images, targets, rng(1))
        torch.testing.assert_close(mixed.mean((1, 2, 3)), probs @ torch.tensor([0, 0.5, 1]))
        assert (probs.max(1).values < 0.999).any()


def test_cutmix_cuts_rectangles_of_the_drawn_area():
    images = torch.arange(400.0).view(-1, 1, 1, 1).expand(-1, 1, 50, 50) / 400
    mixed, _ = cutmix(images, torch.eye(400), rng(), alpha=1.0)
    cut = (mixed != images)[:, 0]
    rows, columns = cut.any(2), cut.any(1)
    assert torch.equal(cut, rows[:, :, None] & columns[:, None])
    asked, area = 1 - rng().beta(1.0, 1.0, 400), cut.float().mean((1, 2)).numpy()
    assert (area <= asked + 0.05).all()  # less where it sticks out
    within = ~(rows[:, [0, -1]].any(1) | columns[:, [0, -1]].any(1)).numpy() & (area > 0)
    assert within.sum() > 50
    np.testing.assert_allclose(area[within], asked[within], atol=0.04)


def test_paste_brings_pixels_and_labels_of_one_partner_that_has_a_lesion():
    images = torch.arange(5.0).view(-1, 1, 1, 1).expand(-1, 1, 8, 8) / 5
    masks = torch.diag_embed(torch.eye(8, dtype=torch.long)[:5] * torch.arange(5)[:, None])  # i at (i, i), 0: none
    pasted, found = paste(images, masks, rng())
    others = rng().choice([1, 2, 3, 4], 5).tolist()  # image 0 has no lesion to give
    assert others != list(range(5))
    for i, other in enumerate(others):
        expected_image, expected_mask = images[i].clone(), masks[i].clone()
        expected_image[0, other, other], expected_mask[other, other] = images[other, 0, 0, 0], other
        assert torch.equal(pasted[i], expected_image) and torch.equal(found[i], expected_mask)


def test_a_batch_without_lesions_stays_as_it_is():
    images, masks = torch.linspace(0, 1, 192).view(3, 1, 8, 8), torch.zeros(3, 8, 8, dtype=torch.long)
    pasted, found = paste(images, masks, rng())
    assert torch.equal(pasted, images) and torch.equal(found, masks)


IMAGES = torch.zeros(2, 1, 8, 8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: speckle(IMAGES[0], rng()),
            r"shape \(1, 8, 8\) .*float32; expected numbers \(N, C, H, W\)",
        ),
        (lambda: dose(IMAGES.byte(), rng()), "type torch.uint8; expected numbers"),
        (lambda: motion(IMAGES, rng(), strength=-1), "strength is -1; expected 0 or more"),
        (lambda: warp(IMAGES, rng(), degrees=float("nan")), "degrees is nan; expected 0 or more"),
        (lambda: warp(IMAGES, rng(), scale=1), "scale is 1; expected less than 1"),
        (lambda: warp(IMAGES, rng(), masks=IMAGES), r"masks have shape \(2, 1, 8, 8\); expected \(2, 8, 8\)"),
        (lambda: paste(IMAGES, IMAGES[:1, 0], rng()), r"masks have shape \(1, 8, 8\); expected \(2, 8, 8\)"),
        (lambda: stain(IMAGES, rng()), r"shape \(2, 1, 8, 8\); expected \(N, 3, H, W\)"),
        (lambda: mixup(IMAGES, torch.zeros(2), rng()), r"targets have shape \(2,\) .*; expected probabilities \(2, cl"),
        (lambda: cutmix(IMAGES, torch.ones(2, 2).long(), rng()), "type torch.int64; expected probabilities"),
        (lambda: mixup(IMAGES, torch.ones(2, 2), rng(), alpha=0), "alpha is 0; expected a positive number"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
