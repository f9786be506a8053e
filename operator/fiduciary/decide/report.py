"""Status: derived from the log as it will be after this step, and from the live training. Never from the old status,
except that a transition time moves only when its condition does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fiduciary.api.conditions import Condition, Status, condition, find
from fiduciary.api.modelstatus import AlphaSpending, FinancialModelStatus, RunRecord
from fiduciary.decide import aliases, reasons
from fiduciary.decide.acts import answering_resume
from fiduciary.decide.calendar import CalendarUnknown
from fiduciary.decide.decision import Event, Mirror
from fiduciary.decide.due import NothingNew, following_tick, planned
from fiduciary.decide.history import History, Verdict, after
from fiduciary.decide.notyet import inactive_fields
from fiduciary.decide.schedule import ScheduleImpossible
from fiduciary.decide.verdict import explain, present_judgement

if TYPE_CHECKING:
    from datetime import datetime

    from fiduciary.decide.case import Case
    from fiduciary.decide.step import Step

RUNS_KEPT = 10
ENDED = {
    "TrainingFailed": reasons.TRAINING_FAILED,
    "Abort": reasons.ABORTED,
    "Reject": reasons.GATES_REFUSED,
}
OUTCOMES = {"Accept": "Accepted", "Reject": "Rejected", "TrainingFailed": "Failed", "Abort": "Aborted"}


@dataclass(frozen=True)
class _Report:
    """The case, the step taken, and the history as it is once the step's record exists."""

    case: Case
    step: Step
    history: History
    current: Verdict | None

    def condition(self, kind: str, status: Status, reason: str, message: str) -> Condition:
        case = self.case
        return condition(
            case.status.conditions, kind, status, reason, message, generation=case.generation, now=case.now
        )


def report(case: Case, step: Step) -> tuple[FinancialModelStatus, Mirror | None, tuple[Event, ...]]:
    """The status that is true once ``step`` is carried out, MLflow's aliases to match, and events on transitions."""
    history = case.history if step.record is None else after(case.history, step.record)
    verdicts = history.of_spec(case.spec_key)
    current = max(verdicts, key=lambda verdict: (verdict.started_at, verdict.record.sequence), default=None)
    this = _Report(case, step, history, current)
    conditions = tuple(found for build in CONDITIONS if (found := build(this)) is not None)
    status = FinancialModelStatus(
        observed_generation=case.generation,
        phase=_phase(this),
        conditions=conditions,
        champion=history.champion,
        previous_champion=history.previous_champion,
        anchor=history.anchor,
        challenger=history.challenger,
        active_experiment=case.status.active_experiment,
        kill=history.kill,
        rejected_versions=history.rejected,
        training=step.training,
        runs=_runs(history),
        alpha_spending=AlphaSpending(configurations=len(history.configurations)) if history.configurations else None,
        gates_digest=current.gates_digest if current is not None and current.gates_digest else None,
        serving_runtime_digest=case.status.serving_runtime_digest,
        endpoint=case.status.endpoint,
        last_decision=history.last,
        next_training=_next_training(case),
    )
    deleting = case.world.model.metadata.deletion_timestamp is not None
    mirror = None if deleting else aliases.mirror(case, history)
    return status, mirror, _transitions(case, conditions)


# --- conditions ------------------------------------------------------------------------------------------------------


def _ready(this: _Report) -> Condition:
    """Nothing is served by this release, so Ready is False; its reason says how far the model got."""
    reason, message = _why_not_ready(this)
    return this.condition(reasons.READY, "False", reason, message)


def _why_not_ready(this: _Report) -> tuple[str, str]:
    history, note, current = this.history, this.step.note, this.current
    if this.case.world.model.metadata.deletion_timestamp is not None:
        return reasons.DELETING, note.message if note is not None else "the object is being deleted"
    if history.kill is not None and history.kill.engaged:
        return reasons.KILL_ENGAGED, _kill_message(this)
    if history.champion is not None:
        version = history.champion.version
        return (
            reasons.SERVING_NOT_ACTIVE,
            f"version {version} is registered as champion of {this.case.registered_model}; this release does not serve "
            "yet, take the version from MLflow by its alias",
        )
    if note is not None:
        return note.reason, note.message
    if current is None:
        return reasons.WAITING, "nothing was trained yet"
    if current.action in ENDED:
        return ENDED[current.action], current.record.cause.message
    return reasons.REGISTERING, current.record.cause.message


def _reconciling(this: _Report) -> Condition:
    note, training = this.step.note, this.step.training
    if note is not None and not note.stalled and note.reason not in (reasons.SUSPENDED, reasons.KILL_ENGAGED):
        since = f" (since {training.since:%Y-%m-%d %H:%M:%S} UTC)" if training is not None and training.since else ""
        return this.condition(reasons.RECONCILING, "True", note.reason, note.message + since)
    return this.condition(reasons.RECONCILING, "False", reasons.IDLE, "nothing is on its way")


def _stalled(this: _Report) -> Condition:
    note, current = this.step.note, this.current
    if note is not None and note.stalled:
        return this.condition(reasons.STALLED, "True", note.reason, note.message)
    ended = current is not None and current.action in ("Reject", "TrainingFailed", "Abort")
    # With a champion in force a person must act only where what the spec itself asks for cannot be trained.
    failed = current is not None and current.action == "TrainingFailed" and not current.trigger
    if note is None and current is not None and ended and (this.history.champion is None or failed):
        reason = ENDED[current.action]
        todo = {
            "Reject": "Change the model, the data or a gate",
            "TrainingFailed": "Mend the cause; a changed spec or a ModelApproval {decision: Retrain} trains again",
            "Abort": "A changed spec or a ModelApproval {decision: Retrain} trains again",
        }[current.action]
        return this.condition(reasons.STALLED, "True", reason, f"{current.record.cause.message}. {todo}")
    return this.condition(reasons.STALLED, "False", reasons.NO_ACTION_NEEDED, "no person needs to act")


def _trained(this: _Report) -> Condition:
    current, training, note = this.current, this.step.training, this.step.note
    if training is not None and (current is None or training.key != current.training_key):
        phase = training.phase or reasons.TRAINING
        message = note.message if note is not None else f"Job {training.job} is {phase}"
        # A retrain in progress does not take away that the spec's model was trained.
        if current is None or current.measured is None:
            return this.condition(reasons.TRAINED, "False", reasons.TRAINING, message)
    if current is None:
        reason, message = (note.reason, note.message) if note is not None else (reasons.WAITING, "not trained yet")
        return this.condition(reasons.TRAINED, "False", reason, message)
    if current.measured is not None:
        result = current.measured
        message = f"{result.get('rows', '?')} rows up to {current.as_of}, data {result.get('dataDigest', '?')}"
        return this.condition(reasons.TRAINED, "True", reasons.TRAINING_SUCCEEDED, message)
    cause = current.record.cause
    reason = cause.reasons[0].reason if cause.reasons else reasons.TRAINING_FAILED
    return this.condition(reasons.TRAINED, "False", reason, cause.message)


def _gates_passed(this: _Report) -> Condition:
    current, history = this.current, this.history
    if current is None or current.measured is None:
        return this.condition(reasons.GATES_PASSED, "Unknown", reasons.NOT_JUDGED, "there are no numbers to judge yet")
    cause = current.record.cause
    if current.action == "Reject":
        champion = history.champion
        standing = champion is not None and champion.training_key == current.training_key
        first = cause.reasons[0].reason if cause.reasons else reasons.GATE_FAILED
        reason = reasons.CHAMPION_FAILS_GATES if standing else first
        return this.condition(reasons.GATES_PASSED, "False", reason, cause.message)
    failing = None if history.challenger is not None else _champion_failing(this)
    if failing is not None:
        return this.condition(reasons.GATES_PASSED, "False", reasons.CHAMPION_FAILS_GATES, failing)
    return this.condition(reasons.GATES_PASSED, "True", reasons.ALL_GATES_PASSED, cause.message)


def _champion_failing(this: _Report) -> str | None:
    """What a champion of an earlier spec lacks by the gates as they are now."""
    verdict = this.case.champion_verdict
    if verdict is None or this.current is None or verdict.training_key == this.current.training_key:
        return None
    if verdict.gates_digest == this.case.gates_digest:
        return None
    judgement = present_judgement(this.case, verdict)
    if judgement is None or judgement.passed:
        return None
    return f"the champion stays, but would not pass today: {explain(judgement.failures, len(judgement.results))}"


def _served(this: _Report) -> Condition:
    return this.condition(reasons.SERVED, "False", reasons.SERVING_NOT_ACTIVE, "this release does not serve yet")


def _candidate_rejected(this: _Report) -> Condition:
    current = this.current
    champion = this.history.champion
    standing = champion is not None and current is not None and champion.training_key == current.training_key
    if current is not None and current.action == "Reject" and not standing:
        cause = current.record.cause
        first = cause.reasons[0].reason if cause.reasons else reasons.GATE_FAILED
        return this.condition(reasons.CANDIDATE_REJECTED, "True", first, cause.message)
    return this.condition(reasons.CANDIDATE_REJECTED, "False", reasons.NO_ACTION_NEEDED, "no candidate was refused")


def _registry_drift(this: _Report) -> Condition | None:
    told = aliases.moved(this.case, this.history)
    return None if told is None else this.condition(reasons.REGISTRY_DRIFT, "True", reasons.ALIAS_MOVED, told)


def _killed(this: _Report) -> Condition | None:
    kill = this.history.kill
    if kill is None or not kill.engaged:
        return None
    if this.case.spec.kill.engaged:
        return this.condition(reasons.KILLED, "True", reasons.KILL_ENGAGED, _kill_message(this))
    act = answering_resume(this.case)
    objection = None if act is None else this.case.objection(act)
    reason = reasons.RESUME_NEEDED if objection is None else objection[0]
    return this.condition(reasons.KILLED, "True", reason, _kill_message(this))


def _kill_message(this: _Report) -> str:
    kill, case = this.history.kill, this.case
    who = kill.by if kill is not None else "?"
    if case.spec.kill.engaged:
        return (
            f"the kill switch is engaged by {who}; to go on, set spec.kill.engaged to false and create a ModelApproval "
            "{decision: Resume}"
        )
    act = answering_resume(case)
    if act is not None and (objection := case.objection(act)) is not None:
        return f"the kill switch was engaged by {who} and stays latched: {objection[1]}"
    return (
        f"the kill switch was engaged by {who} and is latched; it clears with a ModelApproval {{decision: Resume}} "
        "that is newer than it"
    )


def _suspended(this: _Report) -> Condition | None:
    if not this.case.spec.suspend:
        return None
    message = "spec.suspend is true: nothing new is started or promoted; a training that runs ends and is judged"
    return this.condition(reasons.SUSPENDED, "True", reasons.SUSPENDED_BY_SPEC, message)


def _nothing_new(this: _Report) -> Condition | None:
    wanted = planned(this.case)
    if not isinstance(wanted, NothingNew):
        return None
    message = (
        f"{wanted.what} asks to train again, but spec.data.asOf is {wanted.as_of}: the same data would give the same "
        "version. Move asOf, or set it to Rolling"
    )
    return this.condition(reasons.NOTHING_NEW, "True", reasons.FIXED_AS_OF, message)


def _not_yet_active(this: _Report) -> Condition | None:
    fields = inactive_fields(this.case.spec)
    if not fields:
        return None
    message = f"accepted and validated, without effect in this release: {', '.join(fields)}"
    return this.condition(reasons.NOT_YET_ACTIVE, "True", reasons.ACCEPTED_NOT_ACTIVE, message)


CONDITIONS = (
    _ready,
    _reconciling,
    _stalled,
    _trained,
    _gates_passed,
    _served,
    _candidate_rejected,
    # These are there only while they are true.
    _registry_drift,
    _killed,
    _suspended,
    _nothing_new,
    _not_yet_active,
)


# --- the rest --------------------------------------------------------------------------------------------------------


def _phase(this: _Report) -> str:
    history, training, note = this.history, this.step.training, this.step.note
    if this.case.world.model.metadata.deletion_timestamp is not None:
        return "Retiring"
    if history.kill is not None and history.kill.engaged:
        return "Killed"
    if training is not None:
        return "Judging" if training.phase in (reasons.JUDGING, reasons.REGISTERING) else "Training"
    if history.champion is not None:
        return "Registered"
    if this.case.spec.suspend:
        return "Suspended"
    if note is not None and note.stalled:
        return "Stalled"
    match this.current.action if this.current is not None else None:
        case "Reject":
            return "Refused"
        case "TrainingFailed" | "Abort":
            return "Failed"
        case _:
            return "Pending"


def _runs(history: History) -> tuple[RunRecord, ...]:
    newest = sorted(history.verdicts.values(), key=lambda verdict: verdict.record.sequence, reverse=True)
    return tuple(_run(verdict) for verdict in newest[:RUNS_KEPT])


def _run(verdict: Verdict) -> RunRecord:
    record, summary = verdict.record, verdict.record.evidence.summary
    return RunRecord(
        key=verdict.training_key,
        run_id=summary.get("runId"),
        job=summary.get("job"),
        attempt=summary.get("attempt"),
        trigger=dict(verdict.trigger),
        as_of=verdict.as_of,
        architecture=summary.get("architecture") or None,
        outcome=OUTCOMES[verdict.action],
        reason=record.cause.reasons[0].reason if record.cause.reasons else None,
        message=record.cause.message,
        version=record.to.version if record.to is not None else None,
        digest=record.to.digest if record.to is not None else None,
        decision=record.sequence,
        finished_at=record.decided_at,
    )


def _next_training(case: Case) -> datetime | None:
    if case.spec.suspend or case.killed:
        return None
    try:
        return following_tick(case)
    except (CalendarUnknown, ScheduleImpossible):
        return None


def _transitions(case: Case, conditions: tuple[Condition, ...]) -> tuple[Event, ...]:
    """Events for what a person should notice and no record tells: a new obstacle, aliases that somebody moved."""
    events: list[Event] = []
    for kind in (reasons.STALLED, reasons.REGISTRY_DRIFT, reasons.NOTHING_NEW):
        now, before = find(conditions, kind), find(case.status.conditions, kind)
        if now is None or now.status != "True" or now.reason in _TOLD_BY_RECORDS:
            continue
        if before is None or before.status != "True" or before.reason != now.reason:
            events.append(Event("Warning", kind if kind != reasons.STALLED else now.reason, now.message))
    return tuple(events)


_TOLD_BY_RECORDS = frozenset({reasons.GATES_REFUSED, reasons.TRAINING_FAILED, reasons.ABORTED})
