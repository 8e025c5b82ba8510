"""Features of classical pipelines: equal to hand-computed cases, defined where nothing is to be seen, errors told."""

import numpy as np
import pytest
from scipy import stats
from skimage.draw import disk

from helpers.shallow import KINDS, SHAPE, feature_table


def values(image, kind, mask=None) -> dict[str, float]:
    table, names = feature_table(image[None], kinds=[kind], masks=None if mask is None else mask[None])
    return dict(zip((name.removeprefix(f"{kind}: ") for name in names), table[0], strict=True))


def drawn(seed=0, side=32):
    return np.random.default_rng(seed).random((side, side))


def test_histogram_counts_the_pixels_of_the_mask():
    image, mask = np.zeros((16, 16)), np.zeros((16, 16), bool)
    image[:4], mask[:8] = 1.0, True  # half of the mask is 1, which belongs to the last interval
    shares = values(image, "histogram", mask)
    assert list(shares)[0] == "share 0.00 to 0.06" and list(shares.values()) == [0.5, *[0] * 14, 0.5]


def test_first_order_features_are_those_of_scipy():
    image, mask = drawn(), drawn(1) > 0.4
    found, inside = values(image, "first_order", mask), image[mask]
    expected = {"mean": inside.mean(), "skewness": stats.skew(inside), "kurtosis": stats.kurtosis(inside)}
    expected |= {"standard deviation": inside.std(), "percentile 90": np.percentile(inside, 90)}
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    two = np.where(np.arange(256).reshape(16, 16) % 2, 0.9, 0.1)
    assert values(two, "first_order")["entropy"] == pytest.approx(1)  # two values, equally often: one bit


def test_co_occurrence_of_stripes():
    stripes = np.tile([0.0, 1.0], (32, 16))  # columns; grey levels 0 and 15
    found = values(stripes, "co_occurrence")
    assert found["contrast, 1 px"] == pytest.approx(3 / 4 * 15**2)  # of four directions only the vertical sees none
    assert found["contrast, 3 px"] == pytest.approx(1 / 4 * 15**2)  # the diagonals land two columns on
    assert found["correlation, 1 px"] == pytest.approx((1 - 3) / 4, abs=0.01)


def test_binary_patterns_do_not_see_a_quarter_turn():
    image = drawn()
    found, turned = (values(np.ascontiguousarray(one), "binary_patterns") for one in (image, np.rot90(image)))
    assert found == pytest.approx(turned) and sum(found.values()) == pytest.approx(1)
    flat = values(np.full((32, 32), 0.5), "binary_patterns", np.pad(np.ones((30, 30), bool), 1))
    assert flat["pattern 8"] == 1  # no neighbour is darker
    assert max(found.values()) < 0.5


def test_gradients_do_not_see_contrast_but_see_direction():
    image = drawn()
    found = np.array(list(values(image, "gradients").values()))
    assert found.shape == (3 * 3 * 2 * 2 * 8,)
    np.testing.assert_allclose(found, list(values(0.5 * image, "gradients").values()), atol=1e-3)
    ramp = np.tile(np.linspace(0, 1, 32), (32, 1))
    sums = [np.reshape(list(values(one, "gradients").values()), (-1, 8)).sum(0) for one in (ramp, ramp.T)]
    assert sums[0].argmax() != sums[1].argmax()


def test_shape_of_a_disc_and_of_a_bar():
    mask = np.zeros((64, 64), bool)
    mask[disk((30, 30), 12)] = True
    found = values(drawn(side=64), "shape", mask)
    assert found["area"] == pytest.approx(mask.mean()) and found["components"] == 1
    assert found["circularity"] > 0.9 and found["eccentricity"] < 0.1 and found["solidity"] > 0.95
    assert found["perimeter"] == pytest.approx(2 * np.pi * 12 / 64, rel=0.1)  # in sides of the image
    mask[:] = False
    mask[10:12, 5:45], mask[50, 50] = True, True  # and one pixel apart
    bar = values(drawn(side=64), "shape", mask)
    assert bar["components"] == 2 and bar["extent"] == 1 and bar["eccentricity"] > 0.99 and bar["circularity"] < 0.4


@pytest.mark.parametrize("image", [np.zeros((16, 16)), np.full((16, 16), 0.3), np.ones((16, 16))])
@pytest.mark.parametrize("foreground", [0, 1, 256])
def test_a_constant_image_and_an_empty_foreground_are_defined(image, foreground):
    mask = np.arange(256).reshape(16, 16) < foreground
    table, names = feature_table(image[None], masks=mask[None])
    assert np.isfinite(table).all() and len(set(names)) == len(names) == table.shape[1]
    row = dict(zip(names, table[0], strict=True))
    assert row["first_order: standard deviation"] == pytest.approx(0) and row["first_order: skewness"] == 0
    if not foreground:
        assert not any(row[f"shape: {name}"] for name in SHAPE)
        counted = [value for name, value in row.items() if name.startswith(("histogram", "binary", "first_order: m"))]
        assert len(counted) == 16 + 10 + 1 and not any(counted)


def test_a_row_depends_on_its_own_image_only():
    images, masks = np.stack([drawn(s) for s in range(3)]), np.stack([drawn(9 + s) > 0.3 for s in range(3)])
    table, names = feature_table(images, masks=masks)
    alone, again = feature_table(images[1:2], masks=masks[1:2])
    assert names == again and np.array_equal(table[1:2], alone)
    assert {name.split(": ")[0] for name in names} == set(KINDS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(images=np.zeros((16, 16))), r"images have shape \(16, 16\)"),
        (dict(images=np.zeros((0, 16, 16))), r"images have shape \(0, 16, 16\)"),
        (dict(images=np.zeros((1, 8, 16))), r"sides of 16 pixels"),
        (dict(images=np.full((1, 16, 16), np.nan)), "images go from nan to nan"),
        (dict(images=np.full((1, 16, 16), 2.0)), "images go from 2 to 2"),
        (dict(kinds=["wavelets"]), "kind of features is 'wavelets'"),
        (dict(kinds=["shape"]), "features of shape need masks"),
        (dict(masks=np.ones((2, 16, 16))), r"masks have shape \(2, 16, 16\)"),
    ],
)
def test_wrong_input_is_told_in_a_sentence(change, message):
    given = dict(images=np.zeros((1, 16, 16)), kinds=["histogram"]) | change
    with pytest.raises(ValueError, match=message):
        feature_table(given.pop("images"), **given)
