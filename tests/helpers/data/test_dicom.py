"""The reader's own DICOM files: order, units, geometry, and what is refused."""

import warnings

import numpy as np
import pydicom
import pytest
from dicom_files import SERIES, dicom, ramp, stack
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage, generate_uid

from helpers.data.readers.dicom import from_dicom


def test_a_ct_series_is_sorted_by_position_in_hounsfield_units(tmp_path):
    ct = from_dicom(stack(tmp_path))
    assert ct.images.shape == (4, 1, 3, 4) and ct.images.dtype == np.int16
    assert ct.images[:, 0, 0, 0].tolist() == [-1024, -824, -624, -424] and ct.images[0, 0, 0, 1] == -1022
    assert ct.value_range == (-160, 240) and ct.modality == "CT"
    assert (ct.spacing == [0.5, 0.75]).all() and np.allclose(ct.slice_spacing, 2)
    assert ct.slices.tolist() == [0, 1, 2, 3] and ct.volumes.tolist() == [0] * 4 and ct.frames is None
    assert ct.steps == ("slope and intercept applied",)


def test_without_positions_the_number_decides(tmp_path):
    for name, i in enumerate((2, 0, 1)):
        dicom(tmp_path / f"{name}.dcm", ramp(100 * i), InstanceNumber=i + 1)
    images = from_dicom(tmp_path)
    assert images.images[:, 0, 0, 0].tolist() == [0, 100, 200] and images.slices is None
    assert images.value_range == (0, 211)  # no window: all that occurs


def test_moments_at_one_position_are_frames_and_gaps_warn(tmp_path):
    stack(tmp_path / "a")
    for file in sorted((tmp_path / "a").iterdir()):
        header = pydicom.dcmread(file)
        header.InstanceNumber += 10
        header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        header.save_as(file.with_name("later" + file.name))
    cine = from_dicom(tmp_path / "a")
    assert cine.slices.tolist() == [0, 0, 1, 1, 2, 2, 3, 3] and cine.frames.tolist() == [0, 1] * 4
    with pytest.warns(UserWarning, match=r"^slices lie 2 to 4 mm apart; is one missing between '1.dcm' and '2.dcm'\?$"):
        from_dicom(stack(tmp_path / "b", order=(0, 1, 3)))


def test_identifiers_are_not_kept(tmp_path):
    stack(tmp_path)
    data = from_dicom(tmp_path)
    assert data.patients.tolist() == [0] * 4
    assert not any(word in repr(data) for word in ("4711", "Nobody", SERIES))
    header = pydicom.dcmread(tmp_path / "0.dcm")
    header.PatientID = ""
    header.save_as(tmp_path / "0.dcm")
    with pytest.raises(ValueError, match="^'0.dcm' of the series in '.*': no patient; expected it in all files or in"):
        from_dicom(tmp_path)
    for file in tmp_path.iterdir():
        header = pydicom.dcmread(file)
        header.PatientID = ""
        header.save_as(file)
    assert from_dicom(tmp_path).patients is None


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535), (np.int16, -1)])
def test_monochrome1_is_inverted_with_its_window(tmp_path, dtype, top):
    tags = dict(PhotometricInterpretation="MONOCHROME1", Modality="DX", WindowCenter=50, WindowWidth=20)
    film = from_dicom(dicom(tmp_path / "a.dcm", ramp(dtype=dtype), **tags))
    assert film.images.dtype == dtype and (film.images[0, 0] == top - ramp().astype(int)).all()
    assert film.value_range == (top - 60, top - 40) and film.modality == "X-ray"
    assert film.steps == ("MONOCHROME1 inverted",)


def test_monochrome1_of_twelve_bits_and_slopes_that_are_no_integers(tmp_path):
    tags = dict(PhotometricInterpretation="MONOCHROME1", Modality="DX", BitsStored=12, HighBit=11)
    assert from_dicom(dicom(tmp_path / "a.dcm", ramp(), **tags)).images.max() == 4095
    data = from_dicom(dicom(tmp_path / "b.dcm", ramp(), Modality="MR", RescaleSlope=0.25, RescaleIntercept=1))
    assert data.images.dtype == np.float32 and np.allclose(data.images[0, 0], ramp() / 4 + 1)


def test_ultrasound_cine_in_colour_with_its_scale(tmp_path):
    region = Dataset()
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX, region.PhysicalDeltaY = 0.03, 0.05
    pixels = np.random.default_rng(0).integers(0, 255, (5, 3, 4, 3), dtype=np.uint8)
    tags = dict(Modality="US", NumberOfFrames=5, PixelSpacing=None, SequenceOfUltrasoundRegions=[region])
    cine = from_dicom(dicom(tmp_path / "a.dcm", pixels, **tags, BurnedInAnnotation="NO"))
    assert (cine.images == np.moveaxis(pixels, 3, 1)).all() and cine.value_range == (0, 255)
    assert cine.frames.tolist() == [0, 1, 2, 3, 4] and cine.volumes.tolist() == [0] * 5
    assert np.allclose(cine.spacing, [0.5, 0.3])  # cm to mm


def test_enhanced_dicom_has_its_geometry_in_groups(tmp_path):
    def group(**tags):
        item, inner = Dataset(), Dataset()
        for tag, value in tags.items():
            setattr(inner, tag, value)
        item.PlanePositionSequence = [inner]
        return item

    shared = group(PixelSpacing=[2, 3], ImageOrientationPatient=[1, 0, 0, 0, 1, 0], RescaleSlope=1, RescaleIntercept=-5)
    frames = [group(ImagePositionPatient=[0, 0, z]) for z in (8, 0, 4)]
    groups = dict(SharedFunctionalGroupsSequence=[shared], PerFrameFunctionalGroupsSequence=frames)
    file = dicom(
        tmp_path / "a.dcm", np.stack([ramp(i * 100) for i in range(3)]), NumberOfFrames=3, PixelSpacing=None, **groups
    )
    ct = from_dicom(file)
    assert ct.images[:, 0, 0, 0].tolist() == [95, 195, -5] and ct.slices.tolist() == [0, 1, 2]
    assert (ct.spacing == [2, 3]).all() and (ct.slice_spacing == 4).all()


@pytest.mark.parametrize(
    ("tags", "warned"),
    [
        (dict(BurnedInAnnotation="YES"), True),
        (dict(Modality="US"), True),
        (dict(uid=SecondaryCaptureImageStorage), True),
        (dict(Modality="US", BurnedInAnnotation="NO"), False),
        (dict(), False),
    ],
)
def test_names_may_be_burned_in(tmp_path, tags, warned):
    file = dicom(tmp_path / "a.dcm", ramp(), **tags)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        from_dicom(file)
    messages = [str(w.message) for w in found if w.category is UserWarning]
    assert messages == ["names may be burned into the pixels of 'a.dcm': look before you share it"] * warned


def test_several_series_are_listed_and_chosen(tmp_path):
    stack(tmp_path / "a", SeriesNumber=7)
    dicom(tmp_path / "scout.dcm", ramp(5), SeriesNumber=2, SeriesInstanceUID=generate_uid())
    with pytest.raises(ValueError) as error:
        from_dicom(tmp_path)
    assert str(error.value) == (
        f"'{tmp_path.name}' holds 2 series; choose one as series=, or move the others elsewhere: "
        "0 (CT, 1 files), 1 (CT, 4 files)"
    )
    assert len(from_dicom(tmp_path, series=0)) == 1 and len(from_dicom(tmp_path, series=1)) == 4
    with pytest.raises(ValueError, match=r"series is 2; expected one of 0 \(CT, 1 files\), 1"):
        from_dicom(tmp_path, series=2)


def test_what_is_no_dicom_image_is_named(tmp_path):
    plan = dicom(tmp_path / "plan.dcm", None, Modality="RTPLAN")
    cut = dicom(tmp_path / "cut.dcm", ramp(), PixelData=b"\0\0\0\0")
    for folder in ("empty", "notes"):
        (tmp_path / folder).mkdir()
    (tmp_path / "notes" / "note.txt").write_text("hello")
    for path, message in (
        (plan, r"^'plan.dcm' holds no pixels \(its modality is RTPLAN\); expected an image$"),
        (cut, r"^the pixels of 'cut.dcm' cannot be decoded: [^\n]+$"),
        (tmp_path / "notes", r"^'note.txt' is no DICOM file, or damaged; expected a DICOM file or a folder of them$"),
        (tmp_path / "empty", r"^'empty' holds no files; expected DICOM files$"),
    ):
        with pytest.raises(ValueError, match=message):
            from_dicom(path)
    dicom(tmp_path / "b" / "1.dcm", ramp())
    dicom(tmp_path / "b" / "2.dcm", ramp()[:2].copy())
    with pytest.raises(
        ValueError, match=r"series in 'b' holds images of \(1, 2, 4\) and \(1, 3, 4\); expected one shape, but see '1"
    ):
        from_dicom(tmp_path / "b")


def test_bytes_that_are_damaged_end_in_one_sentence_with_the_path(tmp_path):
    """Each byte of the header once, and cuts: the file is read, or named in one line."""
    file = stack(tmp_path, order=(0,)) / "0.dcm"
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [whole[:n] for n in range(0, len(whole), 23)]
    for at in range(132, len(whole), 5):
        raw = bytearray(whole)
        raw[at : at + 2] = rng.bytes(2)
        damaged.append(bytes(raw))
    series = whole.index(b"\x20\x00\x0e\x00UI")
    damaged.append(whole[: series + 4] + b"U\xae" + whole[series + 6 :])  # no such kind of value
    refused = []
    for raw in damaged:
        file.write_bytes(raw)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                from_dicom(file)
            except ValueError as error:
                refused.append(str(error))
    assert len(refused) > len(damaged) / 3
    assert all("0.dcm" in text and "\n" not in text for text in refused), refused
