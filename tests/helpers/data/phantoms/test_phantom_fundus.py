"""The fundus phantom: frozen pixels, exact masks, cup-to-disc ratios, vessels, lesions, and what the cameras change."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from helpers.data.phantoms.fundus import (
    LOWEST,
    RADIUS,
    SCANNERS,
    THINNEST,
    VIEWS,
    _draw_vessels,
    _eye,
    _patient,
    _photograph,
    _reflectance,
    _tree,
    fundus,
)

BOTH = tuple(SCANNERS)


def vertical_ratio(masks) -> np.ndarray:
    """Height of the cup as a share of that of the disc."""
    return (masks == 2).any(2).sum(1) / (masks > 0).any(2).sum(1)


def tree_of(seed, fovea=(4.7, 0.5)):
    rng = np.random.default_rng(seed)
    return _tree(rng, _patient(rng, True), np.array(fovea), np.array([-0.2, 0.0]))


@pytest.fixture(scope="module")
def crops():
    return fundus(images=24, patients=24, size=96, view="disc", seed=4)


@pytest.fixture(scope="module")
def retinas():
    return fundus(images=12, patients=6, size=96, target="vessels", seed=5)


@pytest.fixture(scope="module")
def lesions():
    return fundus(images=12, patients=6, size=96, target="lesions", seed=5)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (dict(size=48, scanner=BOTH, seed=7), "331469efa70c3d71"),
        (dict(size=65, scanner=BOTH, difficulty=0.6, target="lesions", seed=8), "7f000f71ede3719c"),
        (dict(size=40, scanner=BOTH, view="disc", target="vessels", seed=9), "f5c4a11a094b1125"),
    ],
)
def test_phantom_is_frozen(arguments, expected):
    assert fundus(images=9, patients=6, **arguments).content_hash() == expected


@pytest.mark.parametrize(("view", "target"), [("retina", "vessels"), ("retina", "lesions"), ("disc", "disc")])
def test_anatomy_is_the_same_on_both_scanners_and_differs_between_seeds(view, target):
    common = dict(images=6, patients=6, size=64, view=view, target=target)
    zeiss, drishti = (fundus(scanner=scanner, seed=1, **common) for scanner in BOTH)
    assert (zeiss.masks == drishti.masks).all()
    assert (zeiss.images != drishti.images).mean() > 0.5
    other = fundus(seed=2, **common)
    found = zeiss.masks.any((1, 2)) | other.masks.any((1, 2))
    assert ((zeiss.masks != other.masks).any((1, 2)) == found).all() and found.sum() >= 3


def test_all_targets_show_the_same_pictures(retinas, lesions):
    disc = fundus(images=12, patients=6, size=96, target="disc", seed=5)
    assert (disc.images == retinas.images).all() and (disc.images == lesions.images).all()
    assert (disc.labels == retinas.labels).all()
    for images in (disc, retinas, lesions):
        assert set(np.unique(images.masks)) == set(range(len(images.mask_names)))


def test_both_diseases_are_balanced_and_independent():
    glaucoma = fundus(images=8, patients=8, size=32).labels
    retinopathy = fundus(images=8, patients=8, size=32, target="lesions").labels
    table = np.histogram2d(glaucoma, retinopathy, 2)[0]
    assert (table == 2).all()


def test_glaucoma_is_a_ratio_above_0_6(crops):
    ratio = vertical_ratio(crops.masks)
    assert ((ratio > 0.6) == (crops.labels == 1)).all()
    assert 0.36 < np.median(ratio[crops.labels == 0]) < 0.56 < 0.64 < np.median(ratio[crops.labels == 1]) < 0.85


def test_disc_has_its_size_and_holds_the_cup(crops):
    height = (crops.masks > 0).any(2).sum(1) * crops.spacing[:, 0]
    width = (crops.masks > 0).any(1).sum(1) * crops.spacing[:, 1]
    assert 1.8 < height.mean() < 1.96 and 1.4 < height.min() < height.max() < 2.35  # mm, Quigley et al. 1990: 1.88
    assert 0.88 < (width / height).mean() < 0.98
    cups = np.pad(crops.masks == 2, ((0, 0), (1, 1), (1, 1)))
    for shift in ((0, 1), (1, 0), (0, -1), (-1, 0)):  # no cup touches the background
        assert not (np.roll(cups, shift, (1, 2))[:, 1:-1, 1:-1] & (crops.masks == 0)).any()


def test_cup_is_brighter_than_rim_and_rim_than_retina_on_every_camera():
    for scanner in BOTH:
        crops = fundus(images=6, patients=6, size=64, view="disc", scanner=scanner)
        for picture, mask in zip(crops.images, crops.masks, strict=True):
            background, rim, cup = (picture[1][mask == part].mean() for part in range(3))
            assert background < rim < cup


def test_disc_mask_ignores_the_vessels_that_cross_it(crops):
    vessels = fundus(images=24, patients=24, size=96, view="disc", target="vessels", seed=4).masks
    assert ((vessels > 0) & (crops.masks > 0)).any((1, 2)).all()


def test_fovea_is_2_5_discs_from_the_disc_dark_and_free_of_vessels():
    patient = _patient(np.random.default_rng(0), False)
    eye = _eye(np.random.default_rng(1), patient)
    x, y = ((np.arange(128) + 0.5) / 128 - 0.5) * VIEWS["retina"] + eye["fovea"][:, None]
    light, masks = _reflectance(None, eye, False, 0.0, x, y)
    distance = np.hypot(x - eye["fovea"][0], y[:, None] - eye["fovea"][1])
    assert 2.3 < eye["fovea"][0] / eye["height"] < 2.7
    assert light[1][distance < 0.4].mean() < 0.85 * light[1][(distance > 1.5) & (distance < 3)].mean()
    assert not masks["vessels"][distance < 0.3].any() and masks["vessels"][distance < 3].any()


def test_the_temple_is_right_of_the_disc_in_left_eyes_and_left_in_right_eyes():
    """Both eyes of patient 0 are seen: in the second picture the disc has changed sides."""
    masks = fundus(images=2, patients=1, size=64, seed=3).masks > 0
    columns = [np.flatnonzero(mask.any(0)).mean() for mask in masks]
    assert columns[0] > 34 and columns[1] < 30


def test_branchings_follow_murrays_law():
    tree = tree_of(3)
    trunks, ends = np.zeros(2), np.zeros(2)
    for generation, (_, widths, vein) in enumerate(tree):
        grown = widths[widths[:, 0] > 0]
        last = grown[np.arange(len(grown)), (grown > 0).sum(1) - 1]
        np.add.at(ends, vein[widths[:, 0] > 0].astype(int), last**3)
        if generation == 0:
            np.add.at(trunks, vein.astype(int), widths[:, 0] ** 3)
    np.testing.assert_allclose(ends, trunks, rtol=1e-9)
    assert 0.5 < (trunks[0] / trunks[1]) ** (1 / 3) < 0.9  # arteries are thinner than veins


def test_vessel_mask_is_every_pixel_within_half_a_width_of_a_vessel():
    tree = tree_of(4)
    x = y = ((np.arange(44) + 0.5) / 44 - 0.5) * VIEWS["disc"]
    arteries, veins, mask = _draw_vessels(tree, x, y)
    pixels, expected = np.stack(np.meshgrid(x, y), -1).reshape(-1, 1, 2), np.zeros(44**2, bool)
    for points, widths, _ in tree:
        drawn = (widths[:, 1:] > THINNEST) & (np.abs(points[:, 1:]) < 2).all(-1)
        start, move, width = points[:, :-1][drawn], np.diff(points, axis=1)[drawn], widths[:, 1:][drawn]
        share = ((pixels - start) * move).sum(-1) / (move**2).sum(-1)
        distance = np.linalg.norm(pixels - start - share.clip(0, 1)[..., None] * move, axis=-1)
        expected |= (distance < np.maximum(width, x[1] - x[0]) / 2).any(1)
    assert (mask.ravel() == expected).all() and 0.1 < expected.mean() < 0.5
    assert ((arteries + veins)[mask > 0] > 0).all()


def test_vessels_are_darker_than_their_surroundings_most_of_all_in_green(retinas):
    inside = retinas.images.mean(1) > 15
    contrast = []
    for channel in (0, 1):
        grey = retinas.images[:, channel].astype(float)
        vessel, other = (grey[inside & (retinas.masks == part)].mean() for part in (1, 0))
        contrast.append((other - vessel) / other)
    assert 0 < contrast[0] < contrast[1] and contrast[1] > 0.08


def test_lesions_belong_to_retinopathy_dark_ones_red_bright_ones_yellow(lesions):
    for part in (1, 2):
        assert ((lesions.masks == part).any((1, 2)) == (lesions.labels == 1)).all()
    ill = lesions[lesions.labels == 1]
    green = ill.images[:, 1].astype(float)
    around, dark, bright = (green[(ill.masks == part) & (ill.images[:, 0] > 30)].mean() for part in range(3))
    assert dark < 0.8 * around and bright > 1.5 * around


def test_difficulty_makes_lesions_smaller_and_the_cup_faint():
    areas, steps = [], []
    for difficulty in (0.0, 0.5, 1.0):
        ill = fundus(images=4, patients=4, size=96, target="lesions", difficulty=difficulty)
        areas.append((ill.masks > 0).sum())
        crops = fundus(images=4, patients=4, size=64, view="disc", difficulty=difficulty)
        rim, cup = (crops.images[:, 1][crops.masks == part].mean() for part in (1, 2))
        steps.append(cup - rim)
    assert areas[0] > 1.3 * areas[1] > 1.3 * areas[2] > 0
    assert steps[0] > 1.3 * steps[1] > 1.3 * steps[2] > 0


def test_fields_end_where_the_camera_does_and_masks_where_the_lowest_field_does(retinas):
    both = fundus(images=4, patients=4, size=96, scanner=BOTH, seed=5)
    radius = RADIUS / VIEWS["retina"] * 96
    offset = np.abs(np.arange(96) + 0.5 - 48)
    for i, name in enumerate(both.scanners):
        height = SCANNERS[name][6] * radius
        column = both.images[i, 0, :, 47]
        assert (column[offset > height + 1] < 30).all() and (column[offset < height - 1] > 30).all()
    assert not retinas.masks[:, offset > LOWEST * radius].any()


def test_cameras_differ_in_colour_sharpness_and_noise():
    zeiss, drishti = (fundus(images=8, patients=8, size=64, view="disc", scanner=name).images / 255.0 for name in BOTH)
    colour = [images.mean((0, 2, 3)) for images in (zeiss, drishti)]
    assert colour[1][0] > colour[0][0] and colour[1][2] < 0.8 * colour[0][2]  # redder, and less blue
    edges = [
        np.abs(np.diff(images[:, 1], axis=2)).max((1, 2)).mean() / images[:, 1].mean() for images in (zeiss, drishti)
    ]
    assert edges[1] < 0.8 * edges[0]


def test_noise_has_the_level_of_the_camera():
    x = ((np.arange(200) + 0.5) / 200 - 0.5) * 0.1  # in the middle of the field
    for camera in SCANNERS.values():
        _, gamma, *_, noise = camera
        grey = _photograph(np.random.default_rng(0), np.full((3, 200, 200), 0.3), x, x, camera)[1] / 255
        signal = grey ** (1 / gamma)
        assert abs(signal.std() / (noise * np.sqrt(0.1 + signal.mean())) - 1) < 0.05


def test_brightness_alone_tells_neither_disease():
    for target in ("disc", "lesions"):
        images = fundus(images=32, patients=32, size=32, target=target, seed=11)
        for values in (images.images.mean((1, 2, 3)), images.images.var((1, 2, 3))):
            assert 0.3 < roc_auc_score(images.labels, values) < 0.7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(view="macula"), "view is 'macula'; expected one of retina, disc"),
        (dict(target="cup"), "target is 'cup'; expected one of disc, vessels, lesions"),
        (dict(view="disc", target="lesions"), "target is 'lesions' with view 'disc'; expected view 'retina'"),
    ],
)
def test_wrong_option_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        fundus(images=4, **arguments)
