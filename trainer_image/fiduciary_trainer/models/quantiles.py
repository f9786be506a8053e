"""Quantiles of the label beside the point forecast: networks of their own, trained with pinball loss; for Linear a
linear quantile regression (Koenker & Bassett 1978), trained likewise.

Of their own, because what gates, counters, drift and outcomes read is the point forecast: it has the same bits whether
or not quantiles are asked for. They read what the point forecast reads, through the same transform.

They cannot cross: the lowest is forecast, and by how much each next one is above. Sorting crossed quantiles afterwards
(Chernozhukov, Fernández-Val & Galichon 2010, Econometrica 78(3)) is never worse than leaving them crossed, but then the
trained levels are not the served ones, nor does a mean of members keep what it was trained for; increments need no
repair, and the mean of ascending answers ascends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fiduciary_trainer.models import modules, sequences
from fiduciary_trainer.models.hyperparameters import NETWORKS
from fiduciary_trainer.training import Network, derived_seed, train_member

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from fiduciary_features import Transform
    from fiduciary_trainer.models.fitting import Fitter
    from fiduciary_trainer.models.hyperparameters import Settings

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LINEAR: Settings = {"epochs": 120, "patience": 10, "learningRate": 0.01, "weightDecay": 0.001, "batchSize": 256}
"""How a linear quantile regression is trained. Weight decay draws it to the linear part."""

SMALLEST_STEP = 1e-3
"""Of neighbouring quantiles at the start, in standard deviations of the label: levels of few rows may coincide."""


class Ascending(nn.Module):
    """``q_1 = s(x) + r_1``, ``q_k = q_{k-1} + softplus(r_k)``: s is the held linear part, r what a network adds to
    where it starts, which is at the quantiles of the linear part's residuals."""

    start: Tensor

    def __init__(self, linear: modules.Affine, network: nn.Module, residuals: Sequence[float]) -> None:
        """``residuals``: ascending, one for each level; ``network`` answers 0 for each until it has learned."""
        super().__init__()
        self.linear = linear
        self.network = network
        steps = np.maximum(np.diff(residuals), SMALLEST_STEP)
        start = np.concatenate([[residuals[0]], steps + np.log(-np.expm1(-steps))])  # the inverse of softplus
        self.register_buffer("start", torch.as_tensor(start, dtype=torch.float64).to(torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """``(n, K)`` in standard deviations of the label."""
        newest = x[:, -1, :] if x.dim() == 3 else x
        raw = self.network(x) + self.start
        steps = functional.softplus(raw[:, 1:])
        columns = [self.linear(newest) + raw[:, :1]]
        for place in range(steps.shape[1]):
            columns.append(columns[-1] + steps[:, place : place + 1])
        return torch.cat(columns, dim=1)


class QuantileMembers(nn.Module):
    """The mean of several members' quantiles in the unit of the label; the mean by level keeps shape and order."""

    level: Tensor
    spread: Tensor

    def __init__(self, members: Sequence[nn.Module], *, level: float, spread: float) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.register_buffer("level", torch.tensor([level], dtype=torch.float32))
        self.register_buffer("spread", torch.tensor([spread], dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        mean = torch.stack([member(x) for member in self.members], dim=0).mean(dim=0)
        answer = mean * self.spread + self.level
        # Where two are equal but for a last digit, a mean may round them the wrong way round.
        columns = [answer[:, :1]]
        for place in range(1, answer.shape[1]):
            columns.append(torch.maximum(columns[-1], answer[:, place : place + 1]))
        return torch.cat(columns, dim=1)


@dataclass(frozen=True)
class FittedQuantiles:
    """``module``: transformed rows -> ``(n, K)``; the rest as of :class:`fiduciary_trainer.models.fitting.Fitted`."""

    module: nn.Module
    transform: Transform
    chosen: Mapping[str, Any]
    kept_excess: float


def fit(fitter: Fitter, number: int, train: Ints) -> FittedQuantiles:
    """Fit the quantiles of a job on the rows that its point forecast is fitted on, with as many members.

    Args:
        fitter: with a contract that asks for quantiles.
        number: of the fit. Members are counted on from those of the point forecast: seeds and checkpoints are apart.
        train: usable rows.

    Raises:
        Diverged, Retryable, WorkerLost: as :func:`fiduciary_trainer.training.train_member`.
    """
    training, ready = fitter.contract.training, fitter.standardised(train)
    levels = np.array(training.quantiles)
    x = ready.transform.apply(fitter.prepared.x[ready.fit_rows])
    residuals = np.quantile(ready.target[ready.fit_rows] - ready.linear.score(x), levels)
    target = torch.from_numpy(ready.target.astype(np.float32))
    fitted_on, watched = torch.from_numpy(ready.fit_rows), torch.from_numpy(ready.watch_rows)
    width, is_network = ready.inputs.shape[1], training.architecture in NETWORKS
    members = fitter.members if is_network else ["Linear"]
    settings = training.settings if is_network else LINEAR
    trained = []
    for place, architecture in enumerate(members):
        key = (training.seed, number, len(members) + place)
        torch.manual_seed(derived_seed(*key, 0))
        size = (width, len(levels))
        core = fitter.core(architecture, *size) if is_network else sequences.silent(*size)
        network = Network(
            module=Ascending(modules.Affine(ready.linear, probability=False), core, residuals.tolist()),
            inputs=ready.inputs,
            windows=ready.windows,
            target=target,
            fit_rows=fitted_on,
            watch_rows=watched,
            probability=False,
            loss_unit=ready.spread,
            levels=torch.tensor(levels, dtype=torch.float32),
        )
        trained.append(train_member(network, settings, key, fitter.steps, fitter.attempt, fitter.workers))
    module = QuantileMembers([each.module for each in trained], level=ready.level, spread=ready.spread)
    chosen = {"quantile_best_epochs": [each.best_epoch for each in trained]}
    return FittedQuantiles(module.eval(), ready.transform, chosen, max(each.kept_excess for each in trained))
