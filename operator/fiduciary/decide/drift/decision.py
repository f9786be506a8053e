"""What the judgement of a DriftPolicy answers, as data. The engine carries it out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from fiduciary.api.driftpolicy import DriftPolicyStatus, RequestedAction
    from fiduciary.api.modeldecision import ModelDecisionSpec
    from fiduciary.decide.decision import Event
    from fiduciary.decide.drift.state import State


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert as Alertmanager's API v2 takes it. Posted again and again while it lasts and for a day after."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    starts_at: datetime
    ends_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """One answer of ``decide``.

    Order of writes: the status with the state, before anything acts on it. Then events, alerts, and the records of
    alarms; the FinancialModel's reconcile reads ``requested_action`` from the status and records what it does.
    """

    state: State | None  # None: nothing to fold yet
    status: DriftPolicyStatus
    requested_action: RequestedAction | None
    alerts: tuple[Alert, ...]
    records: tuple[ModelDecisionSpec, ...] = ()  # of alarms that the log does not have yet
    events: tuple[Event, ...] = ()
    wake_at: datetime | None = None
