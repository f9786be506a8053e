"""What a search has found, for people and for MLflow."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fiduciary_trainer.search.run import Count, Searched
    from fiduciary_trainer.search.trials import Trial

FINAL = "final"
"""Of the model that is exported: the search that is followed."""


def name(number: int, folds: int) -> str:
    """What a fit is for: ``fold_1``, ``final``, ``split_1``."""
    if number < folds:
        return f"fold_{number + 1}"
    return FINAL if number == folds else f"split_{number - folds}"


def progress(count: Count) -> dict[str, Any]:
    """``search`` of the run's progress."""
    return {
        "trials": count.ended,
        "total": count.trials,
        "running": count.running,
        "pruned": count.pruned,
        "failed": count.failed,
        "best": count.best,
    }


def of_trial(trial: Trial, names: Sequence[str]) -> dict[str, Any]:
    """A trial as a child run shows it; ``names`` of the searches, in their order."""
    followed = trial.followed
    losses = {
        "inner_loss" if name == FINAL else f"{name}/inner_loss": tried.loss
        for name, tried in zip(names, trial.tried, strict=True)
    }
    return {
        "number": trial.number,
        "state": followed.state,
        "configuration": dict(followed.configuration),
        "losses": {name: loss for name, loss in losses.items() if loss is not None},
        "reason": followed.reason,
    }


def of_search(searched: Searched, folds: int) -> dict[str, Any]:
    """``search`` of ``validation/results.json``."""
    search, trials = searched.search, searched.trials
    followed = [trial.followed for trial in trials]
    selected = []
    for place, (number, (chosen, configuration)) in enumerate(searched.best.items()):
        tried = trials[chosen].tried[place]
        selected.append(
            {
                "for": name(number, folds),
                "trial": chosen,
                "configuration": dict(configuration),
                "loss": tried.loss,
                "failed": sum(trial.tried[place].state == "Failed" for trial in trials),
                "pruned": sum(trial.tried[place].state == "Pruned" for trial in trials),
            }
        )
    return {
        "sampler": search.sampler,
        "pruner": search.pruner,
        "parallelism": search.parallelism,
        "trials": len(trials),
        "complete": sum(tried.state == "Complete" for tried in followed),
        "pruned": sum(tried.state == "Pruned" for tried in followed),
        "failed": sum(tried.state == "Failed" for tried in followed),
        "failures": dict(Counter(tried.reason for tried in followed if tried.reason).most_common()),
        "selected": selected,
        "table": [
            {
                "trial": trial.number,
                "configuration": dict(trial.followed.configuration),
                "state": trial.followed.state,
                "loss": trial.followed.loss,
            }
            for trial in trials
        ],
        "note": "each set of training rows has a search of its own; the table is that of the final model",
    }


def overfitting(searched: Searched) -> dict[str, Any]:
    """``overfitting`` of ``validation/results.json``."""
    found = searched.overfitting()
    if isinstance(found, str):
        return {"unavailable": found}
    left: Mapping[str, Any] = {"leftOut": len(searched.trials) - found.trials}
    return {**asdict(found), **left, "statistic": "minus the loss a session, on the inner splits of the final model"}
