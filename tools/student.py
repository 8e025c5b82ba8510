"""`make student`: the notebooks without their solutions, and whether their exercises are still open.

    python tools/student.py notebooks/*.ipynb --out build/student
    python tools/student.py runs/student/*/*.ipynb --open

The first writes copies: cells tagged `solution` are left out, and the sentence that announces them. The second looks at
copies that were executed: every exercise must have printed `not yet`.
"""

import argparse
import sys
from pathlib import Path

import nbformat

from helpers.runs.record import write_atomic

ANNOUNCED = " The solution is folded below."


def without_solutions(book: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy of a notebook as a class gets it; execution counts run on without gaps."""
    book = nbformat.from_dict(book)
    book.cells = [cell for cell in book.cells if "solution" not in cell.metadata.get("tags", [])]
    for count, cell in enumerate((cell for cell in book.cells if cell.cell_type == "code"), start=1):
        cell.execution_count = cell.execution_count and count
    for cell in book.cells:
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace(ANNOUNCED, "")
    return book


def answers(book: nbformat.NotebookNode) -> list[str]:
    """What each exercise of an executed notebook has printed."""
    exercises = [cell for cell in book.cells if "exercise" in cell.metadata.get("tags", [])]
    return ["".join(output.get("text", "") for output in cell.outputs).strip() for cell in exercises]


def main() -> None:
    """The command line; exit status 1 if an exercise is not open."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("notebooks", nargs="+", type=Path)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--out", type=Path, help="folder for the copies")
    action.add_argument("--open", action="store_true", help="look whether exercises of executed copies are open")
    options = parser.parse_args()
    for path in options.notebooks:
        book = nbformat.read(path, as_version=4)
        if options.open:
            said = answers(book)
            if set(said) != {"not yet"}:
                sys.exit(f"{path}: its exercises say {said}; expected 'not yet' from each")
        else:
            options.out.mkdir(parents=True, exist_ok=True)
            write_atomic(options.out / path.name, (nbformat.writes(without_solutions(book)) + "\n").encode())
    print(f"{len(options.notebooks)} notebooks {'have open exercises' if options.open else f'in {options.out}'}")


if __name__ == "__main__":
    main()
