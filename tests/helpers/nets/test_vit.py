import hashlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.vision_transformer import EncoderBlock, VisionTransformer

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
    _load_block(peer, ours)
    torch.testing.assert_close(ours(noise(2, 5, 12)), peer(noise(2, 5, 12)))


def _load_block(peer: EncoderBlock, ours: Block) -> None:
    _load(peer.self_attention, ours.attention)
    for mine, theirs in ((ours.norm1, peer.ln_1), (ours.norm2, peer.ln_2)):
        mine.eps = theirs.eps  # 1e-5 here, torch's default
        theirs.load_state_dict(mine.state_dict())
    peer.mlp[0].load_state_dict(ours.mlp[0].state_dict())
    peer.mlp[3].load_state_dict(ours.mlp[2].state_dict())


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


def test_first_weights_are_those_of_recorded_runs():
    parameters = b"".join(p.detach().numpy().tobytes() for p in vit(seed=1).parameters())
    assert hashlib.sha256(parameters).hexdigest()[:16] == "33f6dc72118bb4a1"
    names = [name for name in vit(depth=1).state_dict() if not name.startswith("blocks")]
    assert names == ["positions", "patches.weight", "patches.bias", "norm.weight", "norm.bias", *HEAD]


HEAD = ["classifier.weight", "classifier.bias"]
FULL = dict(size=12, patch=4, in_channels=3, classes=5, dim=8, depth=2, heads=2, class_token=True)


def full(**options):
    """A ViT with all that it may have, whose numbers are none of those it starts with."""
    model = vit(**FULL, learned_positions=True, **options)
    for i, parameter in enumerate(model.parameters()):
        parameter.data += noise(*parameter.shape, seed=i) / 5
    return model


def test_a_class_token_and_learned_positions_equal_torchvision():
    ours, peer = full(), VisionTransformer(12, 4, 2, 2, 8, 32, num_classes=5).eval()
    peer.conv_proj.load_state_dict(ours.patches.state_dict())
    with torch.no_grad():
        peer.class_token.copy_(ours.class_token)  # its position is in it
        peer.encoder.pos_embedding[0, 0], peer.encoder.pos_embedding[0, 1:] = 0, ours.positions
    for mine, theirs in zip(ours.blocks, peer.encoder.layers, strict=True):
        _load_block(theirs, mine)
    peer.encoder.ln.load_state_dict(ours.norm.state_dict())
    ours.norm.eps = peer.encoder.ln.eps
    peer.heads.head.load_state_dict(ours.classifier.state_dict())
    images = noise(2, 3, 12, 12)
    torch.testing.assert_close(ours(images), peer(images))
    torch.testing.assert_close(ours.classifier(ours.features(images)), peer(images))


def test_layer_scale_is_a_factor_of_what_each_step_adds():
    scaled, plain = (drawn_block(layer_scale=value) for value in (0.1, None))
    assert torch.equal(scaled.scales, torch.full((2, 12), 0.1))
    scaled.scales.data = noise(2, 12)
    for scale, last in zip(scaled.scales.data, (plain.attention.out, plain.mlp[2]), strict=True):
        last.weight.data *= scale[:, None]
        last.bias.data *= scale
    torch.testing.assert_close(scaled(noise(2, 5, 12)), plain(noise(2, 5, 12)))


def drawn_block(layer_scale):
    block = Block(12, heads=3)
    init_weights(block, np.random.default_rng(0))
    block.attention.out.bias.data, block.mlp[2].bias.data = noise(12, seed=1), noise(12, seed=2)
    given = Block(12, heads=3, layer_scale=layer_scale)
    given.load_state_dict(block.state_dict(), strict=False)
    return given


@pytest.mark.parametrize("learned", [False, True])
def test_positions_of_other_sizes_are_bicubic_between_those_of_its_own(learned):
    model = vit(size=20, patch=4, in_channels=3, dim=8, depth=1, heads=2, learned_positions=learned)
    grid = model.positions.detach().view(1, 5, 5, 8).permute(0, 3, 1, 2)
    expected = F.interpolate(grid, size=(3, 9), mode="bicubic", align_corners=False, antialias=False)
    torch.testing.assert_close(model.positions_of(3, 9), expected[0].permute(1, 2, 0).reshape(27, 8))
    assert torch.equal(model.positions_of(5, 5), model.positions)
    images = noise(2, 3, 12, 36)
    places = model.patches(images).permute(0, 2, 3, 1) + expected.permute(0, 2, 3, 1)
    torch.testing.assert_close(model.tokens(images), places.flatten(1, 2))
    assert model(images).shape == (2, 2) and model.rollout(images).shape == (2, 3, 9)


def test_one_channel_is_three_equal_ones():
    grey = noise(2, 1, 12, 12)
    assert torch.equal(full()(grey), full()(grey.repeat(1, 3, 1, 1)))


def test_all_that_a_vit_may_have_trains():
    model = vit(**FULL, learned_positions=True, layer_scale=0.1)
    model(noise(2, 3, 12, 12)).square().mean().backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in model.parameters())
    assert {"positions", "class_token", "blocks.1.scales"} < {name for name, _ in model.named_parameters()}
    again = vit(**model.config)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters(), strict=True))
    assert torch.equal(vit(**FULL).blocks[1].mlp[2].weight, model.blocks[1].mlp[2].weight)


def test_stages_hold_what_is_before_the_classifier():
    assert full().stages() == [["patches"], ["blocks.0"], ["blocks.1", "norm"]]


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


def test_rollout_of_a_class_token_is_its_share_of_the_patches():
    model, x = full(), noise(2, 3, 8, 12)
    tokens = model.tokens(x)
    first = model.blocks[0].attention.weights(model.blocks[0].norm1(tokens)).mean(1)
    tokens = model.blocks[0](tokens)
    second = model.blocks[1].attention.weights(model.blocks[1].norm1(tokens)).mean(1)
    both = (second / 2 + torch.eye(7) / 2) @ (first / 2 + torch.eye(7) / 2)
    torch.testing.assert_close(model.rollout(x), both[:, 0, 1:].view(2, 2, 3))


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


@pytest.mark.parametrize("shape", [(1, 1, 30, 64), (1, 3, 64, 64), (1, 64, 64), (1, 1, 0, 64)])
def test_images_that_are_no_patches(shape):
    with pytest.raises(ValueError, match=r"expected \(N, 1, H, W\), H and W multiples of 8") as caught:
        vit()(torch.zeros(shape))
    assert str(shape) in str(caught.value)
