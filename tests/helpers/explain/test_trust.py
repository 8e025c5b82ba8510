import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from helpers.explain.trust import (
    average_precision,
    control_map,
    deletion_insertion,
    iou_at,
    pointing_game,
    randomise_cascade,
    rank_correlation,
)
from helpers.nets.densenet import densenet


@pytest.fixture
def square() -> np.ndarray:
    """One mask of 4 × 4 pixels in 10 × 10, rows and columns 3 to 6."""
    mask = np.zeros((1, 10, 10), np.uint8)
    mask[0, 3:7, 3:7] = 2
    return mask


def spot(row: int, col: int, value: float = 1.0) -> np.ndarray:
    maps = np.zeros((1, 10, 10))
    maps[0, row, col] = value
    return maps


# --- localisation --------------------------------------------------------------------------------------------------


def test_pointing_game_by_hand(square):
    assert pointing_game(spot(4, 6), square).tolist() == [True]
    assert pointing_game(spot(4, 7), square).tolist() == [False]
    assert pointing_game(spot(4, 8), square, tolerance=2).tolist() == [True]
    assert pointing_game(spot(9, 9), square, tolerance=4).tolist() == [False]  # 3·√2 = 4.24 pixels from the corner
    assert pointing_game(spot(9, 9), square, tolerance=4.25).tolist() == [True]
    both = np.concatenate([spot(0, 0), spot(3, 3)])
    assert pointing_game(torch.from_numpy(both), np.repeat(square, 2, 0)).tolist() == [False, True]


def test_iou_by_hand(square):
    maps = np.zeros((1, 10, 10))
    maps[0, 3:7, 3:5] = 1.0  # 8 of the mask's 16 pixels
    maps[0, 0, :4] = 0.5  # 4 outside, exactly at the threshold
    maps[0, 9, :] = -3.0  # evidence against: cut
    assert iou_at(maps, square) == pytest.approx(8 / 20)
    assert iou_at(maps - 4, square, threshold=1.2) == 0  # nothing but evidence against
    assert iou_at(maps, square, threshold=0.51) == pytest.approx(8 / 16)
    assert iou_at(np.repeat(maps, 2, 0) * [[[7]], [[-1]]], np.repeat(square, 2, 0)) == pytest.approx([0.4, 0])


@pytest.mark.parametrize("constant", [-1.0, 0.0, 1.0])
def test_a_constant_map_overlaps_nothing(square, constant):
    assert iou_at(np.full((1, 10, 10), constant), square).tolist() == [0.0]


def test_average_precision_by_hand(square):
    assert average_precision(square.astype(float), square) == pytest.approx([1])
    assert average_precision(np.ones((1, 10, 10)), square) == pytest.approx([16 / 100])
    maps, mask = np.array([[[0.9, 0.8, 0.7, 0.1]]]), np.array([[[1, 0, 1, 0]]])
    assert average_precision(maps, mask) == pytest.approx([(1 + 2 / 3) / 2])


@pytest.mark.parametrize("score", [pointing_game, iou_at, average_precision])
def test_masks_that_cannot_be_used(square, score):
    maps = np.random.default_rng(0).random((2, 10, 10))
    with pytest.raises(ValueError, match="empty mask at index 1: expected at least one pixel"):
        score(maps, np.concatenate([square, np.zeros_like(square)]))
    with pytest.raises(ValueError, match=r"masks of shape \(1, 10, 10\) do not fit maps of shape \(2, 10, 10\)"):
        score(maps, square)
    with pytest.raises(ValueError, match="do not fit maps"):
        score(maps[:1, :5, :5], square)
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match="^map 0 holds NaN or infinite values: expected finite numbers$"):
            score(np.where(square, value, maps[:1]), square)


# --- faithfulness --------------------------------------------------------------------------------------------------


class Corner(nn.Module):
    """Its logit is 8 times the mean of the upper left quarter, or two opposite ones."""

    def __init__(self, classes: int = 1):
        super().__init__()
        self.sign = torch.tensor([8.0]) if classes == 1 else torch.tensor([-4.0, 4.0])

    def forward(self, images):
        return images[:, :1, :4, :4].mean((2, 3)) * self.sign


@pytest.fixture
def checkered() -> torch.Tensor:
    """+1 in the upper left quarter, -1 elsewhere."""
    images = torch.full((2, 1, 8, 8), -1.0)
    images[:, :, :4, :4] = 1
    return images


def test_deletion_and_insertion_by_hand(checkered):
    """The first quarter of the pixels carries the whole score; the reference is 0, where the logit is 0."""
    right = torch.zeros(2, 2, 2)
    right[0, 0, 0] = right[1, 1, 1] = 1  # the first map knows the quarter, the second points away from it
    maps = right.repeat_interleave(4, 1).repeat_interleave(4, 2)
    deletion, insertion, curves = deletion_insertion(Corner(), checkered, maps, steps=4, reference=torch.zeros(1, 1, 1))
    high, low = 1 / (1 + np.exp(-8)), 0.5
    assert curves.shape == (2, 2, 5)
    assert curves[0, 0] == pytest.approx([high, low, low, low, low], abs=1e-6)
    assert curves[1, 0] == pytest.approx([low, high, high, high, high], abs=1e-6)
    assert curves[0, 1, 1] == pytest.approx(high, abs=1e-6) and curves[1, 1, 1] == pytest.approx(low, abs=1e-6)
    assert deletion[0] == pytest.approx((high + 7 * low) / 8, abs=1e-6)
    assert insertion[0] == pytest.approx((low + 7 * high) / 8, abs=1e-6)
    assert deletion[1] > deletion[0] and insertion[1] < insertion[0]


def test_curves_run_between_the_image_and_the_reference(checkered):
    """By default a blur of a tenth of the shorter side."""
    rng = np.random.default_rng(0)
    images = checkered.repeat(1, 1, 5, 8) + torch.from_numpy(rng.standard_normal((2, 1, 40, 64)).astype(np.float32))
    model, maps = Corner(), torch.from_numpy(rng.random((2, 3, 3)))
    blurred = torch.from_numpy(ndimage.gaussian_filter(images.numpy(), (0, 0, 4, 4), mode="nearest"))
    for given, reference in [(None, blurred), (images.flip(0), images.flip(0))]:
        _, _, curves = deletion_insertion(model, images, maps, steps=7, reference=given, batch_size=1)
        whole, gone = (model(x).sigmoid()[:, 0].numpy() for x in (images, reference))
        assert np.allclose(curves[:, :, 0], [whole, gone], atol=1e-6)
        assert np.allclose(curves[:, :, -1], [gone, whole], atol=1e-6)


def test_the_score_is_the_probability_of_the_target(checkered):
    maps = torch.from_numpy(np.random.default_rng(0).random((2, 8, 8)))
    score = {"steps": 3, "reference": torch.zeros(1, 8, 8)}
    one = deletion_insertion(Corner(), checkered, maps, **score)[2]
    assert np.allclose(deletion_insertion(Corner(), checkered, maps, target=0, **score)[2], 1 - one, atol=1e-6)
    for target in (None, 1, torch.tensor([1, 1]), lambda logits: logits.softmax(1)[:, 1]):
        two = deletion_insertion(Corner(classes=2), checkered, maps, target=target, batch_size=1, **score)[2]
        assert np.allclose(two, one, atol=1e-6)  # softmax over ±4x is the sigmoid of 8x
    mixed = deletion_insertion(Corner(2), checkered, maps, target=torch.tensor([1, 0]), batch_size=1, **score)[2]
    assert np.allclose(mixed[:, 0], one[:, 0], atol=1e-6) and np.allclose(mixed[:, 1], 1 - one[:, 1], atol=1e-6)


def test_maps_that_do_not_fit(checkered):
    with pytest.raises(ValueError, match=r"maps of shape \(1, 8, 8\) do not fit 2 images: expected \(2, h, w\)"):
        deletion_insertion(Corner(), checkered, torch.zeros(1, 8, 8))
    with pytest.raises(ValueError, match="images hold 128 NaN"):
        deletion_insertion(Corner(), checkered * float("nan"), torch.zeros(2, 8, 8))
    with pytest.raises(ValueError, match="map 1 holds NaN"):
        deletion_insertion(Corner(), checkered, torch.stack([torch.zeros(8, 8), torch.full((8, 8), float("nan"))]))
    with pytest.raises(ValueError, match="map 0 holds NaN"):
        rank_correlation(np.full((1, 4, 4), np.nan), np.ones((1, 4, 4)))
    with pytest.raises(ValueError, match="need a classifier"):
        deletion_insertion(nn.Identity(), checkered, torch.zeros(2, 8, 8), target=1)


# --- sanity --------------------------------------------------------------------------------------------------------


def changed(a: nn.Module, b: nn.Module) -> set[str]:
    return {name for name, value in a.state_dict().items() if not torch.equal(value, b.state_dict()[name])}


def test_cascade_goes_from_the_classifier_down_and_adds_up():
    model = densenet()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    cascade = list(randomise_cascade(model, rng=np.random.default_rng(1)))
    names = [name for name, _ in cascade]
    assert names[:4] == ["classifier", "features.norm5", "features.denseblock4", "features.transition3"]
    assert names[-2:] == ["features.norm0", "features.conv0"] and len(names) == 11
    assert changed(model, cascade[0][1]) == {"classifier.weight"}
    done = set()
    for (name, copy), previous in zip(cascade, [model, *(copy for _, copy in cascade)], strict=False):
        new = changed(previous, copy)
        assert all(key.startswith(f"{name}.") for key in new)
        assert done <= (done := changed(model, copy))
    convolutions = {name for name in before if "conv" in name}
    assert convolutions | {"classifier.weight"} <= done
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_cascade_over_named_layers_is_reproducible():
    layers = ["classifier", "features.denseblock4.denselayer2.conv1"]
    first, second = (list(randomise_cascade(densenet(), rng=np.random.default_rng(4), layers=layers)) for _ in "12")
    assert [name for name, _ in first] == layers
    assert changed(densenet(), first[1][1]) == {f"{layer}.weight" for layer in layers}
    assert changed(first[1][1], second[1][1]) == set()
    with pytest.raises(ValueError, match="no layer 'clasifier' in the model: it has classifier"):
        next(randomise_cascade(densenet(), rng=np.random.default_rng(0), layers=["clasifier"]))


def test_rank_correlation_by_hand():
    a = np.array([[[1.0, 2.0], [3.0, 4.0]]])
    assert rank_correlation(a, np.exp(a)) == pytest.approx([1])
    assert rank_correlation(a, -a) == pytest.approx([-1])
    assert rank_correlation(a, -a, absolute=True) == pytest.approx([1])
    assert rank_correlation(a, np.array([[[1, 3], [2, 4]]])) == pytest.approx([1 - 6 * 2 / (4 * 15)])
    assert rank_correlation(a, np.ones_like(a)).tolist() == [0]
    assert rank_correlation(np.repeat(a, 3, 0), np.concatenate([a, -a, a * 0])) == pytest.approx([1, -1, 0])
    with pytest.raises(ValueError, match=r"shape \(1, 2, 2\) and \(1, 2, 1\) cannot be compared"):
        rank_correlation(a, a[..., :1])


# --- control maps --------------------------------------------------------------------------------------------------


def test_sobel_map_is_the_edge_strength():
    images = torch.zeros(2, 3, 12, 16)
    images[0, :, :, 8:] = torch.tensor([0.0, 0.5, 2.5])[:, None, None]  # a mean step of 1
    maps = control_map("sobel", images)
    assert maps.shape == (2, 12, 16) and maps.dtype == torch.float32
    assert np.allclose(maps[0, :, 7:9], 0.5**0.5) and (maps[0, :, :7] == 0).all() and (maps[0, :, 9:] == 0).all()
    assert (maps[1] == 0).all()


def test_centre_map_is_a_gaussian_of_a_quarter_of_each_side():
    maps = control_map("centre", torch.zeros(2, 1, 41, 81))
    assert maps.shape == (2, 41, 81) and maps[0, 20, 40] == maps.max() == 1
    sigma = np.exp(-0.5)
    assert maps[0, 20, 40 + 20].item() == pytest.approx(np.exp(-((20 / 81 / 0.25) ** 2) / 2), rel=1e-5)
    assert maps[0, 20 + 10, 40].item() == pytest.approx(sigma, abs=0.02)
    assert torch.allclose(maps, maps.flip(1).flip(2)) and torch.equal(maps[0], maps[1])


def test_random_map_is_as_smooth_as_a_cam_and_seeded():
    images = torch.zeros(2, 1, 96, 96)
    first, again = (control_map("random", images, rng=np.random.default_rng(2)) for _ in "12")
    assert torch.equal(first, again) and not torch.equal(first[0], first[1])
    assert first.shape == (2, 96, 96) and first.diff(dim=2).abs().max() <= 1 / 16
    assert first.min() >= 0 and first.max() <= 1 and first.std() > 0.15
    cells = np.random.default_rng(2).random((2, 6, 6)).astype(np.float32)
    assert np.allclose(first[:, :8, :8], cells[:, :1, :1])  # beyond the middle of the outermost cells


def test_control_maps_that_cannot_be_made():
    with pytest.raises(ValueError, match=r"control map 'random' expects rng=np.random.default_rng\(seed\), got None"):
        control_map("random", torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match="unknown control map 'center': expected 'sobel', 'centre' or 'random'"):
        control_map("center", torch.zeros(1, 1, 8, 8))
