"""Tensors that several tests draw."""

import torch


def noise(*shape, seed=0) -> torch.Tensor:
    """Normal numbers in float64, for gradients; the same for the same seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
