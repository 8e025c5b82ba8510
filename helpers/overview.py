"""One page over a folder of executed notebooks."""

import base64
import html
from pathlib import Path
from urllib.parse import quote

import nbformat

from helpers.provenance import write_atomic
from helpers.runs import read_record

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Executed notebooks</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 0 auto; padding: 1rem }}
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
<h1>Executed notebooks</h1>
<table>
<thead><tr><th>Notebook<th>Result<th>Minutes<th>Peak memory<th>Key figure</tr></thead>
<tbody>
{rows}
</tbody>
</table>
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
    write_atomic(folder / "index.html", PAGE.format(rows="\n".join(map(_row, notebooks))).encode())
    return folder / "index.html"


def _row(path: Path) -> str:
    """A notebook's table row; what stands in it comes from its record, or from its first error."""
    name = path.name.removesuffix(".ipynb").removesuffix(".failed")
    if path.name.endswith(".failed.ipynb"):
        reason = first_error(nbformat.read(path, as_version=4)) or "no record"
        links, cells = _links(path.parent, path.stem), (f'<span class="failed">failed</span>: {html.escape(reason)}',)
    else:
        record_path = path.parent / name / "metrics.json"
        record, links = read_record(record_path), _links(path.parent, path.stem, f"{name}/metrics.json")
        held, figure = sum(claim["holds"] for claim in record["claims"]), record["figure"]
        picture = base64.b64encode((record_path.parent / figure).read_bytes()).decode() if figure else ""
        alt = html.escape(f"Key figure of {name}")
        cells = (
            f"done; {held} of {len(record['claims'])} claims hold",
            f"{record['seconds'] / 60:.1f}",
            f"{record['peak_memory_mb']:.0f} MB",
            f'<img alt="{alt}" src="data:image/png;base64,{picture}">' if picture else "",
        )
    names = ("Result", "Minutes", "Peak memory", "Key figure")
    cells = (*cells, "", "", "")[:4]
    columns = "".join(f'<td data-name="{n}">{cell}</td>' for n, cell in zip(names, cells, strict=True))
    return f"<tr><td><strong>{html.escape(name)}</strong><br>{links}</td>{columns}</tr>"


def _links(folder: Path, stem: str, *more: str) -> str:
    """Links to the files that exist."""
    files = [file for file in (f"{stem}.html", f"{stem}.ipynb", *more) if (folder / file).exists()]
    names = {".html": "read", ".ipynb": "notebook", ".json": "record"}
    return " · ".join(f'<a href="{quote(file)}">{names[Path(file).suffix]}</a>' for file in files)
