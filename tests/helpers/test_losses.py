"""Losses for weak labels, against hand-made cases, brute force and numerical gradients."""

import math

import pytest
import torch
from tensors import noise

from helpers.check import wide
from helpers.losses import (
    box_prior,
    gated_crf,
    log_barrier,
    partial_cross_entropy,
    size_barrier,
    size_penalty,
    soft_dice,
    soft_sizes,
    volume_sizes,
)

NO_BOX = [-1, -1, -1, -1]


def confident(mask: torch.Tensor) -> torch.Tensor:
    """Logits (N, 2, H, W) of a prediction that is the mask (N, H, W)."""
    return torch.stack([200 * (1 - mask.float()), 200 * mask.float()], dim=1)


def rectangle(row0, column0, row1, column1) -> torch.Tensor:
    mask = torch.zeros(1, 12, 12)
    mask[:, row0:row1, column0:column1] = 1
    return mask


LABELS = torch.tensor([[[0, 255, 1, 2, 255]] * 4, [[255] * 5] * 4])
BOXES = torch.tensor([[1, 0, 4, 3], NO_BOX])
LOWER, UPPER = torch.tensor([12.0, 0]), torch.tensor([15.0, 0])
IMAGES = noise(2, 2, 4, 5, seed=1).sigmoid()
LOSSES = {  # for 1 or 2 items with 3 classes on 4×5 pixels; the second item has no label and no structure
    "partial": lambda x: partial_cross_entropy(x, LABELS[: len(x)]),
    "penalty": lambda x: size_penalty(soft_sizes(x), LOWER[: len(x)], UPPER[: len(x)], pixels=20),
    "volume": lambda x: size_penalty(volume_sizes(soft_sizes(x), torch.tensor([7, 7])[: len(x)]), 2, 2, pixels=40),
    "barrier": lambda x: size_barrier(soft_sizes(x), LOWER[: len(x)], UPPER[: len(x)], pixels=20, t=3),
    "box": lambda x: box_prior(x, BOXES[: len(x)], stripe=2),
    "dice": lambda x: 1 - soft_dice(wide(x).softmax(1), LABELS[: len(x), None] == 1),
    "crf": lambda x: gated_crf(x, IMAGES[: len(x)], radius=2, sxy=1.5, schan=0.4),
}


@pytest.mark.parametrize("items", [1, 2])
@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_the_numerical_ones(name, items):
    logits = noise(items, 3, 4, 5, seed=2).requires_grad_()
    value = LOSSES[name](logits)
    assert value.shape == () and value != 0
    assert torch.autograd.gradcheck(LOSSES[name], logits)


@pytest.mark.parametrize("extreme", [-1e4, 1e4])
@pytest.mark.parametrize("name", LOSSES)
def test_extreme_logits_give_finite_gradients(name, extreme):
    logits = torch.zeros(2, 3, 4, 5)
    logits[:, 1] = extreme
    value = LOSSES[name](logits.requires_grad_())
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_widened_before_anything_is_summed(name):
    logits = noise(2, 3, 4, 5, seed=3).bfloat16()
    value = LOSSES[name](logits)
    assert value.dtype == torch.float32
    assert value == LOSSES[name](logits.float())


def test_soft_dice_by_hand():
    probs, masks = torch.tensor([[[0.5, 0.5, 0.0]], [[1.0, 0.0, 0.0]]]), torch.tensor([[[1, 0, 0]], [[1, 1, 0]]])
    assert soft_dice(probs, masks, smooth=0).item() == pytest.approx(2 * 1.5 / 5)
    assert soft_dice(probs, masks, axes=(1, 2)).tolist() == pytest.approx([2 / 3, 3 / 4])
    assert soft_dice(0 * probs, 0 * masks, axes=(0, 2)).tolist() == [1]
    seen = torch.tensor([True, False, False])  # what is multiplied by 0 in both is left out
    assert soft_dice(probs * seen, masks * seen, smooth=0) == soft_dice(probs[..., :1], masks[..., :1], smooth=0)


def test_partial_cross_entropy_is_the_mean_over_labelled_pixels():
    logits = torch.zeros(2, 2, 1, 3)
    logits[0, 1, 0, 0] = math.log(3)  # p = 3/4
    labels = torch.tensor([[[1, 255, 0]], [[255, 255, 1]]], dtype=torch.uint8)
    assert partial_cross_entropy(logits, labels).item() == pytest.approx((math.log(4 / 3) + 2 * math.log(2)) / 3)


def test_partial_cross_entropy_without_labels_is_zero_and_pushes_nowhere():
    logits = noise(1, 2, 3, 3).requires_grad_()
    loss = partial_cross_entropy(logits, torch.full((1, 3, 3), 255))
    loss.backward()
    assert loss == 0 and (logits.grad == 0).all()


@pytest.mark.parametrize("bad", [-1, 2, 254, 0.5])
def test_partial_cross_entropy_refuses_unknown_classes(bad):
    labels = torch.tensor([[[0, 1, bad]]])
    with pytest.raises(ValueError, match=rf"labels hold {bad}; expected 0 to 1, or 255 \(unlabelled\)"):
        partial_cross_entropy(torch.zeros(1, 2, 1, 3), labels)


def test_partial_cross_entropy_refuses_labels_of_another_shape():
    with pytest.raises(ValueError, match=r"labels have shape \(1, 3, 2\); expected \(1, 2, 3\)"):
        partial_cross_entropy(torch.zeros(1, 2, 2, 3), torch.zeros(1, 3, 2, dtype=torch.long))


def test_soft_sizes_count_pixels_by_probability():
    assert soft_sizes(confident(rectangle(2, 3, 7, 5))).tolist() == [10]
    assert soft_sizes(torch.zeros(2, 4, 3, 5), target=3).tolist() == [3.75, 3.75]
    for target in (-1, 4):
        with pytest.raises(ValueError, match=f"target is {target}; expected a class from 0 to 3"):
            soft_sizes(torch.zeros(2, 4, 3, 5), target=target)


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 1, 3, 5)])
def test_logits_without_a_class_axis_are_refused(shape):
    with pytest.raises(ValueError, match=r"logits have shape .*; expected \(N, C, H, W\) with at least two classes"):
        soft_sizes(torch.zeros(shape))


def test_volume_sizes_add_slices_in_the_order_of_the_ids():
    sizes, volumes = torch.tensor([1.0, 2, 4, 8]), torch.tensor([30, 7, 30, 7])
    assert volume_sizes(sizes, volumes).tolist() == [10, 5]
    assert volume_sizes(sizes[:1], volumes[:1]).tolist() == [1]
    with pytest.raises(ValueError, match=r"volumes have shape \(3,\); expected that of the sizes, \(4,\)"):
        volume_sizes(sizes, volumes[:3])


def test_size_penalty_is_zero_within_the_bounds_and_quadratic_beyond():
    sizes = torch.tensor([60.0, 75, 100, 50, 103], requires_grad=True)
    within = size_penalty(sizes[:3], 60, 100, pixels=50)
    within.backward()
    assert within == 0 and (sizes.grad == 0).all()
    assert size_penalty(sizes[3:4], 60, 100, pixels=50).item() == 10**2 / 50
    assert size_penalty(sizes[4:], 60, 100, pixels=50).item() == pytest.approx(3**2 / 50)
    assert size_penalty(sizes, 60, 100, pixels=50).item() == pytest.approx(109 / 50 / 5)


def test_bounds_may_differ_from_item_to_item_and_may_be_exact():
    sizes, exact = torch.tensor([10.0, 0, 7]), torch.tensor([10, 0, 4])
    assert size_penalty(sizes, exact, exact, pixels=9).item() == pytest.approx(1 / 3)
    assert size_penalty(sizes, exact, exact, pixels=torch.tensor([1, 1, 3])).item() == 1


def test_a_structure_where_none_is_is_pushed_to_nothing():
    for loss in (size_penalty, size_barrier):
        logits = noise(3, 2, 4, 4).requires_grad_()
        volumes = torch.tensor([5, 5, 5])
        loss(volume_sizes(soft_sizes(logits), volumes), 0, 0, pixels=3 * 16).backward()
        assert (logits.grad[:, 1] > 0).all()
        nearly_none = torch.tensor([0.01], requires_grad=True)
        loss(nearly_none, 0, 0, pixels=48).backward()
        assert nearly_none.grad > 0


@pytest.mark.parametrize("loss", [size_penalty, size_barrier])
def test_impossible_bounds_are_refused(loss):
    sizes = torch.ones(3)
    for lower, upper, item, bounds in (
        (5, 3, 0, "5, 3"),
        (-1, 3, 0, "-1, 3"),
        (torch.tensor([1, 2, 9]), torch.tensor([1, 5, 8]), 2, "9, 8"),
        (torch.tensor([1, math.nan, 9]), 10, 1, "nan, 10"),
        (1, math.inf, 0, "1, inf"),
    ):
        message = rf"bounds of item {item} are \[{bounds}\]; expected 0 ≤ lower ≤ upper, finite"
        with pytest.raises(ValueError, match=message):
            loss(sizes, lower, upper, pixels=9)
    with pytest.raises(ValueError, match=r"upper has shape \(2,\); expected a number or \(3,\)"):
        loss(sizes, 0, torch.ones(2), pixels=9)


@pytest.mark.parametrize("t", [1, 5.0])
def test_log_barrier_is_a_logarithm_and_its_tangent(t):
    joint = -1 / t**2
    z = torch.tensor([-2.0, joint, joint + 0.5, 3.0], dtype=torch.float64, requires_grad=True)
    values = log_barrier(z, t)
    expected = [
        -math.log(2) / t,
        2 * math.log(t) / t,
        2 * math.log(t) / t + 0.5 * t,
        3 * t + 2 * math.log(t) / t + 1 / t,
    ]
    assert values.tolist() == pytest.approx(expected)
    values.sum().backward()
    assert z.grad.tolist() == pytest.approx([1 / (2 * t), t, t, t])


@pytest.mark.parametrize("t", [1, 5.0, 30.0])
def test_log_barrier_has_no_step_and_no_kink_at_the_joint(t):
    z = (torch.tensor([-1e-9, 0, 1e-9], dtype=torch.float64) - 1 / t**2).requires_grad_()
    values = log_barrier(z, t)
    values.sum().backward()
    assert values.tolist() == pytest.approx([values[1].item()] * 3, abs=1e-6)
    assert z.grad.tolist() == pytest.approx([t] * 3, rel=1e-5)


def test_log_barrier_has_gradients_everywhere():
    z = torch.tensor([-1e30, -1, -1e-30, 0, 1e-30, 1e30], requires_grad=True)
    log_barrier(z, 5.0).sum().backward()
    assert torch.isfinite(z.grad).all() and (z.grad[1:] > 0).all()
    for t in (0, -1, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"t is {t}; expected a positive finite number"):
            log_barrier(z, t)


def test_size_barrier_is_the_barrier_of_both_shares():
    sizes = torch.tensor([30.0, 70])
    z = torch.tensor([-0.1, -0.1, -0.5, 0.3])  # 20 − 30, 60 − 70 … over 100
    expected = log_barrier(z, 5.0).sum() / 2
    upper = torch.tensor([40.0, 40])
    assert size_barrier(sizes, 20, upper, pixels=100, t=5.0).item() == pytest.approx(expected.item())


def test_size_barrier_calls_sizes_back_from_both_sides():
    sizes = torch.tensor([1.0, 50, 99], requires_grad=True)
    size_barrier(sizes, 40, 60, pixels=100).backward()
    low, middle, high = sizes.grad.tolist()
    assert low < 0 < high and middle == pytest.approx(0, abs=1e-7)


BOX = torch.tensor([[2, 3, 9, 11]])  # 7 × 8 pixels: stripes of 3 + 3 + 1 rows and 3 + 3 + 2 columns


def box_loss(mask: torch.Tensor, stripe: int = 3) -> float:
    return box_prior(confident(mask), BOX, stripe=stripe).item()


def test_box_prior_accepts_what_the_box_is_tight_around():
    assert box_loss(rectangle(2, 3, 9, 11)) == 0
    diagonal = torch.zeros(1, 12, 12)
    for i in range(8):
        diagonal[0, min(2 + i, 8), 3 + i] = 1  # one pixel in each row and column
    assert [box_loss(diagonal, stripe) for stripe in (1, 3, 5, 99)] == [0, 0, 0, 0]


def test_box_prior_charges_for_stripes_left_empty_in_part():
    assert box_loss(rectangle(0, 0, 0, 0)) == 1
    # Rows 2 to 5 only: the last column stripes are full; of the row stripes one is full, one holds row 5, one nothing.
    assert box_loss(rectangle(2, 3, 6, 11)) == pytest.approx(1 / 6)
    # One pixel in the corner: 1/3 of two stripes, none of four.
    assert box_loss(rectangle(2, 3, 3, 4)) == pytest.approx((2 * (2 / 3) ** 2 + 4) / 6)


def test_box_prior_charges_for_what_lies_outside():
    assert box_loss(rectangle(1, 3, 9, 11)) == pytest.approx(200 * 8 / (144 - 56))
    assert box_loss(rectangle(2, 0, 9, 3)) == pytest.approx(200 * 21 / 88 + 1)  # pixels beside the box fill no stripe
    logits = torch.zeros(1, 2, 12, 12)
    assert box_prior(logits, BOX, stripe=3).item() == pytest.approx(math.log(2))  # half a box is enough inside


def test_box_prior_without_a_structure_asks_for_background_everywhere():
    none = torch.tensor([NO_BOX])
    assert [box_prior(confident(rectangle(0, 0, 0, 0)), none, stripe=width).item() for width in (1, 5)] == [0, 0]
    assert box_prior(confident(rectangle(0, 0, 6, 12)), none).item() == pytest.approx(100)
    both = box_prior(confident(rectangle(0, 0, 6, 12)).expand(2, -1, -1, -1), torch.tensor([[0, 0, 6, 12], NO_BOX]))
    assert both.item() == pytest.approx(50)


def test_box_prior_of_the_whole_image_has_no_outside():
    assert box_prior(confident(torch.ones(1, 12, 12)), torch.tensor([[0, 0, 12, 12]])).item() == 0


def test_box_prior_charges_one_class_of_several():
    logits = torch.zeros(1, 3, 12, 12)
    assert box_prior(logits, BOX, target=2).item() == pytest.approx(math.log(3 / 2))
    logits[:, 1] = 200  # whatever is not the target may be outside
    assert box_prior(logits, BOX, target=2).item() == pytest.approx(1)


@pytest.mark.parametrize(
    "box", [[0, 0, 13, 5], [0, 0, 5, 13], [-1, 0, 5, 5], [0, -1, 5, 5], [5, 0, 4, 5], [0, 5, 5, 4], [3, 3, 3, 5]]
)
def test_box_prior_refuses_boxes_outside_empty_or_inverted(box):
    message = rf"box 1 is \[{str(box)[1:-1]}\]; expected 0 ≤ row0 < row1 ≤ 12 and 0 ≤ column0 < column1 ≤ 12, or all −1"
    with pytest.raises(ValueError, match=message):
        box_prior(torch.zeros(2, 2, 12, 12), torch.tensor([NO_BOX, box]))


def test_box_prior_refuses_other_shapes_stripes_and_classes():
    logits = torch.zeros(1, 2, 12, 12)
    with pytest.raises(ValueError, match=r"boxes have shape \(4,\); expected \(1, 4\)"):
        box_prior(logits, BOX[0])
    with pytest.raises(ValueError, match="stripe is 0; expected at least 1"):
        box_prior(logits, BOX, stripe=0)
    with pytest.raises(ValueError, match="target is 2; expected a class from 0 to 1"):
        box_prior(logits, BOX, target=2)


def brute_force_crf(logits, images, *, radius, sxy, schan) -> float:
    probs, (height, width), energy = logits.softmax(1), logits.shape[2:], 0.0
    pixels = [(n, y, x) for n in range(len(logits)) for y in range(height) for x in range(width)]
    for n, y, x in pixels:
        for m, v, u in pixels:
            if m != n or (v, u) == (y, x) or max(abs(v - y), abs(u - x)) > radius:
                continue
            colour = (images[n, :, y, x] - images[n, :, v, u]).square().sum().item()
            k = math.exp(-((v - y) ** 2 + (u - x) ** 2) / (2 * sxy**2) - colour / (2 * schan**2))
            energy += k * (probs[n, :, y, x] * (1 - probs[n, :, v, u])).sum().item()
    return energy / len(pixels)


@pytest.mark.parametrize("shape", [(1, 2, 5, 5), (2, 3, 4, 5), (1, 2, 1, 5), (1, 2, 5, 1)])
@pytest.mark.parametrize("radius", [1, 2, 6])  # 6: wider than the image
def test_gated_crf_is_the_double_loop(shape, radius):
    logits, images = 2 * noise(*shape, seed=4), noise(shape[0], 2, *shape[2:], seed=5).sigmoid()
    options = dict(radius=radius, sxy=1.7, schan=0.3)
    expected = brute_force_crf(logits, images, **options)
    assert gated_crf(logits, images, **options).item() == pytest.approx(expected, rel=1e-12)


def test_gated_crf_wants_edges_where_the_image_has_them():
    image = rectangle(3, 3, 9, 9)[None]
    losses = [gated_crf(confident(mask), image).item() for mask in (image[0], rectangle(3, 5, 9, 11))]
    assert losses[0] == pytest.approx(0, abs=1e-4) and losses[1] > 1
    assert gated_crf(confident(torch.ones(1, 12, 12)), image).item() == pytest.approx(0, abs=1e-4)


def test_gated_crf_refuses_other_images_and_options():
    logits, images = torch.zeros(2, 2, 4, 5), torch.zeros(2, 1, 4, 5)
    for bad in (images[:1], images[:, 0], images[:, :, :3]):
        with pytest.raises(ValueError, match=r"images have shape .*; expected \(2, channels, 4, 5\)"):
            gated_crf(logits, bad)
    for options, values in (
        (dict(radius=0), "0, 6.0, 0.1"),
        (dict(sxy=0), "3, 0, 0.1"),
        (dict(schan=-1), "3, 6.0, -1"),
    ):
        with pytest.raises(
            ValueError, match=f"radius, sxy, schan are {values}; expected radius ≥ 1, sxy > 0, schan > 0"
        ):
            gated_crf(logits, images, **options)
