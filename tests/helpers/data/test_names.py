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
