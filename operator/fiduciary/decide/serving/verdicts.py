"""Carrying out what an experiment wishes and rules: one record, one write to the route."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fiduciary.api.modeldecision import Reason, Traffic
from fiduciary.api.versions import VersionRef
from fiduciary.decide import reasons, records
from fiduciary.decide.decision import Event
from fiduciary.decide.experiment.spent import pair_of
from fiduciary.decide.serving.ability import Able, ability
from fiduciary.decide.serving.arrival import arrival
from fiduciary.decide.serving.following import (
    ALL,
    active,
    by_uid,
    pods_for,
    raises,
    same_shares,
    told,
    unanswered,
    watches,
    wished,
)
from fiduciary.decide.serving.wanted import ready_of
from fiduciary.decide.serving.will import will
from fiduciary.decide.step import Step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary.api.modelapproval import ApprovalDecision, ModelApproval
    from fiduciary.api.modeldecision import DecisionAction, ModelDecisionSpec
    from fiduciary.api.modelexperiment import ModelExperiment
    from fiduciary.decide.case import Case
    from fiduciary.decide.history import History
    from fiduciary.decide.serving.arrival import Arrival

SIGNS: Mapping[str, tuple[ApprovalDecision, ...]] = {
    "Promote": ("Approve",),
    "KeepChampion": ("Reject", "Abort"),
    "RollBack": (),
}
"""Acts of people on an experiment that its verdict may rest on."""


def harmed(case: Case) -> Step | None:
    """Harm was found: the challenger gives back what it has; a champion that was just promoted gives all back.

    It waits for nothing but one pod that can answer: capacity, probes and the listing come behind it.
    """
    for mx in unanswered(case):
        ruling = mx.status.ruling
        if ruling is None or ruling.verdict != "RollBack":
            continue
        step = _gone_back(case, mx) if watches(mx, case.history) else _given_back(case, mx)
        if step is not None:
            return step
    return None


def _gone_back(case: Case, mx: ModelExperiment) -> Step | None:
    wish, able, champion = will(case, case.history), ability(case), case.history.champion
    if wish is None or wish.experiment is not mx or champion is None or not isinstance(able, Able):
        return None  # a pin says what serves; what is frozen cannot be moved
    if ready_of(case, wish.version) == 0 and ready_of(case, champion) > 0:
        return None  # bad answers are better than none
    message = f"version {wish.version.version} is champion again instead of version {champion.version}: {wish.why}"
    return recorded_step(case, mx, "RollBack", message, before=champion, to=wish.version, traffic=ALL)


def _given_back(case: Case, mx: ModelExperiment) -> Step | None:
    champion, challenger = case.history.champion, compared(case, mx)
    if champion is None or challenger is None:
        return None
    if challenger.digest == champion.digest:
        # People made it champion in the same moment: they, or a pin, decide about it.
        return _ended(case, mx, "Abort", f"version {challenger.version} was made champion meanwhile")
    message = f"version {challenger.version} is rolled back, version {champion.version} takes all requests"
    message = f"{message}: {_ruling(mx)}"
    traffic = _whole(case, mx)
    return recorded_step(case, mx, "RollBack", message, before=challenger, to=champion, traffic=traffic)


def concluded(case: Case) -> Step | None:
    """An experiment that started ends with the champion kept: its challenger is refused.

    One that compared what is not in question any more says nothing of its challenger, which keeps its place; nor does
    one that nobody was to act on. A promotion that can never be carried out is no promotion: its experiment ends, too.
    """
    for mx in unanswered(case):
        ruling = mx.status.ruling
        if ruling is None:
            continue
        if ruling.verdict == "KeepChampion":
            return _ended(case, mx, "Reject" if _refuses(mx, ruling.reason) else "Abort")
        why = outdated(case, mx) if ruling.verdict == "Promote" else None
        if why is not None:
            return _ended(case, mx, "Abort", f"{why} before its promotion was carried out")
    return None


def _refuses(mx: ModelExperiment, reason: str) -> bool:
    if reason == reasons.SUPERSEDED:
        return False
    return mx.spec.mode != "DryRun" or reason == reasons.REJECTED_BY_PERSON


def outdated(case: Case, mx: ModelExperiment) -> str | None:
    """What happened to the pair that was compared, if it is not the one in question any more."""
    champion, challenger = case.history.champion, case.history.challenger
    fixed = mx.status.champion, mx.status.challenger
    if fixed[1] is None or challenger is None or challenger.digest != fixed[1].digest:
        return "the version lost its place as challenger"
    if fixed[0] is None or champion is None or champion.digest != fixed[0].digest:
        return f"version {champion.version if champion is not None else '?'} was made champion"
    return None


def _ended(case: Case, mx: ModelExperiment, action: DecisionAction, why: str | None = None) -> Step:
    challenger, kept = compared(case, mx), case.history.champion
    before = _version(case, mx.status.champion) or kept
    name = challenger.version if challenger is not None else mx.spec.challenger.version
    stays = f", version {kept.version} stays champion" if kept is not None else ""
    what = "is not promoted" if action == "Reject" else "is not judged to the end"
    message = f"version {name} {what}{stays}: {why or _ruling(mx)}"
    return recorded_step(case, mx, action, message, before=before, to=challenger, traffic=_whole(case, mx))


def vanished(case: Case) -> Step | None:
    """An experiment went without a verdict (its finalizer was taken off): what its challenger has goes back."""
    trial, history = case.history.trial, case.history
    if trial is None or by_uid(case, trial.uid) is not None:
        return None
    message = (
        f"ModelExperiment {trial.experiment} is gone without a verdict: version "
        f"{history.challenger.version if history.challenger is not None else '?'} gives back what it has; the test "
        "that it began counts as spent"
    )
    return _closing(case, message, reasons.EXPERIMENT_GONE, "Experiment")


def ended_by_deletion(case: Case) -> Step | None:
    """Nobody watches an experiment of a model that goes: what it leaves behind is served by the champion alone."""
    if case.history.trial is None or _share(case.history.traffic) == 0:
        return None
    message = f"the model is being deleted: the trial of ModelExperiment {case.history.trial.experiment} ends"
    return _closing(case, message, reasons.DELETING, "Deletion")


def rising(case: Case, history: History, able: Able) -> Arrival | None:
    """Whether the challenger could take the greater share that its experiment wishes; None where it wishes none."""
    traffic, challenger, wish = history.traffic, history.challenger, wished(case, history, able)
    if wish is None or traffic is None or challenger is None or not raises(traffic, wish):
        return None
    need = pods_for(max(wish.challenger, wish.mirror), ready_of(case, history.champion))
    return arrival(case, history, able, challenger, compatible=True, need=need)


def followed(case: Case) -> Step | None:
    """The experiment wishes other shares: more of them once pods and probes say that they can be taken."""
    able, history = ability(case), case.history
    traffic, challenger, champion = history.traffic, history.challenger, history.champion
    if not isinstance(able, Able) or traffic is None or champion is None or case.killed:
        return None
    wish = wished(case, history, able)
    if wish is None or same_shares(wish, traffic):
        return None
    mx = active(case, history)
    if raises(traffic, wish):
        coming = rising(case, history, able)
        if case.spec.suspend or mx is None or challenger is None or coming is None or not coming.ready:
            return None
        message = f"step {wish.step}: version {challenger.version} {_gets(wish)}"
        return _shift(case, mx, message, wish, champion, challenger)
    if challenger is None:
        return None
    why = "" if mx is None else f": {told(mx)[1]}"
    if wish.challenger + wish.mirror == 0:
        message = f"version {champion.version} takes all requests{why}"
    else:
        message = f"step {wish.step}: version {challenger.version} {_gets(wish)}{why}"
    return _shift(case, mx, message, wish, challenger, champion)


def _gets(traffic: Traffic) -> str:
    parts = [f"answers {traffic.challenger} % of requests"] if traffic.challenger else []
    parts += [f"gets copies of {traffic.mirror} %"] if traffic.mirror else []
    return " and ".join(parts)


def _shift(
    case: Case, mx: ModelExperiment | None, message: str, wish: Traffic, before: VersionRef, to: VersionRef
) -> Step:
    pinned = case.spec.promotion.mode == "Pinned"
    cause = records.cause(case, "Pinned" if pinned else "Experiment", message)
    summary: dict[str, Any] = {}
    if mx is not None:
        reason, _ = told(mx)
        cause = cause.model_copy(
            update={"experiment": mx.metadata.name, "reasons": (Reason(reason=reason, message=message),)}
        )
        summary = {"experiment": mx.metadata.name, "uid": mx.metadata.uid, "purpose": mx.spec.purpose}
    place = VersionRef.model_validate({**to.model_dump(), "role": None})
    entry = records.record(case, "Shift", cause, summary=summary, before=before, to=place, traffic=wish)
    return Step(record=entry, events=(Event("Normal", reasons.SHIFTED, message),), finalizer="Add", again=True)


def recorded_step(
    case: Case,
    mx: ModelExperiment,
    action: DecisionAction,
    message: str,
    *,
    before: VersionRef | None,
    to: VersionRef | None,
    traffic: Traffic | None,
) -> Step:
    """The record of a ruling, and its event."""
    ruling = mx.status.ruling
    assert ruling is not None, "only a ruling is recorded"
    acts = _signed(case, mx)
    last = acts[-1] if acts else None
    cause = records.cause(
        case,
        "Experiment",
        message,
        approval=last.metadata.name if last is not None else None,
        reasons=ruling.reasons or (Reason(reason=ruling.reason, message=ruling.message),),
    ).model_copy(update={"experiment": mx.metadata.name})
    summary: dict[str, Any] = {**ruling.summary, "experiment": mx.metadata.name, "uid": mx.metadata.uid}
    if len(acts) > 1:
        summary["approvals"] = [act.metadata.name for act in acts]
    role = "Challenger" if action in ("Reject", "Abort") else "Champion"
    place = None if to is None else VersionRef.model_validate({**to.model_dump(), "role": role})
    entry = records.record(
        case,
        action,
        cause,
        summary=summary,
        before=before,
        to=place,
        traffic=traffic,
        user=last.spec.approver if last is not None else None,
    )
    entry = _with_pair(entry, mx)
    event = {"Promote": reasons.PROMOTED, "RollBack": reasons.ROLLED_BACK}.get(action, reasons.CHAMPION_KEPT)
    kind = "Warning" if action == "RollBack" else "Normal"
    return Step(record=entry, events=(Event(kind, event, message),), finalizer="Add", again=True)


def _with_pair(entry: ModelDecisionSpec, mx: ModelExperiment) -> ModelDecisionSpec:
    """What was compared, where the two versions of the record do not tell it."""
    champion, challenger = mx.status.champion, mx.status.challenger
    if champion is None or challenger is None or pair_of(entry) == (champion.digest, challenger.digest):
        return entry
    return records.with_summary(entry, {**entry.evidence.summary, "pair": [champion.digest, challenger.digest]})


def _closing(case: Case, message: str, reason: str, kind: Any) -> Step:
    trial, history = case.history.trial, case.history
    assert trial is not None, "only a trial is closed"
    cause = records.cause(case, kind, message, reasons=(Reason(reason=reason, message=message),))
    entry = records.record(
        case,
        "Abort",
        cause.model_copy(update={"experiment": trial.experiment}),
        summary={"experiment": trial.experiment, "uid": trial.uid, "purpose": trial.purpose},
        before=history.champion,
        to=history.challenger,
        traffic=ALL if _share(history.traffic) else None,
    )
    return Step(record=entry, events=(Event("Warning", reason, message),), finalizer="Add", again=True)


def _signed(case: Case, mx: ModelExperiment) -> tuple[ModelApproval, ...]:
    """Acts of people that the ruling rests on: signatures of the evidence that was asked for, or who ended it."""
    ruling = mx.status.ruling
    if ruling is None:
        return ()
    signed = ruling.summary.get("signed")
    created = mx.metadata.creation_timestamp
    return tuple(
        act
        for act in case.approvals(*SIGNS[ruling.verdict])
        if act.spec.experiment == mx.metadata.name
        and (ruling.verdict != "Promote" or (act.spec.evidence_digest == signed and case.objection(act) is None))
        and (created is None or act.metadata.creation_timestamp is None or act.metadata.creation_timestamp >= created)
    )


def compared(case: Case, mx: ModelExperiment) -> VersionRef | None:
    """The version that the experiment is about, as the log or its own status names it."""
    history = case.history
    return _version(case, mx.status.challenger) or history.challenger


def _version(case: Case, fixed: Any) -> VersionRef | None:
    if fixed is None:
        return None
    history = case.history
    standing = (history.champion, history.challenger, history.waiting, *history.former)
    found = next((one for one in standing if one is not None and one.digest == fixed.digest), None)
    return found or VersionRef(version=fixed.version, digest=fixed.digest)


def _whole(case: Case, mx: ModelExperiment) -> Traffic | None:
    """All requests to the champion, where this experiment gave its challenger any."""
    trial = case.history.trial
    mine = trial is not None and trial.uid == mx.metadata.uid
    return ALL if mine and _share(case.history.traffic) else None


def _share(traffic: Traffic | None) -> int:
    return 0 if traffic is None else traffic.challenger + traffic.mirror


def _ruling(mx: ModelExperiment) -> str:
    ruling = mx.status.ruling
    return "" if ruling is None else ruling.message
