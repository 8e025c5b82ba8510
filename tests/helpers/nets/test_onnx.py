"""A small reader of ONNX files, on files that are written here byte by byte."""

import numpy as np
import pytest
from onnx_files import array, field, graph, product

from helpers.nets.onnx import weights


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_arrays_by_name_and_matrices_by_that_of_their_product(tmp_path):
    bias, matrix, counts = drawn(300), drawn(2, 3), np.arange(4)
    nodes = product("onnx::MatMul_7", "/net/layer.0/fc"), product("bias", "/net/x"), product("onnx::A", "/a", "Add")
    arrays = array("bias", bias), array("onnx::MatMul_7", matrix), array("onnx::A", bias[:5])
    (tmp_path / "net.onnx").write_bytes(graph(*nodes, *arrays, array("n", counts, kind=7)))
    found = weights(tmp_path / "net.onnx")
    assert set(found) == {"bias", "net.layer.0.fc.weight", "onnx::A"}
    np.testing.assert_array_equal(found["bias"], bias)
    np.testing.assert_array_equal(found["net.layer.0.fc.weight"], matrix.T)
    assert found["net.layer.0.fc.weight"].flags.c_contiguous


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no protobuf",
        graph(array("a", drawn(9)))[:-30],
        graph(array("a", drawn(9)).replace(b"\x08\x09", b"\x08\x08")),
        graph(field(5, field(2, 1) + field(8, "elsewhere") + field(1, 4))),
    ],
)
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "other.onnx").write_bytes(content)
    with pytest.raises(ValueError, match=r"other.onnx: no ONNX file that can be read \(.+\); expected"):
        weights(tmp_path / "other.onnx")
