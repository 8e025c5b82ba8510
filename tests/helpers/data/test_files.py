"""Which files a folder holds: links, and what is no file; and what is told of private ones."""

import os
from pathlib import Path

import pytest

from helpers.data.readers.files import Unfit, visible, whole


def put(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def names(folder: Path) -> list[str]:
    return [file.relative_to(folder).as_posix() for file in visible(folder)]


def test_linked_folders_are_followed_once(tmp_path):
    root, shared = tmp_path / "root", tmp_path / "shared"
    put(root / "b" / "1.png", shared / "2.png", shared / "deep" / "3.png", root / ".store" / "4.png")
    for link, target in ((root / "a", shared), (root / "c", shared), (root / "d", root / ".store"),
                         (root / "again", root / "b"), (root / "b" / "up", root), (root / "b" / "above", tmp_path),
                         (shared / "circle", shared)):  # fmt: skip
        link.symlink_to(target)
    assert names(root) == ["a/2.png", "a/deep/3.png", "b/1.png", "d/4.png"]
    assert names(root / "a") == ["2.png", "deep/3.png"] and names(tmp_path / "none") == []


def test_what_is_no_file_is_not_there_but_a_dead_link_is(tmp_path):
    put(tmp_path / "1.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "gone.png").symlink_to(tmp_path / "none.png")
    assert names(tmp_path) == ["1.png", "gone.png"]


def test_a_folder_that_cannot_be_opened_is_named(tmp_path, monkeypatch):
    def closed(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(ValueError, match=rf"^'{tmp_path}' cannot be opened: Permission denied$"):
        visible(tmp_path)


@pytest.mark.parametrize(
    ("error", "words"),
    [(KeyError("DOE^JANE"), "a part of it is damaged (KeyError)"), (Unfit("no number"), "no number")],
)
def test_what_a_library_says_of_a_private_file_is_not_passed_on(error, words):
    with pytest.raises(ValueError) as raised, whole(Path("a.dcm"), "a DICOM file", private=True):
        raise error
    assert str(raised.value) == f"'a.dcm' cannot be read as a DICOM file: {words}"
    assert raised.value.__suppress_context__  # else a traceback would print it
    assert raised.value.__cause__ is (error if isinstance(error, Unfit) else None)
