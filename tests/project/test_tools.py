"""The tools behind `make badges`, `make refresh` and the copies that are never trained."""

import importlib.util
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
from chapter import cells
from command import run

from helpers import train
from tools import badges, untrained

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT, TOOL = PYPROJECT["project"], PYPROJECT["tool"]
# A place from which a reader would open or fetch the book.
ELSEWHERE = re.compile(
    r"(?:https?://github\.com/|colab\.research\.google\.com/github/|mybinder\.org/v2/gh/|git@github\.com:)"
    r"([\w-]+/[\w.-]+)"
)


TOOLS = sorted((ROOT / "tools").glob("*.py"))
COMMANDS = [tool for tool in TOOLS if "__main__" in tool.read_text(encoding="utf-8")]


@pytest.mark.parametrize("tool", COMMANDS, ids=lambda tool: tool.stem)
def test_a_tool_is_a_command(tool):
    command = [sys.executable, "-m", f"tools.{tool.stem}", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("usage: ") and tool.stem in done.stdout, done.stderr


def settle(folder: Path, slug: str) -> None:
    """Write the home of a folder, or none, into its pyproject.toml alone."""
    toml = folder / "pyproject.toml"
    toml.write_text(badges.settled(toml.read_text(encoding="utf-8"), slug), encoding="utf-8", newline="\n")


@pytest.fixture
def copy(tmp_path) -> Path:
    """A repository with one notebook, as `tools/badges.py` sees it, that is published at an address of its own."""
    for name in ("README.md", "CITATION.cff", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    settle(tmp_path, "somebody/else")
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
    assert "`git clone https://github.com/somebody/else small-sample`" in readme and "make badges" not in readme
    assert readme.count("mybinder.org/v2/gh/somebody/else/") == readme.count("<!-- badges ") > 0
    citation = (copy / "CITATION.cff").read_text(encoding="utf-8")
    assert '\nrepository-code: "https://github.com/somebody/else"\n' in citation


def test_without_an_address_no_badge_and_no_command_leads_anywhere(copy):
    assert run("badges", "--root", copy, "--repo", "").returncode == 0
    before = {name: (copy / name).read_text(encoding="utf-8") for name in ("README.md", "CITATION.cff")}
    settle(copy, "somebody/else")
    assert run("badges", "--root", copy).returncode == 0
    settle(copy, "")
    assert run("badges", "--check", "--root", copy).returncode == 1
    assert run("badges", "--root", copy).returncode == 0
    assert before == {name: (copy / name).read_text(encoding="utf-8") for name in before}
    title, setup, _ = nbformat.read(copy / "notebooks" / "01_one.ipynb", as_version=4).cells
    assert title.source == "# One\n<!-- badges --><!-- /badges -->\nafter"
    assert setup.source.startswith('SLUG = ""\n')
    everything = "".join(before.values()) + title.source + setup.source
    assert not ELSEWHERE.search(everything)
    assert before["README.md"].count("`make badges REPO=owner/name`") == 1


def published(folder: Path) -> tuple[str, set[str]]:
    """The repository that pyproject.toml of a folder names, and those to which its first page and notebooks lead."""
    texts = [file.read_text(encoding="utf-8") for file in (folder / "README.md", *folder.glob("notebooks/*.ipynb"))]
    named = {match[1] for text in texts for match in ELSEWHERE.finditer(text)}
    return badges.project(folder)[0], named


@pytest.fixture
def home(copy) -> Path:
    """The first page and all notebooks of the book in a folder of git that has no public home yet."""
    shutil.rmtree(copy / "notebooks")
    shutil.copytree(ROOT / "notebooks", copy / "notebooks", ignore=shutil.ignore_patterns(".*"))
    assert run("badges", "--root", copy, "--repo", "").returncode == 0
    subprocess.run(["git", "init", "--quiet", copy], check=True)
    assert published(copy) == ("", set())
    return copy


def test_the_book_leads_to_no_other_place():
    slug, named = published(ROOT)
    assert named == ({slug} if slug else set())


def test_a_home_is_written_into_pyproject_and_everywhere_and_taken_away_again(home):
    before = {file: file.read_bytes() for file in home.rglob("*.*") if ".git" not in file.parts}
    done = run("badges", "--root", home, "--repo", "somebody/book")
    assert done.returncode == 0 and f"git tag v{PROJECT['version']}" in done.stdout
    assert published(home) == ("somebody/book", {"somebody/book"})
    assert tomllib.loads((home / "pyproject.toml").read_text(encoding="utf-8"))["tool"] == TOOL
    assert run("badges", "--root", home, "--check").returncode == 0
    assert run("badges", "--root", home).stdout.endswith("nothing rewritten\n")  # without a remote as it is
    assert run("badges", "--root", home, "--repo", "another/book").returncode == 0
    assert published(home) == ("another/book", {"another/book"})
    assert run("badges", "--root", home, "--repo", "").returncode == 0
    assert before == {file: file.read_bytes() for file in before}


@pytest.mark.parametrize(
    "url",
    [
        "git@github.com:somebody/book.git",
        "https://github.com/somebody/book",
        "https://name:word@github.com/somebody/book.git",
        "ssh://git@github.com/somebody/book.git",
    ],
)
def test_the_home_of_a_remote_is_taken_and_no_more_of_its_address(home, url):
    for name, address in (("backup", "git@github.com:somebody/backup.git"), ("origin", url)):
        subprocess.run(["git", "-C", home, "remote", "add", name, address], check=True)
    assert run("badges", "--root", home, "--check").returncode == 0  # compares with pyproject.toml alone
    assert run("badges", "--root", home).returncode == 0
    assert published(home) == ("somebody/book", {"somebody/book"})
    assert "word@" not in (home / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("url", ["git@gitlab.com:a/b.git", "https://example.org/github.com/a/b", "../bare.git"])
def test_a_remote_that_is_not_on_github_is_no_home(home, url):
    subprocess.run(["git", "-C", home, "remote", "add", "origin", url], check=True)
    assert run("badges", "--root", home).returncode == 0
    assert published(home) == ("", set())


@pytest.mark.parametrize("repo", ["book", "https://gitlab.com/a/b", "a/b/c", "a b/c"])
def test_a_home_that_is_none_is_refused_before_anything_is_written(copy, repo):
    before = {file: file.read_bytes() for file in copy.rglob("*.*") if file.is_file()}
    done = run("badges", "--root", copy, "--repo", repo)
    assert done.returncode == 1 and f"--repo is {repo!r}, expected OWNER/NAME" in done.stderr
    assert before == {file: file.read_bytes() for file in before}


@pytest.mark.parametrize("slug", ["", "somebody/book"])
def test_the_setup_cell_fetches_the_book_from_its_home_or_says_how_to_give_it_one(home, slug, monkeypatch):
    assert run("badges", "--root", home, "--repo", slug).returncode == 0
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # a notebook alone
    monkeypatch.setattr(sys, "path", [])
    version, books = PROJECT["version"], sorted(home.glob("notebooks/*.ipynb"))
    assert len(books) == len(list((ROOT / "notebooks").glob("*.ipynb")))
    for path in books:
        commands = []
        monkeypatch.setattr(subprocess, "run", lambda command, commands=commands, **options: commands.append(command))
        source = "\n".join(cells(path, "setup"))
        if slug:
            exec(source, {})
            fetch = ["git", "clone", "--quiet", "--depth", "1", "--branch", f"v{version}", f"https://github.com/{slug}"]
            assert commands[0] == [*fetch, "book"], path.name
        else:
            with pytest.raises(ModuleNotFoundError, match="`make lab`, or .* by `make badges REPO=owner/name`"):
                exec(source, {})
            assert commands == []


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
