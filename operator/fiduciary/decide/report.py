"""Status: derived from the log as it will be after this step, and from the live training. Never from the old status,
except that a transition time moves only when its condition does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fiduciary.api.conditions import Condition, find
from fiduciary.api.modelstatus import ActiveExperiment, AlphaSpending, FinancialModelStatus, RunRecord
from fiduciary.decide import aliases, reasons
from fiduciary.decide.calendar import CalendarUnknown
from fiduciary.decide.conditions import Outlook, conditions
from fiduciary.decide.decision import Event, Mirror
from fiduciary.decide.due import following_tick
from fiduciary.decide.experiment.spent import charged
from fiduciary.decide.reportlink import linked, of_verdict
from fiduciary.decide.schedule import ScheduleImpossible
from fiduciary.decide.serving.following import active
from fiduciary.decide.serving.split import split
from fiduciary.decide.serving.waits import approval_request

if TYPE_CHECKING:
    from datetime import datetime

    from fiduciary.decide.case import Case
    from fiduciary.decide.history import History, Verdict
    from fiduciary.decide.serving.upkeep import Upkeep
    from fiduciary.decide.step import Step

RUNS_KEPT = 10
ANSWERED = ("Serving", "Shifting", "Degraded")
"""Phases of a model that has answered."""
_ON_THE_MOVE = (reasons.ROUTE_PENDING, reasons.PROBE_PENDING, reasons.WRONG_VERSION_ANSWERS)
"""Another version takes over, and clients are not seen to reach it yet."""
OUTCOMES = {"Accept": "Accepted", "Reject": "Rejected", "TrainingFailed": "Failed", "Abort": "Aborted"}


def report(
    case: Case, step: Step, history: History, care: Upkeep
) -> tuple[FinancialModelStatus, Mirror | None, tuple[Event, ...]]:
    """The status that is true once ``step`` is carried out and ``history`` is the log, MLflow's aliases to match, and
    events on transitions."""
    current = case.current if step.record is None else history.newest(case.spec_key)
    outlook = Outlook(case, step, history, current, care)
    found = conditions(outlook)
    status = FinancialModelStatus(
        observed_generation=case.generation,
        phase=_phase(outlook),
        conditions=found,
        champion=linked(case, history, history.champion),
        previous_champion=linked(case, history, history.previous_champion),
        anchor=linked(case, history, history.anchor),
        challenger=linked(case, history, history.challenger),
        approval_request=approval_request(case, history),
        active_experiment=_followed(case, history),
        traffic=care.traffic or split(case, history, None, None),
        kill=history.kill,
        rejected_versions=history.rejected,
        training=step.training,
        runs=_runs(case, history),
        alpha_spending=_spending(case, step, history),
        gates_digest=current.gates_digest if current is not None and current.gates_digest else None,
        serving_runtime_digest=care.runtime,
        endpoint=care.endpoint,
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
    serving = _serving_phase(outlook)
    if serving == "Serving":
        return serving  # a challenger in training takes nothing away
    if training is not None:
        return "Judging" if training.phase in (reasons.JUDGING, reasons.REGISTERING) else "Training"
    if serving is not None:
        return serving
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


def _serving_phase(outlook: Outlook) -> str | None:
    """Where a model with a champion is; None without one."""
    history, care = outlook.history, outlook.care
    if history.champion is None:
        return None
    if care.served:
        return "Serving"
    if care.lacking is not None and care.lacking.reason in (reasons.SERVING_NOT_REQUESTED, reasons.SERVING_NOT_ACTIVE):
        return "Registered"
    if history.traffic is None or history.traffic.champion == 0 or outlook.case.status.phase not in ANSWERED:
        return "Starting"
    return "Shifting" if care.lacking is not None and care.lacking.reason in _ON_THE_MOVE else "Degraded"


def _runs(case: Case, history: History) -> tuple[RunRecord, ...]:
    newest = sorted(history.verdicts.values(), key=lambda verdict: verdict.record.sequence, reverse=True)
    return tuple(_run(case, verdict) for verdict in newest[:RUNS_KEPT])


def _run(case: Case, verdict: Verdict) -> RunRecord:
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
        report=of_verdict(case, verdict),
        finished_at=record.decided_at,
    )


def _followed(case: Case, history: History) -> ActiveExperiment | None:
    if not case.world.experiments:
        return None
    found = active(case, history)
    return None if found is None else ActiveExperiment(name=found.metadata.name, uid=found.metadata.uid)


def _spending(case: Case, step: Step, history: History) -> AlphaSpending | None:
    """Of the log as it is after this step; a test that runs counts from its first request on."""
    if not history.configurations:
        return None
    records = [record.spec for record in case.world.records]
    spent, trial = charged(records if step.record is None else [*records, step.record]), history.trial
    tests = spent.tests
    if trial is not None and trial.purpose == "Improve" and history.champion is not None:
        resumed = spent.spending(history.champion.digest or "", trial.challenger, 1).resumed
        tests += resumed is None
    consumed = f"{max((0.0, *(anchor.differences for anchor in spent.anchors))):.9f}"
    return AlphaSpending(
        configurations=len(history.configurations),
        tests=tests,
        discoveries=spent.discoveries,
        margin_consumed=consumed.rstrip("0").rstrip("."),
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
    events: list[Event] = list(_readiness(case, present))
    for kind in (
        reasons.STALLED,
        reasons.REGISTRY_DRIFT,
        reasons.NOTHING_NEW,
        reasons.ROUTE_HIJACKED,
        reasons.ACT_REFUSED,
    ):
        now, before = find(present, kind), find(case.status.conditions, kind)
        if now is None or now.status != "True" or now.reason in _TOLD_BY_RECORDS:
            continue
        if before is None or before.status != "True" or before.reason != now.reason:
            events.append(Event("Warning", kind if kind != reasons.STALLED else now.reason, now.message))
    return tuple(events)


def _readiness(case: Case, present: tuple[Condition, ...]) -> tuple[Event, ...]:
    """The model began, or ceased, to answer."""
    now, before = find(present, reasons.READY), find(case.status.conditions, reasons.READY)
    was = before is not None and before.status == "True"
    if now is None or was == (now.status == "True"):
        return ()
    if not was:
        return (Event("Normal", reasons.SERVING, now.message),)
    if now.reason in (reasons.KILL_ENGAGED, reasons.SERVING_NOT_REQUESTED, reasons.DELETING, *_ON_THE_MOVE):
        return ()  # told by its record
    return (Event("Warning", reasons.NOT_SERVING_ANY_MORE, f"{now.reason}: {now.message}"),)


_TOLD_BY_RECORDS = frozenset({reasons.GATES_REFUSED, reasons.TRAINING_FAILED, reasons.ABORTED})
