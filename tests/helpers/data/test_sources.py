"""One call for all sources, and the catalogue of what there is."""

from types import SimpleNamespace

import nibabel
import numpy as np
import psutil
import pytest
from PIL import Image

from helpers.data import PHANTOMS, SOURCES, catalogue, load, sources
from helpers.data.registry import read_public


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("pet", {}, f"no images of source 'phantom' are called 'pet'; known are {', '.join(PHANTOMS)}"),
        ("acdc", dict(source="sample"), "no images of source 'sample' are called 'acdc'; known are fundus, "),
        ("ct", dict(source="public"), "no images of source 'public' are called 'ct'; known are "),
        ("ct", dict(source="hub"), "source is 'hub'; expected one of phantom, sample, public, folder"),
        (
            "ct",
            dict(source="folder"),
            "source is 'folder' and data_dir ''; expected the path of your folder",
        ),
        ("ct", dict(data_dir="a"), "source is 'phantom' and data_dir 'a'; a folder is of source 'folder' or 'public'"),
        ("oct", dict(source="sample"), "no published package ships an OCT image, so 'oct' has no sample"),
    ],
)
def test_load_names_what_is_wrong(name, arguments, message):
    with pytest.raises(ValueError) as error:
        load(name, **arguments)
    assert str(error.value).startswith(message)


def test_a_phantom_gets_what_was_asked_for():
    made = load("xray", images=8, size=40, seed=3, marker=(1, 1))
    assert made.content_hash() == PHANTOMS["xray"](images=8, patients=2, size=40, seed=3, marker=(1, 1)).content_hash()


def test_a_sample_gets_what_was_asked_for():
    tiles = load("histology", source="sample", images=3, size=64, seed=1)
    assert tiles.images.shape == (3, 3, 64, 64) and tiles.name == "sample-hgsc_nest"
    assert not np.array_equal(tiles.images, load("histology", source="sample", images=3, size=64, seed=2).images)


def test_a_public_set_that_is_not_here_says_the_command(monkeypatch, tmp_path):
    monkeypatch.setenv("SMALL_SAMPLE_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="with: python -m data_scripts.fetch pneumoniamnist$"):
        load("pneumoniamnist", source="public")


def test_a_public_set_is_read_from_data_dir_or_from_where_fetch_puts_it(monkeypatch, tmp_path):
    monkeypatch.setenv("SMALL_SAMPLE_DATA", str(tmp_path))
    folder = tmp_path / "pneumoniamnist"
    folder.mkdir()
    parts = {f"{part}_{kind}": np.zeros((4, 28, 28) if kind == "images" else (4, 1), np.uint8)
             for part in ("train", "val", "test") for kind in ("images", "labels")}  # fmt: skip
    np.savez(folder / "pneumoniamnist.npz", **parts)
    for arguments in ({}, dict(data_dir=str(folder))):
        assert load("pneumoniamnist", source="public", size=32, **arguments).images.shape == (4, 1, 32, 32)
    entry = next(e for e in catalogue(sources=("public",)) if e.name == "pneumoniamnist")
    assert entry.here


def nifti(file, shape=(6, 5, 4)):
    nibabel.save(nibabel.Nifti1Image(np.arange(np.prod(shape), dtype=np.int16).reshape(shape), np.eye(4)), file)


def test_a_folder_of_the_readers_own_is_read_by_what_it_holds(tmp_path):
    for name in ("pictures", "volume"):
        (tmp_path / name).mkdir()
    for kind in ("normal", "abnormal"):
        (tmp_path / "pictures" / kind).mkdir()
        Image.fromarray(np.zeros((8, 9), np.uint8)).save(tmp_path / "pictures" / kind / "a.png")
    nifti(tmp_path / "volume" / "scan.nii.gz")
    own = load("fundus", source="folder", data_dir=str(tmp_path / "pictures"), size=8)
    assert own.modality == "fundus" and own.images.shape == (2, 1, 8, 8)
    assert load("ct", source="folder", data_dir=str(tmp_path / "volume")).images.shape == (4, 1, 5, 6)
    assert load("ct", source="folder", data_dir=str(tmp_path / "volume"), size=8).images.shape == (4, 1, 8, 8)


def test_the_volumes_of_a_folder_are_one_set_with_their_masks_and_patients(tmp_path):
    rng = np.random.default_rng(0)
    for name, gain in (("patient7_ed", 1), ("patient7_es", 1000), ("patient2_ed", 10)):
        voxels = (rng.random((6, 5, 4)) * 100 * gain).astype(np.int32)
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1, 2, 3, 1])), tmp_path / f"{name}.nii.gz")
        inside = (voxels > 50 * gain).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(inside, np.diag([1, 2, 3, 1])), tmp_path / f"{name}_gt.nii.gz")
    own = load("mr", source="folder", data_dir=str(tmp_path))
    assert own.images.shape == (12, 1, 5, 6) and own.value_range == (0, 1)
    assert own.volumes.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert own.patients.tolist() == [0] * 4 + [1] * 8  # two moments of one patient stay together
    assert own.slices.tolist() == [0, 1, 2, 3] * 3 and own.spacing[0].tolist() == [2, 1]
    assert own.images[:, 0][own.masks > 0].min() > 0.45 > own.images[:, 0][own.masks == 0].min()  # whatever the gain
    nibabel.save(nibabel.Nifti1Image(np.zeros((6, 5, 4), np.int16), np.eye(4)), tmp_path / "late.nii.gz")
    with pytest.raises(ValueError, match="masks of 'late.nii.gz' are missing, there are 'patient2_ed_gt.nii.gz'"):
        load("mr", source="folder", data_dir=str(tmp_path))


def test_volumes_of_several_sizes_need_a_size(tmp_path):
    for i, columns in enumerate((6, 8)):
        nibabel.save(nibabel.Nifti1Image(np.ones((columns, 5, 4), np.int16), np.eye(4)), tmp_path / f"{i}.nii")
    with pytest.raises(ValueError, match="slices of the volumes have 2 sizes, 5×6 to 5×8; give a size"):
        load("mr", source="folder", data_dir=str(tmp_path))
    assert load("mr", source="folder", data_dir=str(tmp_path), size=16).patients.tolist() == [0] * 4 + [1] * 4


def test_of_a_public_set_of_volumes_one_is_read_with_its_mask(tmp_path):
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "labelsTr").mkdir()
    for kind in ("images", "labels"):
        nifti(tmp_path / f"{kind}Tr" / "spleen_1.nii.gz")
    with pytest.raises(ValueError, match="msd_spleen holds one file a volume; expected file=…, its path in "):
        load("msd_spleen", source="public", data_dir=str(tmp_path))
    paths = dict(file="imagesTr/spleen_1.nii.gz", mask="labelsTr/spleen_1.nii.gz")
    scan = load("msd_spleen", source="public", data_dir=str(tmp_path), **paths)
    assert scan.modality == "CT" and np.array_equal(scan.masks, scan.images[:, 0])


def test_the_catalogue_names_what_load_knows(monkeypatch, tmp_path):
    entries = catalogue()
    assert [(e.name, e.source) for e in entries] == [
        (name, source) for source in SOURCES[:3] for name in sources.names(source)
    ]
    assert {e.name for e in entries if e.source == "public"} == set(read_public())
    for entry in entries:
        assert entry.modality and entry.licence
        assert entry.here or entry.how.startswith("python -m data_scripts.fetch ")
    assert all(e.here for e in entries if e.source != "public")
    monkeypatch.setenv("SMALL_SAMPLE_DATA", str(tmp_path))
    assert not any(e.here for e in catalogue(sources=("sample",)) if e.name in ("ct", "mr", "xray"))


@pytest.mark.parametrize("kind", ["pictures", "volumes"])
def test_of_masks_with_several_structures_one_is_kept(tmp_path, kind):
    mask = np.tile(np.arange(4, dtype=np.uint8), (6, 1)).repeat(2, 1)  # 0 to 3, each in two columns
    if kind == "pictures":
        Image.fromarray(mask * 60).save(tmp_path / "a.png")
        Image.fromarray(mask).save(tmp_path / "a_mask.png")
    else:
        for name in ("a.nii", "a_seg.nii"):
            nibabel.save(nibabel.Nifti1Image(mask.T[::-1, ::-1, None].copy(), np.eye(4)), tmp_path / name)
    own = load("mr", source="folder", data_dir=str(tmp_path), structure=2)
    assert own.mask_names == ("background", "number 2") and own.masks.sum() == 12
    assert own.masks[0].any(axis=0).tolist() == [v == 2 for v in mask[0]]
    with pytest.raises(ValueError, match="structure is 5, but no mask of '.*' holds it"):
        load("mr", source="folder", data_dir=str(tmp_path), structure=5)


def test_a_folder_that_names_no_patients_is_told(tmp_path):
    for kind in ("normal", "abnormal"):
        (tmp_path / kind).mkdir()
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / kind / "a.png")
    with pytest.warns(UserWarning, match="does not say which images are of one patient: a split goes by image"):
        load("xray", source="folder", data_dir=str(tmp_path))


def test_classes_are_of_pictures(tmp_path):
    nifti(tmp_path / "scan.nii.gz")
    with pytest.raises(ValueError, match="classes is 'a, b', but '.*' holds no pictures; expected none"):
        load("mr", source="folder", data_dir=str(tmp_path), classes="a, b")


def labelled(root, image, mask):
    """A volume and its mask at two paths below a folder."""
    rng = np.random.default_rng(sum(map(ord, image)))
    voxels = rng.permutation(120).reshape(6, 5, 4).astype(np.int16)
    for name, array in ((image, voxels), (mask, (voxels > 60).astype(np.uint8))):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), root / name)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("p{}/image.nii.gz", "p{}/seg.nii.gz"),
        ("p{}/t2.nii.gz", "p{}/GT.nii"),
        ("imagesTr/c_{}_0000.nii.gz", "labelsTr/c_{}.nii.gz"),
    ],
)
def test_masks_of_volumes_are_found_in_layouts_of_the_field(tmp_path, image, mask):
    for i in range(3):
        labelled(tmp_path, image.format(i), mask.format(i))
    own = load("mr", source="folder", data_dir=str(tmp_path))
    assert len(np.unique(own.patients)) == 3 and own.masks.sum() == 3 * 59
    assert own.steps[-1] == "each volume is taken as a patient"


def test_a_volume_of_labels_is_no_image(tmp_path):
    labelled(tmp_path, "a.nii", "b.nii")
    for size in (None, 9):  # a resize makes more values of two
        with pytest.raises(ValueError, match="'b.nii': fewer than 16 different values, as a mask has, but of no image"):
            load("mr", source="folder", data_dir=str(tmp_path), size=size)


def test_an_empty_volume_is_no_mask(tmp_path):
    labelled(tmp_path, "a.nii", "a_seg.nii")
    for name in ("b.nii", "b_seg.nii"):
        nibabel.save(nibabel.Nifti1Image(np.zeros((6, 5, 4), np.int16), np.eye(4)), tmp_path / name)
    assert len(load("mr", source="folder", data_dir=str(tmp_path))) == 8


def test_more_volumes_than_the_memory_holds_are_refused(tmp_path, monkeypatch):
    for name in "abc":
        labelled(tmp_path, f"{name}.nii", f"{name}_seg.nii")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=100))
    with pytest.raises(ValueError, match="the 3 volumes of '.*' need 0.0 GB more memory, 0.0 are free"):
        load("mr", source="folder", data_dir=str(tmp_path))


def test_the_same_volume_twice_is_told(tmp_path):
    labelled(tmp_path, "a.nii", "a_seg.nii")
    for name in ("a", "a_seg"):
        (tmp_path / f"{name.replace('a', 'copy', 1)}.nii").write_bytes((tmp_path / f"{name}.nii").read_bytes())
    with pytest.warns(UserWarning, match="'a.nii', 'copy.nii' are the same; remove one"):
        load("mr", source="folder", data_dir=str(tmp_path))


def test_a_mask_of_no_volume_is_told(tmp_path):
    labelled(tmp_path, "a.nii", "masks/a.nii")
    (tmp_path / "masks" / "old.nii").write_bytes((tmp_path / "masks" / "a.nii").read_bytes())
    with pytest.warns(UserWarning, match="^left out: 'masks/old.nii', which belong to no volume$"):
        assert load("mr", source="folder", data_dir=str(tmp_path)).masks.any()


def test_volumes_with_time_are_not_mixed_with_others(tmp_path):
    nifti(tmp_path / "a.nii")
    nifti(tmp_path / "b.nii", (6, 5, 4, 2))
    with pytest.raises(ValueError, match="^'b.nii': four axes, with time, where 'a.nii' have three; expected one kind"):
        load("mr", source="folder", data_dir=str(tmp_path))


def test_analyze_volumes_of_a_folder_are_told_at_once(tmp_path):
    for i in range(2):
        voxels = np.arange(i, 120 + i, dtype=np.int16).reshape(6, 5, 4)
        nibabel.save(nibabel.AnalyzeImage(voxels, np.eye(4)), tmp_path / f"{i}.hdr")
    with pytest.warns(UserWarning) as told:
        load("mr", source="folder", data_dir=str(tmp_path))
    assert [str(w.message) for w in told] == [
        "'0.hdr', '1.hdr': Analyze does not say where left is: taken as stored from right to left"
    ]
