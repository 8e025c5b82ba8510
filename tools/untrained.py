"""Which claims hold for networks that were never trained: such a claim says nothing of training.

    python tools/untrained.py build/student/*.ipynb --out build/untrained
    python tools/untrained.py runs/untrained/*/metrics.json --check tests/untrained.yaml

The first writes copies in which `helpers.train.fit` leaves the weights as they were built. The second reads the
records that the copies left and counts the claims that hold: each must be in the list, under the reason why it has to
(a formula, what images or controls are, a probe or a rule that `fit` does not train, a recorded table).
"""

import argparse
import json
import sys
from pathlib import Path

import nbformat
import yaml

from helpers.runs.record import write_atomic

NEVER_TRAINS = '''import helpers.train

trains = helpers.train.fit


def fit(model, data, **options):
    """Goes through the motions with steps of length zero."""
    return trains(model, data, **options | {"lr": 0.0})


helpers.train.fit = fit'''


def after_setup(book: nbformat.NotebookNode, source: str) -> nbformat.NotebookNode:
    """A copy of a notebook with one more code cell, right after the set-up."""
    book = nbformat.from_dict(book)
    (setup,) = (k for k, cell in enumerate(book.cells) if "setup" in cell.metadata.get("tags", []))
    book.cells.insert(setup + 1, nbformat.v4.new_code_cell(source))
    return book


def untrained(book: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy of a notebook whose networks stay random: a cell after the set-up replaces `fit`."""
    return after_setup(book, NEVER_TRAINS)


def check(records: list[dict], reasons: dict[str, dict[str, list[str]]]) -> list[str]:
    """Print how many claims hold a chapter, and why; return the texts of those that the list does not know."""
    unknown = []
    for record in records:
        expected = {text: why for why, texts in reasons.get(record["notebook"], {}).items() for text in texts}
        held = [claim["text"] for claim in record["claims"] if claim["holds"]]
        counts = {why: sum(expected.get(text) == why for text in held) for why in dict.fromkeys(expected.values())}
        told = ", ".join(f"{count} {why}" for why, count in counts.items() if count) or "none"
        print(f"{record['notebook']}: {len(held)} of {len(record['claims'])} claims hold without training ({told})")
        unknown += [f"{record['notebook']}: {text}" for text in held if text not in expected]
        # What holds by luck may fail elsewhere; all else in the list has to hold.
        gone = [text for text, why in expected.items() if text not in held and why != "luck of a small run"]
        unknown += [f"{record['notebook']}: in the list and does not hold: {text}" for text in gone]
    missing = reasons.keys() - {record["notebook"] for record in records}
    return unknown + [f"{name}: in the list and has no record" for name in sorted(missing)]


def main() -> None:
    """The command line; exit status 1 if a claim holds that should not."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("paths", nargs="+", type=Path)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--out", type=Path, help="folder for the copies")
    action.add_argument("--check", type=Path, help="the list of claims that may hold")
    options = parser.parse_args()
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        for path in options.paths:
            copy = untrained(nbformat.read(path, as_version=4))
            write_atomic(options.out / path.name, (nbformat.writes(copy) + "\n").encode())
        return
    records = [json.loads(path.read_text(encoding="utf-8")) for path in options.paths]
    if unknown := check(records, yaml.safe_load(options.check.read_text(encoding="utf-8"))):
        sys.exit("these claims hold for random weights and say nothing, or the list is old:\n" + "\n".join(unknown))


if __name__ == "__main__":
    main()
