"""Train on the past, predict the next stretch, and again: the out-of-sample rows that everything is measured on.

The two dataclasses are the seam between training and measuring. Measuring needs no model object, only
:class:`WalkForward`; exporting needs no fold, only :class:`FinalModel`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from fiduciary_features import Bars, FeatureSpec, Transform
    from fiduciary_trainer.contract import Contract

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Times = NDArray[np.datetime64]


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
            Direction: 1.0 where the column rose over the horizon, else 0.0; Return: simple return over the horizon.
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
        fold_seconds: wall time of each fold's fit. Not reproducible, so it belongs into no artifact of the version.
        counts: ``rows_read``, ``rows_used``, and what was left out: ``dropped_lookback``, ``dropped_missing``,
            ``dropped_no_label``; ``lookback`` (rows that the slowest feature needs), ``train_rows_min``.
        chosen: per fold what was tuned inside the training rows (penalty, EWMA constant, epochs of each member).
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
    """

    module: torch.nn.Module
    transform: Transform
    features: FeatureSpec
    input_kind: Literal["row", "window"]
    window: int
    examples: NDArray[np.float32]
    chosen: Mapping[str, Any]
    history: tuple[Mapping[str, float | bool], ...]


def run_walk_forward(frame: Bars, contract: Contract, progress: Progress) -> WalkForward:
    """Fit and predict fold by fold.

    Args:
        frame: rows up to asOf.
        contract: the job document.
        progress: told after every step.

    Raises:
        BadContract: the document asks for what cannot be done (embargo below the lookback, unknown architecture).
        DataRefused: too few rows are left for the folds.
        Stopped: the process was told to stop and has written a checkpoint.
    """
    raise NotImplementedError


def fit_final(frame: Bars, contract: Contract, progress: Progress) -> FinalModel:
    """Refit on all rows whose label is known at asOf, by the procedure of the folds. Same errors."""
    raise NotImplementedError
