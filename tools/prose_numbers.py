"""The numbers that the prose of a chapter states, and where its outputs print them.

A decimal in "What we see", in a recap or verdict, or in a table in Markdown must be printed, with the very same digits,
in a text output of the same section (from one `##` to the next; for recap and verdict: of the chapter). An output 0.834
does not carry 0.83 in the prose. Signs are not compared, because prose says "loses 0.09". A claim carries its bounds,
which it has checked, but not its reference, near which the value may lie anywhere.

Exempt: equations, code, citations, versions, licences; the text before the first section; the limits after a recap.
Exempt, too, are *settings*: decimals that the section's idea gives (a threshold, the width of a pixel).
"""

import re
from dataclasses import dataclass, field

import nbformat

DECIMAL = re.compile(r"(?<![\w.])\d+\.\d+(?!\.?\d)")
NUMBER = re.compile(r"(?<![\w.,])\d+(?:[.,]\d+)*(?!\w)")
EXEMPT = [
    r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|\]\([^)]*\)",  # code, equations, targets of links
    r"arXiv:? ?\d+\.\d+|(?:version|v|Python|torch|CC BY[A-Z-]*|Apache-) ?\d+(?:\.\d+)+",
]
NO_QUANTITY = [  # places in the book, years, sizes such as 64×64, marks such as (2), 1/3 and 95 %
    r"(?i:chapters?|sections?|exercises?|figures?) \d+(?:(?:, | and | to )\d+)*|\b(?:19|20)\d\d\b",
    r"\d+(?:×\d+)+|\(\d\)|\d+/\d+|\b95 %",
]
SUMMARY = re.compile(r"## (?:\d+ · )?(?:Recap|Verdict)\b")
SEEN = "**What we see"
MOST = 6


@dataclass
class Stated:
    """A decimal of the prose, and the places (cell, which of the decimals of its outputs) that print it."""

    cell: str
    number: str
    sentence: str
    places: list[tuple[int, int]]


@dataclass
class Section:
    """What stands between two headings: texts that state (cell, text), the idea, and the places of the code cells."""

    summary: bool = False
    states: list[tuple[str, str]] = field(default_factory=list)
    idea: str = ""
    code: list[int] = field(default_factory=list)


def without(patterns: list[str], text: str) -> str:
    """A text without what matches one of the patterns."""
    for pattern in patterns:
        text = re.sub(pattern, " ", text, flags=re.S)
    return text


def sections(book: nbformat.NotebookNode) -> list[Section]:
    """The sections of a notebook; the first is what stands before a heading."""
    found = [Section()]
    for place, cell in enumerate(book.cells):
        if cell.cell_type == "code":
            found[-1].code.append(place)
            continue
        for text in re.split(r"^(?=## )", cell.source, flags=re.M):
            if text.startswith("## "):
                found.append(Section(summary=bool(SUMMARY.match(text))))
            if len(found) > 1:
                _divide(found[-1], cell.id, text)
    return found


def _divide(section: Section, cell: str, text: str) -> None:
    """Add a text to what its section states, or to its idea."""
    if section.summary:
        section.states.append((cell, text.partition("**Limits.")[0]))
        return
    before, mark, seen = text.partition(SEEN)
    rows = [line for line in before.splitlines() if line.startswith("|")]
    section.states += [(cell, part) for part in ("\n".join(rows), mark + seen) if part]
    section.idea += "\n".join(line for line in before.splitlines() if line not in rows) + "\n"


def printed(cell: nbformat.NotebookNode) -> list[str]:
    """Decimals of a code cell's text outputs, in their order."""
    texts = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        html = re.sub(r"<style.*?</style>|<[^>]*>", " ", data.get("text/html", ""), flags=re.S)
        texts.append(output.get("text", "") + (html if "text/html" in data else data.get("text/plain", "")))
    text = "\n".join(texts)
    if "nbval-check-output" in cell.metadata.get("tags", []):
        text = re.sub(r"^✗ (.*: )\S+, expected ", r"\1", text, flags=re.M)
        text = re.sub(r": \S+ ± \S+$", "", text, flags=re.M)
    return DECIMAL.findall(text)


def stated(book: nbformat.NotebookNode) -> list[Stated]:
    """Every decimal that the prose states and that is no setting."""
    parts, found = sections(book), []
    chapter = Section(idea="\n".join(p.idea for p in parts), code=[k for p in parts for k in p.code])
    for part in parts:
        scope = chapter if part.summary else part
        settings = set(DECIMAL.findall(without(EXEMPT[1:], scope.idea)))
        outputs = [(place, n, text) for place in scope.code for n, text in enumerate(printed(book.cells[place]))]
        for cell, prose in part.states:
            for sentence in re.split(r"(?<=[.!?])\)?\s+|\n", without(EXEMPT, prose)):
                for number in DECIMAL.findall(sentence):
                    if number not in settings:
                        places = [(place, n) for place, n, text in outputs if text == number]
                        found.append(Stated(cell, number, " ".join(sentence.split()), places))
    return found


def crowded(book: nbformat.NotebookNode) -> dict[str, int]:
    """Cells whose "What we see" has more than `MOST` numbers, with how many."""
    seen = [(cell, text) for part in sections(book) for cell, text in part.states if text.startswith(SEEN)]
    counts = {cell: len(NUMBER.findall(without(EXEMPT + NO_QUANTITY, text))) for cell, text in seen}
    return {cell: count for cell, count in counts.items() if count > MOST}
