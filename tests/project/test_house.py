"""The house: which module may import which, what nothing uses, names with two meanings, and how long it all is."""

import ast
import json
from collections import Counter
from pathlib import Path

import pytest

from helpers.runs import repo_root

ROOT = repo_root()
# From the ground up: a room (a module or package of `helpers`) imports from its own floor or from below.
FLOORS = (
    {"check", "data", "frontend", "geometry", "metrics", "overlap", "stats"},  # images and numbers
    {"nets", "train"},  # models
    {"adapt", "augmentation", "explain", "labels", "losses", "priors", "segment", "shallow", "transfer"},
    {"game", "plots"},  # what a person looks at
)
# The machinery of runs stands beside the house: it may use the ground floor, and no floor knows it.
MACHINERY = {"runs"}
# One name for one thing that is there twice: a phantom and the real sample of a modality, an array and a tensor.
SAME_MEANING = {"chest_views", "ct", "fundus", "histology", "letterbox", "main", "mr", "ultrasound"}
LONGEST = 300  # lines of a module
BUDGET = 5120  # lines of `helpers` without `data` and the machinery


def modules(root: Path) -> dict[str, ast.Module]:
    """Every module of the two packages by its name; a package has that of its folder."""
    files = [*(root / "helpers").rglob("*.py"), *(root / "data_scripts").rglob("*.py")]
    return {name_of(file, root): ast.parse(file.read_text(encoding="utf-8")) for file in files}


def name_of(file: Path, root: Path) -> str:
    return ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def imports(tree: ast.AST, known) -> set[str]:
    """The known modules that the code imports, also within functions."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"a relative import of {node.module}; expected the whole name"
            inside = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found |= {full if full in known else node.module for full in inside.values()}
    return found & set(known)


def arrows(root: Path) -> dict[str, set[str]]:
    trees = modules(root)
    return {name: imports(tree, trees) - {name} for name, tree in trees.items()}


def floor(module: str) -> int:
    """The floor of a module: data_scripts, two commands over helpers.data, and the machinery are above all."""
    room = module.split(".")[1] if module.startswith("helpers.") else None
    return next((number for number, rooms in enumerate(FLOORS) if room in rooms), len(FLOORS))


def upward(graph: dict[str, set[str]]) -> list[str]:
    """Arrows that point up, out of `helpers`, or at the machinery from a floor; of the machinery, above the ground."""
    found = []
    for module, used in graph.items():
        for other in used:
            aside = floor(module) == len(FLOORS) and module.startswith("helpers.")
            if floor(other) > (0 if aside and floor(other) < len(FLOORS) else floor(module)):
                found.append(f"{module} -> {other}")
    return sorted(found)


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import one another, in a row that ends where it began; empty if there are none."""
    done = set()

    def walk(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        found = next(filter(None, (walk(other, [*path, module]) for other in sorted(graph[module]))), [])
        done.add(module)
        return found

    return next(filter(None, (walk(module, []) for module in sorted(graph))), [])


def unused(root: Path, graph: dict[str, set[str]]) -> list[str]:
    """Modules that no other one, no notebook, experiment or command uses; a test is no use."""
    used = set().union(*graph.values(), (root / "Makefile").read_text(encoding="utf-8").split())
    for notebook in (root / "notebooks").glob("*.ipynb"):
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        for source in ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"):
            plain = [line for line in source.splitlines() if not line.lstrip().startswith(("%", "!"))]
            used |= imports(ast.parse("\n".join(plain)), graph)
    for folder in ("experiments", "tools"):
        for file in (root / folder).glob("*.py"):
            used |= imports(ast.parse(file.read_text(encoding="utf-8")), graph)
    graph = [m for m in graph if not m.endswith("__main__")]  # a command
    return sorted(m for m in graph if not any(f"{u}.".startswith(f"{m}.") for u in used))  # a package by its modules


def test_every_room_stands_on_one_floor():
    rooms = {module.split(".")[1] for module in arrows(ROOT) if module.startswith("helpers.")}
    assert Counter(rooms) == Counter([room for rooms in (*FLOORS, MACHINERY) for room in rooms])


def test_an_arrow_only_points_down():
    assert upward(arrows(ROOT)) == []


def test_no_circle():
    assert circle(arrows(ROOT)) == []


def test_no_module_that_nothing_uses():
    assert unused(ROOT, arrows(ROOT)) == []


@pytest.mark.parametrize(
    ("module", "other"),
    [
        ("helpers.overlap", "helpers.train"),
        ("helpers.nets.vit", "helpers.losses"),
        ("helpers.adapt", "helpers.plots"),
        ("helpers.train", "helpers.runs"),
        ("helpers.runs", "helpers.plots"),
        ("helpers.data.sources", "data_scripts.fetch"),
    ],
)
def test_an_upward_arrow_is_seen(module, other):
    assert upward(arrows(ROOT) | {module: {other}}) == [f"{module} -> {other}"]


def test_a_circle_and_an_unused_module_are_seen():
    graph = arrows(ROOT)
    assert circle(graph | {"helpers.stats": {"helpers.runs.tables"}})[1] == "helpers.runs.tables"
    assert unused(ROOT, graph | {"helpers.labels.lonely": set()}) == ["helpers.labels.lonely"]


def test_one_name_one_meaning():
    defined = Counter()
    for tree in modules(ROOT).values():
        kinds = (ast.FunctionDef, ast.ClassDef)
        defined.update({node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")})
    assert {name for name, count in defined.items() if count > 1} == SAME_MEANING


def lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def of_the_house() -> dict[str, int]:
    """Lines of each module on a floor."""
    files = [(name_of(file, ROOT), file) for file in (ROOT / "helpers").rglob("*.py")]
    return {name: lines(file) for name, file in files if floor(name) < len(FLOORS)}


def test_no_module_is_long():
    assert {name: count for name, count in of_the_house().items() if count > LONGEST} == {}


def test_the_house_stays_small():
    assert sum(count for name, count in of_the_house().items() if not name.startswith("helpers.data")) <= BUDGET
