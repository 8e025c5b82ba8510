"""Chapter 05: what the lesson writes out equals what the helpers and experiments compute; exercises can be solved."""

from importlib import import_module

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from chapter import cell_with, cells

from helpers.nets.attention import CBAM, AttentionGate, SqueezeExcitation
from helpers.nets.mil import mil
from helpers.nets.vit import SelfAttention, sine_positions
from helpers.runs import repo_root
from helpers.stats import paired_gain

CHAPTER = repo_root() / "notebooks" / "05_attention.ipynb"
table = import_module("experiments.05_attention")
GIVEN = {"np": np, "torch": torch, "F": F, "SqueezeExcitation": SqueezeExcitation, "paired_gain": paired_gain}


def shown(name):
    """A function as a cell of the lesson writes it."""
    namespace = dict(GIVEN)
    exec(cell_with(CHAPTER, f"def {name}("), namespace)
    return namespace[name]


def drawn(shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


@pytest.mark.parametrize("train", [True, False])
def test_the_gate(train):
    block, skip, below = AttentionGate(8).train(train), drawn((3, 8, 5, 5)), drawn((3, 8, 5, 5), seed=1)
    with torch.inference_mode():
        ours, a = shown("attention_gate")(skip, below, block.of_skip, block.of_below, block.psi)
        torch.testing.assert_close(ours, block(skip, below))
        torch.testing.assert_close(a, block.logits(skip, below))
    assert a.std() > 0.1  # not the same everywhere


@pytest.mark.parametrize("name", ["gate", "sum", "other", "constant"])
def test_the_five_networks(name):
    block = table.network(name, 0).merge[-1].attention.eval()
    skip, below = drawn((4, 8, 5, 5)), drawn((4, 8, 5, 5), seed=1)
    with torch.inference_mode():
        a = AttentionGate.logits(block, skip, below) if name != "constant" else None
        c = block.layer.bias if name == "constant" else None
        inputs = (skip,) if name == "constant" else (skip, below)
        torch.testing.assert_close(shown("weighed")(name, skip, a, c), block(*inputs))
    assert torch.equal(shown("weighed")("plain", skip, None, None), skip)


def test_squeeze_excitation_and_cbam():
    x, se, block = drawn((3, 8, 9, 9)), SqueezeExcitation(8), CBAM(8)
    with torch.inference_mode():
        torch.testing.assert_close(shown("squeeze_excitation")(x, se.fc1, se.fc2), se(x))
        torch.testing.assert_close(shown("cbam")(x, block.fc1, block.fc2, block.place), block(x))


@pytest.mark.parametrize("seed", range(3))
def test_attention_to_tiles(seed):
    rng, model = np.random.default_rng(seed), mil(6, hidden=8, seed=seed)
    for layer in (model.v, model.u, model.w):
        torch.nn.init.zeros_(layer.bias)  # the equation has none
    instances = torch.from_numpy(rng.normal(size=(20, 6)).astype(np.float32))
    bags = torch.from_numpy(rng.permutation(np.repeat(np.arange(4), [1, 4, 6, 9])))
    with torch.inference_mode():
        h = model.embed(instances)
        pooled, weights = shown("gated_attention")(h, bags, model.v.weight, model.u.weight, model.w.weight[0])
        torch.testing.assert_close(weights, model.explain(instances, bags)[0])
        torch.testing.assert_close(model.classifier(pooled), model(instances, bags))
    assert weights.std() > 0.05  # not the mean


def test_self_attention_and_positions():
    layer, x = SelfAttention(12, heads=3), drawn((2, 7, 12))
    with torch.inference_mode():
        new, shares = shown("self_attention")(x, layer.qkv, layer.out, heads=3)
        torch.testing.assert_close(new, layer(x))
        torch.testing.assert_close(shares, layer.weights(x))
    torch.testing.assert_close(shown("positions")(8, 32), sine_positions(8, 32))


@pytest.mark.parametrize("number", range(2))
def test_a_stub_is_not_yet_right_and_its_solution_is(number, capsys):
    namespace = dict(GIVEN)
    for tag, answer in (("exercise", "not yet"), ("solution", "correct")):
        source = cells(CHAPTER, tag)[number]
        judged = source.index('"not yet")') + len('"not yet")')  # what comes after it trains
        exec(source[:judged], namespace)
        assert capsys.readouterr().out.strip() == answer
