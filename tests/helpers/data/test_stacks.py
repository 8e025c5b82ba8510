"""Which images of a DICOM series belong together: copies, localisers, acquisitions, passes, gaps."""

import warnings

import numpy as np
import pytest
from dicom_files import dicom, ramp
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from helpers.data.readers.dicom import from_dicom

AXIAL, SAGITTAL = [1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1]


def slab(folder, positions, *, start=1, value=0, prefix="", **tags):
    """Axial slices that hold their position, numbered in this order; their files are named by the number."""
    for number, z in enumerate(positions, start):
        where = dict(ImagePositionPatient=[0, 0, z], ImageOrientationPatient=AXIAL, InstanceNumber=number)
        dicom(folder / f"{prefix}{number}.dcm", ramp(round(10 * z) + value), **(where | tags))


def read(folder, **options):
    """The set, and the one warning or ""."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        data = from_dicom(folder, **options)
    texts = [str(w.message) for w in found]
    assert len(texts) <= 1
    return data, "".join(texts)


def places(data):
    return (data.images[:, 0, 0, 0] / 10).tolist()


def test_copies_are_left_out_and_named(tmp_path):
    slab(tmp_path, (0, 5, 10, 15))
    for name in ("2", "4"):
        (tmp_path / "again").mkdir(exist_ok=True)
        (tmp_path / "again" / f"{name}.dcm").write_bytes((tmp_path / f"{name}.dcm").read_bytes())
    slab(tmp_path, (5,), start=2, prefix="new_uid_")  # the same number, place and pixels under another UID
    data, told = read(tmp_path)
    assert places(data) == [0, 5, 10, 15] and data.frames is None
    assert told == "copies of other files were left out: 'again/2.dcm', 'again/4.dcm', 'new_uid_2.dcm'"


def test_one_uid_with_other_pixels_is_refused(tmp_path):
    slab(tmp_path, (0,), SOPInstanceUID="1.2.3")
    slab(tmp_path, (0,), value=7, prefix="other_", SOPInstanceUID="1.2.3")
    with pytest.raises(ValueError, match="^'1.dcm' and 'other_1.dcm' have one SOP instance UID, but other pixels"):
        from_dicom(tmp_path)


def test_blank_slices_at_other_places_are_no_copies(tmp_path):
    for i in range(3):
        where = dict(ImagePositionPatient=[0, 0, i], ImageOrientationPatient=AXIAL, SOPInstanceUID="1.2.3")
        dicom(tmp_path / f"{i}.dcm", ramp() * 0, InstanceNumber=i, **where)
    data, told = read(tmp_path)
    assert len(data) == 3 and told == ""


@pytest.mark.parametrize(
    ("tags", "word"),
    [
        (dict(ImageOrientationPatient=SAGITTAL), "sagittal"),
        (dict(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "localiser"),
        (dict(ImagePositionPatient=None), "without position or orientation"),
        (dict(ImagePositionPatient=None, uid=SecondaryCaptureImageStorage), "secondary capture"),
    ],
)
def test_what_is_no_slice_of_the_series_is_left_out_and_named(tmp_path, tags, word):
    slab(tmp_path, (0, 5, 10))
    where = dict(ImagePositionPatient=[0, 0, 0], ImageOrientationPatient=AXIAL)
    dicom(tmp_path / "odd.dcm", np.zeros((9, 9), np.uint16), InstanceNumber=0, **(where | tags))
    data, told = read(tmp_path)
    assert places(data) == [0, 5, 10] and data.slices.tolist() == [0, 1, 2] and (data.slice_spacing == 5).all()
    assert told == f"left out of 3 images (axial): 'odd.dcm' ({word})"


def test_many_scouts_do_not_outvote_the_slices(tmp_path):
    slab(tmp_path, (0, 5))
    slab(tmp_path, (0, 5, 10), prefix="scout", ImageType=["DERIVED", "SECONDARY", "LOCALIZER"])
    assert places(read(tmp_path)[0]) == [0, 5]


def test_two_orientations_alike_in_number_are_refused(tmp_path):
    slab(tmp_path, (0, 5))
    slab(tmp_path, (0, 5), prefix="side", ImageOrientationPatient=SAGITTAL)
    with pytest.raises(ValueError) as error:
        from_dicom(tmp_path)
    assert str(error.value) == (
        "the series holds images of 2 orientations; expected one; axial: '1.dcm', '2.dcm'; "
        "sagittal: 'side1.dcm', 'side2.dcm'"
    )


def test_acquisitions_at_the_same_places_are_frames(tmp_path):
    slab(tmp_path, (0, 5, 10), prefix="b", AcquisitionNumber=2, value=1000)
    slab(tmp_path, (0, 5, 10), prefix="a", AcquisitionNumber=1)
    data, told = read(tmp_path)
    assert data.slices.tolist() == [0, 0, 1, 1, 2, 2] and data.frames.tolist() == [0, 1] * 3
    assert (data.images[data.frames == 1, 0, 0, 0] >= 1000).all() and (data.images[data.frames == 0] < 1000).all()
    assert told == "2 acquisition numbers at one place are read as frames: 'a1.dcm', 'b1.dcm'"


@pytest.mark.parametrize("numbered", [True, False])
def test_passes_that_lie_unevenly_between_one_another_are_volumes(tmp_path, numbered):
    slab(tmp_path, (0, 10, 20, 30), AcquisitionNumber=1)
    slab(tmp_path, (3, 13, 23, 33), start=5, AcquisitionNumber=2 if numbered else 1)
    data, told = read(tmp_path)
    assert data.volumes.tolist() == [0] * 4 + [1] * 4 and places(data) == [0, 10, 20, 30, 3, 13, 23, 33]
    assert (data.slice_spacing == 10).all() and data.slices.tolist() == [0, 1, 2, 3] * 2 and data.frames is None
    assert told == (
        "2 acquisitions lie between one another, 10 mm apart each, and are read as volumes: '1.dcm' …, '5.dcm' …"
    )


@pytest.mark.parametrize(("tags", "volumes", "gap"), [
    (dict(), 1, 5), (dict(SliceThickness=5), 1, 5), (dict(SliceThickness=10), 2, 10),
    (dict(SliceThickness=10, SpacingBetweenSlices=5), 1, 5),
])  # fmt: skip
def test_the_thickness_says_whether_even_passes_are_one_volume(tmp_path, tags, volumes, gap):
    for start, first in ((1, 0), (5, 5)):
        slab(tmp_path, first + 10 * np.arange(4.0), start=start, AcquisitionNumber=start, **tags)
    data, told = read(tmp_path)
    assert len(set(data.volumes.tolist())) == volumes and (data.slice_spacing == gap).all()
    assert ("read as one volume, 5 mm apart" in told) == (volumes == 1) and told


def test_acquisitions_one_after_another_are_one_volume_without_a_word(tmp_path):
    slab(tmp_path, (0, 5, 10), AcquisitionNumber=1)
    slab(tmp_path, (15, 20, 25), start=4, AcquisitionNumber=2)
    data, told = read(tmp_path)
    assert not data.volumes.any() and data.slices.tolist() == list(range(6)) and told == ""


def test_a_moment_without_a_slice_is_told(tmp_path):
    slab(tmp_path, (0, 5, 10))
    slab(tmp_path, (0, 5), start=4, value=1)
    data, told = read(tmp_path)
    assert data.frames.tolist() == [0, 1, 0, 1, 0]
    assert told == "2 images lie at most places, 1 at those of '3.dcm'"


def test_positions_that_differ_by_a_rounding_are_one_place(tmp_path):
    slab(tmp_path, (0, 4.9951, 10))
    slab(tmp_path, (0.001, 5.0049, 10.002), start=4, value=1)
    data, _ = read(tmp_path)
    assert data.slices.tolist() == [0, 0, 1, 1, 2, 2] and np.allclose(data.slice_spacing, 5, atol=0.01)


@pytest.mark.parametrize(
    ("tag", "values", "words"),
    [
        ("EchoTime", (10, 20), "2 echo times (ms), 10: 3 files, '1.dcm', '2.dcm', '3.dcm'; 20: 3 files, 'b1.dcm', "),
        ("EchoNumbers", (1, 2), "2 echo numbers, 1: 3 files"),
        ("DiffusionBValue", (0.0, 1000.0), "2 b-values, 0: 3 files, '1.dcm', '2.dcm', '3.dcm'; 1000: 3 files"),
    ],
)
def test_several_contrasts_at_one_place_are_no_frames(tmp_path, tag, values, words):
    for value, prefix in zip(values, ("", "b"), strict=True):
        slab(tmp_path, (0, 5, 10), prefix=prefix, **{tag: value})
    with pytest.raises(ValueError) as error:
        from_dicom(tmp_path)
    assert str(error.value).startswith(f"images at one place have {words}") and "expected one" in str(error.value)


def test_temporal_positions_are_frames(tmp_path):
    for time, prefix in ((10, "a"), (9, "b")):
        slab(tmp_path, (0, 5), prefix=prefix, value=1000 * time, TemporalPositionIdentifier=time, EchoTime=3)
    data, told = read(tmp_path)
    assert data.frames.tolist() == [0, 1] * 2 and not told
    assert (data.images[data.frames == 0] < 9500).all()  # 9 before 10


def test_what_is_beside_the_series_is_named(tmp_path):
    slab(tmp_path / "DICOM", (0, 5, 10))
    dicom(tmp_path / "report.dcm", None, Modality="SR")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "preview.jpg")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "x.dcm").write_text("x")
    (tmp_path / "DICOMDIR").write_text("x")
    data, told = read(tmp_path)
    assert len(data) == 3
    assert told == "left out, no DICOM files: 'preview.jpg'; left out, without pixels: 'report.dcm'"


@pytest.mark.parametrize("name", ["4.dcm", "IM0004", "1.2.840.4"])
def test_a_file_of_the_series_that_is_damaged_is_not_left_out(tmp_path, name):
    slab(tmp_path, (0, 5, 10))
    (tmp_path / name).write_bytes(b"\0" * 200)
    with pytest.raises(ValueError, match=rf"^'{name}' is no DICOM file, or damaged; expected"):
        from_dicom(tmp_path)


def test_slope_and_intercept_in_some_of_the_files_only(tmp_path):
    slab(tmp_path, (0, 5), RescaleSlope=1, RescaleIntercept=-1024)
    slab(tmp_path, (10,), start=3)
    with pytest.raises(ValueError, match=r"^'3.dcm' of the series in '.*': no slope and intercept; expected it in all"):
        from_dicom(tmp_path)
    dicom(tmp_path / "3.dcm", ramp(), RescaleSlope=0, RescaleIntercept=0)
    with pytest.raises(
        ValueError, match=r"3.dcm' cannot be read as a DICOM file: slope is 0 and intercept 0; expected"
    ):
        from_dicom(tmp_path)


def test_values_of_several_types_stay_values_of_a_type_that_is_promised(tmp_path):
    slab(tmp_path, (0, 1), Modality="MR", RescaleSlope=1, RescaleIntercept=-1)  # int16
    slab(tmp_path, (2000,), start=3, value=30000, Modality="MR", RescaleSlope=1, RescaleIntercept=0)  # uint16
    data, _ = read(tmp_path)
    assert data.images.dtype == np.float32 and data.images[:, 0, 0, 0].tolist() == [-1, 9, 50000]


def test_padding_below_air_is_told_and_left_out_of_the_range(tmp_path):
    round_field = np.where(ramp() < 2, -2000, ramp() * 90 - 1000).astype(np.int16)
    where = dict(ImagePositionPatient=[0, 0, 0], ImageOrientationPatient=AXIAL)
    data, told = read(dicom(tmp_path / "a.dcm", round_field, **where))
    assert data.value_range == (-820, -10) and data.images.min() == -2000
    assert told == "17% of the pixels are -2000: padding, left out of value_range"
    data, told = read(dicom(tmp_path / "b.dcm", round_field, Modality="MR", **where))
    assert data.value_range == (-2000, -10) and not told  # no CT, no word in the header
    data, told = read(dicom(tmp_path / "c.dcm", round_field, Modality="MR", PixelPaddingValue=-2000, **where))
    assert data.value_range == (-820, -10) and told


@pytest.mark.parametrize("damage", [
    dict(ImagePositionPatient=[0, 0]), dict(ImageOrientationPatient=[0] * 6), dict(PixelSpacing=[1]),
])  # fmt: skip
def test_a_place_that_is_none_is_refused_with_the_path(tmp_path, damage):
    slab(tmp_path, (0, 5), **damage)
    with pytest.raises(ValueError, match=rf"^'{tmp_path}/1.dcm' cannot be read as a DICOM file: [^\n]+$"):
        from_dicom(tmp_path)


def test_frames_of_enhanced_dicom_in_two_orientations(tmp_path):
    def group(**tags):
        item, inner = Dataset(), Dataset()
        for tag, value in tags.items():
            setattr(inner, tag, value)
        item.PlanePositionSequence = [inner]
        return item

    turns = [AXIAL, AXIAL, SAGITTAL, AXIAL]
    frames = [group(ImagePositionPatient=[0, 0, 5.0 * i], ImageOrientationPatient=t) for i, t in enumerate(turns)]
    pixels = np.stack([ramp(50 * i) for i in range(4)])
    file = dicom(tmp_path / "a.dcm", pixels, NumberOfFrames=4, PerFrameFunctionalGroupsSequence=frames)
    data, told = read(file)
    assert places(data) == [0, 5, 15] and "left out of 3 images (axial): 'a.dcm' (sagittal)" in told
