"""Losses that know anatomy, against MONAI, brute force, hand-made cases and numerical gradients."""

import numpy as np
import pytest
import torch
from monai.losses import SoftclDiceLoss
from monai.losses.cldice import soft_skel
from skimage.morphology import skeletonize
from tensors import noise

from helpers.priors import (
    boundary_loss,
    inclusion_penalty,
    nested_probs,
    signed_distance,
    soft_cl_dice,
    soft_skeleton,
)


def vessels() -> torch.Tensor:
    """Two lines (1, 24, 24) that cross, three pixels wide."""
    mask = torch.zeros(1, 24, 24, dtype=torch.float64)
    mask[:, 10:13, 2:22] = mask[:, 3:21, 6:9] = 1
    return mask


DISTANCES = torch.from_numpy(signed_distance(noise(2, 4, 5, seed=1).numpy() > 0))
MASKS = (noise(2, 4, 5, seed=3) > 0).double()
LOSSES = {  # of logits (2, 2, 4, 5)
    "nested": lambda z: nested_probs(z).square().sum(),
    "inclusion": lambda z: inclusion_penalty(z.sigmoid()),
    "boundary": lambda z: boundary_loss(z.sigmoid()[:, 0], DISTANCES),
    "skeleton": lambda z: soft_skeleton(z.sigmoid()[:, 0], iterations=2).square().sum(),
    "clDice": lambda z: soft_cl_dice(z.sigmoid()[:, 0], MASKS, iterations=2),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_the_numerical_ones(name):
    logits = noise(2, 2, 4, 5, seed=2).requires_grad_()
    value = LOSSES[name](logits)
    assert value.shape == () and value != 0
    assert torch.autograd.gradcheck(LOSSES[name], logits)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_sure_logits_have_finite_losses_and_gradients(name, scale):
    logits = (scale * noise(2, 2, 4, 5, seed=2)).float().requires_grad_()
    LOSSES[name](logits).backward()
    assert logits.grad.isfinite().all()


def test_losses_are_computed_in_fp32_under_autocast():
    probs = noise(2, 4, 5, seed=2).sigmoid().bfloat16()
    values = [nested_probs(probs[:, None]), inclusion_penalty(probs[None]), boundary_loss(probs, DISTANCES)]
    values += [soft_skeleton(probs), soft_cl_dice(probs, MASKS)]
    assert {value.dtype for value in values} == {torch.float32}


def test_nested_probabilities_by_hand():
    probs = nested_probs(torch.tensor([0.0, 0.0, np.log(3)]).reshape(1, 3, 1, 1))
    assert probs.flatten().tolist() == pytest.approx([1 / 2, 1 / 4, 3 / 16])


def test_no_threshold_breaks_what_is_nested_and_independent_ones_do_break():
    logits = 5 * noise(4, 3, 16, 16).float()
    for probs, broken in ((nested_probs(logits), False), (logits.sigmoid(), True)):
        for threshold in (0.1, 0.5, 0.9):
            outer, inner = probs[:, :-1] > threshold, probs[:, 1:] > threshold
            assert (inner & ~outer).any() == broken
        assert (inclusion_penalty(probs) > 0) == broken


def test_inclusion_penalty_by_hand():
    probs = torch.tensor([[[[0.9, 0.2]], [[0.4, 0.7]]]])  # outer, inner; two pixels
    assert inclusion_penalty(probs).item() == pytest.approx(0.25)  # 0.5 in one of two pixels


def test_distances_by_hand_and_in_mm():
    line = np.zeros((1, 1, 6), bool)
    line[..., 2:4] = True
    assert signed_distance(line)[0, 0].tolist() == [2, 1, -1, -1, 1, 2]
    assert signed_distance(line, spacing=(9, 0.5))[0, 0].tolist() == [1, 0.5, -0.5, -0.5, 0.5, 1]


@pytest.mark.parametrize("spacing", [None, (2.0, 0.5)])
def test_distances_equal_brute_force(spacing):
    mask = noise(7, 9).numpy() > 0.5
    at = np.argwhere(np.ones_like(mask)) * (spacing or (1, 1))
    apart = np.linalg.norm(at[:, None] - at, axis=-1)
    inside = mask.ravel()
    expected = np.where(inside, -apart[:, ~inside].min(1), apart[:, inside].min(1)).reshape(mask.shape)
    np.testing.assert_allclose(signed_distance(mask[None], spacing=spacing)[0], expected)


def test_without_a_border_there_is_no_distance_and_one_pixel_or_the_image_border_have_one():
    masks = np.zeros((4, 5, 5), bool)
    masks[1], masks[2, 2, 2], masks[3, 0] = True, True, True
    found = signed_distance(masks)
    assert not found[:2].any()
    assert found[2, 2, 2] == -1 and found[2, 0, 2] == 2
    assert found[3, 0].tolist() == [-1] * 5 and found[3, 4].tolist() == [4] * 5  # outside the image is nothing


def test_boundary_loss_is_least_at_the_mask_and_grows_with_the_distance_of_an_island():
    mask = np.zeros((1, 20, 20), bool)
    mask[:, 5:10, 5:10] = True
    distances = torch.from_numpy(signed_distance(mask))
    exact = boundary_loss(torch.from_numpy(mask).double(), distances)
    assert exact.item() == pytest.approx(-(16 * 1 + 8 * 2 + 1 * 3) / 400)  # rings of 16, 8 and 1 pixels
    values = []
    for column in (12, 15, 19):
        island = mask.copy()
        island[0, 7, column] = True
        values.append(boundary_loss(torch.from_numpy(island).double(), distances).item())
    assert np.diff([exact.item(), *values]) == pytest.approx([3 / 400, 3 / 400, 4 / 400])


@pytest.mark.parametrize("iterations", [0, 1, 3, 6])
def test_skeleton_equals_monai(iterations):
    probs = noise(3, 13, 17).sigmoid()
    expected = soft_skel(probs[:, None], iterations)[:, 0]
    torch.testing.assert_close(soft_skeleton(probs, iterations=iterations), expected)


@pytest.mark.parametrize("iterations", [1, 3])
def test_cl_dice_equals_monai(iterations):
    probs, mask = noise(2, 24, 24).sigmoid(), torch.cat([vessels(), vessels().mT * 0.9])
    expected = SoftclDiceLoss(iter_=iterations, smooth=1e-12)(probs[:, None], mask[:, None])
    assert soft_cl_dice(probs, mask, iterations=iterations).item() == pytest.approx(expected.item(), abs=1e-11)


def test_skeleton_of_a_mask_is_thin_and_in_its_middle():
    mask = vessels()
    skeleton = soft_skeleton(mask)
    assert set(skeleton.unique().tolist()) == {0.0, 1.0}
    assert skeleton[0, 10:13, 11:20].tolist() == [[0.0] * 9, [1.0] * 9, [0.0] * 9]  # the bar, right of the crossing
    assert skeleton.sum() < 1.5 * skeletonize(mask[0].numpy() > 0).sum()


def test_cl_dice_sees_a_gap_that_dice_hardly_sees():
    mask = vessels()
    gap, thin = mask.clone(), soft_skeleton(mask)
    gap[0, 10:13, 14:16] = 0
    assert soft_cl_dice(mask, mask) == 0
    assert soft_cl_dice(gap, mask) > 0.02
    assert soft_cl_dice(thin, mask) == pytest.approx(0, abs=0.01)  # width does not count


def test_cl_dice_of_empty_and_one_pixel_masks():
    empty, pixel, line = torch.zeros(3, 1, 6, 6)
    pixel[0, 0, 0] = line[0, 3] = 1
    for mask in (empty, pixel, line):
        assert soft_cl_dice(mask, mask) == 0
    assert soft_cl_dice(line, empty).item() == pytest.approx(0.75)  # precision 1 / 7, sensitivity 1
    assert soft_cl_dice(empty, line).item() == pytest.approx(0.75)


def test_what_fills_the_image_has_no_middle_line():
    full = torch.ones(1, 6, 6)
    assert not soft_skeleton(full).any()
    assert soft_cl_dice(full, torch.zeros(1, 6, 6)) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nested_probs(torch.zeros(2, 3)), r"logits have shape \(2, 3\); expected \(N, C, H, W\)"),
        (lambda: inclusion_penalty(torch.zeros(1, 1, 2, 2)), r"\(1, 1, 2, 2\); expected .* two or more structures"),
        (lambda: signed_distance(np.zeros((1, 2, 2))), r"type float64; expected bool \(N, H, W\)"),
        (lambda: signed_distance(np.zeros((2, 2), bool)), r"shape \(2, 2\), type bool; expected bool \(N, H, W\)"),
        (lambda: signed_distance(np.zeros((1, 2, 2), bool), spacing=(1, 0)), r"spacing is \(1, 0\); expected two"),
        (lambda: signed_distance(np.zeros((1, 2, 2), bool), spacing=(1,)), r"spacing is \(1,\); expected two"),
        (lambda: boundary_loss(torch.zeros(1, 2, 2), torch.zeros(1, 2, 3)), r"distances \(1, 2, 3\); expected"),
        (lambda: soft_cl_dice(torch.zeros(1, 2, 2), torch.zeros(2, 2)), r"masks \(2, 2\); expected \(N, H, W\)"),
        (lambda: soft_skeleton(torch.zeros(2, 2)), r"shape \(2, 2\), iterations is 5; expected \(N, H, W\)"),
        (lambda: soft_skeleton(torch.zeros(1, 2, 2), iterations=-1), "iterations is -1; expected .* 0 or more"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
