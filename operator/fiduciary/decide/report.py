"""Status: derived from the log as it will be after this step, and from the live training. Never from the old status,
except that a transition time moves only when its condition does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fiduciary.api.conditions import Condition, find
from fiduciary.api.modelstatus import AlphaSpending, FinancialModelStatus, RunRecord
from fiduciary.decide import aliases, reasons
from fiduciary.decide.calendar import CalendarUnknown
from fiduciary.decide.conditions import Outlook, conditions
from fiduciary.decide.decision import Event, Mirror
from fiduciary.decide.due import following_tick
from fiduciary.decide.history import after
from fiduciary.decide.schedule import ScheduleImpossible

if TYPE_CHECKING:
    from datetime import datetime

    from fiduciary.decide.case import Case
    from fiduciary.decide.history import History, Verdict
    from fiduciary.decide.step import Step

RUNS_KEPT = 10
OUTCOMES = {"Accept": "Accepted", "Reject": "Rejected", "TrainingFailed": "Failed", "Abort": "Aborted"}


def report(case: Case, step: Step) -> tuple[FinancialModelStatus, Mirror | None, tuple[Event, ...]]:
    """The status that is true once ``step`` is carried out, MLflow's aliases to match, and events on transitions."""
    history = case.history if step.record is None else after(case.history, step.record)
    current = case.current if step.record is None else history.newest(case.spec_key)
    outlook = Outlook(case, step, history, current)
    found = conditions(outlook)
    status = FinancialModelStatus(
        observed_generation=case.generation,
        phase=_phase(outlook),
        conditions=found,
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
    return status, mirror, _transitions(case, found)


def _phase(outlook: Outlook) -> str:
    history, training, note = outlook.history, outlook.step.training, outlook.step.note
    if outlook.case.world.model.metadata.deletion_timestamp is not None:
        return "Retiring"
    if history.kill is not None and history.kill.engaged:
        return "Killed"
    if training is not None:
        return "Judging" if training.phase in (reasons.JUDGING, reasons.REGISTERING) else "Training"
    if history.champion is not None:
        return "Registered"
    if outlook.case.spec.suspend:
        return "Suspended"
    if note is not None and note.stalled:
        return "Stalled"
    match outlook.current.action if outlook.current is not None else None:
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


def _transitions(case: Case, present: tuple[Condition, ...]) -> tuple[Event, ...]:
    """Events for what a person should notice and no record tells: a new obstacle, aliases that somebody moved."""
    events: list[Event] = []
    for kind in (reasons.STALLED, reasons.REGISTRY_DRIFT, reasons.NOTHING_NEW):
        now, before = find(present, kind), find(case.status.conditions, kind)
        if now is None or now.status != "True" or now.reason in _TOLD_BY_RECORDS:
            continue
        if before is None or before.status != "True" or before.reason != now.reason:
            events.append(Event("Warning", kind if kind != reasons.STALLED else now.reason, now.message))
    return tuple(events)


_TOLD_BY_RECORDS = frozenset({reasons.GATES_REFUSED, reasons.TRAINING_FAILED, reasons.ABORTED})
