"""Why a version that wants to be champion is not: what the condition PromotionPending tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fiduciary.api.modelstatus import ApprovalRequest
from fiduciary.decide import reasons
from fiduciary.decide.serving.backends import coming
from fiduciary.decide.serving.following import active, told, watches, window_end
from fiduciary.decide.serving.queueing import ended_for
from fiduciary.decide.serving.readiness import not_ready
from fiduciary.decide.serving.wanted import view_of
from fiduciary.decide.serving.will import approvals_given, approvals_needed, closed, people_decide
from fiduciary.decide.step import Note

if TYPE_CHECKING:
    from fiduciary.decide.case import Case
    from fiduciary.decide.experiment.windows import Closure
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
    held = closed(case, history, followed)
    if followed is not None and held is not None:
        return _held(name, followed.metadata.name, held, behind)
    if followed is not None:
        reason, message = told(followed)
        by = f"{name} is judged by ModelExperiment {followed.metadata.name}"
        lacking = _no_pod(case, history) if reason == reasons.WAITING_FOR_CAPACITY else None
        if lacking is not None:  # the experiment counts pods; why there is none, the pods say
            message = f"{by}, which waits for its pods: {lacking.message}{behind}"
            return Note(lacking.reason, message, lacking.stalled)
        return Note(reason, f"{by}: {message}{behind}")
    if people_decide(case):
        return None
    ended = _ended_before(case, history)
    if ended is not None:
        return ended
    place = coming(case)
    if place is not None:
        return Note(
            reasons.QUEUED, f"{name} is judged once serving has moved to {place}, where its requests go{behind}"
        )
    return Note(reasons.QUEUED, f"a ModelExperiment for {name} is about to be made{behind}")


def _held(name: str, experiment: str, held: Closure, behind: str) -> Note:
    ruled = f"{name} is to be promoted (ModelExperiment {experiment})"
    if held.unknown is not None:
        return Note(
            reasons.CALENDAR_UNKNOWN, f"{ruled}, and nobody knows whether it may be now: {held.unknown}{behind}"
        )
    until = "" if held.until is None else f" until {held.until:%Y-%m-%d %H:%M %Z}"
    message = f"{ruled}; {held.freeze or held.window} forbids promotions{until}{behind}"
    return Note(reasons.IN_FREEZE if held.freeze else reasons.NO_PROMOTE_WINDOW, message)


def _no_pod(case: Case, history: History) -> Note | None:
    """Why no pod of the challenger is ready; None where one is, or nothing is known of them yet."""
    view = view_of(case, history.challenger)
    return None if view is None else not_ready(case, view, 1)


def _ended_before(case: Case, history: History) -> Note | None:
    """An experiment of the challenger that ended without a word on it, and so keeps another from being made."""
    challenger = history.challenger
    one = ended_for(case, challenger)
    ruling = one.status.ruling if one is not None else None
    if one is None or ruling is None or challenger is None:
        return None
    if ruling.reason == reasons.EXPIRED:
        again = "Delete it (another one is made and goes on with its evidence)"
    else:
        again = "Correct spec.promotion.experiment and delete it (another one is made), create one by hand"
    message = f"ModelExperiment {one.metadata.name} of version {challenger.version} ended: {ruling.message}. {again}"
    return Note(ruling.reason, f"{message}, or pin the version")


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
