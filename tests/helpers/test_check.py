"""What functions ask of their arguments."""

import pytest
import torch

from helpers.check import at_least_one, wide


def test_the_first_number_below_one_is_named():
    at_least_one(width=1, depth=2)
    with pytest.raises(ValueError, match="^depth is 0; expected at least 1$"):
        at_least_one(width=1, depth=0, classes=-1)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_half_precision_becomes_single_and_the_rest_stays(given, expected):
    assert wide(torch.ones(2, dtype=given)).dtype == expected
