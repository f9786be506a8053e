"""The judgement of a FinancialModel: ``questions`` and ``decide``, both pure and total.

``decide`` is an ordered chain of small policies. Each looks at the case and either has something to do, which then is
the one thing that this reconcile does, or has nothing to say. The status that goes with it is always derived from the
log (as it will be) and the live training.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from fiduciary.api.conditions import is_true
from fiduciary.api.meta import FINALIZER
from fiduciary.api.modeldecision import Reason
from fiduciary.api.versions import VersionRef
from fiduciary.decide import acts, preflight, reasons, records, retirement, running, verdict
from fiduciary.decide.calendar import CalendarUnknown
from fiduciary.decide.case import Case
from fiduciary.decide.decision import Decision, Event
from fiduciary.decide.drift import requests
from fiduciary.decide.due import Due, due, following_tick, planned
from fiduciary.decide.history import after
from fiduciary.decide.outcome import Measured, logged_result, needs_registry, outcome
from fiduciary.decide.report import report
from fiduciary.decide.schedule import ScheduleImpossible
from fiduciary.decide.serving import acts as serving_acts
from fiduciary.decide.serving.lost import lost_records
from fiduciary.decide.serving.upkeep import Upkeep, upkeep
from fiduciary.decide.serving.verdicts import harmed
from fiduciary.decide.serving.waysback import passes
from fiduciary.decide.step import Note, Step
from fiduciary.decide.world import Questions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from fiduciary.decide.history import History
    from fiduciary.decide.world import JobView, World

RECHECK = timedelta(seconds=15)
"""How soon something is looked at again of whose change nobody tells us (labels of Secrets and claims)."""


def questions(world: World, now: datetime) -> Questions:
    """What MLflow should be asked before :func:`decide` is called with its answers.

    Called again with the answers: a result that only the MLflow run still has names the artifact to ask for next.
    """
    model = world.model
    if model.spec.suspend and not world.records and not world.jobs and model.metadata.deletion_timestamp is None:
        return Questions()  # it has nothing and starts nothing: said before anything is hashed
    case = Case(world, now)
    if case.spec.registry.connection not in world.platform.connections:
        return Questions()
    if world.model.metadata.deletion_timestamp is not None:
        return Questions(aliases=retirement.may_hold_aliases(case))
    if preflight.registry_taken(case) is not None:
        return Questions()  # its aliases are another model's
    if any(policy(case) is not None for policy in URGENT):
        return Questions()  # an MLflow that does not answer would hold it up
    standing = case.history.champion is not None or case.history.challenger is not None
    job = case.job
    if job is not None and not job.finished:
        return Questions(run_for_key=job.key, aliases=standing)
    if job is not None:
        lost = job.key if needs_registry(job) else None
        ended = outcome(job, world.registry)
        result = ended.result if isinstance(ended, Measured) else None
        return _about_artifact(result, aliases=standing, run_for_key=lost)
    current = case.current
    if current is not None and current.measured is not None and current.gates_digest != case.gates_digest:
        return _about_artifact(current.measured, aliases=standing)
    wanted = _wanted(case)
    if wanted is not None:
        return _about_artifact(logged_result(world.registry, wanted.key), aliases=standing, run_for_key=wanted.key)
    return Questions(aliases=standing)


def decide(world: World, now: datetime) -> Decision:
    """What should be written next for this model, and what its status is then."""
    case = Case(world, now.replace(microsecond=0))
    step = next(step for policy in POLICIES if (step := policy(case)) is not None)
    history = case.history if step.record is None else after(case.history, step.record)
    # Beside whatever the step is: what serves is kept while a training runs, MLflow is away, or the model is suspended.
    if world.namespace_terminating:
        care = Upkeep()
    elif world.model.metadata.deletion_timestamp is not None:
        care = Upkeep(route=() if step.children else retirement.silenced(case, history))
    else:
        care = upkeep(case, history)
    status, mirror, events = report(case, step, history, care)
    return Decision(
        status=status,
        registration=step.registration,
        record=step.record,
        children=(*care.route, *step.children, *care.children),
        mirror=step.mirror or mirror,
        finalizer="Keep"
        if step.finalizer == "Add" and FINALIZER in world.model.metadata.finalizers
        else step.finalizer,
        events=(*step.events, *care.events, *events),
        wake_at=_wake(case, step, care),
        claim=step.claim,
        again=step.again,
        probes=care.probes,
    )


# --- policies: the first that has something to do decides ------------------------------------------------------------


def deleted(case: Case) -> Step | None:
    """A model that goes starts nothing and judges nothing."""
    return retirement.retire(case) if case.world.model.metadata.deletion_timestamp is not None else None


def leaving(case: Case) -> Step | None:
    """A namespace that goes takes its objects in any order: what is missing is not lost, and nothing can be made."""
    if not case.world.namespace_terminating:
        return None
    note = Note(reasons.DELETING, f"namespace {case.world.model.metadata.namespace} is being deleted")
    return Step(training=case.status.training, note=note)


def broken_log(case: Case) -> Step | None:
    """On a log that does not hold together nothing may be built; a Kill and a deletion go on all the same."""
    lost = lost_records(case, case.history)
    if lost is not None:
        return Step(training=case.status.training, note=lost)
    problem = case.history.broken
    if problem is None:
        return None
    message = f"the decision log does not hold together: {problem}. Nothing is decided until it is restored"
    return Step(training=case.status.training, note=Note(reasons.LOG_BROKEN, message, stalled=True))


def harm(case: Case) -> Step | None:
    """An experiment found harm."""
    return _interlude(case, harmed(case))


def serving(case: Case) -> Step | None:
    """A decision on who serves."""
    step = next((step for policy in serving_acts.POLICIES if (step := policy(case)) is not None), None)
    return _interlude(case, step)


def _interlude(case: Case, step: Step | None) -> Step | None:
    """A decision that is taken without a look at the training."""
    return None if step is None else replace(step, training=case.status.training, interlude=True)


def rerouted(case: Case) -> Step | None:
    """The route stopped saying what the log says: a hand edit, a deletion, a process that died after its record.

    It only hurries, and only once: the status is of a model that does not serve then, until it does.
    """
    if not is_true(case.status.conditions, reasons.SERVED):
        return None
    care = upkeep(case, case.history)
    if care.served or not care.route:
        return None
    return Step(training=case.status.training, again=True, interlude=True)


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
    gone = [job for job in case.world.jobs if (expires := _expires(case, job)) is not None and expires <= case.now]
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
    wanted, registry = _wanted(case), case.registry
    if wanted is None or registry is None:
        return None
    if not registry.reachable:
        message = f"no training is started while MLflow is away: {registry.message}"
        return Step(training=case.claim, note=Note(registry.reason, message), wake_at=case.now + verdict.REGISTRY_RETRY)
    result = logged_result(registry, wanted.key)
    return None if result is None else verdict.of_run(case, wanted, result, case.claim)


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
    wanted = planned(case)
    return running.claim(case, wanted) if isinstance(wanted, Due) else None


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


def drifted(case: Case) -> Step | None:
    """A DriftPolicy asks for a retrain."""
    return requests.retrain(case)


def idle(case: Case) -> Step:
    """Nothing to do."""
    return Step()


URGENT: tuple[Callable[[Case], Step | None], ...] = (acts.engage, harm, acts.resume, serving, rerouted)
"""What clients see. None of these looks at MLflow, so it is not asked before them."""

TRAINING: tuple[Callable[[Case], Step | None], ...] = (
    acts.abort,  # before judging: a person may end a training, not undo a verdict
    superseded,  # before judging: numbers of another spec are nobody's
    taken,  # before judging: what passes would be registered in another's name
    judged,  # a verdict is stored before the Job may go
    judged_again,
    restored,
    tidy,
    watched,
    held,  # from here on something new would begin
    unschedulable,
    obstructed,
    known,  # before a claim: the same key is never trained twice
    started,
    claimed,
    drifted,  # whatever else has to be trained goes first
    idle,
)


POLICIES: tuple[Callable[[Case], Step | None], ...] = (
    acts.engage,  # before all: a kill works whatever else is wrong, and on a model that goes and leaves serving behind
    deleted,  # what follows would write to an object that goes
    leaving,
    broken_log,  # before anything else is decided on it
    harm,  # before a resume, people, a suspension, trainings, MLflow: it only takes away
    acts.resume,
    serving,  # before training: who answers clients waits for no Job; it is silent unless there is something to record
    rerouted,  # the writes are those of the upkeep, which stand beside any step
    *TRAINING,
)


def _wanted(case: Case) -> Due | None:
    """The training that would be started next, unless its result turns up; None where nothing would be."""
    if case.killed or case.spec.suspend:
        return None
    claim = case.claim
    if claim is not None:
        return Due(claim.key, claim.as_of or "", claim.trigger, claim.attempt)
    wanted = planned(case)
    return wanted if isinstance(wanted, Due) else None


def _about_artifact(result: Mapping[str, Any] | None, *, aliases: bool, run_for_key: str | None = None) -> Questions:
    """Is this artifact registered already, and is it still what was measured?"""
    if result is None:
        return Questions(run_for_key=run_for_key, aliases=aliases)
    return Questions(
        run_for_key=run_for_key,
        version_by_digest=result.get("digest"),
        manifest_of_run=result.get("runId"),
        aliases=aliases,
    )


def _expires(case: Case, job: JobView) -> datetime | None:
    """When a Job may go; None while its verdict is not stored."""
    if job.key not in case.history.verdicts or job.deleting:
        return None
    if not job.finished or job.finished_at is None:
        return case.now
    return job.finished_at + timedelta(seconds=case.world.platform.job_ttl_seconds)


def _wake(case: Case, step: Step, care: Upkeep) -> datetime:
    """The earliest moment at which the answer could be another one, though nothing happens until then."""
    moments = [case.now + resync(case.world)]
    moments += [moment for moment in (step.wake_at, care.wake_at) if moment is not None]
    moments += [expires for job in case.world.jobs if (expires := _expires(case, job)) is not None]
    if not case.spec.suspend and not case.killed:
        try:
            tick = following_tick(case)
        except (CalendarUnknown, ScheduleImpossible):
            tick = None  # said by `unschedulable`
        if tick is not None:
            moments.append(tick)
    # What is past and was not acted on (a Job's end of life while the model goes, or on a broken log) is no reason to
    # look again at once, for ever.
    return min(moment for moment in moments if moment > case.now)


def resync(world: World) -> timedelta:
    """A slow look at everything, spread over the models by their UID so that they do not come all at once."""
    uid = hashlib.sha256(world.model.metadata.uid.encode()).digest()
    spread = int.from_bytes(uid[:4], "big") / 0xFFFFFFFF
    return timedelta(seconds=world.platform.resync_seconds * (0.9 + 0.2 * spread))
