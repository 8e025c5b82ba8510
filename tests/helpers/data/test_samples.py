"""Real sample images: what they hold, how they lie, and that nobody is named."""

import re

import nibabel
import numpy as np
import pytest

from helpers.data import samples
from helpers.data.fetch import path
from helpers.data.samples import SAMPLES, sample
from helpers.data.samples import tiles as samples_tiles
from helpers.data.samples.slices import ORGANS, ct, mr, ultrasound
from helpers.data.samples.tiles import fundus, histology, nuclei

LOADED = sorted(set(SAMPLES) - {"xray"})  # the projected chest views have tests of their own
FETCHED = sorted(set(LOADED) - {"fundus", "ihc"})  # the others are installed with scikit-image


@pytest.fixture(scope="module")
def sets():
    """Twelve images of each sample, 128 pixels a side."""
    return {name: sample(name, size=128, images=12, seed=1) for name in LOADED}


@pytest.fixture(scope="module")
def chest(sets):
    return sets["ct"]


@pytest.fixture(scope="module")
def brain():
    return mr(images=7)


@pytest.mark.parametrize("name", LOADED)
def test_every_sample_has_shape_range_and_rights(sets, name):
    images, facts = sets[name], SAMPLES[name]
    assert images.images.shape == (12, 3 if name in ("fundus", "histology", "tissue", "stroma", "ihc") else 1, 128, 128)
    assert images.images.dtype == {"ct": np.int16, "nuclei": np.uint16}.get(name, np.uint8)
    tensor = images.tensor()
    assert tensor.min() < 0.25 and tensor.max() > 0.5
    assert images.modality == facts.modality
    assert (images.licence, images.citation) == (facts.licence, facts.citation)
    assert facts.licence and facts.citation
    assert (images.masks is not None) == bool(facts.masks)
    assert images.mask_names[1:] == facts.masks
    assert len({image.tobytes() for image in images.images}) == 12
    assert set(images.patients) == {0}
    assert any(word in step for step in images.steps for word in ("one picture", "one patient", "one template"))


@pytest.mark.parametrize("name", LOADED)
def test_same_arguments_same_content(sets, name):
    assert sample(name, size=128, images=12, seed=1).content_hash() == sets[name].content_hash()


@pytest.mark.parametrize("tiles", [fundus, histology, nuclei, samples_tiles.tissue])
def test_the_seed_draws_other_tiles(tiles):
    drawn = [tiles(size=128, images=4, seed=seed).content_hash() for seed in (0, 1)]
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize("name", LOADED)
def test_nobody_is_named(sets, name):
    known = " ".join(str(value) for value in vars(sets[name]).values() if isinstance(value, (str, tuple)))
    assert not re.search(r"PLA\b|\b204\b|SonoSite|1\.2\.840|2016", known)


def test_machine_made_masks_are_called_so(sets):
    for name in ("histology", "tissue", "ct"):
        assert any("noisy" in step for step in sets[name].steps)


def test_fundus_whole_or_tiles_within_the_field():
    whole = fundus(size=200)
    assert whole.images.shape == (1, 3, 200, 200)
    assert whole.images[0, :, 0, 0].max() < 20 < whole.images[0, 0, 100, 100]
    tiles = fundus(size=128, images=12)
    assert tiles.images.max(axis=1).min() > 20  # nothing of the black surround
    assert tiles.steps != whole.steps


def test_histology_masks_instances_and_labels_fit():
    tiles = histology(size=250)
    assert tiles.images.shape == (36, 3, 250, 250)  # the whole picture
    assert set(np.unique(tiles.masks)) == {0, 1, 2, 3}
    assert tiles.instances.max() == 1294
    assert len(np.unique(tiles.instances)) == 1295
    assert np.array_equal(tiles.labels, (tiles.masks == 3).any(axis=(1, 2)))
    assert 0 < tiles.labels.mean() < 1
    inside = tiles.masks > 0
    assert (inside == (tiles.instances > 0)).mean() > 0.999  # two programs' rasters of the same outlines
    light = tiles.images.mean(axis=1)
    assert light[inside].mean() < light[~inside].mean() - 40  # haematoxylin is dark


def test_nuclei_are_bright_objects():
    tiles = nuclei()
    assert tiles.images.shape == (16, 1, 128, 128)
    assert set(np.unique(tiles.masks)) == {0, 1}
    assert len(np.unique(tiles.instances)) == 126
    inside = tiles.masks > 0
    assert tiles.images[:, 0][inside].mean() > 2.5 * tiles.images[:, 0][~inside].mean()


def test_the_cine_is_in_order_without_text():
    cine = ultrasound()
    assert cine.images.shape == (120, 1, 384, 512)
    assert cine.frames.tolist() == list(range(120))
    assert set(cine.volumes) == {0}
    assert cine.spacing[0] == pytest.approx((0.5105, 0.5105), abs=1e-4)
    assert cine.masks is None
    for corner in (np.s_[:80, :150], np.s_[:80, -150:], np.s_[350:, :60], np.s_[350:, -60:]):
        assert cine.images[:, 0][:, *corner].max() == 0
    assert 0.55 < (cine.images[:, 0].max(axis=0) > 0).mean() < 0.57  # the whole sector, and no more
    assert cine.images[:, 0].std(axis=0)[150:300, 150:300].min() > 1  # the heart beats
    assert ultrasound(size=128, images=3).spacing[0] == pytest.approx([512 / 128 * 0.5105] * 2, abs=1e-3)


def test_mr_tissues_follow_the_intensities(brain):
    assert brain.images.shape == (7, 1, 233, 197)
    assert brain.spacing.tolist() == [[1, 1]] * 7
    assert set(brain.slice_spacing) == {1}
    assert (np.diff(brain.slices) > 0).all()
    grey, white = (brain.images[:, 0][brain.masks == tissue].mean() for tissue in (1, 2))
    assert 100 < grey < white - 30  # T1: white matter is brighter
    for tissue, name in ((1, "grey"), (2, "white")):
        share = nibabel.load(path(f"mni152_{name}.nii.gz")).get_fdata()[:, :, brain.slices] / 255
        assert (brain.masks == tissue).sum() == (share >= 0.5).sum()


def test_mr_front_is_at_the_top(brain):
    low = brain.masks[0] > 0  # the lowest slices hold the cerebellum, which lies at the back
    assert np.argwhere(low)[:, 0].mean() > 0.55 * low.shape[0]


def test_ct_is_in_hounsfield_units_and_fits_its_masks(chest):
    assert chest.images.min() == -1024
    assert chest.spacing[0] == pytest.approx((2.8125, 2.8125))
    assert set(chest.slice_spacing) == {2.5}
    assert set(np.unique(chest.masks)) == set(range(len(ORGANS) + 1))
    mean = {name: chest.images[:, 0][chest.masks == number].mean() for number, name in enumerate(ORGANS, 1)}
    assert -900 < mean["lungs"] < -700
    assert 40 < mean["liver"] < 180
    assert mean["bones"] > 200
    assert mean["aorta"] > 200  # with contrast medium


def test_ct_lies_as_radiologists_look(chest):
    height, width = chest.masks.shape[1:]
    where = {name: np.argwhere(chest.masks == number).mean(axis=0) for number, name in enumerate(ORGANS, 1)}
    assert where["liver"][2] < width / 2 < where["spleen"][2]  # the patient's right is on the left of the image
    assert where["heart"][1] < where["aorta"][1] < where["bones"][1]  # the front is at the top
    assert where["kidneys"][0] < where["heart"][0]  # from the feet to the head


def test_slices_are_evenly_spaced_and_native_without_size(chest):
    assert chest.slices[[0, -1]].tolist() == [0, 132]
    assert set(np.diff(chest.slices)) == {12}
    native = ct(images=1)
    assert native.images.shape == (1, 1, 512, 512)
    assert native.images.dtype == np.int16
    assert native.spacing[0] == pytest.approx((0.703125, 0.703125))


@pytest.mark.parametrize(
    ("name", "images"), [*((name, 100_000) for name in LOADED if name != "ct"), ("mr", 0), ("nuclei", 0)]
)
def test_more_images_than_there_are_is_refused(name, images):
    with pytest.raises(ValueError, match=f"images is {images}"):
        sample(name, size=128, images=images)


def test_unknown_names_list_the_known():
    with pytest.raises(ValueError, match="no sample is called 'xrai'; known are fundus, ultrasound, histology"):
        sample("xrai", size=64)
    with pytest.raises(ValueError, match="no published package ships an OCT image"):
        sample("oct", size=64)
    with pytest.raises(ValueError, match="section is 'liver'; expected one of nest, stroma, ihc"):
        histology(section="liver")


@pytest.mark.parametrize("name", FETCHED)
def test_absent_files_say_the_command(name, tmp_path, monkeypatch):
    monkeypatch.setenv("SMALL_SAMPLE_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="bring it with: python -m data_scripts.fetch"):
        sample(name, size=64, images=2)


def test_a_changed_picture_of_scikit_image_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("helpers.data.samples.tiles.files", lambda package: tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "retina.jpg").write_bytes(b"another picture")
    with pytest.raises(FileNotFoundError, match="pip install scikit-image"):
        fundus()


def test_the_chest_views_are_a_sample_too(monkeypatch):
    calls = []
    facts = samples.SampleFacts(lambda **options: calls.append(options), "X-ray", None, None, 1, ("chest_ct.nii.gz",))
    monkeypatch.setitem(SAMPLES, "xray", facts)
    sample("xray", size=96, images=5, seed=2)
    assert calls == [dict(size=96, images=5, seed=2)]


def test_facts_name_files_that_exist():
    for facts in SAMPLES.values():
        for file in facts.files:
            assert file in ("retina.jpg", "ihc.png") or path(file).is_file()


def test_parts_of_the_tissue_lie_a_tile_apart(monkeypatch):
    rows = np.broadcast_to(np.arange(1500)[:, None], (1500, 1500))
    written = np.stack([rows // 256, rows % 256, rows * 0], -1).astype(np.uint8)  # each pixel says in which row it is
    monkeypatch.setattr(samples_tiles, "imread", lambda file: written)
    train, test = (samples_tiles.tissue(part=part).images.astype(int) for part in ("train", "test"))
    train, test = (256 * part[:, 0] + part[:, 1] for part in (train, test))
    assert train.max() < 850 and test.min() >= 850 + 96
    assert train.min() < 40 and test.max() > 1460  # what is left of the picture is used


def test_a_tissue_is_that_of_most_of_its_nuclei(monkeypatch):
    types = samples_tiles._raster("hgsc_nest_type_mask.npz")
    monkeypatch.setattr(samples_tiles, "imread", lambda file: np.repeat(types[..., None], 3, -1))
    for part, counts in (("train", (88, 215, 177)), ("test", (43, 142, 51))):
        tiles = samples_tiles.tissue(part=part)
        kinds = tiles.images[:, 0, :, :, None] == (1, 2, 3)
        shares = kinds.sum((1, 2)) / kinds.sum((1, 2, 3))[:, None]
        assert (shares[np.arange(len(tiles)), tiles.labels] >= 0.7).all()
        assert tuple(np.bincount(tiles.labels)) == counts
        assert (tiles.images[:, 0, 46:50, 46:50] > 0).any((1, 2)).mean() > 0.95  # a nucleus in the middle


def test_tissue_refuses_other_parts_and_tiles_that_do_not_fit():
    with pytest.raises(ValueError, match="part is 'val'; expected train or test"):
        samples_tiles.tissue(part="val")
    with pytest.raises(ValueError, match="size is 900; expected tiles that fit into train of a picture"):
        samples_tiles.tissue(size=900)
