"""The judgement of a FinancialModel: ``questions`` and ``decide``, both pure and total.

``decide`` is an ordered chain of small policies. Each looks at the case and either has something to do, which then is
the one thing that this reconcile does, or has nothing to say. The status that goes with it is always derived from the
log (as it will be) and the live training.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fiduciary.api.conditions import is_true
from fiduciary.api.meta import FINALIZER
from fiduciary.decide import acts, preflight, reasons, retirement, trainings
from fiduciary.decide.case import Case
from fiduciary.decide.decision import Decision
from fiduciary.decide.drift import requests
from fiduciary.decide.history import after
from fiduciary.decide.outcome import Measured, logged_result, needs_registry, outcome
from fiduciary.decide.report import report
from fiduciary.decide.serving import acts as serving_acts
from fiduciary.decide.serving.lost import lost_records
from fiduciary.decide.serving.upkeep import Upkeep, upkeep
from fiduciary.decide.serving.verdicts import harmed
from fiduciary.decide.step import Note, Step
from fiduciary.decide.wakeups import wake
from fiduciary.decide.world import Questions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from fiduciary.decide.world import World


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
    wanted = trainings.wanted(case)
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
        wake_at=wake(case, step, care),
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
    trainings.superseded,  # before judging: numbers of another spec are nobody's
    trainings.taken,  # before judging: what passes would be registered in another's name
    trainings.judged,  # a verdict is stored before the Job may go
    trainings.judged_again,
    trainings.restored,
    trainings.tidy,
    trainings.watched,
    trainings.held,  # from here on something new would begin
    trainings.unschedulable,
    trainings.obstructed,
    trainings.known,  # before a claim: the same key is never trained twice
    trainings.started,
    trainings.claimed,
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
