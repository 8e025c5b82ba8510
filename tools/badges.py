"""Write the repository and version of pyproject.toml wherever they are named: `make badges`.

A project without an address there is not published: no badge and no command then leads to a place that may not hold it.

    python tools/badges.py             # rewrite what differs
    python tools/badges.py --check     # only say what differs; exit status 1 if anything does

README.md       badges between `<!-- badges NAME.ipynb -->` and `<!-- /badges -->`; the address after `git clone`
CITATION.cff    `repository-code` (a comment if there is no address) and `version`
notebooks/      badges in the first cell between `<!-- badges -->` and `<!-- /badges -->`;
                SLUG and TAG in the cell tagged `setup`
"""

import argparse
import re
import sys
import tomllib
from pathlib import Path
from urllib.parse import quote

import nbformat

ROOT = Path(__file__).resolve().parents[1]
MARKED = re.compile(r"(<!-- badges ?(\S*) -->)(?:(?!<!-- badges).)*?(<!-- /badges -->)", re.DOTALL)
ADDRESS = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?")


def project(root: Path) -> tuple[str, str]:
    """The slug "owner/name" ("" without an address) and the version in `pyproject.toml`."""
    table = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    address = {name.lower(): value for name, value in table.get("urls", {}).items()}.get("repository")
    if address is None:
        return "", table["version"]
    if not (match := ADDRESS.fullmatch(address.strip())):
        sys.exit(f"pyproject.toml: repository is {address!r}, expected https://github.com/OWNER/NAME")
    return match[1], table["version"]


def badges(slug: str, version: str, notebook: str) -> str:
    """Markdown of the Colab and Binder badges of one notebook, at the tag of the version; empty without a slug."""
    if not slug:
        return ""
    colab = f"https://colab.research.google.com/github/{slug}/blob/v{version}/notebooks/{notebook}"
    binder = f"https://mybinder.org/v2/gh/{slug}/v{version}?labpath={quote(f'notebooks/{notebook}', safe='')}"
    return (
        f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab}) "
        f"[![Open in Binder](https://mybinder.org/badge_logo.svg)]({binder})"
    )


def refresh_text(text: str, slug: str, version: str, *, notebook: str = "") -> str:
    """`text` with every marked place rewritten; `notebook` is the name for marks that give none."""

    marks = [len(re.findall(mark, text)) for mark in ("<!-- badges", "<!-- /badges -->")]
    if marks[0] != marks[1]:
        sys.exit(f"{marks[0]} marks <!-- badges --> and {marks[1]} <!-- /badges -->; expected as many: {text[:60]!r} …")

    def write(match: re.Match) -> str:
        # A line that begins with a comment is HTML, in which Markdown is not rendered.
        line = "" if match[2] or not slug else "\n"
        return f"{match[1]}{line}{badges(slug, version, match[2] or notebook)}{line}{match[3]}"

    text = MARKED.sub(write, text)
    address = slug and f"https://github.com/{slug}"
    text = re.sub(
        r"(?<=git clone )(?:ADDRESS|https://github\.com/\S+)(?= small-sample$)",
        address or "ADDRESS",
        text,
        flags=re.MULTILINE,
    )
    code = f'repository-code: "{address}"' if slug else "# repository-code: not published"
    text = re.sub(r"^(?:# )?repository-code:.*", code, text, flags=re.MULTILINE)
    text = re.sub(r"^(version:).*", rf"\1 {version}", text, flags=re.MULTILINE)
    text = re.sub(r'^(SLUG =) "[^"]*"', rf'\1 "{slug}"', text, flags=re.MULTILINE)
    return re.sub(r'^(TAG =) "[^"]*"', rf'\1 "v{version}"', text, flags=re.MULTILINE)


def refresh_notebook(text: str, slug: str, version: str, *, name: str) -> str:
    """The JSON of a notebook with its first cell and its `setup` cell rewritten; other cells and all outputs stay."""
    notebook = nbformat.reads(text, as_version=nbformat.NO_CONVERT)
    setup = [cell for cell in notebook.cells if "setup" in cell.metadata.get("tags", ())]
    if not MARKED.search(notebook.cells[0].source):
        sys.exit(f"{name}: its first cell has no <!-- badges --> … <!-- /badges -->")
    if len(setup) != 1 or not all(re.search(rf"^{n} = ", setup[0].source, re.MULTILINE) for n in ("SLUG", "TAG")):
        sys.exit(f'{name}: there is no one cell tagged \'setup\' with SLUG = "…" and TAG = "…"')
    before = [cell.source for cell in notebook.cells]
    for cell in (notebook.cells[0], setup[0]):
        cell.source = refresh_text(cell.source, slug, version, notebook=name)
    unchanged = before == [cell.source for cell in notebook.cells]
    return text if unchanged else nbformat.writes(notebook) + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if something differs")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository to work on")
    options = parser.parse_args()
    slug, version = project(options.root)
    here, stale = f"{slug or 'no address,'} v{version}", []
    for file in (options.root / "README.md", options.root / "CITATION.cff", *options.root.glob("notebooks/*.ipynb")):
        old = file.read_text(encoding="utf-8")
        if file.suffix == ".ipynb":
            new = refresh_notebook(old, slug, version, name=file.name)
        else:
            new = refresh_text(old, slug, version)
        if new != old:
            stale.append(str(file.relative_to(options.root)))
            if not options.check:
                file.write_text(new, encoding="utf-8", newline="\n")
    if options.check and stale:
        sys.exit(f"{', '.join(stale)}: not {here}, as pyproject.toml says; run `make badges`")
    print(f"{here}: {', '.join(stale) or 'nothing'} {'differs' if options.check else 'rewritten'}")


if __name__ == "__main__":
    main()
