"""The reader's own DICOM, NIfTI, MetaImage and Analyze files: order, units, orientation, and what is refused."""

import sys
import warnings
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from helpers.data.readers.dicom import from_dicom
from helpers.data.readers.volumes import from_analyze, from_metaimage, from_nifti

SERIES = generate_uid()

# --- DICOM ----------------------------------------------------------------------------------------------------------


def dicom(file: Path, pixels: np.ndarray | None, *, uid=CTImageStorage, **tags) -> Path:
    """A small DICOM file; tags replace or add to those of a CT slice, None leaves them out."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = uid
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = generate_uid()
    header.PatientID, header.PatientName = "MRN-4711", "Nobody^At^All"
    header.Modality, header.SeriesInstanceUID, header.InstanceNumber = "CT", SERIES, 1
    header.PixelSpacing, header.PhotometricInterpretation = [0.5, 0.75], "MONOCHROME2"
    if pixels is not None:
        header.SamplesPerPixel = 3 if pixels.shape[-1] == 3 else 1
        header.Rows, header.Columns = pixels.shape[-3:-1] if pixels.shape[-1] == 3 else pixels.shape[-2:]
        header.BitsAllocated = header.BitsStored = 8 * pixels.itemsize
        header.HighBit, header.PixelRepresentation = header.BitsStored - 1, int(pixels.dtype.kind == "i")
        header.PixelData = pixels.tobytes()
        if header.SamplesPerPixel == 3:
            header.PlanarConfiguration, header.PhotometricInterpretation = 0, "RGB"
    for tag, value in tags.items():
        setattr(header, tag, value) if value is not None else delattr(header, tag)
    file.parent.mkdir(parents=True, exist_ok=True)
    header.save_as(file, enforce_file_format=True)
    return file


def ramp(start: int = 0, dtype=np.uint16) -> np.ndarray:
    return (start + np.arange(12).reshape(3, 4)).astype(dtype)


def stack(folder: Path, order=(2, 0, 3, 1), **tags) -> Path:
    """Four oblique CT slices 2 mm apart; the names of the files say nothing of their order."""
    row, column = np.array([1, 0, 0]), np.array([0, 0.6, 0.8])
    for name, i in enumerate(order):
        position = (10 * row + 2 * i * np.cross(row, column)).tolist()
        place = dict(ImagePositionPatient=position, ImageOrientationPatient=[*row.tolist(), *column.tolist()])
        rescale = dict(RescaleSlope=2, RescaleIntercept=-1024, WindowCenter=[40, 300], WindowWidth=[400, 1500])
        dicom(folder / f"{name}.dcm", ramp(100 * i), **(place | rescale | dict(InstanceNumber=9 - i) | tags))
    return folder


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
        header.save_as(file.with_name("later" + file.name))
    cine = from_dicom(tmp_path / "a")
    assert cine.slices.tolist() == [0, 0, 1, 1, 2, 2, 3, 3] and cine.frames.tolist() == [0, 1] * 4
    with pytest.warns(UserWarning, match=r"slices of 'b' lie 2 to 4 mm apart; is one missing\?"):
        from_dicom(stack(tmp_path / "b", order=(0, 1, 3)))


def test_identifiers_are_not_kept(tmp_path):
    stack(tmp_path)
    header = pydicom.dcmread(tmp_path / "0.dcm")
    header.PatientID = "ABC-1"
    header.save_as(tmp_path / "0.dcm")
    data = from_dicom(tmp_path)
    assert data.patients.tolist() == [1, 1, 0, 1]
    assert not any(word in repr(data) for word in ("4711", "ABC", "Nobody", SERIES))
    header.PatientID = ""
    header.save_as(tmp_path / "0.dcm")
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
        f"'{tmp_path.name}' holds 2 series; choose one as series=: 0 (CT, 1 files), 1 (CT, 4 files)"
    )
    assert len(from_dicom(tmp_path, series=0)) == 1 and len(from_dicom(tmp_path, series=1)) == 4
    with pytest.raises(ValueError, match=r"series is 2; expected one of 0 \(CT, 1 files\), 1"):
        from_dicom(tmp_path, series=2)


def test_what_is_no_dicom_image_is_named(tmp_path):
    plan = dicom(tmp_path / "plan.dcm", None, Modality="RTPLAN")
    cut = dicom(tmp_path / "cut.dcm", ramp(), PixelData=b"\0\0\0\0")
    (tmp_path / "note.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    for path, message in (
        (plan, r"^'plan.dcm' holds no pixels \(its modality is RTPLAN\); expected an image$"),
        (cut, r"^the pixels of 'cut.dcm' cannot be decoded: [^\n]+$"),
        (tmp_path, r"^'note.txt' is no DICOM file; expected a DICOM file or a folder of them$"),
        (tmp_path / "empty", r"^'empty' holds no files; expected DICOM files$"),
    ):
        with pytest.raises(ValueError, match=message):
            from_dicom(path)
    dicom(tmp_path / "b" / "1.dcm", ramp())
    dicom(tmp_path / "b" / "2.dcm", ramp()[:2].copy())
    with pytest.raises(
        ValueError, match=r"series in 'b' holds images of \(1, 2, 4\) and \(1, 3, 4\); expected one shape"
    ):
        from_dicom(tmp_path / "b")


# --- volumes --------------------------------------------------------------------------------------------------------

SHAPE = (4, 5, 6)  # right, front, up
ZOOMS = (1.0, 2.0, 3.0)


def anatomy() -> np.ndarray:
    """RAS voxels that say where they are: 100 · right + 10 · front + up."""
    right, front, up = np.indices(SHAPE)
    return (100 * right + 10 * front + up).astype(np.int16)


def nifti(file: Path, voxels: np.ndarray, codes: str = "RAS", zooms=ZOOMS, kind=nibabel.Nifti1Image) -> Path:
    """RAS voxels written with axes of other names, as `codes` says."""
    affine = np.diag([*zooms, 1.0])
    image = kind(voxels, affine)
    target = nibabel.orientations.axcodes2ornt(codes)
    nibabel.save(image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), target)), file)
    return file


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SAL"])
def test_every_orientation_is_read_upright(tmp_path, codes):
    file = nifti(tmp_path / "a.nii.gz", anatomy(), codes)
    for plane, corner, spacing, gap in (
        ("axial", [340, 40, 300], (2, 1), 3),  # top left: right and front; top right: left and front; bottom left
        ("coronal", [305, 5, 300], (3, 1), 2),  # right and up
        ("sagittal", [45, 5, 40], (3, 2), 1),  # front and up
    ):
        data = from_nifti(file, plane=plane)
        first = data.images[0, 0]
        assert [first[0, 0], first[0, -1], first[-1, 0]] == corner and data.images.dtype == np.int16
        assert np.allclose(data.spacing, spacing) and np.allclose(data.slice_spacing, gap)
        assert data.slices.tolist() == list(range(len(data))) and data.patients.tolist() == [0] * len(data)
    step = {"axial": 1, "coronal": 10, "sagittal": 100}
    for plane, size in step.items():
        images = from_nifti(file, plane=plane).images
        assert (np.diff(images, axis=0) == size).all()  # from foot to head, back to front, left to right


def test_stored_slices_are_not_turned(tmp_path):
    data = from_nifti(nifti(tmp_path / "a.nii", anatomy(), "LPS"), plane="stored")
    assert data.images[0, 0].shape == (5, 4) and data.images[0, 0, 0, 0] == 340  # the first voxel of the file
    assert data.steps == ("slices as stored",) and np.allclose(data.spacing, (2, 1))


def test_masks_turn_with_their_volume(tmp_path):
    objects = (anatomy() % 7 * 500).astype(np.int32)
    drawn = np.where(anatomy() % 3 == 0, 1, 255).astype(np.uint8)
    files = [
        nifti(tmp_path / f"{i}.nii.gz", v, c)
        for i, (v, c) in enumerate(
            ((anatomy(), "RAS"), ((anatomy() % 2).astype(np.uint8), "LPS"), (objects, "PIR"), (drawn, "RAS"))
        )
    ]
    data = from_nifti(
        files[0], mask=files[1], instances=files[2], scribbles=files[3], mask_names=("even", "odd"), plane="coronal"
    )
    grid = data.images[:, 0].astype(int)
    assert (data.masks == grid % 2).all() and (data.instances == grid % 7 * 500).all() and data.instances.max() == 3000
    assert (data.scribbles == np.where(grid % 3 == 0, 1, 255)).all()


def test_slope_frames_units_and_display_range(tmp_path):
    moments = np.stack([anatomy(), anatomy() + 1], axis=3)
    image = nibabel.Nifti1Image(moments, np.diag([0.5, 0.5, 0.5, 1]))
    image.header.set_slope_inter(0.5, -3)
    image.header.set_xyzt_units("micron", "sec")
    image.header["cal_min"], image.header["cal_max"] = 5, 90
    nibabel.save(image, tmp_path / "a.nii")
    data = from_nifti(tmp_path / "a.nii")
    assert data.images.dtype == np.float32 and data.images.shape == (12, 1, 5, 4)
    assert np.allclose(data.images[0, 0, 0, 0], 0.5 * 340 - 3) and np.allclose(data.images[6:] - data.images[:6], 0.5)
    assert data.frames.tolist() == [0] * 6 + [1] * 6 and data.slices.tolist() == [*range(6), *range(6)]
    assert np.allclose(data.spacing, 0.0005) and data.value_range == (5, 90)


def test_numbers_that_fit_no_type_of_images(tmp_path):
    for values, dtype in (((0, 300), np.int16), ((0, 40000), np.uint16), ((-1, 70000), np.float32)):
        voxels = np.resize(np.array(values, np.int32), SHAPE)
        data = from_nifti(nifti(tmp_path / "a.nii", voxels))
        assert data.images.dtype == dtype and (np.unique(data.images) == values).all()


def test_one_slice_has_no_gap(tmp_path):
    nibabel.save(nibabel.Nifti1Image(anatomy()[:, :, 0], np.diag([1, 2, 3, 1])), tmp_path / "a.nii")
    data = from_nifti(tmp_path / "a.nii")
    assert data.images.shape == (1, 1, 5, 4) and data.slice_spacing is None and np.allclose(data.spacing, (2, 1))


def refused(tmp_path: Path) -> list:
    whole = nifti(tmp_path / "whole.nii.gz", anatomy())
    holes = anatomy().astype(np.float32)
    holes[0, 0, :2] = np.nan, np.inf
    (tmp_path / "cut.nii.gz").write_bytes(whole.read_bytes()[:150])
    (tmp_path / "text.nii").write_text("hello")
    masks = dict(
        mask5=(anatomy() % 2 * 5).astype(np.uint8),
        half=np.full(SHAPE, 0.5, np.float32),
        small=anatomy()[:3],
        minus=-anatomy(),
    )
    masks = {name: nifti(tmp_path / f"{name}.nii", voxels) for name, voxels in masks.items()}
    masks["far"] = nifti(tmp_path / "far.nii", anatomy() * 0, zooms=(1, 1, 1))
    names = dict(mask_names=("background", "lesion"))
    return [
        (nifti(tmp_path / "nan.nii", holes), {}, "'nan.nii' holds 2 NaN or infinite values; expected finite numbers"),
        (tmp_path / "cut.nii.gz", {}, "'cut.nii.gz' cannot be read as a volume: "),
        (tmp_path / "text.nii", {}, "'text.nii' cannot be read as a volume: "),
        (tmp_path / "none.nii", {}, "there is no file 'none.nii'"),
        (whole, dict(plane="top"), "plane is 'top'; expected one of sagittal, coronal, axial or stored"),
        (whole, dict(mask=masks["mask5"], **names), "mask 'mask5.nii' holds 5; expected only 0, 1"),
        (whole, dict(scribbles=masks["mask5"], **names), "mask 'mask5.nii' holds 5; expected only 0, 1, 255"),
        (whole, dict(mask=masks["half"]), "mask 'half.nii' holds 0.5; expected integers from 0"),
        (whole, dict(instances=masks["minus"]), "mask 'minus.nii' holds -1; expected integers from 0"),
        (
            whole,
            dict(mask=masks["small"]),
            "mask 'small.nii' has shape (3, 5, 6); expected that of the image, (4, 5, 6)",
        ),
        (
            whole,
            dict(mask=masks["far"]),
            "mask 'far.nii' lies elsewhere in the body than the image; expected the same affine",
        ),
        (whole, dict(mask=tmp_path / "none.nii"), "there is no file 'none.nii'"),
    ]


@pytest.mark.parametrize("case", range(12))
def test_a_volume_that_does_not_fit_is_named(tmp_path, case):
    file, options, message = refused(tmp_path)[case]
    with pytest.raises(ValueError) as error:
        from_nifti(file, **options)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_analyze(tmp_path):
    nibabel.save(nibabel.AnalyzeImage(anatomy(), np.diag([-1, 2, 3, 1])), tmp_path / "a.img")
    for suffix in (".hdr", ".img"):
        data = from_analyze(tmp_path / f"a{suffix}")
        assert data.images[0, 0, 0, :].tolist() == [40, 140, 240, 340]  # stored from right to left
        assert np.allclose(data.spacing, (2, 1)) and np.allclose(data.slice_spacing, 3)
    with pytest.raises(ValueError, match=r"'a.nii' is no Analyze file; expected one that ends in .hdr or .img"):
        from_analyze(tmp_path / "a.nii")
    (tmp_path / "a.img").unlink()
    with pytest.raises(ValueError, match=r"'a.hdr' cannot be read as a volume"):
        from_analyze(tmp_path / "a.hdr")


@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
def test_metaimage_is_read_as_nifti_is(tmp_path, suffix):
    image = SimpleITK.ReadImage(str(nifti(tmp_path / "a.nii", anatomy(), "PIR")))
    SimpleITK.WriteImage(image, str(tmp_path / f"a{suffix}"))
    for plane in ("axial", "sagittal"):
        ours, other = from_metaimage(tmp_path / f"a{suffix}", plane=plane), from_nifti(tmp_path / "a.nii", plane=plane)
        assert (ours.images == other.images).all() and np.allclose(ours.spacing, other.spacing)
    assert np.allclose(ours.slice_spacing, other.slice_spacing)


def test_metaimage_that_does_not_fit(tmp_path, monkeypatch):
    (tmp_path / "a.mha").write_text("hello")
    with pytest.raises(ValueError, match=r"^'a.mha' cannot be read as a volume: "):
        from_metaimage(tmp_path / "a.mha")
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(
        ImportError, match=r'^MetaImage needs SimpleITK; install it with: pip install "\.\[metaimage\]"$'
    ):
        from_metaimage(tmp_path / "a.mha")
