"""The verdict of an experiment as the decision log has it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from fiduciary.decide import reasons
from fiduciary.decide.experiment.world import GoneBack, Recorded
from fiduciary.decide.trial import trial_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fiduciary.api.modeldecision import ModelDecision, ModelDecisionSpec
    from fiduciary.api.modelexperiment import ModelExperiment

VERDICTS: Mapping[str, Literal["Promote", "RollBack", "KeepChampion"]] = {
    "Promote": "Promote",
    "RollBack": "RollBack",
    "Reject": "KeepChampion",
    "Abort": "KeepChampion",
}
"""Action of a record -> verdict."""


def recorded(records: Iterable[ModelDecision], experiment: ModelExperiment) -> Recorded | None:
    """The record that carries out this experiment's verdict, by its name and UID; None while there is none.

    A promotion that was gone back on later, by this experiment, a person or a pin, names that record, too; so does one
    after which another version was made champion.
    """
    name, uid = experiment.metadata.name, experiment.metadata.uid
    found: Recorded | None = None
    promoted: str | None = None
    for record in records:
        spec = record.spec
        if found is None:
            its = trial_of(spec)
            if its is None or (its.experiment, its.uid) != (name, uid) or spec.action not in VERDICTS:
                continue
            found = _of(spec)
            promoted = its.challenger if found.verdict == "Promote" else None
        elif promoted is not None and spec.action in ("Promote", "RollBack") and spec.to:
            if spec.to.digest == promoted:
                continue  # another version gave back what it had of its requests
            if spec.action == "RollBack" and spec.from_ and spec.from_.digest == promoted:
                return replace(found, rolled_back=_gone_back(spec))
            return replace(found, left=spec.sequence)
    return found


def _of(record: ModelDecisionSpec) -> Recorded:
    """A promotion has a reason for each claim that was shown, and one word for them all."""
    verdict, cause = VERDICTS[record.action], record.cause
    reason = cause.reasons[0].reason if cause.reasons and verdict != "Promote" else reasons.PROMOTED
    return Recorded(verdict, reason, cause.message, record.sequence, record.decided_at)


def _gone_back(record: ModelDecisionSpec) -> GoneBack:
    """Its first reason is why; people and pins give none."""
    cause = record.cause
    if not cause.reasons:
        return GoneBack(record.sequence, reasons.ROLLED_BACK, cause.message)
    return GoneBack(record.sequence, cause.reasons[0].reason, cause.message)
