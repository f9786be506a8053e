"""The decision log folded into what is true of a model: status is derived from this, never the other way round."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from fiduciary.api.modeldecision import Traffic
from fiduciary.api.modelstatus import KillStatus, LastDecision
from fiduciary.decide import identity, places
from fiduciary.decide.drift.world import Acted
from fiduciary.decide.trial import Trial, tried

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from fiduciary.api.modeldecision import ModelDecision, ModelDecisionSpec
    from fiduciary.api.modelstatus import RejectedVersion
    from fiduciary.api.versions import StandingVersion, VersionRef

VERDICTS = ("Accept", "Reject", "TrainingFailed", "Abort")
ROUTED = ("Shift", "Promote", "RollBack", "Reject", "Abort", "Kill", "Resume")
"""What may change the route."""


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
    """What the log says. ``broken`` tells where the chain of hashes or numbers does not hold.

    Attributes:
        anchor, anchor_before: the version that was promoted on superiority last, and the one before it.
        former: earlier champions, the latest first, without the present one.
        refused: digests that a person or serving refused, or that were rolled back; no gate brings them back.
        challenger_evidence: digest of what the challenger was accepted on: what people approve.
        traffic: shares of live requests as the newest record that names them wants, kill switch apart.
        backend: what serves, as the records say.
        routed, routed_at: number and time of the newest record that changed the route; 0: none did.
        waiting, waiting_evidence: a newer version that was accepted while the challenger is under trial, and what on:
            it becomes challenger when the trial ends.
        trial: the experiment that the challenger is in, from its first traffic to its verdict.
        watch: the experiment that promoted the present champion.
        returned: the present champion was gone back to, not promoted.
        kill_serves: the version that answers while the switch is engaged (PreviousChampion); None: nobody.
        lapsed, lapsed_champion: number of the newest record with which every place was given up, and who was champion.
        retained: the model is gone, what it served goes on.
        owner: UID of the model that the newest record was written for.
        champion_at, kill_at: when the API server stored the record of the champion's place, of the newest kill or
            resume: what acts of people, which have its times, are compared with.
    """

    sequence: int = 0
    digest: str | None = None
    last: LastDecision | None = None
    champion: StandingVersion | None = None
    previous_champion: StandingVersion | None = None
    anchor: StandingVersion | None = None
    anchor_before: StandingVersion | None = None
    challenger: StandingVersion | None = None
    former: tuple[StandingVersion, ...] = ()
    refused: frozenset[str] = frozenset()
    challenger_evidence: str | None = None
    waiting: StandingVersion | None = None
    waiting_evidence: str | None = None
    trial: Trial | None = None
    watch: Trial | None = None
    returned: bool = False
    traffic: Traffic | None = None
    backend: str = "Gateway"
    routed: int = 0
    routed_at: datetime | None = None
    kill: KillStatus | None = None
    kill_serves: VersionRef | None = None
    lapsed: int = 0
    lapsed_champion: VersionRef | None = None
    retired: bool = False
    retained: bool = False
    verdicts: Mapping[str, Verdict] = field(default_factory=dict[str, Verdict])  # by training key, newest judged last
    owner: str = ""
    champion_at: datetime | None = None
    kill_at: datetime | None = None
    rejected: tuple[RejectedVersion, ...] = ()  # newest first
    approvals: frozenset[str] = frozenset()  # names of the ModelApprovals that a record acted on
    acted: tuple[Acted, ...] = ()  # requests of DriftPolicies that a record carried out, oldest first
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
        history = after(history, spec, record.metadata.creation_timestamp)
    return replace(history, broken=broken)


def after(history: History, record: ModelDecisionSpec, stored_at: datetime | None = None) -> History:
    """The history with one more record; ``stored_at``: the API server's time, absent while it is only being written."""
    at, before = stored_at or record.decided_at, history
    history = tried(before, replace(_after(history, record), owner=record.model_ref.uid), record)
    if history.champion != before.champion:
        history = replace(history, champion_at=at)
    return replace(history, kill_at=at) if history.kill != before.kill else history


def _after(history: History, record: ModelDecisionSpec) -> History:
    digest = identity.record_digest(record)
    last = LastDecision(sequence=record.sequence, action=record.action, digest=digest, at=record.decided_at)
    history = replace(history, sequence=record.sequence, digest=digest, last=last)
    if record.cause.approval is not None:
        answered = {record.cause.approval, *record.evidence.summary.get("approvals", ())}
        history = replace(history, approvals=history.approvals | answered)
    if record.action in ("Retrain", "RollBack") and record.cause.policy and record.cause.request:
        kind = "RollBack" if record.action == "RollBack" else "Retrain"
        done = Acted(kind, record.cause.policy, record.cause.request, record.decided_at, record.sequence)
        history = replace(history, acted=(*history.acted, done))
    if record.action in VERDICTS and (verdict := _verdict(record)) is not None:
        others = {key: value for key, value in history.verdicts.items() if key != verdict.training_key}
        history = replace(history, verdicts={**others, verdict.training_key: verdict})
        if verdict.measured is not None:
            history = replace(history, configurations=history.configurations | {verdict.config_key})
    if record.action in ROUTED and record.traffic is not None:
        history = replace(history, routed=record.sequence, routed_at=record.decided_at)
        history = replace(history, backend=record.backend or history.backend)
        if record.action != "Kill":  # its shares hold while it is engaged; these are what comes back
            history = replace(history, traffic=record.traffic)
    match record.action:
        case "Accept" | "Adopt":
            return _undivided(history, places.placed(history, record), record)
        case "Promote" | "RollBack":
            return places.moved(history, record)
        case "Reject":
            return _undivided(history, places.rejected(history, record), record)
        case "Kill" | "Resume":
            action = record.evidence.summary.get("action")
            kill = KillStatus(
                engaged=record.action == "Kill",
                action="PreviousChampion" if action == "PreviousChampion" else "Block",
                since=record.decided_at,
                by=record.actor.user or "spec",
                decision=record.sequence,
            )
            return replace(history, kill=kill, kill_serves=record.to if kill.engaged else None)
        case "Retire" if record.evidence.summary.get("deletionPolicy") == "Retain":
            return replace(history, retained=True)
        case "Retire":
            # Who engaged the switch stopped the model, not this object of it: the latch stays.
            return replace(
                history, retired=True, champion=None, previous_champion=None, anchor=None,
                anchor_before=None, challenger=None,
                waiting=None, former=(), traffic=None, kill_serves=None, lapsed=record.sequence,
                lapsed_champion=history.champion,
            )  # fmt: skip
        case _:
            return history


def _undivided(before: History, history: History, record: ModelDecisionSpec) -> History:
    """Requests of a challenger that loses its place are the champion's: another one has earned none of them."""
    traffic = history.traffic
    if traffic is None or traffic.challenger + traffic.mirror == 0:
        return history
    old, new = before.challenger, history.challenger
    if old is not None and new is not None and old.digest == new.digest:
        return history
    whole = Traffic(champion=traffic.champion + traffic.challenger)
    return replace(history, traffic=whole, routed=record.sequence, routed_at=record.decided_at)


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
