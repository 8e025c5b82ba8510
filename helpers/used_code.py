"""What code a notebook runs: its cells and, definition by definition, what they use of `helpers`."""

import ast
import hashlib
import importlib.util
import json
from functools import cache
from pathlib import Path

from helpers.provenance import repo_root

WHOLE = "*"  # a module used as an object: any of its definitions may be
# Tags of cells on which no number of the record depends: they find the repository, draw, ask, or compare what is
# already computed.
SHOWS = {"setup", "display", "exercise", "solution", "nbval-check-output"}


def code_hash(notebook: str) -> str:
    """sha256 of what a notebook runs: its code cells and every definition of `helpers` that they lead to.

    Prose, outputs, cells that only show something (their tags are `SHOWS`), and functions, classes and constants that
    only other chapters use leave it unchanged; so do the modules that make or read images, for which the record has the
    hash of what came out of them. A notebook that is not in `notebooks/` counts as one without cells.
    """
    path = repo_root() / "notebooks" / f"{notebook}.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"] if path.exists() else []
    counting = [c for c in cells if c["cell_type"] == "code" and not SHOWS & set(c["metadata"].get("tags", []))]
    sources = ["".join(cell["source"]) for cell in counting]
    tree = ast.parse("\n".join(map(_without_magics, sources)))
    return hashlib.sha256("\0".join(sources + sorted(_reached(tree))).encode()).hexdigest()


def _reached(tree: ast.Module) -> set[str]:
    """File name and text of all top-level statements that the code leads to."""
    todo, done, found = _uses(tree, _imports(tree, "")) | {("helpers.runs", "start_run")}, set(), set()
    while todo:
        module, name = use = todo.pop()
        done.add(use)
        file = _module_file(module)
        if file is None or not _decides(file):
            continue
        statements, imported, package = _read(file, file.stat().st_mtime_ns)
        for names, text, uses in statements:
            if name == WHOLE or name in names or not names:  # what has no name acts on import
                found.add(f"{file.name}\0{text}")
                todo |= uses - done
        if name in imported:  # a package hands on what its modules define
            todo |= {imported[name]} - done
        if file.name == "__init__.py" and _module_file(f"{package}.{name}"):
            todo |= {(f"{package}.{name}", WHOLE)} - done
    return found


@cache
def _read(file: Path, _stamp: int) -> tuple[list, dict, str]:
    text = file.read_text(encoding="utf-8")
    tree, lines = ast.parse(text), text.splitlines()
    package = ".".join(file.relative_to(repo_root()).parent.parts)
    imported = _imports(tree, package)
    own = {name: (_name(file), name) for node in tree.body for name in _names(node)}
    statements = []
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom) or _is_text(node):
            continue
        start = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        code = "\n".join(lines[start - 1 : node.end_lineno])
        statements.append((_names(node), code, _uses(node, own | imported | _imports(node, package))))
    return statements, imported, package


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _names(node: ast.stmt) -> set[str]:
    """The names that a top-level statement defines; none for one that only acts."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return {
            name.id for target in targets for name in getattr(target, "elts", [target]) if isinstance(name, ast.Name)
        }
    return set()


def _uses(node: ast.AST, known: dict[str, tuple[str, str]]) -> set[tuple[str, str]]:
    """(module, definition) for every known name in the code; of a module, those of its definitions that are named."""
    uses, through = set(), set()
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id in known:
            inside = ".".join(known[part.value.id])
            if _module_file(inside):
                uses.add((inside, part.attr))
                through.add(part.value)
    names = [part for part in ast.walk(node) if isinstance(part, ast.Name) and part not in through]
    return uses | {known[part.id] for part in names if part.id in known}


def _imports(node: ast.AST, package: str) -> dict[str, tuple[str, str]]:
    """What the names stand for that the code imports from `helpers`: (module, definition)."""
    known = {}
    for part in ast.walk(node):
        if isinstance(part, ast.Import):
            known |= {alias.asname or alias.name.split(".")[0]: (alias.name, WHOLE) for alias in part.names}
        elif isinstance(part, ast.ImportFrom):
            base = importlib.util.resolve_name("." * part.level + (part.module or ""), package)
            known |= {alias.asname or alias.name: (base, alias.name) for alias in part.names}
    return {name: use for name, use in known.items() if use[0].split(".")[0] == "helpers"}


def _without_magics(source: str) -> str:
    return "\n".join(line for line in source.splitlines() if not line.lstrip().startswith(("%", "!")))


def _name(file: Path) -> str:
    return ".".join(file.relative_to(repo_root()).with_suffix("").parts).removesuffix(".__init__")


def _module_file(name: str) -> Path | None:
    """The file of a module or package of this repository; None for a name that is neither (a function, a class)."""
    path = repo_root().joinpath(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _decides(file: Path) -> bool:
    """Whether a module decides what comes out: not if it makes or reads images, or only hashes code."""
    package, name = file.relative_to(repo_root()).parent.parts, file.stem
    if package[:2] == ("helpers", "data"):
        return package == ("helpers", "data") and name in ("__init__", "image_set", "splits", "weak_labels")
    return file != Path(__file__).resolve()
