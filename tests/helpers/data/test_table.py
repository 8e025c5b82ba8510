"""Cells of a CSV: patients in several spellings, words for nothing, and labels."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.data import from_folder


def films(root: Path, text: str) -> Path:
    for i in range(4):
        Image.fromarray(np.full((8, 10), 10 * i, np.uint8)).save(root / f"{i}.png")
    (root / "table.csv").write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize("other", ["p7ü", "P 7ü", "P7u\u0308", "P7ü\u200b", "P\u00a07ü"])
def test_spellings_of_a_patient_are_one_and_told(tmp_path, other):
    films(tmp_path, f"file,patient\n0.png,P7ü\n1.png,{other}\n2.png,P8\n3.png,P7ü\n")
    with pytest.warns(UserWarning, match=r"lines 2 and 3 of 'table.csv' spell a patient in two ways .*: taken") as told:
        assert from_folder(tmp_path, csv="table.csv").patients.tolist() == [0, 0, 1, 0]
    assert not any("P7" in str(one.message) for one in told)


def test_zeros_around_a_number_are_no_other_patient(tmp_path):
    films(tmp_path, "file,patient\n0.png,01\n1.png,1\n2.png,1.0\n3.png,10\n")
    with pytest.warns(UserWarning, match=r"lines 2 and 3 of 'table.csv' \(and 1 more such\) spell a patient"):
        assert from_folder(tmp_path, csv="table.csv").patients.tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("cell", ["NA", "None", "-", "?", "unknown", "<NA>"])
def test_words_for_no_patient_are_no_patient(tmp_path, cell):
    films(tmp_path, f"file,patient\n0.png,1\n1.png,{cell}\n")
    with pytest.raises(ValueError, match="line 3 of 'table.csv' has no patient; expected one in all lines or in none"):
        from_folder(tmp_path, csv="table.csv")
    films(tmp_path, f"file,patient\n0.png,{cell}\n1.png,{cell}\n")
    assert from_folder(tmp_path, csv="table.csv").patients is None


def test_labels_of_a_table_with_gaps_are_whole_numbers(tmp_path):
    films(tmp_path, "file,patient,label\n0.png,1,0.0\n1.png,2,1.0\n2.png,3,1\n3.png,4,0.0\n")
    own = from_folder(tmp_path, csv="table.csv", classes="normal, tumour")
    assert own.labels.tolist() == [0, 1, 1, 0] and own.class_names == ("normal", "tumour")


@pytest.mark.parametrize(
    ("text", "classes", "message"),
    [
        (
            "file,patient,label\n0.png,1,99999999999999999999\n",
            "",
            "'table.csv' holds the label 99999999999999999999; ex",
        ),
        ("file,patient,label,label\n0.png,1,0,1\n", "", "'table.csv' has the columns file, patient, label, label, but"),
        ("file,patient\n0.png,1\n", "a, b", "classes names a, b, but 'table.csv' has no labels; expected them"),
    ],
)
def test_labels_that_cannot_be_are_refused(tmp_path, text, classes, message):
    with pytest.raises(ValueError) as error:
        from_folder(films(tmp_path, text), csv="table.csv", classes=classes)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("column", ["class", "Labels", "classes"])
def test_a_column_that_looks_like_the_labels_is_told(tmp_path, column):
    films(tmp_path, f"file,patient,{column}\n0.png,1,a\n1.png,2,b\n")
    with pytest.warns(UserWarning, match=f"'table.csv': the column '{column.lower()}' is not read; labels are in 'lab"):
        assert from_folder(tmp_path, csv="table.csv").labels is None
