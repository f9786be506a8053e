"""The decision log folded into what is true of a model: status is derived from this, never the other way round."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from fiduciary.api.modelstatus import KillStatus, LastDecision, RejectedVersion
from fiduciary.api.versions import StandingVersion, VersionRef
from fiduciary.decide import identity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from fiduciary.api.modeldecision import ModelDecision, ModelDecisionSpec

VERDICTS = ("Accept", "Reject", "TrainingFailed", "Abort")
REJECTED_KEPT = 20


@dataclass(frozen=True, slots=True)
class Verdict:
    """The newest judgement of one training. ``measured`` is the trainer's result, absent where there is none."""

    record: ModelDecisionSpec
    training_key: str
    spec_key: str
    config_key: str
    as_of: str
    trigger: Mapping[str, str]
    trials: int
    gates_digest: str
    started_at: str
    measured: Mapping[str, Any] | None

    @property
    def action(self) -> str:
        return self.record.action

    @property
    def version(self) -> VersionRef | None:
        return self.record.to


@dataclass(frozen=True, slots=True)
class History:
    """What the log says. ``broken`` tells where the chain of hashes or numbers does not hold."""

    sequence: int = 0
    digest: str | None = None
    last: LastDecision | None = None
    champion: StandingVersion | None = None
    previous_champion: StandingVersion | None = None
    anchor: StandingVersion | None = None
    challenger: StandingVersion | None = None
    kill: KillStatus | None = None
    retired: bool = False
    verdicts: Mapping[str, Verdict] = field(default_factory=dict[str, Verdict])  # by training key, newest judged last
    rejected: tuple[RejectedVersion, ...] = ()  # newest first
    approvals: frozenset[str] = frozenset()  # names of the ModelApprovals that a record acted on
    configurations: frozenset[str] = frozenset()  # distinct config keys whose outer result somebody saw
    broken: str | None = None

    def newest(self, spec_key: str) -> Verdict | None:
        """The verdict on the training that started last among those that this spec asked for."""
        verdicts = (verdict for verdict in self.verdicts.values() if verdict.spec_key == spec_key)
        return max(verdicts, key=lambda verdict: (verdict.started_at, verdict.record.sequence), default=None)


def fold(records: Iterable[ModelDecision]) -> History:
    """Fold a log that is sorted by sequence.

    Records below the first one present may have been exported and removed; from the first one on there is no gap.
    A log that does not hold together says where it breaks first, and is folded to its end all the same: a Kill and a
    deletion must be able to write the record after the newest one.
    """
    history = History()
    broken: str | None = None
    for record in records:
        spec = record.spec
        if history.sequence and spec.sequence != history.sequence + 1:
            broken = broken or f"record {history.sequence + 1} is missing before record {spec.sequence}"
        elif history.digest is not None and spec.previous != history.digest:
            names = f"record {spec.sequence} names {spec.previous} as the one before it"
            broken = broken or f"{names}, which is {history.digest}"
        history = after(history, spec)
    return replace(history, broken=broken)


def after(history: History, record: ModelDecisionSpec) -> History:
    """The history with one more record."""
    digest = identity.record_digest(record)
    last = LastDecision(sequence=record.sequence, action=record.action, digest=digest, at=record.decided_at)
    history = replace(history, sequence=record.sequence, digest=digest, last=last)
    if record.cause.approval is not None:
        history = replace(history, approvals=history.approvals | {record.cause.approval})
    if record.action in VERDICTS and (verdict := _verdict(record)) is not None:
        others = {key: value for key, value in history.verdicts.items() if key != verdict.training_key}
        history = replace(history, verdicts={**others, verdict.training_key: verdict})
        if verdict.measured is not None:
            history = replace(history, configurations=history.configurations | {verdict.config_key})
    match record.action:
        case "Accept" | "Adopt":
            return _place(history, record)
        case "Reject":
            return _reject(history, record)
        case "Kill" | "Resume":
            action = record.evidence.summary.get("action")
            kill = KillStatus(
                engaged=record.action == "Kill",
                action="PreviousChampion" if action == "PreviousChampion" else "Block",
                since=record.decided_at,
                by=record.actor.user or "spec",
                decision=record.sequence,
            )
            return replace(history, kill=kill)
        case "Retire" if record.evidence.summary.get("deletionPolicy") != "Retain":
            return replace(
                history, retired=True, champion=None, previous_champion=None, anchor=None, challenger=None, kill=None
            )
        case _:
            return history


def _verdict(record: ModelDecisionSpec) -> Verdict | None:
    summary = record.evidence.summary
    if "trainingKey" not in summary:
        return None
    return Verdict(
        record=record,
        training_key=summary["trainingKey"],
        spec_key=summary["specKey"],
        config_key=summary["configKey"],
        as_of=summary["asOf"],
        trigger=summary.get("trigger", {}),
        trials=summary.get("trials", 1),
        gates_digest=summary.get("gatesDigest", ""),
        started_at=summary.get("startedAt", ""),
        measured=summary.get("measured"),
    )


def _place(history: History, record: ModelDecisionSpec) -> History:
    if record.to is None:
        return history
    history = replace(history, retired=False, rejected=_without(history.rejected, record.to.digest))
    standing = _standing(record.to, record.decided_at, record.sequence)
    champion = history.champion
    if record.to.role == "Champion":
        if champion is not None and champion.digest == standing.digest:
            return history  # the same artifact again: it holds its place since it took it
        return replace(history, champion=standing, anchor=history.anchor or standing)
    return replace(history, challenger=standing)


def _reject(history: History, record: ModelDecisionSpec) -> History:
    to = record.to
    rejected = RejectedVersion(
        version=to.version if to else None,
        digest=to.digest if to else None,
        training_key=record.evidence.summary.get("trainingKey"),
        reason=record.cause.reasons[0].reason if record.cause.reasons else "Rejected",
        message=record.cause.message,
        at=record.decided_at,
        decision=record.sequence,
    )
    champion, challenger = history.champion, history.challenger
    if champion is not None and rejected.digest is not None and champion.digest == rejected.digest:
        return history  # it fails gates that came after it; an edit of gates unserves nothing
    kept = (rejected, *_without(history.rejected, rejected.digest))[:REJECTED_KEPT]
    if challenger is not None and challenger.digest == rejected.digest:
        challenger = None
    return replace(history, rejected=kept, challenger=challenger)


def _without(rejected: tuple[RejectedVersion, ...], digest: str | None) -> tuple[RejectedVersion, ...]:
    return tuple(version for version in rejected if digest is None or version.digest != digest)


def _standing(version: VersionRef, since: datetime, decision: int) -> StandingVersion:
    return StandingVersion(**version.model_dump(), since=since, decision=decision)
