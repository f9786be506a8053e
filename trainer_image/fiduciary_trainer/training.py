"""The training loop of one network: early stopping on an inner tail, the best epoch's weights, the same bits again."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fiduciary_trainer.checkpoint import Attempt, Done, Running
from fiduciary_trainer.outcome import Diverged
from fiduciary_trainer.workers import ALONE, Workers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary_trainer.checkpoint import Arrays, Epochs
    from fiduciary_trainer.steps import Steps

_EVALUATION_BATCH = 8192
GRADIENT_NORM = 1.0
"""A crisis day's gradient may not undo what a hundred ordinary days taught."""


@dataclass(frozen=True)
class Network:
    """A module with its data.

    Attributes:
        module: input -> ``(n, 1)`` score: a logit where ``probability``, else the standardised label; with ``levels``,
            ``(n, K)`` its quantiles.
        inputs: ``(N, F)`` float32 transformed features of all rows that were read.
        windows: ``(T, window)`` or ``(T,)`` rows of ``inputs`` that make the input of each usable row.
        target: ``(T,)`` float32: 0/1, or the standardised label.
        fit_rows, watch_rows: usable rows to fit on, and the inner tail.
        probability: log loss rather than squared error.
        loss_unit: what one unit of loss is in the unit of the label squared (with ``levels``: of the label).
        weights: ``(2,)`` of the classes 0 and 1 in the log loss; None: equal.
        levels: ``(K,)`` of the quantiles, which are trained with pinball loss; None: a point forecast.
    """

    module: nn.Module
    inputs: Tensor
    windows: Tensor
    target: Tensor
    fit_rows: Tensor
    watch_rows: Tensor
    probability: bool
    loss_unit: float
    weights: Tensor | None = None
    levels: Tensor | None = None

    def to(self, device: torch.device) -> Network:
        return replace(
            self,
            module=self.module.to(device),
            inputs=self.inputs.to(device),
            windows=self.windows.to(device),
            target=self.target.to(device),
            fit_rows=self.fit_rows.to(device),
            watch_rows=self.watch_rows.to(device),
            weights=None if self.weights is None else self.weights.to(device),
            levels=None if self.levels is None else self.levels.to(device),
        )

    def loss(self, rows: Tensor) -> Tensor:
        """Mean over ``rows``."""
        scores = self.module(self.inputs[self.windows[rows]])
        if self.levels is not None:
            return pinball(scores, self.target[rows], self.levels)
        score = scores[:, 0]
        if self.probability:
            weight = None if self.weights is None else self.weights[self.target[rows].long()]
            return functional.binary_cross_entropy_with_logits(score, self.target[rows], weight)
        return functional.mse_loss(score, self.target[rows])

    def watched(self) -> float:
        """Loss on the inner tail."""
        self.module.eval()
        with torch.inference_mode():
            parts = self.watch_rows.split(_EVALUATION_BATCH)
            return sum(float(self.loss(part)) * len(part) for part in parts) / len(self.watch_rows)


def pinball(quantiles: Tensor, target: Tensor, levels: Tensor) -> Tensor:
    """Mean over rows and levels of ``max(τ u, (τ - 1) u)`` with ``u = y - q``.

    Source: Koenker & Bassett (1978), Econometrica 46(1).

    Args:
        quantiles: ``(n, K)``.
        target: ``(n,)``.
        levels: ``(K,)``.
    """
    above = target[:, None] - quantiles
    return torch.maximum(levels * above, (levels - 1.0) * above).mean()


@dataclass(frozen=True)
class Trained:
    """A module on the CPU, in eval mode, with the best epoch's weights.

    Attributes:
        kept_excess: by how much, as a share, the module's loss on the inner tail is above the smallest that any epoch
            recorded; 0 where the best weights were kept.
    """

    module: nn.Module
    best_epoch: int
    history: Epochs
    kept_excess: float


def make_deterministic() -> None:
    """Same bits on every run, whatever CPU request the pod has: one thread, deterministic kernels only.

    Resources are not part of a training's identity, so the number of threads may not change its result. The models
    here are small: a second thread gains nothing.
    """
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)


def derived_seed(*parts: int) -> int:
    """One seed for each purpose: independent streams, the same wherever a training was interrupted."""
    return int(np.random.SeedSequence(parts).generate_state(1, dtype=np.uint64)[0] >> np.uint64(1))


def train_member(
    network: Network,
    settings: Mapping[str, int | float | str | None],
    key: tuple[int, int, int],
    steps: Steps,
    attempt: Attempt | None,
    workers: Workers = ALONE,
) -> Trained:
    """Train one member.

    Epoch 0 is the module as it was given (its linear part alone) and may be the best.

    Args:
        network: module and data; the module is changed in place.
        settings: ``epochs``, ``patience``, ``learningRate``, ``weightDecay``, ``batchSize``.
        key: (seed, number of the fit, member); all randomness is derived from it.
        steps: told after every epoch.
        attempt: earlier state and where to keep more.
        workers: how batches are shared, and with whom; all of them call this for the same members in the same order.

    Raises:
        Retryable: SIGTERM; the state after the last whole epoch has been kept.
        WorkerLost: another worker is gone.
        Diverged: a loss is no number.
    """
    epochs = int(settings["epochs"] or 0)
    _, number, member = key
    if attempt is not None and (found := attempt.trained(number, member)) is not None:
        steps.skip(epochs)
        _restore(network.module, found.best)
        return finished(network, found.best_epoch, found.history)

    network = network.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    parameters = [parameter for parameter in network.module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=float(settings["learningRate"] or 0), weight_decay=float(settings["weightDecay"] or 0)
    )
    running = attempt.begun(number, member) if attempt is not None else None
    if running is None:
        workers.same(network.module)
        state = _state(network.module)
        running = Running(number, member, 0, 0, workers.number(network.watched), state, state, {}, [])
        demand_numbers(key, 0, settings, running.best_loss)
    else:
        steps.skip(running.epoch)
        _restore(network.module, running.state)
        _restore_optimizer(optimizer, running.optimizer)

    patience = int(settings["patience"] or epochs)
    while running.epoch < epochs and running.epoch - running.best_epoch < patience:
        epoch = running.epoch + 1
        train_loss = _epoch(network, optimizer, settings, derived_seed(*key, epoch), attempt, workers)
        workers.same(network.module)
        inner_loss = workers.number(network.watched)
        demand_numbers(key, epoch, settings, train_loss, inner_loss)
        running = _after(running, epoch, train_loss, inner_loss, network, optimizer)
        if attempt is not None:
            attempt.keep(running)
        steps.done(1, ("inner_loss", inner_loss * network.loss_unit))
    steps.skip(epochs - running.epoch)
    _restore(network.module, running.best)
    if attempt is not None:
        attempt.finish(number, member, Done(running.best_epoch, running.best, running.history))
    return finished(network, running.best_epoch, running.history)


def demand_numbers(
    key: tuple[int, int, int], epoch: int, settings: Mapping[str, int | float | str | None], *losses: float
) -> None:
    """Losses of one epoch of one member. What is no number stays none: every later step would be lost time.

    Raises:
        Diverged: one of them is NaN or infinite.
    """
    wrong = [loss for loss in losses if not math.isfinite(loss)]
    if wrong:
        _, number, member = key
        rate = float(settings["learningRate"] or 0)
        where = f"fit {number + 1}, member {member + 1}, epoch {epoch}"
        raise Diverged(
            "Diverged",
            f"the loss is {wrong[0]} ({where}); expected a number: lower training.hyperparameters.learningRate (now "
            f"{rate:g}), or look for extreme values in the data",
        )


def finished(network: Network, best_epoch: int, history: Epochs) -> Trained:
    """The finished member. Its loss is computed anew, from what is kept: a record of the best epoch proves nothing."""
    recorded = min((float(entry["inner_loss"]) for entry in history), default=None)
    excess = 0.0
    if recorded:
        excess = max(0.0, network.watched() * network.loss_unit / recorded - 1.0)
    return Trained(network.module.cpu().eval(), best_epoch, history, excess)


def _epoch(
    network: Network,
    optimizer: torch.optim.Optimizer,
    settings: Mapping[str, int | float | str | None],
    seed: int,
    attempt: Attempt | None,
    workers: Workers,
) -> float:
    """One pass over the rows in an order drawn from ``seed``; the mean loss."""
    torch.manual_seed(seed)
    network.module.train()
    order = network.fit_rows[torch.randperm(len(network.fit_rows)).to(network.fit_rows.device)]
    parameters: list[nn.Parameter] = optimizer.param_groups[0]["params"]
    total = 0.0
    for rows in order.split(int(settings["batchSize"] or 1)):
        if attempt is not None and attempt.asked_to_stop:
            attempt.stop()  # what this epoch has done is given up: a pod has seconds, an epoch may take minutes
        loss = workers.gradient(parameters, network.loss, rows)
        nn.utils.clip_grad_norm_(network.module.parameters(), GRADIENT_NORM)
        optimizer.step()
        total += loss * len(rows)
    return total / len(order)


def _after(
    before: Running,
    epoch: int,
    train_loss: float,
    inner_loss: float,
    network: Network,
    optimizer: torch.optim.Optimizer,
) -> Running:
    state = _state(network.module)
    better = inner_loss < before.best_loss
    entry: dict[str, float | bool] = {
        "member": before.member,
        "epoch": epoch,
        "train_loss": train_loss * network.loss_unit,
        "inner_loss": inner_loss * network.loss_unit,
        "best": better,
    }
    return Running(
        number=before.number,
        member=before.member,
        epoch=epoch,
        best_epoch=epoch if better else before.best_epoch,
        best_loss=inner_loss if better else before.best_loss,
        state=state,
        best=state if better else before.best,
        optimizer=_optimizer_state(optimizer),
        history=[*before.history, entry],
    )


def _state(module: nn.Module) -> Arrays:
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in module.state_dict().items()}


def _restore(module: nn.Module, state: Arrays) -> None:
    module.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})


def _optimizer_state(optimizer: torch.optim.Optimizer) -> Arrays:
    return {
        f"{parameter}/{name}": value.detach().cpu().numpy().copy()
        for parameter, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }


def _restore_optimizer(optimizer: torch.optim.Optimizer, arrays: Arrays) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in arrays.items():
        parameter, name = key.split("/", 1)
        state.setdefault(int(parameter), {})[name] = torch.from_numpy(value.copy())
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
