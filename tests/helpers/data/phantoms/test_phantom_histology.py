"""The H&E phantom: frozen pixels, stain mixing, nuclei, slides as bags."""

from importlib import import_module

import numpy as np
import pytest
from skimage.measure import block_reduce, regionprops_table

from helpers.data.phantoms.histology import SCANNERS, histology

module = import_module("helpers.data.phantoms.histology")  # the package has the function under this name

LABORATORIES = tuple(SCANNERS)


@pytest.fixture(scope="module")
def tiles():
    return histology(images=20, patients=4, size=128, seed=2)


def _nuclei(tiles) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Type, area in µm² and long by short axis of all nuclei that no edge of the field cuts."""
    wanted = ("intensity_max", "area", "axis_major_length", "axis_minor_length", "bbox")
    rows, size = [], tiles.masks.shape[1]
    for instances, mask in zip(tiles.instances, tiles.masks, strict=True):
        table = np.stack(list(regionprops_table(instances, mask, properties=wanted).values()), 1)
        rows.append(table[(table[:, 4:6] > 0).all(1) & (table[:, 6:] < size).all(1)])
    kind, area, long, short = np.concatenate(rows)[:, :4].T
    return kind, area * (module.FIELD / size) ** 2, long / short.clip(0.1)


def _density(tiles, scanner) -> np.ndarray:
    """Optical density (3, P) of all pixels that are neither black nor white."""
    white = np.array(SCANNERS[scanner][2])[:, None]
    pixels = np.moveaxis(tiles.images, 1, 0).reshape(3, -1)
    return -np.log(pixels[:, ((pixels > 20) & (pixels < 0.9 * white)).all(0)] / white)


@pytest.mark.parametrize(
    ("settings", "frozen"),
    [
        ({"images": 6, "patients": 2, "size": 64, "seed": 1}, "c632ad1c40f4c1d6"),
        ({"images": 4, "patients": 4, "size": 96, "difficulty": 0.7, "scanner": LABORATORIES}, "a3a8e4cb507d2d60"),
    ],
)
def test_pixels_are_frozen(settings, frozen):
    assert histology(**settings).content_hash() == frozen


def test_laboratories_show_the_same_tissue_and_seeds_do_not():
    purple, pink = (histology(images=4, size=64, scanner=name) for name in LABORATORIES)
    for field in ("labels", "masks", "instances", "volumes"):
        np.testing.assert_array_equal(getattr(purple, field), getattr(pink, field))
    assert (purple.images != pink.images).mean() > 0.8
    assert (histology(images=4, size=64, seed=1).masks != purple.masks).mean() > 0.1


@pytest.mark.parametrize("scanner", LABORATORIES)
def test_unmixing_recovers_the_stains(scanner):
    slide = module._slide(np.random.default_rng(0))
    stains, *_ = module._section(np.random.default_rng(1), slide, True, 0.0, 64)
    density = -np.log(module._transmit(stains, scanner)).reshape(3, -1)
    vectors, strength, *_ = SCANNERS[scanner]
    vectors = np.array(vectors).T
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=0), 1, atol=0.01)
    amount, residual, rank, _ = np.linalg.lstsq(vectors, density, rcond=None)
    assert rank == 2 and residual.max() < 1e-20
    np.testing.assert_allclose(amount / np.array(strength)[:, None], stains.reshape(2, -1), atol=1e-9)


@pytest.mark.parametrize("scanner", LABORATORIES)
def test_colours_lie_in_the_plane_of_the_stains_of_their_own_laboratory(scanner):
    density = _density(histology(images=4, patients=4, size=64, scanner=scanner), scanner)
    off = {}
    for name, (vectors, *_) in SCANNERS.items():
        normal = np.cross(*vectors)
        off[name] = np.sqrt(np.mean((normal @ density / np.linalg.norm(normal)) ** 2))
    other = next(name for name in LABORATORIES if name != scanner)
    assert off[scanner] < 0.05 and off[scanner] < 0.6 * off[other]


@pytest.mark.parametrize("scanner", LABORATORIES)
def test_empty_glass_shows_photon_noise_around_the_white_point(scanner):
    glass = module._scan(np.random.default_rng(0), np.zeros((2, 128, 128)), scanner)
    _, _, white, _, photons = SCANNERS[scanner]
    np.testing.assert_allclose(glass[2].mean(), white[2], atol=0.5)
    assert glass[2].std() / white[2] == pytest.approx(photons**-0.5, rel=0.06)


def test_each_instance_has_one_type_and_the_next_number(tiles):
    np.testing.assert_array_equal(tiles.masks > 0, tiles.instances > 0)
    assert tiles.instances.dtype == np.int32
    for instances, mask in zip(tiles.instances, tiles.masks, strict=True):
        pairs = np.unique(np.stack([instances, mask]).reshape(2, -1), axis=1)
        np.testing.assert_array_equal(pairs[0], np.arange(len(pairs[0])))
        assert 20 <= instances.max() <= 110


def test_nuclei_have_the_sizes_and_shapes_of_their_types(tiles):
    kind, area, elongation = _nuclei(tiles)
    areas = [np.median(area[kind == k]) for k in (1, 2, 3)]
    for found, low, high in zip(areas, (30, 30, 90), (55, 45, 150), strict=True):
        assert low < found < high
    connective, inflammatory, neoplastic = (np.median(elongation[kind == k]) for k in (1, 2, 3))
    assert connective > 2.3 > 1.7 > neoplastic > inflammatory > 1


def test_tumour_nuclei_are_paler_and_larger_unless_it_is_difficult(tiles):
    hard = histology(images=20, patients=4, size=128, difficulty=1.0, seed=2)
    easy_ratio, hard_ratio = (
        np.median(area[kind == 3]) / np.median(area[kind == 2]) for kind, area, _ in (_nuclei(tiles), _nuclei(hard))
    )
    assert easy_ratio > 2.5 > 1.8 > hard_ratio
    red = [[s.images[:, 0][s.masks == k].mean() for k in (1, 2, 3)] for s in (tiles, hard)]  # haematoxylin takes it out
    assert red[0][2] - red[0][1] > 30 > 12 > abs(red[1][2] - np.mean(red[1][:2]))
    assert (hard.masks == 3).mean() < 0.4 * (tiles.masks == 3).mean()


def test_connective_nuclei_lie_along_the_collagen():
    slide = module._slide(np.random.default_rng(0))
    tissue = module._tissue(np.random.default_rng(1), slide, False, 1.0, 128)
    kind, centre, _, angle = module._scatter(np.random.default_rng(2), tissue, slide, 1.0)
    rows, columns = (np.gradient(tissue["across"], axis=axis) for axis in (0, 1))
    at = tuple(centre[kind == 1].T.astype(int).clip(0, 127))
    away = np.cos(angle[kind == 1] - np.arctan2(rows[at], columns[at]))  # 0 if at right angles to the steepest slope
    assert len(away) > 8 and np.abs(away).mean() < 0.25


def test_a_slide_is_a_bag_whose_label_is_the_maximum():
    tiles = histology(images=96, patients=8, size=32, difficulty=1.0)
    np.testing.assert_array_equal(tiles.labels, (tiles.masks == 3).any((1, 2)))
    for slide in range(8):
        labels = tiles.labels[tiles.volumes == slide]
        assert labels.max() == slide % 2
        assert slide % 2 == 0 or 0.2 <= labels.mean() <= 0.6 + 1 / 12
    np.testing.assert_array_equal(histology(images=4, patients=4, size=32).labels, [0, 1, 0, 1])


def test_the_field_is_the_same_at_every_size():
    small, large, other = (histology(images=2, size=size, seed=seed) for size, seed in ((64, 4), (128, 4), (64, 5)))
    for tiles, size in ((small, 64), (large, 128)):
        np.testing.assert_allclose(tiles.spacing * size, 0.128)
    halved = block_reduce(large.images, (1, 1, 2, 2), np.mean)
    same, different = (np.corrcoef(halved.ravel(), tiles.images.ravel())[0, 1] for tiles in (small, other))
    assert same > 0.85 > 0.6 > different


def test_brightness_alone_does_not_tell_tumour():
    tiles = histology(images=160, patients=16, size=32)
    mean = tiles.images.mean((1, 2, 3))
    tumour, none = mean[tiles.labels == 1], mean[tiles.labels == 0]
    auc = (tumour[:, None] > none).mean()  # probability that a tumour tile is the brighter of two
    assert 0.3 < auc < 0.7
