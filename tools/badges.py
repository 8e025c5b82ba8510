"""Give the folder a public home, and write it and the version wherever they are named: `make badges [REPO=owner/name]`.

The home is `repository` in pyproject.toml and nowhere else. Without one the project is not published: no badge and no
command then leads to a place that may not hold it.

    python tools/badges.py --repo owner/name   # a new home, in pyproject.toml and everywhere; '' takes it away
    python tools/badges.py                     # the home that `git remote` names on GitHub, else as it is
    python tools/badges.py --check             # only say what is not as pyproject.toml says; exit status 1 then

README.md       badges between `<!-- badges NAME.ipynb -->` and `<!-- /badges -->`; how Colab and Binder are opened,
                between `<!-- home -->` and `<!-- /home -->`
CITATION.cff    `repository-code` (a comment if there is no address) and `version`
notebooks/      badges in the first cell between `<!-- badges -->` and `<!-- /badges -->`;
                SLUG and TAG in the cell tagged `setup`
"""

import argparse
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import quote

import nbformat

ROOT = Path(__file__).resolve().parents[1]
MARKED = re.compile(r"(<!-- badges ?(\S*) -->)(?:(?!<!-- badges).)*?(<!-- /badges -->)", re.DOTALL)
HOME = re.compile(r"(<!-- home -->\n).*?(<!-- /home -->)", re.DOTALL)
SLUG = r"[\w-]+/[\w.-]+?"
REMOTE = re.compile(rf"(?:\w+://)?(?:[^@/\s]+@)?github\.com[:/]({SLUG})(?:\.git)?/?")
ADDRESS = re.compile(rf"https://github\.com/({SLUG})(?:\.git)?/?")
NO_HOME = """\
Colab and Binder open a chapter once this folder has a public home on GitHub: `make badges REPO=owner/name`, or
`make badges` for the one that `git remote` names: see first that it holds this folder and the tag.
"""
A_HOME = """\
The badges beside the chapters open them in Colab or Binder. The whole folder:
`git clone https://github.com/{slug} small-sample`.
"""


def project(root: Path) -> tuple[str, str]:
    """The slug "owner/name" ("" without an address) and the version in `pyproject.toml`."""
    table = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    address = {name.lower(): value for name, value in table.get("urls", {}).items()}.get("repository")
    if address is None:
        return "", table["version"]
    if not (match := ADDRESS.fullmatch(address.strip())):
        sys.exit(f"pyproject.toml: repository is {address!r}, expected https://github.com/OWNER/NAME")
    return match[1], table["version"]


def of_remote(root: Path) -> str:
    """The slug of the repository on GitHub that `git remote` names, origin first; "" without one."""
    if not (root / ".git").exists():  # or git would answer for a repository around it
        return ""
    asked = ["git", "-C", str(root), "config", "--get-regexp", r"^remote\..*\.url$"]
    lines = subprocess.run(asked, capture_output=True, text=True).stdout.splitlines()
    remotes = sorted((line.split(" ", 1) for line in lines), key=lambda remote: remote[0] != "remote.origin.url")
    return next((match[1] for _, url in remotes if (match := REMOTE.fullmatch(url))), "")


def wanted(root: Path, repo: str | None, slug: str) -> str:
    """The slug to write: what was asked for, else the one of `git remote`, else that of `pyproject.toml`."""
    if repo is None:
        return of_remote(root) or slug
    match = re.fullmatch(rf"(?:https://github\.com/)?({SLUG})(?:\.git)?/?", repo)
    if repo and not match:
        sys.exit(f"--repo is {repo!r}, expected OWNER/NAME")
    return match[1] if match else ""


def settled(text: str, slug: str) -> str:
    """The text of `pyproject.toml` with this repository, or none, as the home of the project."""
    head, title, after = text.partition("[project.urls]\n")
    if not title:
        sys.exit("pyproject.toml: it has no table [project.urls], where the repository belongs")
    urls, mark, rest = after.partition("\n[")
    urls = re.sub(r"^repository\s*=.*\n", "", urls, flags=re.MULTILINE | re.IGNORECASE)
    return head + title + (f'repository = "https://github.com/{slug}"\n' if slug else "") + urls + mark + rest


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
    home = A_HOME.format(slug=slug) if slug else NO_HOME
    text = HOME.sub(lambda match: match[1] + home + match[2], text)
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
    parser.add_argument("--repo", metavar="OWNER/NAME", help="where on GitHub the folder has its public home; '': none")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository to work on")
    options = parser.parse_args()
    slug, version = project(options.root)
    if not options.check:
        slug = wanted(options.root, options.repo, slug)
    texts = {}
    for file in (options.root / "README.md", options.root / "CITATION.cff", *options.root.glob("notebooks/*.ipynb")):
        old = file.read_text(encoding="utf-8")
        if file.suffix == ".ipynb":
            new = refresh_notebook(old, slug, version, name=file.name)
        else:
            new = refresh_text(old, slug, version)
        texts[file] = old, new
    toml = options.root / "pyproject.toml"
    old = toml.read_text(encoding="utf-8")
    texts[toml] = old, old if slug == project(options.root)[0] else settled(old, slug)
    stale = {file: new for file, (old, new) in texts.items() if new != old}
    here = f"{slug or 'no address,'} v{version}"
    names = ", ".join(str(file.relative_to(options.root)) for file in stale) or "nothing"
    if options.check:
        if stale:
            sys.exit(f"{names}: not {here}, as pyproject.toml says; run `make badges`")
        print(f"{here}: nothing differs")
        return
    for file, new in stale.items():
        file.write_text(new, encoding="utf-8", newline="\n")
    print(f"{here}: {names} rewritten")
    if slug and stale:
        print(f"Colab and Binder open the tag v{version}: commit, `git tag v{version}`, `git push origin HEAD --tags`")


if __name__ == "__main__":
    main()
