"""The tools behind `make badges`, `make refresh` and the copies that are never trained."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import torch
import yaml
from command import run

from helpers import train
from tools import untrained

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


TOOLS = sorted((ROOT / "tools").glob("*.py"))
COMMANDS = [tool for tool in TOOLS if "__main__" in tool.read_text(encoding="utf-8")]


@pytest.mark.parametrize("tool", COMMANDS, ids=lambda tool: tool.stem)
def test_a_tool_is_a_command(tool):
    command = [sys.executable, "-m", f"tools.{tool.stem}", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("usage: ") and tool.stem in done.stdout, done.stderr


@pytest.fixture
def copy(tmp_path) -> Path:
    """A repository with one notebook, as `tools/badges.py` sees it, that is published at an address of its own."""
    for name in ("README.md", "CITATION.cff", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    toml = (tmp_path / "pyproject.toml").read_text(encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text(
        re.sub(r"^\[project\.urls\]$", r'\g<0>\nrepository = "https://github.com/somebody/else"', toml, flags=re.M)
    )
    v4 = nbformat.v4
    setup = v4.new_code_cell('SLUG = "a/b"\nTAG = "v0"\nprint(SLUG)', metadata={"tags": ["setup"]})
    setup.outputs = [v4.new_output("stream", text="a/b\n")]
    title = v4.new_markdown_cell("# One\n<!-- badges --><!-- /badges -->\nafter")
    cells = [title, setup, v4.new_code_cell('TAG = "x"')]
    (tmp_path / "notebooks").mkdir()
    nbformat.write(v4.new_notebook(cells=cells), tmp_path / "notebooks" / "01_one.ipynb")
    return tmp_path


def test_badges_rewrites_every_marked_place_once(copy):
    assert run("badges", "--check", "--root", copy).returncode == 1
    assert run("badges", "--root", copy).returncode == 0
    written = {file: file.read_bytes() for file in copy.rglob("*.*") if file.is_file()}
    assert run("badges", "--root", copy).stdout.endswith("nothing rewritten\n")
    assert written == {file: file.read_bytes() for file in written}

    title, setup, other = nbformat.read(copy / "notebooks" / "01_one.ipynb", as_version=4).cells
    version = PROJECT["version"]
    assert f"/github/somebody/else/blob/v{version}/notebooks/01_one.ipynb" in title.source
    assert f"/gh/somebody/else/v{version}?labpath=notebooks%2F01_one.ipynb" in title.source
    assert any(line.startswith("[![Open in Colab](") for line in title.source.splitlines())  # or it is not rendered
    assert title.source.startswith("# One\n")
    assert title.source.endswith("\nafter")
    assert setup.source == f'SLUG = "somebody/else"\nTAG = "v{version}"\nprint(SLUG)'
    assert setup.outputs[0].text == "a/b\n"
    assert other.source == 'TAG = "x"'
    readme = (copy / "README.md").read_text(encoding="utf-8")
    assert "git clone https://github.com/somebody/else small-sample\n" in readme
    assert readme.count("mybinder.org/v2/gh/somebody/else/") == readme.count("<!-- badges ") > 0
    citation = (copy / "CITATION.cff").read_text(encoding="utf-8")
    assert '\nrepository-code: "https://github.com/somebody/else"\n' in citation


def test_without_an_address_no_badge_and_no_command_leads_anywhere(copy):
    before = {name: (copy / name).read_text(encoding="utf-8") for name in ("README.md", "CITATION.cff")}
    assert run("badges", "--root", copy).returncode == 0
    shutil.copy(ROOT / "pyproject.toml", copy)  # not published
    assert run("badges", "--check", "--root", copy).returncode == 1
    assert run("badges", "--root", copy).returncode == 0
    assert before == {name: (copy / name).read_text(encoding="utf-8") for name in before}
    title, setup, _ = nbformat.read(copy / "notebooks" / "01_one.ipynb", as_version=4).cells
    assert title.source == "# One\n<!-- badges --><!-- /badges -->\nafter"
    assert setup.source.startswith('SLUG = ""\n')
    everything = "".join(before.values()) + title.source + setup.source
    assert not re.search(r"mybinder\.org/v2|colab\.research\.google\.com/github|git clone https", everything)


@pytest.mark.parametrize(
    "address",
    ["https://gitlab.com/a/b", "git@github.com:a/b.git", "https://github.com/a", "https://github.com/a/b/tree"],
)
def test_an_address_that_is_none_is_refused_before_anything_is_written(copy, address):
    toml = copy / "pyproject.toml"
    toml.write_text(toml.read_text(encoding="utf-8").replace("https://github.com/somebody/else", address))
    before = {file: file.read_bytes() for file in copy.rglob("*.*") if file.is_file()}
    done = run("badges", "--root", copy)
    assert done.returncode == 1
    assert f"repository is {address!r}, expected https://github.com/OWNER/NAME" in done.stderr
    assert before == {file: file.read_bytes() for file in before}


def test_a_mark_that_is_not_closed_and_the_address_of_something_else_are_left_alone(copy):
    readme = copy / "README.md"
    text = readme.read_text(encoding="utf-8")
    readme.write_text(text + "\n    git clone https://github.com/other/data\n", encoding="utf-8")
    assert run("badges", "--root", copy).returncode == 0
    assert "git clone https://github.com/other/data\n" in readme.read_text(encoding="utf-8")
    readme.write_text(text.replace("<!-- /badges -->", "", 1), encoding="utf-8")
    done = run("badges", "--root", copy)
    assert done.returncode == 1 and "9 marks <!-- badges --> and 8 <!-- /badges -->" in done.stderr


def test_badges_names_the_notebook_that_has_no_marks(copy):
    path = copy / "notebooks" / "01_one.ipynb"
    path.write_text(path.read_text(encoding="utf-8").replace("<!-- badges -->", ""), encoding="utf-8")
    done = run("badges", "--root", copy)
    assert done.returncode == 1
    assert done.stderr.startswith("01_one.ipynb: its first cell has no")


CLAIM = {
    "text": "AUC",
    "value": 0.93,
    "reference": 0.93,
    "atol": 0.02,
    "at_least": None,
    "at_most": None,
    "holds": True,
}


def refresh(folder: Path, *, claim: dict, source: str = "print(1 + 1)") -> SimpleNamespace:
    """Refresh a notebook without outputs from an executed one that has `claim` in its record."""
    v4, runs, book = nbformat.v4, folder / "runs", folder / "01_one.ipynb"
    nbformat.write(v4.new_notebook(cells=[v4.new_code_cell("print(1 + 1)", id="one")]), book)
    ran = v4.new_code_cell(source, id="other", execution_count=1, metadata={"papermill": {"duration": 1.5}})
    ran.outputs = [v4.new_output("stream", text="2\n")]
    (runs / "01_one").mkdir(parents=True)
    nbformat.write(v4.new_notebook(cells=[ran]), runs / "01_one" / book.name)
    (runs / "01_one" / "metrics.json").write_text(json.dumps({"claims": [claim]}))
    return run("refresh", runs, book)


def test_refresh_takes_over_outputs_and_nothing_else(tmp_path):
    done = refresh(tmp_path, claim=CLAIM)
    assert done.returncode == 0, done.stderr
    assert "holds  0.93  reference 0.93 ± 0.02  AUC" in done.stdout
    [cell] = nbformat.read(tmp_path / "01_one.ipynb", as_version=4).cells
    assert (cell.outputs[0].text, cell.execution_count, cell.id, cell.metadata) == ("2\n", 1, "one", {})


@pytest.mark.parametrize("value", [0.99, None])
def test_refresh_prints_the_reference_that_moved_and_leaves_the_notebook(tmp_path, value):
    done = refresh(tmp_path, claim=CLAIM | {"value": value, "holds": False})
    assert done.returncode == 1
    assert f"MOVED  {value}  reference 0.93 ± 0.02  AUC" in done.stdout
    assert nbformat.read(tmp_path / "01_one.ipynb", as_version=4).cells[0].outputs == []


def test_refresh_refuses_outputs_of_other_code(tmp_path):
    done = refresh(tmp_path, claim=CLAIM, source="print(2)")
    assert done.returncode == 1
    assert "has other cells" in done.stderr
    assert nbformat.read(tmp_path / "01_one.ipynb", as_version=4).cells[0].outputs == []


def test_an_untrained_copy_keeps_its_random_weights_and_goes_through_every_step():
    """The cell is run as the kernel would: `fit` afterwards trains nothing, and the notebook's own cells stay."""
    v4 = nbformat.v4
    cells = [v4.new_markdown_cell("# One"), v4.new_code_cell("SLUG = ''", metadata={"tags": ["setup"]})]
    book = v4.new_notebook(cells=[*cells, v4.new_code_cell("from helpers.train import fit")])
    copy = untrained.untrained(book)
    assert [cell.source for cell in copy.cells if cell.source != untrained.NEVER_TRAINS] == [
        c.source for c in book.cells
    ]
    assert copy.cells[2].source == untrained.NEVER_TRAINS and len(book.cells) == 3
    x, y = torch.linspace(-1, 1, 8)[:, None], torch.arange(8) // 4
    changed = {}
    for kind in ("trained", "untrained"):
        net = torch.nn.Linear(1, 1)
        before, kept = net.weight.item(), train.fit
        try:
            exec(untrained.NEVER_TRAINS if kind == "untrained" else "", {})
            result = train.fit(net, (x, y), val=(x, y), epochs=2, lr=0.1, batch_size=4)
        finally:
            train.fit = kept
        assert len(result.train_loss) == 2
        changed[kind] = abs(net.weight.item() - before)
    assert changed["trained"] > 0.01 and changed["untrained"] == 0


def test_claims_that_hold_without_training_must_be_in_the_list(capsys):
    claims = [{"text": "a formula", "holds": True}, {"text": "a lead", "holds": True}, {"text": "more", "holds": False}]
    record = {"notebook": "05_tiny", "claims": claims}
    assert untrained.check([record], {"05_tiny": {"formula": ["a formula"], "data": ["a lead"]}}) == []
    assert "05_tiny: 2 of 3 claims hold without training (1 formula, 1 data)" in capsys.readouterr().out
    assert untrained.check([record], {"05_tiny": {"formula": ["a formula"]}}) == ["05_tiny: a lead"]
    old = untrained.check([record], {"05_tiny": {"formula": ["a formula", "gone"], "data": ["a lead"]}})
    assert old == ["05_tiny: in the list and does not hold: gone"]
    luck = {"formula": ["a formula"], "data": ["a lead"], "luck of a small run": ["more"]}
    assert untrained.check([record], {"05_tiny": luck}) == []
    whole = {"05_tiny": luck, "06_tiny": {"formula": ["x"]}}
    assert untrained.check([record], whole) == ["06_tiny: in the list and has no record"]


def test_the_command_fails_for_a_claim_that_holds_without_training(tmp_path):
    record = {"notebook": "05_tiny", "claims": [{"text": "a lead", "holds": True}]}
    (tmp_path / "metrics.json").write_text(json.dumps(record))
    (tmp_path / "list.yaml").write_text("05_tiny: {formula: []}")
    done = run("untrained", tmp_path / "metrics.json", "--check", tmp_path / "list.yaml")
    assert done.returncode == 1 and "05_tiny: a lead" in done.stderr
    (tmp_path / "list.yaml").write_text("05_tiny: {formula: [a lead]}")
    assert run("untrained", tmp_path / "metrics.json", "--check", tmp_path / "list.yaml").returncode == 0


def test_the_list_of_claims_names_chapters_and_reasons():
    listed = yaml.safe_load((ROOT / "tests" / "untrained.yaml").read_text(encoding="utf-8"))
    assert listed.keys() <= {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    reasons = {reason for chapter in listed.values() for reason in chapter}
    assert reasons <= {"formula", "images", "control", "not trained by fit", "recorded", "luck of a small run"}
    for chapter in listed.values():
        texts = [text for texts in chapter.values() for text in texts]
        assert len(texts) == len(set(texts))
