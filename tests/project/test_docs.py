"""The teaching guide covers every section of every chapter, and its paths lead to sections that exist."""

import re

import pytest
from chapter import cells, prose

from helpers.runs import repo_root

GUIDE = (repo_root() / "docs" / "teaching.md").read_text(encoding="utf-8")
CHAPTERS = sorted((repo_root() / "notebooks").glob("*.ipynb"))


def numbers(text: str) -> set[int]:
    """The numbers in "1, 2", "3 to 5" and "4, 6 to 8"."""
    spans = re.findall(r"(\d+)(?: to (\d+))?", text)
    return {number for first, last in spans for number in range(int(first), int(last or first) + 1)}


def sections(path) -> set[int]:
    return {int(number) for number in re.findall(r"^## (\d+) ·", prose(path), re.M)}


def part(path) -> str:
    """What the guide says of a chapter."""
    return GUIDE.partition(f"## {path.stem[:2]} · ")[2].partition("\n## ")[0]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_section_has_its_minutes_and_every_exercise_its_wrong_answers(path):
    rows = re.findall(r"^\| ([\d, to]+) \| (\d+) \|", part(path), re.M)
    told = [number for text, _ in rows for number in numbers(text)]
    assert sorted(told) == sorted(sections(path)) and all(5 <= int(minutes) <= 60 for _, minutes in rows)
    wrong = part(path).partition("*Common wrong answers.*")[2]
    exercises = len(cells(path, "exercise"))
    assert exercises and all(re.search(rf"\b{number}: ", wrong) for number in range(1, exercises + 1))


def test_paths_lead_to_sections_that_exist():
    paths = GUIDE.partition("## Paths")[2].partition("\n## ")[0]
    named = [(chapter, text) for chapter, text in re.findall(r"\b(0\d) \((?:sections )?([\d, to]+)\)", paths)]
    assert len(named) >= 6
    for chapter, text in named:
        (path,) = (path for path in CHAPTERS if path.stem.startswith(chapter))
        assert numbers(text) <= sections(path)
