"""Changes of the pixel grid: values, spacing and the record of the step; nothing that is a class is interpolated."""

import numpy as np
import pytest

from helpers.data.image_set import UNLABELLED, ImageSet
from helpers.data.resample import centre, centred, letterbox, letterboxed, resize, respace, respaced, stack


def pair(dtype=np.uint16, shape=(6, 10), **changes) -> ImageSet:
    """Two images that rise from left to right, with objects 300 and 301, scribbles, and known spacing."""
    ramp = np.tile(np.arange(shape[1]) * 1000, (2, 1, shape[0], 1)).astype(dtype)
    instances = np.zeros((2, *shape), np.int32)
    instances[:, :3, :5], instances[:, 3:, 5:] = 300, 301
    scribbles = np.full((2, *shape), UNLABELLED, np.uint8)
    scribbles[:, 2:4] = 1
    known = dict(masks=(instances > 0) * 2, instances=instances, scribbles=scribbles, spacing=(1.0, 2.0))
    return ImageSet(**dict(name="pair", modality="MR", images=ramp, value_range=(500, 9000)) | known | changes)


def test_letterboxed_scales_the_spacing_and_keeps_types_and_objects():
    small = letterboxed(pair(), 5)
    assert small.images.shape == (2, 1, 5, 5) and small.images.dtype == np.uint16
    assert np.allclose(small.spacing, [2, 4])  # a square of 10 pixels becomes one of 5
    assert set(np.unique(small.instances)) == {0, 300, 301} and small.instances.dtype == np.int32
    assert set(np.unique(small.masks)) == {0, 2} and set(np.unique(small.scribbles)) == {1, UNLABELLED}
    large = letterboxed(pair(), 20)
    assert (large.images[:, :, :3] == 500).all() and (
        large.scribbles[:, :4] == UNLABELLED
    ).all()  # the padding is black
    assert np.allclose(large.spacing, [0.5, 1])
    assert small.steps == ("padded to a square and resized to 5 pixels",)


def test_centred_crops_one_side_and_pads_the_other():
    square = centred(pair(), 8)
    assert (square.images[0, 0, 1:7] == np.arange(1, 9) * 1000).all()
    assert (square.images[0, 0, [0, 7]] == 500).all() and (square.masks[0, [0, 7]] == 0).all()
    assert (square.instances[0, 1:4, :4] == 300).all() and (square.scribbles[0, [0, 7]] == UNLABELLED).all()
    assert (square.spacing == [1, 2]).all() and square.steps == ("cropped or padded to the central 8 pixels",)


def test_respaced_uses_the_spacing_of_each_image():
    data = pair(spacing=np.array([[1.0, 2.0], [2.0, 1.0]]))
    same = respaced(data, 2.0, 12)
    covered = [[(m > 0).any(axis).sum() for axis in (1, 0)] for m in same.masks]
    assert covered == [[3, 10], [6, 5]]  # 6 × 1 mm high and 10 × 2 mm wide; 6 × 2 mm and 10 × 1 mm
    assert (same.spacing == 2).all() and set(np.unique(same.instances)) == {0, 300, 301}
    assert same.steps == ("resampled to 2 mm", "cropped or padded to the central 12 pixels")


@pytest.mark.parametrize("spacing", [None, (np.nan, 1.0), (0.0, 1.0)])
def test_an_unknown_spacing_is_refused(spacing):
    with pytest.raises(ValueError, match=r"the spacing of 'pair' is unknown for some images; expected mm for all"):
        respaced(pair(spacing=spacing), 1.0, 8)
    with pytest.raises(ValueError, match=r"the spacing asked for is -1 mm; expected a positive number"):
        respaced(pair(), -1, 8)


def test_resize_averages_images_and_picks_labels():
    checks = np.tile(np.array([0, 200, 200, 0]), (16, 4))
    assert (np.abs(resize(checks.astype(np.uint8), (4, 4))[:, 1:3].astype(int) - 100) <= 26).all()  # not 200: no moiré
    assert set(np.unique(resize(checks, (3, 5), nearest=True))) <= {0, 200}
    assert resize(np.arange(4)[None], (1, 8), nearest=True).tolist() == [[0, 0, 1, 1, 2, 2, 3, 3]]
    assert resize(np.arange(6)[None], (1, 2), nearest=True).tolist() == [[1, 4]]  # the middles of three


def test_images_and_labels_stay_on_one_grid():
    """A disc and its mask: after every change the mask covers what is bright."""
    rows, columns = np.indices((61, 40))
    disc = np.hypot(rows - 20, columns - 12) < 9
    for change in (
        lambda a, **how: letterbox(a, 97, **how),
        lambda a, **how: letterbox(a, 33, **how),
        lambda a, **how: respace(a, (0.7, 1.3), 0.5, 101, **how),
        lambda a, nearest=False: centre(a, 45),
    ):
        image, mask = change(disc[None].astype(np.float32))[0], change(disc.astype(np.uint8), nearest=True)
        middles = [np.argwhere(a > 0.5).mean(0) for a in (image, mask)]
        assert np.abs(middles[0] - middles[1]).max() < 0.25 and mask.sum() > 50


def test_stack_needs_a_size_for_several_sizes_and_one_type():
    arrays = [np.zeros((1, 4, 6), np.uint8), np.zeros((1, 6, 4), np.uint8)]
    with pytest.raises(ValueError) as error:
        stack("here", arrays, None)
    assert str(error.value) == "'here' holds images of 2 sizes, (4, 6) to (6, 4); give a size"
    assert stack("here", arrays, 5, crop=True).shape == (2, 1, 5, 5)
    with pytest.raises(ValueError) as error:
        stack("here", [arrays[0], arrays[0].astype(np.uint16)], 4)
    assert str(error.value) == "'here' holds images of uint16 and uint8; expected one type"
    outside = stack("here", [a[0] + 1 for a in arrays], 6, kind="scribbles")
    assert (outside[0, 0] == UNLABELLED).all() and (outside[0, 1:5] == 1).all()
