import hashlib
import itertools
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers.nets.segmenters import Bottleneck, Down, Up, enet, max_unpool, unet

NETWORKS = [enet, unet]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_parameters():
    assert parameters(enet()) == 362_297
    assert parameters(enet(in_channels=3, classes=20)) == 363_683  # the paper, Table 3: 0.37 M
    assert parameters(unet()) == 482_466
    assert parameters(unet(width=8)) == 121_042
    assert parameters(unet(width=6)) == 68_246


@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize(("in_channels", "classes", "size"), [(1, 2, (64, 64)), (3, 4, (72, 40))])
def test_logits_at_full_resolution_for_one_image_and_a_finite_gradient(make, in_channels, classes, size):
    model = make(in_channels=in_channels, classes=classes).train()
    logits = model(noise(1, in_channels, *size))
    assert logits.shape == (1, classes, *size) and logits.dtype == torch.float32
    logits.square().mean().backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in model.parameters())


def test_enet_has_the_stages_of_table_1():
    model, shapes = enet().eval(), {}
    for name in ("initial_norm", "stage1", "stage2", "stage3", "stage4", "stage5", "fullconv"):
        model.get_submodule(name).register_forward_hook(
            lambda _m, _i, out, name=name: shapes.update({name: tuple(out.shape[1:])})
        )
    model(torch.zeros(1, 1, 128, 64))
    assert shapes == {
        "initial_norm": (16, 64, 32),
        "stage1": (64, 32, 16),
        "stage2": (128, 16, 8),
        "stage3": (128, 16, 8),
        "stage4": (64, 32, 16),
        "stage5": (16, 64, 32),
        "fullconv": (2, 128, 64),
    }
    for stage in (model.stage2, model.stage3):
        main = [[m for m in block.residual if isinstance(m, nn.Conv2d)][1:-1] for block in stage]
        assert [convs[0].dilation[0] for convs in main] == [1, 2, 1, 4, 1, 8, 1, 16]
        assert [[m.kernel_size for m in convs] for convs in (main[2], main[6])] == [[(5, 1), (1, 5)]] * 2


def test_enet_activations_and_dropout():
    model = enet()
    for stage in ("initial_norm", "down1", "stage1", "down2", "stage2", "stage3"):
        assert not any(isinstance(m, nn.ReLU) for m in model.get_submodule(stage).modules())
    for stage in ("up4", "stage4", "up5", "stage5"):
        assert not any(isinstance(m, nn.PReLU) for m in model.get_submodule(stage).modules())
    rates = [m.p for m in model.modules() if isinstance(m, nn.Dropout2d)]
    assert rates == [0.01] * 5 + [0.1] * 22
    slopes = [m.weight for m in model.modules() if isinstance(m, nn.PReLU)]
    assert len(slopes) == 1 + 22 * 3 and all((slope == 0.25).all() for slope in slopes)


def test_unet_levels_and_skips():
    model, shapes = unet(width=4).eval(), []
    for block in (*model.down, *model.merge):
        block.register_forward_hook(lambda _m, _i, out: shapes.append(tuple(out.shape[1:])))
    images = noise(1, 1, 32, 16)
    logits = model(images)
    down = [(4, 32, 16), (8, 16, 8), (16, 8, 4), (32, 4, 2)]
    assert shapes == [*down, *down[-2::-1]]
    for level in range(3):  # from the deepest: with all that comes from below silenced, the skip carries the image
        nn.init.zeros_(model.up[level].weight)
        silenced = model(images)
        assert not torch.equal(silenced, logits) and silenced.std() > 0.01
        logits = silenced


def silence(block: nn.Module) -> None:
    """Leave only the path beside the convolutions: the last batch norm of the residual gives 0."""
    nn.init.zeros_(block.residual[-2].weight)


def test_blocks_add_the_residual_to_the_other_path():
    model, x = enet(), noise(2, 16, 8, 8).abs()
    down, up, block = model.down1.eval(), model.up5.eval(), model.stage1[0].eval()
    assert [type(m) for m in (down, up, block)] == [Down, Up, Bottleneck]
    for module in (down, up, block):
        silence(module)
    pooled, indices = down(x)
    expected, where = F.max_pool2d(x, 2, return_indices=True)
    assert torch.equal(pooled[:, :16], expected) and not pooled[:, 16:].any() and torch.equal(indices, where)
    assert torch.equal(block(-pooled), F.prelu(-pooled, torch.tensor([0.25])))
    unpooled = F.max_unpool2d(up.shortcut(pooled).relu(), where, 2)
    assert torch.allclose(up(pooled, indices), unpooled, atol=1e-6) and unpooled.any()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_max_unpool_equals_torch_with_its_gradient(layout, dtype):
    images, grad = noise(2, 5, 6, 10).to(dtype, memory_format=layout), noise(2, 5, 6, 10, seed=1).to(dtype)
    pooled, indices = F.max_pool2d(images, 2, return_indices=True)
    results = []
    for function in (max_unpool, lambda values, indices: F.max_unpool2d(values, indices, 2)):
        values = pooled.detach().requires_grad_()
        full = function(values, indices)
        full.backward(grad)
        results.append((full, values.grad))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*results, strict=True))
    assert results[0][0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("make", NETWORKS)
def test_deterministic_algorithms_give_equal_gradients(make, deterministic):
    grads = []
    for _ in range(2):
        model = make(seed=1).train()
        torch.manual_seed(0)
        model(noise(2, 1, 32, 32)).square().mean().backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert torch.equal(*grads)


@pytest.mark.parametrize(("make", "similarity"), [(enet, 0.95), (unet, 0.999)])  # rounding moves ENet's maxima
def test_bf16_autocast_and_channels_last(make, similarity):
    model, images = make().eval(), noise(2, 1, 32, 32)
    with torch.no_grad():
        expected = model(images)
        model.to(memory_format=torch.channels_last)
        assert torch.allclose(model(images), expected, rtol=1e-4, atol=1e-5 * expected.abs().max())
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(images)
    assert logits.dtype == torch.bfloat16
    assert F.cosine_similarity(logits.float().flatten(), expected.flatten(), dim=0) > similarity
    logits.float().square().mean().backward()
    assert all(p.grad.isfinite().all() and p.grad.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("make", [enet, lambda: unet(width=6)])
def test_learns_bright_squares_in_twenty_steps(make):
    images, labels = noise(4, 1, 32, 32) / 2, torch.zeros(4, 32, 32, dtype=torch.long)
    for i, image in enumerate(images):
        image[0, 4 + 3 * i : 18 + 3 * i, 6:20] += 2
        labels[i, 4 + 3 * i : 18 + 3 * i, 6:20] = 1
    torch.manual_seed(0)
    model, losses = make().train(), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(20):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.4 * losses[0]


@pytest.mark.parametrize(("make", "digest"), [(enet, "939cdb2bd8ec"), (unet, "7410d06e4493")])
def test_weights_come_from_the_seed_alone(make, digest):
    before = torch.get_rng_state()
    first, second, other = (make(seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], second[key]) for key in first)
    weights = [key for key in first if first[key].ndim == 4]
    assert not any(torch.equal(first[key], other[key]) for key in weights)
    assert not any(torch.equal(first[a], first[b]) for a, b in itertools.pairwise(weights))
    assert hashlib.sha256(first[weights[-1]].numpy().tobytes()).hexdigest().startswith(digest)  # on every machine


def test_config_builds_the_same_model():
    arguments = {"in_channels": 2, "classes": 3, "width": 4, "depth": 2, "seed": 5}
    assert unet(**arguments).config == arguments
    assert enet(in_channels=2, classes=3, seed=5).config == {"in_channels": 2, "classes": 3, "seed": 5}
    model = enet(in_channels=2)
    assert torch.equal(enet(**model.config).fullconv.weight, model.fullconv.weight)


@pytest.mark.parametrize(
    ("model", "shape", "divisor"),
    [
        (enet, (1, 1, 60, 64), 8),
        (enet, (1, 1, 64, 12), 8),
        (unet, (1, 1, 64, 60), 8),
        (lambda: unet(width=2, depth=4), (1, 1, 24, 32), 16),
        (enet, (1, 3, 64, 64), 8),
        (unet, (1, 64, 64), 8),
        (unet, (1, 1, 0, 64), 8),
    ],
)
def test_images_that_do_not_fit_are_refused_in_one_sentence(model, shape, divisor):
    expected = f"images are {shape}; expected (N, 1, H, W) with H and W divisible by {divisor}"
    with pytest.raises(ValueError, match=re.escape(expected)):
        model()(torch.zeros(shape))


def test_arguments_below_one_are_refused():
    for arguments in ({"width": 0}, {"depth": -1}, {"in_channels": 0}, {"classes": 0}):
        (name, value), *_ = arguments.items()
        with pytest.raises(ValueError, match=f"{name} is {value}; expected at least 1"):
            unet(**arguments)
    with pytest.raises(ValueError, match="in_channels is 16; expected at most 15"):
        enet(in_channels=16)
