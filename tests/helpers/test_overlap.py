import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric, compute_average_surface_distance, compute_hausdorff_distance
from skimage.measure import euler_number

from helpers.overlap import (
    assd,
    betti_error,
    betti_numbers,
    cl_dice,
    dice,
    hd95,
    matched_f1,
    patient_means,
    slice_dice,
    volume_dice,
)


def blobs(shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two overlapping boxes with a ragged inside, one of which touches the border of the image."""
    rng = np.random.default_rng(seed)
    first, second = np.zeros((2, *shape), bool)
    first[tuple(slice(0, side // 2) for side in shape)] = True
    second[tuple(slice(side // 4, side - 2) for side in shape)] = True
    return first & (rng.random(shape) > 0.1), second & (rng.random(shape) > 0.1)


def pair(shape=(4, 5)) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(shape, bool), np.zeros(shape, bool)


def as_batch(mask: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(mask)[None, None]


def test_dice_by_hand_and_defined_where_empty():
    a, b = pair()
    assert np.isnan(dice(a, b))
    a[0, :3] = True
    assert dice(a, b) == dice(b, a) == 0
    b[0, 2:4] = True
    assert dice(a, b) == pytest.approx(2 * 1 / (3 + 2))
    assert dice(a, a) == 1


def test_slice_dice_equals_monai():
    rng = np.random.default_rng(0)
    pred, masks = rng.random((2, 6, 9, 7)) > 0.6
    pred[0] = masks[0] = masks[1] = pred[2] = False  # both empty, predicted but not there, there but not predicted
    scores = slice_dice(pred, masks)
    assert np.isnan(scores[0]) and scores[1] == scores[2] == 0
    metric = DiceMetric(include_background=True, ignore_empty=False)  # 1 where both are empty
    expected = metric(torch.from_numpy(pred[:, None]), torch.from_numpy(masks[:, None]))[:, 0].numpy()
    np.testing.assert_allclose(scores[1:], expected[1:], rtol=1e-6)
    ignoring = DiceMetric(include_background=True)(torch.from_numpy(pred[:, None]), torch.from_numpy(masks[:, None]))
    assert ignoring[0, 0].isnan()  # MONAI leaves out the same slice


def test_volume_dice_pools_the_pixels_of_a_volume():
    pred, masks = np.zeros((2, 4, 3, 3), bool)
    volumes = np.array(["b", "a", "b", "empty"])
    masks[0, 0, 0] = pred[0, 0, 0] = True  # a small slice, right
    masks[2] = True  # a large one, missed
    pred[1, 0] = masks[1, 0] = True
    np.testing.assert_allclose(volume_dice(pred, masks, volumes), [1, 2 / 11, np.nan])


def test_volume_dice_equals_monai_on_3d():
    rng = np.random.default_rng(1)
    pred, masks = rng.random((2, 7, 6, 5)) > 0.5
    volumes = np.array([0, 1, 1, 0, 2, 2, 2])
    stacks = [torch.from_numpy(np.stack([pred[volumes == v], masks[volumes == v]])) for v in range(3)]
    expected = [DiceMetric()(p[None, None], m[None, None]).item() for p, m in stacks]
    np.testing.assert_allclose(volume_dice(pred, masks, volumes), expected, rtol=1e-6)


def test_patient_means_weigh_volumes_equally_and_leave_out_nan():
    volumes = np.array([10, 10, 10, 11, 20, 30, 31])
    patients = np.array(["z", "z", "z", "z", "y", "x", "x"])
    values = np.array([0.2, 0.8, np.nan, 0.4, np.nan])  # volumes 10, 11, 20, 30, 31
    np.testing.assert_allclose(patient_means(values, volumes, patients), [0.4, np.nan, 0.5])


@pytest.mark.parametrize(
    ("values", "volumes", "patients", "message"),
    [
        ([0.1], [1, 2], [1, 2], "1 values, 2 volumes in 2 slices and 2 patients"),
        ([0.1, 0.2], [1, 2], [1], "2 slices and 1 patients"),
        ([0.1], [7, 7], [1, 2], "volume 7 has slices of several patients"),
    ],
)
def test_patient_means_refuse_what_does_not_fit(values, volumes, patients, message):
    with pytest.raises(ValueError, match=message):
        patient_means(np.array(values), np.array(volumes), np.array(patients))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((24, 31), None), ((24, 31), (1.5, 0.7)), ((9, 14, 11), None), ((9, 14, 11), (8.0, 1.4, 0.5))],
)
def test_surface_distances_equal_monai(shape, spacing, seed):
    first, second = blobs(shape, seed)
    expected = compute_hausdorff_distance(*map(as_batch, (first, second)), percentile=95, spacing=spacing).item()
    assert hd95(first, second, spacing=spacing) == pytest.approx(expected, rel=1e-6)
    assert hd95(first, second, spacing=spacing) == hd95(second, first, spacing=spacing)

    expected = compute_average_surface_distance(*map(as_batch, (first, second)), symmetric=True, spacing=spacing).item()
    assert assd(first, second, spacing=spacing) == pytest.approx(expected, rel=1e-6)


def test_hd95_by_hand():
    a, b = pair((30, 60))
    a[10:15, 10:15] = b[10:15, 14:19] = True  # moved by 4 columns
    assert hd95(a, a) == 0
    assert hd95(a, b) == 4
    assert hd95(a, b, spacing=(1, 2.5)) == 10
    assert assd(a, a) == 0
    solid, point = pair((41, 41))
    solid[:, :] = point[20, 20] = True
    assert hd95(solid, point) == pytest.approx(np.percentile(border_distances(41), 95))  # the inside does not count


def border_distances(side: int) -> list[float]:
    half = side // 2
    places = range(-half, half + 1)
    return [np.hypot(y, x) for y in places for x in places if max(abs(y), abs(x)) == half]


def test_hd95_ignores_a_twentieth_of_the_surface():
    a, b = pair((60, 60))
    a[10:40, 10:40] = b[10:40, 10:40] = True
    b[55, 55] = True  # one of 117 surface pixels
    assert hd95(a, b) == 0


@pytest.mark.parametrize("distance", [hd95, assd])
def test_distances_of_empty_and_one_pixel_masks(distance):
    a, b = pair()
    assert np.isnan(distance(a, b))
    b[1, 1] = True
    assert distance(a, b) == distance(b, a) == np.inf
    a[1, 3] = True
    assert distance(a, b) == 2
    assert distance(a, b, spacing=(9, 0.5)) == 1


def test_assd_by_hand():
    a, b = pair((5, 9))
    a[2, :4] = b[2, 0] = True
    assert assd(a, b) == assd(b, a) == (0 + 1 + 2 + 3 + 0) / 5  # four pixels of a line, and the one of b


def ring() -> np.ndarray:
    mask = np.zeros((9, 9), bool)
    mask[2:7, 2:7] = True
    mask[3:6, 3:6] = False
    return mask


def test_betti_numbers_by_hand():
    empty, corner = pair((9, 9))
    corner[0, 0] = corner[1, 1] = True
    assert betti_numbers(empty) == (0, 0)
    assert betti_numbers(~empty) == (1, 0)
    assert betti_numbers(corner) == (1, 0)  # over a corner
    assert betti_numbers(ring()) == (1, 1)
    assert betti_numbers(ring() | corner) == (1, 1)
    border = ring()[2:7, 2:7]
    assert betti_numbers(border) == (1, 1)  # the image ends, the hole stays a hole
    assert betti_numbers(border[:, 1:]) == (1, 0)  # open at the border of the image


@pytest.mark.parametrize("seed", range(3))
def test_betti_numbers_give_the_euler_number(seed):
    mask = np.random.default_rng(seed).random((30, 40)) > 0.4
    components, holes = betti_numbers(mask)
    assert holes > 5 and components - holes == euler_number(mask, connectivity=2)


def test_betti_error_counts_a_gap_and_an_island():
    gap = ring()
    gap[4, 2] = False
    assert betti_error(ring(), ring()) == 0
    assert betti_error(gap, ring()) == betti_error(ring(), gap) == 1  # no hole any more
    gap[0, 8] = True
    assert betti_error(gap, ring()) == 2


def test_cl_dice_by_hand():
    thick, thin = pair((20, 40))
    thick[8:13, 2:38] = thin[10, 4:36] = True
    assert cl_dice(thin, thick) == cl_dice(thick, thin) > 0.9  # not 1: the middle line of a bar forks at its ends
    assert dice(thin, thick) < 0.31
    half = thin.copy()
    half[:, 20:] = False
    assert cl_dice(half, thin) == pytest.approx(2 / 3)  # precision 1, sensitivity 1 / 2


def test_cl_dice_of_empty_and_one_pixel_masks():
    a, b = pair()
    assert np.isnan(cl_dice(a, b))
    b[1, 1] = True
    assert cl_dice(a, b) == cl_dice(b, a) == 0
    assert cl_dice(b, b) == 1
    a[1, 3] = True
    assert cl_dice(a, b) == 0


def test_betti_numbers_refuse_counts():
    with pytest.raises(ValueError, match="float64; expected a boolean array"):
        betti_numbers(np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"mask has shape \(2,\); expected \(H, W\)"):
        betti_numbers(np.ones(2, bool))


@pytest.mark.parametrize("score", [dice, slice_dice, hd95, assd, cl_dice, betti_error])
def test_scores_refuse_shapes_and_types(score):
    a = np.zeros((2, 3, 4), bool)
    with pytest.raises(ValueError, match=r"prediction has shape \(2, 3, 4\), truth \(2, 3\); expected one shape"):
        score(a, a[..., 0])
    with pytest.raises(ValueError, match="truth is of type uint8; expected a boolean array"):
        score(a, a.astype(np.uint8))  # 255, unlabelled, would count as the structure
    with pytest.raises(ValueError, match="prediction is of type list"):
        score([[True]], a)


def test_hd95_and_volume_dice_refuse_what_does_not_fit():
    a = np.zeros((2, 3, 4), bool)
    with pytest.raises(ValueError, match=r"expected \(H, W\) or \(D, H, W\)"):
        hd95(a[0, 0], a[0, 0])
    for spacing in ((1, 1), (1, 1, 0), (1, 1, np.nan)):
        with pytest.raises(ValueError, match="expected 3 positive lengths"):
            hd95(a, a, spacing=spacing)
    with pytest.raises(ValueError, match=r"volumes have shape \(3,\); expected one per slice, \(2,\)"):
        volume_dice(a, a, np.zeros(3))


def test_matched_f1_by_hand():
    truth, found = np.zeros((2, 8, 12), int)
    truth[0:4, 0:4], truth[0:4, 6:10], truth[6:8, 0:2] = 1, 2, 7  # numbers need not follow each other
    assert matched_f1(truth, truth) == 1 and np.isnan(matched_f1(found, found))
    assert matched_f1(found, truth) == matched_f1(truth, found) == 0
    found[0:4, 0:3], found[0:4, 6:8], found[5:8, 5:8] = 3, 1, 2  # IoU 12/16; 8/16, which is not more than half; none
    assert matched_f1(found, truth) == pytest.approx(2 * 1 / (3 + 3))
    merged = (truth > 0).astype(int)  # all as one region: it overlaps the largest object by 16 of 36
    assert matched_f1(merged, truth) == 0


@pytest.mark.parametrize("wrong", [np.zeros((4, 4)), np.full((4, 4), -1), np.zeros((4, 5), int)])
def test_matched_f1_refuses_what_are_no_numbered_regions(wrong):
    with pytest.raises(ValueError, match=r"found has shape .*; expected integers of 0 or more, both of shape \(4, 4\)"):
        matched_f1(wrong, np.zeros((4, 4), int))
