"""One page over executed notebooks: a sortable table that works from a file, without a server."""

import html
from pathlib import Path
from urllib.parse import quote

import nbformat

from helpers.provenance import write_atomic
from helpers.runs import read_record

COLUMNS = ("Result", "Minutes", "Peak memory", "Key figure")
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 0 auto; padding: 1rem }}
th button {{ font: inherit; color: inherit; border: 0; padding: 0; background: none; cursor: pointer }}
th[aria-sort=ascending] button::after {{ content: " ↑" }}
th[aria-sort=descending] button::after {{ content: " ↓" }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; vertical-align: top; padding: .5rem .75rem .5rem 0; border-bottom: 1px solid #8886 }}
img {{ max-width: 100%; width: 22rem; background: #fff }}
.failed {{ font-weight: bold; color: light-dark(#a3260d, #ff9d80) }}
@media (max-width: 45rem) {{
  thead {{ display: none }}
  tr, td {{ display: block; border: 0; padding: .1rem 0 }}
  tr {{ border-bottom: 1px solid #8886; padding: .75rem 0 }}
  td[data-name]:not(:empty)::before {{ content: attr(data-name) ": " }}
}}
</style>
<h1>{title}</h1>
<table>
<thead><tr>{head}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
<script>
const head = document.querySelector("thead tr"), body = document.querySelector("tbody");
const value = (row, i) => row.cells[i].textContent.trim();
const compare = (a, b) => (a === "") - (b === "") || a - b || a.localeCompare(b, undefined, {{ numeric: true }});
head.addEventListener("click", event => {{
  const th = event.target.closest("th"), up = th.ariaSort !== "ascending";
  for (const other of head.cells) other.ariaSort = "none";
  th.ariaSort = up ? "ascending" : "descending";
  const rows = [...body.rows].sort((a, b) => compare(value(a, th.cellIndex), value(b, th.cellIndex)));
  body.append(...(up ? rows : rows.reverse()));
}});
</script>
</html>
"""


def first_error(notebook) -> str:
    """Where a notebook failed and the first line of why; empty if no cell holds an error."""
    number = 0
    for cell in notebook.cells:
        number += cell.cell_type == "code"
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                reason = (str(output.evalue).strip().splitlines() or [""])[0]
                return f"code cell {number}, {output.ename}: {reason}"
    return ""


def write_overview(folder) -> Path:
    """Write `<folder>/index.html`, a table of the notebooks that the runner executed there; return its path."""
    folder = Path(folder).resolve()
    notebooks = sorted(path for path in folder.glob("*.ipynb") if not path.name.startswith("."))
    folder.mkdir(parents=True, exist_ok=True)
    return write_page(folder, "Executed notebooks", ("Notebook",), map(_row, notebooks))


def write_page(folder: Path, title: str, columns: tuple, rows) -> Path:
    """Write `<folder>/index.html`, a sortable table: a cell of HTML for each of `columns`, then of COLUMNS, per row."""
    columns = (*columns, *COLUMNS)
    lines = []
    for row in rows:
        cells = (f'<td data-name="{html.escape(n)}">{cell}</td>' for n, cell in zip(columns, row, strict=True))
        lines.append(f"<tr>{''.join(cells)}</tr>")
    head = "".join(f"<th><button>{html.escape(column)}</button>" for column in columns)
    page = PAGE.format(title=html.escape(title), head=head, rows="\n".join(lines))
    write_atomic(folder / "index.html", page.encode())
    return folder / "index.html"


def result_cells(name: str, folder: str, record: dict | None, *, state: str, reason: str = "") -> tuple:
    """The cells of COLUMNS for one run: its state, why it failed, and its record, whose figure is in `folder`."""
    result = f'<span class="failed">failed</span>: {html.escape(reason)}' if reason else html.escape(state)
    if record is None:
        return result, "", "", ""
    held, figure, alt = sum(claim["holds"] for claim in record["claims"]), record.get("figure"), f"Key figure of {name}"
    picture = f'<img loading="lazy" alt="{html.escape(alt)}" src="{quote(f"{folder}/{figure}")}">' if figure else ""
    claims = f"; {held} of {len(record['claims'])} claims hold"
    return result + claims, f"{record['seconds'] / 60:.1f}", f"{record['peak_memory_mb']:.0f} MB", picture


def _row(path: Path) -> tuple:
    """A notebook's table row; what stands in it comes from its record, or from its first error."""
    name = path.name.removesuffix(".ipynb").removesuffix(".failed")
    record, reason, more = None, "", ()
    if path.name.endswith(".failed.ipynb"):
        reason = first_error(nbformat.read(path, as_version=4)) or "no record"
    else:
        record, more = read_record(path.parent / name / "metrics.json"), (f"{name}/metrics.json",)
    links = link_files(path.parent, (f"{path.stem}.html", f"{path.stem}.ipynb", *more))
    cells = result_cells(name, name, record, state="done", reason=reason)
    return f"<strong>{html.escape(name)}</strong><br>{links}", *cells


def link_files(folder: Path, files) -> str:
    """Links to those of the files in `folder` that exist."""
    names = {".html": "read", ".ipynb": "notebook", ".json": "record", ".log": "log"}
    there = [file for file in files if (folder / file).exists()]
    return " · ".join(f'<a href="{quote(file)}">{names[Path(file).suffix]}</a>' for file in there)
