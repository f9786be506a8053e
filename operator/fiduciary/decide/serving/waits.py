"""Why a version that wants to be champion is not: what the condition PromotionPending tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fiduciary.api.modelstatus import ApprovalRequest
from fiduciary.decide import reasons
from fiduciary.decide.serving.will import approvals_given, approvals_needed
from fiduciary.decide.step import Note

if TYPE_CHECKING:
    from fiduciary.decide.case import Case
    from fiduciary.decide.history import History
    from fiduciary.decide.serving.arrival import Arrival
    from fiduciary.decide.serving.will import Will


def promotion_pending(case: Case, history: History, wish: Will | None, coming: Arrival | None) -> Note | None:
    """What the version that people want, else the challenger, waits for; None where nobody wants to be champion."""
    if wish is not None:
        lacking = coming.note if coming is not None else None
        message = f"version {wish.version.version} becomes champion ({wish.why})"
        if lacking is None:
            return Note(reasons.PROMOTION_PENDING, f"{message}: it is ready, and is put in force next")
        return Note(lacking.reason, f"{message} once it can take all requests: {lacking.message}", lacking.stalled)
    challenger = history.challenger
    if challenger is None:
        return None
    name = f"version {challenger.version}"
    if case.spec.promotion.mode == "Pinned":
        return Note(reasons.OVERRIDDEN_BY_PIN, f"{name} is not promoted while promotion.mode is Pinned")
    if history.kill is not None and history.kill.engaged:
        return Note(reasons.KILL_ENGAGED, f"{name} is not promoted while the kill switch is latched")
    if case.spec.suspend:
        return Note(reasons.SUSPENDED_BY_SPEC, f"{name} is not promoted while spec.suspend is true")
    given, objection = approvals_given(case, history)
    needed = approvals_needed(case)
    why = ", as this release runs no experiments that could promote it" if case.spec.promotion.mode == "Auto" else ""
    people = "the approval of a person" if needed == 1 else f"approvals of {needed} people, {len(given)} given"
    message = (
        f"{name} passed the gates and waits for {people}{why}. "
        f"Create a ModelApproval {{decision: Approve, evidenceDigest: {history.challenger_evidence}}}, or pin it"
    )
    if objection is not None:
        return Note(objection.reason, f"{message}. {objection.message}")
    return Note(reasons.APPROVAL_NEEDED, message)


def approval_request(case: Case, history: History) -> ApprovalRequest | None:
    """What people are asked: frozen with the record that gave the challenger its place."""
    challenger, digest = history.challenger, history.challenger_evidence
    if challenger is None or digest is None or case.spec.promotion.mode == "Pinned":
        return None
    given, _ = approvals_given(case, history)
    return ApprovalRequest(
        digest=digest,
        version=challenger.version,
        needed=approvals_needed(case),
        given=len(given),
        at=challenger.since,
    )
