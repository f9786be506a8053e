"""Why a version that wants to be champion is not: what the condition PromotionPending tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fiduciary.api.modelstatus import ApprovalRequest
from fiduciary.decide import reasons
from fiduciary.decide.serving.following import active, told, watches, window_end
from fiduciary.decide.serving.queueing import speaks_for
from fiduciary.decide.serving.will import approvals_given, approvals_needed, people_decide
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
    judged = _judged(case, history, name)
    if judged is not None:
        return judged
    given, objection = approvals_given(case, history)
    needed = approvals_needed(case)
    why = ""
    if case.spec.promotion.mode == "Auto":
        lacking = "the operator's settings name no Prometheus" if case.spec.serving is not None else "nothing is served"
        why = f", as no experiment can judge it ({lacking})"
    people = "the approval of a person" if needed == 1 else f"approvals of {needed} people, {len(given)} given"
    message = (
        f"{name} passed the gates and waits for {people}{why}. "
        f"Create a ModelApproval {{decision: Approve, evidenceDigest: {history.challenger_evidence}}}, or pin it"
    )
    if objection is not None:
        return Note(objection.reason, f"{message}. {objection.message}")
    return Note(reasons.APPROVAL_NEEDED, message)


def _judged(case: Case, history: History, name: str) -> Note | None:
    """Where the experiment of the challenger is; None where people alone decide."""
    followed = active(case, history)
    if followed is not None and watches(followed, history):
        if people_decide(case):
            return None
        watched, end = history.champion.version if history.champion is not None else "?", window_end(case, history)
        message = (
            f"{name} waits: version {watched} was promoted by ModelExperiment {followed.metadata.name}, which watches "
            f"it until {end:%Y-%m-%d %H:%M:%S} UTC"
        )
        return Note(reasons.QUEUED, message)
    behind = "" if history.waiting is None else f"; version {history.waiting.version} waits behind it"
    if followed is not None:
        reason, message = told(followed)
        return Note(reason, f"{name} is judged by ModelExperiment {followed.metadata.name}: {message}{behind}")
    if people_decide(case):
        return None
    ended = _ended_before(case, history)
    if ended is not None:
        return ended
    return Note(reasons.QUEUED, f"a ModelExperiment for {name} is about to be made{behind}")


def _ended_before(case: Case, history: History) -> Note | None:
    """An experiment of the challenger that ended before it began, and so keeps another from being made."""
    challenger = history.challenger
    for one in case.world.experiments:
        ruling = one.status.ruling
        if challenger is not None and ruling is not None and speaks_for(case, one, challenger):
            message = (
                f"ModelExperiment {one.metadata.name} of version {challenger.version} ended: {ruling.message}. Correct "
                "spec.promotion.experiment and delete it (another one is made), create one by hand, or pin the version"
            )
            return Note(ruling.reason, message)
    return None


def approval_request(case: Case, history: History) -> ApprovalRequest | None:
    """What people are asked: frozen with the record that gave the challenger its place."""
    challenger, digest = history.challenger, history.challenger_evidence
    if challenger is None or digest is None or case.spec.promotion.mode == "Pinned" or not people_decide(case):
        return None
    given, _ = approvals_given(case, history)
    return ApprovalRequest(
        digest=digest,
        version=challenger.version,
        needed=approvals_needed(case),
        given=len(given),
        at=challenger.since,
    )
