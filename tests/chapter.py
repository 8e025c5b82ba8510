"""What the tests of a chapter read: its cells by tag, its prose, and the table of its recorded runs."""

from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np

from helpers.runs import records


def cells(path: Path, tag: str) -> list[str]:
    """Sources of the code cells of a notebook that have a tag."""
    book = nbformat.read(path, as_version=4)
    return [cell.source for cell in book.cells if cell.cell_type == "code" and tag in cell.metadata.get("tags", [])]


def cell_with(path: Path, text: str) -> str:
    """Source of the one code cell of a notebook that holds a text."""
    book = nbformat.read(path, as_version=4)
    (source,) = (cell.source for cell in book.cells if cell.cell_type == "code" and text in cell.source)
    return source


def tools(path: Path, imports: tuple[str, ...], *texts: str, **given) -> SimpleNamespace:
    """Names of a notebook after its cells with these imports, what is given, and its cells with these texts."""
    namespace = {"nan": float("nan")}
    for text in imports:
        exec(cell_with(path, text), namespace)
    namespace |= given
    for text in texts:
        exec(cell_with(path, text), namespace)
    return SimpleNamespace(**{name: value for name, value in namespace.items() if not name.startswith("__")})


def prose(path: Path) -> str:
    """All Markdown of a notebook."""
    book = nbformat.read(path, as_version=4)
    return "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")


def recorded(grid: str, draws: int = 5) -> dict[tuple[str, str, str], np.ndarray]:
    """Values of all draws by (row, data, name of the metric), in the order of the grid; every run must be recorded."""
    runs, table = records(grid), {}
    assert {run["state"] for run in runs} == {"recorded"}
    for run in runs:
        for name, value in run["record"]["metrics"].items():
            table.setdefault((run["params"]["row"], run["params"]["data"], name), []).append(value)
    assert {len(values) for values in table.values()} == {draws}
    return {key: np.array(values) for key, values in table.items()}
