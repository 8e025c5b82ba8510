"""Runs: parameters, seeds, claims, and records that are whole or not there."""

import json
import random
import subprocess
from types import SimpleNamespace

import matplotlib.figure
import nbformat
import numpy as np
import pytest
import torch

from helpers import runs
from helpers.runs import ClaimError, code, read_record, replay, repo_root, start_run
from helpers.runs import record as record_module
from helpers.runs import run as run_module
from helpers.runs.record import SCHEMA, keep, read_ledger, record_name, records_in, write_ledger

PARAMS = {"profile": "teach", "seed": 0, "data": "sample", "data_dir": "", "row": ""}
DATA = SimpleNamespace(name="tiny", content_hash=lambda: "abc")


@pytest.fixture(autouse=True)
def restore_torch(monkeypatch, tmp_path):
    """Records go to a temporary folder; torch's settings are put back."""
    monkeypatch.setenv("RUN_DIR", str(tmp_path / "run"))
    monkeypatch.delenv("CLAIMS", raising=False)
    threads, cudnn, tf32 = torch.get_num_threads(), torch.backends.cudnn, torch.backends.cudnn.allow_tf32
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    cudnn.deterministic, cudnn.allow_tf32 = False, tf32


def start(*, checked=None, **changes) -> runs.Run:
    return start_run("05_tiny", PARAMS | changes, choices={"data": ("sample", "phantom")}, checked=checked)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"profile": "tech"}, "profile: got 'tech', expected one of smoke, teach, full"),
        ({"data": "samples"}, "data: got 'samples', expected one of sample, phantom"),
        ({"seed": -1}, "seed: got -1, expected a whole number"),
        ({"seed": True}, "seed: got True, expected a whole number"),
        ({"seed": 2**32}, "seed: got 4294967296, expected a whole number"),
        ({"data_dir": "no/such/folder"}, "data_dir: got 'no/such/folder', expected the path of an existing folder"),
    ],
)
def test_wrong_parameter_is_named(changes, message):
    with pytest.raises(ValueError) as error:
        start(**changes)
    assert str(error.value).startswith(message)


def test_missing_parameter_is_named():
    with pytest.raises(ValueError, match="seed: missing; the parameters are profile"):
        start_run("05_tiny", {"profile": "teach"})
    with pytest.raises(ValueError, match="dat: missing"):
        start(checked={"dat": "sample"})


def test_same_seed_same_numbers_on_a_fixed_number_of_threads():
    def draw(seed):
        start(seed=seed)
        return random.random(), np.random.rand(), torch.rand(1).item()

    first, again, other = draw(1), draw(1), draw(2)
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))
    assert torch.get_num_threads() == 2
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.deterministic


def test_device_is_an_accelerator_only_in_profile_full(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert [start(profile=profile).device.type for profile in runs.PROFILES] == ["cpu", "cpu", "cuda"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert start(profile="full").device.type == "mps"


def test_pick_and_repr():
    assert [start(profile=p).pick(smoke=1, teach=2, full=3) for p in runs.PROFILES] == [1, 2, 3]
    assert repr(start()) == "05_tiny: profile teach, seed 0, on cpu; claims are checked"


def test_a_run_says_first_what_its_numbers_and_sentences_are_about(tmp_path):
    smoke = repr(start(profile="smoke")).splitlines()
    assert smoke[1:] == ["Profile smoke only shows that every cell runs: read no number and no map of it."]
    own = start_run("elsewhere", PARAMS | {"data": "folder", "data_dir": str(tmp_path)})
    assert repr(own).splitlines()[1].startswith("This run reads your folder. Every 'What we see', and what is marked")
    assert len(repr(start()).splitlines()) == 1


@pytest.mark.parametrize(
    ("value", "limits", "line"),
    [
        (0.951, {"reference": 0.97, "atol": 0.02}, "✓ AUC: 0.97 ± 0.02"),
        (0.949, {"reference": 0.97, "atol": 0.02}, None),
        (0.9, {"at_least": 0.9}, "✓ AUC: ≥ 0.9"),
        (0.89, {"at_least": 0.9}, None),
        (torch.tensor(0.5), {"at_least": 0.4, "at_most": 0.6}, "✓ AUC: ≥ 0.4 and ≤ 0.6"),
        (np.float32(0.7), {"at_least": 0.4, "at_most": 0.6}, None),
        (float("nan"), {"reference": 0.5, "atol": 9}, None),
        (float("nan"), {"at_most": 1}, None),
        (float("nan"), {"at_least": 0}, None),
    ],
)
def test_claim(capsys, value, limits, line):
    run = start()
    if line:
        run.claim("AUC", value, **limits)
        assert capsys.readouterr().out == line + "\n"
    else:
        with pytest.raises(ClaimError, match="^AUC: .*expected .*see the README.*make refresh"):
            run.claim("AUC", value, **limits)
        assert capsys.readouterr().out == ""
    assert [claim["holds"] for claim in run.claims] == [line is not None]


@pytest.mark.parametrize(
    "limits", [{}, {"reference": 1}, {"atol": 1}, {"reference": 1, "atol": 1, "at_least": 0}, {"atol": 1, "at_most": 1}]
)
def test_claim_needs_one_kind_of_expectation(limits):
    with pytest.raises(ValueError, match="claim 'AUC': expected either reference and atol, or"):
        start().claim("AUC", 1, **limits)


@pytest.mark.parametrize("value", ["0.9", None, True, 1j, [0.9, 0.8], torch.zeros(2)])
def test_claim_needs_a_number(value):
    run = start()
    with pytest.raises(TypeError, match="claim 'AUC': got .*, expected a real number"):
        run.claim("AUC", value, at_least=0)
    assert run.claims == []


@pytest.mark.parametrize("changes", [{"profile": "smoke"}, {"profile": "full"}, {"seed": 1}, {"data": "phantom"}])
def test_claims_for_other_parameters_are_told_not_checked(capsys, changes):
    run = start(checked={"data": "sample", "seed": 0}, **changes)
    run.claim("AUC", 0.1234, at_least=0.9)
    assert capsys.readouterr().out == "· AUC: 0.1234 (not checked for these parameters; by default ≥ 0.9)\n"
    assert not run.claims[0]["holds"]


def test_refresh_only_reports(capsys, monkeypatch):
    monkeypatch.setenv("CLAIMS", "report")
    run = start(checked={"data": "sample", "seed": 0})
    run.claim("AUC", 0.1234, reference=0.9, atol=0.02)
    assert capsys.readouterr().out == "✗ AUC: 0.1234, expected 0.9 ± 0.02\n"
    assert run.claims[0]["holds"] is False


def test_record_holds_numbers_provenance_and_no_path(tmp_path):
    run = start(row="a", data_dir=str(tmp_path))
    assert not run.folder.exists()
    run.claim("AUC", np.float64(0.95), at_least=0.9)
    metrics = {"auc": np.float32(0.5), "n": np.int64(3), "dice": torch.tensor([0.25, float("nan")]), "hd": float("inf")}
    record = read_record(run.save(metrics, data=DATA))
    assert record["metrics"] == {"auc": 0.5, "n": 3, "dice": [0.25, None], "hd": None}
    assert record["params"] == PARAMS | {"row": "a"}
    assert (record["row"], record["data"]) == ("a", {"name": "tiny", "hash": "abc"})
    assert record["claims"][0] == {
        "text": "AUC",
        "value": 0.95,
        "reference": None,
        "atol": None,
        "at_least": 0.9,
        "at_most": None,
        "holds": True,
    }
    assert record["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert 100 < record["peak_memory_mb"] < 100_000
    assert record["device"].startswith("cpu (")
    assert [path.name for path in run.folder.iterdir()] == ["metrics.json"]


@pytest.mark.parametrize("value", ["0.5", None, {"a": 1}, [[1, 2]], [True], np.zeros((2, 2))])
def test_metric_that_is_no_number_is_named_and_nothing_is_written(value):
    run = start()
    with pytest.raises(TypeError, match="^dice: got "):
        run.save({"auc": 1, "dice": value}, data=None)
    assert not run.folder.exists()


def test_failed_write_leaves_no_record(monkeypatch):
    run = start()
    run.save({"auc": 1}, data=None)
    monkeypatch.setattr(run_module, "write_atomic", lambda path, _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        run.save({"auc": 2}, data=None, model=torch.nn.Linear(1, 1))
    assert list(run.folder.iterdir()) == []  # neither the older record, which would vouch for newer weights


def test_atomic_write_keeps_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(record_module.Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("no")))
        with pytest.raises(OSError, match="no"):
            record_module.write_atomic(path, b"new")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"file": b"old"}


@pytest.mark.parametrize("key", SCHEMA)
def test_record_without_a_key_is_refused(tmp_path, key):
    path = start().save({}, data=None)
    record = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in record.items() if k != key}))
    with pytest.raises(ValueError, match=f"metrics.json: the record has no '{key}'"):
        read_record(path)


def test_record_of_wrong_type_or_no_record_is_refused(tmp_path):
    path = start().save({}, data=None)
    path.write_text(path.read_text().replace('"metrics": {}', '"metrics": 3'))
    with pytest.raises(ValueError, match="metrics.json: the record: 'metrics' is 3, expected dict"):
        read_record(path)
    for text in ("{", "[]"):
        path.write_text(text)
        with pytest.raises(ValueError, match="metrics.json: "):
            read_record(path)


def linear(weight: float) -> torch.nn.Module:
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, weight)
    return model


def weight_of(model) -> dict:
    return {"weight": model.weight.item()}


def test_replay_loads_the_checkpoint_and_compares():
    path = start().save(
        {"weight": 0.5, "list": [1, 2]}, data=None, model=linear(0.5), figure=matplotlib.figure.Figure()
    )
    assert {p.name for p in path.parent.iterdir()} == {"metrics.json", "model.safetensors", "figure.png"}
    record = read_record(path)
    assert replay(record, linear(0), weight_of) == {"weight": 0.5}
    with pytest.raises(ClaimError, match="weight: 0.502 when replayed, 0.5 in the record"):
        replay(record, linear(0), lambda model: {"weight": model.weight.item() + 0.002})
    with pytest.raises(ClaimError, match="weight: nan"):
        replay(record, linear(0), lambda model: {"weight": float("nan")})
    with pytest.raises(ValueError, match="list: the record holds no number of this name"):
        replay(record, linear(0), lambda model: {"list": 1})
    with pytest.raises(ValueError, match="does not fit the model"):
        replay(record, torch.nn.Linear(2, 2), weight_of)


def test_replay_refuses_a_changed_or_missing_checkpoint():
    path = start().save({"weight": 0.5}, data=None, model=linear(0.5))
    weights = path.with_name("model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    with pytest.raises(ValueError, match="model.safetensors: sha256 differs from the record's"):
        replay(read_record(path), linear(0), weight_of)
    with pytest.raises(ValueError, match="kept no checkpoint"):
        replay(read_record(start().save({"weight": 0.5}, data=None)), linear(0), weight_of)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A git repository with a notebook and a helper."""
    for name in ("helpers", "notebooks"):
        (tmp_path / name).mkdir()
    (tmp_path / "helpers" / "used.py").write_text("a = 1")
    cells = [nbformat.v4.new_code_cell("x = 1")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "notebooks" / "05_tiny.ipynb")
    monkeypatch.setattr(run_module, "repo_root", lambda: tmp_path)
    monkeypatch.setattr(code, "repo_root", lambda: tmp_path)
    return tmp_path


def test_record_is_stale_once_code_that_it_ran_changes(repository):
    ledger = repository / "05_tiny.json"
    keep(start().save({}, data=None), ledger)
    assert [(r["name"], r["path"], r["stale"]) for r in records_in(ledger)] == [("teach-sample-seed0", ledger, False)]
    file = repository / "notebooks" / "05_tiny.ipynb"
    file.write_text(file.read_text().replace("x = 1", "x = 2"))
    assert [r["stale"] for r in records_in(ledger)] == [True]


def test_a_ledger_keeps_records_and_weights_and_the_commit_of_their_code(tmp_path):
    ledger = tmp_path / "results" / "05_tiny.json"
    keep(start().save({"weight": 0.5}, data=None, model=linear(0.5), figure=matplotlib.figure.Figure()), ledger)
    keep(start(seed=1).save({"weight": 0.1}, data=None), ledger)
    first, second = records_in(ledger)
    assert {p.name for p in ledger.parent.iterdir() if p.suffix != ".lock"} == {
        "05_tiny.json",
        "05_tiny-teach-sample-seed0.safetensors",
    }
    assert (first["name"], second["name"]) == ("teach-sample-seed0", "teach-sample-seed1")
    assert replay(first, linear(0), weight_of) == {"weight": 0.5}
    assert "figure" not in first and first["metrics"] == {"weight": 0.5}
    assert read_ledger(ledger)["code"] == {first["code"]: {"commit": first["commit"], "verified": ""}}
    keep(start(seed=1).save({"weight": 0.2}, data=None), ledger)  # the same run again takes its place
    assert [r["metrics"]["weight"] for r in records_in(ledger)] == [0.5, 0.2]
    text = ledger.read_text()
    write_ledger(ledger, read_ledger(ledger))
    assert ledger.read_text() == text and text.count('\n"teach-sample-seed') == 2  # a line a run


@pytest.mark.parametrize(
    ("params", "name"),
    [
        ({"profile": "full", "data": "mr", "seed": 1}, "full-mr-seed1"),
        ({"profile": "full", "seed": 0, "row": ""}, "full-none-seed0"),
        ({"profile": "full", "data": "mr", "seed": 0, "model": "unet", "row": ""}, "full-mr-seed0"),
        ({"profile": "full", "data": "mr", "seed": 0, "row": "fs"}, "fs-full-mr-seed0"),
        ({"profile": "full", "data": "mr", "seed": 0, "model": "unet", "row": "fs"}, "fs-unet-full-mr-seed0"),
    ],
)
def test_record_is_named_after_what_tells_runs_apart(params, name):
    assert record_name(params) == name


def test_a_ledger_refuses_runs_of_another_notebook_and_is_left_whole(tmp_path):
    ledger = tmp_path / "06_other.json"
    with pytest.raises(ValueError, match="06_other.json: it is the ledger of 06_other; got a run of 05_tiny"):
        keep(start().save({}, data=None), ledger)
    assert not ledger.exists()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: text[:40], "05_tiny.json: not a readable ledger"),
        (
            lambda text: text.replace('"metrics"', '"metric"'),
            "05_tiny.json: teach-sample-seed0: the record has no 'metrics'",
        ),
        (lambda text: text.replace('"seconds": ', '"seconds": "x", "s": '), "'seconds' is 'x', expected int or float"),
        (lambda text: text.replace('"code": {', '"code": {}, "c": {', 1), "the ledger does not know its code"),
    ],
)
def test_a_broken_ledger_is_named(tmp_path, spoil, message):
    ledger = tmp_path / "05_tiny.json"
    keep(start().save({}, data=None), ledger)
    ledger.write_text(spoil(ledger.read_text()))
    with pytest.raises(ValueError, match=message):
        records_in(ledger)


def test_commit_is_told_with_changes_or_unknown(repository):
    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(("git", "-C", repository, *identity, *arguments), check=True, capture_output=True)

    assert run_module.commit() == "unknown"
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    clean = run_module.commit()
    assert len(clean) == 40
    (repository / "helpers" / "used.py").write_text("x = 2")
    assert run_module.commit() == clean + "+changes"


def test_repo_root_holds_the_package():
    assert (repo_root() / "helpers" / "runs").is_dir()
