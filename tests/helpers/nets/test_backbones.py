"""Pretrained networks by name: the same numbers as torchvision's, a new last layer, weights that are not unpickled."""

import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import models

from helpers.nets import backbones
from helpers.nets.backbones import build, features, frozen_features
from helpers.nets.dinov2 import vit_s14_saliency
from helpers.nets.segmenters import unet
from helpers.nets.vit import vit
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


@pytest.fixture(autouse=True)
def cache(request, tmp_path, monkeypatch):
    """Features of a test are kept for it alone; the weights are those of the samples."""
    if "features" in request.node.name:
        monkeypatch.setattr(backbones, "cache_dir", lambda: tmp_path)
    return tmp_path / "features"


def hooked(model: nn.Module, name: str, x: torch.Tensor) -> torch.Tensor:
    """What a module gives while the whole network runs."""
    found = []
    model.get_submodule(name).register_forward_hook(lambda _, __, out: found.append(out.clone()))
    with torch.no_grad():
        model.eval()(x)
    return found[0]


def close(found: np.ndarray, expected: torch.Tensor) -> None:
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-4, atol=1e-4)


STAGES = [(32, 32), (16, 32), (24, 16), (40, 8), (80, 4), (112, 4), (192, 2), (320, 2), (1280, 2)]


@pytest.mark.parametrize(("stage", "shape"), list(enumerate(STAGES)))
def test_features_of_every_stage(stage, shape):
    model = build("efficientnet_lite0").train()
    found = features(images(1), model, layer=stage, form="map", size=None, batch_size=1)
    assert model.training and found.shape == (2, shape[0], shape[1], shape[1])
    expected = hooked(model, model.stages()[stage][-1], images(1))
    close(found, expected)
    close(features(images(1), model, layer=stage, size=None), expected.mean((2, 3)))


def test_features_by_name_are_what_the_last_layer_gets_of_images_of_224_pixels():
    found = features(images(), "efficientnet_lite0")
    resized = F.interpolate(images(), size=(224, 224), mode="bilinear", antialias=True)
    close(found, torch.from_numpy(frozen_features(build("efficientnet_lite0"), resized)))
    small = F.interpolate(images(), size=(32, 32), mode="bilinear", antialias=True)
    close(features(images(), "efficientnet_lite0", size=32), build("efficientnet_lite0").eval().features(small))


@pytest.mark.parametrize("block", [1, 2, 3])
def test_features_of_every_block(block):
    x = images()[..., :48]
    model = vit(size=16, patch=8, in_channels=3, dim=8, depth=3, heads=2, class_token=True, layer_scale=1.0)
    tokens = model.tokens(x)
    for layer in model.blocks[:block]:
        tokens = layer(tokens)
    options = dict(layer=block, size=None)
    close(features(x, model.eval(), form="class", **options), tokens[:, 0])
    assert not model.training
    close(features(x, model, **options), tokens[:, 1:].mean(1))
    close(features(x, model, form="map", **options), tokens[:, 1:].view(2, 8, 6, 8).permute(0, 3, 1, 2))


def test_features_of_a_vit_without_a_class_token_and_without_a_layer_are_those_of_its_last_block():
    model = vit(size=16, patch=8, in_channels=3, dim=8, depth=2, heads=2)
    tokens = model.blocks[1](model.blocks[0](model.tokens(images())))
    close(features(images(), model, size=None), tokens.mean(1))
    with pytest.raises(ValueError, match="form is 'class' of layer 2, which gives .*; expected mean or map"):
        features(images(), model, form="class", size=None)


def test_features_of_the_vit_by_name_are_of_its_eighth_block():
    found = features(images()[:1], "vit_s14_saliency", size=28)
    assert found.shape == (1, 384)
    np.testing.assert_array_equal(found, features(images()[:1], vit_s14_saliency(depth=9), layer=8, size=28))
    later = features(images()[:1], "vit_s14_saliency", layer=9, form="map", size=28)
    assert later.shape == (1, 384, 2, 2) and not np.allclose(later.mean((2, 3)), found)


def test_features_of_any_module_by_its_name():
    model = unet(classes=2, width=4)
    name = next(name for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    close(features(images(1), model, layer=name, form="map", size=None), hooked(model, name, images(1)))
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 5), nn.ReLU())
    close(features(images(), flat, layer="1", size=None), hooked(flat, "1", images()))


def test_features_need_no_more_than_the_layers_before():
    model, seen = build("efficientnet_lite0", weights=False), []
    model._blocks[3].register_forward_hook(lambda *_: seen.append("later"))
    features(images(), model, layer=2, size=None)
    assert seen == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(layer=9), "layer is 9; expected one of 0, 1, 2, 3, 4, 5, 6, 7, 8 or the name of a module"),
        (dict(layer="no"), "layer is 'no'; expected one of 0, 1"),
        (dict(form="map"), r"form is 'map' of layer None, which gives \(2, 1280\); expected mean"),
        (dict(layer=2, form="class"), "form is 'class' of layer 2, .*; expected mean or map"),
        (dict(layer="_fc", form="sum"), "form is 'sum' of layer '_fc', .*; expected mean"),
    ],
)
def test_features_that_there_are_not(options, message):
    model = build("efficientnet_lite0", weights=False).train()
    with pytest.raises(ValueError, match=message):
        features(images(), model, size=None, **options)
    assert model.training
    with pytest.raises(ValueError, match="no images; expected at least one"):
        features(images()[:0], model)


class Counted(nn.Module):
    """A network that counts how often it runs."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.runs = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), 0

    def forward(self, x):
        self.runs += 1
        return self.norm(self.first(x))


def test_features_are_kept_by_content(cache):
    model, x = Counted(), images()

    def ran(x=x, **options) -> bool:
        before, settings = model.runs, dict(layer="norm", size=None) | options
        first = features(x, model, **settings)
        new, counted = model.runs > before, model.runs
        np.testing.assert_array_equal(features(x.clone(), model, **settings), first)
        assert model.runs == counted
        return new

    assert ran() and not ran()
    changed = x.clone()
    changed[1, 2, 3, 4] += 1e-3
    assert ran(changed) and ran(form="map") and ran(layer="first") and ran(size=40) and not ran()
    with torch.no_grad():
        model.first.weight[0, 0, 0, 0] += 1e-3
    assert ran()
    model.norm.running_mean[2] += 1e-3
    assert ran()
    features(x, model, layer="norm", size=None, cache=False)
    assert model.runs == 8 and len(list(cache.iterdir())) == 7


def test_features_that_are_damaged_are_made_again(cache):
    model = Counted()
    first = features(images(), model, layer="norm", size=None)
    (kept,) = cache.iterdir()
    kept.write_bytes(kept.read_bytes()[:140])
    np.testing.assert_array_equal(features(images(), model, layer="norm", size=None), first)
    assert model.runs == 2 and [*cache.iterdir()] == [kept]


def test_features_of_a_network_whose_code_is_in_no_file_are_not_kept(cache, monkeypatch):
    monkeypatch.setattr(Counted, "__module__", "__nowhere__")
    model = Counted()
    for _ in range(2):
        features(images(), model, layer="norm", size=None)
    assert model.runs == 2 and not cache.exists()


def test_features_that_were_not_read_for_longest_make_room(cache, monkeypatch):
    model, options = Counted(), dict(layer="norm", size=None)
    old, newer, newest = images(), 1 - images(), images() / 2
    for seconds, x in enumerate((old, newer)):
        features(x, model, **options)
        for kept in cache.iterdir():
            os.utime(kept, (seconds, seconds))
    features(old, model, **options)  # read: no longer the oldest
    monkeypatch.setattr(backbones, "KEPT", 2 * kept.stat().st_size)
    features(newest, model, **options)
    assert model.runs == 3
    features(old, model, **options)
    features(newest, model, **options)
    assert model.runs == 3
    features(newer, model, **options)
    assert model.runs == 4


def test_features_are_given_where_they_cannot_be_kept(cache):
    cache.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="the features are not kept: cannot write to"):
        assert features(images(), Counted(), layer="norm", size=None).shape == (2, 4)
