"""What counts as the code of a record: each case changes one file of a small repository and asks for the hash again."""

import nbformat
import pytest

from helpers.runs import code, repo_root
from helpers.runs.code import code_hash

USED = '''"""Used."""
import functools
from math import floor as down_to
from .data import x
from .deep import down
from .data.phantoms.xray import z
from .plots import paint
import helpers.whole as whole

LIMIT = 3


@functools.cache
def use(a: int = 0):
    """What it does."""
    from helpers.late import l
    if a > 7:
        raise ValueError(f"a is {a}")
    paint(a)
    return x + down.y + z + LIMIT + Thing().method() + l + vars(whole) + down_to(2.5)


class Thing:
    size: float
    def method(self):
        return 1


# about other
def other():
    return down.unused()
'''
FILES = {
    "helpers/__init__.py": "",
    "helpers/runs/run.py": "def _prepare_torch():\n    return 1\n\n\ndef records():\n    return 1\n",
    "helpers/plots.py": "def paint(a):\n    return 1\n",
    "helpers/used.py": USED,
    "helpers/whole.py": "a = 1\n",
    "helpers/late.py": "l = 1\n",
    "helpers/data/__init__.py": "from helpers.data.splits import x\n",
    "helpers/data/splits.py": "x = 1\n",
    "helpers/data/phantoms/xray.py": "z = 1\n",
    "helpers/deep/__init__.py": "",
    "helpers/deep/down.py": "y = 1\n\n\ndef unused():\n    return 2\n",
}


@pytest.fixture
def repository(tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "notebooks").mkdir()
    sources = ("%matplotlib inline\nfrom helpers import used", "used.use()")
    cells = [*map(nbformat.v4.new_code_cell, sources), nbformat.v4.new_markdown_cell()]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "notebooks" / "05_tiny.ipynb")
    monkeypatch.setattr(code, "repo_root", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "old", "new", "changes"),
    [
        ("used.py", "+ z +", "- z +", True),
        ("used.py", "@functools.cache", "@functools.lru_cache", True),
        ("used.py", "LIMIT = 3", "LIMIT = 4", True),
        ("used.py", "return 1", "return 2", True),  # of a method of a class that is used
        ("used.py", "LIMIT = 3", "LIMIT = 3\nprint(LIMIT)", True),  # acts on import
        ("used.py", "LIMIT = 3", "LIMIT = 3\nfunctools.x = 1", True),
        ("used.py", "LIMIT = 3", "LIMIT = 3\nOTHER = 1", False),
        ("used.py", "down.unused()", "2", False),  # nothing that is used calls it
        ("used.py", "# about other", "# more about other", False),
        ("used.py", '"""Used."""', '"""Used here."""', False),
        ("whole.py", "a = 1", "b = 1", True),
        ("late.py", "l = 1", "l = 2", True),
        ("deep/down.py", "y = 1", "y = 2", True),
        ("deep/down.py", "return 2", "return 3", False),
        ("data/splits.py", "x = 1", "x = 2", True),  # through the package that hands it on
        ("data/phantoms/xray.py", "z = 1", "z = 2", False),  # what it makes has a hash of its own in the record
        ("runs/run.py", "_prepare_torch():\n    return 1", "_prepare_torch():\n    return 2", True),
        ("plots.py", "return 1", "return 2", False),  # it only shows
        ("used.py", "paint(a)", "pass", True),
        ("used.py", '"""What it does."""', '"""What it does, and how."""', False),
        ("used.py", "a: int = 0", "a=0", False),
        ("used.py", "def use(a: int = 0):", "def use(a: int = 0) -> int:", False),
        ("used.py", "a: int = 0", "a=1", True),
        ("used.py", "a > 7", "a > 8", True),
        ("used.py", 'f"a is {a}"', '"a is too large"', False),
        ("used.py", "ValueError", "TypeError", True),
        ("used.py", "    return x + down", "    # why\n    return (x) + down", False),
        ("used.py", "size: float", "size: int", False),
        ("used.py", "size: float", "width: float", True),
        ("used.py", "from math import floor", "from math import ceil", True),  # the same name, another meaning
        ("runs/run.py", "records():\n    return 1", "records():\n    return 2", False),
    ],
)
def test_hash_changes_with_code_that_is_used(repository, file, old, new, changes):
    before, path = code_hash("05_tiny"), repository / "helpers" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert (code_hash("05_tiny") != before) == changes


def test_code_of_a_row_is_what_its_experiment_leads_to(repository):
    experiments, notebook = repository / "experiments" / "05_tiny.py", repository / "notebooks" / "05_tiny.ipynb"
    experiments.parent.mkdir()
    text = "from helpers import used\nSTEPS = 3\ndef one(run):\n    return used.use(STEPS)\n"
    text += "def two(run):\n    return 2\n"
    experiments.write_text(text)
    before = {row: code_hash("05_tiny", row) for row in ("one", "two", "")}
    assert len(set(before.values())) == 3

    def changed() -> set[str]:
        return {row for row, code in before.items() if code_hash("05_tiny", row) != code}

    experiments.write_text(text.replace("STEPS = 3", "STEPS = 4"))
    assert changed() == {"one"}
    experiments.write_text(text.replace("return 2", "return 3"))
    assert changed() == {"two"}
    experiments.write_text(text.replace("def one(run):", "def one(run: object):  # why"))
    assert changed() == set()
    used = repository / "helpers" / "used.py"
    used.write_text(used.read_text().replace("LIMIT = 3", "LIMIT = 4"))
    assert changed() == {"one", ""}, "the notebook uses it, too"
    notebook.unlink()
    assert changed() == {"one", ""}


def test_a_renamed_module_changes_nothing(repository):
    before = code_hash("05_tiny")
    (repository / "helpers" / "late.py").rename(repository / "helpers" / "afterwards.py")
    used = repository / "helpers" / "used.py"
    used.write_text(used.read_text().replace("helpers.late", "helpers.afterwards"))
    assert code_hash("05_tiny") == before


def test_reordered_definitions_change_nothing_but_reordered_cells_do(repository):
    before, used = code_hash("05_tiny"), repository / "helpers" / "used.py"
    head, thing, rest = used.read_text().partition("class Thing:")
    top, use, function = head.partition("@functools.cache")
    body, other, last = (thing + rest).partition("# about other")
    used.write_text(top + body + use + function + other + last)
    assert code_hash("05_tiny") == before
    file = repository / "notebooks" / "05_tiny.ipynb"
    book = nbformat.read(file, as_version=4)
    book.cells.insert(1, nbformat.v4.new_code_cell("a = 1"))
    nbformat.write(book, file)
    first = code_hash("05_tiny")
    book.cells[1:3] = book.cells[2:0:-1]
    nbformat.write(book, file)
    assert len({before, first, code_hash("05_tiny")}) == 3


def test_a_new_module_with_the_name_of_a_function_changes_nothing(repository):
    before = code_hash("05_tiny")
    (repository / "helpers" / "use.py").write_text("other = 1\n")  # beside helpers/used.py, which defines use()
    assert code_hash("05_tiny") == before


def test_hash_changes_with_the_cells_but_not_with_prose_outputs_and_what_only_shows(repository):
    file = repository / "notebooks" / "05_tiny.ipynb"
    before, book = code_hash("05_tiny"), nbformat.read(file, as_version=4)
    book.cells[-1].source, book.cells[0].execution_count = "More prose.", 7
    nbformat.write(book, file)
    assert code_hash("05_tiny") == before
    for tag in ("setup", "display", "exercise", "solution", "nbval-check-output"):
        shows = nbformat.v4.new_code_cell("used.other()", metadata={"tags": [tag]})
        nbformat.write(nbformat.v4.new_notebook(cells=[*book.cells, shows]), file)
        assert code_hash("05_tiny") == before
    nbformat.write(nbformat.v4.new_notebook(cells=[*book.cells, nbformat.v4.new_code_cell("used.other()")]), file)
    assert code_hash("05_tiny") != before
    book.cells[1].source = "used.use() + 1"
    nbformat.write(book, file)
    assert code_hash("05_tiny") != before


def test_a_definition_that_is_added_makes_no_record_of_the_book_stale(tmp_path, monkeypatch):
    before = code_hash("01_explanation")
    root = tmp_path / "copy"
    for part in ("helpers", "notebooks"):
        for file in (repo_root() / part).rglob("*.ipynb" if part == "notebooks" else "*.py"):
            target = root / file.relative_to(repo_root())
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(code, "repo_root", lambda: root)
    monkeypatch.setattr(code, "__file__", str(root / "helpers" / "runs" / "code.py"))
    assert code_hash("01_explanation") == before
    stats = root / "helpers" / "stats.py"
    stats.write_text(stats.read_text(encoding="utf-8") + "\n\ndef added():\n    return 1\n", encoding="utf-8")
    assert code_hash("01_explanation") == before
    stats.write_text(stats.read_text(encoding="utf-8").replace("level) / 2", "level) / 3"), encoding="utf-8")
    assert code_hash("01_explanation") != before
