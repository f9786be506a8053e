"""What the judgement of a ModelExperiment answers: state, status and wishes as data. The engine carries them out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from fiduciary.api.modeldecision import Reason, Traffic
    from fiduciary.api.modelexperiment import ModelExperimentStatus
    from fiduciary.decide.decision import Child, Event
    from fiduciary.decide.experiment.rules import Rule, Verdict
    from fiduciary.decide.experiment.state import State


@dataclass(frozen=True, slots=True)
class Ruling:
    """Which rule decided, in words, and the test that it rests on."""

    rule: Rule
    reason: str
    message: str
    test: str = ""

    @property
    def verdict(self) -> Verdict | None:
        return self.rule.verdict


@dataclass(frozen=True, slots=True)
class Decision:
    """One answer of ``decide``.

    Order of writes (protocols §1): the status with the state, before anything acts on it; then the FinancialModel's
    reconcile reads ``traffic`` and ``ruling`` and writes the record and the route. ``traffic`` None: no wish (queued,
    or mode DryRun). ``children`` come after the status, in this order: what confines a Job before the Job.
    """

    state: State | None  # None: not started
    status: ModelExperimentStatus
    ruling: Ruling
    traffic: Traffic | None
    events: tuple[Event, ...]
    wake_at: datetime
    summary: Mapping[str, Any] = field(default_factory=dict[str, Any])  # evidence.summary of the record; final only
    grounds: tuple[Reason, ...] = ()  # cause.reasons of the record; final only
    children: tuple[Child, ...] = ()
