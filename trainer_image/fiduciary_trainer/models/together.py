"""Many networks trained as one: a leading dimension of models instead of one small step after the other.

A step of one small network costs mostly what surrounds its few multiplications. Folds, members and splits of a training
are independent, so their steps are taken together: each model keeps its own rows, order, moments and early stopping,
and takes exactly the steps that it would take alone (see :func:`fiduciary_trainer.training.train_member`); sums are
rounded in another order, nothing else differs. Rows are looked up by index, no window is ever written out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fiduciary_trainer.checkpoint import Done
from fiduciary_trainer.models import stacks
from fiduciary_trainer.models.modules import Skipped
from fiduciary_trainer.training import GRADIENT_NORM, Trained, demand_numbers, derived_seed, finished

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fiduciary_trainer.checkpoint import Attempt, Epochs
    from fiduciary_trainer.steps import Steps
    from fiduciary_trainer.training import Network

BETAS = (0.9, 0.999)
EPSILON = 1e-8
"""Of AdamW (Loshchilov & Hutter 2019), as torch has them."""

_WATCHED = 256
"""Rows of an inner tail that are looked at at once."""

Key = tuple[int, int, int]


class _Weights:
    """Parameters of A models, or something of their shapes: tensors ``(A, ...)``."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self.each = tuple(tensors)

    def take(self, models: Tensor) -> _Weights:
        return _Weights(tensor[models] for tensor in self.each)

    def put(self, models: Tensor, values: _Weights) -> None:
        for own, new in zip(self.each, values.each, strict=True):
            own[models] = new

    def like(self) -> _Weights:
        return _Weights(torch.zeros_like(tensor) for tensor in self.each)

    def first(self, count: int) -> _Weights:
        """A view of the first models."""
        return _Weights(tensor[:count] for tensor in self.each)

    def of(self, model: int) -> stacks.Weights:
        """Of one model, without the leading dimension."""
        return tuple(tensor[model] for tensor in self.each)


@dataclass
class _Data:
    """Rows of all models. Models of one fold share their inputs: ``group`` says which.

    Attributes:
        inputs: ``(G, N, F)``.
        linear: ``(G, T)`` the held linear part's score of every usable row.
        windows: ``(T,)`` row of ``inputs`` of each usable row, or ``(T, W)`` rows.
        target: ``(G, T)``.
        classes: ``(G, 2)`` weights of the classes.
        group: ``(M,)``.
    """

    inputs: Tensor
    linear: Tensor
    windows: Tensor
    target: Tensor
    classes: Tensor
    group: Tensor
    probability: bool

    def inputs_of(self, models: Tensor, rows: Tensor) -> Tensor:
        """``(A, B, F)`` or ``(A, B, W, F)`` what the networks ``models`` read of ``rows``, ``(A, B)``."""
        windows = self.windows[rows]
        group = self.group[models].reshape(-1, *(1 for _ in windows.shape[1:]))
        return self.inputs[group, windows]

    def losses(self, scores: Tensor, models: Tensor, rows: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """The derivative by the score, and the loss of each model.

        Args:
            scores: ``(A, B)`` of the networks, without the linear part.
            models: ``(A,)`` which they are.
            rows: ``(A, B)`` usable rows.
            share: ``(A, B)`` weight of each row in its model's mean; 0 where there is none.
        """
        group = self.group[models][:, None]
        score = scores + self.linear[group, rows]
        target = self.target[group, rows]
        if not self.probability:
            error = score - target
            return 2.0 * error * share, (error * error * share).sum(dim=1)
        share = share * self.classes[group, target.long()]
        # log(1 + e^s) - y s, without overflow.
        loss = torch.clamp(score, min=0.0) - target * score + torch.log1p(torch.exp(-score.abs()))
        return (torch.sigmoid(score) - target) * share, (loss * share).sum(dim=1)


def can_train(networks: Sequence[Network]) -> bool:
    """Whether all of them are of one architecture that can be stacked, on the same data, on a CPU."""
    cores = _cores(networks)
    return (
        not torch.cuda.is_available()
        and len(networks) > 1
        and len(cores) == len(networks)
        and stacks.of(cores) is not None
    )


def _cores(networks: Sequence[Network]) -> list[nn.Module]:
    return [each.module.network for each in networks if isinstance(each.module, Skipped)]


def train(
    networks: Sequence[Network],
    settings: Mapping[str, int | float | str | None],
    keys: Sequence[Key],
    steps: Steps,
    attempt: Attempt | None,
) -> list[Trained]:
    """Train them all; what :func:`fiduciary_trainer.training.train_member` would give, to rounding.

    They are taken in groups as large as pays for their architecture. A later attempt begins the group that it was in
    anew: a group takes seconds, and which are trained together may not differ between attempts, since that could move a
    last digit.

    Args:
        networks: that can be (:func:`can_train`); modules are changed in place.
        settings, steps, attempt: as for one.
        keys: (seed, number of the fit, member) of each.

    Raises:
        Retryable: SIGTERM.
        Diverged: a loss is no number.
    """
    stack = stacks.of(_cores(networks))
    assert stack is not None
    trained: list[Trained] = []
    for first in range(0, len(networks), stack.at_once):
        own = slice(first, first + stack.at_once)
        trained += _group(stack, networks[own], settings, keys[own], steps, attempt)
    return trained


def _group(
    stack: stacks.Stack,
    networks: Sequence[Network],
    settings: Mapping[str, int | float | str | None],
    keys: Sequence[Key],
    steps: Steps,
    attempt: Attempt | None,
) -> list[Trained]:
    epochs, patience = int(settings["epochs"] or 0), int(settings["patience"] or settings["epochs"] or 0)
    if attempt is not None:
        found = [attempt.trained(number, member) for _, number, member in keys]
        if all(each is not None for each in found):
            steps.skip(epochs * len(keys))
            return [_restored(network, done) for network, done in zip(networks, found, strict=True) if done is not None]
    training = _Training(stack, networks, settings, keys, attempt)
    for epoch in range(1, epochs + 1):
        alive = training.alive(epoch, patience)
        if not alive:
            break
        losses = training.epoch(epoch, alive)
        steps.done(len(alive), ("inner_loss", losses))
    steps.skip(epochs * len(keys) - training.taken)
    return training.finish()


class _Training:
    def __init__(
        self,
        stack: stacks.Stack,
        networks: Sequence[Network],
        settings: Mapping[str, int | float | str | None],
        keys: Sequence[Key],
        attempt: Attempt | None,
    ) -> None:
        self._stack = stack
        self._networks, self._settings, self._keys, self._attempt = networks, settings, keys, attempt
        self._rate, self._decay = float(settings["learningRate"] or 0), float(settings["weightDecay"] or 0)
        self._batch = int(settings["batchSize"] or 1)
        self._data = _data(networks)
        self._weights = _stacked(stack, _cores(networks))
        self._mean, self._square = self._weights.like(), self._weights.like()
        count = len(networks)
        self._steps = torch.zeros(count)
        self._best = self._weights.take(torch.arange(count))
        self._best_loss = self._watched(list(range(count)))
        for key, loss in zip(keys, self._best_loss, strict=True):
            demand_numbers(key, 0, settings, loss)
        self._best_epoch = [0] * count
        self._history: list[Epochs] = [[] for _ in networks]
        self.taken = 0

    def alive(self, epoch: int, patience: int) -> list[int]:
        """Models that still learn, those with the most batches first."""
        still = [model for model, best in enumerate(self._best_epoch) if epoch - 1 - best < patience]
        return sorted(still, key=lambda model: -len(self._networks[model].fit_rows))

    def epoch(self, epoch: int, alive: list[int]) -> float:
        """One pass of each model over its rows in its own order; the mean loss on the inner tails."""
        models = torch.tensor(alive)
        sizes = [len(self._networks[model].fit_rows) for model in alive]
        order = torch.zeros(len(alive), max(sizes), dtype=torch.int64)
        for place, (model, size) in enumerate(zip(alive, sizes, strict=True)):
            torch.manual_seed(derived_seed(*self._keys[model], epoch))
            order[place, :size] = self._networks[model].fit_rows[torch.randperm(size)]
        length = torch.tensor(sizes)
        now, mean, square = (each.take(models) for each in (self._weights, self._mean, self._square))
        steps, total = self._steps[models], torch.zeros(len(alive))
        for start in range(0, max(sizes), self._batch):
            if self._attempt is not None and self._attempt.asked_to_stop:
                self._attempt.stop()
            count = sum(size > start for size in sizes)
            rows = order[:count, start : start + self._batch]
            there = start + torch.arange(rows.shape[1]) < length[:count, None]
            share = there / there.sum(dim=1, keepdim=True)
            steps[:count] += 1.0
            views = (each.first(count) for each in (now, mean, square))
            loss = self._step(*views, models[:count], rows, share, steps[:count])
            total[:count] += loss * there.sum(dim=1)
        for kept, new in ((self._weights, now), (self._mean, mean), (self._square, square)):
            kept.put(models, new)
        self._steps[models] = steps
        self.taken += len(alive)
        return self._note(epoch, alive, (total / length).tolist())

    def _step(
        self,
        now: _Weights,
        mean: _Weights,
        square: _Weights,
        models: Tensor,
        rows: Tensor,
        share: Tensor,
        steps: Tensor,
    ) -> Tensor:
        """AdamW on clipped gradients, each model by itself; weights and moments are changed in place."""
        scores, backward = self._stack.trained(now.each, self._data.inputs_of(models, rows))
        slope, loss = self._data.losses(scores, models, rows, share)
        gradients = backward(slope)
        norm = torch.sqrt(sum((each * each).sum(dim=(1, 2)) for each in gradients))
        clip = torch.clamp(GRADIENT_NORM / (norm + 1e-6), max=1.0)[:, None, None]
        first, second = BETAS
        rate = (self._rate / (1.0 - first**steps))[:, None, None]
        root = torch.sqrt(1.0 - second**steps)[:, None, None]
        for weight, m, v, gradient in zip(now.each, mean.each, square.each, gradients, strict=True):
            clipped = gradient * clip
            weight.mul_(1.0 - self._rate * self._decay)
            m.lerp_(clipped, 1.0 - first)
            v.mul_(second).addcmul_(clipped, clipped, value=1.0 - second)
            weight.sub_(rate * m / (torch.sqrt(v) / root + EPSILON))
        return loss

    def _watched(self, alive: list[int]) -> list[float]:
        """Loss of each model on its inner tail."""
        longest = max(len(self._networks[model].watch_rows) for model in alive)
        rows = torch.zeros(len(alive), longest, dtype=torch.int64)
        share = torch.zeros(len(alive), longest)
        for place, model in enumerate(alive):
            own = self._networks[model].watch_rows
            rows[place, : len(own)] = own
            share[place, : len(own)] = 1.0 / len(own)
        models = torch.tensor(alive)
        weights = self._weights.take(models).each
        scores = [
            self._stack.scores(weights, self._data.inputs_of(models, part)) for part in rows.split(_WATCHED, dim=1)
        ]
        return self._data.losses(torch.cat(scores, dim=1), models, rows, share)[1].tolist()

    def _note(self, epoch: int, alive: list[int], train_losses: list[float]) -> float:
        watched = self._watched(alive)
        for model, train_loss, inner_loss in zip(alive, train_losses, watched, strict=True):
            demand_numbers(self._keys[model], epoch, self._settings, train_loss, inner_loss)
            unit = self._networks[model].loss_unit
            better = inner_loss < self._best_loss[model]
            self._history[model].append(
                {
                    "member": self._keys[model][2],
                    "epoch": epoch,
                    "train_loss": train_loss * unit,
                    "inner_loss": inner_loss * unit,
                    "best": better,
                }
            )
            if better:
                one = torch.tensor([model])
                self._best.put(one, self._weights.take(one))
                self._best_loss[model], self._best_epoch[model] = inner_loss, epoch
        units = [self._networks[model].loss_unit for model in alive]
        return sum(loss * unit for loss, unit in zip(watched, units, strict=True)) / len(alive)

    def finish(self) -> list[Trained]:
        """Modules with the best epoch's weights."""
        result: list[Trained] = []
        for model, network in enumerate(self._networks):
            assert isinstance(network.module, Skipped)
            with torch.no_grad():
                self._stack.write(network.module.network, self._best.of(model))
            result.append(finished(network, self._best_epoch[model], self._history[model]))
        if self._attempt is not None:
            for (_, number, member), network, best, history in zip(
                self._keys, self._networks, self._best_epoch, self._history, strict=True
            ):
                state = {name: tensor.numpy().copy() for name, tensor in network.module.state_dict().items()}
                self._attempt.finish(number, member, Done(best, state, history))
        return result


def _restored(network: Network, done: Done) -> Trained:
    network.module.load_state_dict({name: torch.from_numpy(value) for name, value in done.best.items()})
    return finished(network, done.best_epoch, done.history)


def _stacked(stack: stacks.Stack, cores: Sequence[nn.Module]) -> _Weights:
    with torch.no_grad():
        return _Weights(torch.stack(each).clone() for each in zip(*(stack.read(core) for core in cores), strict=True))


def _data(networks: Sequence[Network]) -> _Data:
    """Inputs and targets once for each fold: members of a fold hold the same tensors."""
    groups: dict[int, int] = {}
    of_group: list[Network] = []
    for network in networks:
        if id(network.inputs) not in groups:
            groups[id(network.inputs)] = len(of_group)
            of_group.append(network)
    equal = torch.ones(2)
    with torch.no_grad():
        linear = [
            each.module.linear(each.inputs[_newest(each.windows)])[:, 0]
            for each in of_group
            if isinstance(each.module, Skipped)
        ]
    return _Data(
        inputs=torch.stack([each.inputs for each in of_group]),
        linear=torch.stack(linear),
        windows=networks[0].windows,
        target=torch.stack([each.target for each in of_group]),
        classes=torch.stack([equal if each.weights is None else each.weights for each in of_group]),
        group=torch.tensor([groups[id(network.inputs)] for network in networks]),
        probability=networks[0].probability,
    )


def _newest(windows: Tensor) -> Tensor:
    """``(T,)`` the last row of each window."""
    return windows if windows.dim() == 1 else windows[:, -1]
