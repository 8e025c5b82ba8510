"""The reader's own folder of images: layouts, grey levels, masks, sizes, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.data import from_folder


def write(file: Path, pixels: np.ndarray, **options) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, **options)


def film(value: int = 100, shape: tuple = (8, 10)) -> np.ndarray:
    return np.full(shape, value, np.uint8)


def mura(root: Path) -> Path:
    """Three patients and four images in the layout of MURA; one mask."""
    wrist = root / "train" / "XR_WRIST"
    write(wrist / "patient00001" / "study1_positive" / "image1.png", film(10))
    write(wrist / "patient00001" / "study1_positive" / "image2.png", film(20))
    write(wrist / "patient00002" / "study1_negative" / "image1.png", film(30))
    write(wrist / "patient00013" / "study2_negative" / "image1.png", film(40))
    mask = film(0)
    mask[2:4, 5:9] = 255
    write(root / "masks" / "train" / "XR_WRIST" / "patient00001" / "study1_positive" / "image2.png", mask)
    return root


def test_mura_layout(tmp_path):
    with pytest.warns(UserWarning, match="no masks for .*image1.png'.* taken as empty"):
        images = from_folder(mura(tmp_path / "own"))
    assert images.images.shape == (4, 1, 8, 10) and images.images.dtype == np.float32
    assert np.allclose(images.images[:, 0, 3, 3] * 255, [10, 20, 30, 40], atol=1e-5)
    assert images.labels.tolist() == [1, 1, 0, 0]
    assert images.patients.tolist() == [0, 0, 1, 2]  # their numbers are not kept
    assert images.masks.sum((1, 2)).tolist() == [0, 8, 0, 0]
    assert images.masks[1, 2:4, 5:9].all() and images.masks.max() == 1
    assert images.mask_names == ("background", "lesion")
    assert images.steps == (
        "scaled to 0…1",
        "masks hold 0, 255: all but 0 is lesion",
        "no mask file for 3 of 4: taken as empty",
    )


def test_size_pads_and_resizes_images_and_masks_and_says_so(tmp_path):
    with pytest.warns(UserWarning, match="no masks for"):
        images = from_folder(mura(tmp_path), size=20)
    assert images.images.shape == (4, 1, 20, 20) and images.masks.shape == (4, 20, 20)
    assert images.steps[0] == "scaled to 0…1" and images.steps[-1] == "padded to a square and resized to 20 pixels"
    assert (images.images[3, 0, 2:18] > 0.99 * 40 / 255)[2:14].all()  # 8 of 10 rows, doubled
    assert (images.images[3, 0, [0, 19]] == 0).all()  # the padding
    rows, columns = (np.flatnonzero(images.masks[1].any(axis)) for axis in (1, 0))
    assert (rows[[0, -1]].tolist(), columns[[0, -1]].tolist()) == ([6, 9], [10, 17])  # (2 + 1) · 2, 5 · 2
    assert set(np.unique(images.masks)) == {0, 1}


def test_class_folders_without_patients_and_masks(tmp_path):
    write(tmp_path / "normal" / "a.png", film())
    write(tmp_path / "abnormal" / "b.png", film())
    images = from_folder(str(tmp_path))
    assert images.labels.tolist() == [1, 0]  # in the order of the paths
    assert images.patients is None and images.masks is None and images.mask_names == ()


def test_a_folder_above_may_have_any_name(tmp_path):
    for name in ("masks", "positive", "patient99"):
        write(tmp_path / name / "own" / "normal" / "a.png", film())
        images = from_folder(tmp_path / name / "own")
        assert images.labels.tolist() == [0] and images.patients is None


def test_hidden_files_are_no_images(tmp_path):
    write(tmp_path / "normal" / "a.png", film())
    (tmp_path / "normal" / "._a.png").write_bytes(b"not an image")
    assert len(from_folder(tmp_path)) == 1


def test_sixteen_bits_stay_exact(tmp_path):
    values = np.array([[0, 1, 255, 256], [32767, 32768, 65534, 65535]], np.uint16)
    write(tmp_path / "normal" / "a.png", values)
    write(tmp_path / "normal" / "b.tif", values)
    images = from_folder(tmp_path)
    for pixels in images.images[:, 0]:
        assert (pixels == values.astype(np.float32) / 65535).all()
        assert (np.round(pixels.astype(float) * 65535) == values).all()


def test_colour_palette_and_binary_images_become_grey(tmp_path):
    colour = np.zeros((16, 16, 3), np.uint8)
    colour[...] = (30, 90, 240)
    write(tmp_path / "abnormal" / "a.jpg", colour, quality=95)
    write(tmp_path / "abnormal" / "b.png", np.dstack([colour, film(7, (16, 16))]))
    write(tmp_path / "abnormal" / "c.png", np.eye(16, dtype=bool))
    Image.fromarray(colour).quantize(4).save(tmp_path / "abnormal" / "d.png")
    images = from_folder(tmp_path).images[:, 0]
    for pixels, tolerance in ((images[0], 3 / 255), (images[1], 1e-6), (images[3], 1e-6)):
        assert np.abs(pixels - 120 / 255).max() < tolerance
    assert (images[2] == np.eye(16)).all()


def test_mixed_sizes_need_a_size(tmp_path):
    write(tmp_path / "normal" / "a.png", film(shape=(8, 10)))
    write(tmp_path / "normal" / "b.png", film(shape=(12, 6)))
    with pytest.raises(ValueError) as error:
        from_folder(tmp_path)
    assert str(error.value) == f"'{tmp_path.name}' holds images of 2 sizes, (8, 10) to (12, 6); give a size"
    assert from_folder(tmp_path, size=8).images.shape == (2, 1, 8, 8)


@pytest.mark.parametrize("cut", [0, 20, 60, 0.5])
def test_an_unreadable_file_is_named(tmp_path, cut):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    write(tmp_path / "normal" / "a.png", noise)
    whole = (tmp_path / "normal" / "a.png").read_bytes()
    (tmp_path / "normal" / "b.png").write_bytes(whole[: cut if cut != 0.5 else len(whole) // 2])
    with pytest.raises(ValueError) as error:
        from_folder(tmp_path)
    assert str(error.value).startswith(f"'{tmp_path}/normal/b.png' cannot be read as an image (")
    assert str(error.value).endswith("); expected PNG, JPEG, TIFF or BMP") and "\n" not in str(error.value)


@pytest.mark.parametrize("folder", ["others", "abnormally", "normal/abnormal"])
def test_an_image_without_one_class_is_named(tmp_path, folder):
    write(tmp_path / "normal" / "a.png", film())
    write(tmp_path / folder / "b.png", film())
    count = "two classes" if folder == "normal/abnormal" else "no class"
    with pytest.raises(ValueError, match=rf"b.png' has {count}; expected one folder on its path to be named normal or"):
        from_folder(tmp_path)


def test_a_mask_that_does_not_fit_is_named(tmp_path):
    write(tmp_path / "normal" / "a.png", film(shape=(8, 10)))
    write(tmp_path / "masks" / "normal" / "a.png", film(shape=(10, 8)))
    with pytest.raises(ValueError) as error:
        from_folder(tmp_path)
    where = tmp_path / "masks" / "normal" / "a.png"
    assert str(error.value) == f"mask '{where}' has shape (10, 8); expected that of 'a.png', (8, 10)"


def test_a_folder_without_images_is_named(tmp_path):
    with pytest.raises(ValueError, match=f"there is no folder '{tmp_path}/own'; expected one with pictures"):
        from_folder(tmp_path / "own")
    write(tmp_path / "own" / "masks" / "normal" / "a.png", film())
    with pytest.raises(ValueError) as error:
        from_folder(tmp_path / "own")
    assert str(error.value) == "'own' holds no images; expected files ending in .png, .jpg, .jpeg, .tif, .tiff, .bmp"


# --- masks, instances and scribbles ---------------------------------------------------------------------------------


def pairs(root: Path) -> Path:
    """Two images in `images/`, with masks of three classes, instances and scribbles."""
    for name, value in (("a", 50), ("b", 200)):
        write(root / "images" / f"{name}.png", film(value))
    mask = np.zeros((8, 10), np.uint8)
    mask[2:4], mask[4:6] = 1, 2
    write(root / "masks" / "a.png", mask)
    write(root / "masks" / "b.tif", np.flipud(mask))
    write(root / "instances" / "a.png", mask.astype(np.uint16) * 300)
    write(root / "scribbles" / "b.png", np.where(mask > 0, mask, 255).astype(np.uint8))
    return root


def test_images_with_masks_instances_and_scribbles(tmp_path):
    data = from_folder(pairs(tmp_path), mask_names=("background", "wall", "lumen"))
    assert data.labels is None and data.patients is None and data.class_names == ()
    assert [np.unique(m).tolist() for m in data.masks] == [[0, 1, 2]] * 2 and (data.masks[0, 4] == 2).all()
    assert (data.masks[1] == data.masks[0, ::-1]).all()
    assert np.unique(data.instances[0]).tolist() == [0, 300, 600] and not data.instances[1].any()
    assert (data.scribbles[0] == 255).all() and np.unique(data.scribbles[1]).tolist() == [1, 2, 255]
    larger = from_folder(tmp_path, mask_names=("background", "wall", "lumen"), size=20)
    assert np.unique(larger.instances).tolist() == [0, 300, 600] and np.unique(larger.masks).tolist() == [0, 1, 2]
    (tmp_path / "scribbles").rename(tmp_path / "drawn")
    binary = from_folder(tmp_path).masks  # without names, what is not 0 is a lesion
    assert (binary == (data.masks > 0)).all() and binary.sum() == 80


def test_masks_with_unknown_values_or_colours_or_names_are_named(tmp_path):
    pairs(tmp_path)
    with pytest.raises(ValueError) as error:
        from_folder(tmp_path, mask_names=("background", "wall"))
    assert str(error.value) == f"mask '{tmp_path}/masks/a.png' holds 2; expected only 0, 1"
    write(tmp_path / "masks" / "a.png", np.dstack([film(), film(1), film()]))
    with pytest.raises(ValueError) as error:
        from_folder(tmp_path)
    assert str(error.value) == (
        f"mask '{tmp_path}/masks/a.png' is coloured (#640164); expected grey values, or values={{'#rrggbb': class, …}}"
    )
    for name in ("a.png", "b.tif"):
        (tmp_path / "masks" / name).rename(tmp_path / "masks" / f"mask-of-{name}")
    with pytest.raises(ValueError) as error:
        from_folder(tmp_path)
    assert str(error.value) == (
        "'masks/mask-of-a.png', 'masks/mask-of-b.tif' in masks belong to no image, but 'images/a.png', 'images/b.png' "
        "need one; expected names like 'a.png' or 'a_mask.png'"
    )


def test_colour_and_native_bits(tmp_path):
    colour = np.zeros((8, 10, 3), np.uint8)
    colour[...] = (30, 90, 240)
    write(tmp_path / "normal" / "a.png", colour)
    write(tmp_path / "abnormal" / "b.png", film(7))
    data = from_folder(tmp_path, colour=True, scaled=False)
    assert data.images.shape == (2, 3, 8, 10) and data.images.dtype == np.uint8 and data.value_range == (0, 255)
    assert data.images[1, :, 0, 0].tolist() == [30, 90, 240] and (data.images[0] == 7).all() and data.steps == ()
    write(tmp_path / "normal" / "a.png", np.full((8, 10), 40000, np.uint16))
    with pytest.raises(ValueError, match=r"holds images of uint16 and uint8; expected one type"):
        from_folder(tmp_path, scaled=False)
    (tmp_path / "abnormal" / "b.png").unlink()
    data = from_folder(tmp_path, scaled=False, size=4)
    assert data.images.dtype == np.uint16 and data.images.max() == 40000 and data.value_range == (0, 65535)


# --- classes of other names, and CSV --------------------------------------------------------------------------------


def test_folders_of_other_classes(tmp_path):
    for name in ("tumour", "non_tumour", "stroma"):
        write(tmp_path / name / f"{name}.png", film(len(name)))
    data = from_folder(tmp_path, classes=("stroma", "tumour", "non_tumour"))
    assert data.labels.tolist() == [2, 0, 1]  # in the order of the paths
    assert data.class_names == ("stroma", "tumour", "non_tumour")
    with pytest.raises(ValueError, match=r"'non_tumour/non_tumour.png' has no class; expected .* stroma or tumour"):
        from_folder(tmp_path, classes=("stroma", "tumour"))


def films(root: Path, text: str) -> Path:
    for i in range(4):
        write(root / "images" / f"{i}.png", film(10 * i))
    (root / "table.csv").write_text(text, encoding="utf-8-sig")
    return root


def test_csv_gives_order_labels_patients_and_scanners(tmp_path):
    text = "patient,file,label,scanner,age\nMR-77,3.png,tumour,B,50\nAB-12,0.png,normal,A,60\nMR-77,1.png,normal,B,50\n"
    data = from_folder(films(tmp_path, text), csv="table.csv")
    assert np.round(data.images[:, 0, 0, 0] * 255).tolist() == [30, 0, 10]
    assert data.labels.tolist() == [1, 0, 0] and data.class_names == ("normal", "tumour")
    assert data.patients.tolist() == [1, 0, 1] and data.scanners.tolist() == ["B", "A", "B"]
    assert "77" not in repr(data) and "AB" not in repr(data)
    assert from_folder(tmp_path, csv="table.csv", classes=("tumour", "normal")).labels.tolist() == [0, 1, 1]
    bare = from_folder(films(tmp_path, "file,patient,label\n2.png,,4\n1.png,,0\n"), csv=tmp_path / "table.csv")
    assert bare.patients is None and bare.labels.tolist() == [4, 0] and bare.class_names == ()


def test_csv_of_other_tables(tmp_path):
    films(tmp_path, "")
    table = ' File ;Patient; label\n 3.PNG ; Müller; tumour\n;;\nimages\\0.png;Mayer;"non;tumour"\n'
    for text, encoding in (
        (table, "utf-8"),
        (table, "utf-16"),
        (table.replace(";", "\t").replace("non\t", "non;"), "utf-8"),
    ):
        (tmp_path / "table.csv").write_text(text, encoding=encoding)
        data = from_folder(tmp_path, csv="table.csv")
        assert np.round(data.images[:, 0, 0, 0] * 255).tolist() == [30, 0]
        assert data.patients.tolist() == [1, 0] and data.class_names == ("non;tumour", "tumour")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "file,label\n0.png,1\n",
            "'table.csv' has the columns file, label, but not 'patient'; "
            "where patients are unknown, add the column and leave it empty",
        ),
        ("image,patient\n0.png,1\n", "'table.csv' has the columns image, patient, but not 'file'"),
        ("", "'table.csv' has the columns (none), but not 'file'"),
        ("file,patient\n9.png,1\n", "'table.csv' names '9.png', which is not in 'images'"),
        (
            "file,patient\n0.png,1\n1.png,\n",
            "line 3 of 'table.csv' has no patient; expected one in all lines or in none",
        ),
        ("file,patient\n0.png,1\n1.png,2\n0.PNG,1\n", "'table.csv' names '0.png' in lines 2 and 4; expected it once"),
        ("file,patient\n0.png,1,5\n", "line 2 of 'table.csv' has 3 cells; expected 2, as in its head"),
        (
            "file,patient\n0.png,1\n1.png,nan\n",
            "line 3 of 'table.csv' has no patient; expected one in all lines or in none",
        ),
        ("file,patient,file\n0.png,1,1.png\n", "'table.csv' has the columns file, patient, file, but 'file' twice"),
        ("file,patient\n", "'table.csv' names no file; expected one a line"),
        ("file,patient\n../0.png,1\n", "'table.csv' names '../0.png', which is not in 'images'"),
        (
            "file,patient,label\n0.png,1,Cyst\n1.png,2,cyst\n",
            "'table.csv' has labels that differ in case only (Cyst, cyst); expected one form",
        ),
        ("file,patient\n,1\n0.png,1\n", "line 2 of 'table.csv' has no file; expected one in all lines or in none"),
    ],
)
def test_a_csv_that_does_not_fit_is_named(tmp_path, text, message):
    with pytest.raises(ValueError) as error:
        from_folder(films(tmp_path, text), csv="table.csv")
    assert str(error.value) == message


def test_an_unknown_label_and_a_missing_csv_are_named(tmp_path):
    films(tmp_path, "file,patient,label\n0.png,1,cyst\n")
    with pytest.raises(ValueError) as error:
        from_folder(tmp_path, csv="table.csv", classes=("normal", "tumour"))
    assert str(error.value) == "'table.csv' holds the label 'cyst'; expected one of normal, tumour"
    with pytest.raises(ValueError, match=r"there is no CSV 'other.csv'"):
        from_folder(tmp_path, csv="other.csv")
    (tmp_path / "table.csv").write_bytes("file,patient\n0.png,Müller\n".encode("latin-1"))
    with pytest.raises(ValueError, match="^line 2 of 'table.csv' is not UTF-8; expected a file saved as CSV UTF-8$"):
        from_folder(tmp_path, csv="table.csv")


# --- classes and patients by name -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["normal", "Normal", "NEGATIVE", "study1_negative"])
def test_a_class_is_a_whole_name_of_a_folder(tmp_path, name):
    write(tmp_path / name / "a.png", film())
    write(tmp_path / "abnormal" / "b.png", film())
    assert sorted(from_folder(tmp_path).labels.tolist()) == [0, 1]


@pytest.mark.parametrize("name", ["not normal", "non-normal", "not_normal"])
def test_not_normal_is_abnormal(tmp_path, name):
    write(tmp_path / name / "a.png", film())
    write(tmp_path / "normal" / "b.png", film())
    assert dict(zip(["b", "a"], sorted(from_folder(tmp_path).labels.tolist()), strict=True)) == {"b": 0, "a": 1}


@pytest.mark.parametrize(
    "name", ["nearly normal", "normal variant", "abnormal_normal", "study_negative", "no abnormal"]
)
def test_a_word_in_the_name_of_a_folder_is_no_class(tmp_path, name):
    write(tmp_path / "normal" / "a.png", film())
    write(tmp_path / name / "b.png", film())
    with pytest.raises(ValueError, match=f"'{name}/b.png' has no class"):
        from_folder(tmp_path)


def test_plain_pictures_have_no_labels(tmp_path):
    write(tmp_path / "a.png", film())
    write(tmp_path / "week 1" / "b.png", film())
    data = from_folder(tmp_path)
    assert data.labels is None and data.class_names == () and data.masks is None
    with pytest.raises(ValueError, match="a.png' has no class; expected one folder on its path to be named cyst"):
        from_folder(tmp_path, classes=("cyst", "tumour"))


def test_a_name_without_a_patient_is_told_and_is_one_of_its_own(tmp_path):
    for name in ("patient7_a", "Patient 7_b", "patient-12_a", "scan", "other"):
        write(tmp_path / f"{name}.png", film(len(name)))
    with pytest.warns(UserWarning, match="no patient in the name of 'other.png', 'scan.png', though others have one"):
        data = from_folder(tmp_path)
    names = sorted(["patient7_a", "Patient 7_b", "patient-12_a", "scan", "other"])
    of = dict(zip(names, data.patients.tolist(), strict=True))
    assert of["patient7_a"] == of["Patient 7_b"] and len(set(of.values())) == 4
