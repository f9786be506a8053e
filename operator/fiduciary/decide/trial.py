"""Which experiment the log says a challenger is in, and which one promoted the champion: from records alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fiduciary.api.modeldecision import ModelDecisionSpec
    from fiduciary.api.modelexperiment import ModelExperiment
    from fiduciary.api.versions import VersionRef
    from fiduciary.decide.history import History

ENDS = ("Promote", "RollBack", "Reject", "Abort")
"""Records that may hold the verdict of an experiment."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One experiment as records name it."""

    experiment: str  # name of the ModelExperiment
    uid: str
    challenger: str  # digest
    purpose: str  # Improve | Refresh


def trial_of(record: ModelDecisionSpec) -> Trial | None:
    """The experiment that a record names; None where it names none."""
    name, uid = record.cause.experiment, record.evidence.summary.get("uid")
    if name is None or uid is None:
        return None
    # What goes back names the challenger as the version that is left.
    version = record.from_ if record.action == "RollBack" else record.to
    digest = version.digest if version is not None else None
    return Trial(name, str(uid), digest or "", str(record.evidence.summary.get("purpose", "")))


def about(experiment: ModelExperiment, version: VersionRef) -> bool:
    """Whether the version is the experiment's challenger: by digest once it started, before that by its number."""
    fixed = experiment.status.challenger
    if fixed is not None:
        return fixed.digest == version.digest
    return experiment.spec.challenger.version == version.version


def oldest_first(experiment: ModelExperiment) -> tuple[float, str]:
    """Order of the queue; the API server's clock has whole seconds, so the name decides the rest."""
    created = experiment.metadata.creation_timestamp
    return (0.0 if created is None else created.timestamp(), experiment.metadata.name)


def tried(before: History, history: History, record: ModelDecisionSpec) -> History:
    """The history after ``record`` with the trial that it begins or ends.

    A trial begins with the first traffic that an experiment gives its challenger, and ends with the experiment's
    verdict, or when its challenger loses its place. Then the version that waited takes it.
    """
    named, trial, watch = trial_of(record), history.trial, history.watch
    if named is not None and record.action == "Shift":
        traffic = record.traffic
        if traffic is not None and traffic.challenger + traffic.mirror > 0:
            trial = named
    elif named is not None and trial is not None and named.uid == trial.uid and record.action in ENDS:
        trial = None
    if _digest(history, "champion") != _digest(before, "champion"):
        watch = named if record.action == "Promote" else None
    if trial is not None and trial.challenger != _digest(history, "challenger"):
        trial = None
    history = replace(history, trial=trial, watch=watch)
    if trial is None and history.waiting is not None:
        evidence = history.waiting_evidence
        history = replace(
            history, challenger=history.waiting, challenger_evidence=evidence, waiting=None, waiting_evidence=None
        )
    return history


def _digest(history: History, place: str) -> str | None:
    version = history.champion if place == "champion" else history.challenger
    return None if version is None else version.digest
