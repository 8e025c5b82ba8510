"""Records are verified by trying: each case changes a small made-up table and asks what `tools/verify.py` sees."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_notebook import RECORD

from helpers.runs import repo_root
from helpers.runs.record import read_ledger, write_ledger

TABLE = '''"""A made-up table."""
import time

import torch
from helpers import tiny
from helpers.plots import paint

ROWS = ("train",)
CLASS_WEIGHT = 3.0


def train(run, *, data, data_dir):
    """One row."""
    size = run.pick(smoke=8, teach=80, full=800)
    model = torch.nn.Linear(4, 1)
    torch.nn.init.ones_(model.weight)
    x = (torch.arange(size * 4.0) % 32).view(size, 4) / 10
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(2):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            model(x)[:, 0], (x[:, 0] > 1).float(), pos_weight=torch.tensor(CLASS_WEIGHT)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    paint(tiny.refined(x.numpy() / 4))
    return {"metrics": {"size": size, "its seconds": time.perf_counter()}, "data": None}
'''
TINY = '''"""What the made-up table uses."""
import numpy as np
from helpers.segment.crf import dense_crf

BAR = 0.5


def refined(values):
    probs = np.stack([values, 1 - values]) / 2 + 0.25
    return dense_crf(probs, np.tile(np.uint8(values * 255)[..., None], 3), iterations=1)[0] > BAR
'''
PAINT = "\n\ndef paint(image):\n    colour = 'red'\n"


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A copy of the package with a table of one record, as its first commit."""
    root = tmp_path_factory.mktemp("repository")
    for part in ("helpers", "tools"):
        shutil.copytree(repo_root() / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("experiments", "results", "notebooks"):
        (root / part).mkdir()
    shutil.copy(repo_root() / "experiments" / "run.ipynb", root / "experiments")
    (root / "experiments" / "01_made.py").write_text(TABLE)
    (root / "helpers" / "tiny.py").write_text(TINY)
    plots = root / "helpers" / "plots.py"
    plots.write_text(plots.read_text() + PAINT)
    (root / ".gitignore").write_text("build/\n__pycache__/\nresults/\n")
    git(root, "init", "--quiet")
    commit(root)
    code = run(
        root, "-c", "from helpers.runs.code import code_hash; print(code_hash('01_made', 'train'))"
    ).stdout.strip()
    params = {"profile": "full", "seed": 3, "data": "none", "data_dir": "", "table": "01_made", "row": "train"}
    record = RECORD | {"notebook": "01_made", "row": "train", "params": params, "code": code, "checkpoint": None}
    entry = {"commit": git(root, "rev-parse", "HEAD"), "verified": ""}
    content = {"notebook": "01_made", "code": {code: entry}, "runs": {"train-full-none-seed3": record}}
    write_ledger(root / "results" / "01_made.json", content)
    return root


def git(root: Path, *arguments: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    return subprocess.run(
        ("git", "-C", root, *who, *arguments), capture_output=True, text=True, check=True
    ).stdout.strip()


def commit(root: Path) -> None:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--allow-empty", "--message", "x")


def run(root: Path, *arguments) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.run([sys.executable, *arguments], cwd=root, env=environment, capture_output=True, text=True)


@pytest.fixture
def change(repository):
    """Changes files of the repository, runs `verify`, and puts all back: (file, old, new)… → what it said."""
    ledger = repository / "results" / "01_made.json"
    before, head = ledger.read_text(), git(repository, "rev-parse", "HEAD")

    def try_it(*edits, options=()) -> str:
        for file, old, new in edits:
            path = repository / file
            assert path.read_text().count(old) == 1
            path.write_text(path.read_text().replace(old, new))
        commit(repository)
        return run(repository, "tools/verify.py", *options).stdout

    yield try_it
    git(repository, "reset", "--hard", "--quiet", head)
    ledger.write_text(before)


ROW, USED = "experiments/01_made.py", "helpers/tiny.py"


@pytest.mark.parametrize(
    ("edit", "sees"),
    [
        ((ROW, "weight_decay=0.1", "weight_decay=0.11"), "other weights after step 1 of 2"),
        ((ROW, "CLASS_WEIGHT = 3.0", "CLASS_WEIGHT = 3.1"), "other weights after step 2 of 2"),  # Adam: first the sign
        ((ROW, "full=800", "full=900"), "other settings of profile full: 800, now 900"),
        ((USED, "BAR = 0.5", "BAR = 0.55"), "refined gave 1 results that it does not give now"),
    ],
)
def test_what_computes_something_else_is_seen(repository, change, edit, sees):
    before = (repository / "results" / "01_made.json").read_text()
    said = change(edit)
    assert f"01_made  train none: {sees} (" in said
    assert said.endswith("01_made: 0 fresh, 0 verified, 1 stale\n")
    assert (repository / "results" / "01_made.json").read_text() == before


@pytest.mark.parametrize(
    ("change", "sees"),
    [
        ({}, ""),
        ({"metrics": {"dice": 0.75, "seconds": 2}}, "dice was 0.5, now 0.75"),
        ({"metrics": {"dice": 0.5, "seconds": 3}}, ""),
        ({"metrics": {"seconds": 2}}, "dice was 0.5, now None"),
        ({"data": {"hash": "b"}}, "other data: {'hash': 'a'}, now {'hash': 'b'}"),
        ({"weights": ["1", "2", "3"]}, "2 steps of training, now 3"),
        ({"picks": ["1", "1"]}, "other settings of profile full: 2, now 1"),
        ({"outputs": {"crf": ["x", "y"], "new": ["z"]}}, ""),  # more than before
        ({"outputs": {"crf": ["y"]}}, "crf gave 1 results that it does not give now"),
        ({"outputs": {}}, ""),  # a function that is gone: what it gave went on to other results
    ],
)
def test_comparison_of_two_notes(change, sees):
    note = {"metrics": {"dice": 0.5, "seconds": 2}, "data": {"hash": "a"}, "weights": ["1", "2"], "picks": ["1", "2"]}
    note["outputs"] = {"crf": ["x"]}
    path = repo_root() / "tools" / "verify.py"
    spec = importlib.util.spec_from_file_location("verify", path)
    verify = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(verify)
    assert verify.compare(note, note | change) == sees


def test_another_way_to_compute_the_same_is_verified(repository, change):
    base = git(repository, "rev-parse", "HEAD")
    said = change((USED, "[0] > BAR", "[0] > limit()"), (USED, "BAR = 0.5", "def limit():\n    return 0.5"))
    assert f"01_made  train none: as at {base[:7]} (" in said
    assert said.endswith("01_made: 0 fresh, 1 verified, 0 stale\n")
    ledger = read_ledger(repository / "results" / "01_made.json")
    [record] = ledger["runs"].values()
    assert ledger["code"] == {record["code"]: {"commit": git(repository, "rev-parse", "HEAD"), "verified": base}}
    assert run(repository, "tools/verify.py").stdout == "01_made: 1 fresh, 0 verified, 0 stale\n"


def test_what_cannot_matter_needs_no_trial(repository, change):
    (repository / "helpers" / "tiny.py").rename(repository / "helpers" / "small.py")
    order = 'ROWS = ("train",)\nCLASS_WEIGHT = 3.0\n'
    said = change(
        (ROW, "from helpers import tiny\n", "from helpers import small as tiny\n"),
        ("helpers/small.py", "def refined(values):", "def refined(values: np.ndarray) -> np.ndarray:  # why"),
        (ROW, '"""One row."""', '"""The one row."""'),
        (ROW, order, 'CLASS_WEIGHT = 3.0\nROWS = ("train",)\n'),
        ("helpers/plots.py", "colour = 'red'", "colour = 'blue'"),
    )
    assert said == "01_made: 1 fresh, 0 verified, 0 stale\n"


def test_what_differs_only_in_the_profile_of_the_record_is_seen_by_a_full_run(repository, change):
    before = (repository / "results" / "01_made.json").read_text()
    said = change((ROW, "lr=0.1", "lr=0.1 if size < 500 else 0.2"), options=("--full",))
    assert "other weights after step 1 of 2" in said and said.endswith("01_made: 0 fresh, 0 verified, 1 stale\n")
    assert (repository / "results" / "01_made.json").read_text() == before


def test_only_code_that_is_in_a_commit_is_verified(repository, change):
    (repository / USED).write_text(TINY.replace("BAR = 0.5", "BAR = 0.6"))
    done = run(repository, "tools/verify.py")
    assert (done.returncode, done.stdout) == (2, "")
    assert "have changes that are in no commit" in done.stderr
    done = run(repository, "tools/verify.py", "02_none")
    assert done.returncode == 2 and "no table '02_none'; the tables are 01_made" in done.stderr
    git(repository, "checkout", "--quiet", USED)


def test_a_row_that_cannot_run_stays_stale(repository, change):
    said = change((ROW, "    size = run", "    raise ValueError('no such luck')\n    size = run"))
    assert "01_made  train none: not tried: ValueError: no such luck (" in said
    assert said.endswith("1 stale\n")
    assert json.loads((repository / "results" / "01_made.json").read_text())["runs"]
