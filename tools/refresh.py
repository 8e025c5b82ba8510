"""Second half of `make refresh`: print how far each claim is from its reference, and take over the new outputs.

    python tools/refresh.py runs/refresh notebooks/01_explanation.ipynb …

A notebook whose claims do not all hold is left as it is: set the printed references in its claim cells, then refresh
again, so that the committed text, references and outputs belong together.
"""

import argparse
import json
import sys
from pathlib import Path

import nbformat

from helpers.runs.record import write_atomic


def show(claims: list[dict]) -> bool:
    """Print one line per claim, value beside reference or bounds; True if all hold."""
    for claim in claims:
        expected = f"reference {claim['reference']} ± {claim['atol']}"
        if claim["reference"] is None:
            expected = f"at least {claim['at_least']}, at most {claim['at_most']}"
        value = claim["value"] if claim["value"] is None else f"{claim['value']:.6g}"  # None: it was not finite
        print(f"  {'holds' if claim['holds'] else 'MOVED'}  {value}  {expected}  {claim['text']}")
    return all(claim["holds"] for claim in claims)


def with_outputs(committed: str, executed: str) -> str:
    """The committed notebook, with the outputs and execution counts of the executed one; all else stays."""
    book, ran = (nbformat.reads(text, as_version=4) for text in (committed, executed))
    if [cell.source for cell in book.cells] != [cell.source for cell in ran.cells]:
        sys.exit("the executed notebook has other cells than the committed one; run `make refresh` again")
    for cell, done in zip(book.cells, ran.cells, strict=True):
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = done.outputs, done.execution_count
    return nbformat.writes(book) + "\n"


def main() -> None:
    """The command line; exit status 1 if a claim moved."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", type=Path, help="where the executed notebooks and their records are")
    parser.add_argument("notebooks", nargs="+", type=Path)
    options, moved = parser.parse_args(), []
    for notebook in options.notebooks:
        print(notebook)
        record = json.loads((options.runs / notebook.stem / "metrics.json").read_text(encoding="utf-8"))
        if show(record["claims"]):
            executed = (options.runs / notebook.stem / notebook.name).read_text(encoding="utf-8")
            write_atomic(notebook, with_outputs(notebook.read_text(encoding="utf-8"), executed).encode())
        else:
            moved.append(str(notebook))
    if moved:
        sys.exit(f"left as they were: {', '.join(moved)}. Set the references that moved, then refresh again.")


if __name__ == "__main__":
    main()
