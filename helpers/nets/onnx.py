"""The weights in an ONNX file, read without ONNX: the file is a protobuf, and nothing in it is executed."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

FLOAT = 1  # the data type of TensorProto that is read


def weights(file: Path) -> dict[str, np.ndarray]:
    """The float32 arrays of the graph by their names.

    A matrix is exported without its name, as its transpose: it gets the name of the product that it is used in, as
    "block.0.mlp.fc1.weight", and the shape of a linear layer's weight, (outputs, inputs).
    Raises ValueError for what is no ONNX file, or one with its weights elsewhere. Source: onnx.proto, ONNX 1.17.
    """
    arrays, products = {}, {}
    try:
        (graph,) = (value for number, value in _fields(memoryview(file.read_bytes())) if number == 7)
        for number, value in _fields(graph):
            if number == 5:
                arrays |= _array(value)
            elif number == 1:
                products |= _product(value)
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{file}: no ONNX file that can be read ({error}); expected one that holds float32") from error
    turned = {products[name]: np.ascontiguousarray(arrays.pop(name).T) for name in [*arrays] if name in products}
    return arrays | turned


def _array(tensor: memoryview) -> dict[str, np.ndarray]:
    fields = list(_fields(tensor))
    found = dict(fields)
    if found.get(2) != FLOAT:
        return {}
    shape = [value for number, value in fields if number == 1]
    return {str(found[8], "utf-8"): np.frombuffer(found[9], "<f4").reshape(shape)}


def _product(node: memoryview) -> dict[str, str]:
    """Of a product of matrices, the name of the second one and what it is called by the node."""
    fields = [(number, str(value, "utf-8")) for number, value in _fields(node) if number in (1, 3, 4)]
    inputs, found = [value for number, value in fields if number == 1], dict(fields)
    if found.get(4) != "MatMul" or not inputs[1].startswith("onnx::"):
        return {}
    return {inputs[1]: found[3].strip("/").removesuffix("/MatMul").replace("/", ".") + ".weight"}


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a protobuf message: an integer, or bytes."""
    at = 0
    while at < len(message):
        key, at = _integer(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _integer(message, at)
        elif kind in (1, 2, 5):
            size, at = _integer(message, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            value, at = message[at : at + size], at + size
        if kind not in (0, 1, 2, 5) or at > len(message):
            raise ValueError(f"a field of kind {kind} ends at byte {at} of {len(message)}")
        yield key >> 3, value


def _integer(message: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where it ends."""
    number, shift = 0, 0
    while True:
        number |= (message[at] & 127) << shift
        if message[at] < 128:
            return number, at + 1
        at, shift = at + 1, shift + 7
