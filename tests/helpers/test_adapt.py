"""Adaptation without labels, against closed forms, hand-made statistics, numerical gradients and small networks."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tensors import noise
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from helpers.adapt import (
    Adversary,
    batchnorm_statistics_of,
    consistency,
    discriminator,
    fourier_style,
    mean_entropy,
    share_of_gap,
    tent,
    update_teacher,
)
from helpers.nets.segmenters import unet
from helpers.train import fit, predict


def pictures(n=6, size=16, seed=0) -> torch.Tensor:
    """(n, 3, size, size) within 0.4…0.6, so that nothing is clipped; sorted: later ones are brighter."""
    return 0.45 + 0.1 * noise(n, 3, size, size, seed=seed).sigmoid() + 0.05 * torch.arange(n).view(-1, 1, 1, 1) / n


def network() -> nn.Module:
    """Two batch norms and dropout, in double precision; statistics and scales differ from those of a new network."""
    model = nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5, momentum=0.3), nn.ReLU(), nn.Conv2d(5, 3, 1)),
    ).double()
    with torch.no_grad():
        for i, tensor in enumerate([*model.parameters(), *(b for b in model.buffers() if b.ndim)]):
            tensor.copy_(0.6 + 0.3 * noise(*tensor.shape, seed=i).tanh())
    return model


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# --- batch statistics -----------------------------------------------------------------------------------------------


def test_statistics_of_one_layer_are_those_of_all_values():
    images = pictures()
    layer = batchnorm_statistics_of(nn.Sequential(nn.BatchNorm2d(3).double()), images)[0]
    values = images.transpose(0, 1).flatten(1)
    assert torch.allclose(layer.running_mean, values.mean(1), rtol=1e-12)
    assert torch.allclose(layer.running_var, values.var(1), rtol=1e-12)


def test_several_batches_are_alike_and_weighted_by_images():
    images = pictures(n=5)
    layer = batchnorm_statistics_of(nn.Sequential(nn.BatchNorm2d(3).double()), images, batch_size=3)[0]
    assert torch.allclose(layer.running_mean, images.mean((0, 2, 3)), rtol=1e-12)  # 3 and 2 images count alike
    batches = [images[rows].transpose(0, 1).flatten(1) for rows in ([0, 2, 4], [1, 3])]
    expected = (3 * batches[0].var(1) + 2 * batches[1].var(1)) / 5
    assert torch.allclose(layer.running_var, expected, rtol=1e-12)


def test_deeper_layers_see_what_the_earlier_ones_normalised():
    model, images = network(), pictures()
    adapted = batchnorm_statistics_of(model, images)
    hidden = model[0](images)
    hidden = (hidden - hidden.mean((0, 2, 3), keepdim=True)) / (
        hidden.var((0, 2, 3), False, keepdim=True) + 1e-5
    ).sqrt()
    hidden = model[4]((hidden * model[1].weight.view(-1, 1, 1) + model[1].bias.view(-1, 1, 1)).relu())
    assert torch.allclose(adapted[5].running_mean, hidden.mean((0, 2, 3)), rtol=1e-9)
    assert torch.allclose(adapted[5].running_var, hidden.transpose(0, 1).flatten(1).var(1), rtol=1e-9)


def test_statistics_undo_a_change_of_brightness_and_contrast():
    model, images = network(), pictures()
    changed = 0.3 * images + 0.2
    first, second = (predict(batchnorm_statistics_of(model, x), x) for x in (images, changed))
    assert (predict(model, images) - predict(model, changed)).abs().max() > 0.05
    assert (first - second).abs().max() < 0.002  # not 0: batch norm adds 1e-5 to the variance


def test_what_is_not_a_statistic_stays_and_the_source_model_is_untouched():
    model = network().train()
    before = copy.deepcopy(model.state_dict())
    adapted = batchnorm_statistics_of(model, pictures(), batch_size=2)
    assert same(model.state_dict(), before) and model.training
    assert same(dict(model.named_parameters()), dict(adapted.named_parameters()))
    assert adapted[5].momentum == 0.3 and not any(module.training for module in adapted.modules())
    assert not torch.allclose(adapted[1].running_mean, model[1].running_mean)


# --- entropy and TENT -----------------------------------------------------------------------------------------------


def test_entropy_in_closed_form():
    assert torch.allclose(mean_entropy(torch.zeros(2, 5, 3, 3)), torch.tensor(math.log(5)))
    probs = torch.tensor([[0.5, 0.25, 0.25], [1 / 3, 1 / 3, 1 / 3]], dtype=torch.float64)
    expected = (1.5 * math.log(2) + math.log(3)) / 2
    assert mean_entropy(probs.log() + 7).item() == pytest.approx(expected, rel=1e-12)  # mean over images
    assert mean_entropy(probs.log().T[None]).item() == pytest.approx(expected, rel=1e-12)  # and over pixels
    one = torch.tensor([[math.log(3)]], dtype=torch.float64)  # p = 3/4
    assert mean_entropy(one).item() == pytest.approx(math.log(4) - 0.75 * math.log(3), rel=1e-12)
    assert torch.allclose(mean_entropy(one), mean_entropy(-one), rtol=1e-12)


@pytest.mark.parametrize("classes", [1, 3])
def test_entropy_and_consistency_have_numerical_gradients(classes):
    logits = noise(2, classes, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(mean_entropy, logits)
    assert torch.autograd.gradcheck(lambda x: consistency(x, noise(2, classes, 2, 3, seed=1)), logits)


@pytest.mark.parametrize("shape", [(2, 1), (2, 3, 4, 4)])
@pytest.mark.parametrize("extreme", [-1e4, 1e4])
def test_extreme_logits_are_certain_and_give_finite_gradients(shape, extreme):
    logits = torch.zeros(shape)
    logits[:, 0] = extreme
    value = mean_entropy(logits.requires_grad_())
    value.backward()
    expected = 0 if extreme > 0 or shape[1] == 1 else math.log(2)  # two of three classes are left, or one is sure
    assert value.item() == pytest.approx(expected) and logits.grad.isfinite().all()


LOSSES = {
    "entropy": mean_entropy,
    "consistency": lambda x: consistency(x, x.flip(0)),
    "adversary": lambda x: Adversary(discriminator(classes=3))(x, x.flip(0)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_fp32_under_autocast(name):
    logits = noise(2, 3, 16, 16).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        value = LOSSES[name](logits)
    assert value.dtype == torch.float32 and value == LOSSES[name](logits.float())


def batch_entropy(model: nn.Module, images: torch.Tensor) -> float:
    return mean_entropy(predict(model, images)).item()


def test_tent_lowers_the_entropy_by_batch_norm_alone():
    model, images = network(), pictures(n=12, seed=3)
    model[0].weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    adapted = tent(model, images, passes=10, lr=2e-2, batch_size=5)
    assert batch_entropy(adapted, images) < 0.9 * batch_entropy(batchnorm_statistics_of(model, images), images)
    assert same(model.state_dict(), before)
    moved = {name for name, p in adapted.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"1.weight", "1.bias", "5.weight", "5.bias"}
    assert [p.requires_grad for p in adapted.parameters()] == [p.requires_grad for p in model.parameters()]
    assert all(p.grad is None for p in adapted.parameters()) and not any(m.training for m in adapted.modules())
    again = batchnorm_statistics_of(adapted, images, batch_size=5)
    assert torch.equal(again[5].running_var, adapted[5].running_var)  # its statistics are those of the images


def test_tent_is_adam_on_the_entropy_of_batches_drawn_by_its_seed():
    model, images = network(), pictures()
    first, second, other = (tent(model, images, batch_size=2, seed=seed).state_dict() for seed in (0, 0, 1))
    assert same(first, second) and not same(first, other)
    adapted, expected = tent(model, images, passes=3, lr=1e-2), copy.deepcopy(model)
    for layer in (expected.eval()[1], expected[5]):
        layer.train()
    optimizer = torch.optim.Adam([*expected[1].parameters(), *expected[5].parameters()], lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        mean_entropy(expected(images)).backward()
        optimizer.step()
    assert torch.allclose(adapted[1].weight, expected[1].weight, rtol=1e-9)
    assert torch.allclose(adapted[5].bias, expected[5].bias, rtol=1e-9)


# --- style ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "size"), [(0.0, (12, 16)), (0.1, (15, 20)), (0.29, (100, 101)), (0.5, (7, 9))])
def test_style_is_that_of_the_paper(share, size):
    """Eq. 3 written out with the whole spectrum, shifted so that frequency 0 is in the middle."""
    images, styles = 0.5 + 0.05 * noise(2, 3, *size, seed=1).tanh(), 0.5 + 0.05 * noise(2, 3, *size, seed=2).tanh()
    spectrum, style = (np.fft.fftshift(np.fft.fft2(x.numpy()), axes=(2, 3)) for x in (images, styles))
    amplitude, reach = np.abs(spectrum), round(100 * share * min(size)) // 100
    low = np.ix_(*([n // 2 + k for k in range(-reach, reach + 1) if 0 <= n // 2 + k < n] for n in size))
    amplitude[:, :, low[0], low[1]] = np.abs(style)[:, :, low[0], low[1]]
    expected = np.fft.ifft2(np.fft.ifftshift(amplitude * np.exp(1j * np.angle(spectrum)), axes=(2, 3))).real
    result = fourier_style(images, styles, share=share)
    assert result.min() > 0 and result.max() < 1 and not torch.allclose(result, images, atol=1e-4)
    assert np.allclose(result, expected, rtol=0, atol=1e-12)


def test_style_changes_low_amplitudes_and_no_phase():
    images, styles = pictures(seed=1), pictures(seed=2).flip(0)
    result, before, style = (torch.fft.fft2(x) for x in (fourier_style(images, styles, share=0.2), images, styles))
    assert torch.allclose(result / result.abs(), before / before.abs(), atol=1e-9)
    frequency = torch.arange(16).minimum(16 - torch.arange(16))
    low = torch.maximum(frequency[:, None], frequency) <= 3  # 0.2 × 16 = 3.2
    assert torch.allclose(result.abs(), torch.where(low, style.abs(), before.abs()), rtol=1e-9)


def test_style_of_itself_is_the_image_and_bright_styles_are_clipped():
    images = pictures()
    assert torch.equal(fourier_style(images, images, share=0.3), images)
    bright = fourier_style(images, torch.full_like(images, 0.99), share=0.0)  # the contrast stays, the mean is 0.99
    assert bright.max() == 1 and 0.9 < bright.min() < 0.99
    black = torch.zeros(1, 1, 8, 8)
    assert torch.allclose(fourier_style(black, black + 0.3), black + 0.3)
    assert fourier_style(black.half(), black.half()).dtype == torch.float32


# --- teacher --------------------------------------------------------------------------------------------------------


def test_teacher_is_the_moving_average_of_parameters_and_buffers():
    teacher, student = network(), network().requires_grad_(False)
    for tensor in [*student.parameters(), student[1].running_mean]:
        tensor.add_(1)
    student[1].num_batches_tracked += 10
    before, source = copy.deepcopy(teacher.state_dict()), copy.deepcopy(student.state_dict())
    update_teacher(teacher, student, decay=0.9)
    for name, value in teacher.state_dict().items():
        expected = 0.9 * before[name] + 0.1 * source[name] if value.is_floating_point() else source[name]
        assert torch.allclose(value, expected, rtol=1e-12), name
    assert teacher[1].num_batches_tracked == 10 and same(student.state_dict(), source)
    assert all(p.requires_grad and p.grad_fn is None for p in teacher.parameters())


def test_teacher_is_that_of_torch():
    student = network()
    theirs = AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(0.8))
    theirs.update_parameters(student)  # the first call copies
    mine = copy.deepcopy(student)
    for _ in range(3):
        with torch.no_grad():
            student[0].weight.mul_(1.1)
        theirs.update_parameters(student)
        update_teacher(mine, student, decay=0.8)
    assert torch.allclose(mine[0].weight, theirs.module[0].weight, rtol=1e-12)


def test_decay_of_1_keeps_the_teacher_and_0_takes_the_student():
    teacher, student = network(), network()
    with torch.no_grad():
        student[0].weight.mul_(1.7)
    before = copy.deepcopy(teacher.state_dict())
    update_teacher(teacher, student, decay=1)
    assert same(teacher.state_dict(), before)
    update_teacher(teacher, student, decay=0)
    assert same(teacher.state_dict(), student.state_dict())


def test_consistency_in_closed_form_without_gradient_to_the_teacher():
    sure, half = torch.tensor([[200.0, 0]]), torch.zeros(1, 2)
    assert consistency(sure, half) == 0.25 and consistency(sure, sure + 3) == 0  # softmax ignores a constant
    assert consistency(sure[:, :1], half[:, :1]) == 0.25  # one logit stands for two classes
    student, teacher = noise(2, 3, 4, 4).requires_grad_(), noise(2, 3, 4, 4, seed=1).requires_grad_()
    value = consistency(student, teacher)
    value.backward()
    assert value.item() == pytest.approx(F.mse_loss(student.softmax(1), teacher.softmax(1)).item(), rel=1e-12)
    assert student.grad.abs().sum() > 0 and teacher.grad is None


# --- adversary ------------------------------------------------------------------------------------------------------


def test_discriminator_judges_patches_and_depends_on_its_seed_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    network, again, other = (discriminator(classes=2, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state) and network.config == {"classes": 2, "width": 16, "seed": 0}
    assert same(network.state_dict(), again.state_dict()) and not same(network.state_dict(), other.state_dict())
    maps = torch.rand(2, 2, 112, 64, requires_grad=True)
    scores = network(maps)
    assert scores.shape == (2, 1, 7, 4)
    scores[0, 0, 3, 2].backward()
    rows = maps.grad[0].abs().sum((0, 2)).nonzero()
    assert rows.max() - rows.min() + 1 == 46 and (maps.grad[1] == 0).all()


def test_adversary_is_two_cross_entropies_and_steps_of_adam():
    mine, theirs = (discriminator(classes=3, width=4).double() for _ in range(2))
    source, target = noise(3, 3, 16, 32), noise(2, 3, 32, 16, seed=1)
    adversary = Adversary(mine, lr=1e-2)
    optimizer = torch.optim.Adam(theirs.parameters(), lr=1e-2, betas=(0.9, 0.99))
    for _ in range(3):
        value = adversary(source, target)
        optimizer.zero_grad()
        right, wrong = theirs(source.softmax(1)), theirs(target.softmax(1))
        (-F.logsigmoid(right).mean() / 2 - F.logsigmoid(-wrong).mean() / 2).backward()
        optimizer.step()
    for one, other in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-9)
    expected = -F.logsigmoid(theirs(target.softmax(1))).mean()  # with the weights after the update
    assert value.item() == pytest.approx(expected.item(), rel=1e-9)


def test_the_segmenter_learns_through_the_target_and_the_discriminator_by_its_own_update():
    network = discriminator(classes=3, width=4)
    adversary = Adversary(network)
    source, target = (noise(2, 3, 16, 16, seed=i).float().requires_grad_() for i in range(2))
    value = adversary(source, target)
    gradients = [p.grad.clone() for p in network.parameters()]
    state = copy.deepcopy(network.state_dict())
    value.backward()
    assert source.grad is None and target.grad.abs().sum() > 0
    assert all(torch.equal(p.grad, g) for p, g in zip(network.parameters(), gradients, strict=True))
    assert same(network.state_dict(), state)
    adversary(source.detach(), target.detach())
    assert not same(network.state_dict(), state)


def test_the_loss_falls_when_the_target_moves_to_the_source():
    """Against a discriminator that has learnt which maps are the source's, descent changes target maps into them."""
    adversary = Adversary(discriminator(classes=2, width=4), lr=1e-2)
    source, target = torch.zeros(4, 2, 16, 16), torch.zeros(4, 2, 16, 16)
    source[:, 0], target[:, 1] = 2, 2
    for _ in range(20):
        adversary(source, target)
    target.requires_grad_()
    adversary(source, target).backward()
    assert target.grad[:, 0].sum() < 0 < target.grad[:, 1].sum()


def test_autocast_around_several_calls_does_not_judge_by_old_weights():
    values = []
    for enabled in (False, True):
        adversary = Adversary(discriminator(classes=2, width=4), lr=0.1)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            values.append([adversary(*noise(2, 2, 2, 16, 16).float()).item() for _ in range(3)])
    assert values[0] == values[1]


class Judge(nn.Module):
    """One logit per image: `scale` × the probability of class 0, minus a half of it."""

    def __init__(self, scale: float, bias: float = 0.0):
        super().__init__()
        self.scale, self.bias = nn.Parameter(torch.tensor(scale)), bias

    def forward(self, maps):
        return self.scale * (maps[:, :1].mean((2, 3), keepdim=True) - 0.5) + self.bias


def seen(judge: nn.Module, source: list[float], target: list[float]) -> Adversary:
    """An adversary after a call with these logits of class 0 (that of class 1 is 0)."""
    adversary = Adversary(judge, lr=0.0)
    adversary(*(torch.tensor([[[[x]], [[0.0]]] for x in values]) for values in (source, target)))
    return adversary


@pytest.mark.parametrize(
    ("judge", "source", "target", "accuracy", "words"),
    [
        (Judge(1.0), [1, 2], [-1, -2, -3], [1, 1], "is always right"),
        (Judge(-1.0), [1, 2], [-1, -2], [0, 0], "guesses"),
        (Judge(1.0), [1, -1], [1, -1, 1, -1], [0.5, 0.5], "guesses"),
        (Judge(0.0, bias=1.0), [1, 2], [-1, -2], [1, 0], "guesses"),  # the same answer to everything
        (Judge(0.0), [1, 2], [-1, -2], [0, 0], "guesses"),  # and none at all
        (Judge(1.0), [1, 1, 1, -1], [-1, -1, 1, -1], [0.75, 0.75], "is balanced"),
        (Judge(1.0), [1, 1], [-1, 1], [1, 0.5], "is balanced"),
    ],
)
def test_verdict(judge, source, target, accuracy, words):
    adversary = seen(judge, source, target)
    assert adversary.history == [accuracy] and f"the discriminator {words}" in adversary.verdict()


def test_verdict_is_of_the_last_calls():
    adversary = seen(Judge(1.0), [1], [-1])
    adversary.history = [[0.5, 0.5]] * 60 + [[1.0, 1.0]] * 50
    assert "always right" in adversary.verdict() and "balanced" in adversary.verdict(last=100)
    adversary.history = [[0.98, 1.0]]
    assert "balanced" in adversary.verdict()


def test_training_with_an_adversary_and_a_teacher_in_one_step():
    """As a notebook does it, in bf16: supervised on source images, the rest on target images."""
    images, masks = pictures(n=8, seed=4).float(), (pictures(n=8, seed=4)[:, 0] > 0.5).long()
    model, adversary = unet(in_channels=3, classes=2, width=4, depth=2), Adversary(discriminator(classes=2, width=4))
    teacher, before = copy.deepcopy(model), copy.deepcopy(adversary.network.state_dict())

    def step(model, batch):
        update_teacher(teacher, model, decay=0.5)
        target = batch[0].flip(0) * 0.5
        source_logits, target_logits = model(batch[0]), model(target)
        loss = F.cross_entropy(source_logits.float(), batch[1]) + consistency(target_logits, teacher(target))
        return loss + 0.1 * adversary(source_logits, target_logits)

    result = fit(
        model, (images, masks), val=(images, masks), epochs=2, step=step, score=lambda _: 0.0, batch_size=4, fast=True
    )
    assert len(adversary.history) == 4 and np.isfinite(result.train_loss).all()
    assert not same(adversary.network.state_dict(), before)
    assert not same(teacher.state_dict(), model.state_dict())


# --- share of the gap, and what is refused --------------------------------------------------------------------------


def test_share_of_the_gap():
    assert share_of_gap(0.7, source=0.6, oracle=0.8) == pytest.approx(0.5)
    assert share_of_gap(0.5, source=0.6, oracle=0.8) == pytest.approx(-0.5)
    shares = share_of_gap([0.6, 0.9, 0.7], source=0.6, oracle=[0.8, 0.8, 0.602])
    assert shares[:2] == pytest.approx([0, 1.5]) and np.isnan(shares[2])
    assert np.isnan(share_of_gap(0.7, source=0.8, oracle=0.6)) and np.isnan(share_of_gap(0.7, source=0.7, oracle=0.7))
    error = dict(source=0.08, oracle=0.04)
    assert share_of_gap(0.05, **error, lower_is_better=True) == pytest.approx(0.75)
    assert np.isnan(share_of_gap(0.05, **error)) and np.isnan(share_of_gap(0.9, source=np.nan, oracle=1))
    assert share_of_gap(0.001, source=0, oracle=0.002, smallest=0.001) == pytest.approx(0.5)


IMAGES, LOGITS = pictures(n=2), noise(2, 3, 16, 16)
BARE = nn.Sequential(nn.Conv2d(3, 2, 1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: batchnorm_statistics_of(BARE, IMAGES), "Sequential has no batch norm with running statistics"),
        (lambda: batchnorm_statistics_of(network(), IMAGES[:0]), "images is 0; expected at least 1"),
        (lambda: batchnorm_statistics_of(network(), IMAGES, batch_size=0), "batch_size is 0; expected at least 1"),
        (lambda: tent(BARE, IMAGES), "Sequential has no batch norm with running statistics"),
        (lambda: tent(nn.Sequential(nn.BatchNorm2d(3, affine=False)), IMAGES), "batch norm without scale and shift"),
        (lambda: tent(network(), IMAGES[:0]), "images is 0; expected at least 1"),
        (lambda: tent(network(), IMAGES, passes=0), "passes is 0; expected at least 1"),
        (lambda: tent(network(), IMAGES, batch_size=0), "batch_size is 0; expected at least 1"),
        (lambda: mean_entropy(LOGITS[:0]), r"logits have shape \(0, 3, 16, 16\); expected \(N, C, …\), none of them 0"),
        (lambda: mean_entropy(torch.zeros(3)), r"logits have shape \(3,\); expected \(N, C, …\)"),
        (
            lambda: fourier_style(IMAGES, IMAGES[:1]),
            r"styles have shape \(1, 3, 16, 16\); expected that of images, \(2",
        ),
        (lambda: fourier_style(IMAGES[:0], IMAGES[:0]), r"images have shape \(0, 3, 16, 16\); expected \(N, C, H, W\)"),
        (lambda: fourier_style(IMAGES[0], IMAGES[0]), r"images have shape \(3, 16, 16\); expected \(N, C, H, W\)"),
        (lambda: fourier_style(IMAGES, IMAGES, share=0.6), "share is 0.6; expected 0 to 0.5"),
        (lambda: fourier_style(IMAGES, IMAGES, share=-0.1), "share is -0.1; expected 0 to 0.5"),
        (lambda: fourier_style(IMAGES, IMAGES * 255), "styles reach from .*; expected values from 0 to 1"),
        (lambda: fourier_style(IMAGES * torch.nan, IMAGES), "images reach from nan to nan"),
        (lambda: update_teacher(BARE, BARE, decay=1.1), "decay is 1.1; expected 0 to 1"),
        (lambda: update_teacher(BARE, BARE, decay=-0.1), "decay is -0.1; expected 0 to 1"),
        (lambda: update_teacher(BARE, nn.Sequential(nn.Conv2d(3, 3, 1)), decay=0.5), "student differ in '0.bias'"),
        (lambda: update_teacher(BARE, nn.Sequential(*BARE, nn.PReLU()), decay=0.5), "student differ in '1.weight'"),
        (lambda: consistency(LOGITS, LOGITS[:, :2]), r"teacher_logits have shape \(2, 2, .*that of student_logits"),
        (lambda: consistency(LOGITS[:0], LOGITS[:0]), r"logits have shape \(0, 3, 16, 16\)"),
        (lambda: discriminator(classes=1), "classes is 1; expected at least 2"),
        (lambda: discriminator(classes=2, width=0), "width is 0; expected at least 1"),
        (lambda: Adversary(discriminator(classes=2))(LOGITS, LOGITS), r"maps are \(2, 3, 16, 16\); expected \(N, 2, H"),
        (lambda: Adversary(discriminator(classes=3))(LOGITS[..., :15], LOGITS), "with H and W at least 16"),
        (lambda: Adversary(discriminator(classes=3))(LOGITS, LOGITS[:, :2]), "expected as many classes in both"),
        (lambda: Adversary(discriminator(classes=3))(LOGITS, LOGITS[:0]), r"logits have shape \(0, 3, 16, 16\)"),
        (lambda: Adversary(discriminator(classes=3)).verdict(), "calls is 0; expected at least 1"),
        (lambda: seen(Judge(1.0), [1], [1]).verdict(last=0), "last is 0; expected at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
