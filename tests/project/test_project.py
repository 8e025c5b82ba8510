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

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONDA_NAMES = {"torch": "pytorch-cpu", "matplotlib": "matplotlib-base"}


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


def test_readme_tells_the_minutes_and_the_memory_that_the_notebooks_tell():
    rows = re.findall(r"\]\((notebooks/\w+\.ipynb)\)<!-- [^|]+\|[^|]+\| ([\d.]+) \| ([\d.]+ GB) \|", README)
    assert len(rows) == len(list((ROOT / "notebooks").glob("*.ipynb")))
    for file, minutes, memory in rows:
        told = re.search(r"teach ([\d.]+)[^|]*\| ([\d.]+ GB)", prose(ROOT / file)).groups()
        assert told == (minutes, memory), file


def test_readme_and_makefile_name_the_same_targets():
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[1].split()
    texts = [README, (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")]
    named = {target for text in texts for target in re.findall(r"(?:`|^    )make ([a-z]+)", text, re.MULTILINE)}
    assert named <= set(phony)
    assert {"run", "test", "check", "lab"} <= named


def test_no_file_names_a_place_on_one_machine():
    place = re.compile(r"(?<![\w.])/(?:home|Users|root|work|tmp|mnt)/\w+|[A-Z]:\\\\?Users")
    for name, text in tracked_texts().items():
        if name != "tests/project/test_project.py":
            assert not place.search(text), f"{name}: {place.search(text)[0]}"


def test_packages_import_from_another_directory(tmp_path):
    done = run("-c", "import helpers, data_scripts.fetch; print(helpers.__file__)", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == ROOT / "helpers" / "__init__.py"
