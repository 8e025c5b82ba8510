import itertools
import re

import numpy as np
import pytest
import torch
from monai.networks.nets.attentionunet import AttentionBlock
from torch import nn
from torchvision.ops import SqueezeExcitation as TorchvisionSE

from helpers.nets.attention import CBAM, AttentionGate, Gated, SqueezeExcitation, gate_skips
from helpers.nets.init import init_weights
from helpers.nets.segmenters import unet

BLOCKS = [SqueezeExcitation, CBAM, AttentionGate]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def drawn(block: nn.Module, seed: int = 0) -> nn.Module:
    return init_weights(block, np.random.default_rng(seed))


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_squeeze_excitation_equals_torchvision():
    ours, peer = drawn(SqueezeExcitation(12, reduction=4)), TorchvisionSE(12, 3)
    peer.load_state_dict(ours.state_dict())
    x = noise(2, 12, 5, 7)
    torch.testing.assert_close(ours(x), peer(x))


@pytest.mark.parametrize("train", [False, True])
def test_attention_gate_equals_monai(train):
    ours, peer = drawn(AttentionGate(8, reduction=2)), AttentionBlock(spatial_dims=2, f_int=4, f_g=8, f_l=8)
    pairs = {"of_skip": peer.W_x, "of_below": peer.W_g, "psi": peer.psi}
    for name, theirs in pairs.items():
        conv, norm = getattr(ours, name)
        theirs[0].conv.load_state_dict(conv.state_dict())
        norm.running_mean.fill_(0.3)
        theirs[1].load_state_dict(norm.state_dict())
    ours.train(train)
    peer.train(train)
    skip, below = noise(2, 8, 6, 6), noise(2, 8, 6, 6, seed=1)
    torch.testing.assert_close(ours(skip, below), peer(g=below, x=skip))


def test_cbam_by_hand():
    block = CBAM(2, reduction=2, kernel=1)
    with torch.no_grad():
        for layer, weight in ((block.fc1, [1.0, 1.0]), (block.fc2, [1.0, -1.0]), (block.place, [0.5, 1.0])):
            layer.weight.copy_(torch.tensor(weight).view_as(layer.weight))
            layer.bias.zero_()
    x = torch.tensor([[[[0.0, 2.0]], [[1.0, 3.0]]]])  # (1, 2, 1, 2); means 1 and 2, maxima 2 and 3
    passed = x * torch.tensor([8.0, -8.0]).sigmoid().view(1, 2, 1, 1)  # 1 + 2 + 2 + 3, and minus that
    place = 0.5 * passed.mean(1, keepdim=True) + passed.amax(1, keepdim=True)
    torch.testing.assert_close(block(x), passed * place.sigmoid())
    torch.testing.assert_close(block.spatial(passed), place)


@pytest.mark.parametrize(("make", "product"), list(itertools.product(BLOCKS, (True, False))))
def test_product_scales_and_sum_shifts(make, product):
    block = drawn(make(6, product=product), seed=1).eval()
    x = noise(2, 6, 4, 4).abs() + 0.1
    given = (x, noise(2, 6, 4, 4, seed=2)) if make is AttentionGate else (x,)
    out = block(*given)
    assert out.shape == x.shape
    if product:
        assert (out > 0).all() and (out < x).all()  # σ lies between 0 and 1
    elif make is AttentionGate:
        torch.testing.assert_close(out - x, block.logits(*given).expand_as(x))
    else:
        shift = block.fc2(torch.relu(block.fc1(x.mean((2, 3), keepdim=True))))
        if make is CBAM:
            shift = block.channel(x)
            shift = shift + block.spatial(x + shift)
        torch.testing.assert_close(out - x, shift.expand_as(x))


@pytest.mark.parametrize("make", BLOCKS)
def test_the_control_has_as_many_parameters(make):
    assert parameters(make(16)) == parameters(make(16, product=False)) > 0


@pytest.mark.parametrize("make", BLOCKS)
def test_gated_unet_keeps_its_weights_and_trains_all_of_them(make):
    plain, gated = unet(width=4, seed=3), gate_skips(unet(width=4, seed=3), make)
    kept = gated.state_dict()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(kept[re.sub(r"^merge\.(\d)", r"merge.\1.merge", name)], value)
    assert parameters(gated) - parameters(plain) == sum(parameters(make(count)) for count in (16, 8, 4))
    logits = gated.train()(noise(2, 1, 16, 16))
    assert logits.shape == (2, 2, 16, 16)
    logits.square().mean().backward()
    assert all(p.grad.isfinite().all() for p in gated.parameters())
    assert sum((p.grad != 0).any().item() for p in gated.parameters()) > 0.9 * len(list(gated.parameters()))


def test_gates_depend_on_the_seed_of_the_model_only():
    a, b, other = (gate_skips(unet(width=2, seed=s), CBAM).state_dict() for s in (0, 0, 1))
    name = "merge.0.attention.place.weight"
    assert torch.equal(a[name], b[name]) and not torch.equal(a[name], other[name])


def test_gated_merges_the_attended_skip_with_what_comes_from_below():
    gate = drawn(AttentionGate(3)).eval()
    both = noise(1, 6, 4, 4)
    skip, below = both[:, :3], both[:, 3:]
    out = Gated(gate, nn.Identity())(both)
    torch.testing.assert_close(out, torch.cat([gate(skip, below), below], 1))


@pytest.mark.parametrize("make", BLOCKS)
def test_bad_widths(make):
    with pytest.raises(ValueError, match="channels are 0 and reduction"):
        make(0)
    with pytest.raises(ValueError, match="reduction 0; expected at least 1"):
        make(4, reduction=0)


def test_even_kernel():
    with pytest.raises(ValueError, match="kernel is 4; expected an odd number"):
        CBAM(4, kernel=4)
