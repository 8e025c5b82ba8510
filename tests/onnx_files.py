"""ONNX files, written byte by byte: a protobuf of arrays and of nodes."""

import numpy as np


def integer(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value % 128 + 128]) + integer(value // 128)


def field(number: int, value: int | str | bytes) -> bytes:
    """A field of a protobuf message: an integer, or bytes with their length."""
    if isinstance(value, int):
        return integer(number << 3) + integer(value)
    value = value.encode() if isinstance(value, str) else value
    return integer(number << 3 | 2) + integer(len(value)) + value


def array(name: str, values: np.ndarray, kind: int = 1) -> bytes:
    shape = b"".join(field(1, side) for side in values.shape)
    return field(5, shape + field(2, kind) + field(8, name) + field(9, values.tobytes()))


def product(second: str, name: str, kind: str = "MatMul") -> bytes:
    return field(1, field(1, "x") + field(1, second) + field(2, "y") + field(3, f"{name}/{kind}") + field(4, kind))


def graph(*parts: bytes) -> bytes:
    return (
        field(1, 7)
        + field(2, "torch")
        + field(7, b"".join(parts) + field(2, "graph"))
        + b"\x09"
        + bytes(8)
        + b"\x0d"
        + bytes(4)
    )
