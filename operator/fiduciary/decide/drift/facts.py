"""What a FinancialModel and its log say to a DriftPolicy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from fiduciary.decide.drift.world import LogHead, ModelFacts, RecordedAlarm
from fiduciary.decide.serving.waysback import ways_back

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fiduciary.api.financialmodel import FinancialModel
    from fiduciary.api.modeldecision import ModelDecision
    from fiduciary.decide.history import History


def facts(model: FinancialModel, records: Iterable[ModelDecision], history: History) -> ModelFacts:
    """The model as its policies see it. ``history``: of ``records``."""
    spec, metadata, kept = model.spec, model.metadata, tuple(records)
    return ModelFacts(
        label=spec.data.label.kind,
        champion=history.champion,
        horizon=spec.data.label.horizon,
        previous=next(iter(ways_back(history)), None),
        returned=history.returned,
        calendar=spec.data.calendar or "24/7",
        rolling=spec.data.as_of == "Rolling",
        trained_to=max((one.as_of for one in history.verdicts.values() if one.measured is not None), default=""),
        mode=spec.promotion.mode,
        suspended=spec.suspend,
        killed=history.kill is not None and history.kill.engaged,
        busy=_busy(model, history),
        acted=history.acted,
        log=LogHead(metadata.name, metadata.uid, metadata.generation, history.sequence, history.digest),
        recorded=recorded(kept),
    )


def recorded(records: Iterable[ModelDecision]) -> tuple[RecordedAlarm, ...]:
    """The alarms that have a record."""
    found: list[RecordedAlarm] = []
    for record in records:
        if record.spec.action == "Alarm":
            summary = record.spec.evidence.summary
            for alarm in cast("list[Mapping[str, Any]]", summary.get("alarms", [])):
                digest = str(alarm.get("digest", ""))
                found.append(RecordedAlarm(str(summary.get("policy", "")), digest, record.spec.decided_at))
    return tuple(found)


def _busy(model: FinancialModel, history: History) -> str:
    """What a retrain would come on top of; empty: nothing."""
    status = model.status
    if status.active_experiment is not None:
        return f"ModelExperiment {status.active_experiment.name} is under way"
    if status.training is not None:
        return "a training is under way"
    waiting = history.challenger or history.waiting
    # One that waits for people may wait for weeks: nothing would be retrained for drift until then.
    if waiting is not None and model.spec.promotion.mode == "Auto":
        return f"version {waiting.version} waits for its promotion"
    return ""
