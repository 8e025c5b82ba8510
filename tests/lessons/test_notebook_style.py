"""The anatomy of a notebook, read from the committed file without a kernel.

A rule takes a notebook and yields what is wrong with it. Every rule is tried on every notebook of the book, on a small
good notebook (nothing is wrong), and on broken copies of that one (the rule says so).
"""

import ast
import copy
import re
import statistics
import symtable
import tempfile
from pathlib import Path

import nbformat
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from helpers.runs import repo_root
from helpers.runs.code import SHOWS

FOLDED = "hide-input"  # the tag of a folded cell in a lesson of the second edition; JupyterLab has source_hidden
NOTEBOOKS = sorted((repo_root() / "notebooks").glob("*.ipynb"))
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|home|root|tmp|Users|content|private|var/folders)/|[A-Z]:\\+Users", re.I)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tagged(notebook, tag):
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def outputs(notebook):
    return [(i, output) for i, cell in enumerate(notebook.cells) for output in cell.get("outputs", [])]


def front(notebook) -> str:
    """The prose before the first code cell."""
    texts = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            break
        texts.append(cell.source)
    return "\n\n".join(texts)


def lines(cell) -> int:
    return len(cell.source.splitlines())


def title_and_badges(notebook):
    first = notebook.cells[0]
    if first.cell_type != "markdown" or not first.source.startswith("# "):
        yield "the first cell is not a title"
    if not re.search(r"^<!-- badges -->(.*)<!-- /badges -->$", first.source, re.M | re.S):
        yield "the first cell has no place for badges, <!-- badges --><!-- /badges -->"


def row_of_costs(notebook):
    rows = " ".join(line for line in front(notebook).splitlines() if line.startswith("|"))
    for name, pattern in {
        "minutes": r"\bmin",
        "memory": r"memory|[GM]B",
        "data": r"data",
        "licence": r"licen[cs]e",
    }.items():
        if not re.search(pattern, rows, re.I):
            yield f"no table before the first code cell that tells {name}"


def question_and_caution(notebook):
    if "?" not in front(notebook):
        yield "no question before the first code cell"
    if not re.search(r"clinical caution", front(notebook), re.I):
        yield 'no "Clinical caution" before the first code cell'


def closing_sections(notebook):
    prose = [line for cell in notebook.cells if cell.cell_type == "markdown" for line in cell.source.splitlines()]
    leads = " ".join(line for line in prose if line.startswith(("#", "**"))).lower()
    yield from (
        f"no part on {name}" for name in ("exercises", "recap", "limits", "further reading") if name not in leads
    )


def limits_are_told(notebook):
    prose = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for name in ("Limits", "Further reading"):
        told = re.search(rf"^\*\*{name}\.\*\* (.+)", prose, re.M)
        if not told or len(told[1].split()) < 20:
            yield f"no paragraph '**{name}.** …' of at least 20 words"


def setup_and_parameters_first(notebook):
    for place, tag in enumerate(("setup", "parameters")):
        if [cell.get("id") for cell in tagged(notebook, tag)] != [code_cells(notebook)[place].get("id")]:
            yield f"not exactly one cell with tag {tag!r}, or it is not code cell {place + 1}"


def parameters_are_plain(notebook):
    source = tagged(notebook, "parameters")[0].source
    for line in source.splitlines():
        match = re.fullmatch(r"(\w+): (str|int|float|bool) = (\S.*?)  # \S.*", line)
        try:
            kind = type(ast.literal_eval(match[3])).__name__ if match else ""
        except (ValueError, SyntaxError):
            kind = "no literal"
        if not match or kind != match[2]:
            yield f"not of the form `name: type = literal  # help`, with a literal of that type: {line}"
    if not source.startswith('profile: str = "teach"'):
        yield 'the first parameter is not `profile: str = "teach"`'


def papermill_knows_the_parameters(notebook):
    source_lines = tagged(notebook, "parameters")[0].source.splitlines()
    names = [line.partition(":")[0] for line in source_lines]
    if not 4 <= len(names) <= 8:
        yield f"{len(names)} lines of parameters, expected 4 to 8"
    yield from (f"no parameter {name}" for name in ("profile", "seed", "data", "data_dir") if name not in names)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "notebook.ipynb"
        nbformat.write(notebook, path)
        inferred = {name: found["inferred_type_name"] for name, found in papermill.inspect_notebook(str(path)).items()}
    yield from (f"papermill cannot read the line of {name}" for name in names if inferred.get(name, "None") == "None")


def one_idea(notebook):
    ideas = tagged(notebook, "idea")
    if len(ideas) != 1 or ideas[0].cell_type != "code":
        yield f"{len(ideas)} cells with tag 'idea', expected one code cell"
    elif lines(ideas[0]) > 25:
        yield f"the idea takes {lines(ideas[0])} lines, expected at most 25"


def claims_are_compared(notebook):
    claims = [cell for cell in code_cells(notebook) if re.search(r"^\s*(run\.)?claim\(", cell.source, re.M)]
    if len(claims) < 3:
        yield f"{len(claims)} cells with claims, expected at least 3"
    if [cell.id for cell in claims] != [cell.id for cell in tagged(notebook, "nbval-check-output")]:
        yield "the cells that call claim( are not those with tag 'nbval-check-output'"
    for cell in claims:
        texts = [output.get("text", "") for output in cell.outputs]
        if not texts or not all(line.startswith("✓ ") for text in texts for line in text.splitlines()):
            yield f"a claim cell that printed something else than claims that hold: {texts}"


def exercises_have_solutions(notebook):
    cells = code_cells(notebook)
    tags = [set(cell.metadata.get("tags", [])) & {"exercise", "solution"} for cell in cells]
    if {"exercise"} not in tags:
        yield "no cell with tag 'exercise'"
    for place, tag in enumerate(tags):
        if tag == {"exercise"} and tags[place + 1 : place + 2] != [{"solution"}]:
            yield "an exercise is not followed by its solution"
        if tag == {"solution"} and tags[place - 1] != {"exercise"}:
            yield "a solution does not follow its exercise"
        if tag == {"solution"} and not cells[place].metadata.get("jupyter", {}).get("source_hidden"):
            yield "a solution is not folded (jupyter.source_hidden)"


def what_only_shows_decides_nothing(notebook):
    """Cells that do not count as the code of a record must not give a name to what a counting cell uses."""
    if tagged(notebook, FOLDED):  # the records of a lesson are made by its experiments
        return
    counting, showing = [], set()
    for cell in code_cells(notebook):
        if "setup" in cell.metadata.get("tags", []):  # it always runs, and only finds the repository
            continue
        source = "\n".join(line for line in cell.source.splitlines() if not line.startswith(("%", "!")))
        gives, uses = global_names(symtable.symtable(source, cell.get("id", ""), "exec"))
        if SHOWS & set(cell.metadata.get("tags", [])):
            showing |= gives
        else:
            counting.append((cell.get("id"), uses - gives))
    for name, uses in counting:
        yield from (f"cell {name} uses {used}, which a cell that only shows assigns" for used in sorted(uses & showing))


def global_names(table) -> tuple[set[str], set[str]]:
    """The names that code gives to the notebook, and those that it uses, in functions, too."""
    top = table.get_type() == "module"
    symbols = [symbol for symbol in table.get_symbols() if top or symbol.is_global()]
    gives = {s.get_name() for s in symbols if s.is_assigned() or s.is_imported()}
    uses = {s.get_name() for s in symbols if s.is_referenced()}
    for child in table.get_children():
        inner = global_names(child)
        gives, uses = gives | inner[0], uses | inner[1]
    return gives, uses


def saves_last(notebook):
    if "run.save(" not in code_cells(notebook)[-1].source:
        yield "the last code cell does not call run.save("


def code_cells_are_short(notebook):
    lengths, budget = [lines(cell) for cell in code_cells(notebook)], tagged(notebook, FOLDED)
    if max(lengths) > 25 or (statistics.median(lengths) > 8 and not budget):  # a lesson has a budget instead
        yield f"median {statistics.median(lengths)} and maximum {max(lengths)} lines, expected at most 8 and 25"


def a_lesson_keeps_its_budget(notebook):
    """A lesson folds what only shows: at most 40 code cells, 320 lines that a reader sees, 15 functions."""
    if not tagged(notebook, FOLDED):
        return
    cells = code_cells(notebook)
    seen = sum(lines(cell) for cell in cells if FOLDED not in cell.metadata.get("tags", []))
    functions = sum(len(re.findall(r"^def ", cell.source, re.M)) for cell in cells)
    if len(cells) > 40 or seen > 320 or functions > 15:
        yield f"{len(cells)} code cells, {seen} lines to see, {functions} functions; expected at most 40, 320, 15"
    for cell in cells:
        tags, folded = set(cell.metadata.get("tags", [])), bool(cell.metadata.get("jupyter", {}).get("source_hidden"))
        if folded != (FOLDED in tags) or (SHOWS & tags - {"exercise"} and not folded):
            yield f"cell {cell.id} is folded on the site or in JupyterLab alone, or only shows and is not folded"


def pictures_have_alternative_text(notebook):
    for place, output in outputs(notebook):
        for kind in output.get("data", {}):
            if not kind.startswith("image/"):
                continue
            if kind not in ("image/png", "image/jpeg"):
                yield f"cell {place} shows {kind}, expected PNG or JPEG"
            if not str(output.metadata.get(kind, {}).get("alt", "")).strip():
                yield f"cell {place} has a picture without alternative text"


def small_file(notebook):
    size = len(nbformat.writes(notebook).encode())
    if size > 1.5e6:
        yield f"{size / 1e6:.1f} MB, expected at most 1.5"


def executed_in_order(notebook):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"execution counts are {counts}"


def no_errors_or_warnings(notebook):
    for place, output in outputs(notebook):
        if output.output_type == "error" or output.get("name") == "stderr":
            yield f"cell {place} shows an error or a warning: {output.get('evalue', output.get('text'))}"


def no_traces_of_tools(notebook):
    everything = [notebook.metadata, *(cell.metadata for cell in notebook.cells)]
    for key in ("papermill", "execution", "widgets", "ExecuteTime", "collapsed"):
        if any(key in metadata for metadata in everything):
            yield f"metadata {key!r}"
    if any("application/vnd.jupyter.widget-view+json" in output.get("data", {}) for _, output in outputs(notebook)):
        yield "a live widget in the outputs"


def no_machine_paths(notebook):
    for place, output in outputs(notebook):
        texts = [output.get("text", ""), *(v for k, v in output.get("data", {}).items() if not k.startswith("image/"))]
        if found := MACHINE_PATH.search(" ".join(map(str, texts))):
            yield f"cell {place} shows a path of one machine: {found.group()}"


def format_and_kernel(notebook):
    if (notebook.nbformat, notebook.nbformat_minor) < (4, 5) or not all(cell.get("id") for cell in notebook.cells):
        yield "cells without ids; expected nbformat 4.5"
    if len({cell.get("id") for cell in notebook.cells}) < len(notebook.cells):
        yield "two cells have the same id"
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "the kernel is not python3"


RULES = [
    title_and_badges,
    row_of_costs,
    question_and_caution,
    closing_sections,
    limits_are_told,
    setup_and_parameters_first,
    parameters_are_plain,
    papermill_knows_the_parameters,
    one_idea,
    claims_are_compared,
    exercises_have_solutions,
    what_only_shows_decides_nothing,
    saves_last,
    code_cells_are_short,
    a_lesson_keeps_its_budget,
    pictures_have_alternative_text,
    small_file,
    executed_in_order,
    no_errors_or_warnings,
    no_traces_of_tools,
    no_machine_paths,
    format_and_kernel,
]


def test_the_book_has_chapters():
    assert NOTEBOOKS


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path, rule):
    assert list(rule(nbformat.read(path, as_version=nbformat.NO_CONVERT))) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_starts_a_run_under_its_own_name(path):
    sources = "\n".join(cell.source for cell in code_cells(nbformat.read(path, as_version=4)))
    assert re.findall(r"start_run\(\s*[\"'](.+?)[\"']", sources) == [path.stem]


TITLE = """# 05 · Attention
<!-- badges --><!-- /badges -->

| minutes | memory | data and licence |
|---|---|---|
| 1 | 900 MB | phantom, CC0 |"""

PARAMETERS = """profile: str = "teach"  # smoke, teach or full
seed: int = 0  # of every generator
data: str = "sample"  # sample or folder
data_dir: str = ""  # a folder of images
weight: float = -1.0  # of the loss"""


def good() -> nbformat.NotebookNode:
    """A small notebook that keeps every rule."""

    def code(source, *tags, text="", **metadata):
        result = [new_output("stream", text=text)] if text else []
        return new_code_cell(source, metadata={"tags": list(tags)} | metadata, outputs=result)

    figure = new_output("display_data", data={"image/png": "iVBO/home/"}, metadata={"image/png": {"alt": "A heart."}})
    cells = [
        new_markdown_cell(TITLE),
        new_markdown_cell("Does it help?\n\n**Clinical caution.** Not for diagnosis."),
        code("import helpers", "setup"),
        code(PARAMETERS, "parameters"),
        code('run = start_run("05_attention", {})\nclaim = run.claim', text="a run at 2 / 3 of work/home\n"),
        code("def idea():\n    return 1", "idea"),
        *(code(f'claim("{i}", 1, at_least=0)', "nbval-check-output", text=f"✓ {i}: ≥ 0\n") for i in range(3)),
        code("for i in 1, 2:\n    show(figure, i)", "display"),
        new_markdown_cell("## Exercises"),
        code("answer = None", "exercise"),
        code("answer = 42", "solution", jupyter={"source_hidden": True}),
        new_markdown_cell(f"## Recap\n\n**Limits.** {'few ' * 20}\n\n**Further reading.** {'a paper ' * 10}"),
        code("run.save({}, data=None)"),
    ]
    cells[9].outputs = [figure]
    for count, cell in enumerate((cell for cell in cells if cell.cell_type == "code"), start=1):
        cell.execution_count = count
    return new_notebook(
        cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )


def replace(old: str, new: str):
    """A change of the source that holds `old`."""

    def change(notebook):
        [cell] = [cell for cell in notebook.cells if old in cell.source]
        cell.source = cell.source.replace(old, new)

    return change


def at(place: int, **changes):
    """A change of one cell: metadata, outputs, execution_count, …"""
    return lambda notebook: notebook.cells[place].update(nbformat.from_dict(changes))


def tag(place: int, *tags):
    return at(place, metadata={"tags": list(tags)})


def fold(notebook):
    """Make a lesson of the good notebook: what only shows is folded."""
    for cell in code_cells(notebook):
        if SHOWS & set(cell.metadata.tags) - {"exercise"}:
            cell.metadata.tags.append(FOLDED)
            cell.metadata["jupyter"] = {"source_hidden": True}


PICTURE = {"output_type": "display_data", "data": {"image/png": "x"}, "metadata": {}}
BREAKS = [
    (title_and_badges, replace("# 05 ·", "05 ·")),
    (title_and_badges, replace("<!-- badges -->", "")),
    (title_and_badges, replace("<!-- /badges -->", "")),
    (row_of_costs, replace("and licence |", "|")),
    (row_of_costs, replace("minutes", "time")),
    (row_of_costs, lambda notebook: [replace("memory", "size")(notebook), replace("900 MB", "900")(notebook)]),
    (question_and_caution, replace("help?", "help.")),
    (what_only_shows_decides_nothing, replace("run.save({}", "run.save({i: 1}")),
    (what_only_shows_decides_nothing, replace("return 1", "return answer")),
    (question_and_caution, replace("Clinical caution", "Note")),
    (closing_sections, replace("**Limits.**", "Limits.")),
    (limits_are_told, replace("few " * 20, "LIMITS")),
    (limits_are_told, replace("a paper " * 10, "a paper")),
    (closing_sections, replace("## Exercises", "")),
    (setup_and_parameters_first, tag(2)),
    (setup_and_parameters_first, tag(4, "parameters")),
    (setup_and_parameters_first, lambda notebook: notebook.cells.insert(2, new_code_cell("x"))),
    (parameters_are_plain, replace("  # of the loss", "")),
    (parameters_are_plain, replace("weight: float = -1.0", "weight = -1.0")),
    (parameters_are_plain, replace("weight: float = -1.0", "weight: float = -1")),
    (parameters_are_plain, replace("weight: float = -1.0", "weight: float = seed / 2")),
    (parameters_are_plain, replace("weight: float = -1.0", "weight: float | None = -1.0")),
    (papermill_knows_the_parameters, replace("of every", "= of every")),  # papermill gives up at a second "="
    (parameters_are_plain, replace('"teach"', '"smoke"')),
    (papermill_knows_the_parameters, replace("data_dir", "folder")),
    (parameters_are_plain, replace("seed: int", "# a comment\nseed: int")),
    (
        papermill_knows_the_parameters,
        replace("weight", "\n".join(f"p{i}: int = 1  # x" for i in range(4)) + "\nweight"),
    ),
    (one_idea, tag(5)),
    (one_idea, tag(4, "idea")),
    (one_idea, replace("    return 1", "    x = 1\n" * 25)),
    (claims_are_compared, tag(6)),
    (claims_are_compared, tag(9, "nbval-check-output")),
    (claims_are_compared, lambda notebook: notebook.cells.pop(6)),
    (claims_are_compared, at(6, outputs=[])),
    (claims_are_compared, at(6, outputs=[{"output_type": "stream", "name": "stdout", "text": "· not checked"}])),
    (exercises_have_solutions, lambda notebook: [notebook.cells.pop(11), notebook.cells.pop(11)]),
    (exercises_have_solutions, lambda notebook: notebook.cells.pop(12)),
    (exercises_have_solutions, lambda notebook: notebook.cells.pop(11)),
    (exercises_have_solutions, lambda notebook: notebook.cells.insert(12, new_code_cell("x"))),
    (exercises_have_solutions, tag(12, "solution")),
    (saves_last, replace("run.save(", "print(")),
    (saves_last, lambda notebook: notebook.cells.append(new_code_cell("x"))),
    (code_cells_are_short, replace("show(figure, i)", "x\n" * 26)),
    (code_cells_are_short, lambda notebook: [c.update(source="x\n" * 9) for c in code_cells(notebook)]),
    (a_lesson_keeps_its_budget, tag(9, "display", FOLDED)),
    (
        a_lesson_keeps_its_budget,
        lambda notebook: [fold(notebook), notebook.cells.extend(new_code_cell("x") for _ in range(30))],
    ),
    (a_lesson_keeps_its_budget, lambda notebook: [fold(notebook), notebook.cells[4].update(source="x\n" * 321)]),
    (
        a_lesson_keeps_its_budget,
        lambda notebook: [fold(notebook), notebook.cells[4].update(source="def f():\n    x\n" * 16)],
    ),
    (a_lesson_keeps_its_budget, lambda notebook: [fold(notebook), notebook.cells[9].metadata.pop("jupyter")]),
    (
        a_lesson_keeps_its_budget,
        lambda notebook: [fold(notebook), notebook.cells[9].metadata.update(tags=["display"], jupyter={})],
    ),
    (pictures_have_alternative_text, at(9, outputs=[PICTURE])),
    (pictures_have_alternative_text, at(9, outputs=[PICTURE | {"metadata": {"image/png": {"alt": " "}}}])),
    (pictures_have_alternative_text, at(9, outputs=[PICTURE | {"data": {"image/jpeg": "x"}}])),
    (pictures_have_alternative_text, at(9, outputs=[PICTURE | {"data": {"image/svg+xml": "x"}}])),
    (small_file, at(9, outputs=[PICTURE | {"data": {"image/png": "x" * 1_500_000}}])),
    (executed_in_order, at(9, execution_count=9)),
    (executed_in_order, at(9, execution_count=None)),
    (no_errors_or_warnings, at(9, outputs=[{"output_type": "stream", "name": "stderr", "text": "Warning"}])),
    (no_errors_or_warnings, at(9, outputs=[{"output_type": "error", "ename": "E", "evalue": "x", "traceback": []}])),
    (no_traces_of_tools, lambda notebook: notebook.metadata.update(papermill={})),
    (no_traces_of_tools, lambda notebook: notebook.metadata.update(widgets={})),
    (no_traces_of_tools, at(9, metadata={"execution": {}})),
    (no_traces_of_tools, at(9, outputs=[PICTURE | {"data": {"application/vnd.jupyter.widget-view+json": {}}}])),
    (no_machine_paths, at(9, outputs=[{"output_type": "stream", "name": "stdout", "text": "in " + "/home" + "/a/b"}])),
    (no_machine_paths, at(9, outputs=[PICTURE | {"data": {"text/html": "<i>C:" + "\\Users\\a</i>"}}])),
    (format_and_kernel, lambda notebook: notebook.update(nbformat_minor=4)),
    (format_and_kernel, lambda notebook: notebook.cells[9].pop("id")),
    (format_and_kernel, lambda notebook: notebook.cells[9].update(id=notebook.cells[8].id)),
    (format_and_kernel, lambda notebook: notebook.metadata.kernelspec.update(name="conda-env")),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_good_notebook_keeps_the_rule(rule):
    assert list(rule(good())) == []


@pytest.mark.parametrize(("rule", "change"), BREAKS, ids=[f"{i}-{rule.__name__}" for i, (rule, _) in enumerate(BREAKS)])
def test_broken_notebook_is_found(rule, change):
    notebook = copy.deepcopy(good())
    change(notebook)
    assert list(rule(notebook))


def test_a_good_lesson_keeps_its_budget():
    lesson = good()
    fold(lesson)
    assert list(a_lesson_keeps_its_budget(lesson)) == []


def test_every_rule_has_been_seen_to_fail():
    assert {rule for rule, _ in BREAKS} == set(RULES)
