"""`make drift`: run the lessons under other arithmetic, and list the claims and the stated decimals that change.

    python -m tools.drift notebooks/*.ipynb [--torch 2.8.0] [--out runs/drift]

Another processor, another number of threads, another torch add up the same numbers in another order; a training
amplifies that. A decimal of the prose (tools/prose_numbers.py) holds if one of the places that print it prints the same
there. A notebook that was run under an arithmetic, with the same code and the same helpers, is not run again.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import nbformat

from helpers.runs.record import write_atomic
from tools.prose_numbers import printed, stated
from tools.untrained import after_setup

ROOT = Path(__file__).resolve().parents[1]
ONE_THREAD = """import torch

torch.set_num_threads(1)
torch.set_num_threads = lambda number: None  # `start_run` asks for two"""
BOUNDS = {"at_least": "≥", "at_most": "≤"}


@dataclass
class Arithmetic:
    """A way to compute: variables of the environment, a cell after the set-up, an interpreter."""

    environment: dict[str, str] = field(default_factory=dict)
    preamble: str = "# as committed"
    python: str = sys.executable


ARITHMETICS = {
    "one thread": Arithmetic(preamble=ONE_THREAD),
    # A processor without AVX-512: torch's own loops, its convolutions, NumPy's linear algebra.
    "avx2": Arithmetic({"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "OPENBLAS_CORETYPE": "Haswell"}),
    # torch's own loops without vector instructions. torch.randn draws other numbers under each of the three.
    "default": Arithmetic({"ATEN_CPU_CAPABILITY": "default"}),
}


def content(book: nbformat.NotebookNode) -> str:
    """sha256 of a notebook's code and of the files of `helpers`: what a run depends on."""
    sources = [cell.source for cell in book.cells if cell.cell_type == "code"]
    files = sorted(path.read_text(encoding="utf-8") for path in (ROOT / "helpers").rglob("*.py"))
    return hashlib.sha256("\0".join(sources + files).encode()).hexdigest()


def run(path: Path, arithmetic: Arithmetic, out: Path) -> str:
    """Run a copy of a notebook, unless that was done; what went wrong, or nothing."""
    copy = after_setup(nbformat.read(path, as_version=4), arithmetic.preamble)
    mark, expected = out / path.stem / "content", content(copy)
    if mark.exists() and mark.read_text() == expected:
        return ""
    mark.unlink(missing_ok=True)
    mark.parent.mkdir(parents=True, exist_ok=True)
    source = out / "copies" / path.name
    source.parent.mkdir(exist_ok=True)
    write_atomic(source, nbformat.writes(copy).encode())
    command = [arithmetic.python, "-m", "helpers.runs", str(source), "--out", str(out)]
    environment = os.environ | {"CLAIMS": "report"} | arithmetic.environment
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["the runner failed"])[-1]
    write_atomic(mark, expected.encode())
    return ""


def claims(record: dict) -> dict[tuple[str, str, str], str]:
    """Of the claims in a record, ("claim", text, what was expected), those that do not hold, with what came out."""
    failed = {}
    for claim in record["claims"]:
        bounds = [f"{sign} {claim[key]}" for key, sign in BOUNDS.items() if claim[key] is not None]
        expected = " and ".join(bounds) or f"{claim['reference']} ± {claim['atol']}"
        if not claim["holds"]:
            failed["claim", claim["text"], expected] = (
                "not finite" if claim["value"] is None else f"{claim['value']:.4g}"
            )
    return failed


def decimals(book: nbformat.NotebookNode, ran: nbformat.NotebookNode) -> dict[tuple[str, str, str], str]:
    """Of the decimals that a notebook states, (cell, sentence, decimal), those that do not hold in a run of it.

    Each with what the run prints where the notebook prints it; `gone` where it prints fewer decimals.
    """
    there = {cell.id: printed(cell) for cell in ran.cells if cell.cell_type == "code"}
    moved = {}
    for number in stated(book):
        values = [there.get(book.cells[place].id, [])[n : n + 1] or ["gone"] for place, n in number.places]
        values = list(dict.fromkeys(value for [value] in values))
        if values and number.number not in values:
            moved[number.cell, number.sentence, number.number] = " / ".join(values)
    return moved


def table(rows: dict[tuple, dict[str, str]], names: list[str]) -> str:
    """Markdown: chapter, cell, sentence or claim, as committed, and a column an arithmetic (empty: holds)."""
    lines = [["chapter", "cell", "sentence or claim", "committed", *names], ["---"] * (4 + len(names))]
    lines += [[*row, *(values.get(name, "") for name in names)] for row, values in rows.items()]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def main(arguments=None) -> int:
    """The command line; 1 if a claim or a stated decimal does not hold somewhere."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--torch", help="as well with this version, of the environment build/torch-VERSION")
    parser.add_argument("--only", nargs="+", default=list(ARITHMETICS), choices=ARITHMETICS, help="of the arithmetics")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "drift")
    options = parser.parse_args(arguments)
    chosen = {name: ARITHMETICS[name] for name in options.only}
    if options.torch:
        python = ROOT / "build" / f"torch-{options.torch}" / "bin" / "python"
        chosen[f"torch {options.torch}"] = Arithmetic(python=str(python))
    rows: dict[tuple, dict[str, str]] = {}
    for path in options.notebooks:
        book = nbformat.read(path, as_version=4)
        for name, arithmetic in chosen.items():
            out = options.out.resolve() / name.replace(" ", "-")
            if wrong := run(path, arithmetic, out):
                rows.setdefault((path.stem, "", "the notebook runs", ""), {})[name] = wrong
                continue
            record = json.loads((out / path.stem / "metrics.json").read_text(encoding="utf-8"))
            moved = claims(record) | decimals(book, nbformat.read(out / path.stem / path.name, as_version=4))
            for row, value in moved.items():
                rows.setdefault((path.stem, *row), {})[name] = value
            print(f"{path.stem}: {name}, {len(moved)} do not hold", file=sys.stderr, flush=True)
    print(table(rows, list(chosen)) if rows else "all claims and all stated decimals hold")
    return int(bool(rows))


if __name__ == "__main__":
    sys.exit(main())
