"""A CSV that says which files are images, and what is known of them."""

from __future__ import annotations

import csv
import re
import warnings
from pathlib import Path

import numpy as np

from helpers.data.readers.files import listed
from helpers.data.readers.layout import composed, plain
from helpers.data.readers.pictures import numbered

MISSING = {"nan", "null", "n/a", "#n/a", "na", "<na>"}
UNKNOWN = {"none", "unknown", "-", "--", "?"}  # patients; a class may have such a name
COLUMNS = ("file", "patient", "label", "scanner")
LABELS = {"labels", "class", "classes"}  # what people call the column label
LARGEST = 2**31 - 1  # of the labels


def from_csv(
    table: Path, base: Path, images: list[Path], classes: tuple[str, ...]
) -> tuple[list[Path], dict[str, object]]:
    """The images a CSV names, in its order, and what it says of them; paths are those in `base`, or beside the CSV.

    UTF-8 or UTF-16; commas, semicolons or tabs; blanks around a cell and the case of column names do not matter.
    Patients that differ only in case, blanks, how Unicode composes letters or zeros (P1, p 1; 01, 1, 1.0) are one.

    Warns, with lines, of patients that were joined so, and of a column that looks like label, but is not read. Raises
    ValueError, with file and line, for other encodings, missing columns, a line with too many cells, a patient, label
    or scanner that only some lines have, and a file that is not there or is named twice.
    """
    lines, cells = _cells(table)
    paths = {f.relative_to(root).as_posix(): f for root in (table.parent, base) for f in _inside(images, root)}
    known = {plain(path): f for path, f in paths.items()} | {composed(path): f for path, f in paths.items()}
    names = [name.replace("\\", "/").removeprefix("./") for name in cells["file"]]
    files = [known.get(composed(name)) or known.get(plain(name)) for name in names]
    if None in files:
        name = cells["file"][files.index(None)]
        raise ValueError(f"'{table.name}' names '{name}', which is not in '{base.name}'")
    first = {}
    for line, file in zip(lines, files, strict=True):
        if file in first:
            raise ValueError(f"'{table.name}' names '{file.name}' in lines {first[file]} and {line}; expected it once")
        first[file] = line
    filled = {name: column for name, column in cells.items() if any(column)}
    if classes and "label" not in filled:
        raise ValueError(f"classes names {', '.join(classes)}, but '{table.name}' has no labels; expected them")
    labels, class_names = _classes(table, filled["label"], classes) if "label" in filled else (None, ())
    return files, dict(
        labels=labels,
        patients=numbered(_joined(table, lines, filled["patient"])) if "patient" in filled else None,
        scanners=np.array(filled["scanner"]) if "scanner" in filled else None,
        class_names=class_names,
    )


def _inside(files: list[Path], folder: Path) -> list[Path]:
    return [file for file in files if file.is_relative_to(folder)]


def _cells(table: Path) -> tuple[list[int], dict[str, list[str]]]:
    """Line numbers, and the cells of each known column."""
    if not table.is_file():
        raise ValueError(f"there is no CSV '{table.name}'; expected a file with the columns file and patient")
    text = re.sub(r"\Asep=.\r?\n", "", _text(table))  # a line of Excel
    head = text.splitlines()[0] if text.strip() else ""
    comma = max(",;\t", key=head.count)
    rows = csv.reader(text.splitlines(), delimiter=comma, skipinitialspace=True, strict=True)
    try:
        found = [(rows.line_num, [_cell(cell) for cell in row]) for row in rows]
    except csv.Error as error:
        raise ValueError(f"line {rows.line_num} of '{table.name}' cannot be read as CSV: {error}") from error
    columns = [name.casefold() for name in found[0][1]] if found else []
    _check(table, columns)
    filled = [(line, row) for line, row in found[1:] if any(row)]
    for line, row in filled:
        if len(row) > len(columns):
            raise ValueError(
                f"line {line} of '{table.name}' has {len(row)} cells; expected {len(columns)}, as in its head"
            )
    padded = [row + [""] * (len(columns) - len(row)) for _, row in filled]
    lines = [line for line, _ in filled]
    cells = {name: [row[columns.index(name)] for row in padded] for name in COLUMNS if name in columns}
    cells["patient"] = ["" if cell.lower() in UNKNOWN else cell for cell in cells["patient"]]
    for name, column in cells.items():
        if (name == "file" or any(column)) and not all(column):
            line = lines[column.index("")]
            raise ValueError(f"line {line} of '{table.name}' has no {name}; expected one in all lines or in none")
    if not lines:
        raise ValueError(f"'{table.name}' names no file; expected one a line")
    return lines, cells


def _check(table: Path, columns: list[str]) -> None:
    """Raises ValueError for a column that is missing or there twice; warns of one that may be the labels."""
    for column in COLUMNS:
        if columns.count(column) > 1 or (column in COLUMNS[:2] and column not in columns):
            raise ValueError(
                f"'{table.name}' has the columns {', '.join(columns) or '(none)'}, but "
                + (f"'{column}' twice" if column in columns else f"not '{column}'")
                + "; where patients are unknown, add the column and leave it empty"
                * (column == "patient" and column not in columns)
            )
    if "label" not in columns and (others := [column for column in columns if column in LABELS]):
        warnings.warn(f"'{table.name}': the column {listed(others)} is not read; labels are in 'label'", stacklevel=6)


def _joined(table: Path, lines: list[int], patients: list[str]) -> list[str]:
    """The patients, each as it is spelled first."""
    first, twice = {}, []
    for line, patient in zip(lines, patients, strict=True):
        before, known = first.setdefault(_form(patient), (line, patient))
        twice += [(before, line)] * (known != patient)
    if twice:
        more = f" (and {len(twice) - 1} more such)" * (len(twice) > 1)
        warnings.warn(
            f"lines {twice[0][0]} and {twice[0][1]} of '{table.name}'{more} spell a patient in two ways (upper case, "
            "blanks, accents or zeros): taken as one",
            stacklevel=5,
        )
    return [first[_form(patient)][1] for patient in patients]


def _form(patient: str) -> str:
    text = "".join(letter for letter in plain(patient) if letter.isprintable() and letter != " ")  # no-break spaces
    return re.sub(r"^0+(?=\d)|\.0+$", "", text) if re.fullmatch(r"\d+(\.0+)?", text) else text


def _cell(text: str) -> str:
    return "" if text.strip().lower() in MISSING else text.strip()


def _text(table: Path) -> str:
    """The text of a file in UTF-8 or, with its mark, in UTF-16."""
    stored = table.read_bytes()
    encoding = "utf-16" if stored[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = stored.decode(encoding)
    except UnicodeDecodeError as error:
        line = stored[: error.start].count(b"\n") + 1
        raise ValueError(f"line {line} of '{table.name}' is not UTF-8; expected a file saved as CSV UTF-8") from error
    if "\0" in text:
        raise ValueError(f"'{table.name}' holds zero bytes; expected a text file saved as CSV UTF-8")
    return text


def _classes(table: Path, column: list[str], classes: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels and class names of a column of integers, or of names (in the order of `classes`, or of the alphabet)."""
    if all(re.fullmatch(r"\d+(\.0*)?", cell) for cell in column):  # 1.0 where a table had gaps
        numbers = [int(cell.partition(".")[0]) for cell in column]
        if max(numbers) > LARGEST:
            raise ValueError(f"'{table.name}' holds the label {max(numbers)}; expected numbers of classes, or names")
        return np.array(numbers), classes
    names = classes or tuple(sorted(set(column)))
    if unknown := sorted(set(column) - set(names)):
        raise ValueError(f"'{table.name}' holds the label '{unknown[0]}'; expected one of {', '.join(names)}")
    if len({plain(name) for name in names}) < len(names):
        raise ValueError(f"'{table.name}' has labels that differ in case only ({', '.join(names)}); expected one form")
    return np.array([names.index(cell) for cell in column]), names
