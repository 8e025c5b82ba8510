"""One training loop for all chapters."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from helpers.frontend import progress


@dataclass
class Fit:
    """What a training left behind: a loss per epoch, and the weights of the epoch with the best validation score."""

    train_loss: list[float]
    val_score: list[float]
    best_epoch: int
    best_state: dict = field(repr=False)


def binary_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy of one logit per image, logits (N, 1), labels (N,)."""
    return F.binary_cross_entropy_with_logits(logits[:, 0], labels.float())


@torch.inference_mode()
def predict(model: nn.Module, images: torch.Tensor, *, batch_size: int = 64) -> torch.Tensor:
    """Outputs of the model in evaluation mode, in fp32, on the CPU; images (N, C, H, W)."""
    training, device = model.training, next(model.parameters()).device
    model.eval()
    outputs = [model(batch.to(device)).float().cpu() for batch in images.split(batch_size)]
    model.train(training)
    return torch.cat(outputs)


def fit(
    model: nn.Module,
    data: tuple[torch.Tensor, ...],
    *,
    epochs: int | None = None,
    steps: int | None = None,
    val: tuple[torch.Tensor, ...] | None = None,
    loss: Callable[..., torch.Tensor] = binary_loss,
    step: Callable[[nn.Module, tuple], torch.Tensor] | None = None,
    score: Callable[[nn.Module], float] | None = None,
    augment: Callable[[torch.Tensor, np.random.Generator], torch.Tensor] | None = None,
    batch_size: int = 32,
    lr: float = 3e-3,
    weight_decay: float = 1e-4,
    clip: float = 1.0,
    seed: int = 0,
    fast: bool = False,
    checkpoint: Path | None = None,
) -> Fit:
    """Train in place with AdamW and a one-cycle learning rate; the model ends with the weights of the LAST epoch.

    For so many `epochs`, or so many `steps`: batches, of which the last epoch may have fewer. data, val: tensors of
    equal length, images first; a batch is a tuple of their rows. The objective is loss(logits, *targets), or
    step(model, batch) for one that needs more than logits and targets. score(model): higher is better; by default minus
    the loss on `val`, or 0 without it, and of equals the last is the best. clip: largest gradient norm. fast: bf16.
    checkpoint: a file from which an interrupted training goes on, epoch by epoch with the same result; it is removed
    at the end. Batches and augmentation depend on seed and epoch only.

    Raises ValueError for tensors of different lengths, and for neither or both of epochs and steps, or less than 1;
    FloatingPointError if the loss or score is not finite.
    """
    if (epochs is None) == (steps is None) or (epochs or steps or 0) < 1:
        raise ValueError(f"epochs is {epochs}, steps is {steps}; expected one of them, 1 or more")
    for tensors in (data, val or data):
        if len({len(tensor) for tensor in tensors}) != 1:
            raise ValueError(f"tensors of lengths {[len(tensor) for tensor in tensors]}; expected equal lengths")
    device = next(model.parameters()).device
    model.to(memory_format=torch.channels_last)  # on a CPU 1.4 times as fast for images
    step = step or (lambda model, batch: loss(model(batch[0]), *batch[1:]))
    score = score or (lambda model: -loss(predict(model, val[0]), *val[1:]).item() if val else 0.0)
    in_epoch = -(-len(data[0]) // batch_size)
    steps = steps or epochs * in_epoch
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=steps)
    history = {"train_loss": [], "val_score": [], "best_epoch": -1, "best_state": {}}
    if checkpoint and checkpoint.exists():
        history = _resume(checkpoint, model, optimizer, schedule)

    for epoch in progress(range(len(history["train_loss"]), -(-steps // in_epoch)), description="epochs"):
        rng = np.random.default_rng([seed, epoch])
        torch.manual_seed(int(rng.integers(2**31)))  # dropout, if the model has any
        order = torch.from_numpy(rng.permutation(len(data[0])))[: (steps - epoch * in_epoch) * batch_size]
        model.train()
        total = 0.0
        for rows in order.split(batch_size):
            batch = tuple(tensor[rows].to(device) for tensor in data)
            if augment:
                batch = (augment(batch[0], rng), *batch[1:])
            with torch.autocast(device.type, torch.bfloat16, enabled=fast):
                value = step(model, batch)
            if not torch.isfinite(value):
                raise FloatingPointError(f"the loss is {value.item()} in epoch {epoch}; expected a finite number")
            optimizer.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            schedule.step()
            total += value.item() * len(rows)
        history["train_loss"].append(total / len(order))
        history["val_score"].append(float(score(model)))
        if not np.isfinite(history["val_score"][-1]):
            raise FloatingPointError(
                f"the score is {history['val_score'][-1]} in epoch {epoch}; expected a finite number"
            )
        if history["val_score"][-1] >= max(history["val_score"]):
            history |= {"best_epoch": epoch, "best_state": copy.deepcopy(model.state_dict())}
        if checkpoint:
            _store(checkpoint, model, optimizer, schedule, history)
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    return Fit(**history)


def _store(checkpoint, model, optimizer, schedule, history) -> None:
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    partial = checkpoint.with_suffix(".partial")
    torch.save(state | {"history": history}, partial)
    partial.replace(checkpoint)


def _resume(checkpoint, model, optimizer, schedule) -> dict:
    state = torch.load(checkpoint, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    return state["history"]
