"""EfficientNet-lite0: the published weights do what they are known to do."""

import numpy as np
import pytest
import skimage.data
import torch
from skimage.transform import resize

from helpers.data import fetch
from helpers.nets.efficientnet import Convolution, efficientnet_lite0

ESPRESSO = 967  # of the 1000 classes of ImageNet


@pytest.fixture(scope="module")
def pretrained():
    return efficientnet_lite0().eval()


@pytest.fixture(scope="module")
def coffee() -> torch.Tensor:
    """The middle of scikit-image's cup of espresso, (1, 3, 224, 224)."""
    picture = resize(skimage.data.coffee()[:, 100:500] / 255, (224, 224), anti_aliasing=True)
    return torch.from_numpy(picture.transpose(2, 0, 1)[None].astype(np.float32))


@torch.no_grad()
def test_it_knows_an_espresso(pretrained, coffee):
    probs = pretrained(coffee).softmax(1)[0]
    assert probs.argmax() == ESPRESSO
    assert probs[ESPRESSO].item() == pytest.approx(0.941, abs=0.005)


@torch.no_grad()
@pytest.mark.parametrize("shape", [(2, 1, 32, 32), (2, 3, 45, 70), (1, 1, 128, 96)])
def test_features_of_any_size(pretrained, shape):
    features = pretrained.features(torch.rand(shape, generator=torch.Generator().manual_seed(0)))
    assert features.shape == (shape[0], 1280)
    assert features.min() >= 0 and 0 < features.max() <= 6  # ReLU6, averaged


@torch.no_grad()
def test_one_channel_is_three_equal_ones(pretrained, coffee):
    grey = coffee.mean(1, keepdim=True)
    assert torch.equal(pretrained(grey), pretrained(grey.repeat(1, 3, 1, 1)))
    assert torch.equal(pretrained(grey), pretrained._fc(pretrained.features(grey)))


def test_another_number_of_classes_has_new_last_layer_and_old_features(pretrained, coffee):
    model = efficientnet_lite0(classes=2, seed=3).eval()
    with torch.no_grad():
        assert model(coffee).shape == (1, 2)
        assert torch.equal(model.features(coffee), pretrained.features(coffee))
    assert torch.equal(model._fc.weight, efficientnet_lite0(classes=2, seed=3)._fc.weight)
    assert not torch.equal(model._fc.weight, efficientnet_lite0(classes=2, seed=4)._fc.weight)
    assert model.config == {"weights": True, "classes": 2, "seed": 3}


def test_without_weights_every_layer_is_new_and_learns(coffee):
    model = efficientnet_lite0(weights=False, classes=2)
    model(coffee.repeat(2, 1, 1, 1)).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p).all() for p in model.parameters())


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 2, 64, 64), (1, 3, 31, 64)])
def test_other_shapes_are_refused(pretrained, shape):
    with pytest.raises(ValueError, match="at least 32") as caught:
        pretrained(torch.zeros(shape))
    assert str(shape) in str(caught.value)


def test_padding_puts_the_odd_row_and_column_last():
    convolution = Convolution(1, 1, 3, stride=2)
    with torch.no_grad():
        convolution.weight.fill_(1)
        even, odd = convolution(torch.ones(1, 1, 4, 4))[0, 0], convolution(torch.ones(1, 1, 5, 5))[0, 0]
    assert even.tolist() == [[9, 6], [6, 4]]
    assert odd.tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]]


def test_absent_weights_say_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("SMALL_SAMPLE_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="python -m data_scripts.fetch efficientnet_lite0.pth"):
        efficientnet_lite0()
    assert fetch.cache_dir() == tmp_path
