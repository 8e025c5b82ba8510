"""What `python -m helpers.data PATH` says of a folder and draws of it, and what `print(images)` says."""

import sys
from unittest import mock

import dicom_files
import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from helpers.data import ImageSet, from_folder, load, words
from helpers.data.look import COLOURS, described, lines, main, sheet


def put(root, name, pixels):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(root / name)


@pytest.fixture
def scans(tmp_path):
    """Twelve pictures of six patients in two sizes, of which ten have masks; one mask is a slip of the hand."""
    rng = np.random.default_rng(0)
    for i in range(12):
        name, shape = f"{('normal', 'abnormal')[i % 2]}/patient{i // 2}_Meier_{i}.png", (40 + 10 * (i % 2), 60)
        put(tmp_path, name, rng.integers(0, 255, shape, dtype=np.uint8))
        mask = np.zeros(shape, np.uint8)
        mask[10:20, 10 : 20 + i] = i % 2
        mask[0, 0] = i == 3
        if i == 5:
            mask[:] = 0
            mask[8, 8] = 1
        if i < 10:
            put(tmp_path / "masks", name, mask * 255)
    return tmp_path


def test_a_folder_of_pictures_is_described(scans):
    told = "\n".join(lines(described(scans)))
    for line in (
        "files      12 PNG",
        "images     12",
        "size       40×60 to 50×60 pixels (rows×columns), 2 sizes: chapters bring them to one",
        "spacing    unknown",
        "patients   6",
        "classes    normal 6, abnormal 6",
        "masks      lesion: in 5 images, 1 to 190 pixels, half below 131",
        "masks      7 of 12 are empty",
        "read so    masks hold 0, 255: all but 0 is lesion",
        "look at    no masks for 'abnormal/patient5_Meier_11.png', 'normal/patient5_Meier_10.png': taken as empty",
        "look at    masks of 'abnormal/patient2_Meier_5.png' have a class of fewer than 4 pixels",
        "chapters   00, 01, 04, 05, 06, 07, 08 take it as it is",
    ):
        assert line in told, told


def test_what_cannot_be_read_is_listed_and_the_rest_is_described(scans):
    (scans / "normal/patient0_Meier_0.png").write_bytes(b"broken")
    put(scans, "masks/normal/patient1_Meier_2.png", np.zeros((9, 9), np.uint8))
    told = lines(described(scans))
    assert "images     10" in told
    assert any("patient0_Meier_0.png' cannot be read as an image" in line for line in told)
    assert any("patient1_Meier_2.png' has shape (9, 9); expected that of" in line for line in told)


def test_the_sheet_has_outlines_and_no_names(scans, capsys, monkeypatch):
    seen = described(scans)
    page = np.asarray(sheet(seen.data))
    orange = (page == [int(COLOURS[0][i : i + 2], 16) for i in (1, 3, 5)]).all(axis=2)
    tile = seen.data.masks[1]
    assert 0 < orange[:128, 132:260].sum() < tile.sum() / 2  # the border of the second image, not its inside
    assert not orange[:128, 6 * 132 : 6 * 132 + 128].any()  # no mask
    out = scans.parent / "page" / "sheet.png"
    monkeypatch.setattr(sys, "argv", ["look", str(scans), "--out", str(out)])
    main()
    assert capsys.readouterr().out.splitlines()[-1] == f"sheet      {out}"
    assert (np.asarray(Image.open(out)) == page).all() and not Image.open(out).info
    for file in list(scans.rglob("*Meier*")):
        file.rename(file.with_name(file.name.replace("Meier", "Huber")))
    assert (np.asarray(sheet(described(scans).data)) == page).all()


def dicom(file, instance):
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = CTImageStorage
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = generate_uid()
    header.Modality, header.SeriesInstanceUID, header.InstanceNumber = "CT", "1.2.3", instance
    header.PatientID, header.PatientName, header.BurnedInAnnotation = "MR-4711", "Meier", "YES"
    header.Rows = header.Columns = 16
    header.ImagePositionPatient, header.ImageOrientationPatient = [0, 0, 2 * instance], [1, 0, 0, 0, 1, 0]
    header.PixelSpacing, header.SamplesPerPixel, header.PhotometricInterpretation = [0.5, 0.7], 1, "MONOCHROME2"
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit, header.PixelRepresentation = 15, 1
    header.PixelData = np.random.default_rng(instance).integers(-99, 99, (16, 16), dtype=np.int16).tobytes()
    pydicom.dcmwrite(file, header, enforce_file_format=True)


def test_a_dicom_series_is_described_without_its_patient(tmp_path):
    for i in range(5):
        dicom(tmp_path / f"{i}.dcm", i)
    told = "\n".join(lines(described(tmp_path)))
    assert "files      5 files of DICOM" in told and "size       16×16 pixels" in told
    assert "spacing    0.5×0.7 mm a pixel, 2 mm from slice to slice" in told and "patients   1" in told
    assert "names may be burned into the pixels" in told and "4711" not in told and "Meier" not in told
    assert len(described(tmp_path / "0.dcm").data) == 1
    put(tmp_path, "preview.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(ValueError, match=r"of several kinds, 1 of pictures \(preview.png\) and 5 of DICOM \(0.dcm\)"):
        described(tmp_path)


@pytest.mark.parametrize("mask", ["masks/scan.nii.gz", "scan_seg.nii.gz", "labels/scan-label.nii"])
def test_a_volume_with_its_mask_is_described(tmp_path, mask):
    voxels = np.arange(6 * 5 * 4, dtype=np.int16).reshape(6, 5, 4)
    (tmp_path / mask).parent.mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1, 2, 3, 1])), tmp_path / "scan.nii.gz")
    nibabel.save(nibabel.Nifti1Image((voxels > 60).astype(np.uint8), np.diag([1, 2, 3, 1])), tmp_path / mask)
    told = "\n".join(lines(described(tmp_path, mask_names=("background", "liver"))))
    assert "spacing    2×1 mm a pixel, 3 mm from slice to slice" in told and "masks      liver: in 4 images" in told
    assert load("ct", source="folder", data_dir=str(tmp_path)).masks.sum() == 59
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "other.nii.gz")
    with pytest.raises(ValueError, match=f"masks of 'other.nii.gz' are missing, there are '{mask}'; expected one file"):
        described(tmp_path)


def test_the_command_ends_in_one_sentence(tmp_path, monkeypatch, capsys):
    for path, sentence in ((tmp_path, "holds no images"), (tmp_path / "none", "there is no")):
        monkeypatch.setattr(sys, "argv", ["look", str(path)])
        with pytest.raises(SystemExit) as end:
            main()
        assert sentence in str(end.value) and str(end.value).startswith("error: ") and "\n" not in str(end.value)
    assert capsys.readouterr().out == ""


def test_a_set_is_printed_in_one_line(scans):
    with pytest.warns(UserWarning):
        printed = str(from_folder(scans, size=32))
    assert printed.startswith(
        "own-folder: 12 images of 32×32 pixels; grey, float32, 0 to 1; patients 6; classes normal 6"
    )
    assert "masks hold 0, 255: all but 0 is lesion" in printed and "\n" not in printed and "Meier" not in printed
    assert str(load("ct", images=4, size=32)).count("; ") > 2


@pytest.mark.parametrize(("asked", "share"), [(4, [2, 2]), (6, [3, 3]), (900, [6, 6])])
def test_of_a_folder_at_most_so_many_are_drawn(scans, asked, share):
    options = dict(source="folder", data_dir=str(scans), size=16)
    with pytest.warns(UserWarning):
        drawn = [load("ultrasound", images=asked, seed=seed, **options) for seed in (1, 1, 2)]
    assert np.bincount(drawn[0].labels).tolist() == share
    assert (drawn[0].images == drawn[1].images).all() and ((drawn[0].images == drawn[2].images).all() == (asked == 900))
    with pytest.raises(ValueError, match="images is 0; expected a whole number, 1 or more"):
        load("ultrasound", images=0, **options)


def test_volumes_of_several_sizes_are_shown_at_one(tmp_path):
    for i, columns in enumerate((6, 8)):
        nibabel.save(nibabel.Nifti1Image(np.ones((columns, 5, 4), np.int16), np.eye(4)), tmp_path / f"{i}.nii")
    with pytest.raises(ValueError, match="give a size"):
        described(tmp_path)
    assert described(tmp_path, size=16).data.images.shape == (8, 1, 16, 16)


def told_by(monkeypatch, *arguments) -> str:
    """The sentence in which the command ends; "" if it does what it should."""
    monkeypatch.setattr(sys, "argv", ["look", *map(str, arguments)])
    try:
        main()
    except SystemExit as end:
        assert str(end.code).startswith("error: ") and "\n" not in str(end.code)
        return str(end.code)
    return ""


def test_the_sheet_replaces_no_scan_and_is_read_as_none(scans, monkeypatch, tmp_path_factory):
    scan, elsewhere = scans / "normal/patient0_Meier_0.png", tmp_path_factory.mktemp("elsewhere")
    before = scan.read_bytes()
    for path, out in ((scans, scan), (scans, scans / "new" / "sheet.png"), (scan, scan.with_name("sheet.png"))):
        assert "would lie among the scans" in told_by(monkeypatch, path, "--out", out)
    monkeypatch.chdir(scans)
    assert "the sheet 'runs/look.png' would lie among the scans in '.'" in told_by(monkeypatch, ".")
    assert "expected a file that ends in .png" in told_by(monkeypatch, scans, "--out", elsewhere / "sheet.tif")
    assert scan.read_bytes() == before and not (scans / "runs").exists()
    sheet_before = elsewhere / "sheet.png"
    sheet_before.write_bytes(b"as it was")
    with monkeypatch.context() as broken:
        broken.setattr(Image.Image, "save", lambda image, file, kind: file.write_bytes(b"half") and 1 / 0)
        with pytest.raises(ZeroDivisionError):
            told_by(broken, scans, "--out", sheet_before)
    assert sheet_before.read_bytes() == b"as it was" and list(elsewhere.iterdir()) == [sheet_before]
    assert told_by(monkeypatch, scans, "--out", sheet_before) == "" and Image.open(sheet_before).size


def test_of_several_series_one_is_chosen(tmp_path, monkeypatch, capsys):
    out = tmp_path / "sheet.png"
    for i in range(3):
        dicom_files.dicom(tmp_path / "own" / f"{i}.dcm", dicom_files.ramp(i), SeriesNumber=1 + (i == 2))
    assert "holds 2 series; choose one as series=" in told_by(monkeypatch, tmp_path / "own", "--out", out)
    assert told_by(monkeypatch, tmp_path / "own", "--series", "1", "--out", out) == ""
    assert "images     1\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--mask-names", "a", "b"), "mask_names is ('a', 'b'), but 'own' holds no pictures or volumes; expected none"),
        (("--classes", "a", "b"), "classes is ('a', 'b'), but 'own' holds no pictures; expected none"),
        (("--csv", "list.csv"), "csv is 'list.csv', but 'own' holds no pictures; expected none"),
        (("--size", "0"), "size is 0; expected a whole number, 1 or more"),
    ],
)
def test_an_option_of_another_kind_of_folder_is_refused(tmp_path, monkeypatch, option, message):
    dicom_files.stack(tmp_path / "own")
    assert told_by(monkeypatch, tmp_path / "own", *option, "--out", tmp_path / "a.png") == f"error: {message}"


@pytest.mark.parametrize("words", [("normal,", "abnormal"), ("normal, abnormal",), (" normal", ",abnormal,")])
def test_commas_and_blanks_around_classes_do_not_matter(scans, monkeypatch, capsys, words):
    assert told_by(monkeypatch, scans, "--classes", *words, "--out", scans.parent / "sheet.png") == ""
    assert "classes    normal 6, abnormal 6" in capsys.readouterr().out


def test_too_little_memory_is_one_sentence(scans, monkeypatch):
    monkeypatch.setattr("helpers.data.look.assembled", mock.Mock(side_effect=MemoryError))
    assert "needs more memory than is free; give a smaller --size" in told_by(monkeypatch, scans)


def test_the_home_folder_is_found(scans, monkeypatch):
    monkeypatch.setenv("HOME", str(scans.parent))
    assert told_by(monkeypatch, f"~/{scans.name}", "--out", scans.parent / "sheet.png") == ""
    assert "would lie among" in told_by(monkeypatch, f"~/{scans.name}", "--out", scans / "sheet.png")


@pytest.mark.parametrize(("drawn", "said"), [(1, "<0.01 %"), (52, "0.032 %"), (40000, "24 %"), (164000, "100 %")])
def test_what_is_drawn_is_never_none_of_the_pixels(drawn, said):
    masks = np.zeros((1, 405, 405), np.uint8)
    masks.ravel()[:drawn] = 1
    own = ImageSet("own", "mr", np.zeros((1, 1, 405, 405), np.uint8), (0, 255), masks=masks)
    assert f"masks: 1 {said} of the pixels" in words.in_words(own)


def test_folders_that_may_be_classes_are_named_with_what_to_say(tmp_path):
    for i in range(6):
        file = tmp_path / ("benign", "malignant")[i % 2] / f"{i}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (16, 16), dtype=np.uint8)).save(file)
    told = "\n".join(lines(described(tmp_path)))
    assert (
        'if the folders are classes (benign 3, malignant 3): --classes "benign, malignant", the one to detect' in told
    )
    assert "chapters   00 take it as it is" in told
    named = "\n".join(lines(described(tmp_path, classes="benign, malignant")))
    assert "classes    benign 3, malignant 3" in named and "chapters   00, 01, 04" in named
