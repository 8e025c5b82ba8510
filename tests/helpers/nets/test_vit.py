import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.vision_transformer import EncoderBlock

from helpers.nets.init import init_weights
from helpers.nets.vit import Block, SelfAttention, sine_positions, vit


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def drawn(module: nn.Module) -> nn.Module:
    return init_weights(module, np.random.default_rng(0))


def test_self_attention_equals_torch():
    ours, peer = drawn(SelfAttention(10, heads=2)), nn.MultiheadAttention(10, 2, batch_first=True)
    _load(peer, ours)
    x = noise(2, 5, 10)
    out, weights = peer(x, x, x, average_attn_weights=False)
    torch.testing.assert_close(ours(x), out)
    torch.testing.assert_close(ours.weights(x), weights)


def test_block_equals_torchvision():
    ours, peer = drawn(Block(12, heads=3)), EncoderBlock(3, 12, 48, 0.0, 0.0).eval()
    _load(peer.self_attention, ours.attention)
    for mine, theirs in ((ours.norm1, peer.ln_1), (ours.norm2, peer.ln_2)):
        mine.eps = theirs.eps  # 1e-5 here, torch's default
        theirs.load_state_dict(mine.state_dict())
    peer.mlp[0].load_state_dict(ours.mlp[0].state_dict())
    peer.mlp[3].load_state_dict(ours.mlp[2].state_dict())
    torch.testing.assert_close(ours(noise(2, 5, 12)), peer(noise(2, 5, 12)))


def _load(peer: nn.MultiheadAttention, ours: SelfAttention) -> None:
    with torch.no_grad():
        peer.in_proj_weight.copy_(ours.qkv.weight)
        peer.in_proj_bias.copy_(ours.qkv.bias)
    peer.out_proj.load_state_dict(ours.out.state_dict())


def test_vit_gives_logits_and_trains_all_parameters():
    model = vit(size=16, patch=4, classes=3, dim=8, depth=2, heads=2)
    logits = model(noise(2, 1, 16, 16))
    assert logits.shape == (2, 3)
    logits.square().mean().backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in model.parameters())
    assert sum(p.numel() for p in vit().parameters()) == 53_026


def test_a_vit_without_positions_does_not_know_where_patches_are():
    model, x = vit(size=16, patch=4, dim=8, depth=1).eval(), noise(1, 1, 16, 16)
    moved = x.view(1, 1, 4, 4, 16).flip(2).view(1, 1, 16, 16)  # rows of patches from bottom to top
    assert not torch.allclose(model(x), model(moved), atol=1e-4)
    model.positions.zero_()
    torch.testing.assert_close(model(x), model(moved))


def test_rollout_by_hand_and_its_sum():
    model, x = vit(size=12, patch=4, dim=8, depth=2, heads=2, seed=1), noise(2, 1, 12, 12)
    tokens = model.tokens(x)
    first = model.blocks[0].attention.weights(model.blocks[0].norm1(tokens)).mean(1)
    tokens = model.blocks[0](tokens)
    second = model.blocks[1].attention.weights(model.blocks[1].norm1(tokens)).mean(1)
    both = (second / 2 + torch.eye(9) / 2) @ (first / 2 + torch.eye(9) / 2)
    torch.testing.assert_close(model.rollout(x), both.mean(1).view(2, 3, 3))
    torch.testing.assert_close(model.rollout(x).sum((1, 2)), torch.ones(2))


def test_sine_positions():
    found = sine_positions(3, 8)  # rates 1 and 1e-4
    assert found.shape == (9, 8)
    row, column = 2, 1
    angles = np.array([column, column * 1e-4, row, row * 1e-4])
    expected = np.concatenate([np.sin(angles[:2]), np.cos(angles[:2]), np.sin(angles[2:]), np.cos(angles[2:])])
    np.testing.assert_allclose(found[row * 3 + column], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(size=30), "size is 30 and patch 8; expected"),
        (dict(patch=0), "patch 0; expected positive"),
        (dict(dim=30), "dim is 30; expected a multiple of 4"),
        (dict(heads=3), "dim is 32 and heads 3; expected"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        vit(**options)


@pytest.mark.parametrize("shape", [(1, 1, 32, 64), (1, 3, 64, 64), (1, 64, 64)])
def test_images_of_another_size(shape):
    with pytest.raises(ValueError, match=r"expected \(N, 1, 64, 64\)"):
        vit()(torch.zeros(shape))
