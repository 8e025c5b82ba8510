"""What is refused, in one sentence, before anything is read or made."""

import nibabel
import numpy as np
import pytest
from dicom_files import stack
from PIL import Image

from helpers.data import load


@pytest.fixture
def folders(tmp_path):
    """A folder of each kind."""
    for kind in ("pictures", "volumes"):
        (tmp_path / kind).mkdir()
    for i in range(2):
        Image.fromarray(np.full((8, 8), i, np.uint8)).save(tmp_path / "pictures" / f"{i}.png")
        voxels = np.random.default_rng(i).integers(0, 99, (6, 5, 4)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "volumes" / f"{i}.nii")
    stack(tmp_path / "series")
    return tmp_path


@pytest.mark.parametrize(
    ("folder", "options", "message"),
    [
        ("volumes", dict(csv="a.csv"), "csv is 'a.csv', but '.*' holds no pictures; expected none"),
        ("volumes", dict(values={1: 1}), "values is {1: 1}, but '.*' holds no pictures; expected none"),
        ("series", dict(colour=True), "colour is True, but 'series' holds no pictures; expected none"),
        ("series", dict(classes="a, b"), "classes is 'a, b', but 'series' holds no pictures; expected none"),
        ("series", dict(mask_names=("a", "b")), "but 'series' holds no pictures or volumes; expected none"),
        ("series", dict(plane="axial"), "plane is 'axial', but 'series' holds no volumes; expected none"),
        ("pictures", dict(series=1), "series is 1, but 'pictures' holds no DICOM files; expected none"),
        ("pictures", dict(nonsense=1), "nonsense is 1, but 'pictures' takes no such option; expected of these: size, "),
        ("pictures/0.png", {}, "'0.png' is one picture; expected the folder it is in"),
    ],
)
def test_an_option_of_another_kind_of_folder_is_refused(folders, folder, options, message):
    with pytest.raises(ValueError, match=message):
        load("ct", source="folder", data_dir=folders / folder, **options)


@pytest.mark.parametrize("source", ["phantom", "sample"])
def test_an_option_that_no_generator_takes_is_refused(source):
    with pytest.raises(ValueError, match="classes is 'a', but 'xray' takes no such option; expected of these: images"):
        load("xray", source=source, classes="a")


@pytest.mark.parametrize("source", ["phantom", "sample", "folder"])
@pytest.mark.parametrize("value", [0, -1, 3.5, "64", True])
@pytest.mark.parametrize("name", ["images", "size"])
def test_a_number_that_is_none_is_refused(folders, source, value, name):
    where = dict(data_dir=folders / "pictures") if source == "folder" else {}
    with pytest.raises(ValueError, match=f"^{name} is {value!r}; expected a whole number, 1 or more$"):
        load("ct", source=source, **where, **{name: value})


@pytest.mark.parametrize("value", [-1, 1.0, "1", True])
def test_a_structure_that_is_no_number_is_refused(folders, value):
    with pytest.raises(ValueError, match=f"^structure is {value!r}; expected a whole number, 0 or more$"):
        load("ct", source="folder", data_dir=folders / "volumes", structure=value)


def test_the_home_folder_is_found(folders, monkeypatch):
    monkeypatch.setenv("HOME", str(folders))
    assert len(load("ct", source="folder", data_dir="~/series")) == 4
