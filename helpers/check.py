"""What many functions ask of their arguments."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_one(**arguments: int) -> None:
    """Raises ValueError for the first number below 1."""
    for name, value in arguments.items():
        if value < 1:
            raise ValueError(f"{name} is {value}; expected at least 1")


def wide(values: Tensor) -> Tensor:
    """The values in fp32, or wider if they are: losses add up many small numbers, also under autocast."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
