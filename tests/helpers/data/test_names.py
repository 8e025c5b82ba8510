"""Patients and classes by the names of folders and files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.data import from_folder


def write(file: Path, value: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 10), value, np.uint8)).save(file)


@pytest.mark.parametrize(
    "name", ["inpatient2024/patient_{}.png", "outpatient_3_patient_{}.png", "patient9/patient{}.png"]
)
def test_the_last_whole_word_on_a_path_says_the_patient(tmp_path, name):
    for i in range(3):
        write(tmp_path / name.format(i), i)
    assert from_folder(tmp_path).patients.tolist() == [0, 1, 2]


@pytest.mark.filterwarnings("error")
def test_a_word_that_ends_in_patient_is_none(tmp_path):
    for i in range(2):
        write(tmp_path / f"inpatient{i}.png", i)
    assert from_folder(tmp_path).patients is None


def test_one_patient_by_all_names_is_told(tmp_path):
    for i in range(3):
        write(tmp_path / f"patient_2024-05-0{i}.png", i)
    with pytest.warns(UserWarning, match="names of all 3 files of '.*' say one and the same patient: a split goes"):
        assert from_folder(tmp_path).patients.tolist() == [0, 0, 0]


@pytest.mark.parametrize("classes", ["a, b,", " a ,b", ("a ", "b"), ["", "a", "b"]])
def test_blanks_and_commas_around_classes_do_not_matter(tmp_path, classes):
    for name in ("a", "b"):
        write(tmp_path / name / "1.png", 9)
    assert from_folder(tmp_path, classes=classes).class_names == ("a", "b")


@pytest.mark.parametrize("classes", ["a, b, a", ("A", "a", "b")])
def test_a_class_that_is_named_twice_is_refused(tmp_path, classes):
    write(tmp_path / "a" / "1.png", 9)
    with pytest.raises(ValueError, match=r"classes names 'a' twice \(.*\); expected it once"):
        from_folder(tmp_path, classes=classes)


@pytest.mark.parametrize("csv", [None, "list.csv"])
def test_a_class_without_images_is_told(tmp_path, csv):
    for name in ("a", "b"):
        write(tmp_path / name / "1.png", 9)
    (tmp_path / "list.csv").write_text("file,patient,label\na/1.png,1,a\nb/1.png,2,b\n")
    with pytest.warns(UserWarning, match="no image of '.*' is of the class 'c', which classes names"):
        assert from_folder(tmp_path, classes="b, c, a", csv=csv).labels.tolist() == [2, 0]


def test_pictures_beside_a_folder_of_images_are_told(tmp_path):
    for name in ("images/1.png", "masks/1.png", "1.png", "more/2.png"):
        write(tmp_path / name, 9)
    with pytest.warns(UserWarning, match="left out: '1.png', 'more/2.png', which lie beside the folder 'images'"):
        assert len(from_folder(tmp_path)) == 1


def test_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "scans" / "1.png", 9)
    assert len(from_folder("~/scans")) == 1
    with pytest.raises(ValueError, match="there is no folder '~nobody-here/scans'; expected one with pictures"):
        from_folder("~nobody-here/scans")
