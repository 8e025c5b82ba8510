"""Pretrained networks by name: the same numbers as torchvision's, a new last layer, weights that are not unpickled."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from helpers.nets import backbones
from helpers.nets.backbones import build, frozen_features
from helpers.transfer import layerwise

SMALL = "shufflenet_v2_x0_5"


def images(channels: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).random((2, channels, 64, 64), np.float32))


@pytest.fixture
def published(monkeypatch):
    """Stands for torchvision's site: the network whose weights it gives, and how it was asked."""
    torch.manual_seed(5)
    network, asked = models.get_model(SMALL, weights=None), []

    def load(url, **options):
        asked.append((url, options))
        return network.state_dict()

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", load)
    return network.eval(), asked


def test_features_and_logits_are_those_of_torchvision_on_normalised_images(published):
    network, _ = published
    model = build(SMALL, classes=4).eval()
    mean, std = (torch.tensor(value)[:, None, None] for value in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        features = model.features(images())
        torch.testing.assert_close(network.fc(features), network((images() - mean) / std))
        torch.testing.assert_close(model(images()), model.last(features))
    assert model(images()).shape == (2, 4)


def test_frozen_features_are_those_of_the_backbone_in_evaluation():
    model = build(SMALL, weights=False).train()
    found = frozen_features(model, images(1), batch_size=1)
    assert model.training and found.shape == (2, 1024)
    with torch.no_grad():
        np.testing.assert_allclose(found, model.eval().features(images(1)), rtol=1e-4, atol=1e-5)
        enlarged = torch.nn.functional.interpolate(images(1)[..., :20, :20], size=64, mode="bilinear")
        small = frozen_features(model, images(1)[..., :20, :20])
        np.testing.assert_allclose(small, model.features(enlarged), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="no images; expected at least one"):
        frozen_features(model, images()[:0])


def test_weights_are_checked_and_never_unpickled(published):
    _, asked = published
    build(SMALL)
    ((url, options),) = asked
    assert url == models.get_model_weights(SMALL).DEFAULT.url
    assert options["weights_only"] and options["check_hash"]


def test_one_channel_is_seen_as_three():
    model = build(SMALL, weights=False).eval()
    grey = images(1)
    torch.testing.assert_close(model(grey), model(grey.repeat(1, 3, 1, 1)))


def test_the_seed_decides_and_the_random_state_of_torch_stays():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, same, other = (build(SMALL, weights=False, classes=2, seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["last.weight"], other["last.weight"])
    assert not torch.equal(one["network.conv1.0.weight"], other["network.conv1.0.weight"])


def test_the_network_of_the_samples_has_its_own_name():
    model = build("efficientnet_lite0", weights=False, classes=3, seed=2)
    assert model.config == {"weights": False, "classes": 3, "seed": 2}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet19", "backbone is 'resnet19'; expected 'efficientnet_lite0' or a classifier of torchvision"),
        ("fcn_resnet50", "backbone is 'fcn_resnet50'; expected"),
        ("squeezenet1_1", "squeezenet1_1 ends in AdaptiveAvgPool2d; expected a linear layer"),
    ],
)
def test_what_is_no_classifier_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        build(name, weights=False)


@pytest.mark.parametrize("name", [SMALL, "resnet18", "efficientnet_lite0"])
def test_stages_run_from_input_to_output_and_hold_all_but_the_last_layer(name):
    model = build(name, weights=False, classes=2)
    named = [part for stage in model.stages() for part in stage]
    inside = [key for part in named for key, _ in model.get_submodule(part).named_parameters(prefix=part)]
    last = [key for key, _ in model.named_parameters() if key.startswith(("last.", "_fc."))]
    assert sorted(inside + last) == sorted(key for key, _ in model.named_parameters())
    assert len(last) == 2 and len(model.stages()) > 4
    seen = []
    for part in named:
        model.get_submodule(part).register_forward_hook(lambda *_, part=part: seen.append(part))
    model.eval()(images())
    assert seen == named


def test_a_large_part_that_cannot_be_divided_stays():
    model = backbones.Backbone("made up", nn.Sequential(nn.Linear(1, 1), nn.Linear(9, 9), nn.Linear(1, 1)), classes=2)
    assert model.stages() == [["network.0"], ["network.1"]]


def test_rates_fall_from_the_last_layer_to_the_first():
    model = layerwise(build("resnet18", weights=False, classes=2), decay=0.5)
    rates = {name: module.rate for name, module in model.named_modules() if hasattr(module, "rate")}
    values = list(dict.fromkeys(rates.values()))
    assert values == sorted(values) and values[-1] == 0.5 and len(values) == len(model.stages())
    assert not any(name.startswith("last") for name in rates)
