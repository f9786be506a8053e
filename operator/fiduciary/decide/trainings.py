"""Policies on trainings: what is trained, judged, started, and what has to be said instead.

Each returns the one thing to do, or nothing; their order is in ``financialmodel``.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from fiduciary.api.modeldecision import Reason
from fiduciary.api.versions import VersionRef
from fiduciary.decide import acts, preflight, reasons, records, running, verdict
from fiduciary.decide.calendar import CalendarUnknown
from fiduciary.decide.decision import Event
from fiduciary.decide.due import Due, due, following_tick, planned
from fiduciary.decide.outcome import logged_result
from fiduciary.decide.schedule import ScheduleImpossible
from fiduciary.decide.serving.waysback import passes
from fiduciary.decide.step import Note, Step

if TYPE_CHECKING:
    from datetime import datetime

    from fiduciary.decide.case import Case
    from fiduciary.decide.history import History
    from fiduciary.decide.world import JobView

RECHECK = timedelta(seconds=15)
"""How soon something is looked at again of whose change nobody tells us (labels of Secrets and claims)."""


def superseded(case: Case) -> Step | None:
    """The spec changed while training: nobody waits for what it asked for before.

    The record is no verdict on its key: who takes the edit back gets that training after all.
    """
    job = next((job for job in case.live_jobs if job.spec_key != case.spec_key), None)
    if job is None:
        return None
    message = f"{job.kind} {job.name} trains what the spec no longer asks for and is deleted"
    note, children = Note(reasons.TRAINING, message), (acts.deletion(job),)
    last = case.world.records[-1].spec if case.world.records else None
    if last is not None and last.action == "Abort" and last.evidence.summary.get("superseded") == job.uid:
        return Step(training=case.claim, note=note, children=children, again=True)
    cause = records.cause(
        case,
        "SpecChange",
        message,
        trigger=job.trigger,
        reasons=(Reason(reason=reasons.TRAINING_SUPERSEDED, message=message),),
    )
    to = VersionRef(training_key=job.key, as_of=job.as_of.isoformat())
    return Step(
        training=case.claim,
        note=note,
        record=records.record(case, "Abort", cause, summary={"superseded": job.uid, "job": job.name}, to=to),
        children=children,
        events=(Event("Normal", reasons.TRAINING_SUPERSEDED, message),),
        again=True,
    )


def taken(case: Case) -> Step | None:
    """Another model owns the registered model: neither versions nor aliases may be written there."""
    found = preflight.registry_taken(case)
    if found is None:
        return None
    return Step(training=case.claim, note=Note(found.reason, found.message, stalled=True))


def tidy(case: Case) -> Step | None:
    """A Job goes when its verdict is stored: at once if it was aborted, after its TTL if it ended. What only a TrainJob
    needed goes after it."""
    gone = [job for job in case.world.jobs if (end := expires(case, job)) is not None and end <= case.now]
    if gone:
        return Step(training=case.claim, children=tuple(acts.deletion(job) for job in gone), again=True)
    needed = {*(job.name for job in case.world.jobs), case.claim.job if case.claim is not None else None}
    left = [runtime for runtime in case.world.runtimes if runtime.name not in needed]
    if left:
        return Step(training=case.claim, children=tuple(acts.runtime_deletion(runtime) for runtime in left), again=True)
    return None


def judged(case: Case) -> Step | None:
    """A training that ended is judged, also while suspended or killed: evidence must not be lost."""
    job = case.job
    if job is None or not job.finished:
        return None
    known = case.status.training
    training = known if known is not None and known.key == job.key else running.adopted(case, job)
    return verdict.of_job(case, job, training)


def judged_again(case: Case) -> Step | None:
    """Gates that changed judge the stored numbers of the present spec, without training."""
    return None if case.current is None else verdict.again(case, case.current)


def restored(case: Case) -> Step | None:
    """Versions that the log accepted and that lost their places with the model (it was deleted and is back).

    Who was champion is it again, and nobody else is: a version that wanted to be one wants it still.
    """
    history, current = case.history, case.current
    if history.retired:
        version = history.lapsed_champion or (current.version if current is not None else None)
        if version is None or version.digest in history.refused or not passes(history, version):
            return None
        return _again(case, version, "Champion")
    if current is None or current.action != "Accept" or current.version is None:
        return None
    if current.record.sequence > history.lapsed or current.version.digest in _placed(history):
        return None
    return _again(case, current.version, "Challenger")


def _again(case: Case, version: VersionRef, role: records.Role) -> Step:
    message = f"version {version.version} was accepted before the model was deleted and is {role.lower()} again"
    place = VersionRef.model_validate({**version.model_dump(), "role": role})
    summary = {
        "digest": version.digest,
        "retired": case.history.lapsed,
    }  # what people approve needs a digest of its own
    entry = records.record(case, "Adopt", records.cause(case, "Restore", message), summary=summary, to=place)
    return Step(record=entry, finalizer="Add", events=(Event("Normal", reasons.ADOPTED, message),), again=True)


def _placed(history: History) -> set[str | None]:
    """Digests that hold a place, held one, or may hold none."""
    standing = (history.champion, history.challenger, history.waiting, *history.former)
    return {one.digest for one in standing if one is not None} | {*history.refused}


def watched(case: Case) -> Step | None:
    """A Job runs: show how far it is. It goes on while suspended or killed; it starts nothing."""
    return running.watch(case, case.job) if case.job is not None else None


def held(case: Case) -> Step | None:
    """Nothing new is started by a model that is killed or suspended."""
    if case.killed:
        return Step(note=Note(reasons.KILL_ENGAGED, "the kill switch is latched: nothing is started"))
    if case.spec.suspend:
        return Step(note=Note(reasons.SUSPENDED, "spec.suspend is true: nothing new is started"))
    return None


def obstructed(case: Case) -> Step | None:
    """What is known to be in the way is said before anything is claimed or created."""
    if case.claim is None and not isinstance(planned(case), Due):
        return None
    found = preflight.obstacle(case)
    if found is None:
        return None
    wake = case.now + RECHECK if found.recheck else None
    return Step(note=Note(found.reason, found.message, stalled=True), wake_at=wake)


def known(case: Case) -> Step | None:
    """What was measured already is judged and not trained again, though its Job, or the whole log, is gone.

    Only MLflow can say so; a training needs it anyway, so none is started while it is away.
    """
    next_one, registry = wanted(case), case.registry
    if next_one is None or registry is None:
        return None
    if not registry.reachable:
        message = f"no training is started while MLflow is away: {registry.message}"
        return Step(training=case.claim, note=Note(registry.reason, message), wake_at=case.now + verdict.REGISTRY_RETRY)
    result = logged_result(registry, next_one.key)
    return None if result is None else verdict.of_run(case, next_one, result, case.claim)


def started(case: Case) -> Step | None:
    """What is claimed is started; a Job that vanished without a verdict is tried again, but not for ever."""
    claim = case.claim
    if claim is None:
        return None
    if any(job.key == claim.key and job.deleting for job in case.world.jobs):
        message = f"Job {claim.job} is being deleted; the next attempt begins when it is gone"
        return Step(training=claim, note=Note(reasons.TRAINING, message), wake_at=case.now + RECHECK)
    if claim.phase == reasons.CLAIMED:
        return running.start(case, claim)
    if claim.attempt > case.spec.training.retry.limit:
        return verdict.lost(case, claim)
    return running.claim(case, Due(claim.key, claim.as_of or "", claim.trigger, claim.attempt + 1))


def claimed(case: Case) -> Step | None:
    """A training that is due is claimed in the status before its Job exists."""
    next_one = planned(case)
    return running.claim(case, next_one) if isinstance(next_one, Due) else None


def unschedulable(case: Case) -> Step | None:
    """A schedule that cannot be followed must not look like one that has nothing to do."""
    try:
        due(case)
        following_tick(case)
    except CalendarUnknown as error:
        return Step(note=Note(reasons.CALENDAR_UNKNOWN, str(error), stalled=True))
    except ScheduleImpossible as error:
        return Step(note=Note(reasons.SCHEDULE_IMPOSSIBLE, str(error), stalled=True))
    return None


def wanted(case: Case) -> Due | None:
    """The training that would be started next, unless its result turns up; None where nothing would be."""
    if case.killed or case.spec.suspend:
        return None
    claim = case.claim
    if claim is not None:
        return Due(claim.key, claim.as_of or "", claim.trigger, claim.attempt)
    next_one = planned(case)
    return next_one if isinstance(next_one, Due) else None


def expires(case: Case, job: JobView) -> datetime | None:
    """When a Job may go; None while its verdict is not stored."""
    if job.key not in case.history.verdicts or job.deleting:
        return None
    if not job.finished or job.finished_at is None:
        return case.now
    return job.finished_at + timedelta(seconds=case.world.platform.job_ttl_seconds)
