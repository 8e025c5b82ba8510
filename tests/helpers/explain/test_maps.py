import captum.attr
import numpy as np
import pytest
import pytorch_grad_cam
import torch
import torchvision
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from helpers.explain import (
    cam,
    capture,
    grad_cam,
    guided_backprop,
    hires_cam,
    integrated_gradients,
    layer_cam,
    occlusion,
    resize_map,
)
from helpers.geometry import letterbox, unletterbox
from helpers.nets.densenet import densenet
from helpers.nets.init import init_weights

BLOCKS = [f"features.denseblock{block}" for block in range(1, 5)]


def noise(*shape, seed=0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def trained_looking(model: nn.Module) -> nn.Module:
    """Norms and biases as after training, so that no term of an equation is zero by chance."""
    rng = np.random.default_rng(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, middle in [(module.weight, 1.0), (module.bias, 0.0), (module.running_mean, 0.0)]:
                tensor.data = torch.from_numpy(rng.normal(middle, 0.3, tensor.shape).astype(np.float32))
    return model.eval()


@pytest.fixture
def model() -> nn.Module:
    return trained_looking(densenet(in_channels=2, classes=3))


@pytest.fixture
def images() -> torch.Tensor:
    return noise(3, 2, 48, 40)


@pytest.fixture
def one_logit() -> nn.Module:
    return trained_looking(densenet(in_channels=2, classes=1))


@pytest.fixture
def segmenter() -> nn.Module:
    layers = [nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(6, 3, 3, padding=1)]
    return init_weights(nn.Sequential(*layers), np.random.default_rng(0))


def close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Equal to 1e-5 of the largest value, which must not be nothing."""
    return ours.shape == theirs.shape and (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max() > 0


# --- equal to the standard libraries -------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [*BLOCKS, "relu"])
def test_grad_cam_equals_captum(model, images, layer):
    captured = capture(model, images, layer, target=2)
    theirs = captum.attr.LayerGradCam(model, model.get_submodule(layer)).attribute(images, target=2)[:, 0]
    assert close(grad_cam(captured.features[layer], captured.grads[layer]), theirs.detach())


@pytest.mark.parametrize("layer", [*BLOCKS, "relu"])
@pytest.mark.parametrize(("ours", "name"), [(hires_cam, "HiResCAM"), (layer_cam, "LayerCAM"), (grad_cam, "GradCAM")])
def test_maps_equal_the_grad_cam_package(model, images, layer, ours, name):
    """Raw maps, before that package cuts, resizes and normalises each map to 0 … 1."""
    captured = capture(model, images, layer, target=1)
    with getattr(pytorch_grad_cam, name)(model=model, target_layers=[model.get_submodule(layer)]) as peer:
        peer(images, targets=[ClassifierOutputTarget(1)] * len(images))
        activations, grads = peer.activations_and_grads.activations[0], peer.activations_and_grads.gradients[0]
        theirs = peer.get_cam_image(images, None, None, activations.numpy(), grads.numpy(), eigen_smooth=False)
    theirs = torch.as_tensor(np.maximum(theirs, 0) if ours is layer_cam else theirs)
    assert close(ours(captured.features[layer], captured.grads[layer]), theirs)


def test_maps_by_hand():
    features = torch.tensor([[[[1.0, -2.0]], [[3.0, 1.0]]]])
    grads = torch.tensor([[[[2.0, 4.0]], [[-1.0, 1.0]]]])
    assert cam(features, torch.tensor([3.0, 0.5])).tolist() == [[[4.5, -5.5]]]
    assert grad_cam(features, grads).tolist() == [[[3.0, -6.0]]]
    assert hires_cam(features, grads).tolist() == [[[-1.0, -7.0]]]
    assert layer_cam(features, grads).tolist() == [[[2.0, 0.0]]]


def test_integrated_gradients_equal_captum(model, images):
    model, images, base = model.double(), images.double(), noise(2, 1, 1, seed=5).double()
    ours = integrated_gradients(model, images, target=1, baseline=base, steps=20, batch_size=7)
    theirs = captum.attr.IntegratedGradients(model).attribute(
        images, baselines=base.expand_as(images).contiguous(), target=1, n_steps=20
    )
    assert close(ours, theirs)


def test_integrated_gradients_sum_to_the_change_of_the_score(images):
    smooth = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(4 * 46 * 38, 1))
    model = init_weights(smooth, np.random.default_rng(0)).double()
    total = integrated_gradients(model, images.double(), baseline=0.5, steps=20).sum((1, 2, 3))
    change = model(images.double()) - model(torch.full_like(images, 0.5).double())
    assert close(total, change[:, 0].detach())


@pytest.mark.parametrize(("window", "stride"), [(8, 8), (11, 7)])
def test_occlusion_equals_captum(model, images, window, stride):
    model, images = model.double(), images.double()
    ours = occlusion(model, images, window=window, stride=stride, target=2, baseline=0.3, batch_size=5)
    peer = captum.attr.Occlusion(model)
    where = {"sliding_window_shapes": (2, window, window), "strides": (2, stride, stride), "target": 2}
    assert close(ours, peer.attribute(images, baselines=0.3, **where)[:, 0])
    base = images.mean((2, 3), keepdim=True)  # a tensor: the mean colour of each image
    ours = occlusion(model, images, window=window, stride=stride, target=2, baseline=base)
    assert close(ours, peer.attribute(images, baselines=base.expand_as(images).contiguous(), **where)[:, 0])


def test_guided_backprop_equals_captum(model, images):
    with pytest.warns(UserWarning, match="backward hooks"):
        theirs = captum.attr.GuidedBackprop(model).attribute(images.clone().requires_grad_(), target=0)
    ours = guided_backprop(model, images, target=0)
    assert close(ours, theirs)
    x = images.clone().requires_grad_()
    assert not close(ours, torch.autograd.grad(model(x)[:, 0].sum(), x)[0])


def test_guided_backprop_with_in_place_relus(images):
    layers = [nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 44 * 36, 1)]
    model = init_weights(nn.Sequential(*layers), np.random.default_rng(0))
    expected = guided_backprop(model, images)
    model[1].inplace = model[3].inplace = True
    assert torch.equal(guided_backprop(model, images), expected)
    assert model[1].inplace and model[3].inplace


# --- the exact tensor ----------------------------------------------------------------------------------------------


def test_cam_is_grad_cam_at_the_pooled_features_only(model, images):
    captured = capture(model, images, ["relu", "features.denseblock4"], target=1)
    features, grads = captured.features, captured.grads
    ours = cam(features["relu"], model.classifier.weight[1])
    pixels = features["relu"][0, 0].numel()
    assert close(ours, grad_cam(features["relu"], grads["relu"]) * pixels)
    assert close(ours.mean((1, 2)) + model.classifier.bias[1].detach(), captured.scores)
    raw = grad_cam(features["features.denseblock4"], grads["features.denseblock4"]) * pixels
    assert np.corrcoef(ours.flatten(), raw.flatten())[0, 1] < 0.99


def test_cam_takes_one_row_of_weights_per_image(model, images):
    captured = capture(model, images, "relu")
    classes = captured.logits.argmax(1)
    ours = cam(captured.features["relu"], model.classifier.weight[classes])
    for image, label in enumerate(classes):
        assert close(ours[image], cam(captured.features["relu"], model.classifier.weight[label])[image])


def test_one_pass_equals_separate_passes(model, images):
    together = capture(model, images, [*BLOCKS, "relu"], target=1)
    for layer in [*BLOCKS, "relu"]:
        alone = capture(model, images, layer, target=1)
        assert torch.equal(together.features[layer], alone.features[layer])
        assert torch.equal(together.grads[layer], alone.grads[layer])
    assert list(together.features) == list(together.grads) == [*BLOCKS, "relu"]


def test_layers_may_be_named_in_any_order(model, images):
    forwards, backwards = capture(model, images, BLOCKS), capture(model, images, BLOCKS[::-1])
    assert all(torch.equal(forwards.grads[layer], backwards.grads[layer]) for layer in BLOCKS)
    assert list(capture(model, images, ["relu", "relu"]).grads) == ["relu"]


def test_captured_features_survive_in_place_operations(images):
    """torchvision's own DenseNet changes the output of `features` in place; what the layer returned is captured."""
    theirs = torchvision.models.densenet121(weights=None, num_classes=3).eval()
    rgb = noise(2, 3, 64, 64)
    captured = capture(theirs, rgb, "features", target=0)
    assert captured.features["features"].min() < 0
    assert (captured.grads["features"][captured.features["features"] < 0] == 0).all()


def test_nothing_below_the_first_layer_is_differentiated(model, images):
    seen = []
    model.features.conv0.register_forward_hook(lambda _m, _i, output: seen.append(output.requires_grad))
    capture(model, images.requires_grad_(), BLOCKS)
    assert seen == [False]
    assert images.grad is None and all(parameter.grad is None for parameter in model.parameters())


# --- targets -------------------------------------------------------------------------------------------------------


def test_multi_class_targets(model, images):
    none = capture(model, images, "relu")
    assert torch.equal(none.scores, none.logits.max(1).values)
    for label in range(3):
        assert torch.equal(capture(model, images, "relu", target=label).scores, none.logits[:, label])
    labels = torch.tensor([2, 0, 1])
    each = capture(model, images, "relu", target=labels)
    assert torch.equal(each.scores, none.logits[torch.arange(3), labels])
    for image, label in enumerate(labels):
        alone = capture(model, images, "relu", target=int(label)).grads["relu"][image]
        assert torch.equal(each.grads["relu"][image], alone)


def test_one_logit_targets(one_logit, images):
    none, yes, no = (capture(one_logit, images, "relu", target=target) for target in (None, 1, 0))
    assert torch.equal(none.scores, none.logits[:, 0])
    assert torch.equal(yes.scores, none.scores) and torch.equal(no.scores, -none.scores)
    assert torch.equal(no.grads["relu"], -yes.grads["relu"])
    flat = nn.Sequential(one_logit, nn.Flatten(0))  # logits of shape (N,)
    assert torch.equal(capture(flat, images, "0.relu").scores, none.scores)


def test_the_gradient_is_the_logit_s_even_where_the_sigmoid_is_saturated(one_logit, images):
    one_logit.classifier.bias.data.fill_(60)
    captured = capture(one_logit, images, "relu")
    expected = one_logit.classifier.weight.detach()[0] / captured.features["relu"][0, 0].numel()
    assert torch.allclose(captured.grads["relu"].mean((0, 2, 3)), expected)


def test_a_function_as_target(model, images):
    margin = capture(model, images, "relu", target=lambda logits: logits[:, 2] - logits[:, 0])
    two, zero = (capture(model, images, "relu", target=label).grads["relu"] for label in (2, 0))
    assert torch.allclose(margin.grads["relu"], two - zero, atol=1e-6)
    steps = integrated_gradients(model, images, target=lambda logits: logits[:, 2], steps=8)
    assert torch.equal(steps, integrated_gradients(model, images, target=2, steps=8))
    with pytest.raises(ValueError, match=r"target function returned \(3, 3\): expected \(3,\), one per image"):
        capture(model, images, "relu", target=lambda logits: logits)


def test_segmentation_targets(segmenter, images):
    captured = capture(segmenter, images, "0", target=1)
    predicted = captured.logits.argmax(1) == 1
    assert torch.allclose(captured.scores, (captured.logits[:, 1] * predicted).sum((1, 2)), rtol=1e-5)
    segmenter[2].bias.data[1] = -1000  # class 1 is predicted nowhere
    nowhere = capture(segmenter, images, "0", target=1)
    assert (nowhere.scores == 0).all() and (nowhere.grads["0"] == 0).all()
    with pytest.raises(ValueError, match=r"segmentation model needs a target class \(0 to 2\)"):
        capture(segmenter, images, "0")


def test_one_channel_segmentation(images):
    model = init_weights(nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 3)), np.random.default_rng(0))
    inside, outside = (capture(model, images, "0", target=target) for target in (1, 0))
    assert torch.allclose(inside.scores, inside.logits.relu().sum((1, 2, 3)), rtol=1e-5)
    assert torch.allclose(outside.scores, (-inside.logits).relu().sum((1, 2, 3)), rtol=1e-5)
    assert torch.equal(capture(model, images, "0").scores, inside.scores)


def test_class_and_pixels_stay_those_of_the_unaltered_image(segmenter, images):
    """Occluding everything removes the whole score, though other pixels are then predicted to be the class."""
    segmenter[2].bias.data = torch.tensor([0.2, 0.3, -0.1])
    whole = occlusion(segmenter, images[..., :40, :], window=40, stride=40, target=1)
    logits = segmenter(images[..., :40, :]).detach()
    pixels = logits.argmax(1) == 1
    empty = segmenter(torch.zeros(1, 2, 40, 40)).detach()
    expected = ((logits - empty)[:, 1] * pixels).sum((1, 2))
    assert torch.allclose(whole[:, 0, 0], expected, rtol=1e-4)


# --- the model is left as it was -----------------------------------------------------------------------------------


def state(model: nn.Module) -> list:
    modules = list(model.modules())
    return [
        [module.training for module in modules],
        [len(module._forward_hooks) + len(module._backward_hooks) for module in modules],
        [parameter.requires_grad for parameter in model.parameters()],
        [buffer.clone().tolist() for buffer in model.buffers()],
    ]


@pytest.mark.parametrize("target", [1, 7])  # 7 is out of range: an error on the way
def test_mode_flags_and_hooks_are_restored(model, images, target):
    model.train()
    model.features.norm5.eval()
    model.classifier.weight.requires_grad_(False)
    before = state(model)
    calls = [
        lambda: capture(model, images, BLOCKS, target=target),
        lambda: integrated_gradients(model, images, target=target, steps=2),
        lambda: occlusion(model, images, window=40, stride=40, target=target),
        lambda: guided_backprop(model, images, target=target),
    ]
    for call in calls:
        if target == 7:
            with pytest.raises(ValueError, match="target class 7 is out of range: expected 0 to 2"):
                call()
        else:
            call()
        assert state(model) == before


def test_explains_the_model_in_evaluation_mode(model, images):
    expected = capture(model, images, "relu").scores
    assert torch.equal(capture(model.train(), images, "relu").scores, expected)
    with torch.no_grad():
        assert torch.equal(capture(model, images, "relu").scores, expected)


# --- errors --------------------------------------------------------------------------------------------------------

CALLS = {
    "capture": lambda model, images: capture(model, images, "relu"),
    "integrated_gradients": lambda model, images: integrated_gradients(model, images),
    "occlusion": lambda model, images: occlusion(model, images, window=8, stride=8),
    "guided_backprop": lambda model, images: guided_backprop(model, images),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_images_that_do_not_fit(model, images, call):
    with pytest.raises(ValueError, match="images have 1 channels: the model expects 2"):
        call(model, images[:, :1])
    with pytest.raises(ValueError, match=r"floating point \(N, C, H, W\), got torch.float32 \(2, 48, 40\)"):
        call(model, images[0])
    with pytest.raises(ValueError, match="got torch.uint8"):
        call(model, images.to(torch.uint8))
    images[1, 0, 3, 3] = float("nan")
    with pytest.raises(ValueError, match="images hold 1 NaN or infinite values"):
        call(model, images)


def test_unknown_layer_lists_those_that_exist(model, images):
    with pytest.raises(ValueError, match=r"no layer 'features.denseblok4' in the model: it has features.denseblock4, "):
        capture(model, images, ["relu", "features.denseblok4"])
    with pytest.raises(ValueError, match=r"no layer 'x' in the model: it has 0, 1, 2$"):
        capture(nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(), nn.Flatten()), images, "x")


def test_layers_that_cannot_be_captured(model, images):
    with pytest.raises(ValueError, match=r"layer 'classifier' gives \(3, 3\): expected one \(N, K, h, w\) tensor"):
        capture(model, images, "classifier")
    relu = nn.ReLU()
    twice = nn.Sequential(nn.Conv2d(2, 2, 1), relu, nn.Conv2d(2, 2, 1), relu, nn.Flatten(), nn.Linear(2 * 48 * 40, 1))
    with pytest.raises(ValueError, match="layer '1' runs more than once"):
        capture(twice, images, "1")
    model.unused = nn.Conv2d(2, 2, 1)
    with pytest.raises(ValueError, match="layer 'unused' did not run"):
        capture(model, images, ["relu", "unused"])
    with pytest.raises(ValueError, match=r"target does not depend on the layers \['relu'\]"):
        capture(model, images, "relu", target=lambda logits: torch.zeros(len(logits)))


@pytest.mark.parametrize("target", [-1, 3, torch.tensor([0, 1, 3])])
def test_class_out_of_range(model, images, target):
    with pytest.raises(ValueError, match="is out of range: expected 0 to 2"):
        capture(model, images, "relu", target=target)


def test_targets_that_are_no_class(model, one_logit, images):
    with pytest.raises(ValueError, match="is out of range: expected 0 to 1"):
        capture(one_logit, images, "relu", target=2)
    for target in (1.0, torch.tensor([0, 1])):
        with pytest.raises(ValueError, match="target must be a class or 3 classes"):
            capture(model, images, "relu", target=target)


def test_other_errors(model, images):
    with pytest.raises(ValueError, match="expected 1 <= stride <= window <= 40, got stride 9 and window 8"):
        occlusion(model, images, window=8, stride=9)
    with pytest.raises(ValueError, match="needs nn.ReLU modules"):
        guided_backprop(nn.Sequential(nn.Conv2d(2, 1, 1), nn.Flatten(), nn.Linear(48 * 40, 1)), images)

    class Named(nn.Module):
        def forward(self, images):
            return {"out": images}

    with pytest.raises(ValueError, match="the model returned a dict: expected a tensor of logits"):
        integrated_gradients(Named(), images)


# --- geometry ------------------------------------------------------------------------------------------------------


def test_resize_map_lays_cells_over_their_share_of_the_image():
    maps = torch.zeros(1, 3, 3)
    maps[0, 1, 2] = 1
    large = resize_map(maps, (30, 60))
    assert large.shape == (1, 30, 60)
    rows, cols = (torch.arange(n) + 0.5 for n in (30, 60))
    assert (large[0].sum(1) * rows).sum() / large.sum() == pytest.approx(15)
    assert (large[0].sum(0) * cols).sum() / large.sum() > 48
    assert large[0, 14:16, 50:].numpy() == pytest.approx(0.95)


@pytest.mark.parametrize("shape", [(512, 389), (389, 512), (97, 100), (101, 64), (64, 64), (1, 7)])
def test_letterbox_and_back_is_exact_at_the_image_s_own_size(shape):
    image = noise(2, *shape)
    square, box = letterbox(image, max(shape), fill=-3)
    assert square.shape == (2, max(shape), max(shape))
    assert (square == -3).sum() == 2 * (max(shape) ** 2 - shape[0] * shape[1])
    for side in (0, 1):  # centred: as much padding before as after
        padding = (square[0] == -3).all(1 - side).int()
        assert abs(padding.argmin() - padding.flip(0).argmin()) <= 1
    assert torch.equal(unletterbox(square, box), image)


@pytest.mark.parametrize("shape", [(512, 389), (389, 511), (301, 77), (640, 639)])
@pytest.mark.parametrize("size", [320, 96, 700])
def test_a_marked_rectangle_comes_back_in_its_place(shape, size):
    top, left, height, width = shape[0] // 3, shape[1] // 2, shape[0] // 4 + 1, shape[1] // 5
    image = torch.zeros(1, *shape)
    image[0, top : top + height, left : left + width] = 1
    square, box = letterbox(image, size)
    back = unletterbox(square, box)
    assert back.shape == image.shape
    rows, cols = (torch.arange(n, dtype=torch.float32) + 0.5 for n in shape)
    centre = ((back[0].sum(1) * rows).sum() / back.sum(), (back[0].sum(0) * cols).sum() / back.sum())
    assert centre == pytest.approx((top + height / 2, left + width / 2), abs=0.02)
    marked = back[0] > 0.5
    assert (marked != image[0].bool()).sum() <= 2 * (height + width) * max(1, 0.5 * max(shape) / size)


def test_a_coarse_map_of_a_padded_image_covers_the_whole_image():
    """Cells of an 8 × 8 map of a 512 × 384 image: 64 pixels each, the first column lies in the padding."""
    image = torch.zeros(1, 512, 384)
    _, box = letterbox(image, 256)
    assert (box.top, box.left, box.side) == (0, 64, 512)
    maps = torch.zeros(5, 1, 8, 8)
    maps[..., 1] = 1  # the image's first 64 columns: full at their middle, gone one column of cells further
    back = unletterbox(maps, box)
    assert back.shape == (5, 1, 512, 384)
    assert (back[..., 31:33] > 0.99).all() and (back[..., 96:] == 0).all() and (back[..., 0] > 0.5).all()
