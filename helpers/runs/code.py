"""What code a run depends on, in a form that only changes when what is computed may change.

The *normal form*: the function that makes a row of a table or, where a chapter has no experiments, the cells on which
a recorded number depends; and, definition by definition, what they use of `experiments` and `helpers`, as `ast.unparse`
writes it without docstrings, annotations and the texts of errors. A comment, a layout, a module's name, a new file
change nothing. Left out is what no number depends on: figures, tables, claims, the machinery of runs (but for seeds,
threads and determinism), and what makes or reads images, of which a record has the hash.
"""

import ast
import copy
import hashlib
import importlib.util
import json
from functools import cache
from pathlib import Path

COUNTS = ("helpers", "experiments")
OURS = (*COUNTS, "data_scripts")
WHOLE = "*"  # a module used as an object: any of its definitions may be
# Tags of cells on which no number of the record depends: they find the repository, draw, ask, or compare what is
# already computed.
SHOWS = {"setup", "display", "exercise", "solution", "nbval-check-output"}
MACHINERY = {"plots", "game", "frontend"}  # modules that show; helpers.runs, which runs notebooks, is none of it either
PREPARES = ("helpers.runs.run", "_prepare_torch")  # of the machinery what a number depends on


def repo_root() -> Path:
    """The folder above the `helpers` package."""
    return Path(__file__).resolve().parents[2]


def code_hash(table: str, row: str = "") -> str:
    """sha256 of the normal form of a row; a table that is not there counts as one without code."""
    return hashlib.sha256("\0".join(normal_form(table, row)).encode()).hexdigest()


def normal_form(table: str, row: str = "") -> list[str]:
    """The definitions that `experiments/<table>.py` needs for a row, sorted; without such a file those of the notebook.

    Of a notebook in `notebooks/`, the statements of its cells come first, in their order.
    """
    if root_of(table, row):
        return sorted(_reached({PREPARES, (f"experiments.{table}", row)}))
    return _of_notebook(table)


def root_of(table: str, row: str) -> str:
    """The row where the table has experiments; else "": all rows of a notebook have the same code."""
    return row if _module_file(f"experiments.{table}") else ""


def _of_notebook(notebook: str) -> list[str]:
    path = repo_root() / "notebooks" / f"{notebook}.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"] if path.exists() else []
    counting = [c for c in cells if c["cell_type"] == "code" and not SHOWS & set(c["metadata"].get("tags", []))]
    lines = [line for cell in counting for line in "".join(cell["source"]).splitlines()]
    tree = ast.parse("\n".join(line for line in lines if not line.lstrip().startswith(("%", "!"))))
    known, plain = _imports(tree, ""), [node for node in map(_plain, tree.body) if node]
    start = set().union({PREPARES}, *(_uses(node, known) for node in plain))
    return [_written(node, known) for node in plain] + sorted(_reached(start))


def _reached(todo: set[tuple[str, str]]) -> set[str]:
    """Normal forms of all top-level statements that these definitions lead to, theirs included."""
    todo, done, found = set(todo), set(), set()
    while todo:
        module, name = use = todo.pop()
        done.add(use)
        file = _module_file(module)
        if file is None or not (_decides(file) or use == PREPARES):
            continue
        statements, imported, package = _read(file, file.stat().st_mtime_ns)
        for names, text, uses in statements:
            if name == WHOLE or name in names or (not names and use != PREPARES):  # what has no name acts on import
                found.add(text)
                todo |= uses - done
        if name in imported:  # a package hands on what its modules define
            todo |= {imported[name]} - done
        if file.name == "__init__.py" and _module_file(f"{package}.{name}"):
            todo |= {(f"{package}.{name}", WHOLE)} - done
    return found


@cache
def _read(file: Path, _stamp: int) -> tuple[list, dict, str]:
    """Of a module: names, normal form and uses of its statements; what it imports of ours; its package."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    package = ".".join(file.relative_to(repo_root()).parent.parts)
    imported = _imports(tree, package)
    module = package if file.name == "__init__.py" else f"{package}.{file.stem}"
    own = {name: (module, name) for node in tree.body for name in _names(node)}
    statements = []
    for node in tree.body:
        if plain := _plain(node):
            inside = imported | _imports(node, package)
            statements.append((_names(node), _written(plain, inside), _uses(plain, own | inside)))
    return statements, {name: use for name, use in imported.items() if _library(use) in COUNTS}, package


class _Normal(ast.NodeTransformer):
    """Takes away what may differ while the same is computed."""

    def _definition(self, node):
        node = self.generic_visit(node)
        if node.body and _is_text(node.body[0]):
            node.body = node.body[1:]
        node.body = node.body or [ast.Pass()]
        if not isinstance(node, ast.ClassDef):
            node.returns = None
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _definition

    def visit_arg(self, node):
        return ast.arg(node.arg)

    def visit_AnnAssign(self, node):  # without a value it is a field of a class: its name and place count
        node = self.generic_visit(node)
        return ast.Assign([node.target], node.value or ast.Constant(...), lineno=0)

    def visit_Raise(self, node):
        error = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return ast.Raise(error, None)

    def visit_Assert(self, node):
        return ast.Assert(self.visit(node.test), None)

    def visit_Import(self, node):
        return None

    visit_ImportFrom = visit_Import


def _plain(node: ast.stmt) -> ast.stmt | None:
    """A copy of a statement without what may differ; None if nothing is left."""
    plain = _Normal().visit(copy.deepcopy(node))
    return None if plain is None or _is_text(plain) else ast.fix_missing_locations(plain)


def _written(plain: ast.stmt, imports: dict[str, tuple[str, str]]) -> str:
    """A statement as text, with the meaning of each name that it takes from another library."""
    names = {part.id for part in ast.walk(plain) if isinstance(part, ast.Name)}
    of_others = [(name, use) for name, use in imports.items() if name in names and _library(use) not in OURS]
    return "\n".join([*(f"{name} = {'.'.join(use)}" for name, use in sorted(of_others)), ast.unparse(plain)])


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _names(node: ast.stmt) -> set[str]:
    """The names that a top-level statement defines; none for one that only acts."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets if isinstance(node, ast.Assign) else []
    return {name.id for target in targets for name in getattr(target, "elts", [target]) if isinstance(name, ast.Name)}


def _uses(node: ast.AST, known: dict[str, tuple[str, str]]) -> set[tuple[str, str]]:
    """(module, definition) for every name of ours in the code; of a module, its definitions that are named."""
    uses, through = set(), set()
    known = {name: use for name, use in known.items() if _library(use) in COUNTS}
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id in known:
            inside = ".".join(known[part.value.id])
            if _module_file(inside):
                uses.add((inside, part.attr))
                through.add(part.value)
    names = [part for part in ast.walk(node) if isinstance(part, ast.Name) and part not in through]
    return uses | {known[part.id] for part in names if part.id in known}


def _imports(node: ast.AST, package: str) -> dict[str, tuple[str, str]]:
    """What the names stand for that the code imports: (module, definition)."""
    known = {}
    for part in ast.walk(node):
        if isinstance(part, ast.Import):
            known |= {alias.asname or alias.name.split(".")[0]: (alias.name, WHOLE) for alias in part.names}
        elif isinstance(part, ast.ImportFrom):
            base = importlib.util.resolve_name("." * part.level + (part.module or ""), package)
            known |= {alias.asname or alias.name: (base, alias.name) for alias in part.names}
    return known


def _library(use: tuple[str, str]) -> str:
    return use[0].partition(".")[0]


def _module_file(name: str) -> Path | None:
    """The file of a module or package of this repository; None for a name that is neither (a function, a class)."""
    path = repo_root().joinpath(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _decides(file: Path) -> bool:
    """Whether a number depends on a module: not on one that makes or reads images, or belongs to the machinery."""
    package, name = file.relative_to(repo_root()).parent.parts, file.stem
    if package[:2] == ("helpers", "data"):
        return package == ("helpers", "data") and name in ("__init__", "image_set", "splits")
    return name not in MACHINERY and package[:2] != ("helpers", "runs")
