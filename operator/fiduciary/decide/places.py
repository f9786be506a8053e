"""Who holds which place after a record: champion, previous champion, challenger, anchor, and the refused ones."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fiduciary.api.modelstatus import RejectedVersion
from fiduciary.api.versions import StandingVersion

if TYPE_CHECKING:
    from datetime import datetime

    from fiduciary.api.modeldecision import ModelDecisionSpec
    from fiduciary.api.versions import VersionRef
    from fiduciary.decide.history import History

REJECTED_KEPT = 20
FORMER_KEPT = 20
"""More than ``keepVersions`` allows: one that is longer ago is not a version to go back to in a hurry."""


def placed(history: History, record: ModelDecisionSpec) -> History:
    """Accept and Adopt: a version takes the place that its record names."""
    if record.to is None:
        return history
    rejected = _without(history.rejected, record.to.digest)
    history = replace(history, retired=False, retained=False, rejected=rejected)
    standing = standing_version(record.to, record.decided_at, record.sequence)
    champion, challenger = history.champion, history.challenger
    if record.to.role == "Champion":
        if champion is not None and champion.digest == standing.digest:
            return history  # the same artifact again: it holds its place since it took it
        return replace(history, champion=standing, returned=False, anchor=history.anchor or standing)
    if challenger is not None and challenger.digest == standing.digest:
        return history  # judged again: what people were asked to approve stays as it was
    if history.trial is not None:
        if history.waiting is not None and history.waiting.digest == standing.digest:
            return history
        return replace(history, waiting=standing, waiting_evidence=record.evidence.digest)
    return replace(history, challenger=standing, challenger_evidence=record.evidence.digest)


def moved(history: History, record: ModelDecisionSpec) -> History:
    """Promote and RollBack: another version is champion; the one before stays the way back, unless it was left for
    harm or by a person, who then would be sent back to it."""
    if record.to is None:
        return history
    champion, challenger = history.champion, history.challenger
    if record.action == "RollBack" and champion is not None and champion.digest == record.to.digest:
        return _given_back(history, record)
    standing = standing_version(record.to, record.decided_at, record.sequence)
    former = history.former if champion is None else (champion, *history.former)
    former = tuple(version for version in _distinct(former) if version.digest != standing.digest)[:FORMER_KEPT]
    refused, entries = history.refused - {standing.digest or ""}, _without(history.rejected, standing.digest)
    if record.action == "RollBack" and champion is not None and champion.digest not in (None, standing.digest):
        refused |= {champion.digest}
        entries = (_entry(champion, record, "RolledBack"), *_without(entries, champion.digest))[:REJECTED_KEPT]
    if challenger is not None and challenger.digest == standing.digest:
        challenger = None
    return replace(
        history,
        champion=standing,
        returned=record.action == "RollBack",
        previous_champion=next((version for version in former if version.digest not in refused), None),
        former=former,
        challenger=challenger,
        waiting=_unless(history.waiting, standing.digest),
        refused=refused,
        rejected=entries,
        **_anchored(history, standing, record),
    )


def _anchored(history: History, standing: StandingVersion, record: ModelDecisionSpec) -> dict[str, StandingVersion]:
    """Who was promoted on superiority is what refreshes are measured against, until it is gone back on."""
    before, anchor = history.anchor_before, history.anchor or standing
    if record.action == "Promote" and record.evidence.summary.get("purpose") == "Improve":
        return {"anchor": standing, "anchor_before": anchor}
    champion = history.champion
    if record.action == "RollBack" and before is not None and champion is not None and champion.digest == anchor.digest:
        return {"anchor": before}
    return {"anchor": anchor}


def _given_back(history: History, record: ModelDecisionSpec) -> History:
    """RollBack of a challenger: what it had of the champion's requests goes back, and so does its place."""
    entry = _entry(record.from_, record, "RolledBack")
    return replace(
        history,
        challenger=_unless(history.challenger, entry.digest),
        waiting=_unless(history.waiting, entry.digest),
        refused=history.refused if entry.digest is None else history.refused | {entry.digest},
        rejected=(entry, *_without(history.rejected, entry.digest))[:REJECTED_KEPT],
    )


def rejected(history: History, record: ModelDecisionSpec) -> History:
    """Reject: a version is refused, by the gates or, where the record carries no training, by people or by serving."""
    to = record.to
    entry = _entry(to, record, "Rejected")
    champion = history.champion
    if champion is not None and entry.digest is not None and champion.digest == entry.digest:
        return history  # it fails gates that came after it; an edit of gates unserves nothing
    kept = (entry, *_without(history.rejected, entry.digest))[:REJECTED_KEPT]
    refused = history.refused
    if "trainingKey" not in record.evidence.summary and entry.digest is not None:
        refused |= {entry.digest}
    return replace(
        history,
        rejected=kept,
        challenger=_unless(history.challenger, entry.digest),
        waiting=_unless(history.waiting, entry.digest),
        refused=refused,
    )


def standing_version(version: VersionRef, since: datetime, decision: int) -> StandingVersion:
    return StandingVersion(**version.model_dump(), since=since, decision=decision)


def _entry(version: VersionRef | None, record: ModelDecisionSpec, otherwise: str) -> RejectedVersion:
    cause = record.cause
    return RejectedVersion(
        version=version.version if version else None,
        digest=version.digest if version else None,
        training_key=(version.training_key if version else None) or record.evidence.summary.get("trainingKey"),
        reason=cause.reasons[0].reason if cause.reasons else otherwise,
        message=cause.message,
        at=record.decided_at,
        decision=record.sequence,
    )


def _unless(standing: StandingVersion | None, digest: str | None) -> StandingVersion | None:
    """Who keeps a place that the artifact with this digest lost."""
    return None if standing is not None and standing.digest == digest else standing


def _distinct(versions: tuple[StandingVersion, ...]) -> tuple[StandingVersion, ...]:
    """Each artifact once, where it stood last."""
    latest: dict[str | None, StandingVersion] = {}
    for version in versions:
        latest.setdefault(version.digest, version)
    return tuple(latest.values())


def _without(entries: tuple[RejectedVersion, ...], digest: str | None) -> tuple[RejectedVersion, ...]:
    return tuple(entry for entry in entries if digest is None or entry.digest != digest)
