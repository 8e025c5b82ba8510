"""Optic disc and cup: repair, ratios with known answers, polar coordinates there and back."""

import numpy as np
import pytest
import torch
from scipy.ndimage import label, map_coordinates

from helpers.data.phantoms.fundus import fundus
from helpers.segment.disc_cup import FLAGS, cdr_error, disc_cup_dice, from_polar, repair, to_polar, vertical_cdr


def drawn(*boxes, shape=(20, 20)) -> np.ndarray:
    """One label map (1, H, W) of boxes (row0, row1, col0, col1, class), drawn one over another."""
    mask = np.zeros((1, *shape), np.uint8)
    for top, bottom, left, right, value in boxes:
        mask[0, top:bottom, left:right] = value
    return mask


DISC, CUP = (4, 14, 4, 14, 1), (6, 11, 6, 12, 2)
PROPER = drawn(DISC, CUP)
SOLID = drawn(DISC)


def raised(flags) -> set[str]:
    return {name for name, values in flags.items() if values[0]}


@pytest.mark.parametrize(
    ("mask", "expected", "names"),
    [
        (PROPER, PROPER, set()),
        (drawn(DISC, CUP, (17, 19, 17, 19, 1)), PROPER, {"several discs"}),
        (drawn(DISC, CUP, (14, 16, 14, 16, 2)), PROPER, {"several discs"}),  # at a corner only: not connected
        (drawn(DISC, CUP, (12, 13, 12, 13, 2)), PROPER, {"several cups"}),  # the lost one becomes rim
        (drawn(DISC, CUP, (12, 13, 5, 7, 0)), PROPER, {"holes"}),  # in the rim
        (drawn(DISC, CUP, (7, 9, 7, 9, 0)), PROPER, {"holes"}),  # through disc and cup
        (drawn(DISC, CUP, (7, 9, 7, 9, 1)), PROPER, {"holes"}),  # of the cup alone
        (drawn(DISC, (5, 12, 5, 13, 0), CUP), PROPER, {"holes"}),  # a gap around the cup, a part of its own before
        (drawn((4, 14, 4, 5, 1), CUP), drawn((6, 11, 6, 12, 2)), {"several discs", "no rim"}),  # the rim is too small
        (drawn((4, 14, 4, 14, 2)), drawn((4, 14, 4, 14, 2)), {"no rim"}),
        (SOLID, SOLID, {"no cup"}),
        (drawn(DISC, (16, 18, 16, 18, 2)), SOLID, {"several discs", "no cup"}),  # a cup outside the disc is none
        (drawn(), drawn(), {"no disc"}),
        (drawn((0, 5, 0, 6, 1), (0, 3, 0, 4, 2)), drawn((0, 5, 0, 6, 1), (0, 3, 0, 4, 2)), set()),  # at the border
    ],
)
def test_repair_of_drawn_faults(mask, expected, names):
    before = mask.copy()
    repaired, flags = repair(mask)
    np.testing.assert_array_equal(repaired, expected)
    assert raised(flags) == names and tuple(flags) == FLAGS
    assert repaired.dtype == mask.dtype and all(values.dtype == bool for values in flags.values())
    np.testing.assert_array_equal(mask, before)


def test_repair_of_any_map_is_an_anatomy_and_idempotent():
    rng = np.random.default_rng(0)
    shares = rng.dirichlet((1, 1, 1), 150)
    noise = np.stack([rng.choice(3, (14, 17), p=share) for share in shares])
    coarse = rng.integers(0, 3, (150, 5, 6)).repeat(3, 1).repeat(3, 2)
    seen = {name: [] for name in FLAGS}
    for masks in (noise, coarse):
        repaired, flags = repair(masks)
        for name in FLAGS:
            seen[name] += flags[name].tolist()
        again, rest = repair(repaired)
        np.testing.assert_array_equal(again, repaired)
        assert not any(rest[name].any() for name in ("several discs", "several cups", "holes"))
        for name in ("no disc", "no cup", "no rim"):
            np.testing.assert_array_equal(rest[name], flags[name])
        np.testing.assert_array_equal(flags["no disc"], ~(masks > 0).any((1, 2)))
        for one in repaired:
            for part in (one > 0, one == 2):
                assert label(part)[1] <= 1
                assert label(np.pad(~part, 1, constant_values=True))[1] == 1  # no holes
        ratio = vertical_cdr(repaired)
        np.testing.assert_array_equal(np.isnan(ratio), flags["no disc"])
        known = ratio[~flags["no disc"]]
        assert known.min() >= 0 and known.max() <= 1 and len(np.unique(known)) > 5
        np.testing.assert_array_equal(ratio == 0, flags["no cup"])
        assert (ratio[flags["no rim"]] == 1).all()
    assert all(0 < sum(values) < len(values) for name, values in seen.items() if name != "no disc")


def test_repair_leaves_true_masks_alone():
    masks = fundus(images=12, size=64, view="disc", scanner=("zeiss", "drishti"), seed=1).masks
    repaired, flags = repair(masks)
    np.testing.assert_array_equal(repaired, masks)
    assert not np.array(list(flags.values())).any()


def test_ratio_is_of_heights_and_repair_removes_the_height_of_islands():
    far = drawn(DISC, CUP, (18, 20, 0, 1, 2))
    masks = np.concatenate([PROPER, SOLID, drawn(), drawn((2, 3, 5, 18, 2)), far])
    np.testing.assert_allclose(vertical_cdr(masks), [5 / 10, 0, np.nan, 1, 14 / 16])  # not 6 / 10: rows
    assert vertical_cdr(repair(far)[0]) == 5 / 10


def test_error_of_the_ratio_counts_a_missed_disc_in_full():
    truth = np.concatenate([PROPER, PROPER, PROPER, drawn(), drawn()])
    found = np.concatenate([drawn(DISC, (6, 13, 6, 12, 2)), SOLID, drawn(), PROPER, drawn()])
    np.testing.assert_allclose(cdr_error(found, truth), [0.2, 0.5, 0.5, np.nan, np.nan])


def test_dice_of_the_disc_counts_rim_and_cup_together():
    found = np.concatenate([drawn(DISC, (6, 11, 6, 9, 2)), SOLID, drawn(), drawn()])
    truth = np.concatenate([PROPER, SOLID, PROPER, drawn()])
    disc, cup = disc_cup_dice(found, truth)
    np.testing.assert_allclose(disc, [1, 1, 0, np.nan])
    np.testing.assert_allclose(cup, [2 * 15 / (15 + 30), np.nan, 0, np.nan])


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (PROPER[0], r"shape \(20, 20\), type uint8; expected integer label maps \(N, H, W\)"),
        (PROPER.astype(float), "type float64; expected integer"),
        (PROPER > 0, "type bool; expected integer"),
        (PROPER + 1, r"hold 3; expected 0 \(background\), 1 \(disc rim\) and 2 \(cup\)"),
        (PROPER.astype(int) - 1, "hold -1; expected 0"),
    ],
)
def test_label_maps_are_checked(masks, message):
    for function in (repair, vertical_cdr):
        with pytest.raises(ValueError, match=f"^masks.*{message}"):
            function(masks)
    for function in (cdr_error, disc_cup_dice):
        with pytest.raises(ValueError, match=f"^found.*{message}"):
            function(masks, PROPER)
        with pytest.raises(ValueError, match=f"^truth.*{message}"):
            function(PROPER, masks)
        with pytest.raises(ValueError, match=r"found has shape \(1, 20, 20\), truth \(2, 20, 20\)"):
            function(PROPER, PROPER.repeat(2, 0))


def smooth(size: int) -> torch.Tensor:
    """Images (2, 3, size, size) of slow waves that are nowhere symmetric, values within -1 … 1."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, size, dtype=torch.float64)] * 2, indexing="ij")
    waves = [torch.sin(a * x + b * y + a) for a, b in ((2, 1), (-1, 3), (3, -2), (0.5, 2.5), (1, 0), (0, 1))]
    return torch.stack(waves).reshape(2, 3, size, size)


@pytest.mark.parametrize("size", [24, 25])
def test_polar_equals_scipy(size):
    images = smooth(size)
    polar = to_polar(images, size=(19, 30))
    assert polar.shape == (2, 3, 19, 30)
    middle, radius = (size - 1) / 2, np.linspace(0, np.sqrt(2) * (size - 1) / 2, 19)[:, None]
    angle = np.arange(30) * 2 * np.pi / 30
    points = np.stack([middle + radius * np.sin(angle), middle + radius * np.cos(angle)])
    expected = map_coordinates(images[1, 2].numpy(), points, order=1, mode="nearest")
    np.testing.assert_allclose(polar[1, 2].numpy(), expected, atol=1e-12)


def test_polar_reaches_the_corners():
    images = torch.zeros(1, 1, 9, 9)
    for value, (row, col) in enumerate([(8, 8), (8, 0), (0, 0), (0, 8)], 1):  # clockwise from 45 degrees
        images[0, 0, row, col] = value
    assert to_polar(images, size=(5, 8))[0, 0, -1, 1::2].tolist() == pytest.approx([1, 2, 3, 4], abs=1e-4)


def test_a_quarter_turn_of_the_image_is_a_roll_along_the_angles():
    images = smooth(32)
    turned = to_polar(images.rot90(-1, (2, 3)), size=(32, 48))  # clockwise
    torch.testing.assert_close(turned, to_polar(images, size=(32, 48)).roll(12, -1), atol=1e-12, rtol=0)


def test_a_centred_disc_is_a_band():
    y, x = np.indices((65, 65)) - 32
    disc = torch.from_numpy(np.hypot(y, x) <= 16)[None, None].float()
    polar = to_polar(disc)[0, 0]
    radius = np.linspace(0, 32 * np.sqrt(2), 65)
    assert polar.shape == (65, 65)
    assert (polar[radius < 15] > 1 - 1e-6).all() and (polar[radius > 17.5] == 0).all()


@pytest.mark.parametrize(("polar_size", "inner", "outer"), [(None, 0.013, 0.07), ((64, 128), 0.004, 0.035)])
def test_there_and_back(polar_size, inner, outer):
    images, axis = smooth(64), torch.linspace(-1, 1, 64)
    error = (from_polar(to_polar(images, size=polar_size), size=64) - images).abs().amax((0, 1))
    assert error[torch.hypot(axis[:, None], axis) < 0.9].max() < inner  # of values from -1 to 1
    assert error.max() < outer  # at the border, where angles are far apart and samples lie beyond it


def test_there_and_back_keeps_masks():
    masks = fundus(images=8, size=64, view="disc", scanner=("zeiss", "drishti"), seed=2).masks
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(masks).long(), 3).movedim(-1, 1)
    back = from_polar(to_polar(one_hot), size=64).argmax(1).numpy()
    disc, cup = disc_cup_dice(back, masks)
    assert min(disc.min(), cup.min()) > 0.99 and cdr_error(back, masks).max() < 0.03


def test_no_seam_between_the_last_angle_and_the_first():
    maps = torch.zeros(1, 1, 3, 4, dtype=torch.float64)
    maps[..., 0], maps[..., 3] = 1.0, 3.0  # to the right, and up
    square = from_polar(maps, size=5)[0, 0]
    assert square[0, 4].item() == pytest.approx(2)  # half a right angle: the mean of last and first
    assert square[4, 4].item() == pytest.approx(0.5)
    assert square[2, 4].item() == pytest.approx(1) and square[0, 2].item() == pytest.approx(3)
    angle = torch.arange(64, dtype=torch.float64) * 2 * torch.pi / 64
    wave = (angle - 0.02).cos().expand(1, 1, 64, 64)
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, 64, dtype=torch.float64)] * 2, indexing="ij")
    expected = (torch.atan2(y, x) - 0.02).cos()
    torch.testing.assert_close(from_polar(wave, size=64)[0, 0], expected, atol=1.3e-3, rtol=0)  # (2 pi / 64)^2 / 8


def test_polar_is_differentiable_and_never_in_half_precision():
    images = smooth(6)[:1, :1].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: to_polar(x, size=(5, 7)), images)
    assert torch.autograd.gradcheck(lambda x: from_polar(x, size=5), images)
    half = smooth(32).bfloat16()
    for move in (to_polar, lambda x: from_polar(x, size=32)):
        assert move(half).dtype == torch.float32
        torch.testing.assert_close(move(half), move(half.float()), atol=0, rtol=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: to_polar(torch.zeros(1, 3, 8, 9)), r"images have shape \(1, 3, 8, 9\); expected square"),
        (lambda: to_polar(torch.zeros(3, 8, 8)), r"images have shape \(3, 8, 8\); expected square"),
        (lambda: to_polar(torch.zeros(1, 3, 1, 1)), "H >= 2"),
        (lambda: to_polar(torch.zeros(1, 3, 8, 8), size=(1, 8)), r"size is \(1, 8\); expected \(radii, angles\)"),
        (lambda: to_polar(torch.zeros(1, 3, 8, 8), size=(8, 0)), r"size is \(8, 0\); expected"),
        (lambda: from_polar(torch.zeros(3, 8, 8), size=8), r"maps have shape \(3, 8, 8\); expected"),
        (lambda: from_polar(torch.zeros(1, 3, 1, 8), size=8), r"maps have shape \(1, 3, 1, 8\); expected"),
        (lambda: from_polar(torch.zeros(1, 3, 8, 8), size=1), "size is 1; expected a side of at least 2"),
    ],
)
def test_wrong_shapes_and_sizes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
