import hashlib

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from helpers.nets.densenet import densenet
from helpers.nets.init import fresh, init_weights


@pytest.fixture
def images() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32))


@pytest.mark.parametrize("name", ["densenet121", "densenet169", "densenet201"])
def test_same_parameters_as_torchvision(name):
    ours, theirs = densenet(name, in_channels=3, classes=1000), getattr(torchvision.models, name)(weights=None)
    expected = {key: value.shape for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in ours.state_dict().items()} == expected


def test_same_logits_as_torchvision_with_its_weights(images):
    theirs = torchvision.models.densenet121(weights=None).eval()
    ours = densenet("densenet121", in_channels=3, classes=1000).eval()
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        assert torch.allclose(ours(images), theirs(images), atol=1e-5)


def test_relu_is_the_tensor_that_is_pooled(images):
    model, seen = densenet(in_channels=3, classes=2).eval(), {}
    for name in ("features", "relu"):
        model.get_submodule(name).register_forward_hook(lambda _m, _i, output, name=name: seen.update({name: output}))
    logits = model(images)
    assert seen["features"].min() < 0  # the ReLU was not applied in place
    assert torch.equal(seen["relu"], seen["features"].relu())
    assert torch.allclose(logits, model.classifier(seen["relu"].mean((2, 3))), atol=1e-6)
    assert not any(module.inplace for module in model.modules() if isinstance(module, nn.ReLU))


def test_small_has_four_resolutions_and_few_parameters():
    model, shapes = densenet().eval(), []
    for block in range(1, 5):
        layer = model.get_submodule(f"features.denseblock{block}")
        layer.register_forward_hook(lambda _m, _i, output: shapes.append(tuple(output.shape[2:])))
    assert model(torch.zeros(1, 1, 96, 128)).shape == (1, 1)
    assert shapes == [(48, 64), (24, 32), (12, 16), (6, 8)]
    assert sum(parameter.numel() for parameter in model.parameters()) == 56_144


def test_weights_come_from_the_seed_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, second, other = densenet(seed=3), densenet(seed=3), densenet(seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    digest = hashlib.sha256(first.features.conv0.weight.detach().numpy().tobytes()).hexdigest()
    assert digest.startswith("632c449ff627")  # the same numbers on every machine


def test_config_builds_the_same_model():
    model = densenet("small", in_channels=2, classes=3, seed=5)
    assert model.config == {"name": "small", "in_channels": 2, "classes": 3, "seed": 5}
    assert torch.equal(densenet(**model.config).classifier.weight, model.classifier.weight)


def test_init_weights_variances_and_norms():
    model = nn.Sequential(nn.Conv2d(8, 256, 3), nn.BatchNorm2d(256), nn.Linear(256, 64))
    model[1].running_mean.fill_(5)
    model[1].weight.data.fill_(5)
    init_weights(model, np.random.default_rng(0))
    conv, norm, linear = model
    assert conv.weight.var().item() == pytest.approx(2 / 72, rel=0.05)
    assert linear.weight.abs().max().item() == pytest.approx(1 / 16, rel=0.01)
    assert linear.weight.var().item() == pytest.approx(1 / 256 / 3, rel=0.05)
    assert all((zero == 0).all() for zero in (conv.bias, linear.bias, norm.running_mean, norm.bias))
    assert (norm.weight == 1).all() and (norm.running_var == 1).all()


def test_a_fresh_network_is_that_of_its_seed_and_torch_draws_nothing():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    model = fresh(lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.PReLU(4)), 3)
    assert torch.equal(torch.get_rng_state(), state)
    expected = init_weights(nn.Sequential(nn.Conv2d(1, 4, 3), nn.PReLU(4)), np.random.default_rng(3))
    assert all(map(torch.equal, model.parameters(), expected.parameters())) and (model[1].weight == 0.25).all()


def test_errors_name_what_was_expected():
    with pytest.raises(ValueError, match="unknown network 'densenet12': expected one of small, densenet121"):
        densenet("densenet12")
    with pytest.raises(TypeError, match="no rule to initialise layer '0' of type Embedding"):
        init_weights(nn.Sequential(nn.Embedding(3, 3)), np.random.default_rng(0))
