"""Write the repository and version of pyproject.toml wherever they are named: `make badges`.

    python tools/badges.py             # rewrite what differs
    python tools/badges.py --check     # only say what differs; exit status 1 if anything does

README.md       badges between `<!-- badges NAME.ipynb -->` and `<!-- /badges -->`; the address after `git clone`
CITATION.cff    `repository-code` and `version`
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
MARKED = re.compile(r"(<!-- badges ?(\S*) -->).*?(<!-- /badges -->)", re.DOTALL)


def project(root: Path) -> tuple[str, str]:
    """The slug "owner/name" and the version in `pyproject.toml`."""
    table = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table["urls"]["repository"].removeprefix("https://github.com/").strip("/"), table["version"]


def badges(slug: str, version: str, notebook: str) -> str:
    """Markdown of the Colab and Binder badges of one notebook, at the tag of the version."""
    colab = f"https://colab.research.google.com/github/{slug}/blob/v{version}/notebooks/{notebook}"
    binder = f"https://mybinder.org/v2/gh/{slug}/v{version}?labpath={quote(f'notebooks/{notebook}', safe='')}"
    return (
        f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab}) "
        f"[![Open in Binder](https://mybinder.org/badge_logo.svg)]({binder})"
    )


def refresh_text(text: str, slug: str, version: str, *, notebook: str = "") -> str:
    """`text` with every marked place rewritten; `notebook` is the name for marks that give none."""

    def write(match: re.Match) -> str:
        line = "" if match[2] else "\n"  # a line that begins with a comment is HTML: its Markdown is not rendered
        return f"{match[1]}{line}{badges(slug, version, match[2] or notebook)}{line}{match[3]}"

    text = MARKED.sub(write, text)
    text = re.sub(r"(?<=git clone )https://github\.com/\S+", f"https://github.com/{slug}", text)
    text = re.sub(r"^(repository-code:).*", rf'\1 "https://github.com/{slug}"', text, flags=re.MULTILINE)
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
    stale = []
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
        sys.exit(f"{', '.join(stale)}: not {slug} v{version}, which pyproject.toml says; run `make badges`")
    print(f"{slug} v{version}: {', '.join(stale) or 'nothing'} {'differs' if options.check else 'rewritten'}")


if __name__ == "__main__":
    main()
