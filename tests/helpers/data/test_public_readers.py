"""Readers of public sets, on tiny made-up folders in their layouts, and what they refuse."""

from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from PIL import Image

from helpers.data import load
from helpers.data.image_set import UNLABELLED
from helpers.data.readers.public import acdc_nifti, acdc_slices, disc_crops, medmnist

# --- MedMNIST -------------------------------------------------------------------------------------------------------


def npz(file: Path, shape=(8, 8), labels: int = 1, **changes) -> Path:
    """Five train, three val and two test images; each image and its labels hold its number."""
    arrays, start = {}, 0
    for part, n in (("train", 5), ("val", 3), ("test", 2)):
        number = np.arange(start, start + n)
        arrays[f"{part}_images"] = np.tile(number.reshape(-1, *(1,) * len(shape)), (1, *shape)).astype(np.uint8)
        arrays[f"{part}_labels"] = number[:, None] * 10 + np.arange(labels)
        start += n
    arrays = {key: value for key, value in (arrays | changes).items() if value is not None}
    np.savez_compressed(file, **arrays)
    return file


@pytest.mark.parametrize(
    ("part", "numbers"), [("train", range(5)), ("val", range(5, 8)), ("test", range(8, 10)), ("all", range(10))]
)
def test_medmnist_keeps_the_published_parts(tmp_path, part, numbers):
    data = medmnist(npz(tmp_path / "bloodmnist.npz"), part=part)
    assert data.images.shape == (len(numbers), 1, 8, 8) and data.images.dtype == np.uint8
    assert data.images[:, 0, 3, 4].tolist() == [*numbers] and data.labels.tolist() == [10 * i for i in numbers]
    assert data.patients is None and data.name == ("bloodmnist" if part == "all" else f"bloodmnist-{part}")
    assert medmnist(tmp_path, name="bloodmnist", part=part).content_hash() == data.content_hash()


def test_medmnist_in_colour_and_with_several_labels(tmp_path):
    colour = npz(tmp_path / "a.npz", shape=(8, 6, 3))
    with np.load(colour) as stored:
        arrays = dict(stored)
    arrays["val_images"][:, 2, 5] = (7, 8, 9)
    np.savez(colour, **arrays)
    assert medmnist(colour, part="val").images[0, :, 2, 5].tolist() == [7, 8, 9]
    several = npz(tmp_path / "chest.npz", labels=14)
    assert medmnist(several, part="val", column=13).labels.tolist() == [63, 73, 83]
    with pytest.raises(ValueError, match=r"'chest.npz' has 14 labels an image; choose one as column="):
        medmnist(several)


def test_medmnist_that_does_not_fit_is_named(tmp_path):
    whole = npz(tmp_path / "whole.npz")
    (tmp_path / "cut.npz").write_bytes(whole.read_bytes()[:200])
    (tmp_path / "text.npz").write_text("hello")
    pickled = npz(tmp_path / "pickled.npz", train_labels=np.array([{}] * 5, dtype=object))
    volume = npz(tmp_path / "volume.npz", shape=(4, 4, 4))
    for file, options, message in (
        (pickled, {}, "'pickled.npz' holds pickled objects, or is no npz file: refused"),
        (tmp_path / "text.npz", {}, "'text.npz' holds pickled objects, or is no npz file: refused"),
        (tmp_path / "cut.npz", {}, "'cut.npz' cannot be read; expected a whole npz file"),
        (tmp_path / "none.npz", {}, "there is no file 'none.npz'; expected a MedMNIST file ending in .npz"),
        (tmp_path, dict(name="xmnist"), "there is no file 'xmnist.npz'; expected a MedMNIST file ending in .npz"),
        (whole, dict(part="tests"), "part is 'tests'; expected one of train, val, test or all"),
        (volume, {}, "'volume.npz' holds uint8 (5, 4, 4, 4); expected uint8 (N, H, W) or (N, H, W, 3)"),
        (
            npz(tmp_path / "keys.npz", val_labels=None),
            dict(part="val"),
            "'keys.npz' has no 'val_labels'; expected val_images, val_labels",
        ),
    ):
        with pytest.raises(ValueError) as error:
            medmnist(file, **options)
        assert str(error.value) == message


# --- ACDC as HDF5 slices --------------------------------------------------------------------------------------------


def h5(folder: Path, name: str, shape=(12, 10), lv: int = 4, **changes) -> None:
    """A slice whose left ventricle is lv × lv pixels in the middle, inside a myocardium of one pixel."""
    label = np.zeros(shape, np.uint8)
    top, left = shape[0] // 2 - lv // 2, shape[1] // 2 - lv // 2
    label[top - 1 : top + lv + 1, left - 1 : left + lv + 1], label[top : top + lv, left : left + lv] = 2, 3
    scribble = np.full(shape, 4, np.uint16)
    scribble[shape[0] // 2, shape[1] // 2], scribble[0, 0] = 3, 0
    arrays = dict(image=label.astype(np.float32) / 3, label=label, scribble=scribble) | changes
    folder.mkdir(exist_ok=True)
    with h5py.File(folder / f"{name}.h5", "w") as file:
        for key, array in arrays.items():
            if array is not None:
                file[key] = array


def hearts(folder: Path) -> Path:
    """Patients 20 (ED first) and 90 (ES first), of another size, with slices beyond 9."""
    for i in (0, 2, 10):
        h5(folder, f"patient020_frame01_slice_{i}", lv=4)
        h5(folder, f"patient020_frame12_slice_{i}", lv=2)
        h5(folder, f"patient090_frame04_slice_{i}", lv=2, shape=(8, 16))
        h5(folder, f"patient090_frame11_slice_{i}", lv=4, shape=(8, 16))
    return folder


def test_acdc_slices(tmp_path):
    data = acdc_slices(hearts(tmp_path / "slices"), size=10)
    assert data.images.shape == (12, 1, 10, 10) and data.images.dtype == np.float32 and data.value_range == (0, 1)
    assert (
        data.patients.tolist() == [20] * 6 + [90] * 6 and data.volumes.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    )
    assert data.slices.tolist() == [0, 2, 10] * 4  # numbers, not the alphabet
    assert data.frames.tolist() == ["ED"] * 3 + ["ES"] * 6 + ["ED"] * 3
    assert data.labels.tolist() == [0] * 6 + [4] * 6 and data.class_names == ("DCM", "HCM", "MINF", "NOR", "RV")
    assert (data.masks == 3).sum((1, 2)).tolist() == [16] * 3 + [4] * 6 + [16] * 3
    assert np.allclose(data.images[:, 0] * 3, data.masks)  # cropped alike
    assert (data.scribbles[:, 5, 5] == 3).all() and (data.scribbles != UNLABELLED).sum((1, 2)).tolist() == [1] * 12
    assert data.spacing is None and data.steps == ("cropped or padded to the central 10 pixels",)


def test_acdc_slices_beyond_the_training_patients_and_without_scribbles(tmp_path):
    h5(tmp_path, "patient101_frame01_slice_0", scribble=None)
    data = acdc_slices(tmp_path)
    assert data.labels is None and data.scribbles is None and data.class_names == () and data.steps == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(label=None),
            "'patient001_frame01_slice_3.h5' has no 'label'; expected image, label and perhaps scribble",
        ),
        (
            dict(image=None),
            "'patient001_frame01_slice_3.h5' has no 'image'; expected image, label and perhaps scribble",
        ),
        (dict(label=np.full((12, 10), 4)), "mask 'patient001_frame01_slice_3.h5' holds 4; expected only 0, 1, 2, 3"),
        (
            dict(scribble=np.full((12, 10), 5)),
            "mask 'patient001_frame01_slice_3.h5' holds 5; expected only 0, 1, 2, 3, 4",
        ),
        (
            dict(label=np.zeros((10, 12), int)),
            "label of 'patient001_frame01_slice_3.h5' has shape (10, 12); expected that of one slice",
        ),
    ],
)
def test_an_acdc_slice_that_does_not_fit_is_named(tmp_path, changes, message):
    h5(tmp_path, "patient001_frame01_slice_2")
    h5(tmp_path, "patient001_frame01_slice_3", **changes)
    with pytest.raises(ValueError) as error:
        acdc_slices(tmp_path)
    assert str(error.value) == message


def test_acdc_folders_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"holds no slices; expected files like patient001_frame01_slice_0.h5"):
        acdc_slices(tmp_path)
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "patient001_frame01_slice_0.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(
        ValueError, match=r"^'patient001_frame01_slice_0.h5' cannot be read; expected a whole HDF5 file$"
    ):
        acdc_slices(tmp_path)
    with pytest.raises(ValueError, match=r"^'b' holds images of 2 sizes, \(8, 16\) to \(12, 10\); give a size$"):
        acdc_slices(hearts(tmp_path / "b"))


# --- ACDC as published ----------------------------------------------------------------------------------------------


def patient(root: Path, number: int, *, ed=1, es=9, group="RV", shape=(10, 14, 3), mm=1.5, brightness=100) -> None:
    folder = root / f"patient{number:03d}"
    folder.mkdir(parents=True)
    (folder / "Info.cfg").write_text(f"ED: {ed}\nES: {es}\nGroup: {group}\nHeight: 184.0\nNbFrame: 30\nWeight: 95.0\n")
    for frame, lv in ((ed, 4), (es, 2)):
        truth = np.zeros(shape, np.uint8)
        truth[1 : 1 + lv, 5 : 5 + lv] = 3
        truth[6, :, -1] = 1
        affine = np.diag([-mm, -mm, 8, 1])
        name = folder / f"patient{number:03d}_frame{frame:02d}"
        nibabel.save(nibabel.Nifti1Image(truth.astype(np.int16) * brightness, affine), f"{name}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(truth, affine), f"{name}_gt.nii.gz")


def test_acdc_as_published(tmp_path):
    patient(tmp_path / "training", 5)
    patient(tmp_path / "training", 61, ed=12, es=4, group="NOR", brightness=2000)
    data = acdc_nifti(tmp_path)
    assert data.images.shape == (12, 1, 14, 10) and data.images.dtype == np.float32  # rows along the second axis
    assert data.patients.tolist() == [0] * 6 + [1] * 6 and data.frames.tolist() == (["ED"] * 3 + ["ES"] * 3) * 2
    assert data.volumes.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 and data.slices.tolist() == [0, 1, 2] * 4
    assert data.labels.tolist() == [4] * 6 + [3] * 6
    assert (data.masks == 3).sum((1, 2)).tolist() == ([16] * 3 + [4] * 3) * 2
    assert (data.masks[0, 5:9, 1:5] == 3).all() and (data.masks[2, :, 6] == 1).all()
    assert np.allclose(data.images[data.masks[:, None] == 3], 1)  # dark and bright volumes alike
    assert np.allclose(data.spacing, 1.5) and np.allclose(data.slice_spacing, 8)
    assert data.steps == ("slices as stored", "each volume divided by its 99.5th percentile")


def test_acdc_of_several_sizes_and_spacings(tmp_path):
    patient(tmp_path, 5)
    patient(tmp_path, 7, shape=(20, 28, 2), mm=0.75)
    with pytest.raises(ValueError, match=r"holds images of 2 sizes, \(14, 10\) to \(28, 20\); give a size"):
        acdc_nifti(tmp_path)
    with pytest.raises(ValueError, match=r"mm is 1.5 and size None; expected a size with it"):
        acdc_nifti(tmp_path, mm=1.5)
    data = acdc_nifti(tmp_path, mm=1.5, size=12)
    assert data.images.shape == (10, 1, 12, 12) and np.allclose(data.spacing, 1.5)
    assert (data.masks == 3).sum((1, 2)).tolist() == [16] * 3 + [4] * 3 + [4] * 2 + [1] * 2
    assert data.steps[-2:] == ("resampled to 1.5 mm", "cropped or padded to the central 12 pixels")
    assert acdc_nifti(tmp_path, size=12).spacing[[0, -1]].tolist() == [[1.5, 1.5], [0.75, 0.75]]


def test_acdc_patients_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"holds no patients; expected folders like patient001 with an Info.cfg"):
        acdc_nifti(tmp_path)
    patient(tmp_path, 1, group="ABC")
    with pytest.raises(ValueError, match=r"^Group in 'patient001/Info.cfg' is 'ABC'; expected a known one$"):
        acdc_nifti(tmp_path)
    (tmp_path / "patient001" / "Info.cfg").write_text("ED: 1\nES: 2\nGroup: RV\n")
    with pytest.raises(ValueError, match=r"^there is no file 'patient001_frame02.nii.gz'$"):
        acdc_nifti(tmp_path)


# --- optic discs ----------------------------------------------------------------------------------------------------


def disc(root: Path, name: str, shape=(16, 16), values=(255, 128, 0)) -> None:
    background, rim, cup = values
    mask = np.full(shape, background, np.uint8)
    mask[2:12, 2:12], mask[4:8, 4:8] = rim, cup
    image = np.dstack([255 - mask, mask, np.full(shape, len(name), np.uint8)])
    for kind, pixels in (("image", image), ("mask", np.repeat(mask[..., None], 3, 2))):
        (root / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / kind / f"{name}.png")


def test_disc_crops(tmp_path):
    for name in ("n0020", "g0001", "gdrishtiGS_2"):
        disc(tmp_path, name)
    data = disc_crops(tmp_path, name="camera")
    assert data.images.shape == (3, 3, 16, 16) and data.images.dtype == np.uint8 and data.name == "camera"
    assert data.labels.tolist() == [1, 1, 0] and data.class_names == ("normal", "glaucoma")
    assert np.unique(data.masks[0], return_counts=True)[1].tolist() == [156, 84, 16]
    assert (data.images[:, 1] == np.array([255, 128, 0])[data.masks]).all() and data.images[2, 2, 0, 0] == 5
    assert set(np.unique(disc_crops(tmp_path, size=9).masks)) == {0, 1, 2} and data.patients is None
    disc(tmp_path, "V0001")
    assert disc_crops(tmp_path).labels is None


def test_disc_crops_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"holds no crops; expected PNG files in '.*/image' and '…/mask'"):
        disc_crops(tmp_path)
    disc(tmp_path, "g0001")
    disc(tmp_path, "g0002", values=(255, 127, 0))
    with pytest.raises(ValueError, match=r"^mask '.*/mask/g0002.png' holds 127; expected only 0, 128, 255$"):
        disc_crops(tmp_path)
    disc(tmp_path, "g0002", shape=(20, 16))
    with pytest.raises(ValueError, match=r"holds images of 2 sizes, \(16, 16\) to \(20, 16\); give a size"):
        disc_crops(tmp_path)
    Image.fromarray(np.zeros((8, 16), np.uint8)).save(tmp_path / "mask" / "g0002.png")
    with pytest.raises(
        ValueError, match=r"^mask of 'g0002.png' has shape \(8, 16\); expected that of the image, \(20, 16\)"
    ):
        disc_crops(tmp_path)
    (tmp_path / "mask" / "g0002.png").unlink()
    with pytest.raises(ValueError, match=r"^'.*/mask/g0002.png' cannot be read as an image"):
        disc_crops(tmp_path)


# --- BUSI -----------------------------------------------------------------------------------------------------------


def test_busi_as_published(tmp_path):
    rng = np.random.default_rng(0)
    for kind, count in (("normal", 4), ("benign", 5), ("malignant", 4)):
        (tmp_path / "Dataset_BUSI_with_GT" / kind).mkdir(parents=True)
        for number in range(1, count + 1):
            file, shape = tmp_path / "Dataset_BUSI_with_GT" / kind / f"{kind} ({number}).png", (20 + number, 24)
            Image.fromarray(rng.integers(0, 255, (*shape, 3), dtype=np.uint8)).save(file)
            mask = np.zeros(shape, bool)
            mask[4:8, 4:8] = kind != "normal"
            Image.fromarray(mask).save(file.with_name(f"{file.stem}_mask.png"))
            if (kind, number) == ("benign", 2):
                Image.fromarray(np.roll(mask, 10, 0)).save(file.with_name(f"{file.stem}_mask_1.png"))
    with pytest.raises(ValueError, match="images of 5 sizes"):
        load("busi", source="public", data_dir=str(tmp_path))
    data = load("busi", source="public", data_dir=str(tmp_path), size=24)
    assert data.modality == "ultrasound" and data.class_names == ("normal", "benign", "malignant")
    assert np.bincount(data.labels).tolist() == [4, 5, 4] and data.images.dtype == np.uint8
    areas = data.masks.sum((1, 2))
    assert not areas[data.labels == 0].any() and sorted(areas[data.labels == 1]) == [16] * 4 + [32]
    (tmp_path / "Dataset_BUSI_with_GT" / "benign" / "benign (3)_mask.png").unlink()
    with pytest.warns(
        UserWarning, match=r"no masks for 'Dataset_BUSI_with_GT/benign/benign \(3\).png': taken as empty"
    ):
        load("busi", source="public", data_dir=str(tmp_path), size=24)
