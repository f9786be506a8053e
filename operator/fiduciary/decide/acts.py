"""What people do to a model: the kill switch, Resume, Abort."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fiduciary.api.modeldecision import Reason, Traffic
from fiduciary.api.versions import VersionRef
from fiduciary.decide import reasons, records
from fiduciary.decide.decision import Delete, Event
from fiduciary.decide.serving.routing import routing
from fiduciary.decide.serving.waysback import ways_back
from fiduciary.decide.step import Step
from fiduciary.manifests.engines import API_VERSIONS, RUNTIME

if TYPE_CHECKING:
    from datetime import datetime

    from fiduciary.api.modelapproval import ModelApproval
    from fiduciary.decide.case import Case
    from fiduciary.decide.world import JobView, RuntimeView


def engage(case: Case) -> Step | None:
    """Latch the kill switch. Anyone who may create a Kill may do it, guarded by policies or not."""
    if case.killed or case.world.namespace_terminating:
        return None
    act = _newest_kill(case)
    if not case.spec.kill.engaged and act is None:
        return None
    action = case.spec.kill.action
    history = case.history
    previous = next(iter(ways_back(history)), None) if action == "PreviousChampion" else None
    user = None if case.spec.kill.engaged or act is None else act.spec.approver
    who = "spec.kill.engaged" if user is None else f"ModelApproval of {user}"
    message = f"the kill switch was engaged by {who}; action {action}: {_effect(case, previous)}"
    approval = act.metadata.name if act is not None else None
    cause = records.cause(case, "Kill", message, approval=approval)
    entry = records.record(
        case,
        "Kill",
        cause,
        summary={"action": action},
        before=history.champion,
        to=previous,
        traffic=Traffic(champion=100 if previous is not None else 0) if routing(history) is not None else None,
        user=user,
    )
    return Step(
        record=entry,
        training=case.status.training,
        events=(Event("Warning", reasons.KILL_ENGAGED, message),),
        again=True,
        interlude=True,
    )


def resume(case: Case) -> Step | None:
    """Clear the latch: only once the field is false, and only for an act newer than it whose author was checked."""
    act = answering_resume(case)
    if not case.killed or case.spec.kill.engaged or act is None or case.objection(act) is not None:
        return None
    message = f"the kill switch was cleared by {act.spec.approver}: {act.spec.reason}"
    cause = records.cause(case, "Resume", message, approval=act.metadata.name)
    kill = case.history.kill
    entry = records.record(
        case,
        "Resume",
        cause,
        summary={"action": kill.action if kill is not None else "Block"},
        to=case.history.champion,
        traffic=case.history.traffic,
        user=act.spec.approver,
    )
    return Step(
        record=entry,
        training=case.status.training,
        events=(Event("Normal", reasons.RESUMED, message),),
        again=True,
        interlude=True,
    )


def abort(case: Case) -> Step | None:
    """End the running training because a person says so. Its key has a verdict then, and is not tried again."""
    job = case.job
    if job is None or job.finished:
        return None
    acts = [act for act in case.approvals("Abort") if act.spec.experiment is None and _since(act, job)]
    if not acts:
        return None
    act = acts[-1]
    message = f"training {job.name} was ended by {act.spec.approver}: {act.spec.reason}"
    summary = records.training_summary(
        case,
        key=job.key,
        as_of=job.as_of.isoformat(),
        trigger=job.trigger,
        trials=max(1, len(case.history.configurations)),
        started_at=f"{job.created_at:%Y-%m-%dT%H:%M:%SZ}",
        job=job.name,
        attempt=job.attempt,
    )
    cause = records.cause(
        case,
        "Approval",
        message,
        trigger=job.trigger,
        approval=act.metadata.name,
        reasons=(Reason(reason=reasons.ABORTED, message=message),),
    )
    to = VersionRef(training_key=job.key, as_of=job.as_of.isoformat())
    entry = records.record(case, "Abort", cause, summary=summary, to=to, user=act.spec.approver)
    return Step(
        record=entry, children=(deletion(job),), events=(Event("Warning", reasons.ABORTED, message),), again=True
    )


def answering_resume(case: Case) -> ModelApproval | None:
    """The newest Resume that is newer than the latch and than every Kill; in the same second it is not."""
    kill = case.history.kill
    last_kill = _newest_kill(case)
    candidates = [
        act
        for act in case.approvals("Resume")
        if kill is not None
        and _created(act) > _timestamp(case.history.kill_at)
        and (last_kill is None or _created(act) > _created(last_kill))
    ]
    return candidates[-1] if candidates else None


def deletion(job: JobView) -> Delete:
    return Delete(API_VERSIONS[job.kind], job.kind, job.name, job.uid)


def runtime_deletion(runtime: RuntimeView) -> Delete:
    return Delete(API_VERSIONS[RUNTIME], RUNTIME, runtime.name, runtime.uid)


def _effect(case: Case, previous: VersionRef | None) -> str:
    """What clients see from now on."""
    if routing(case.history) is None:
        return "nothing was served"
    if previous is not None:
        return f"version {previous.version} answers instead"
    asked = " (there is no previous champion)" if case.spec.kill.action == "PreviousChampion" else ""
    return f"nobody answers, clients get status 500{asked}"


def _newest_kill(case: Case) -> ModelApproval | None:
    """A Kill that is not older than the last latch or resume; older ones have had their effect.

    The API server's clock has whole seconds, and a Kill must never be lost: one of the very second of a Resume counts.
    """
    kill = case.history.kill
    since = _timestamp(case.history.kill_at) if kill is not None else 0.0
    acts = [act for act in case.approvals("Kill") if _created(act) >= since]
    return acts[-1] if acts else None


def _since(act: ModelApproval, job: JobView) -> bool:
    return _created(act) >= job.created_at.timestamp()


def _created(act: ModelApproval) -> float:
    created = act.metadata.creation_timestamp
    return 0.0 if created is None else created.timestamp()


def _timestamp(time: datetime | None) -> float:
    return 0.0 if time is None else time.timestamp()
