"""The procedure that is measured: search inside the training rows, then fit on all of them. Folds, the final model and
combinatorial splits go through it alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fiduciary_trainer import splits
from fiduciary_trainer.models.fitting import Fitted, Fitter
from fiduciary_trainer.models.hyperparameters import NETWORKS, Settings
from fiduciary_trainer.models.quantiles import LINEAR
from fiduciary_trainer.prepared import prepare
from fiduciary_trainer.search import summary
from fiduciary_trainer.search.run import Searcher
from fiduciary_trainer.search.trials import Trials
from fiduciary_trainer.steps import Steps
from fiduciary_trainer.training import make_deterministic
from fiduciary_trainer.validation import combinatorial

if TYPE_CHECKING:
    from collections.abc import Callable

    from fiduciary_features import Bars
    from fiduciary_trainer.checkpoint import Attempt
    from fiduciary_trainer.job import Contract
    from fiduciary_trainer.search.run import Count, Searched
    from fiduciary_trainer.search.share import Share
    from fiduciary_trainer.search.trials import Trial
    from fiduciary_trainer.walkforward import Progress

Ints = NDArray[np.int64]
Times = NDArray[np.datetime64]
Selection = Mapping[int, Settings]
"""What a search has found, by the number of the fit; empty: nothing was searched."""


def fitter(frame: Bars, contract: Contract, progress: Progress, attempt: Attempt | None, before: int) -> Fitter:
    """Over all usable rows; its steps count on where ``before`` fits of the training have ended.

    Quantiles are fitted after the point forecasts of the walk-forward, and after the final one.
    """
    prepared, validation = prepare(frame, contract), contract.training.validation
    calendar = splits.Calendar.of(prepared.dates, prepared.label_end, validation.purge, validation.embargo)
    searched, fit = _searched(contract), _steps_of_a_fit(contract)
    quantiles, each = contract.training.validation.folds + 1, _steps_of_quantiles(contract)
    total = fit * (searched + contract.fits) + each * quantiles
    done = fit * (searched + before) + each * min(max(before, 0), quantiles)
    steps = Steps(progress, total, before=done)
    return Fitter(contract, prepared, calendar, steps, attempt)


def folds(made: Fitter, bounds: Times | None = None) -> list[tuple[Ints, Ints]]:
    """(training rows, test rows) of the walk-forward. Raises DataRefused."""
    validation = made.contract.training.validation
    return splits.walk_forward(made.calendar, validation.folds, validation.window, bounds)


def search(
    frame: Bars,
    contract: Contract,
    progress: Progress,
    attempt: Attempt,
    share: Share,
    tell: Callable[[Count, Mapping[str, Any]], None],
) -> Searched | None:
    """Carry out the search of a job over every set of training rows that it fits; None: it asks for none.

    The search of the final model comes last and is the one that is followed: its losses make the probability of
    backtest overfitting.

    Args:
        frame, contract, progress: see :func:`fiduciary_trainer.walkforward.run_walk_forward`.
        attempt: where trials are kept; other pods may keep theirs there too.
        share: what of it this process carries out.
        tell: told after each trial how far the search is, and the trial (:func:`summary.of_trial`).

    Raises:
        DataRefused, Diverged, Retryable: see :class:`Searcher`.
    """
    wanted = contract.training.search
    if wanted is None:
        return None
    make_deterministic()
    made = fitter(frame, contract, progress, attempt, before=-_searched(contract))
    validation = contract.training.validation
    trains: list[tuple[int, Ints]] = [(number, train) for number, (train, _) in enumerate(folds(made))]
    if validation.test_folds is not None:
        combined = combinatorial.splits(made.calendar, validation.folds, validation.test_folds)
        trains += [(validation.folds + 1 + number, split.train) for number, split in enumerate(combined)]
    trains.append((validation.folds, np.arange(len(made.prepared.y))))
    one = _steps_of_a_fit(contract) * len(trains)
    names = [summary.name(number, validation.folds) for number, _ in trains]

    def told(count: Count, trial: Trial) -> None:
        tell(count, summary.of_trial(trial, names))
        made.steps.done(one, None if count.best is None else ("best_inner_loss", count.best))

    return Searcher(made, wanted, trains, attempt.trials(), share, told).run()


def selected(made: Fitter, trains: Sequence[tuple[int, Ints]]) -> Selection:
    """What the job's search finds for these training rows alone; empty where it has none."""
    wanted = made.contract.training.search
    return {} if wanted is None else Searcher(made, wanted, trains, Trials()).run().selection


def fit_each(made: Fitter, trains: Sequence[tuple[int, Ints]], selection: Selection) -> list[tuple[Fitter, Fitted]]:
    """Fit (number, rows) each with the settings that were selected for it; those with the same settings together.

    Returns:
        Each model with the fitter that it was made by, which knows its windows, in the order of ``trains``.
    """
    groups: dict[str, list[tuple[int, Ints]]] = {}
    for number, train in trains:
        groups.setdefault(repr(selection.get(number)), []).append((number, train))
    found: dict[int, tuple[Fitter, Fitted]] = {}
    ended = made.steps.position
    for group in groups.values():
        settings = selection.get(group[0][0])
        own = made if settings is None else made.configured(settings)
        for (number, _), fitted in zip(group, own.fit_all(group), strict=True):
            chosen = fitted if settings is None else _naming(fitted, own)
            found[number] = (own, chosen)
        ended += _steps_of_a_fit(made.contract) * len(group)
        made.steps.reach(ended)
    return [found[number] for number, _ in trains]


def _naming(fitted: Fitted, own: Fitter) -> Fitted:
    """The model with the values that a search found among what was chosen for it."""
    wanted = own.contract.training.search
    assert wanted is not None
    values = {each.name: own.contract.training.settings[each.name] for each in wanted.space}
    return replace(fitted, chosen={**fitted.chosen, **values})


def _steps_of_a_fit(contract: Contract) -> int:
    """Epochs of all members; 1 for models that are solved in one go."""
    settings = contract.training.settings
    return int(settings.get("epochs") or 1) * int(settings.get("members") or 1) * len(contract.training.parts)


def _steps_of_quantiles(contract: Contract) -> int:
    if not contract.training.quantiles:
        return 0
    return _steps_of_a_fit(contract) if contract.training.architecture in NETWORKS else int(LINEAR["epochs"] or 1)


def _searched(contract: Contract) -> int:
    """Fits that the search is counted for: one for each trial and set of training rows."""
    wanted = contract.training.search
    return 0 if wanted is None else wanted.trials * contract.fits
