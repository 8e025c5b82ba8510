import re

import numpy as np
import pytest
from scipy import ndimage

from helpers.data.image_set import UNLABELLED
from helpers.data.phantoms.mr import mr
from helpers.labels.weak import (
    SECONDS,
    box,
    box_labels,
    centroid,
    check_labels,
    eroded,
    random_point,
    scribble,
    tags,
    wrong_sizes,
)

DRAWN = [eroded, random_point, centroid, scribble]
RANDOM = [random_point, scribble]
U = UNLABELLED


def boxed(masks: np.ndarray) -> np.ndarray:
    return box_labels(box(masks), masks.shape[1:])


def mask(*rows: str) -> np.ndarray:
    """One mask (1, H, W) from rows of # and . as it looks."""
    return np.array([[[letter == "#" for letter in row] for row in rows]])


def filled(*, height=9, width=9, at=(slice(None), slice(None))) -> np.ndarray:
    result = np.zeros((1, height, width), bool)
    result[0][at] = True
    return result


@pytest.fixture(scope="module")
def ventricles() -> np.ndarray:
    """Left ventricles (40, 64, 64) of two phantom hearts, from the valve to the apex; some slices have none."""
    return mr(images=40, patients=2, size=64).masks == 3


EDGE = {
    "empty": filled(at=(slice(0), slice(0))),
    "one pixel": filled(at=(4, 4)),
    "one pixel in the corner": filled(at=(0, 8)),
    "at the border": filled(at=(slice(0, 5), slice(3, 9))),
    "the whole image": filled(),
    "two parts": filled(at=(slice(2, 7), [0, 1, 7, 8])),
    "thin line": filled(at=(4, slice(None))),
    "image of one pixel": filled(height=1, width=1),
}


# --- what holds for all ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", [*DRAWN, boxed])
def test_labels_agree_with_the_masks_of_hearts(draw, ventricles):
    labels = draw(ventricles)
    assert labels.dtype == np.uint8 and labels.shape == ventricles.shape
    check_labels(labels, ventricles)
    says = {value: (labels == value).any((1, 2)) for value in (0, 1)}
    there = ventricles.any((1, 2))
    assert 0 < there.sum() < len(there)  # both kinds of slice are in the fixture
    assert np.array_equal(says[1], there & (draw is not boxed))
    assert (says[0] == (draw in (boxed, scribble))).all()


@pytest.mark.parametrize("draw", [*DRAWN, boxed])
@pytest.mark.parametrize("name", EDGE)
def test_labels_of_unusual_masks(draw, name):
    masks = EDGE[name]
    labels = draw(masks)
    check_labels(labels, masks)
    assert (labels == 1).any() == (masks.any() and draw is not boxed)
    assert (labels == 0).any() == (not masks.all() and draw in (boxed, scribble))


@pytest.mark.parametrize("draw", [*DRAWN, box])
def test_an_image_gets_the_same_label_in_any_batch_and_every_time(draw, ventricles):
    before = ventricles.copy()
    labels = draw(ventricles)
    assert np.array_equal(labels, draw(ventricles))
    assert np.array_equal(labels[:7], draw(ventricles[:7]))
    assert np.array_equal(labels[:1], draw(ventricles[:1]))
    assert np.array_equal(ventricles, before)


@pytest.mark.parametrize("draw", RANDOM)
def test_seeds_and_images_draw_differently(draw):
    masks = np.repeat(filled(height=120, width=120, at=(slice(9, 99), slice(20, 110))), 8, axis=0)
    labels = draw(masks)
    assert len({image.tobytes() for image in labels}) == 8
    assert not (labels == draw(masks, seed=1)).all((1, 2)).any()


@pytest.mark.parametrize("draw", [*DRAWN, box, tags])
@pytest.mark.parametrize("bad", [np.ones((9, 9), bool), np.ones((1, 9, 9), np.uint8)])
def test_masks_must_be_booleans_of_several_images(draw, bad):
    with pytest.raises(ValueError, match=re.escape(f"masks are {bad.dtype} {bad.shape}; expected booleans (N, H, W)")):
        draw(bad)


@pytest.mark.parametrize("draw", [*DRAWN, box, tags])
def test_no_images_give_no_labels(draw):
    assert len(draw(np.zeros((0, 9, 9), bool))) == 0


# --- one by one -----------------------------------------------------------------------------------------------------


def test_erosion_of_a_small_diamond():
    diamond = mask("..#..", ".###.", "#####", ".###.", "..#..")
    plus = mask(".....", "..#..", ".###.", "..#..", ".....")
    assert np.array_equal(eroded(diamond, share=1), np.where(diamond, 1, U))
    assert np.array_equal(eroded(diamond, share=0.99), np.where(plus, 1, U))
    assert np.array_equal(eroded(diamond, share=5 / 13), np.where(plus, 1, U))  # at most: equal is enough
    assert np.array_equal(np.argwhere(eroded(diamond) == 1), [[0, 2, 2]])


def test_erosion_takes_as_much_as_asked_and_never_all(ventricles):
    """k erosions leave the pixels with a city-block distance to the background above k."""
    for image, left in zip(ventricles, eroded(ventricles, share=0.3) == 1, strict=True):
        distance = ndimage.distance_transform_cdt(np.pad(image, 1), "taxicab")[1:-1, 1:-1]
        stages = [distance > k for k in range(max(distance.max(), 1))]
        small = [stage for stage in stages if stage.sum() <= 0.3 * image.sum()]
        assert np.array_equal(left, small[0] if small else stages[-1])


def test_erosion_goes_inward_from_the_image_border():
    assert np.array_equal(np.argwhere(eroded(filled(height=3, width=3)) == 1), [[0, 1, 1]])


@pytest.mark.parametrize("share", [0, -0.1, 1.1, float("nan")])
def test_share_out_of_range(share):
    with pytest.raises(ValueError, match=rf"share is {share}; expected a number in \(0, 1\]"):
        eroded(filled(), share=share)


def test_centroid_of_a_small_structure():
    assert np.array_equal(np.argwhere(centroid(filled(), radius=0) == 1), [[0, 4, 4]])
    plus = mask("..#..", "..#..", "#####", "..#..", "..#..")
    assert np.array_equal(
        centroid(filled(height=5, width=5), radius=2) == 1, plus | mask(*[".....", *[".###."] * 3, "....."])
    )
    assert np.array_equal(np.argwhere(centroid(mask("#####....##"), radius=0) == 1), [[0, 0, 4]])  # mean 4.1, median 3
    ring = filled(height=5, width=5) & ~filled(height=5, width=5, at=(2, 2))  # the centroid itself is outside
    assert np.array_equal(np.argwhere(centroid(ring, radius=0) == 1), [[0, 1, 2]])
    assert np.array_equal(centroid(ring, radius=1) == 1, mask("..#..", ".###.", ".....", ".....", "....."))


def test_points_fall_on_every_pixel_alike():
    pair = np.repeat(mask("#....", "....#"), 4000, axis=0)
    where = random_point(pair, radius=0) == 1
    assert np.array_equal(where.sum((1, 2)), np.ones(4000))
    assert abs(where[:, 0, 0].mean() - 0.5) < 0.03  # four standard deviations


def test_a_point_is_a_whole_disc_where_there_is_room():
    labels = random_point(filled(height=400, width=400), radius=2)
    disc = np.hypot(*np.mgrid[-2:3, -2:3]) <= 2
    rows, cols = np.nonzero(labels[0] == 1)
    assert np.array_equal(labels[0, rows.min() : rows.max() + 1, cols.min() : cols.max() + 1] == 1, disc)


def test_boxes_are_half_open_and_cut_at_the_border():
    masks = np.concatenate([filled(at=(slice(1, 4), slice(2, 8))), EDGE["empty"], EDGE["one pixel in the corner"]])
    assert box(masks).tolist() == [[1, 2, 4, 8], [-1] * 4, [0, 8, 1, 9]]
    assert box(masks, margin=2).tolist() == [[0, 0, 6, 9], [-1] * 4, [0, 6, 3, 9]]
    assert np.issubdtype(box(masks).dtype, np.integer)


def test_box_labels_are_background_outside():
    labels = box_labels([[0, 1, 2, 3], [-1] * 4, [0, 0, 2, 3]], (2, 3))
    assert labels.tolist() == [[[0, U, U], [0, U, U]], [[0, 0, 0], [0, 0, 0]], [[U, U, U], [U, U, U]]]


@pytest.mark.parametrize(
    "bad",
    [
        (2, 0, 1, 3),
        (0, 3, 2, 1),
        (1, 1, 1, 2),
        (-1, 0, 2, 3),
        (0, -1, 2, 3),
        (0, 0, 3, 3),
        (0, 0, 2, 4),
        (-1, -1, -1, 2),
    ],
)
def test_boxes_that_are_none(bad):
    expected = f"box 1 is {bad}; expected (row0, col0, row1, col1), 0 <= row0 < row1 <= 2 and 0 <= col0 < col1 <= 3"
    with pytest.raises(ValueError, match=re.escape(expected)):
        box_labels(np.array([(0, 0, 1, 1), bad]), (2, 3))


def test_scribbles_are_connected_curves_of_both_classes():
    masks = np.repeat(filled(height=64, width=64, at=(slice(20, 44), slice(22, 42))), 10, axis=0)
    labels = scribble(masks)
    outside, inside = (ndimage.distance_transform_edt(side[0]) for side in (~masks, masks))
    for image in labels:
        for value in (0, 1):
            assert ndimage.label(image == value, np.ones((3, 3)))[1] == 1
        assert inside[image == 1].min() > 1 < outside[image == 0].min()  # clear of the border
        assert outside[image == 0].max() <= np.sqrt(24 * 20 / np.pi)  # near the structure
        rows, cols = np.nonzero(image == 0)
        angles = np.sort(np.arctan2(rows - 31.5, cols - 31.5))
        gap = np.diff(np.append(angles, angles[0] + 2 * np.pi)).max()
        assert np.pi / 2 < gap < 1.5 * np.pi  # about half round it, neither a ring nor a dot
        assert 0.03 < (image == 1).sum() / masks[0].sum() < 0.3  # a curve, not an area


def test_scribbles_keep_to_the_middle():
    masks = np.repeat(filled(height=32, width=70, at=(slice(6, 23), slice(5, 65))), 10, axis=0)
    for image in scribble(masks, radius=0):
        rows = np.nonzero(image == 1)[0]
        assert np.median(np.abs(rows - 14)) <= 1


def test_a_scribble_of_background_alone_is_a_curve_clear_of_the_image_border():
    labels = scribble(np.zeros((10, 64, 48), bool))
    assert (labels[:, 1:-1, 1:-1] == 0).sum((1, 2)).min() > 48
    labels[:, 1:-1, 1:-1] = U
    assert (labels == U).all()


def test_radius_of_a_scribble():
    masks = filled(height=64, width=64, at=(slice(16, 48), slice(16, 48)))
    thin, wide = (scribble(masks, radius=radius)[0] for radius in (0, 3))
    for value in (0, 1):
        assert not ndimage.binary_erosion(thin == value, np.ones((2, 2))).any()
        assert ndimage.binary_erosion(wide == value, np.ones((5, 5))).any()


@pytest.mark.parametrize(
    ("draw", "name"), [(random_point, "radius"), (centroid, "radius"), (scribble, "radius"), (box, "margin")]
)
def test_lengths_must_not_be_negative(draw, name):
    with pytest.raises(ValueError, match=f"{name} is -1; expected at least 0 pixels"):
        draw(filled(), **{name: -1})


def test_tags():
    assert tags(np.concatenate([EDGE["empty"], EDGE["one pixel"]])).tolist() == [False, True]


def test_wrong_sizes_are_wrong_by_just_so_much():
    sizes = np.append(np.arange(200), 0)
    wrong = wrong_sizes(sizes, error=0.2, seed=3)
    over, under = np.isclose(wrong, 1.2 * sizes), np.isclose(wrong, 0.8 * sizes)
    assert (over | under).all() and 60 < over[1:-1].sum() < 140 and wrong[0] == wrong[-1] == 0
    assert np.array_equal(wrong[:50], wrong_sizes(sizes[:50], error=0.2, seed=3))
    assert not np.array_equal(wrong, wrong_sizes(sizes, error=0.2, seed=4))
    assert np.array_equal(wrong_sizes(sizes, error=0), sizes)


@pytest.mark.parametrize("error", [-0.1, 1, float("nan")])
def test_error_out_of_range(error):
    with pytest.raises(ValueError, match=rf"error is {error}; expected a share in \[0, 1\)"):
        wrong_sizes(np.ones(3), error=error)


def test_seconds_are_said_to_be_published_or_assumed():
    assert set(SECONDS) == {"tag", "point", "box", "scribble", "eroded", "size", "full"}
    for seconds, source in SECONDS.values():
        assert 0 < seconds <= SECONDS["full"][0]
        assert source.startswith("assumption") or re.search(r"et al\., \w+ 20\d\d", source)


# --- labels that contradict a mask ----------------------------------------------------------------------------------


@pytest.fixture
def agreeing() -> tuple[np.ndarray, np.ndarray]:
    masks = np.zeros((3, 4, 5), np.uint8)
    masks[:, 1:3, 1:4] = 1
    labels = np.full_like(masks, U)
    labels[:, 1, 1], labels[:, 0, 0] = 1, 0
    return labels, masks


def test_first_contradiction_is_named(agreeing):
    labels, masks = agreeing
    check_labels(labels, masks)
    labels[1, 0, 3:] = 1
    labels[1, 2, 2] = labels[2, 2, 2] = 0
    expected = (
        "3 labelled pixels of image 1 contradict its mask, first at (0, 3): class 1 on class 0; expected the mask"
    )
    with pytest.raises(ValueError, match=re.escape(expected)):
        check_labels(labels, masks)


def test_unknown_classes(agreeing):
    labels, masks = agreeing
    labels[0, 1, 1] = masks[0, 1, 1] = 2
    check_labels(labels, masks, classes=3)
    with pytest.raises(ValueError, match="masks hold 2; expected 0 to 1, in labels also 255"):
        check_labels(labels, masks)
    masks[0, 1, 1] = 1
    with pytest.raises(ValueError, match="labels hold 2; expected 0 to 1, in labels also 255"):
        check_labels(labels, masks)
    masks[0, 1, 1] = U
    with pytest.raises(ValueError, match="masks hold 255"):
        check_labels(labels, masks)


@pytest.mark.parametrize("cut", [np.s_[:2], np.s_[:, :3], np.s_[0]])
def test_shapes_that_differ(agreeing, cut):
    labels, masks = agreeing
    with pytest.raises(ValueError, match=re.escape(f"labels have shape {labels[cut].shape}, masks (3, 4, 5)")):
        check_labels(labels[cut], masks)
    with pytest.raises(ValueError, match=re.escape("expected the same (N, H, W)")):
        check_labels(labels[0], masks[0])
