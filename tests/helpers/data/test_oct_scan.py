"""One OCT scan with boundaries in MATLAB files: a made-up one of the published layout."""

import numpy as np
import pytest
from scipy.io import savemat

from helpers.data import load
from helpers.data.readers.oct import LAYERS, boundaries, oct_scan

HEIGHT, WIDTH = 60, 20


@pytest.fixture
def scan(tmp_path):
    """Reflectivity 16 at and below the first boundary, an invalid pixel, and what names a person."""
    folder = tmp_path / "octSegmentation-fd5b8c1c" / "datafiles" / "exampleScans"
    folder.mkdir(parents=True)
    first = 10 + np.arange(WIDTH) / 4
    rows = first + 5 * np.arange(9)[:, None]  # as Python counts
    reflected = np.where(np.arange(HEIGHT)[:, None] >= first, 0.0625, 0.0).astype(np.float32)
    reflected[0, 0] = np.finfo(np.float32).max  # the device's mark of what is invalid
    about = dict(ScaleX=0.014, ScaleZ=0.0039, DOB=724000.5, PatientID="K-4711", ScanPosition="OD", SLO=np.eye(4))
    savemat(folder / "circularScan.mat", dict(B0=reflected, **about))
    points = np.array([[1, 20], [11, 16]])
    savemat(folder / "circularScan_0_coordinates.mat", dict(interpolation=rows + 1, points_save=points))
    return tmp_path


def test_the_scan_its_layers_and_nothing_of_a_person(scan):
    data = load("rathke_oct", source="public", data_dir=str(scan))
    assert data.images.shape == (1, 1, HEIGHT, WIDTH) and data.modality == "OCT" and data.licence == "MIT"
    assert data.images[0, 0, 0, 0] == 0 and data.images.max() == 0.5 == data.value_range[1]  # 0.0625 ** 0.25
    assert data.spacing.tolist() == [[0.0039, 0.014]] and data.mask_names == LAYERS and len(LAYERS) == 9
    assert [(data.masks[0, :, 0] == k).sum() for k in range(9)] == [HEIGHT - 40, *[5] * 8]
    assert (data.masks[0, 10:50, 0] == np.repeat(np.arange(1, 9), 5)).all()
    assert ((data.masks[0] > 0) <= (data.images[0, 0] > 0)).all()  # the layers begin where it is bright
    assert "4711" not in repr(data) and "724000" not in repr(data)
    assert load("rathke_oct", source="public", data_dir=str(scan), size=32).images.shape == (1, 1, 32, 32)
    assert np.allclose(boundaries(scan)[0], 10 + np.arange(WIDTH) / 4)


def changed(scan, name, **arrays):
    file = next(scan.rglob(name))
    savemat(file, arrays)
    return file


@pytest.mark.parametrize(
    ("name", "arrays", "message"),
    [
        ("circularScan.mat", dict(C=1), "'circularScan.mat' has no B0; expected B0"),
        ("circularScan.mat", dict(B0=np.zeros((60, 19))), r"shape \(9, 20\) and end at row 54.8; expected .*60, 19"),
        ("circularScan.mat", dict(B0=np.zeros((40, 20))), r"end at row 54.8; expected .* within a scan of \(40, 20\)"),
        ("circularScan_0_coordinates.mat", dict(interpolation=np.ones((3, 20))), r"shape \(3, 20\); expected \(9, col"),
        ("circularScan_0_coordinates.mat", dict(interpolation=np.full((9, 20), np.nan)), "expected .* from row 1"),
        (
            "circularScan_0_coordinates.mat",
            dict(interpolation=np.arange(50, 5, -5)[:, None] + np.zeros(20)),
            "cross one another",
        ),
    ],
)  # fmt: skip
def test_files_that_do_not_fit_are_named(scan, name, arrays, message):
    changed(scan, name, **arrays)
    with pytest.raises(ValueError, match=message):
        oct_scan(scan)


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_a_damaged_or_missing_file_is_named(scan, share):
    file = next(scan.rglob("circularScan.mat"))
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(ValueError, match=rf"^('{file}' cannot be read as a MATLAB file|'circularScan.mat' has no B0)"):
        oct_scan(scan)
    file.unlink()
    with pytest.raises(ValueError, match=r"^there is no 'circularScan.mat' in"):
        oct_scan(scan)


def test_sizes_that_are_not_there_are_unknown(scan):
    changed(scan, "circularScan.mat", B0=np.zeros((HEIGHT, WIDTH), np.float32))
    assert oct_scan(scan).spacing is None
