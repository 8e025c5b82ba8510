"""What a folder holds, and which chapters say that they take it."""

import nbformat
import numpy as np
import pytest
from own_folders import MAKE, NEEDED, save

from helpers.data.takes import KINDS, LEAST, TAKES, check, held
from helpers.runs import repo_root
from helpers.runs.grid import RunError, check_parameters, default_parameters


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_is_told_by_its_names(tmp_path, kind):
    folder = MAKE[kind](tmp_path / kind)
    assert held(folder, **NEEDED.get(kind, {})) == (kind,)
    takers = [name for name, (_, taken) in TAKES.items() if kind in taken]
    given = {"data": "folder", "data_dir": str(folder), **NEEDED.get(kind, {})}
    for chapter in (name for name, (_, kinds) in TAKES.items() if kinds):
        notebook = repo_root() / "notebooks" / f"{chapter}.ipynb"
        if chapter in takers:
            assert check_parameters(notebook, given) == given
            continue
        with pytest.raises(RunError) as refused:
            check_parameters(notebook, given)
        said = str(refused.value)
        assert f"'{kind}' holds {KINDS[kind]}, which chapter" in said and said.count("\n") == 0
        assert all(name[:2] in said.split("which chapter")[1] for name in takers)


@pytest.mark.parametrize("chapter", [chapter for chapter, (_, kinds) in TAKES.items() if not kinds])
def test_a_chapter_without_folders_names_those_that_take_one(tmp_path, chapter):
    with pytest.raises(RunError, match=f"chapter {chapter[:2]} takes no folder yet; chapters 00, 01, 04, .* do"):
        check_parameters(repo_root() / "notebooks" / f"{chapter}.ipynb", {"data": "folder", "data_dir": str(tmp_path)})


@pytest.mark.parametrize("chapter", [chapter for chapter, least in LEAST.items() if least and TAKES[chapter][1]])
def test_a_class_that_a_split_cannot_share_out_is_refused(tmp_path, chapter):
    least = LEAST[chapter]
    given = {"data": "folder", "data_dir": str(MAKE["classes"](tmp_path / "few", abnormal=least - 1))}
    said = f"class 'abnormal' of 'few' has {least - 1} images; chapter {chapter[:2]} needs {least} of each class"
    with pytest.raises(ValueError, match=said):
        check(chapter, given)


def test_classes_and_masks_are_two_kinds(tmp_path):
    folder = MAKE["classes"](tmp_path / "both")
    for file in sorted(folder.rglob("*.png")):
        mask = folder / "masks" / file.relative_to(folder)
        mask.parent.mkdir(parents=True, exist_ok=True)
        mask.write_bytes(file.read_bytes())
    assert held(folder) == ("classes", "masks")


@pytest.mark.parametrize("chapter", TAKES)
def test_a_wrong_word_for_the_data_is_refused(chapter):
    notebook = repo_root() / "notebooks" / f"{chapter}.ipynb"
    with pytest.raises(RunError, match=f"{chapter}: data: got 'nonsense', expected one of {TAKES[chapter][0][0]}"):
        check_parameters(notebook, {"data": "nonsense"})
    source = next(c.source for c in nbformat.read(notebook, 4).cells if "parameters" in c.metadata.get("tags", []))
    words = next(line for line in source.splitlines() if line.startswith("data:")).partition("#")[2]
    assert all(word in words for word in TAKES[chapter][0])
    assert default_parameters(notebook)["data"] in TAKES[chapter][0]


def test_a_folder_without_a_path_is_refused():
    with pytest.raises(ValueError, match="data is 'folder' and data_dir is '', expected the path of your folder"):
        check("01_explanation", {"data": "folder", "data_dir": ""})


def test_notebooks_from_elsewhere_are_not_checked(tmp_path):
    check("mine", {"data": "anything", "data_dir": str(tmp_path)})


@pytest.mark.parametrize("given", [{"data": "phantom"}, {}])
@pytest.mark.parametrize("chapter", ["01_explanation", "03_transfer_learning", "08_label_budget"])
def test_a_folder_that_nothing_would_read_is_refused(tmp_path, chapter, given):
    notebook = repo_root() / "notebooks" / f"{chapter}.ipynb"
    source = default_parameters(notebook)["data"] if not given else "phantom"
    readers = " or ".join(word for word in TAKES[chapter][0] if word not in ("phantom", "sample"))
    said = f"data is '{source}', which reads no folder, but data_dir is '{tmp_path}'; expected data {readers}$"
    with pytest.raises(RunError, match=said):
        check_parameters(notebook, {"data_dir": str(tmp_path), **given})


def test_the_home_folder_is_written_out_before_a_run_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = MAKE["classes"](tmp_path / "own")
    given = {"data": "folder", "data_dir": "~/own"}
    check("01_explanation", given)
    notebook = repo_root() / "notebooks" / "01_explanation.ipynb"
    assert check_parameters(notebook, given) == given | {"data_dir": str(folder)}
    with pytest.raises(RunError, match="data_dir is '~nobody-here', expected a whole path such as '/"):
        check_parameters(notebook, given | {"data_dir": "~nobody-here"})


def test_a_structure_below_0_is_refused(tmp_path):
    given = {"data": "folder", "data_dir": str(MAKE["masks"](tmp_path / "own")), "structure": -1}
    with pytest.raises(RunError, match="08_label_budget: structure is -1; expected a whole number, 0 or more"):
        check_parameters(repo_root() / "notebooks" / "08_label_budget.ipynb", given)


def test_a_class_that_is_named_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"classes names 'normal' twice \(normal, normal\); expected it once"):
        check(
            "01_explanation",
            {"data": "folder", "data_dir": str(MAKE["classes"](tmp_path / "own")), "classes": "normal, normal"},
        )


def test_of_one_patient_the_images_are_counted_as_a_split_divides_them(tmp_path):
    folder = MAKE["classes"](tmp_path / "own", abnormal=4)
    for file in sorted(folder.rglob("*.png")):
        file.rename(file.with_name(f"patient_2024_{file.name}"))
    given = {"data": "folder", "data_dir": str(folder)}
    check("01_explanation", given)
    with pytest.raises(ValueError, match="class 'abnormal' of 'own' has 4 images; chapter 07 needs 5"):
        check("07_domain_knowledge", given)
    next((folder / "abnormal").iterdir()).rename(folder / "abnormal" / "patient_7.png")
    with pytest.raises(ValueError, match="class 'normal' of 'own' has 1 patient; chapter 01 needs 3"):
        check("01_explanation", given)


def test_folders_that_may_be_classes_are_named_before_a_run(tmp_path):
    for name in ("benign", "malignant"):
        save(np.zeros((8, 8), np.uint8), tmp_path / name / "a.png")
    sentence = "if the folders benign, malignant of '.*' are classes, say -p classes \"benign, malignant\", the one to"
    with pytest.raises(ValueError, match=f"chapter 01 takes pictures in classes; {sentence}"):
        check("01_explanation", {"data": "folder", "data_dir": str(tmp_path)})
