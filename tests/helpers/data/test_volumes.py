"""The reader's own NIfTI, MetaImage and Analyze files: units, orientation, and what is refused."""

import re
import sys
import warnings
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from helpers.data.readers.volumes import from_analyze, from_metaimage, from_nifti

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
        (tmp_path / "cut.nii.gz", {}, f"'{tmp_path}/cut.nii.gz' cannot be read as a volume: "),
        (tmp_path / "text.nii", {}, f"'{tmp_path}/text.nii' cannot be read as a volume: "),
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
    with pytest.raises(ValueError, match=r"a.hdr' cannot be read as a volume"):
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
    with pytest.raises(ValueError, match=r"a.mha' cannot be read as a volume: "):
        from_metaimage(tmp_path / "a.mha")
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(
        ImportError, match=r'^MetaImage needs SimpleITK; install it with: pip install "\.\[metaimage\]"$'
    ):
        from_metaimage(tmp_path / "a.mha")


# --- what a header leaves open --------------------------------------------------------------------------------------


def told(file: Path, read=from_nifti, **options) -> tuple:
    """The set, and the one warning or ""."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        data = read(file, **options)
    assert len(found) <= 1
    return data, "".join(str(w.message) for w in found)


def forms(file: Path, sform, qform, *, zooms=None) -> Path:
    image = nibabel.Nifti1Image(anatomy(), np.eye(4))
    image.set_qform(*qform)
    image.set_sform(*sform)
    if zooms:
        image.header.set_zooms(zooms)
    nibabel.save(image, file)
    return file


@pytest.mark.parametrize(
    ("sform", "qform", "words"),
    [
        (
            (np.diag([1, 1, 2, 1]), 1),
            (np.diag([-1, -1, 2, 1]), 1),
            "sform and qform disagree by up to 10 mm: the sform",
        ),
        ((np.diag([1, 1, 2, 1]), 1), (np.diag([1, 1, 2, 1]), 1), ""),
        ((np.diag([1, 1, 2, 1]), 1), (np.diag([-1, -1, 2, 1]), 0), ""),  # a form with code 0 says nothing
        ((np.eye(4), 0), (np.eye(4), 0), "the header does not say where left is: taken as stored from right to left"),
    ],
)
def test_forms_that_disagree_or_are_missing_are_told(tmp_path, sform, qform, words):
    data, text = told(forms(tmp_path / "a.nii", sform, qform))
    assert text.startswith(f"'a.nii': {words}" if words else "") and bool(text) == bool(words)
    assert data.images[0, 0, 0, 0] == (340 if sform[1] else 40)  # the sform is used, or right to left
    assert told(tmp_path / "a.nii", plane="stored")[1] == ""


def test_sizes_and_matrix_that_disagree_are_told_and_the_matrix_is_used(tmp_path):
    file = forms(tmp_path / "a.nii", (np.diag([0.5, 0.5, 2, 1]), 1), (np.eye(4), 0), zooms=(1, 1, 1))
    data, text = told(file)
    assert text == "'a.nii': voxels are 1×1×1 mm by their sizes and 0.5×0.5×2 mm by the affine matrix, which is used"
    assert (data.spacing == 0.5).all() and (data.slice_spacing == 2).all()


def test_padding_below_air_is_told_and_left_out_of_the_range(tmp_path):
    field = np.where(anatomy() % 10 < 2, -3024, anatomy() % 10 * 100 - 900).astype(np.int16)
    data, text = told(nifti(tmp_path / "a.nii.gz", field))
    assert (
        text == f"'a.nii.gz': {(field == -3024).mean():.0%} of the voxels are -3024: padding, left out of value_range"
    )
    assert -701 <= data.value_range[0] < data.value_range[1] <= 0 and data.images.min() == -3024
    smooth = np.linspace(-4096, 4095, anatomy().size).reshape(SHAPE).round().astype(np.int16)  # a phase image
    data, text = told(nifti(tmp_path / "b.nii", smooth))
    assert not text and data.value_range[0] < -4000


@pytest.mark.parametrize("shown", [(np.nan, 5), (0, np.inf), (1e6, 2e6), (-9, -8)])
def test_a_display_range_without_a_value_in_it_is_not_used(tmp_path, shown):
    image = nibabel.Nifti1Image(anatomy(), np.eye(4))
    image.header["cal_min"], image.header["cal_max"] = shown
    nibabel.save(image, tmp_path / "a.nii")
    assert 0 <= told(tmp_path / "a.nii")[0].value_range[0] < 10


def test_a_fourth_axis_of_one_is_none(tmp_path):
    image = nibabel.Nifti1Image(anatomy()[..., None], np.eye(4))
    nibabel.save(image, tmp_path / "a.nii")
    nibabel.save(nibabel.Nifti1Image((anatomy() % 2).astype(np.uint8), np.eye(4)), tmp_path / "m.nii")
    data = from_nifti(tmp_path / "a.nii", mask=tmp_path / "m.nii")
    assert data.frames is None and (data.masks == data.images[:, 0] % 2).all()


def damaged(file: Path, at: int, value: np.ndarray) -> Path:
    raw = bytearray(nifti(file, anatomy()).read_bytes())
    raw[at : at + value.nbytes] = value.tobytes()
    file.write_bytes(bytes(raw))
    return file


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (40, np.int16([3, 0])),
        (40, np.int16([3, 30000, 30000, 30000])),
        (280, np.float32([0] * 12)),
        (280, np.float32([np.nan] * 12)),
        (123, np.uint8([56])),
        (70, np.int16([4711])),
        (108, np.float32([1e9])),
    ],
    ids=["no voxels", "too many", "flat", "NaN", "units", "type", "offset"],
)
def test_a_damaged_header_ends_in_a_sentence_with_the_file(tmp_path, at, value):
    with pytest.raises(ValueError, match=r"a\.nii' (cannot be read as a volume|holds)[^\n]+$"):
        told(damaged(tmp_path / "a.nii", at, value))


def test_metaimage_without_its_raw_file_or_half_of_it(tmp_path):
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(anatomy()), str(tmp_path / "a.mhd"))
    whole = (tmp_path / "a.raw").read_bytes() if (tmp_path / "a.raw").exists() else b""
    (tmp_path / "a.mhd").write_text(
        (tmp_path / "a.mhd").read_text().replace("CompressedData = True", "CompressedData = False")
    )
    assert whole
    (tmp_path / "a.raw").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"a\.mhd' cannot be read as a volume: [^\n]+$"):
        from_metaimage(tmp_path / "a.mhd")
    (tmp_path / "a.raw").unlink()
    with pytest.raises(ValueError, match=r"a\.mhd' cannot be read as a volume: [^\n]+$"):
        from_metaimage(tmp_path / "a.mhd")


def test_metaimage_without_orientation_is_told(tmp_path):
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(anatomy()), str(tmp_path / "a.mhd"))
    assert told(tmp_path / "a.mhd", from_metaimage)[1] == ""
    lines = [line for line in (tmp_path / "a.mhd").read_text().splitlines() if not line.startswith("TransformMatrix")]
    (tmp_path / "a.mhd").write_text("\n".join(lines) + "\n")
    data, text = told(tmp_path / "a.mhd", from_metaimage)
    assert text == "'a.mhd': the header does not say where left is: taken as stored from right to left"
    assert len(data) == 4


# --- bytes that are damaged or missing ------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".mhd"])
def test_a_flipped_bit_of_a_compressed_volume_is_refused(tmp_path, suffix):
    """Each byte of the pixels in turn; some flips decompress to voxels all the same, and only the checksum tells."""
    voxels = np.random.default_rng(0).integers(0, 900, (8, 9, 12)).astype(np.int16)
    file, read = tmp_path / f"a{suffix}", from_nifti if suffix == ".nii.gz" else from_metaimage
    if read is from_nifti:
        nifti(file, voxels)
    else:
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels), str(file), useCompression=True)
    whole = read(file).images
    bytes_of = tmp_path / "a.zraw" if suffix == ".mhd" else file
    raw = bytes_of.read_bytes()
    start = {".nii.gz": 20, ".mha": raw.find(b"LOCAL") + 6, ".mhd": 2}[suffix]
    for at in range(start, len(raw), 9):
        bytes_of.write_bytes(raw[:at] + bytes([raw[at] ^ 1 << at % 8]) + raw[at + 1 :])
        try:
            assert (read(file).images == whole).all()  # a bit that nothing depends on
        except ValueError as error:
            assert str(error).startswith(f"'{file}' cannot be read as a volume: ") and "\n" not in str(error)
    bytes_of.write_bytes(raw[:-3])
    with pytest.raises(ValueError, match=r"' cannot be read as a volume: (Compressed file ended|it is truncated: \d+)"):
        read(file)


@pytest.mark.parametrize("change", [-20, 20])
def test_metaimage_with_other_bytes_than_its_sizes_say(tmp_path, change):
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(anatomy()), str(tmp_path / "a.mha"))
    raw = (tmp_path / "a.mha").read_bytes()
    (tmp_path / "a.mha").write_bytes(raw[:change] if change < 0 else raw + b"\0" * change)
    with pytest.raises(ValueError) as error:
        from_metaimage(tmp_path / "a.mha")
    assert str(error.value).endswith(
        f"it is {'truncated' if change < 0 else 'too long'}: {240 + change} bytes of pixels; its header says 240"
    )


def test_what_nibabel_logs_is_told_and_not_printed(tmp_path, caplog):
    data, text = told(damaged(tmp_path / "a.nii", 80, np.float32([-1])))
    assert text == "'a.nii': pixdim[1,2,3] should be positive; setting to abs of pixdim values" and len(data) == 6
    with pytest.raises(ValueError, match="a.nii' cannot be read as a volume: vox offset 16 too low for single file"):
        from_nifti(damaged(tmp_path / "a.nii", 108, np.float32([16])))
    assert caplog.text == ""


def test_a_mask_without_a_voxel_is_told(tmp_path):
    mask = nifti(tmp_path / "m.nii", 0 * anatomy())
    data, text = told(nifti(tmp_path / "a.nii", anatomy()), mask=mask)
    assert text == "'a.nii': nothing is drawn in its mask 'm.nii'" and not data.masks.any()


def test_suffixes_in_upper_case_and_home(tmp_path, monkeypatch):
    nibabel.save(nibabel.AnalyzeImage(anatomy(), np.eye(4)), tmp_path / "a.hdr")
    for suffix in ("hdr", "img"):
        (tmp_path / f"a.{suffix}").rename(tmp_path / f"A.{suffix.upper()}")
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(anatomy().T), str(tmp_path / "b.mha"))
    (tmp_path / "b.mha").rename(tmp_path / "B.MHA")
    nifti(tmp_path / "c.nii.gz", anatomy()).rename(tmp_path / "C.NII.GZ")
    monkeypatch.setenv("HOME", str(tmp_path))
    for read, name in ((from_analyze, "A.HDR"), (from_analyze, "A.IMG"), (from_metaimage, "B.MHA"),
                       (from_nifti, "C.NII.GZ")):  # fmt: skip
        assert (np.sort(read(f"~/{name}").images, axis=None) == np.sort(anatomy(), axis=None)).all()


def test_analyze_says_that_it_does_not_know_the_sides(tmp_path):
    nibabel.save(nibabel.AnalyzeImage(anatomy(), np.eye(4)), tmp_path / "a.hdr")
    nibabel.save(nibabel.Nifti1Pair(anatomy(), np.eye(4)), tmp_path / "b.hdr")
    sideless = "Analyze does not say where left is: taken as stored from right to left"
    assert from_analyze(tmp_path / "a.hdr").steps == ("turned to RAS, axial slices", sideless)
    assert sideless not in from_analyze(tmp_path / "b.hdr").steps


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"CompressedDataSize = 40\n", r"it is too long: \d+ bytes of compressed pixels; its header says 40"),
        (b"", "its header does not say CompressedDataSize"),
    ],
)
def test_metaimage_that_does_not_say_how_many_compressed_bytes_there_are(tmp_path, line, words):
    file = tmp_path / "a.mha"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(anatomy()), str(file), useCompression=True)
    file.write_bytes(re.sub(rb"CompressedDataSize = \d+\n", line, file.read_bytes()))
    with pytest.raises(ValueError, match=rf"a.mha' cannot be read as a volume: {words}$"):
        from_metaimage(file)
