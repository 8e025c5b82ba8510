"""The training loop: learning, resuming, callbacks, clipping, and what it refuses."""

import numpy as np
import pytest
import torch
from torch import nn

from helpers import train
from helpers.train import binary_loss, fit, predict


def task(n: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise images (n, 1, 4, 4); the label says whether the left half is the brighter one."""
    images = torch.from_numpy(np.random.default_rng(0).standard_normal((n, 1, 4, 4)).astype(np.float32))
    return images, (images[..., :2].sum((1, 2, 3)) > images[..., 2:].sum((1, 2, 3))).long()


def network(seed: int = 0) -> nn.Module:
    """With batch norm and dropout, so that state outside the weights counts too."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 1))


def trained(model=None, *, epochs: int = 6, **options):
    model = network() if model is None else model
    return model, fit(model, task(), val=task(32), **dict(epochs=epochs, lr=0.03, batch_size=16) | options)


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_learns_a_separable_task():
    model, result = trained(epochs=15)
    images, labels = task()
    assert ((predict(model, images)[:, 0] > 0) == labels).float().mean() > 0.95
    assert result.train_loss[-1] < 0.5 * result.train_loss[0]
    assert len(result.train_loss) == len(result.val_score) == 15


def test_same_seed_same_bits_and_another_seed_others():
    (model, result), (again, result_again), (other, _) = trained(), trained(), trained(seed=1)
    assert same(model.state_dict(), again.state_dict())
    assert result.train_loss == result_again.train_loss and result.val_score == result_again.val_score
    assert not same(model.state_dict(), other.state_dict())


@pytest.mark.parametrize("interrupted_in", [1, 4])
def test_resumed_training_is_bit_equal_to_an_uninterrupted_one(tmp_path, interrupted_in):
    options = dict(augment=lambda images, rng: images + 0.1 * float(rng.standard_normal()))
    model, result = trained(**options)
    checkpoint, seen = tmp_path / "fit.pt", []

    def score(net):
        if len(seen) == interrupted_in:
            raise KeyboardInterrupt
        seen.append(1)
        return -binary_loss(predict(net, task(32)[0]), task(32)[1]).item()

    with pytest.raises(KeyboardInterrupt):
        trained(score=score, checkpoint=checkpoint, **options)
    assert [file.name for file in tmp_path.iterdir()] == ["fit.pt"]
    epochs = []
    resumed, result_resumed = trained(
        network(seed=9), checkpoint=checkpoint, score=lambda net: (epochs.append(1), default_score(net))[1], **options
    )
    assert len(epochs) == 6 - interrupted_in  # what was done is not done again
    assert same(model.state_dict(), resumed.state_dict())
    assert (result.train_loss, result.val_score) == (result_resumed.train_loss, result_resumed.val_score)
    assert result.best_epoch == result_resumed.best_epoch and same(result.best_state, result_resumed.best_state)
    assert list(tmp_path.iterdir()) == []  # removed at the end


def default_score(net) -> float:
    return -binary_loss(predict(net, task(32)[0]), task(32)[1]).item()


def test_last_and_best_are_both_kept():
    scores, states = iter([0.1, 0.9, 0.9, 0.3]), []

    def score(net):
        states.append({name: tensor.clone() for name, tensor in net.state_dict().items()})
        return next(scores)

    model, result = trained(epochs=4, score=score)
    assert result.val_score == [0.1, 0.9, 0.9, 0.3]
    assert result.best_epoch == 2  # the later of two equals
    assert same(result.best_state, states[2])
    assert same(model.state_dict(), states[3]) and not same(model.state_dict(), result.best_state)


def test_score_is_minus_the_validation_loss_by_default():
    model, result = trained(epochs=2)
    assert result.val_score[-1] == default_score(model)


def test_steps_end_within_an_epoch():
    def seen_by(**options):
        batches, values = [], []

        def step(model, batch):
            batches.append(batch[2].tolist())
            values.append(binary_loss(model(batch[0]), batch[1]))
            return values[-1]

        model = network()
        result = fit(model, (*task(), torch.arange(64)), batch_size=24, step=step, **options)
        return batches, [value.item() for value in values], result.train_loss, model.state_dict()

    five, values, losses, _ = seen_by(steps=5)
    (six, *_, whole), (two_epochs, *_, same_whole) = seen_by(steps=6), seen_by(epochs=2)
    assert [len(batch) for batch in five] == [24, 24, 16, 24, 24] and five == six[:5]
    assert sorted(sum(five[:3], [])) == list(range(64)) and not set(five[3]) & set(five[4])
    assert losses == pytest.approx([np.average(values[:3], weights=[24, 24, 16]), np.mean(values[3:])])
    assert six == two_epochs and same(whole, same_whole)


def test_without_validation_the_last_epoch_is_the_best():
    model = network()
    result = fit(model, task(), epochs=3)
    assert (result.best_epoch, result.val_score) == (2, [0, 0, 0]) and same(result.best_state, model.state_dict())


@pytest.mark.parametrize("told", [dict(), dict(epochs=1, steps=1), dict(epochs=0), dict(steps=0), dict(steps=-1)])
def test_either_epochs_or_steps(told):
    expected = f"epochs is {told.get('epochs')}, steps is {told.get('steps')}; expected one of them, 1 or more"
    with pytest.raises(ValueError, match=expected):
        fit(network(), task(), **told)


def test_step_takes_the_place_of_the_loss():
    data, batches = (*task(), torch.arange(64)), []

    def step(model, batch):
        batches.append(batch)
        return binary_loss(model(batch[0]), 1 - batch[1])  # the opposite task

    model = network()
    fit(model, data, val=task(32), epochs=15, lr=0.03, batch_size=24, step=step)
    assert ((predict(model, data[0])[:, 0] > 0) == data[1]).float().mean() < 0.1
    assert [len(batch[0]) for batch in batches[:3]] == [24, 24, 16]
    assert sorted(torch.cat([batch[2] for batch in batches[:3]]).tolist()) == list(range(64))  # every image once
    assert all(
        torch.equal(batch[0], data[0][batch[2]]) and torch.equal(batch[1], data[1][batch[2]]) for batch in batches
    )


def test_augmentation_changes_training_batches_only():
    seen = []

    def augment(images, rng):
        seen.append((len(images), rng.integers(1000)))
        return 0 * images

    model, result = trained(epochs=2, augment=augment)
    assert [n for n, _ in seen] == [16] * 8 and len({number for _, number in seen}) > 4
    assert result.val_score[-1] == default_score(model)
    assert not same(model.state_dict(), trained(epochs=2)[0].state_dict())


@pytest.mark.parametrize("clip", [0.5, 0.01])
def test_clipping_bounds_the_gradient(clip):
    def largest_norm(clip):
        model = network()
        fit(model, task(), val=task(32), epochs=1, clip=clip, step=lambda m, b: 100 * binary_loss(m(b[0]), b[1]))
        return torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item()  # of the last step

    assert largest_norm(clip) == pytest.approx(clip, rel=1e-3)
    assert largest_norm(1e9) > 1


def test_fast_is_bf16_and_close():
    kinds = []

    def step(model, batch):
        logits = model(batch[0])
        kinds.append(logits.dtype)
        return binary_loss(logits.float(), batch[1])

    (model, result), (_, exact) = trained(epochs=3, fast=True, step=step), trained(epochs=3)
    assert set(kinds) == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert result.train_loss == pytest.approx(exact.train_loss, abs=0.05) and result.train_loss != exact.train_loss


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_training(value, tmp_path):
    before = network().state_dict()
    model = network()
    with pytest.raises(FloatingPointError, match=f"the loss is {value} in epoch 0; expected a finite number"):
        trained(model, loss=lambda logits, labels: logits.sum() * value)
    weights = [name for name in before if name.endswith(("weight", "bias"))]
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in weights)


def test_a_score_that_is_not_finite_stops_the_training():
    with pytest.raises(FloatingPointError, match="the score is nan in epoch 0; expected a finite number"):
        trained(score=lambda model: float("nan"))


def test_unequal_lengths_are_refused():
    images, labels = task()
    for data, val in (((images, labels[:9]), task()), (task(), (images, labels[:9]))):
        with pytest.raises(ValueError, match=r"tensors of lengths \[64, 9\]; expected equal lengths"):
            fit(network(), data, val=val, epochs=1)


@pytest.mark.parametrize("training", [True, False])
def test_predict_is_the_model_in_evaluation_mode(training):
    model, images = network().train(training), task()[0]
    outputs = predict(model, images, batch_size=10)
    assert model.training is training and all(m.training is training for m in model)
    assert outputs.shape == (64, 1) and not outputs.requires_grad
    torch.testing.assert_close(outputs, model.eval()(images), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(outputs, model.train()(images), atol=1e-2)


def test_binary_loss_by_hand():
    loss = binary_loss(torch.tensor([[0.0], [np.log(3.0)]]), torch.tensor([1, 0]))
    assert loss.item() == pytest.approx((np.log(2) + np.log(4)) / 2)


def test_half_a_checkpoint_is_never_left(tmp_path, monkeypatch):
    def save(state, file):
        file.write_bytes(b"half")
        raise OSError("the disk is full")

    monkeypatch.setattr(train.torch, "save", save)
    with pytest.raises(OSError, match="the disk is full"):
        trained(checkpoint=tmp_path / "fit.pt")
    assert not (tmp_path / "fit.pt").exists()
