"""Initial weights, the same on every machine."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn


def fresh(network: Callable[[], nn.Module], seed: int) -> nn.Module:
    """network() with initial weights of its own: neither torch's random state nor time is spent on others."""
    with torch.device("meta"):
        model = network()
    return init_weights(model.to_empty(device="cpu"), np.random.default_rng(seed))


def init_weights(model: nn.Module, rng: np.random.Generator) -> nn.Module:
    """Initialise `model` in place from a NumPy generator, which draws the same numbers on every CPU (torch's does not).

    Convolutions: normal with variance 2 / fan-in (He et al., ICCV 2015, Eq. 10); linear layers: uniform within
    ±1/√fan-in; biases 0; norms 1 and 0, running statistics reset; slopes of PReLU 0.25.
    Raises TypeError for any other layer with parameters.
    """
    constant = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.PReLU)
    for name, module in model.named_modules():
        if isinstance(module, constant):
            module.reset_parameters()
        elif isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)):
            shape, fan_in = module.weight.shape, module.weight[0].numel()
            if isinstance(module, nn.Linear):
                values = rng.uniform(-1, 1, shape) / np.sqrt(fan_in)
            else:
                values = rng.standard_normal(shape) * np.sqrt(2 / fan_in)
            with torch.no_grad():
                module.weight.copy_(torch.from_numpy(values))
                if module.bias is not None:
                    module.bias.zero_()
        elif next(module.parameters(recurse=False), None) is not None:
            raise TypeError(f"no rule to initialise layer {name!r} of type {type(module).__name__}")
    return model
