"""Writing record n+1: what every decision has in common, and what a training's verdict keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from fiduciary.api.modeldecision import Actor, Cause, DecidedModelRef, Evidence, ModelDecisionSpec, Reason
from fiduciary.api.versions import VersionRef
from fiduciary.decide import identity
from fiduciary.decide.due import REQUEST, TICK
from fiduciary.decide.measurement import kept

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary.api.modeldecision import CauseKind, DecisionAction, Traffic
    from fiduciary.decide.case import Case
    from fiduciary.decide.drift.requests import Request
    from fiduciary.decide.history import Verdict

COMPONENT = "fiduciary-operator"


def record(
    case: Case,
    action: DecisionAction,
    cause: Cause,
    *,
    summary: Mapping[str, Any] | None = None,
    before: VersionRef | None = None,
    to: VersionRef | None = None,
    traffic: Traffic | None = None,
    user: str | None = None,
) -> ModelDecisionSpec:
    """Record n+1 of this case's log, naming the hash of record n."""
    history, metadata = case.history, case.world.model.metadata
    written = ModelDecisionSpec(
        model_ref=DecidedModelRef(name=metadata.name, uid=metadata.uid),
        sequence=history.sequence + 1,
        action=action,
        to=_plain(to),
        traffic=traffic,
        cause=cause,
        actor=Actor(component=COMPONENT, version=case.world.platform.operator_version, user=user),
        previous=history.digest,
        decided_at=case.now,
    )
    if summary:
        written = with_summary(written, summary)
    return written if before is None else written.model_copy(update={"from_": _plain(before)})


def with_summary(record: ModelDecisionSpec, summary: Mapping[str, Any]) -> ModelDecisionSpec:
    """The record with the numbers that it rests on, and their digest."""
    content = dict(summary)
    return record.model_copy(update={"evidence": Evidence(digest=identity.digest(content), summary=content)})


def cause(
    case: Case,
    kind: CauseKind,
    message: str,
    *,
    trigger: Mapping[str, str] | None = None,
    approval: str | None = None,
    asked: Request | None = None,
    reasons: tuple[Reason, ...] = (),
) -> Cause:
    """Why, at the present generation."""
    return Cause(
        kind=kind,
        trigger=dict(trigger or {}),
        approval=approval,
        policy=None if asked is None else asked.name,
        request=None if asked is None else asked.action.digest,
        generation=case.generation,
        message=message,
        reasons=reasons,
    )


def cause_kind(case: Case, trigger: Mapping[str, str]) -> CauseKind:
    """What led to a training: its trigger, or that the model is new, or that its spec changed."""
    if TICK in trigger:
        return "Schedule"
    if REQUEST in trigger:
        asked = any(one.digest == trigger[REQUEST] for one in case.history.acted)
        return "Drift" if asked else "Retrain"
    return "SpecChange" if case.history.verdicts else "Initial"


def training_summary(
    case: Case,
    *,
    key: str,
    as_of: str,
    trigger: Mapping[str, str],
    trials: int,
    started_at: str,
    job: str,
    attempt: int,
    result: Mapping[str, Any] | None = None,
    run_id: str | None = None,
) -> dict[str, Any]:
    """What a verdict on a training keeps: enough to rebuild the status and to judge again."""
    summary: dict[str, Any] = {
        "trainingKey": key,
        "specKey": case.spec_key,
        "configKey": identity.config_key(case.spec),
        "architecture": case.spec.training.architecture or "",
        "asOf": as_of,
        "trigger": dict(trigger),
        "trials": trials,
        "gatesDigest": case.gates_digest,
        "startedAt": started_at,
        "job": job,
        "attempt": attempt,
    }
    if run_id:
        summary["runId"] = run_id
    if result is not None:
        summary["measured"] = kept(result)
    return summary


def judged_again(case: Case, verdict: Verdict) -> dict[str, Any]:
    """The summary of an earlier verdict under the present gates; everything else stays as it was measured."""
    return {**verdict.record.evidence.summary, "gatesDigest": case.gates_digest}


def _plain(version: VersionRef | None) -> VersionRef | None:
    """Without the place and its time, which are the log's to say."""
    if version is None:
        return None
    return VersionRef.model_validate({name: getattr(version, name) for name in VersionRef.model_fields})


Role = Literal["Champion", "Challenger"]
