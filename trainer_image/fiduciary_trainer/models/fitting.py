"""From training rows to one module, for every architecture."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from fiduciary_features import Transform
from fiduciary_trainer import baselines, splits
from fiduciary_trainer.models import modules, ridge, sequences, together
from fiduciary_trainer.models.hyperparameters import NETWORKS
from fiduciary_trainer.training import Network, derived_seed, train_member
from fiduciary_trainer.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from fiduciary_trainer.checkpoint import Attempt
    from fiduciary_trainer.job import Contract
    from fiduciary_trainer.models.hyperparameters import Settings
    from fiduciary_trainer.prepared import Prepared
    from fiduciary_trainer.steps import Steps
    from fiduciary_trainer.training import Trained

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_BATCH = 8192


@dataclass(frozen=True)
class Fitted:
    """A module with its transform, what was tuned, and how training went.

    ``kept_excess`` is the largest of the members' (see :class:`fiduciary_trainer.training.Trained`), None for models
    that are solved in one go.
    """

    module: nn.Module
    transform: Transform
    chosen: Mapping[str, Any] = field(default_factory=dict)
    history: tuple[Mapping[str, float | bool], ...] = ()
    kept_excess: float | None = None


@dataclass(frozen=True)
class Standardised:
    """What networks are trained on in one fit.

    Attributes:
        transform: fitted on ``fit_rows``.
        level, spread: of the label there; ``target`` is ``(y - level) / spread`` of all usable rows.
        linear, penalty: the linear part on the target, which networks hold.
        inputs, windows: see :class:`fiduciary_trainer.training.Network`.
        fit_rows, watch_rows: to fit on, and the inner tail.
    """

    transform: Transform
    level: float
    spread: float
    target: Floats
    linear: ridge.Coefficients
    penalty: float
    inputs: torch.Tensor
    windows: torch.Tensor
    fit_rows: Ints
    watch_rows: Ints


@dataclass(frozen=True)
class _Plan:
    """One fit of networks before it is trained."""

    ready: Standardised
    networks: Sequence[Network]
    keys: Sequence[together.Key]


@dataclass(frozen=True)
class Fitter:
    """Everything a fit needs but its rows.

    Attributes:
        contract: architecture and settings.
        prepared: all usable rows.
        calendar: their times, for splits inside the training rows.
        steps: told after every epoch or fit.
        attempt: keeps state for a later attempt; None: nothing is kept.
    """

    contract: Contract
    prepared: Prepared
    calendar: splits.Calendar
    steps: Steps
    attempt: Attempt | None

    @property
    def workers(self) -> Workers:
        """How batches are shared: with others where they have met, as the document says in any case."""
        return Workers(self.contract.training.nodes) if self.attempt is None else self.attempt.workers

    def configured(self, settings: Settings) -> Fitter:
        """The same rows with other settings of the architecture; windows are at most as long as those here."""
        contract = self.contract.configured(settings)
        windows = self.prepared.windows[:, -contract.window :]
        return replace(self, contract=contract, prepared=replace(self.prepared, windows=windows))

    def fit(self, number: int, train: Ints) -> Fitted:
        """Fit on ``train``; ``number`` tells fits of one training apart (fold, or the number of folds: final)."""
        architecture = self.contract.training.architecture
        if architecture in NETWORKS:
            return self.fit_all([(number, train)])[0]
        fitted = self._closed_form(architecture, train)
        self.steps.done(1)
        if self.attempt is not None:
            self.attempt.stop_if_asked()
        return fitted

    def predict(self, fitted: Fitted, rows: Ints, shuffled: tuple[int, Ints] | None = None) -> Floats:
        """``(n,)`` in the unit of the label, by the module itself in float32: what serving will answer."""
        return self.answers(fitted.module, fitted.transform, rows, shuffled)[:, 0]

    def answers(
        self, module: nn.Module, transform: Transform, rows: Ints, shuffled: tuple[int, Ints] | None = None
    ) -> Floats:
        """``(n, outputs)`` of a module.

        Args:
            module: takes transformed rows.
            transform: fitted with it.
            rows: to predict.
            shuffled: a feature, and for each of ``rows`` another row that its value (or its window of values) is taken
                from; None: their own.
        """
        inputs = self.transformed(transform)
        answers: list[Floats] = []
        with torch.inference_mode():
            for start in range(0, len(rows), _BATCH):
                batch = self._batch(inputs, rows[start : start + _BATCH])
                if shuffled is not None:
                    feature, donors = shuffled
                    batch[..., feature] = self._batch(inputs, donors[start : start + _BATCH])[..., feature]
                answers.append(module(batch).double().numpy())
        return np.concatenate(answers)

    def transformed(self, transform: Transform) -> torch.Tensor:
        """``(N, F)`` float32 inputs of all rows that were read."""
        return torch.from_numpy(transform.apply(self.prepared.features).astype(np.float32))

    def _batch(self, inputs: torch.Tensor, rows: Ints) -> torch.Tensor:
        windows = self.prepared.windows[rows]
        return inputs[windows if self.contract.windowed else windows[:, -1]]

    def examples(self, transform: Transform, count: int) -> NDArray[np.float32]:
        """Transformed inputs of the newest rows."""
        rows = np.arange(len(self.prepared.y))[-count:]
        return self._batch(self.transformed(transform), rows).numpy()

    def transform(self, train: Ints) -> Transform:
        """Fitted on training rows; reference models read their terms as they are."""
        names = self.contract.features.names
        if self.contract.training.architecture in ("EWMA", "HAR"):
            return Transform.identity(names)
        return Transform.fit(self.prepared.x[train], names)

    def _closed_form(self, architecture: str, train: Ints) -> Fitted:
        transform, y = self.transform(train), self.prepared.y[train]
        if architecture == "BaseRate":
            return Fitted(modules.Constant(float(y.mean())), transform, {"rate": float(y.mean())})
        if architecture == "EWMA":
            assert self.prepared.past is not None
            constant = baselines.tuned_constant(self.prepared.past[train], y)
            newest_first = baselines.weights(constant, self.contract.window)
            return Fitted(modules.Smoothed(newest_first[::-1].copy()), transform, {"constant": constant})
        x = transform.apply(self.prepared.x)
        if architecture == "HAR":
            return Fitted(modules.Affine(ridge.ridge(x[train], y, 0.0), probability=False), transform)
        coefficients, penalty = self._linear(x, self.prepared.y, train)
        module = modules.Affine(coefficients, probability=self._is_probability)
        return Fitted(module, transform, {"penalty": penalty})

    @property
    def _is_probability(self) -> bool:
        return self.contract.data.label == "Direction"

    def _linear(self, x: Floats, y: Floats, train: Ints) -> tuple[ridge.Coefficients, float]:
        """Ridge or logistic regression; the penalty is the user's or chosen inside the training rows."""
        fit, loss = (ridge.logistic, ridge.log_loss) if self._is_probability else (ridge.ridge, ridge.squared_error)
        given = self.contract.training.settings["penalty"]
        splitted = [] if given is not None else splits.inner_walk_forward(self.calendar, train)
        penalty = float(given) if given is not None else ridge.choose(fit, loss, x, y, splitted)
        if self._is_probability:
            penalty = max(penalty, ridge.UNPENALISED)
        return fit(x[train], y[train], penalty), penalty

    def fit_all(self, trains: Sequence[tuple[int, Ints]]) -> list[Fitted]:
        """Several fits, (number, rows) each: networks that can be are trained together."""
        if self.contract.training.architecture not in NETWORKS:
            return [self.fit(number, train) for number, train in trains]
        plans = [self._plan(number, train) for number, train in trains]
        networks = [network for plan in plans for network in plan.networks]
        # Workers share the batches of one network after the other.
        if self.contract.training.nodes > 1 or not together.can_train(networks):
            return [self._assembled(plan, self._one_by_one(plan)) for plan in plans]
        keys = [key for plan in plans for key in plan.keys]
        trained = together.train(networks, self.contract.training.settings, keys, self.steps, self.attempt)
        result: list[Fitted] = []
        for plan in plans:
            result.append(self._assembled(plan, trained[: len(plan.keys)]))
            trained = trained[len(plan.keys) :]
        return result

    def standardised(self, train: Ints) -> Standardised:
        """Rows, transform and linear part of a fit of networks."""
        fit_rows, watch = splits.inner_tail(self.calendar, train)
        transform = self.transform(fit_rows)
        y = self.prepared.y
        level, spread = 0.0, 1.0
        if not self._is_probability:
            level, spread = float(y[fit_rows].mean()), float(y[fit_rows].std()) or 1.0
        target: Floats = (y - level) / spread
        coefficients, penalty = self._linear(transform.apply(self.prepared.x), target, fit_rows)
        inputs = self.transformed(transform)
        rows = self.prepared.windows if self.contract.windowed else self.prepared.windows[:, -1]
        return Standardised(
            transform, level, spread, target, coefficients, penalty, inputs, torch.from_numpy(rows), fit_rows, watch
        )

    @property
    def members(self) -> list[str]:
        """Architecture of each network that is averaged."""
        count = int(self.contract.training.settings["members"] or 1)
        return [part for part in self.contract.training.parts for _ in range(count)]

    def _plan(self, number: int, train: Ints) -> _Plan:
        """The networks of a fit before training, each with a seed of its own."""
        seed, ready = self.contract.training.seed, self.standardised(train)
        targets = torch.from_numpy(ready.target.astype(np.float32))
        fitted_on, watched = torch.from_numpy(ready.fit_rows), torch.from_numpy(ready.watch_rows)
        weights = self._class_weights(ready.fit_rows)
        networks: list[Network] = []
        for member, architecture in enumerate(self.members):
            torch.manual_seed(derived_seed(seed, number, member, 0))
            linear = modules.Affine(ready.linear, probability=False)
            networks.append(
                Network(
                    module=modules.Skipped(linear, self.core(architecture, ready.inputs.shape[1])),
                    inputs=ready.inputs,
                    windows=ready.windows,
                    target=targets,
                    fit_rows=fitted_on,
                    watch_rows=watched,
                    probability=self._is_probability,
                    loss_unit=ready.spread * ready.spread,
                    weights=weights,
                )
            )
        return _Plan(ready, networks, [(seed, number, member) for member in range(len(networks))])

    def _one_by_one(self, plan: _Plan) -> list[Trained]:
        settings = self.contract.training.settings
        return [
            train_member(network, settings, key, self.steps, self.attempt, self.workers)
            for network, key in zip(plan.networks, plan.keys, strict=True)
        ]

    def _assembled(self, plan: _Plan, trained: Sequence[Trained]) -> Fitted:
        """Members averaged, each with its best epoch's weights."""
        module = modules.Members(
            [each.module for each in trained],
            probability=self._is_probability,
            level=plan.ready.level,
            spread=plan.ready.spread,
        )
        chosen = {"penalty": plan.ready.penalty, "best_epochs": [each.best_epoch for each in trained]}
        history = tuple(entry for each in trained for entry in each.history)
        return Fitted(module.eval(), plan.ready.transform, chosen, history, max(each.kept_excess for each in trained))

    def core(self, architecture: str, width: int, outputs: int = 1) -> nn.Module:
        """A network before training; drawn from torch's generator."""
        settings, window = self.contract.training.settings, self.contract.window
        hidden = int(settings["hidden"] or 1)
        if architecture == "MLP":
            core = modules.Perceptron(width, hidden, outputs)
            return sequences.Newest(core) if self.contract.windowed else core
        if architecture == "TCN":
            return sequences.TemporalConvolution(width, hidden, window, outputs)
        if architecture == "Transformer":
            heads, layers = int(settings["heads"] or 1), int(settings["layers"] or 1)
            return sequences.Encoder(width, hidden, window, heads, layers, outputs)
        return sequences.Recurrent("GRU" if architecture == "GRU" else "LSTM", width, hidden, outputs)

    def _class_weights(self, fit_rows: Ints) -> torch.Tensor | None:
        """Weights of falls and rises that make both count the same, from the rows that are fitted on."""
        if not self._is_probability or self.contract.training.settings.get("classWeights") != "balanced":
            return None
        up = float(self.prepared.y[fit_rows].mean())
        return None if up in (0.0, 1.0) else torch.tensor([0.5 / (1.0 - up), 0.5 / up], dtype=torch.float32)
