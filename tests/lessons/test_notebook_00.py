"""Chapter 00: what it writes out equals the library, its exercises can be solved, it runs on the reader's own files."""

import itertools

import nibabel
import numpy as np
import pytest
from chapter import cells
from nbformat import read
from skimage.transform import resize

from helpers.data import xray
from helpers.runner import run_notebook
from helpers.runs import read_record, repo_root

CHAPTER = repo_root() / "notebooks" / "00_medical_images.ipynb"


def rotation(rng: np.random.Generator, degrees: float) -> np.ndarray:
    x, y, z = (axis := rng.standard_normal(3)) / np.linalg.norm(axis)
    cross, angle = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]), np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_to_ras_equals_nibabel_for_all_orientations(order):
    namespace = {"np": np}
    exec(cells(CHAPTER, "idea")[0], namespace)
    rng = np.random.default_rng(0)
    for signs, degrees in itertools.product(itertools.product((1, -1), repeat=3), (0, 10, 25)):
        affine, volume = np.eye(4), rng.random((3, 4, 5))
        affine[:3, :3] = rotation(rng, degrees) @ (np.eye(3)[:, list(order)] * signs * rng.uniform(0.5, 5, 3))
        affine[:3, 3] = rng.uniform(-100, 100, 3)
        before = affine.copy()
        turned, moved = namespace["to_ras"](volume, affine)
        expected = nibabel.as_closest_canonical(nibabel.Nifti1Image(volume, affine))
        assert np.array_equal(turned, np.asarray(expected.dataobj))
        np.testing.assert_allclose(moved, expected.affine, atol=1e-9)
        assert np.array_equal(affine, before)  # the caller's is left alone


@pytest.mark.parametrize("number", range(3))
def test_a_stub_is_not_yet_right_and_its_solution_is(number, capsys):
    namespace = {"np": np, "resize": resize}
    exec(cells(CHAPTER, "exercise")[number], namespace)
    assert capsys.readouterr().out == "not yet\n"
    exec(cells(CHAPTER, "solution")[number], namespace)
    assert capsys.readouterr().out == "correct\n"


def test_the_notebook_runs_on_the_readers_own_volume(tmp_path):
    voxels = xray(images=6, size=40).images[:, 0].T.astype(np.int16)
    (tmp_path / "own").mkdir()
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-1.0, -1, 4, 1])), tmp_path / "own" / "scan.nii.gz")
    parameters = {"profile": "smoke", "data": "folder", "data_dir": str(tmp_path / "own"), "modality": "mr"}
    record = read_record(run_notebook(CHAPTER, tmp_path / "out", parameters))
    assert record["params"]["modality"] == "mr" and record["params"]["data_dir"] == ""
    figures = [o for cell in read(tmp_path / "out" / CHAPTER.name, 4).cells for o in cell.get("outputs", [])]
    alts = [o.metadata[kind]["alt"] for o in figures for kind in o.get("data", {}) if kind.startswith("image/")]
    assert alts[0].endswith("Above in mr: your own.")  # the first figure shows them, as section 1 says
