"""Carrying out a search: generations of trials, each of which knows what the generations before have found."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fiduciary_trainer import splits
from fiduciary_trainer.measure.losses import log_loss, squared_error
from fiduciary_trainer.outcome import BadContract, DataRefused, Diverged
from fiduciary_trainer.search.sampling import give_up, propose
from fiduciary_trainer.search.share import Share
from fiduciary_trainer.search.trials import Trial, Trials, Tried
from fiduciary_trainer.steps import Steps
from fiduciary_trainer.validation.overfitting import BLOCKS, Overfitting, cscv

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fiduciary_trainer.models.fitting import Fitter
    from fiduciary_trainer.models.hyperparameters import Settings
    from fiduciary_trainer.search.space import Configuration, Search

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_FIRST_NUMBER = 100_000
"""Numbers of the fits of a search, by which they are seeded, lie above those of the training itself."""
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Count:
    """How far a search is, for people."""

    trials: int
    ended: int
    running: int
    pruned: int
    failed: int
    best: float | None


@dataclass(frozen=True)
class Searched:
    """A search that has ended.

    Attributes:
        search: what was asked for.
        trials: all of them, in order.
        best: for each search, by the number of the fit that it selects for: which trial, and its configuration.
        days: sessions of the followed search's inner splits.
    """

    search: Search
    trials: Sequence[Trial]
    best: Mapping[int, tuple[int, Configuration]]
    days: int

    @property
    def selection(self) -> dict[int, Settings]:
        """Settings by the number of the fit."""
        return {number: self.search.settings(configuration) for number, (_, configuration) in self.best.items()}

    @property
    def count(self) -> Count:
        return _count(self.search, self.trials, 0)

    def overfitting(self) -> Overfitting | str:
        """PBO over the complete trials of the followed search, or why there is none.

        Trials that were given up have no whole series and are left out: what is compared are those that competed to
        the end.
        """
        complete = [trial.daily for trial in self.trials if trial.followed.state == "Complete"]
        if len(complete) < 2:
            return f"{len(complete)} trial of {len(self.trials)} came to its end; at least 2 are compared"
        if self.days < 2 * BLOCKS:
            return f"the inner splits test {self.days} sessions; at least {2 * BLOCKS} are needed for {BLOCKS} blocks"
        return cscv(-np.column_stack(complete), statistic="mean")


class Searcher:
    """A search over several sets of training rows at once.

    Args:
        fitter: of the training, prepared for the widest settings of the space.
        search: what is asked for.
        trains: (number of the fit, training rows) of each set; the last one is followed: its losses are kept by day.
        trials: what is known already, and where new ones are kept.
        share: what this process carries out.
        tell: told after each trial.
        clock: seconds, monotonic.

    Raises:
        DataRefused: a set has too few rows to test anything inside it.
    """

    def __init__(
        self,
        fitter: Fitter,
        search: Search,
        trains: Sequence[tuple[int, Ints]],
        trials: Trials,
        share: Share | None = None,
        tell: Callable[[Count, Trial], None] = lambda count, trial: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        attempt = fitter.attempt
        self._attempt = attempt
        # Trials are kept whole: nothing of their epochs is. Their progress is counted by trials.
        quiet = Steps(_silent, 1)
        self._fitter = replace(fitter, attempt=None if attempt is None else attempt.apart(), steps=quiet)
        self._search, self._trains, self._trials = search, trains, trials
        self._share, self._tell, self._clock = share or Share(), tell, clock
        self._seed = fitter.contract.training.seed
        self._absent: set[int] = set()
        self._longest = 0.0
        self._inner = [splits.inner_walk_forward(fitter.calendar, rows) for _, rows in trains]
        for (_, rows), inner in zip(trains, self._inner, strict=True):
            if not inner:
                raise DataRefused(
                    "TooFewRows",
                    f"a training set of {len(rows)} rows leaves nothing to compare trials on inside it (purge "
                    f"{fitter.calendar.purge}, embargo {fitter.calendar.embargo}); use a longer history, fewer folds, "
                    "features with a shorter lookback, or no training.search",
                )

    def run(self) -> Searched:
        """Every trial, and what each search selects.

        Raises:
            Diverged: no trial of a search came to its end.
            Retryable: SIGTERM, or the place where trials are kept cannot be reached.
        """
        total, width = self._search.trials, self._search.parallelism
        known: list[Trial] = []
        for first in range(0, total, width):
            numbers = range(first, min(first + width, total))
            found: dict[int, Trial] = {}
            for number in sorted(numbers, key=lambda n: not self._share.has(n, width)):
                mine = self._share.has(number, width)
                trial = self._trials.get(number) or (None if mine else self._awaited(number))
                if trial is None:
                    trial = self._carry_out(number, known)
                    self._trials.put(trial)
                self._longest = max(self._longest, trial.seconds)
                found[number] = trial
                ended = [*known, *(found[n] for n in sorted(found))]
                pods = 1 if self._share.index is None else width - len(self._absent)
                self._tell(_count(self._search, ended, min(pods, total - len(ended))), trial)
            known += [found[number] for number in numbers]
        return Searched(self._search, known, self._selected(known), self._days(len(self._trains) - 1))

    def _awaited(self, number: int) -> Trial | None:
        """A trial of another pod; None when it does not come. A pod that was waited for in vain is not waited for
        again until something of it is seen."""
        pod = number % self._search.parallelism
        patience = 0.0 if pod in self._absent else max(self._share.patience, 2.0 * self._longest)
        until = self._clock() + patience
        while (found := self._trials.get(number)) is None and self._clock() < until:
            if self._attempt is not None:
                self._attempt.stop_if_asked()
            time.sleep(_POLL_SECONDS)
        if found is None:
            self._absent.add(pod)
        else:
            self._absent.discard(pod)
        return found

    def _carry_out(self, number: int, known: Sequence[Trial]) -> Trial:
        began = time.monotonic()
        before = [[trial.tried[place] for trial in known] for place in range(len(self._trains))]
        tried = [
            _Run(propose(self._search, self._seed, number, mine), len(inner))
            for mine, inner in zip(before, self._inner, strict=True)
        ]
        for step in range(max(len(inner) for inner in self._inner)):
            for places in self._groups(tried, step):
                self._fit(tried, places, step)
            for place, run in enumerate(tried):
                if run.state is None and len(run.means) == step + 1:
                    if step + 1 == run.steps:
                        run.state = "Complete"
                    elif give_up(self._search, run.means, before[place]):
                        run.state = "Pruned"
        followed = tried[-1]
        daily = np.concatenate(followed.daily) if followed.state == "Complete" else np.zeros(0)
        return Trial(number, tuple(run.tried for run in tried), daily, time.monotonic() - began)

    def _groups(self, tried: Sequence[_Run], step: int) -> list[list[int]]:
        """Searches that go on with this step, those with the same configuration together: they can be fitted as one."""
        groups: dict[str, list[int]] = {}
        for place, run in enumerate(tried):
            if run.state is None and step < run.steps:
                groups.setdefault(repr(run.configuration), []).append(place)
        return list(groups.values())

    def _fit(self, tried: Sequence[_Run], places: Sequence[int], step: int) -> None:
        """Fit one inner split of each of the searches ``places``, which try the same configuration."""
        try:
            fitter = self._fitter.configured(self._search.settings(tried[places[0]].configuration))
            # The same seeds in every trial: what differs is the configuration alone.
            numbers = [_FIRST_NUMBER + 10 * self._trains[place][0] + step for place in places]
            fits = fitter.fit_all(
                [(number, self._inner[place][step][0]) for number, place in zip(numbers, places, strict=True)]
            )
        except (BadContract, Diverged, np.linalg.LinAlgError) as error:
            if not isinstance(error, BadContract) and len(places) > 1:
                # Of one of them. It says nothing of the others, whose test rows it may have been fitted on.
                for place in places:
                    self._fit(tried, [place], step)
                return
            linear = isinstance(error, np.linalg.LinAlgError)
            said = f"the linear part cannot be solved: {error}" if linear else error.message
            for place in places:
                tried[place].fail(said)
            return
        for place, fitted in zip(places, fits, strict=True):
            watch = self._inner[place][step][1]
            prediction = fitter.predict(fitted, watch)
            bad = int(np.sum(~np.isfinite(prediction)))
            if bad:
                tried[place].fail(f"{bad} of {len(watch)} predictions are no finite numbers")
            else:
                tried[place].note(self._daily(watch, prediction))

    def _daily(self, rows: Ints, prediction: Floats) -> Floats:
        """``(days,)`` mean loss of each session's rows: squared error, or log loss of a direction."""
        y = self._fitter.prepared.y[rows]
        loss = (log_loss if self._fitter.contract.data.label == "Direction" else squared_error)(y, prediction)
        _, place, rows_of_day = np.unique(self._fitter.calendar.day[rows], return_inverse=True, return_counts=True)
        return np.bincount(place, weights=loss) / rows_of_day

    def _selected(self, trials: Sequence[Trial]) -> dict[int, tuple[int, Configuration]]:
        best: dict[int, tuple[int, Configuration]] = {}
        for place, (number, _) in enumerate(self._trains):
            losses = {t.number: loss for t in trials if (loss := t.tried[place].loss) is not None}
            if not losses:
                first = next((t.tried[place].reason for t in trials if t.tried[place].reason), "")
                raise Diverged(
                    "NoTrialSucceeded",
                    f"none of {len(trials)} trials came to its end; the first failed: {first}. Narrow "
                    "training.search.space, or lower learningRate",
                )
            chosen = min(losses, key=lambda n: (losses[n], n))
            best[number] = (chosen, trials[chosen].tried[place].configuration)
        return best

    def _days(self, place: int) -> int:
        return sum(len(np.unique(self._fitter.calendar.day[watch])) for _, watch in self._inner[place])


class _Run:
    """A configuration in one search while it is tried."""

    def __init__(self, configuration: Configuration, steps: int) -> None:
        self.configuration = configuration
        self.steps = steps
        self.state: str | None = None
        self.means: list[float] = []
        self.daily: list[Floats] = []
        self.reason = ""

    def note(self, daily: Floats) -> None:
        self.daily.append(daily)
        self.means.append(float(np.concatenate(self.daily).mean()))

    def fail(self, reason: str) -> None:
        self.state, self.reason = "Failed", reason

    @property
    def tried(self) -> Tried:
        assert self.state in ("Complete", "Pruned", "Failed")
        return Tried(self.configuration, self.state, tuple(self.means), self.reason)


def _count(search: Search, trials: Sequence[Trial], running: int) -> Count:
    losses = [loss for trial in trials if (loss := trial.followed.loss) is not None]
    states = [trial.followed.state for trial in trials]
    return Count(
        trials=search.trials,
        ended=len(trials),
        running=running,
        pruned=states.count("Pruned"),
        failed=states.count("Failed"),
        best=min(losses, default=None),
    )


def _silent(**_: object) -> None:
    """Progress of a search is counted by trials."""
