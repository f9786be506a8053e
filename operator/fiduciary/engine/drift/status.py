"""What is written: the judged status with all that was folded, in one write, before anybody acts on it.

What only the clock moves, or a row that came, is no reason for a write: an operator over a thousand policies, each with
its detectors in the status, would do nothing else.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from fiduciary.api.driftpolicy import DriftPolicyStatus
    from fiduciary.decide.drift.decision import Decision
    from fiduciary.decide.drift.state import State
    from fiduciary.engine.drift.observe import Seen

GROWTH = 3_600_000
"""ms: how far the time of the newest row may lie behind in the status."""


def written(seen: Seen, decision: Decision) -> DriftPolicyStatus:
    """The status after this decision."""
    assert seen.world is not None
    before, status = seen.policy.status, decision.status
    unreadable = bool(seen.world.unreadable)
    if before.evidence is None or (not unreadable and moved(seen.world.state, decision.state)):
        return status
    # What cannot be read stays as it is, for whoever looks into it.
    detector = status.detector
    if detector is not None:
        detector = detector.model_copy(update={"digest": before.evidence.digest})
    return status.model_copy(update={"evidence": before.evidence, "detector": detector})


def moved(before: State | None, after: State | None) -> bool:
    """Whether more than the time of the last judgement, and some rows, is another."""
    if before is None or after is None:
        return before is not after
    if before.grown >= 0 and after.grown - before.grown < GROWTH:
        after = replace(after, grown=before.grown, rows=before.rows)
    return replace(after, judged=before.judged) != before


def worth_writing(before: DriftPolicyStatus, after: DriftPolicyStatus) -> bool:
    """Whether more than words has changed."""
    return before != after and (before.evidence != after.evidence or _told(before) != _told(after))


def _told(status: DriftPolicyStatus) -> Any:
    return (
        status.observed_generation, status.phase, status.worst, status.score, status.next_action, status.next_window,
        status.requested_action, status.actions, status.detector,
        tuple(its.model_copy(update={"message": None}) for its in status.monitors),
        tuple((one.type, one.status, one.reason, one.observed_generation) for one in status.conditions),
    )  # fmt: skip
