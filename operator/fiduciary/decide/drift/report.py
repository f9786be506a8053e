"""The status of a DriftPolicy, its alerts, and the events that tell what changed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic_core import to_json

from fiduciary.api.driftpolicy import (
    Detector,
    DriftPolicyStatus,
    FoldedWindows,
    MonitorStatus,
    RequestedAction,
    TakenAction,
)
from fiduciary.decide import reasons
from fiduciary.decide.decision import Event
from fiduciary.decide.drift.conditions import Outlook, conditions
from fiduciary.decide.drift.decision import Alert
from fiduciary.decide.drift.losses import day_of
from fiduciary.decide.drift.record import requests_evidence
from fiduciary.decide.drift.standing import decimal
from fiduciary.decide.drift.state import State
from fiduciary.decide.experiment.times import at
from fiduciary.evidence.codec import decode, encode
from fiduciary.evidence.refusal import Refusal, Why

if TYPE_CHECKING:
    from datetime import datetime

    from fiduciary.decide.drift.actions import Wish
    from fiduciary.decide.drift.calibrate import Gauge
    from fiduciary.decide.drift.case import Case
    from fiduciary.decide.drift.health import Blind
    from fiduciary.decide.drift.standing import MonitorState, Shown
    from fiduciary.decide.drift.state import Alarm

RESOLVED_SECONDS = 86_400
"""How long an alert that ended is still posted, so that an Alertmanager that was away hears of it."""
GROWTH = 3_600_000
"""ms: how far the time of the newest row may lie behind in the status."""
PHASES: tuple[MonitorState, ...] = ("Drifted", "Drifting", "Unknown", "Stable")


def seen(case: Case, shown: tuple[Shown, ...], blind: Blind | None) -> tuple[Shown, ...]:
    """Where counts are not seen, what is shown of them is old: Unknown. An alarm stands until something ends it."""
    if blind is None or blind.reason in (reasons.EVIDENCE_REFUSED, reasons.FIRST_WINDOW):
        return shown
    elsewhere = {its.name for its in case.spec.monitors if its.realised}
    if blind.reason in (reasons.WINDOW_NOT_JUDGED, reasons.STALE, reasons.REFERENCE_DIFFERS):
        elsewhere |= {its.name for its in case.spec.monitors if its.query is not None}
    return tuple(
        its
        if its.state == "Drifted" or its.person or (its.name in elsewhere and case.calibrated is not None)
        else replace(its, state="Unknown", message=blind.message)
        for its in shown
    )


def report(case: Case, outlook: Outlook, state: State | None, next_window: datetime | None) -> DriftPolicyStatus:
    """The status that is true once this judgement is written. ``state``: with the request that stands now."""
    evidence = kept(case, state)
    worst = max((its for its in outlook.shown if its.threshold is not None), key=lambda its: its.part, default=None)
    calibrated = case.calibrated
    return DriftPolicyStatus(
        observed_generation=case.world.policy.metadata.generation,
        phase=phase(outlook),
        conditions=conditions(outlook),
        worst=None if worst is None or worst.score is None else worst.name,
        score=None if worst is None or worst.score is None else f"{worst.score:.2f}/{worst.threshold:.2f}",
        next_action=_next_action(state, outlook.wishes),
        monitors=tuple(_monitor(its) for its in outlook.shown),
        detector=None
        if calibrated is None
        else Detector(
            reference_blocks=calibrated.blocks,
            threshold=decimal(max((_height(gauge) for gauge in calibrated.gauges), default=0.0)),
            digest=None if evidence is None else evidence.digest,
        ),
        evidence=evidence,
        last_window=None if state is None or state.ended < 0 else at(state.ended // 1000),
        next_window=next_window,
        requested_action=requested(case, state),
        actions=() if state is None else _taken(state),
    )


def folded(state: State) -> FoldedWindows:
    """The state as the status keeps it."""
    text = to_json(encode(state)).decode()
    return FoldedWindows(digest=_digest(text), state=text)


def kept(case: Case, state: State | None) -> FoldedWindows | None:
    """What the status keeps: what was there, while nothing but time has passed, or where it cannot be read, for
    whoever looks into it."""
    before = case.status.evidence
    if before is not None and (case.world.unreadable or not moved(case.world.state, state)):
        return before
    return None if state is None else folded(state)


def moved(before: State | None, after: State | None) -> bool:
    """Whether more than the time of the last judgement, and some rows, is another."""
    if before is None or after is None:
        return before is not after
    if before.grown >= 0 and after.grown - before.grown < GROWTH:
        after = replace(after, grown=before.grown, rows=before.rows)
    return replace(after, judged=before.judged) != before


def stored(evidence: FoldedWindows) -> State | Refusal:
    """What :func:`folded` wrote; a refusal where the status was changed by somebody else, or is of another release."""
    if not unchanged(evidence):
        return Refusal(Why.MALFORMED, "status.evidence does not match its digest: somebody changed it")
    return decode(State, json.loads(evidence.state))


def unchanged(evidence: FoldedWindows) -> bool:
    return _digest(evidence.state) == evidence.digest


def _digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def requested(case: Case, state: State | None) -> RequestedAction | None:
    """What is asked of the model, with the evidence of when it was asked for."""
    asked = None if state is None else state.request
    if asked is None or state is None:
        return None
    kind = "RollBack" if asked.kind == "RollBack" else "Retrain"
    before = case.status.requested_action
    same = before is not None and before.digest == asked.digest
    evidence = before.evidence if before is not None and same else requests_evidence(case, state, asked)
    return RequestedAction(kind=kind, reason=asked.message, digest=asked.digest, at=at(asked.at), evidence=evidence)


def phase(outlook: Outlook) -> str:
    """One word: the worst state of any monitor, where Unknown is worse than Stable."""
    model = outlook.case.model
    if model is not None and (model.suspended or model.killed):
        return "Suspended"
    return next((state for state in PHASES if any(its.state == state for its in outlook.shown)), "Unknown")


def alerts(case: Case, state: State | None) -> tuple[Alert, ...]:
    """Of monitors with the action Alert, those that last and those that ended within a day."""
    metadata, severity = case.world.policy.metadata, case.spec.actions.alert.severity
    asked = {its.name for its in case.spec.monitors if "Alert" in its.actions}
    realised = {its.name for its in case.spec.monitors if its.realised}
    found: list[Alert] = []
    for alarm in () if state is None or case.spec.guards.dry_run else state.alarms:
        if alarm.monitor not in asked or (alarm.until is not None and _told(case, state, alarm, realised)):
            continue
        labels = {
            "alertname": "FiduciaryDrift",
            "namespace": metadata.namespace or "",
            "model": case.spec.model_ref.name,
            "policy": metadata.name,
            "monitor": alarm.monitor,
            "severity": severity,
        }
        annotations = {
            "summary": f"{case.spec.model_ref.name}: {alarm.monitor} drifted",
            "description": alarm.message,
            "evidence": alarm.digest,
        }
        if alarm.names:
            annotations["features"] = ", ".join(alarm.names)
        until = None if alarm.until is None else at(alarm.until)
        found.append(Alert(labels, annotations, at(alarm.since), until))
    return tuple(found)


def _told(case: Case, state: State | None, alarm: Alarm, realised: set[str]) -> bool:
    """Whether an alarm ended so long ago that everybody has heard of it. Sessions close days after their own."""
    until = alarm.until or 0
    if until + RESOLVED_SECONDS >= case.now:
        return False
    newest = 0 if state is None or alarm.monitor not in realised else day_of(state.losses.session)
    return not until <= newest <= until + RESOLVED_SECONDS


def events(case: Case, state: State | None, blind: Blind | None) -> tuple[Event, ...]:
    """One event for each alarm that began or ended, each request, and each new reason to be blind."""
    before = case.world.state
    told = {} if before is None else {alarm.monitor: alarm for alarm in before.alarms}
    found: list[Event] = []
    for alarm in () if state is None else state.alarms:
        old = told.get(alarm.monitor)
        if old is None or old.digest != alarm.digest:
            found.append(Event("Warning", reasons.DRIFT_SHOWN, f"{alarm.monitor}: {alarm.message}"))
        if alarm.until is not None and (old is None or old.digest != alarm.digest or old.until is None):
            found.append(Event("Normal", alarm.reason, f"{alarm.monitor}: the alarm is over"))
    request = None if state is None else state.request
    if request is not None and (before is None or before.request is None or before.request.digest != request.digest):
        reason = reasons.ROLL_BACK_ASKED if request.kind == "RollBack" else reasons.RETRAIN_ASKED
        found.append(Event("Warning", reason, request.message))
    if blind is not None and not any(one.reason == blind.reason for one in case.status.conditions):
        found.append(Event("Warning" if blind.person else "Normal", blind.reason, blind.message))
    return tuple(found)


def _monitor(its: Shown) -> MonitorStatus:
    return MonitorStatus(
        name=its.name,
        state=its.state,
        score=decimal(its.score),
        threshold=decimal(its.threshold),
        distance=decimal(its.distance),
        estimate=decimal(its.estimate),
        drifted=its.names if its.state in ("Drifted", "Drifting") else (),
        last_window=None if its.at is None or its.at < 0 else at(its.at),
        message=its.message,
    )


def _height(gauge: Gauge) -> float:
    return 0.0 if gauge.calibration is None else gauge.calibration.height


def _next_action(state: State | None, wishes: tuple[Wish, ...]) -> str | None:
    if state is not None and state.request is not None:
        return f"{state.request.kind} asked for"
    if not wishes:
        return None
    wish = wishes[0]
    return f"{wish.kind} held: {wish.held.reason}" if wish.held is not None else wish.kind


def _taken(state: State) -> tuple[TakenAction, ...]:
    return tuple(
        TakenAction(
            kind="RollBack" if one.kind == "RollBack" else "Retrain",
            monitor=", ".join(one.monitors),
            at=at(one.at),
            message=one.message,
        )
        for one in state.done
    )
