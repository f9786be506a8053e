"""What a search tries next, and what it gives up.

Both are functions of what earlier generations found and of the trial's number: whoever carries a trial out, in
whatever order, after whatever interruption, tries the same.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from fiduciary_trainer.training import derived_seed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

    from fiduciary_trainer.search.space import Configuration, Dimension, Search
    from fiduciary_trainer.search.trials import Tried

ENOUGH = 5
"""Trials that must have come to their end before one is given up for being worse than their median."""
_PURPOSE = 0x5EA
"""Tells the seeds of a search apart from those of fits."""


def propose(search: Search, seed: int, number: int, known: Sequence[Tried]) -> Configuration:
    """The configuration of trial ``number``, given what the trials of earlier generations found.

    TPE (Bergstra et al. 2011) as optuna has it: its first ten draws are random, and the same in every search of a
    training.
    """
    if search.sampler == "Grid":
        return search.grid[number]
    import optuna  # half a second that a training without a search need not wait

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    drawn_from = derived_seed(seed, _PURPOSE, number) % 2**32
    samplers = optuna.samplers
    sampler = (
        samplers.TPESampler(seed=drawn_from) if search.sampler == "TPE" else samplers.RandomSampler(seed=drawn_from)
    )
    study = optuna.create_study(sampler=sampler)
    space = {dimension.name: _distribution(dimension) for dimension in search.space}
    if search.sampler == "TPE":
        study.add_trials([_frozen(search, space, one) for one in known])
    drawn = study.ask(fixed_distributions=space).params
    return {dimension.name: dimension.written(drawn[dimension.name]) for dimension in search.space}


def give_up(search: Search, means: Sequence[float], known: Sequence[Tried]) -> bool:
    """The median rule (Golovin et al. 2017, §3.2.2): whether the running mean of the loss after ``len(means)`` inner
    splits is above the median of the running means that complete trials had there.

    optuna's MedianPruner compares the best single step instead, which is made for learning curves: here each step is
    another stretch of time, and some are calmer than others.
    """
    ended = [one.means[len(means) - 1] for one in known if one.state == "Complete" and len(one.means) >= len(means)]
    return search.pruner == "Median" and len(ended) >= ENOUGH and means[-1] > statistics.median(ended)


def _distribution(dimension: Dimension) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if dimension.words:
        return CategoricalDistribution(dimension.words)
    if dimension.integer:
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return FloatDistribution(float(dimension.low), float(dimension.high), log=dimension.log)


def _frozen(search: Search, space: dict[str, BaseDistribution], tried: Tried) -> FrozenTrial:
    from optuna.trial import TrialState, create_trial

    states = {"Complete": TrialState.COMPLETE, "Pruned": TrialState.PRUNED, "Failed": TrialState.FAIL}
    return create_trial(
        state=states[tried.state],
        value=tried.loss,
        params={each.name: _drawn(each, tried.configuration[each.name]) for each in search.space},
        distributions=space,
        intermediate_values=dict(enumerate(tried.means)),
    )


def _drawn(dimension: Dimension, value: int | str) -> int | float | str:
    return value if dimension.words or dimension.integer else float(value)
