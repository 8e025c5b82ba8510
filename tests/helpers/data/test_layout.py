"""Which mask belongs to which image, and what is told where one does not."""

import unicodedata

import numpy as np
import pytest
from PIL import Image

from helpers.data import from_folder


def put(root, names, kind="images"):
    """A picture under each name; a mask has a lesion of as many pixels as its place in the list, from 1."""
    for i, name in enumerate(names):
        pixels = np.zeros((16, 16), np.uint8)
        if kind == "images":
            pixels[:] = np.random.default_rng(i).integers(0, 255, (16, 16))
        else:
            pixels[4, 1 : 2 + i] = 255
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file, format={"jpg": "JPEG", "tif": "TIFF"}.get(name[-3:].lower(), "PNG"))


NFC, NFD = (unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (["a.png", "b.PNG"], ["masks/a.PNG", "masks/b.png"]),
        (["a.jpg", "b.png"], ["masks/a.tif", "masks/b.png"]),
        (["a.png", "b.png"], ["masks/a_mask.png", "masks/b-seg.png"]),
        (["a.png", "b.png"], ["masks/a_Segmentation.png", "masks/b label.png"]),
        (["a.png", "b.png"], ["masks/mask_a.png", "masks/seg-b.png"]),
        (["a.png", "b.png"], ["masks/a.png.png", "masks/b.png_mask.png"]),
        (["images/image_01.png", "images/image_02.png"], ["masks/mask_01.png", "masks/mask_02.png"]),
        (["p1/scan.png", "p2/scan.png"], ["p1/mask.png", "p2/Segmentation.png"]),
        (["p1/image.png", "p2/image.png"], ["p1/label.png", "p2/label.png"]),
        (["imagesTr/c_1_0000.png", "imagesTr/c_2_0000.png"], ["labelsTr/c_1.png", "labelsTr/c_2.png"]),
        (["images/img1.png", "images/img2.png"], ["labels/label1.png", "labels/label2.png"]),
        (["c1_image.png", "c2_image.png"], ["c1_mask.png", "c2_mask.png"]),
        (["a.png", "b.png"], ["a_mask.png", "b_GT.tif"]),
        (["benign (1).png", "benign (10).png"], ["benign (1)_mask.png", "benign (10)_mask.png"]),
        ([f"{NFC}.png", "b.png"], [f"masks/{NFD}.png", "masks/b.png"]),
        ([f"{NFD}.png", "b.png"], [f"{NFC}_mask.png", "b_mask.png"]),
        (["Images/x/a.png", "Images/y/a.png"], ["Masks/x/a.png", "Masks/y/a.png"]),
        (["train/images/a.png", "val/images/a.png"], ["train/masks/a.png", "val/masks/a.png"]),
        (["x/a.png", "y/b.png"], ["masks/a.png", "masks/b.png"]),
        (["images/a.png", "images/b.png"], ["segmentations/a.png", "segmentations/b.png"]),
        (["images/a_label.png", "images/b_label.png"], ["masks/a_label.png", "masks/b_label.png"]),
        (["a.png", "A.png"], ["masks/a.png", "masks/A.png"]),
        (["a_01.png", "a_02.png"], ["masks/a_mask_01.png", "masks/a_mask_02.png"]),
        (["a-01.png", "a-02.png"], ["a_mask_01.png", "a_mask_02.png"]),
        (["scan1.png", "scan2.png"], ["scan1mask.png", "scan2Seg.png"]),
        (["scan 1.png", "scan 2.png"], ["masks/scan_1_mask.png", "masks/Scan_2_mask.png"]),
        (["train/a.png", "val/a.png"], ["train_masks/a.png", "val_masks/a.png"]),
        (["train_images/a.png", "val_images/a.png"], ["train_labels/a_mask.png", "val_labels/a_mask.png"]),
        (["a.png", "b.png"], ["masks/a_mask.png", "masks/B_MASK.png"]),
        (["a.png", "b.png"], ["a_ground_truth.png", "b_labelmap.png"]),
        (["a.png", "b.png"], ["a_msk.png", "b_binary mask.png"]),
        (["scans/a.png", "scans/b.png"], ["Ground Truth/a.png", "Ground Truth/b.png"]),
        (["images_train/a.png", "images_val/a.png"], ["masks_train/a.png", "masks_val/a.png"]),
        (["a.png", "a_1.png"], ["a_mask.png", "a_mask_1.png"]),
    ],
)
def test_a_mask_is_found(tmp_path, images, masks):
    put(tmp_path, images)
    put(tmp_path, masks, "masks")
    data = from_folder(tmp_path)
    expected = [i for _, i in sorted((tmp_path / name, i + 1) for i, name in enumerate(images))]
    assert data.masks.sum((1, 2)).tolist() == expected


def test_several_masks_of_an_image_are_one(tmp_path):
    put(tmp_path, ["a (1).png", "b.png"])
    put(tmp_path, ["a (1)_mask.png", "b_mask.png", "a (1)_mask_1.png"], "masks")
    data = from_folder(tmp_path)
    assert data.masks.sum((1, 2)).tolist() == [3, 2] and "several masks of an image merged, in 1" in data.steps
    put(tmp_path, ["masks/a (1).png", "masks/b.png"], "masks")
    with pytest.raises(ValueError, match=r"'a \(1\)_mask.png'.* are masks of '.*a \(1\).png' in two folders"):
        from_folder(tmp_path)


def test_classes_that_contradict_one_another_are_named(tmp_path):
    put(tmp_path, ["a.png"])
    for number in (1, 2):
        Image.fromarray(np.full((16, 16), number, np.uint8)).save(tmp_path / f"a_mask_{number}.png")
    with pytest.raises(ValueError, match="a_mask_2.png' and another of 'a.png' say two classes at row 0, column 0"):
        from_folder(tmp_path, mask_names=("background", "wall", "lumen"))


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        (["a.png", "b.png"], ["masks/a.png", "masks/c.png"], "'masks/c.png' in masks belong to no image, but 'b.png'"),
        (
            ["a.png"],
            ["a_mask.png", "c_mask.png"],
            "'c_mask.png': named like a mask, but there is no image 'c' beside",
        ),
        (["a.png", "a.jpg"], ["masks/a.png"], "a.png' fits 'a.jpg', 'a.png'; expected one of that name"),
        (["x/a.png", "y/a.png"], ["masks/a.png"], "a.png' fits 'x/a.png', 'y/a.png'; expected one of that name"),
        (["a.png", "b.png"], ["masks/a.jpg", "masks/b.png"], "a.jpg' is no PNG or TIFF"),
        (["x/a.png", "x/b.png"], ["masks/y/a.png", "masks/x/b.png"], "'masks/y/a.png' in masks belong to no image"),
    ],
)
def test_a_mask_that_is_not_found_is_refused(tmp_path, images, masks, message):
    put(tmp_path, images)
    put(tmp_path, masks, "masks")
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        from_folder(tmp_path)


def test_what_is_left_out_or_missing_is_told_by_name(tmp_path):
    put(tmp_path, ["a.png", "b.png"])
    put(tmp_path, ["masks/a.png"], "masks")
    with pytest.warns(UserWarning, match="no masks for 'b.png': taken as empty"):
        assert from_folder(tmp_path).masks.sum() == 1
    put(tmp_path, ["masks/b.png", "masks/old.png"], "masks")
    with pytest.warns(UserWarning, match="left out: 'masks/old.png', which belong to no image"):
        from_folder(tmp_path)
    (tmp_path / "c.gif").write_bytes(b"GIF89a")
    with pytest.warns(UserWarning, match="left out: 'c.gif'; pictures are .png"):
        from_folder(tmp_path)


def test_folders_and_masks_without_content_are_told(tmp_path):
    put(tmp_path, ["a.png"])
    (tmp_path / "masks").mkdir()
    with pytest.warns(UserWarning, match="'masks' is empty"):
        assert from_folder(tmp_path).masks is None
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "masks/a.png")
    with pytest.warns(UserWarning, match="nothing is drawn in any of the 1 masks"):
        from_folder(tmp_path)


def test_a_link_to_nothing_is_named(tmp_path):
    put(tmp_path, ["a.png"])
    (tmp_path / "b.png").symlink_to(tmp_path / "none.png")
    with pytest.raises(ValueError, match=r"b.png' cannot be read as an image \(No such file or directory\)"):
        from_folder(tmp_path)


def test_what_is_hidden_is_not_there(tmp_path):
    put(tmp_path, ["normal/a.png", "abnormal/b.png"])
    put(tmp_path, ["normal/.ipynb_checkpoints/a-checkpoint.png", "__MACOSX/normal/a.png", "normal/.a.png"])
    (tmp_path / "normal" / "folder.png").mkdir()
    assert len(from_folder(tmp_path)) == 2


def test_a_mask_that_is_named_for_no_image_needs_one_alone(tmp_path):
    put(tmp_path, ["p1/a.png", "p1/b.png"])
    put(tmp_path, ["p1/mask.png"], "masks")
    with pytest.raises(ValueError, match="'p1/mask.png': named like a mask, but there is no image alone beside it"):
        from_folder(tmp_path)


@pytest.mark.parametrize("name", ["a_roi.png", "a_mask_final.png", "a(mask).png", "a1.png", "outlines/a.png"])
def test_a_drawing_by_the_name_of_an_image_is_no_image(tmp_path, name):
    put(tmp_path, ["scans/a.png", "scans/b.png"])
    put(tmp_path, [f"scans/{name}"], "masks")
    with pytest.raises(ValueError, match="at most 16 different values, as a mask has, and the name of another image"):
        from_folder(tmp_path)


def test_a_black_image_is_one_all_the_same(tmp_path):
    put(tmp_path, ["normal/1.png"])
    put(tmp_path, ["abnormal/1.png"])
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "normal/1.png")
    assert len(from_folder(tmp_path)) == 2


def test_the_first_of_numbered_pictures_has_no_claim_on_their_name(tmp_path):
    put(tmp_path, ["a_0000.png", "a_0001.png"])
    put(tmp_path, ["masks/a.png", "masks/a_0001.png"], "masks")
    with pytest.raises(ValueError, match="'masks/a.png' in masks belong to no image, but 'a_0000.png' need one"):
        from_folder(tmp_path)
