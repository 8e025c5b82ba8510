"""The registry of public data sets, and the command that brings them or says how."""

import csv
import re
import zipfile
from collections import Counter
from dataclasses import fields

import pytest

from data_scripts.fetch import main
from helpers.data import READERS
from helpers.data.download import FetchError
from helpers.data.fetch import bring
from helpers.data.registry import PUBLIC, PublicSet, read_public, read_registry, verify

MODALITIES = {"fundus", "OCT", "ultrasound", "histopathology", "MR", "X-ray", "CT"}


def made_up(**changes) -> PublicSet:
    row = dict.fromkeys((f.name for f in fields(PublicSet)), "")
    row |= {"name": "made-up", "task": "nothing", "layout": "images/*.png list.csv", "how": "ask its authors"}
    return PublicSet(**row | {"landing": "https://example.org", "terms": "CC0"} | changes)


def test_every_modality_has_at_least_two_sets():
    found = Counter(s.modality for s in read_public().values())
    assert set(found) == MODALITIES and min(found.values()) >= 2, found


def test_rows_are_complete():
    names = [row["name"] for row in csv.DictReader(PUBLIC.open(encoding="utf-8"))]
    assert len(set(names)) == len(names) and not set(names) & {s.name for s in read_registry()}
    for found in read_public().values():
        assert all((found.task, found.landing.startswith("https://"), found.layout, found.citation)), found.name
        assert found.reader in READERS, f"{found.name}: no reader is called {found.reader}"
        assert found.how or found.url, f"{found.name}: neither a link nor how to get it"
        if found.url:
            assert found.url.startswith("https://") and found.file, found.name
            assert found.second_url.startswith("https://") or not found.second_url, found.name
            assert re.fullmatch("(sha256:[0-9a-f]{64}|md5:[0-9a-f]{32})?", found.checksum), found.name
            assert all(re.fullmatch(r"\d*", text) for text in (found.bytes, found.unpacked_bytes)), found.name
            is_archive = found.file.endswith((".zip", ".tar", ".gz"))
            assert bool(found.unpacked_bytes) == is_archive, f"{found.name}: unpacked_bytes is what unpacks an archive"


def test_a_complete_folder_is_verified_and_what_is_missing_named(tmp_path):
    with pytest.raises(FetchError, match="is no folder; expected one with images/"):
        verify(made_up(), tmp_path / "nowhere")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").touch()
    with pytest.raises(FetchError, match="is not the layout of made-up: nothing matches list.csv$"):
        verify(made_up(), tmp_path)
    (tmp_path / "list.csv").touch()
    verify(made_up(), tmp_path)


def test_without_a_link_the_reader_is_told_what_to_do(tmp_path):
    lines = []
    bring(made_up(), tmp_path / "made-up", report=lines.append)
    assert lines == [
        "made-up: nothing; terms: CC0; https://example.org",
        "there is no direct link: ask its authors; then: python -m data_scripts.fetch made-up --data-dir PATH",
    ]
    assert not (tmp_path / "made-up").exists()


def packed(tmp_path, *names):
    with zipfile.ZipFile(tmp_path / "served.zip", "w") as archive:
        for name in names:
            archive.writestr(name, b"content")
    return (tmp_path / "served.zip").read_bytes()


def serve(monkeypatch, content):
    """Let every download receive these bytes."""
    monkeypatch.setattr(
        "helpers.data.fetch.download", lambda urls, target, **_: (target.write_bytes(content), target)[1]
    )


def test_an_archive_is_brought_unpacked_verified_and_removed(tmp_path, monkeypatch):
    serve(monkeypatch, packed(tmp_path, "images/a.png", "list.csv"))
    lines, cache = [], tmp_path / "cache"
    cache.mkdir()
    asked = made_up(url="https://example.org/a.zip", file="a.zip", unpacked_bytes="100")
    for _ in range(2):
        bring(asked, cache / "made-up", report=lines.append)
    assert lines[-1] == f"made-up is complete in {cache / 'made-up'}; ask its authors"
    assert [f.name for f in cache.iterdir()] == ["made-up"]


def test_an_archive_that_lacks_a_part_is_not_kept_as_if_whole(tmp_path, monkeypatch):
    serve(monkeypatch, packed(tmp_path, "list.csv"))
    (tmp_path / "cache").mkdir()
    asked = made_up(url="https://example.org/a.zip", file="a.zip", unpacked_bytes="100")
    with pytest.raises(FetchError, match="nothing matches images/"):
        bring(asked, tmp_path / "cache" / "made-up", report=lambda line: None)


def test_a_single_file_that_could_not_be_brought_is_asked_for_again(tmp_path, monkeypatch):
    def fail(urls, target, **_):
        target.parent.mkdir(parents=True, exist_ok=True)
        raise FetchError("no network")

    monkeypatch.setattr("helpers.data.fetch.download", fail)
    asked = made_up(url="https://example.org/a.npz", file="a.npz", layout="a.npz")
    for _ in range(2):
        with pytest.raises(FetchError, match="no network"):
            bring(asked, tmp_path / "made-up", report=lambda line: None)


def test_an_archive_that_cannot_be_unpacked_is_thrown_away(tmp_path, monkeypatch):
    serve(monkeypatch, b"no archive")
    asked = made_up(url="https://example.org/a.zip", file="a.zip", unpacked_bytes="100")
    with pytest.raises(FetchError, match="a.zip is neither a zip nor a tar archive"):
        bring(asked, tmp_path / "made-up", report=lambda line: None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["medmnist-none"], ["xray", "--data-dir", "."]])
def test_unknown_names_end_with_one_sentence(arguments, capsys):
    with pytest.raises(SystemExit):
        main(arguments)


def test_the_command_verifies_a_folder(tmp_path, capsys):
    name, found = next(iter(read_public().items()))
    with pytest.raises(SystemExit, match=f"error: .* is not the layout of {name}"):
        main([name, "--data-dir", str(tmp_path)])
