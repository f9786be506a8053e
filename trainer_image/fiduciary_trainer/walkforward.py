"""Train on the past, predict the next stretch, and again: the out-of-sample rows that everything is measured on.

The two dataclasses are the seam between training and measuring. Measuring needs no model object, only
:class:`WalkForward`; exporting needs no fold, only :class:`FinalModel`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fiduciary_features import Transform
from fiduciary_trainer import baselines, procedure
from fiduciary_trainer.fold_quantiles import FoldQuantiles
from fiduciary_trainer.models import quantiles
from fiduciary_trainer.training import make_deterministic
from fiduciary_trainer.validation import importance, scatter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from fiduciary_features import Bars, FeatureSpec
    from fiduciary_trainer import splits
    from fiduciary_trainer.checkpoint import Attempt
    from fiduciary_trainer.job import Contract
    from fiduciary_trainer.measure.rows import Quantiles
    from fiduciary_trainer.models.fitting import Fitted
    from fiduciary_trainer.procedure import Selection

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Times = NDArray[np.datetime64]

EXAMPLES = 256
"""Newest inputs that an export is probed with."""


class Progress(Protocol):
    """Told after every step of training; called often, so the receiver decides how often to pass it on."""

    def __call__(
        self, *, epoch: int, epochs: int, percent: float, eta_seconds: float | None, metric: tuple[str, float] | None
    ) -> None:
        """Take note.

        Args:
            epoch: steps done over all folds, members and the final fit; reference models count one step a fit.
            epochs: steps at most (early stopping may need fewer).
            percent: share of the whole training that is done, 0..100; never falls.
            eta_seconds: estimate of what is left, None before the first step ended.
            metric: name and value of the last number, e.g. ``("inner_loss", 0.171)``.
        """
        ...


@dataclass(frozen=True)
class Fold:
    """One step of the walk-forward.

    Attributes:
        index: from 0, in order of time.
        train_rows: indices of rows that the fold's model and baselines were fitted on. Their labels end, and the
            embargo is over, before the first test decision.
        test_rows: indices of the rows predicted out of sample; disjoint between folds.
    """

    index: int
    train_rows: Ints
    test_rows: Ints


@dataclass(frozen=True)
class WalkForward:
    """Everything that measuring needs. Rows are sorted by (decision time, entity); all arrays have T rows.

    Rows whose features are not all known (lookback not filled, a missing value) or whose label is not known yet are
    not among the T: ``counts`` says how many were left out and why.

    Attributes:
        dates: decision times, ``datetime64[ns]``: the close of the row's session.
        label_end: when the label is known, ``datetime64[ns]``, ``label_end > dates``.
        entity: instrument of each row; a single series has the name ``""`` throughout.
        X: ``(T, F)`` raw features before any transform, as the architecture uses them (a reference model reads its
            own terms only).
        feature_names: F names, in the order of the columns of ``X``.
        y: labels. Volatility: log of the daily Garman-Klass volatility (standard deviation, not variance);
            Direction: 1.0 where the column rose over the horizon, else 0.0; Return: log return over the horizon.
        returns: simple return of the label's column over the **one** session after the decision, for PnL; NaN where
            it is not known.
        folds: in order of time.
        prediction: in the unit of ``y`` (Direction: probability of 1); NaN outside test rows.
        baselines: predictions of baselines tuned on each fold's training rows, same unit and rows as ``prediction``.
            Volatility: ``ewma``, ``har``, ``ols``, ``persistence``; Direction: ``base_rate``, ``persistence``,
            ``ols``; Return: ``mean``, ``ols``, ``persistence``.
        history: per fold, for each epoch of each member
            ``{"member", "epoch", "train_loss", "inner_loss", "best"}``; empty for models without epochs. Losses are
            in the unit of ``y`` squared, Direction: log loss.
        fold_seconds: wall time of each fold; fits that are made together share theirs evenly. Not reproducible, so it
            belongs into no artifact of the version.
        counts: ``rows_read``, ``rows_used``, and what was left out: ``dropped_lookback``, ``dropped_missing``,
            ``dropped_no_label``; ``lookback`` (rows that the slowest feature needs), ``train_rows_min``.
        chosen: per fold what was tuned inside the training rows (penalty, EWMA constant, epochs of each member).
        kept_excess: largest over the folds of :attr:`fiduciary_trainer.models.fitting.Fitted.kept_excess`, that of
            quantiles included.
        calendar: of the rows, by which they were split.
        importance: of each fold: see :func:`fiduciary_trainer.validation.importance.of_fold`.
        quantiles: of all T rows, NaN outside test rows; None: the job asks for none.
    """

    dates: Times
    label_end: Times
    entity: NDArray[np.str_]
    X: Floats
    feature_names: tuple[str, ...]
    y: Floats
    returns: Floats
    folds: tuple[Fold, ...]
    prediction: Floats
    baselines: Mapping[str, Floats]
    history: tuple[tuple[Mapping[str, float | bool], ...], ...]
    fold_seconds: tuple[float, ...]
    counts: Mapping[str, int]
    chosen: tuple[Mapping[str, Any], ...] = field(default=())
    kept_excess: float | None = None
    calendar: splits.Calendar | None = None
    importance: tuple[Floats, ...] = ()
    quantiles: Quantiles | None = None

    @property
    def test_rows(self) -> Ints:
        """Indices of all out-of-sample rows, ascending."""
        return np.sort(np.concatenate([fold.test_rows for fold in self.folds]))


@dataclass(frozen=True)
class FinalModel:
    """The model refitted by the same procedure on all rows up to asOf; what is exported.

    Attributes:
        module: float32 ``[batch, F]`` (``input_kind`` row) or ``[batch, window, F]``, oldest row first -> float32
            ``[batch, 1]`` in the unit of ``y`` (Direction: probability). It takes **transformed** features:
            ``transform.apply`` comes first. In eval mode, on the CPU, exportable to ONNX.
        transform: fitted on the training rows; ``apply(X) -> (T, F)`` in numpy, ``to_json`` / ``from_json``.
        features: the feature definitions: names, lookback and memory of each, required columns.
        input_kind: one row, or a window of the last ``window`` rows of the same entity.
        window: rows of an input; 1 for ``row``.
        examples: float32 transformed inputs of the last rows, ``(n, F)`` or ``(n, window, F)``, to probe an export.
        chosen: what was tuned (penalty, EWMA constant, epochs of each member).
        history: as in :class:`WalkForward`, of this fit.
        kept_excess: likewise.
        quantiles: from the same input to float32 ``[batch, K]``, ascending, in the unit of ``y``; None: none.
    """

    module: torch.nn.Module
    transform: Transform
    features: FeatureSpec
    input_kind: Literal["row", "window"]
    window: int
    examples: NDArray[np.float32]
    chosen: Mapping[str, Any]
    history: tuple[Mapping[str, float | bool], ...]
    kept_excess: float | None = None
    quantiles: torch.nn.Module | None = None


def run_walk_forward(
    frame: Bars,
    contract: Contract,
    progress: Progress,
    attempt: Attempt | None = None,
    bounds: Times | None = None,
    selection: Selection | None = None,
) -> WalkForward:
    """Fit and predict fold by fold.

    Args:
        frame: rows up to asOf.
        contract: the job document.
        progress: told after every step.
        attempt: keeps state for a later attempt and knows of SIGTERM; None: neither.
        bounds: where the test stretches begin and end (:func:`splits.stretch_bounds`), so that two procedures are
            refitted and tested at the same times; None: the procedure's own.
        selection: what a search has found for each fold; None: the job's search, if it has one, is carried out first.

    Raises:
        DataRefused: too few rows are left for the folds.
        Retryable: the process was told to stop; what it had is kept.
    """
    make_deterministic()
    fitter = procedure.fitter(frame, contract, progress, attempt, before=0)
    prepared, calendar = fitter.prepared, fitter.calendar
    splitted = procedure.folds(fitter, bounds)
    trains = [(number, train) for number, (train, _) in enumerate(splitted)]
    if selection is None:
        selection = procedure.selected(fitter, trains)

    prediction = np.full(len(prepared.y), np.nan)
    against: dict[str, Floats] = {}
    interval = FoldQuantiles(contract, len(prepared.y))
    fits: list[Fitted] = []
    seconds: list[float] = []
    shuffled: list[Floats] = []
    began = time.monotonic()
    trained = procedure.fit_each(fitter, trains, selection)
    share = (time.monotonic() - began) / len(splitted)
    for number, (train, test) in enumerate(splitted):
        began = time.monotonic()
        own, fitted = trained[number]
        prediction[test] = own.predict(fitted, test)
        transform = Transform.fit(prepared.x[train], contract.features.names)
        for name, values in baselines.fit_predict(prepared, contract.data.label, transform, train, test).items():
            against.setdefault(name, np.full(len(prepared.y), np.nan))[test] = values
        fits.append(fitted)
        seconds.append(share + time.monotonic() - began)
        shuffled.append(importance.of_fold(own, fitted, test, [contract.training.seed, number]))
    if contract.training.quantiles:
        for number, (train, test) in enumerate(splitted):
            began = time.monotonic()
            interval.fold(trained[number][0], number, train, test)
            fits[number] = replace(fits[number], chosen={**fits[number].chosen, **interval.fits[number].chosen})
            seconds[number] += time.monotonic() - began
    return WalkForward(
        dates=prepared.dates,
        label_end=prepared.label_end,
        entity=prepared.entity,
        X=prepared.x,
        feature_names=contract.features.names,
        y=prepared.y,
        returns=prepared.returns,
        folds=tuple(Fold(number, train, test) for number, (train, test) in enumerate(splitted)),
        prediction=prediction,
        baselines=against,
        history=tuple(fitted.history for fitted in fits),
        fold_seconds=tuple(seconds),
        counts={**prepared.counts, "train_rows_min": min(len(train) for train, _ in splitted)},
        chosen=tuple(fitted.chosen for fitted in fits),
        kept_excess=_largest([each.kept_excess for each in (*fits, *interval.fits)]),
        calendar=calendar,
        importance=tuple(shuffled),
        quantiles=interval.found,
    )


def fit_final(
    frame: Bars,
    contract: Contract,
    progress: Progress,
    attempt: Attempt | None = None,
    selection: Selection | None = None,
) -> FinalModel:
    """Refit on all rows whose label is known at asOf, by the procedure of the folds. Same errors."""
    make_deterministic()
    folds = contract.training.validation.folds
    fitter = procedure.fitter(frame, contract, progress, attempt, before=folds)
    trains = [(folds, np.arange(len(fitter.prepared.y)))]
    if selection is None:
        selection = procedure.selected(fitter, trains)
    own, fitted = procedure.fit_each(fitter, trains, selection)[0]
    interval = quantiles.fit(own, *trains[0]) if contract.training.quantiles else None
    return FinalModel(
        module=fitted.module.eval(),
        transform=fitted.transform,
        features=contract.features,
        input_kind="window" if own.contract.windowed else "row",
        window=own.contract.window,
        examples=own.examples(fitted.transform, EXAMPLES),
        chosen=fitted.chosen if interval is None else {**fitted.chosen, **interval.chosen},
        history=fitted.history,
        kept_excess=_largest([fitted.kept_excess, None if interval is None else interval.kept_excess]),
        quantiles=None if interval is None else interval.module,
    )


def _largest(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known, default=None)


def run_combinatorial(
    frame: Bars,
    contract: Contract,
    progress: Progress,
    attempt: Attempt | None = None,
    selection: Selection | None = None,
) -> scatter.Scatter:
    """Fit every split of combinatorial purged cross-validation, after the walk-forward and the final model.

    Raises:
        DataRefused, Retryable: as :func:`run_walk_forward`.
    """
    make_deterministic()
    done = contract.training.validation.folds + 1
    fitter = procedure.fitter(frame, contract, progress, attempt, before=done)
    return scatter.run(fitter, contract, first_number=done, selection=selection)
