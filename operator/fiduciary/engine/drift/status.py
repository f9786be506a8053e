"""Whether a status is written: one write holds all that was folded, before anybody acts on it.

What only the clock moves, or a row that came, is no reason for a write: an operator over a thousand policies, each with
its detectors in the status, would do nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from fiduciary.api.driftpolicy import DriftPolicyStatus


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
