"""ModelExperiments that the model makes and clears away: one for each challenger, a bounded number that ended."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Literal

from fiduciary.api import meta
from fiduciary.decide import reasons
from fiduciary.decide.decision import Create, Delete, Event
from fiduciary.decide.experiment.facts import verdict_on
from fiduciary.decide.experiment.recorded import recorded
from fiduciary.decide.serving.following import active, experiments_decide
from fiduciary.decide.trial import about
from fiduciary.manifests.experiment import experiment

if TYPE_CHECKING:
    from fiduciary.api.modelexperiment import ModelExperiment
    from fiduciary.api.versions import StandingVersion, VersionRef
    from fiduciary.decide.case import Case
    from fiduciary.decide.history import History

HISTORY_LIMIT = 10
"""Experiments of our making that are kept after they ended: what they found is in the log."""


def made(case: Case, history: History) -> tuple[tuple[Create, ...], tuple[Event, ...]]:
    """Experiments for the challenger, and for the version that waits behind it, where there are none."""
    spec, traffic, killed = case.spec, history.traffic, history.kill is not None and history.kill.engaged
    if not experiments_decide(case) or traffic is None or traffic.champion == 0 or killed or spec.suspend:
        return (), ()
    bodies: list[Create] = []
    events: list[Event] = []
    for version in (history.challenger, history.waiting):
        if version is None or version.version is None or version.digest in history.refused:
            continue
        if any(speaks_for(case, one, version) for one in case.world.experiments):
            continue
        name, purpose = _free_name(case, version), purpose_of(history, version)
        bodies.append(Create(experiment(case.world.model, name, version, purpose)))
        told = f"ModelExperiment {name} judges version {version.version} ({purpose})"
        events.append(Event("Normal", reasons.EXPERIMENT_CREATED, told))
    return tuple(bodies), tuple(events)


def speaks_for(case: Case, one: ModelExperiment, version: VersionRef) -> bool:
    """Whether an experiment is the one of this version, so that no other is made.

    One that ended without having started is it, too: what kept it from starting would keep the next one. Deleted by a
    person, it is made anew. A dry run has said what it had to say, too. One that compared what is not in question any
    more is not.
    """
    if not about(one, version):
        return False
    ruling = one.status.ruling
    if ruling is None:
        return True
    found = recorded(case.world.records, one)
    if found is None:
        return ruling.reason != reasons.SUPERSEDED or one.status.challenger is not None
    return one.spec.mode == "DryRun" and found.verdict == "KeepChampion"


def purpose_of(history: History, version: VersionRef) -> Literal["Improve", "Refresh"]:
    """A retrain of the champion's configuration has to be no worse; everything else has to be better."""
    champion = history.champion
    mine, other = verdict_on(history, version.digest), verdict_on(history, champion.digest if champion else None)
    same = mine is not None and other is not None and mine.config_key == other.config_key
    return "Refresh" if same and mine is not None and mine.trigger else "Improve"


def cleared(case: Case, history: History) -> tuple[Delete, ...]:
    """Ended experiments beyond the limit, oldest first; those that still say something about a version stay."""
    standing = [one for one in (history.challenger, history.waiting) if one is not None]
    followed = active(case, history)
    ended = [
        one
        for one in case.world.experiments
        if one.status.ruling is not None
        and one is not followed
        and one.metadata.deletion_timestamp is None
        and one.metadata.labels.get(meta.LABEL_MANAGED_BY) == meta.MANAGED_BY
        and (one.status.challenger is None or recorded(case.world.records, one) is not None)
        and not any(speaks_for(case, one, version) for version in standing)
    ]
    ended.sort(key=_ended_at, reverse=True)
    return tuple(
        Delete(meta.API_VERSION, "ModelExperiment", one.metadata.name, one.metadata.uid)
        for one in reversed(ended[HISTORY_LIMIT:])
    )


def _ended_at(one: ModelExperiment) -> tuple[float, str]:
    ruling = one.status.ruling
    return (0.0 if ruling is None else ruling.at.timestamp(), one.metadata.name)


def _free_name(case: Case, version: StandingVersion) -> str:
    """``<model>-<version>``; numbered on where another experiment has it."""
    taken = {one.metadata.name for one in case.world.experiments}
    first = f"{case.name}-{version.version}"
    return next(name for number in count(1) if (name := first if number == 1 else f"{first}-{number}") not in taken)
