"""What the header of a DICOM file says: values that are none, bits, units, and what a series has one of."""

import traceback
import warnings

import numpy as np
import pydicom
import pytest
from dicom_files import dicom, ramp, stack
from pydicom.dataset import Dataset

from helpers.data.readers.dicom import from_dicom


def changed(file, keyword, raw):
    """The same file with other bytes as the value of an element, as no writer would let them be."""
    header = pydicom.dcmread(file)
    tag = pydicom.tag.Tag(keyword)
    vr = pydicom.datadict.dictionary_VR(tag)
    header[tag] = pydicom.dataelem.RawDataElement(tag, vr, len(raw), raw, 0, False, True)
    header.save_as(file)


@pytest.mark.parametrize("keyword", ["InstanceNumber", "AcquisitionNumber", "RescaleSlope", "StudyInstanceUID"])
def test_no_value_of_a_header_reaches_the_screen(tmp_path, keyword, caplog, capfd):
    """Names in the wrong elements, as a damaged file or a careless hand leaves them; pydicom would print them."""
    changed(dicom(tmp_path / "a.dcm", ramp()), keyword, b"DOE^JANE")
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        try:
            from_dicom(tmp_path)
            said = ""
        except ValueError as error:
            said = "".join(traceback.format_exception(error))
    told = [str(w.message) for w in found]
    if keyword == "StudyInstanceUID":
        assert told == ["'a.dcm': values are not as the standard wants them; look whether they are read right"]
    else:
        assert said.endswith(f"a.dcm' cannot be read as a DICOM file: {keyword} is no number\n") and not told
    assert "DOE" not in said + "".join(told) + caplog.text + "".join(capfd.readouterr())


def test_bits_elsewhere_than_the_lowest_are_refused(tmp_path):
    file = dicom(tmp_path / "a.dcm", ramp() * 16, BitsStored=12, HighBit=15)
    with pytest.raises(
        ValueError, match="'a.dcm' cannot be decoded: the highest of 12 bits stored is number 15; expected"
    ):
        from_dicom(file)


@pytest.mark.parametrize("overlay", [False, True])
def test_bits_above_those_stored_are_told_unless_an_overlay_is_there(tmp_path, overlay):
    file = dicom(tmp_path / "a.dcm", ramp() | 0x8000, Modality="MR", BitsStored=12, HighBit=11)
    if overlay:
        header = pydicom.dcmread(file)
        header.add_new(0x60000100, "US", 16)
        header.save_as(file)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        assert (from_dicom(file).images == ramp()).all()
    told = ["'a.dcm': bits that the header does not count are set, and not read"] * (not overlay)
    assert [str(w.message) for w in found] == told
    negative = dicom(tmp_path / "b.dcm", -ramp(dtype=np.int16), BitsStored=12, HighBit=11)
    assert (from_dicom(negative).images == -ramp().astype(int)).all()  # a sign is no bit beyond


def test_hounsfield_units_beyond_16_bits_are_not_cut(tmp_path):
    for intercept, dtype, top in ((-1024, np.uint16, 64511), (-32768, np.int16, 32767), (5000, np.float32, 70535)):
        file = dicom(tmp_path / "a.dcm", np.full((3, 4), 65535, np.uint16), RescaleSlope=1, RescaleIntercept=intercept)
        data = from_dicom(file)
        assert data.images.dtype == dtype and (data.images == top).all()


def test_monochrome1_of_a_table_is_inverted_within_its_bits(tmp_path):
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [12, 0, 16], list(range(40000, 40012))
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    tags = dict(PhotometricInterpretation="MONOCHROME1", Modality="DX", BitsStored=12, HighBit=11)
    file = dicom(tmp_path / "a.dcm", ramp(), ModalityLUTSequence=[table], **tags)
    assert (from_dicom(file).images == 65535 - 40000 - ramp().astype(int)).all()


def test_pixels_beyond_the_frames_of_the_header_are_no_channels(tmp_path):
    file = dicom(tmp_path / "a.dcm", ramp(), PixelData=ramp().tobytes() * 2)
    with pytest.warns(UserWarning, match="^'a.dcm': values are not as the standard wants them"):
        assert from_dicom(file).images.shape == (1, 1, 3, 4)


def test_a_number_that_only_one_file_lacks_is_missed(tmp_path):
    for i in range(3):
        dicom(tmp_path / f"{i}.dcm", ramp(i), InstanceNumber=None if i == 1 else i + 1)
    with pytest.raises(ValueError, match="^'1.dcm' of the series in '.*': no instance number; expected it in all"):
        from_dicom(tmp_path)


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        (dict(PatientID="ABC-1"), "2 patients: 1 files, '0.dcm'; 3 files, '1.dcm', '2.dcm', '3.dcm'"),
        (dict(StudyInstanceUID="1.2.99"), "2 studies: 1 files, '0.dcm'; 3 files, '1.dcm', '2.dcm', '3.dcm'"),
        (dict(PixelSpacing=[0.5, 0.8]), "2 pixel spacings: 0.5×0.8 mm: 1 files, '0.dcm'; 0.5×0.75 mm: 3 files, "),
    ],
)
def test_a_series_has_one_patient_study_and_spacing(tmp_path, tags, words):
    stack(tmp_path, StudyInstanceUID="1.2.11")
    header = pydicom.dcmread(tmp_path / "0.dcm")
    for tag, value in tags.items():
        setattr(header, tag, value)
    header.save_as(tmp_path / "0.dcm")
    with pytest.raises(ValueError) as error:
        from_dicom(tmp_path)
    assert str(error.value).startswith(f"the series in '{tmp_path.name}' has {words}")
    assert not any(word in str(error.value) for word in ("4711", "ABC", "1.2."))


def test_dicom_in_a_folder_for_masks_is_no_image(tmp_path):
    stack(tmp_path)
    stack(tmp_path / "Masks")
    with pytest.raises(
        ValueError, match="^'Masks/0.dcm', .* and 1 more: masks cannot be DICOM; .* or masks as PNG, TIFF or NIfTI$"
    ):
        from_dicom(tmp_path)
