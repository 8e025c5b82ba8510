"""Weights in the form of DINOv2: names, numbers, and what the weights among the samples do."""

import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F
from onnx_files import array, graph, product
from safetensors.torch import save_file
from skimage.transform import resize

from helpers.nets import dinov2 as module
from helpers.nets.dinov2 import dinov2, prepare, vit_s14_saliency
from helpers.nets.vit import vit

DIM, HEADS, PATCH, BLOCKS = 128, 2, 4, 3
MEAN, STD = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
HUGGING = {
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "cls_token": "embeddings.cls_token",
    "mask_token": "embeddings.mask_token",
    "pos_embed": "embeddings.position_embeddings",
    "blocks.": "encoder.layer.",
    "attn.proj": "attention.output.dense",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
}


def official() -> dict[str, torch.Tensor]:
    """Made-up numbers under the names of the official files, for images of 12 pixels."""
    shapes = {"cls_token": (1, 1, DIM), "mask_token": (1, DIM), "pos_embed": (1, 10, DIM)}
    layers = {"patch_embed.proj": (DIM, 3, PATCH, PATCH), "norm": (DIM,)}
    for i in range(BLOCKS):
        layers |= {f"blocks.{i}.norm1": (DIM,), f"blocks.{i}.norm2": (DIM,)}
        layers |= {f"blocks.{i}.attn.qkv": (3 * DIM, DIM), f"blocks.{i}.attn.proj": (DIM, DIM)}
        layers |= {f"blocks.{i}.mlp.fc1": (4 * DIM, DIM), f"blocks.{i}.mlp.fc2": (DIM, 4 * DIM)}
        shapes |= {f"blocks.{i}.ls1.gamma": (DIM,), f"blocks.{i}.ls2.gamma": (DIM,)}
    for name, shape in layers.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    rng = np.random.default_rng(0)
    return {name: torch.from_numpy(rng.normal(0, 0.1, shape).astype(np.float32)) for name, shape in shapes.items()}


def hugging_face(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found = {}
    for name, value in state.items():
        for ours, theirs in HUGGING.items():
            name = name.replace(ours, theirs)
        if name.startswith("norm."):
            name = f"layer{name}"
        if ".attn.qkv." in name:
            for part, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
                found[name.replace("attn.qkv", f"attention.attention.{part}")] = third.clone()
        else:
            found[name] = value
    return found


def forward(state: dict[str, torch.Tensor], images: torch.Tensor, blocks: int = BLOCKS) -> torch.Tensor:
    """The tokens of the network as its paper has it, from torch's functions: (N, 10, DIM)."""
    get = state.__getitem__
    x = F.conv2d((images - MEAN) / STD, get("patch_embed.proj.weight"), get("patch_embed.proj.bias"), stride=PATCH)
    x = torch.cat([get("cls_token").expand(len(x), 1, DIM), x.flatten(2).mT], 1) + get("pos_embed")
    for i in range(blocks):
        at = {name.removeprefix(f"blocks.{i}."): value for name, value in state.items() if f"blocks.{i}." in name}
        y = F.layer_norm(x, (DIM,), at["norm1.weight"], at["norm1.bias"], 1e-6).transpose(0, 1)
        inner, outer = (at["attn.qkv.weight"], at["attn.qkv.bias"]), (at["attn.proj.weight"], at["attn.proj.bias"])
        y, _ = F.multi_head_attention_forward(y, y, y, DIM, HEADS, *inner, None, None, False, 0.0, *outer)
        x = x + at["ls1.gamma"] * y.transpose(0, 1)
        y = F.layer_norm(x, (DIM,), at["norm2.weight"], at["norm2.bias"], 1e-6)
        y = F.linear(F.gelu(F.linear(y, at["mlp.fc1.weight"], at["mlp.fc1.bias"])), at["mlp.fc2.weight"])
        x = x + at["ls2.gamma"] * (y + at["mlp.fc2.bias"])
    return x


def images(channels: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).random((2, channels, 12, 12), np.float32))


def tokens(net, x: torch.Tensor) -> torch.Tensor:
    x = net.tokens(x)
    for block in net.blocks:
        x = block(x)
    return x


@torch.no_grad()
def equals(net, blocks: int = BLOCKS) -> bool:
    for x in (images(), images(1)):
        expected = forward(official(), x.expand(-1, 3, -1, -1), blocks)
        torch.testing.assert_close(tokens(net, x), expected, atol=1e-5, rtol=1e-4)
    return True


def test_official_weights_and_those_of_hugging_face_are_the_same_network(tmp_path):
    torch.save(official(), tmp_path / "pretrain.pth")
    save_file(hugging_face(official()), tmp_path / "model.safetensors")
    first, second = (dinov2(tmp_path / name, classes=4) for name in ("pretrain.pth", "model.safetensors"))
    assert equals(first) and equals(second)
    with torch.no_grad():
        norm = official()["norm.weight"], official()["norm.bias"]
        expected = F.layer_norm(forward(official(), images()), (DIM,), *norm)[:, 0]
        torch.testing.assert_close(first.features(images()), expected, rtol=1e-3, atol=1e-4)
    assert first(images()).shape == (2, 4)


def test_the_first_blocks_alone_end_in_a_new_norm_and_train(tmp_path):
    torch.save(official(), tmp_path / "pretrain.pth")
    net = dinov2(tmp_path / "pretrain.pth", depth=2, classes=2, seed=3)
    assert equals(net, 2) and torch.equal(net.norm.weight, torch.ones(DIM))
    net(images()).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    same, other = (dinov2(tmp_path / "pretrain.pth", depth=2, classes=2, seed=seed).classifier for seed in (3, 4))
    assert torch.equal(net.classifier.weight, same.weight) and not torch.equal(same.weight, other.weight)


@pytest.mark.parametrize("depth", [0, 4])
def test_blocks_that_there_are_not(tmp_path, depth):
    torch.save(official(), tmp_path / "pretrain.pth")
    with pytest.raises(ValueError, match=f"depth is {depth}; expected 1 to 3, the blocks of .*pretrain.pth"):
        dinov2(tmp_path / "pretrain.pth", depth=depth)


def test_other_weights_are_refused(tmp_path):
    torch.save(official() | {"register_tokens": torch.zeros(1, 4, DIM)}, tmp_path / "registers.pth")
    with pytest.raises(ValueError, match="registers.pth: register_tokens is one of 1 names too many or too few"):
        dinov2(tmp_path / "registers.pth")
    torch.save({k: v for k, v in official().items() if k != "blocks.1.mlp.fc1.bias"}, tmp_path / "less.pth")
    with pytest.raises(ValueError, match="less.pth: blocks.1.mlp.0.bias is one of 1 names too many or too few"):
        dinov2(tmp_path / "less.pth")
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    (tmp_path / "text.safetensors").write_text("no weights")
    (tmp_path / "text.pth").write_text("no weights")
    for name in ("other.pth", "text.safetensors", "text.pth"):
        with pytest.raises(ValueError, match=f"{name} holds no weights of DINOv2; expected its state dict"):
            dinov2(tmp_path / name)


class Harmful:
    def __reduce__(self):
        return pytest.fail, ("it was unpickled",)


def test_nothing_but_tensors_is_unpickled(tmp_path):
    torch.save({"pos_embed": Harmful()}, tmp_path / "harmful.pth")
    with pytest.raises(ValueError, match="harmful.pth holds no weights of DINOv2"):
        dinov2(tmp_path / "harmful.pth")


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    """Stands for the file among the samples, in a cache of its own: the made-up network as it is exported."""
    parts, state = [], hugging_face(official())
    first, others = state.pop("embeddings.position_embeddings").split([1, 9], 1)
    for number, (name, value) in enumerate([("onnx::Concat_1", first), ("onnx::Reshape_2", others), *state.items()]):
        if value.ndim == 2 and "mask" not in name:
            parts.append(
                product(f"onnx::MatMul_{number}", "/backbone/" + name.removesuffix(".weight").replace(".", "/"))
            )
            name, value = f"onnx::MatMul_{number}", value.T
        elif not name.startswith("onnx::"):
            name = f"backbone.{name}"
        parts.append(array(name, value.numpy()))
    parts.append(array("decoder.bn1.weight", np.ones(4, np.float32)))
    (tmp_path / "vit_s14_saliency.onnx").write_bytes(graph(*parts))
    monkeypatch.setenv("SMALL_SAMPLE_DATA", str(tmp_path))
    monkeypatch.setattr(module, "path", lambda name: tmp_path / name)
    return tmp_path


def test_the_exported_file_is_read_once_and_then_the_weights(made_up):
    assert equals(vit_s14_saliency(depth=3))
    kept = made_up / "vit_s14_saliency.safetensors"
    assert kept.stat().st_size < sum(value.numel() for value in official().values()) * 4 + 10_000
    (made_up / "vit_s14_saliency.onnx").unlink()
    assert equals(vit_s14_saliency(depth=3))
    assert {path.name for path in made_up.iterdir()} == {kept.name}


def test_damaged_weights_are_written_again(made_up):
    prepare()
    kept = made_up / "vit_s14_saliency.safetensors"
    kept.write_bytes(kept.read_bytes()[:1000])
    assert equals(vit_s14_saliency(depth=3)) and kept.stat().st_size > 1000


def test_weights_that_cannot_be_kept_are_used(made_up, monkeypatch):
    def full(*_):
        raise OSError(28, "no space left")

    monkeypatch.setattr(module, "save", full)
    with pytest.warns(UserWarning, match="the weights are not kept: cannot write to .*: the disk is full"):
        assert equals(vit_s14_saliency(depth=3))


def test_absent_weights_say_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("SMALL_SAMPLE_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="python -m data_scripts.fetch vit_s14_saliency.onnx"):
        vit_s14_saliency()


def test_without_weights_it_is_the_same_network_freshly_drawn():
    net = vit_s14_saliency(weights=False, depth=1, classes=2, seed=1)
    assert {name: value.shape for name, value in net.state_dict().items()} == {
        name: value.shape for name, value in vit_s14_saliency(depth=1, classes=2).state_dict().items()
    }
    assert torch.equal(net.patches.weight, vit(**net.config).patches.weight)


@torch.no_grad()
def test_the_weights_of_the_samples_know_a_picture_when_it_is_mirrored_and_darker():
    pictures = [skimage.data.coffee()[:, 100:500], skimage.data.astronaut(), skimage.data.chelsea()[:, 75:375]]
    pictures = np.stack([resize(p / 255, (112, 112), anti_aliasing=True).transpose(2, 0, 1) for p in pictures])
    x = torch.from_numpy(pictures.astype(np.float32))
    one, other = (tokens(vit_s14_saliency(), view) for view in (x, 0.7 * x.flip(3)))
    for form, margin in ((lambda t: t[:, 0], 0.02), (lambda t: t[:, 1:].mean(1), 0.2)):
        similar = F.normalize(form(one), dim=1) @ F.normalize(form(other), dim=1).T
        assert similar.diag().min() > similar[~torch.eye(3, dtype=bool)].max() + margin
