"""Views change images as said, repeatably; the losses are those of their papers, written out."""

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers import augmentation as module
from helpers.augmentation import augment, random_crop, recolour, views
from helpers.losses import fixmatch_loss, nt_xent
from helpers.train import fit, predict


def noise(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).random(shape, dtype=np.float32))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# Views ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 1, 24, 24), (3, 3, 20, 33)])
def test_views_keep_shape_and_range_and_repeat_with_the_seed(shape):
    images = noise(*shape)
    before, view = images.clone(), augment(images, rng(), strength=1.0)
    assert view.shape == images.shape and view.dtype == torch.float32 and view.min() >= 0 and view.max() <= 1
    assert torch.equal(view, augment(images, rng(), strength=1.0)) and torch.equal(images, before)
    assert not torch.equal(view, augment(images, rng(1), strength=1.0))


def test_strength_scales_the_change_from_nothing():
    images = noise(30, 1, 24, 24)
    changes = [(augment(images, rng(), strength=s) - images).abs().mean().item() for s in (0.0, 0.05, 0.3, 1.0)]
    assert changes[0] < 1e-5
    assert 0.001 < changes[1] < changes[2] < changes[3]


def crops(strength: float, **options) -> tuple[torch.Tensor, torch.Tensor]:
    """Side seen and its centre, as shares of the width and the height, (400, 2) each, of views of two ramps."""
    size = 40
    line = ((torch.arange(size) + 0.5) / size).expand(size, size)
    view = random_crop(torch.stack([line, line.T]).repeat(400, 1, 1, 1), rng(), strength=strength, **options)
    last, first = view[:, [0, 1], [20, 29], [29, 20]], view[:, [0, 1], [20, 10], [10, 20]]
    return (last - first) * size / 19, (last + first) / 2


@pytest.mark.parametrize("strength", [0.2, 1.0])
def test_crops_are_as_large_as_said_and_anywhere_within_the_image(strength):
    side, centre = crops(strength)
    torch.testing.assert_close(side[:, 0], side[:, 1], rtol=0, atol=1e-5)  # nothing is stretched
    assert 1 - strength / 2 <= side.min() + 1e-5 < 1 - 0.48 * strength and 1 - 0.02 * strength < side.max() < 1.0001
    reach = (centre - 0.5) / (1 - side) * 2
    assert reach.min() < -0.9 and reach.max() > 0.9 and reach.abs().max() < 1.01
    assert abs(np.corrcoef(reach.T.numpy())[0, 1]) < 0.2


def test_flips_only_on_request():
    assert (crops(1.0)[0] > 0).all()
    mirrored, turned = (crops(1.0, flips=True)[0] < 0).T
    shares = [(mirrored & turned), (mirrored & ~turned), (~mirrored & turned), (~mirrored & ~turned)]
    assert all(0.17 < share.float().mean() < 0.33 for share in shares)


@pytest.mark.parametrize("strength", [0.2, 1.0])
def test_brightness_noise_and_patch_of_grey_images(strength):
    grey = torch.linspace(0.4, 0.6, 200)[:, None, None, None].expand(200, 3, 50, 50)
    view = augment(grey, rng(), strength=strength)
    shift = view.flatten(2).median(2).values - grey[:, :, 0, 0]
    assert 0.28 * strength < shift.abs().max() < 0.31 * strength
    assert np.abs(np.corrcoef(shift.numpy().T) - np.eye(3)).max() < 0.25  # each channel its own
    rough = (view.diff(dim=3).abs().flatten(1).median(1).values / 0.954) / (0.05 * strength)  # σ √2 Φ⁻¹(3/4)
    assert rough.min() < 0.1 and 0.9 < rough.max() < 1.1
    patch = ((view - grey).abs() < 1e-6).all(1)
    rows, columns = patch.any(2).sum(1), patch.any(1).sum(1)
    assert torch.equal(patch.sum((1, 2)), rows * columns)  # rectangles
    assert patch.any(2).any(0).all() and patch.any(1).any(0).all()  # in all rows, and in all columns
    assert 0.3 * strength * 50 < rows.max() <= 0.4 * strength * 50 + 1 and rows.min() < 2


def test_contrast_is_at_most_doubled_and_halved():
    halves = torch.full((200, 1, 40, 40), 0.4)
    halves[..., 20:] = 0.6
    step = augment(halves, rng(), strength=0.5).median(2).values[:, 0]
    factor = ((step[:, -3] - step[:, 2]) / 0.2).log2()
    assert -0.6 < factor.min() < -0.45 and 0.45 < factor.max() < 0.6


def test_blur_smooths(monkeypatch):
    images = noise(20, 1, 64, 64)
    blurred = augment(images, rng(), strength=1.0).diff(dim=3).square().mean((1, 2, 3))
    monkeypatch.setattr(module, "gaussian_blur", lambda images, size, sigma: images)
    ratio = blurred / augment(images, rng(), strength=1.0).diff(dim=3).square().mean((1, 2, 3))
    assert ratio.max() < 1.01 and ratio.min() < 0.5


def test_recoloured_pixels_stay_where_they_are():
    images = torch.from_numpy(np.random.default_rng(0).uniform(0.4, 0.6, (200, 3, 6, 6)).astype(np.float32))
    found = recolour(images, np.random.default_rng(1), strength=0.5)
    before, after = (x - x.mean((2, 3), keepdim=True) for x in (images, found))
    factor = (before * after).sum((2, 3)) / before.square().sum((2, 3))  # each channel is a line through the old one
    torch.testing.assert_close(after, factor[..., None, None] * before, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(factor, factor[:, :1].expand(-1, 3), atol=1e-4, rtol=1e-4)  # one contrast an image
    assert 2**-0.5 <= factor.min() < 0.75 and 1.35 < factor.max() <= 2**0.5
    shift = found.mean((2, 3)) - images.mean((2, 3))
    assert 0.14 < shift.abs().max() < 0.15 + 0.05 and (shift.std(1) > 0).all()
    assert torch.equal(recolour(images, np.random.default_rng(1), strength=0), images)


def test_recoloured_images_stay_in_range():
    images = torch.from_numpy(np.random.default_rng(0).uniform(0, 1, (20, 3, 6, 6)).astype(np.float32))
    found = recolour(images, np.random.default_rng(1), strength=1)
    assert (found.min(), found.max()) == (0, 1)
    with pytest.raises(ValueError, match="strength 2; expected"):
        recolour(images, np.random.default_rng(1), strength=2)


def test_impossible_views_are_refused():
    for images, strength in ((noise(3, 9, 9), 0.5), (noise(1, 1, 9, 9), -0.1), (noise(1, 1, 9, 9), float("nan"))):
        with pytest.raises(ValueError, match="0…1"):
            augment(images, rng(), strength=strength)


def test_views_follow_one_another():
    images, generator = noise(4, 1, 16, 16), rng()
    first, second = (augment(images, generator, strength=s) for s in (0.2, 1.0))
    assert torch.equal(views(images, rng(), strengths=(0.2, 1.0)), torch.cat([first, second]))


# Losses --------------------------------------------------------------------------------------------------------------


def written_out(first: torch.Tensor, second: torch.Tensor, temperature: float) -> float:
    """Chen et al., Eq. 1, term by term, mean over all 2N views."""
    z = [*first.double(), *second.double()]
    n, total = len(first), 0.0
    for i in range(2 * n):
        weights = [math.exp(F.cosine_similarity(z[i], z[k], dim=0).item() / temperature) for k in range(2 * n)]
        total -= math.log(weights[(i + n) % (2 * n)] / (sum(weights) - weights[i]))
    return total / (2 * n)


@pytest.mark.parametrize("n, temperature", [(2, 0.5), (5, 0.1), (7, 2.0)])
def test_nt_xent_is_the_equation(n, temperature):
    first, second = noise(2, n, 4).sub(0.4)
    assert nt_xent(first, second, temperature=temperature).item() == pytest.approx(
        written_out(first, second, temperature), rel=1e-5
    )


def test_nt_xent_in_closed_form():
    axes = torch.eye(4) * torch.tensor([1.0, 2.0, 30.0, 0.1])  # lengths do not count
    found = nt_xent(axes, axes, temperature=0.5).item()  # itself e², six others e⁰
    assert found == pytest.approx(math.log(1 + 6 / math.e**2), rel=1e-6)
    assert nt_xent(torch.ones(3, 2), torch.ones(3, 2)).item() == pytest.approx(math.log(5), rel=1e-6)


def test_nt_xent_differentiates_and_keeps_fp32_under_autocast():
    first, second = noise(2, 6, 8).double().sub(0.5).requires_grad_()
    assert torch.autograd.gradcheck(nt_xent, (first, second))
    expected = nt_xent(first.float(), second.float())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(nt_xent(first.float(), second.float()), expected)
    assert nt_xent(first.bfloat16(), second.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("shapes", [((1, 4), (1, 4)), ((2, 4), (3, 4)), ((4,), (4,))])
def test_nt_xent_refuses_what_has_no_negatives(shapes):
    with pytest.raises(ValueError, match="N at least 2"):
        nt_xent(*(torch.ones(shape) for shape in shapes))
    with pytest.raises(ValueError, match="temperature is 0"):
        nt_xent(torch.ones(2, 2), torch.ones(2, 2), temperature=0)


def test_fixmatch_counts_confident_images_only_and_divides_by_all():
    weak = torch.tensor([[0.05, 0.95], [0.9, 0.1], [0.98, 0.02], [0.5, 0.5]]).log().requires_grad_()
    strong = torch.tensor([[0.2, 0.8], [0.1, 0.9], [0.3, 0.7], [0.6, 0.4]]).log().requires_grad_()
    loss = fixmatch_loss(weak, strong, threshold=0.94)
    assert loss.item() == pytest.approx(-(math.log(0.8) + math.log(0.3)) / 4, rel=1e-5)
    loss.backward()
    assert weak.grad is None
    assert (strong.grad.abs().sum(1) > 0).tolist() == [True, False, True, False]
    assert fixmatch_loss(weak, strong, threshold=1.0).item() == 0
    assert fixmatch_loss(torch.zeros(2, 2), strong[:2], threshold=0.5).item() > 0  # exactly the threshold counts


@pytest.mark.parametrize("shapes", [((3, 1), (3, 1)), ((3, 2), (4, 2)), ((3,), (3,))])
def test_fixmatch_refuses_single_logits(shapes):
    with pytest.raises(ValueError, match="C at least 2"):
        fixmatch_loss(*(torch.ones(shape) for shape in shapes))


# In the training loop ------------------------------------------------------------------------------------------------


def bars(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy images (n, 1, 16, 16) of one bar, upright or lying."""
    labels, images = torch.arange(n) % 2, 0.3 * noise(n, 1, 16, 16)
    for i, place in enumerate(rng().integers(4, 11, n)):
        rows = images[i, 0] if labels[i] else images[i, 0].T
        rows[place : place + 2] += 0.5
    return images, labels


def network(outputs: int) -> nn.Module:
    torch.manual_seed(0)
    body = [nn.Conv2d(1, 8, 5), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(8, outputs))


def test_contrastive_training_brings_views_of_an_image_together():
    data = bars(64)
    model, two = network(8), partial(views, strengths=(0.5, 0.5))
    settings = dict(val=data, epochs=8, batch_size=16, lr=0.01, score=lambda model: 0.0)
    result = fit(model, data, step=lambda m, batch: nt_xent(*m(batch[0]).chunk(2)), augment=two, **settings)
    assert result.train_loss[-1] < result.train_loss[0] - 0.3 and result.train_loss[0] < math.log(31) + 0.5


def test_unlabelled_images_train_beside_labelled_ones():
    images, labels = bars(128)
    pairs = torch.stack([images[:8].repeat(16, 1, 1, 1), images], 1)  # a labelled image beside each unlabelled one

    def augmented(pairs, generator):
        labelled, unlabelled = pairs.unbind(1)
        weak = augment(labelled, generator, strength=0.2)
        return torch.cat([weak, views(unlabelled, generator, strengths=(0.2, 1.0))])

    def step(model, batch):
        labelled, weak, strong = model(batch[0]).chunk(3)
        return F.cross_entropy(labelled, batch[1]) + fixmatch_loss(weak, strong, threshold=0.8)

    model, settings = network(2), dict(val=(images, labels), epochs=8, batch_size=16, lr=0.02, loss=F.cross_entropy)
    fit(model, (pairs, labels[:8].repeat(16)), step=step, augment=augmented, **settings)
    assert (predict(model, images).argmax(1) == labels).float().mean() > 0.95
