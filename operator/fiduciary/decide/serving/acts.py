"""Decisions on who serves: each policy returns the step with its record, or nothing. Waiting is no step: training goes
on beside it, and what is waited for is told by the upkeep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fiduciary.api.modeldecision import Reason, Traffic
from fiduciary.api.versions import VersionRef
from fiduciary.decide import reasons, records
from fiduciary.decide.decision import Event
from fiduciary.decide.serving.ability import Able, ability, route_obstacle
from fiduciary.decide.serving.arrival import arrival
from fiduciary.decide.serving.backends import coming, in_force
from fiduciary.decide.serving.following import ALL
from fiduciary.decide.serving.routing import routing
from fiduciary.decide.serving.succession import heir
from fiduciary.decide.serving.verdicts import concluded, followed, recorded_step, vanished
from fiduciary.decide.serving.waysback import passes
from fiduciary.decide.serving.will import approvals_given, rejection, will
from fiduciary.decide.step import Step
from fiduciary.manifests import versionnames

if TYPE_CHECKING:
    from fiduciary.api.modeldecision import Cause, ModelDecisionSpec
    from fiduciary.decide.case import Case
    from fiduciary.decide.serving.will import Will

NONE = Traffic(champion=0)


def adopted(case: Case) -> Step | None:
    """A model that is back finds what the one before it left behind (deletionPolicy Retain): it goes on serving."""
    champion = case.history.champion
    if not case.history.retained or champion is None:
        return None
    message = f"version {champion.version} goes on serving: the model is back, and its log names it"
    cause = records.cause(case, "Restore", message)
    to = champion.model_copy(update={"role": "Champion"})
    entry = records.record(case, "Adopt", cause, to=to)
    return Step(record=entry, finalizer="Add", events=(Event("Normal", reasons.ADOPTED, message),), again=True)


def withdrawn(case: Case) -> Step | None:
    """Serving is not asked for any more: nobody answers from here on."""
    traffic, champion = case.history.traffic, case.history.champion
    if case.spec.serving is not None or traffic is None or traffic.champion == 0 or champion is None:
        return None
    message = f"spec.serving was removed: version {champion.version} takes no requests any more"
    entry = _record(case, "Shift", records.cause(case, "SpecChange", message), champion, NONE)
    return _step(entry, Event("Normal", reasons.WITHDRAWN, message))


def rejected(case: Case) -> Step | None:
    """A person refuses the challenger; it does not come back."""
    challenger, act = case.history.challenger, rejection(case, case.history)
    if challenger is None or act is None:
        return None
    message = f"version {challenger.version} was rejected by {act.spec.approver}: {act.spec.reason}"
    why = (Reason(reason=reasons.REJECTED_BY_PERSON, message=message),)
    cause = records.cause(case, "Approval", message, approval=act.metadata.name, reasons=why)
    entry = records.record(case, "Reject", cause, before=case.history.champion, to=challenger, user=act.spec.approver)
    return _step(entry, Event("Warning", reasons.REJECTED_BY_PERSON, message))


def incompatible(case: Case) -> Step | None:
    """A challenger that refuses what clients send today is refused before they notice."""
    challenger, able, route = case.history.challenger, ability(case), routing(case.history)
    if challenger is None or not isinstance(able, Able) or route is None or route.blocked:
        return None
    if case.spec.promotion.mode == "Pinned":
        return None  # nobody is about to promote it; a person may pin it on purpose
    told = arrival(case, case.history, able, challenger, compatible=True, need=1).refused
    if told is None:
        return None
    champion = case.history.champion
    message = (
        f"version {challenger.version} does not accept the champion's requests: {told}. Train it on the same inputs, "
        "or pin it once clients have changed"
    )
    why = (Reason(reason=reasons.INCOMPATIBLE_SIGNATURE, message=message),)
    cause = records.cause(case, "Serving", message, reasons=why)
    entry = records.record(case, "Reject", cause, before=champion, to=challenger)
    return _step(entry, Event("Warning", reasons.INCOMPATIBLE_SIGNATURE, message))


def moved(case: Case) -> Step | None:
    """What people or an experiment want happens as soon as the version could take all requests: promotion and rollback
    are one record and one write to the route."""
    wish, able = will(case, case.history), ability(case)
    if wish is None:
        return None
    if isinstance(able, Able):
        if not arrival(case, case.history, able, wish.version, compatible=wish.compatible).ready:
            return None
    elif able is not None:
        return None  # what serves is frozen: a record would say what no route can do
    traffic = ALL if isinstance(able, Able) else None
    if wish.experiment is not None:
        message, before = _cause(case, wish).message, case.history.champion
        return recorded_step(
            case, wish.experiment, wish.action, message, before=before, to=wish.version, traffic=traffic
        )
    entry = _record(case, wish.action, _cause(case, wish), wish.version, traffic, wish)
    event = reasons.PROMOTED if wish.action == "Promote" else reasons.ROLLED_BACK
    return _step(entry, Event("Normal" if wish.action == "Promote" else "Warning", event, entry.cause.message))


def first(case: Case) -> Step | None:
    """The first champion gets all requests as soon as one replica is ready and answered a probe."""
    history, able, promotion = case.history, ability(case), case.spec.promotion
    champion, traffic = history.champion, history.traffic
    if champion is None or not isinstance(able, Able) or (traffic is not None and traffic.champion > 0):
        return None
    if case.killed or case.spec.suspend:
        return None
    if promotion.mode == "Pinned" and promotion.pinned is not None and promotion.pinned.digest != champion.digest:
        return None
    if not passes(history, champion) or route_obstacle(case, able) is not None:
        return None
    if not arrival(case, history, able, champion, compatible=False, need=1).ready:
        return None
    message = f"version {champion.version} takes all requests at {versionnames.model_path(case.world.model)}"
    kind = "SpecChange" if history.traffic is not None else "Initial"
    entry = _record(case, "Shift", records.cause(case, kind, message), champion, ALL)
    return _step(entry, Event("Normal", reasons.FIRST_TRAFFIC, message))


def relocated(case: Case) -> Step | None:
    """Another backend takes over once it has loaded and proven what answers: one record, one write to the route."""
    history, name = case.history, coming(case)
    champion, traffic, route = history.champion, history.traffic, routing(history)
    if name is None or champion is None or traffic is None or route is None or case.spec.suspend or case.killed:
        return None
    if not heir(case, history, route).ready:
        return None
    before = in_force(case)
    message = f"{name} serves instead of {before}: each version that answers was loaded there and answered a probe"
    entry = _record(case, "Shift", records.cause(case, "SpecChange", message), champion, traffic)
    entry = entry.model_copy(update={"backend": name})
    return _step(entry, Event("Normal", reasons.BACKEND_CHANGED, message))


def _cause(case: Case, wish: Will) -> Cause:
    before = case.history.champion
    left = before.version if before is not None else "none"
    verb = "is champion" if wish.action == "Promote" else "is champion again"
    message = f"version {wish.version.version} {verb} instead of version {left}: {wish.why}"
    approval = wish.acts[-1] if wish.acts else None
    why = ()
    if wish.action == "RollBack":
        left = reasons.ROLLED_BACK_BY_PERSON if wish.asked is None else reasons.ROLLED_BACK_BY_DRIFT
        why = (Reason(reason=left, message=message),)
    return records.cause(case, wish.kind, message, approval=approval, asked=wish.asked, reasons=why)


def _record(
    case: Case, action: str, cause: Cause, to: VersionRef, traffic: Traffic | None, wish: Will | None = None
) -> ModelDecisionSpec:
    summary: dict[str, Any] = {} if wish is None or wish.asked is None else dict(wish.asked.action.evidence)
    if wish is not None and wish.acts:
        summary["approvals"] = list(wish.acts)
        if wish.action == "Promote":
            given, _ = approvals_given(case, case.history)
            summary["approvers"] = [act.spec.approver for act in given]
            summary["approved"] = case.history.challenger_evidence
    place = VersionRef.model_validate({**to.model_dump(), "role": "Champion"})
    before = case.history.champion if action != "Shift" else None
    entry = records.record(
        case,
        action,  # pyright: ignore[reportArgumentType]
        cause,
        summary=summary,
        before=before,
        to=place,
        traffic=traffic,
        user=wish.user if wish is not None else None,
    )
    if traffic is not None and in_force(case) != case.history.backend:
        return entry.model_copy(update={"backend": in_force(case)})
    return entry


def _step(record: ModelDecisionSpec, event: Event) -> Step:
    return Step(record=record, events=(event,), finalizer="Add", again=True)


POLICIES = (
    adopted,  # before anything builds on what is there: whose it is comes first
    withdrawn,
    rejected,  # before an approval of the same moment: a doubt beats a consent
    incompatible,
    concluded,
    vanished,
    moved,
    relocated,
    followed,
    first,  # last: where people want another version, the first one needs no traffic
)
