"""Decimals in the prose of the chapters are printed by their outputs, and "What we see" has few numbers.

`prose_numbers.yaml` lists the cells of older chapters that break a rule. The list may only get shorter.
"""

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from helpers.runs import repo_root
from tools.prose_numbers import crowded, printed, stated

NOTEBOOKS = sorted((repo_root() / "notebooks").glob("*.ipynb"))
LISTED = yaml.safe_load((repo_root() / "tests" / "project" / "prose_numbers.yaml").read_text(encoding="utf-8"))


def complaints(book, *, unprinted: dict[str, list[str]], crowd: dict[str, int]) -> list[str]:
    """What breaks a rule and is not listed, and what is listed and breaks none."""
    known = {(cell, number) for cell, numbers in unprinted.items() for number in numbers}
    found = {(number.cell, number.number): number.sentence for number in stated(book) if not number.places}
    said = [f"{cell}: no output of its section prints {n}: {found[cell, n]}" for cell, n in found.keys() - known]
    said += [f"{cell}: take {n} off the list, an output prints it" for cell, n in known - found.keys()]
    counts = crowded(book)
    for cell in sorted(counts.keys() | crowd.keys()):
        if (count := counts.get(cell, 0)) > crowd.get(cell, 0):
            said.append(f'{cell}: {count} numbers in one "What we see", expected at most 6: make a table of them')
        elif count < crowd[cell]:
            said.append(f"{cell}: {count or 'at most 6'} numbers, the list has {crowd[cell]}: take it down")
    return sorted(said)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_prose_states_what_the_outputs_print(path):
    listed = LISTED.get(path.stem, {})
    book = nbformat.read(path, as_version=4)
    assert complaints(book, unprinted=listed.get("unprinted", {}), crowd=listed.get("crowded", {})) == []


def test_the_list_names_chapters_and_rules():
    assert LISTED.keys() <= {path.stem for path in NOTEBOOKS}
    assert {rule for rules in LISTED.values() for rule in rules} <= {"unprinted", "crowded"}


def code(text: str, *tags: str):
    return new_code_cell("", metadata={"tags": list(tags)}, outputs=[new_output("stream", text=text)])


def book(seen: str, *, recap: str = "", idea: str = "A method.", output="Dice 0.83\n", tags=()):
    """A notebook of two sections and a recap; the second section's only number is 0.61."""
    texts = ["# Title\n\n| minutes 0.2 |", f"## 1 · One\n\n{idea}", f"**What we see.** {seen}\n\n## 2 · Two\n\nNow."]
    cells = [new_markdown_cell(text, id=f"text-{k}") for k, text in enumerate(texts)]
    recap = new_markdown_cell(f"## Recap\n\n* {recap}\n\n**Limits.** A rate of 0.003.", id="recap")
    return new_notebook(cells=[*cells[:2], code(output, *tags), cells[2], code("later: 0.61"), recap])


def missing(notebook) -> list[str]:
    return [number.number for number in stated(notebook) if not number.places]


def test_a_good_notebook_has_nothing_to_complain_of():
    good = book("It gains (Dice 0.83).", recap="The first had 0.83, the second 0.61.")
    assert complaints(good, unprinted={}, crowd={}) == []
    assert [(number.cell, number.number, number.places) for number in stated(good)] == [
        ("text-2", "0.83", [(2, 0)]),
        ("recap", "0.83", [(2, 0)]),
        ("recap", "0.61", [(4, 0)]),
    ]


@pytest.mark.parametrize(
    "broken",
    [
        book("It gains 0.83.", output="Dice 0.834\n"),  # other digits
        book("It gains 0.83.", output="Dice 0.8\n"),
        book("It gains 0.83.", output="v1.0.83, x0.83 and 10.83\n"),  # inside of something else
        book("It gains 0.83.", output=""),
        book("Nothing.", idea="| method | gain |\n|---|---|\n| ours | 0.83 |", output=""),
        book("Nothing.", recap="It gained 0.83.", output=""),
        book("It gains 0.83 more.", output="✓ gain: 0.83 ± 0.05\n", tags=["nbval-check-output"]),
    ],
)
def test_a_decimal_that_is_not_printed_with_the_same_digits_is_seen(broken):
    assert missing(broken) == ["0.83"]


def test_the_output_of_another_section_does_not_count():
    assert missing(book("It gains 0.61.")) == ["0.61"]


@pytest.mark.parametrize(
    "harmless",
    [
        book("As $p = 0.3$, `lr=0.4`, $$\nq = 0.5\n$$ and [here](https://a.org/1.5)."),
        book("See arXiv 1908.00473, torch 2.6, CC BY-NC-SA 4.0 and Apache-2.0."),
        book("A row is 12.5 µm, so that is small.", idea="Its rows are 12.5 µm high."),
        book("More than 0.05.", output="✓ gain: ≥ 0.05\n", tags=["nbval-check-output"]),
        book("It loses −0.83."),
    ],
)
def test_equations_code_citations_settings_and_bounds_are_no_results(harmless):
    assert missing(harmless) == []


def test_tables_in_html_and_plain_results_are_printed_text():
    html = "<style>td {top: 9.9em}</style><td>0.<b>5</b> 0.7</td>"
    table = new_output("display_data", data={"text/html": html, "text/plain": "0.7"})  # one table, two forms
    plain = new_output("execute_result", data={"text/plain": "0.25"})
    assert printed(new_code_cell("0.1", outputs=[table, plain])) == ["0.7", "0.25"]


def test_a_claim_that_fails_prints_its_bounds_and_not_the_value_that_came_out():
    cell = code(
        "✓ a: ≥ 0.5 and ≤ 1.5\n✗ b: 0.12, expected ≥ 0.25\n✗ c: 0.3, expected 0.4 ± 0.1\n", "nbval-check-output"
    )
    assert printed(cell) == ["0.5", "1.5", "0.25"]


def test_seven_numbers_are_a_crowd_and_places_in_the_book_are_none():
    six = "From 1 to 2, 3 and 4, 5.5 and 1,000 (chapter 07, sections 3 and 4; 2019; 64×64; 95 %; (2); 1/3)."
    assert crowded(book(six)) == {}
    assert crowded(book(six + " And 7.")) == {"text-2": 7}


def test_the_list_excuses_what_it_names_and_nothing_else_and_only_gets_shorter():
    crowd = "One of 1, 2, 3, 4, 5, 6, 7, 8."
    new = complaints(book(f"It gains 0.99. {crowd}"), unprinted={}, crowd={"text-2": 8})
    assert new == [
        'text-2: 9 numbers in one "What we see", expected at most 6: make a table of them',
        "text-2: no output of its section prints 0.99: **What we see.** It gains 0.99.",
    ]
    assert complaints(book(f"It gains 0.99. {crowd}"), unprinted={"text-2": ["0.99"]}, crowd={"text-2": 9}) == []
    old = complaints(book(f"It gains. {crowd}"), unprinted={"text-2": ["0.99"]}, crowd={"text-2": 9})
    assert old == [
        "text-2: 8 numbers, the list has 9: take it down",
        "text-2: take 0.99 off the list, an output prints it",
    ]
    assert complaints(book("It gains."), unprinted={}, crowd={"text-2": 9}) == [
        "text-2: at most 6 numbers, the list has 9: take it down"
    ]
