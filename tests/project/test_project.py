"""What must agree between the files of the project: slug, version, dependencies, and where things may be used from."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml
from chapter import prose
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from helpers.data import takes

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    name: (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("index.md", "running.md", "own_scans.md")
}
CONDA_NAMES = {"torch": "pytorch-cpu", "matplotlib": "matplotlib-base"}
KINDS = {  # as the README calls them
    "two classes": "classes",
    "more classes": "more classes",
    "images with masks": "masks",
    "a DICOM series": "series",
    "volumes with masks": "volumes",
    "images alone": "pictures",
    "volumes alone": "volume",
}


def ranges() -> dict[str, Requirement]:
    """Every direct dependency of the project, extras included."""
    lines = [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


def pins() -> list[Requirement]:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    stripped = (line.split("#")[0].strip() for line in lines)
    return [Requirement(line) for line in stripped if line]


def run(*arguments, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=cwd, capture_output=True, text=True)


def tracked_texts() -> dict[str, str]:
    """The text files that git tracks, or will once they are added."""
    git = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    files = {name: (ROOT / name).read_bytes() for name in names if (ROOT / name).is_file()}
    return {name: data.decode() for name, data in files.items() if b"\0" not in data}


def test_requirements_pin_every_direct_dependency_within_its_range():
    pinned = {}
    for pin in pins():
        assert [s.operator for s in pin.specifier] == ["=="], f"{pin} is no exact version"
        pinned.setdefault(canonicalize_name(pin.name), []).append(next(iter(pin.specifier)).version)
    for name, wanted in ranges().items():
        assert name in pinned, f"{name} is missing in requirements.txt; run `make lock`"
        assert all(v in wanted.specifier for v in pinned[name]), f"{name} {pinned[name]} is outside {wanted.specifier}"


def test_ranges_let_a_hosted_notebook_keep_its_torch():
    wanted = ranges()
    for version in ("2.6.0", "2.9.1", "2.14.1"):
        assert version in wanted["torch"].specifier
    assert "2.5.1" not in wanted["torch"].specifier
    assert "1.26.4" not in wanted["numpy"].specifier
    assert all(s.operator == ">=" for r in wanted.values() for s in r.specifier), (
        "a range must not exclude what is newer"
    )


def test_environment_asks_for_the_same_ranges_as_pyproject():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    for line in PROJECT["dependencies"]:
        wanted = Requirement(line)
        assert f"{CONDA_NAMES.get(wanted.name, wanted.name)}{wanted.specifier}" in conda


def test_citation_names_the_version_of_the_project():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"]
    assert citation.get("repository-code") == PROJECT["urls"].get("repository")


def test_one_slug_everywhere():
    done = run("tools/badges.py", "--check")
    assert done.returncode == 0, done.stderr


def test_readme_lists_the_notebooks_that_exist():
    listed = set(re.findall(r"\]\((notebooks/\w+\.ipynb)\)", README))
    assert listed == {f"notebooks/{file.name}" for file in (ROOT / "notebooks").glob("*.ipynb")}
    assert README.count("<!-- badges ") == len(listed)


def test_the_first_page_is_short_and_opens_with_a_picture_and_three_doors():
    assert len(README.splitlines()) <= 120
    places = [README.index(text) for text in ("](docs/_static/front.png)", "not a medical device", "## Three doors")]
    doors = [README.index(f"\n    make {target}") for target in ("book", "lab", "look", "run", "test")]
    assert sorted(places + doors) == places + doors


def test_the_first_pages_lead_somewhere_and_their_pictures_are_there():
    for folder, text in ((ROOT, README), (ROOT / "docs", PAGES["index.md"])):
        links = re.findall(r"(!?)\[([^][]*)\]\(([^)\s]+)\)", text)
        links += [("", "", target) for target in re.findall(r"\)\]\(([^)\s]+)\)", text)]  # of a picture that is a link
        inside = [(mark, alt, target) for mark, alt, target in links if "://" not in target]
        assert len(inside) > 15
        for mark, alt, target in inside:
            name, _, anchor = target.partition("#")
            place = folder / name if name else folder / "README.md"
            if folder != ROOT and name.endswith(".ipynb"):  # side by side on the site
                place = ROOT / "notebooks" / name
            assert place.is_file(), target
            assert not mark or len(alt.split()) > 8, f"{target}: no text for who cannot see it"
            titles = re.findall(r"^#+ (.+)$", place.read_text(encoding="utf-8"), re.M) if anchor else []
            assert not anchor or anchor in {re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-") for t in titles}, target


def test_every_chapter_has_a_picture_on_the_front_page_of_the_site():
    chapters = {file.stem for file in (ROOT / "notebooks").glob("*.ipynb")}
    assert set(re.findall(r"\]\(_static/(\w+)\.jpg\)\]\(\1\.ipynb\)", PAGES["index.md"])) == chapters
    pictures = list((ROOT / "docs" / "_static").glob("*.jpg"))
    assert {file.stem for file in pictures} == chapters
    assert all(file.stat().st_size <= 60_000 for file in pictures)
    assert sum(file.stat().st_size for file in (ROOT / "docs" / "_static").iterdir()) <= 700_000


def test_the_minutes_and_the_memory_are_those_that_the_notebooks_tell():
    rows = re.findall(r"^\| (\d\d\w?) [^|]+\| ([\d.]+) \| ([\d.]+ GB) \|", PAGES["running.md"], re.M)
    notebooks = {file.name.partition("_")[0]: file for file in (ROOT / "notebooks").glob("*.ipynb")}
    assert [number for number, _, _ in rows] == sorted(notebooks)
    for number, minutes, memory in rows:
        told = re.search(r"teach ([\d.]+)[^|]*\| ([\d.]+ GB)", prose(notebooks[number])).groups()
        assert told == (minutes, memory), number


def test_the_readme_tells_which_chapter_takes_which_folder():
    assert set(KINDS.values()) == set(takes.KINDS)
    head, _, *rows = re.search(r"^\| chapter \| two classes .*\n(?:\|.*\n)+", README, re.M)[0].splitlines()
    kinds = [KINDS[name] for name in re.split(r" *\| *", head.strip("| "))[1:]]
    told = {}
    for chapter, *cells in (re.split(r" *\| *", row.strip("| ")) for row in rows):
        assert len(cells) == len(kinds) and set(cells) <= {"yes", "–"}, chapter
        told[chapter] = {kind for kind, cell in zip(kinds, cells, strict=True) if cell == "yes"}
    assert told == {name.partition("_")[0]: set(kinds) for name, (_, kinds) in takes.TAKES.items()}


def test_every_chapter_says_what_becomes_of_a_folder():
    table = PAGES["own_scans.md"].partition("## What each chapter does")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d[\w, ]+) \| (.+) \|$", table, re.M)
    said = {number: what for numbers, what in rows for number in numbers.split(", ")}
    wanted = {name.partition("_")[0]: bool(kinds) for name, (_, kinds) in takes.TAKES.items()}
    assert {number: what != "take no folder yet" for number, what in said.items()} == wanted


def test_the_workflow_does_what_runs_elsewhere_and_says_that_it_is_untried():
    text = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    (job,) = yaml.safe_load(text)["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run", "make book"]
    assert text.startswith("# Untried:")
    untried = (ROOT / "docs" / "machines.md").read_text(encoding="utf-8").partition("## What was not tried")[2]
    assert "GitHub's workflow" in untried and "not tried" in README


def test_readme_and_makefile_name_the_same_targets():
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[1].split()
    files = [ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    texts = [README, *(file.read_text(encoding="utf-8") for file in files)]
    named = {target for text in texts for target in re.findall(r"(?:`|^    )make ([a-z]+)", text, re.MULTILINE)}
    assert named <= set(phony)
    assert {"run", "test", "check", "lab", "look", "book", "badges"} <= named


def test_no_file_names_a_place_on_one_machine():
    place = re.compile(r"(?<![\w.])/(?:home|Users|root|work|tmp|mnt)/\w+|[A-Z]:\\\\?Users")
    for name, text in tracked_texts().items():
        if name != "tests/project/test_project.py":
            assert not place.search(text), f"{name}: {place.search(text)[0]}"


def test_packages_import_from_another_directory(tmp_path):
    done = run("-c", "import helpers, data_scripts.fetch; print(helpers.__file__)", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == ROOT / "helpers" / "__init__.py"
