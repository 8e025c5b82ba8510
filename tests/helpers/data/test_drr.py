"""Projected radiographs, on made-up volumes: line integrals, opacities, masks, and the cache of the samples."""

import errno

import nibabel
import numpy as np
import pytest
import torch

from helpers.data import load, radiograph, samples
from helpers.data.samples import chest_views, drr
from helpers.data.samples.drr import CENTRE, FIELD, MASK_LEVEL, add_opacity, ball, expose, project, read_chest

SPACING = np.array([5.0, 5.6, 5.6])  # (z, y, x) mm of the made-up chest after averaging
STRAIGHT = dict(angles=np.zeros(3), shift=np.zeros(3))


def axes_mm(shape, spacing) -> list[np.ndarray]:
    """Distance of each voxel from the middle of the lungs, per axis, ready to broadcast."""
    return np.ix_(*[np.arange(n) * s - c for n, s, c in zip(shape, spacing, CENTRE, strict=True)])


def block(z: float, y: float, x: float, *, at=(0, 0, 0)) -> tuple[torch.Tensor, tuple]:
    """Water (1, D, H, W) in a block of that many mm about the middle of the lungs, moved by `at`; and the spacing."""
    spacing, sides = (2.5, 2.8, 2.8), (z, y, x)
    z_mm, y_mm, x_mm = (np.abs(axis - a) < s / 2 for axis, a, s in zip(
        axes_mm((133, 128, 128), spacing), at, sides, strict=True))  # fmt: skip
    return torch.from_numpy((z_mm & y_mm & x_mm).astype(np.float32))[None], spacing


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A CT and its label map under the registered names: water, two lungs of five lobes, and a table below."""
    folder = tmp_path_factory.mktemp("samples")
    z, y, x = axes_mm((75, 64, 64), SPACING)
    body = (y / 140) ** 2 + (x / 170) ** 2 + 0 * z < 1
    lungs = body & ((y / 80) ** 2 + ((np.abs(x) - 65) / 50) ** 2 + (z / 130) ** 2 < 1)
    lobe = np.where(x < 0, np.where(z < 0, 10, 11), np.where(z < -40, 12, np.where(z < 40, 13, 14))) + 0 * y
    table = (np.abs(y - 178) < 6) & (np.abs(x) < 150) & (z < 1e9)
    hounsfield = np.where(lungs, -800, np.where(body, 0, np.where(table, 500, -1000))).astype(np.int16)
    labels = np.where(lungs, lobe, np.where(body, 50, 0)).astype(np.uint8)
    affine = np.diag([SPACING[2] / 4, SPACING[1] / 4, SPACING[0], 1])
    for name, volume in (("chest_ct.nii.gz", hounsfield), ("chest_ct_labels.nii.gz", labels)):
        fine = volume.repeat(4, 1).repeat(4, 2).T  # the file is (x, y, z), four times as fine in plane
        nibabel.save(nibabel.Nifti1Image(fine, affine), folder / name)
    return folder


@pytest.fixture(scope="module")
def chest(files):
    return read_chest(files / "chest_ct.nii.gz", files / "chest_ct_labels.nii.gz")


# --- the volume ----------------------------------------------------------------------------------------------------


def test_read_chest_gives_attenuation_lobes_and_spacing(chest):
    attenuation, lobes, spacing = chest
    assert attenuation.shape == lobes.shape == (75, 64, 64)
    assert spacing == pytest.approx(SPACING)
    assert attenuation[lobes > 0] == pytest.approx(0.2, abs=1e-5)
    assert set(np.unique(lobes)) == {0, *drr.LOBES}  # structure 50 is no lobe
    assert attenuation[37, 29, 31] == pytest.approx(1) and attenuation.max() < 1.01


def test_read_chest_removes_the_table(chest):
    attenuation = chest[0]
    table = int(round((CENTRE[1] + 178) / SPACING[1]))
    assert (attenuation[:, table - 1 : table + 2] == 0).all()


# --- line integrals ------------------------------------------------------------------------------------------------


def test_line_integral_of_a_block_is_its_thickness():
    volume, spacing = block(120, 98, 80)
    path = project(volume, spacing, size=64, **STRAIGHT)[0].numpy()
    assert path.shape == (64, 64)
    assert path[28:36, 28:36] == pytest.approx(98, rel=0.03)
    assert path[:, :10] == pytest.approx(0) and path[:10] == pytest.approx(0)
    assert project(2 * volume, spacing, size=64, **STRAIGHT)[0].numpy() == pytest.approx(2 * path)
    pixel = FIELD / 64
    assert (path[32] > 49).sum() * pixel == pytest.approx(80, abs=1.5 * pixel)  # as large as it is, in mm
    assert (path[:, 32] > 49).sum() * pixel == pytest.approx(120, abs=1.5 * pixel)


@pytest.mark.parametrize(
    ("angles", "thickness"), [((90, 0, 0), 60), ((0, 90, 0), 140), ((0, 0, 90), 98), ((180, 0, 0), 98)]
)
def test_turn_nod_and_tilt_are_about_z_x_and_y(angles, thickness):
    volume, spacing = block(140, 98, 60)
    path = project(volume, spacing, size=32, angles=np.array(angles), shift=np.zeros(3))[0].numpy()
    assert path[15:17, 15:17] == pytest.approx(thickness, rel=0.04)


def test_what_is_above_and_to_the_right_is_seen_there():
    volume, spacing = block(30, 60, 30, at=(80, 0, 60))  # z runs upwards, x along the columns
    path = project(volume, spacing, size=64, **STRAIGHT)[0].numpy()
    row, column = np.unravel_index(path.argmax(), path.shape)
    assert abs((0.5 - (row + 0.5) / 64) * FIELD - 80) < 16 and abs(((column + 0.5) / 64 - 0.5) * FIELD - 60) < 16


def test_rays_diverge_from_a_point_source():
    """What lies nearer the source is seen larger, by the ratio of the distances."""
    widths = []
    for depth in (-100, 100):
        volume, spacing = block(120, 30, 160, at=(0, depth, 0))
        path = project(volume, spacing, size=128, **STRAIGHT)[0].numpy()
        widths.append(path[64].sum() / path[64].max())
    assert widths[0] / widths[1] == pytest.approx(1600 / 1400, rel=0.02)


def test_shift_moves_the_view():
    volume, spacing = block(120, 98, 80)
    path = project(volume, spacing, size=64, angles=np.zeros(3), shift=np.array([0, 0, 40]))[0].numpy()
    columns = np.arange(64) @ path.sum(0) / path.sum()
    assert (31.5 - columns) * FIELD / 64 == pytest.approx(40, rel=0.05)


# --- opacities and exposure ----------------------------------------------------------------------------------------


def test_opacity_replaces_air_by_soft_tissue_inside_the_lungs(chest):
    attenuation, lobes, spacing = chest
    millilitres = []
    for seed in range(8):
        added = add_opacity(attenuation, lobes, spacing, np.random.default_rng(seed))
        assert added.min() >= 0 and added.dtype == np.float32
        assert (added[lobes == 0] == 0).all()
        assert 0.7 < added.max() <= drr.SOFT_TISSUE - 0.2 + 1e-5
        millilitres.append((added > 0.4).sum() * spacing.prod() / 1000)
    assert min(millilitres) > 5 and max(millilitres) < 1000
    again = add_opacity(attenuation, lobes, spacing, np.random.default_rng(7))
    assert (again == added).all()


def test_ball_is_an_ellipsoid_in_mm():
    lobes, spacing = np.zeros((60, 60, 60), int), np.array([2.0, 1.0, 1.0])
    shape = ball(lobes, spacing, np.array([30, 30, 30]), np.array([20.0, 20.0, 10.0]))
    assert shape.min() >= 0 and shape.max() <= 1 and shape[30, 30, 30] > 0.99
    assert [shape[40, 30, 30], shape[30, 50, 30], shape[30, 30, 40]] == pytest.approx([0.5] * 3)
    assert (shape > 0.5).sum() * 2 == pytest.approx(4 / 3 * np.pi * 20 * 20 * 10, rel=0.03)


def test_exposure_grows_with_the_path_and_is_noisier_where_few_photons_come():
    paths = np.linspace(50, 270, 12)
    films = [expose(np.full((64, 64), path), np.random.default_rng(0)) for path in paths]
    means = np.array([film.mean() for film in films])
    assert films[0].dtype == np.uint8 and (np.diff(means) > 0).all()
    assert means == pytest.approx((paths - 40) / 240 * 255, abs=3)
    assert films[-1].std() > 3 * films[0].std() > 0
    assert (expose(np.full((8, 8), 150), np.random.default_rng(1)) != films[5][:8, :8]).any()


# --- views ---------------------------------------------------------------------------------------------------------


def views(files, **changes):
    return drr.chest_views(
        files / "chest_ct.nii.gz", files / "chest_ct_labels.nii.gz", **dict(images=6, size=48, seed=1) | changes
    )


def test_every_second_view_has_an_opacity_with_its_exact_mask(files, monkeypatch):
    paths, integrals = [], drr.project
    monkeypatch.setattr(drr, "project", lambda *a, **k: paths.append(integrals(*a, **k)) or paths[-1])
    images = views(files)
    assert images.images.shape == (6, 1, 48, 48) and images.images.dtype == np.uint8
    assert images.labels.tolist() == [0, 1] * 3
    assert images.masks.any((1, 2)).tolist() == [False, True] * 3
    assert images.patients.tolist() == [0] * 6
    for (_, extra), mask in zip(np.stack(paths)[1::2], images.masks[1::2], strict=True):
        assert (mask == (extra >= MASK_LEVEL * extra.max())).all() and 0 < mask.mean() < 0.5
    assert len({image.tobytes() for image in images.images}) == 6


def test_the_opacity_is_seen_where_the_mask_is(files, monkeypatch):
    with_opacity = views(files)
    monkeypatch.setattr(drr, "SOFT_TISSUE", 0.1)  # less than the lung: nothing is added
    without = views(files, images=2)
    brighter = with_opacity.images[1, 0].astype(float) - without.images[1, 0]
    mask = with_opacity.masks[1] == 1
    assert not without.masks.any()
    assert brighter[mask].mean() > 10 and abs(np.median(brighter[~mask])) < 3


def test_views_depend_on_the_seed_only(files):
    first, again, other = views(files, images=2), views(files, images=2), views(files, images=2, seed=2)
    assert first.content_hash() == again.content_hash() != other.content_hash()


# --- samples -------------------------------------------------------------------------------------------------------


def test_views_are_computed_once_and_then_read_from_the_cache(files, monkeypatch, tmp_path):
    for name in ("chest_ct.nii.gz", "chest_ct_labels.nii.gz"):
        (tmp_path / name).symlink_to(files / name)
    monkeypatch.setenv("SMALL_SAMPLE_DATA", str(tmp_path))
    monkeypatch.setattr(samples, "path", tmp_path.joinpath)  # made up, so not those of the registry
    calls, compute = [], drr.chest_views
    monkeypatch.setattr(drr, "chest_views", lambda *a, **k: calls.append(k["seed"]) or compute(*a, **k))
    first, again = (chest_views(images=2, size=32, seed=5) for _ in range(2))
    assert calls == [5]
    assert first.content_hash() == again.content_hash() == views(files, images=2, size=32, seed=5).content_hash()
    assert load("xray", source="sample", images=2, size=32, seed=5).content_hash() == first.content_hash()
    calls.clear()
    chest_views(images=2, size=32, seed=6)
    assert calls == [6]  # other arguments
    monkeypatch.setattr(samples.drr, "__file__", __file__)
    chest_views(images=2, size=32, seed=6)
    assert calls == [6, 6]  # other code
    for kept in tmp_path.glob("chest_views-*.npz"):
        kept.write_bytes(kept.read_bytes()[:500])
    assert chest_views(images=2, size=32, seed=6).content_hash() != first.content_hash()
    assert calls == [6, 6, 6]  # damaged
    assert not list(tmp_path.glob("*.partial*"))


def test_views_that_cannot_be_kept_are_told(files, monkeypatch, tmp_path):
    for name in ("chest_ct.nii.gz", "chest_ct_labels.nii.gz"):
        (tmp_path / name).symlink_to(files / name)
    monkeypatch.setenv("SMALL_SAMPLE_DATA", str(tmp_path))
    monkeypatch.setattr(samples, "path", tmp_path.joinpath)  # made up, so not those of the registry

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.warns(
        UserWarning, match=r"^the views are not kept: cannot write to .*: the disk is full; SMALL_SAMPLE_D"
    ):
        assert len(chest_views(images=2, size=32, seed=5)) == 2


def test_views_without_the_ct_say_how_to_bring_it(monkeypatch, tmp_path):
    monkeypatch.setenv("SMALL_SAMPLE_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="chest_ct.nii.gz .*: python -m data_scripts.fetch chest_ct.nii.gz"):
        chest_views(images=2, size=32, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_radiograph_is_named():
    with pytest.raises(ValueError) as error:
        radiograph("hand.dcm")
    assert str(error.value) == "no radiograph is called 'hand.dcm'; known are chest_cr.dcm, tibia_cr.dcm"


@pytest.mark.parametrize("name", samples.RADIOGRAPHS)
def test_radiographs_are_bright_where_the_body_attenuates(name):
    pixels = radiograph(name)
    assert pixels.dtype == np.float32 and pixels.ndim == 2
    assert (pixels.min(), pixels.max()) == (0, 1)
    rows, columns = (side // 2 for side in pixels.shape)
    middle = pixels[rows - 100 : rows + 100, columns - 40 : columns + 40]  # spine, shin bone
    assert middle.mean() > pixels.mean() + 0.1
