"""How the runs of a folder stand: `summary.csv` for computers, `index.html` for people."""

import csv
import html
import io
from pathlib import Path
from urllib.parse import quote

from helpers.runs.record import write_atomic

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body {{ font: 1rem/1.5 system-ui }} th, td {{ padding-right: 1rem; text-align: left }}</style>
<h1>{title}</h1>
<table><tr><th>Run<th>State<th>Minutes<th>Memory<th>Files
{rows}
</table>
"""


def write_tables(out: Path, title: str, entries: list) -> None:
    """Write `summary.csv`, all runs with parameters and numbers, and `index.html`, how they stand, with links."""
    table, rows, lines = io.StringIO(), [], []
    for entry in entries:
        record = entry.record or {"metrics": {}, "seconds": None, "peak_memory_mb": None}
        row = {"run": entry.folder.name, "state": entry.state, "reason": entry.reason} | entry.params
        row |= {name: record[name] for name in ("seconds", "peak_memory_mb")}
        rows.append(row | {name: value for name, value in record["metrics"].items() if not isinstance(value, list)})
        where = entry.folder / "failed" if entry.state == "failed" else entry.folder
        files = [file.relative_to(out).as_posix() for file in sorted(where.glob("*.*"))]
        links = [f'<a href="{quote(file)}">{html.escape(Path(file).name)}</a>' for file in files]
        costs = (f"{row['seconds'] / 60:.1f}", f"{row['peak_memory_mb']:.0f} MB") if entry.record else ("", "")
        told = map(html.escape, (entry.folder.name, f"{entry.state} {entry.reason}", *costs))
        lines.append(f"<tr><td>{'<td>'.join((*told, ' · '.join(links)))}")
    writer = csv.DictWriter(table, list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(out / "summary.csv", table.getvalue().encode())
    write_atomic(out / "index.html", PAGE.format(title=html.escape(title), rows="\n".join(lines)).encode())
