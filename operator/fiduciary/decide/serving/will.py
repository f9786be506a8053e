"""Which version should be champion: by a pin, a RollBack, a DriftPolicy, approvals of the challenger, or by its
experiment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from fiduciary.decide import reasons
from fiduciary.decide.drift.requests import chosen
from fiduciary.decide.experiment.facts import verdict_on
from fiduciary.decide.experiment.windows import closure
from fiduciary.decide.serving.following import active, by_uid, experiments_decide, unanswered, watches
from fiduciary.decide.serving.queueing import ended_for
from fiduciary.decide.serving.waysback import ways_back
from fiduciary.decide.step import Note

if TYPE_CHECKING:
    from fiduciary.api.modelapproval import ModelApproval
    from fiduciary.api.modeldecision import CauseKind
    from fiduciary.api.modelexperiment import ModelExperiment
    from fiduciary.api.versions import VersionRef
    from fiduciary.decide.case import Case
    from fiduciary.decide.drift.requests import Request
    from fiduciary.decide.experiment.windows import Closure
    from fiduciary.decide.history import History


@dataclass(frozen=True, slots=True)
class Will:
    """A version that should be champion, whose it is and why. It takes its place once its capacity is there.

    ``compatible``: it has to answer the champion's requests first. A person who names a version has decided that.
    """

    version: VersionRef
    action: Literal["Promote", "RollBack"]
    kind: CauseKind
    why: str
    user: str | None = None
    acts: tuple[str, ...] = field(default=())  # names of the ModelApprovals that this answers, the newest last
    compatible: bool = False
    experiment: ModelExperiment | None = None  # whose verdict it is
    asked: Request | None = None  # of the DriftPolicy whose it is


def will(case: Case, history: History) -> Will | None:
    """What people or an experiment want and the log does not say yet; None where nothing is to be changed.

    A pin beats every experiment, and every act of a person but the kill switch: Git says what serves, and who wants
    something else changes it there. Harm of a champion that was just promoted beats people: it waits for nobody.
    A DriftPolicy gives way to both, and goes before the challenger, which was measured against this champion.
    """
    if history.champion is None:
        return None
    if case.spec.promotion.mode == "Pinned":
        return _pinned(case, history)
    left = _harmful(case, history) or _rollback(case, history) or _drifted(case, history)
    return left or _approved(case, history) or _shown(case, history)


def pin_refused(case: Case, history: History) -> Note | None:
    """Why the pinned version may not serve; None where nothing is pinned, or it may."""
    pinned = case.spec.promotion.pinned
    if case.spec.promotion.mode != "Pinned" or pinned is None or _is_champion(history, pinned.digest):
        return None
    if history.champion is None and not history.verdicts:
        return None  # nothing was trained yet: the pin may name what is about to come
    name = f"version {pinned.version} ({pinned.digest})"
    verdict = verdict_on(history, pinned.digest)
    if verdict is None:
        same = next((one for one in _accepted(history) if one.version == pinned.version), None)
        hint = f"; version {same.version} in the log has digest {same.digest}" if same is not None else ""
        todo = "pin a version that the log accepted (kubectl get modeldecisions)"
        message = f"spec.promotion.pinned names {name}, which no record accepted{hint}; {todo}"
        return Note(reasons.PINNED_VERSION_REFUSED, message, stalled=True)
    if verdict.action != "Accept":
        message = f"spec.promotion.pinned names {name}, which did not pass: {verdict.record.cause.message}"
        return Note(reasons.PINNED_VERSION_REFUSED, message, stalled=True)
    return None


def act_refused(case: Case, history: History) -> Note | None:
    """Why what a person asked for is not carried out: the newest RollBack, else the newest Approve; None if it is."""
    return _roll_back_refused(case, history) or _approve_refused(case, history)


def _roll_back_refused(case: Case, history: History) -> Note | None:
    act = next(iter(_pending(case, history, "RollBack")[::-1]), None)
    if act is None or history.champion is None:
        return None
    name = act.metadata.name
    if case.spec.promotion.mode == "Pinned":
        message = f"ModelApproval {name} asks to roll back, but promotion.mode is Pinned: change spec.promotion.pinned"
        return Note(reasons.OVERRIDDEN_BY_PIN, message)
    if _way_back(act, history) is not None:
        return None
    known = ", ".join(str(version.version) for version in ways_back(history)) or "none"
    wanted = f"version {act.spec.version}" if act.spec.version else "the previous champion"
    message = (
        f"ModelApproval {name} asks to go back to {wanted}, which is no version to go back to: those that were "
        f"champion and were not rolled back themselves are {known}"
    )
    return Note(reasons.ROLL_BACK_IMPOSSIBLE, message)


def _approve_refused(case: Case, history: History) -> Note | None:
    """Somebody approves the model's challenger itself, though an experiment decides about it."""
    challenger = history.challenger
    if challenger is None or people_decide(case):
        return None
    followed = active(case, history)
    judge = followed if followed is not None and not watches(followed, history) else None
    request = judge.status.approval_request if judge is not None else None
    # Those on earlier challengers stay where they are, and are about nothing any more.
    since = challenger.since.timestamp() if challenger.since is not None else 0.0
    evidence = (history.challenger_evidence, *(() if request is None else (request.digest,)))
    acts = [
        act
        for act in case.approvals("Approve")
        if act.spec.experiment is None and (act.spec.evidence_digest in evidence or _created(act) >= since)
    ]
    if not acts:
        return None
    ended = ended_for(case, challenger) if judge is None else None
    which = "a ModelExperiment of its own" if judge is None else f"ModelExperiment {judge.metadata.name}"
    if ended is not None:
        todo = f"ModelExperiment {ended.metadata.name} ended, delete it and another one is made"
    elif judge is None:
        todo = "wait for it, and approve what its status.approvalRequest shows"
    elif request is None:
        todo = "it asks nobody for an approval now; once it does, its status.approvalRequest has the digest to approve"
    else:
        wanted = f"{{decision: Approve, experiment: {judge.metadata.name}, evidenceDigest: {request.digest}}}"
        todo = f"create a ModelApproval {wanted}"
    name, version = acts[-1].metadata.name, challenger.version
    message = (
        f"ModelApproval {name} approves version {version} itself, but {which} decides about it: {todo}. To promote it "
        "without evidence, pin it"
    )
    return Note(reasons.EXPERIMENT_DECIDES, message)


def approvals_needed(case: Case) -> int:
    """People who have to approve a challenger where no experiment judges it: one at least."""
    promotion = case.spec.promotion
    experiment = promotion.experiment.approvals if promotion.experiment is not None else 0
    return max(1, promotion.approvals, experiment)


def people_decide(case: Case) -> bool:
    """Whether a challenger is promoted by approvals of the model itself; else those of its experiment count."""
    return not experiments_decide(case)


def approvals_given(case: Case, history: History) -> tuple[tuple[ModelApproval, ...], Note | None]:
    """Approvals of the challenger that count, one a person, oldest first; and why another one does not count."""
    counted: dict[str, ModelApproval] = {}
    objection: Note | None = None
    for act in _about_challenger(case, history, "Approve"):
        against = case.objection(act)
        if against is None:
            counted.setdefault(act.spec.approver, act)
        else:
            objection = Note(*against)
    return tuple(counted.values()), objection


def rejection(case: Case, history: History) -> ModelApproval | None:
    """A person's Reject of the challenger. It counts unguarded: it only tightens."""
    return next(iter(_about_challenger(case, history, "Reject")), None)


def _pinned(case: Case, history: History) -> Will | None:
    pinned = case.spec.promotion.pinned
    if pinned is None or _is_champion(history, pinned.digest) or pin_refused(case, history) is not None:
        return None
    verdict = verdict_on(history, pinned.digest)
    if verdict is None or verdict.version is None:
        return None
    back = any(version.digest == pinned.digest for version in ways_back(history))  # forth again is a promotion
    why = f"spec.promotion.pinned names version {verdict.version.version}"
    return Will(verdict.version, "RollBack" if back else "Promote", "Pinned", why)


def _rollback(case: Case, history: History) -> Will | None:
    acts = _pending(case, history, "RollBack")
    if not acts:
        return None
    act = acts[-1]
    version = _way_back(act, history)
    if version is None:
        return None
    why = f"{act.spec.approver} asked to roll back: {act.spec.reason}"
    names = tuple(one.metadata.name for one in acts)
    return Will(version, "RollBack", "Approval", why, user=act.spec.approver, acts=names)


def _drifted(case: Case, history: History) -> Will | None:
    """A DriftPolicy asks to go back: only to the last approved version, and gives way to people."""
    version = next(iter(ways_back(history)), None)
    found = None if version is None else chosen(case, history, "RollBack")
    if version is None or found is None:
        return None
    why = f"DriftPolicy {found.name} asked to roll back: {found.action.reason}"
    return Will(version, "RollBack", "Drift", why, asked=found)


def _approved(case: Case, history: History) -> Will | None:
    challenger = history.challenger
    if challenger is None or case.spec.suspend or case.killed or rejection(case, history) is not None:
        return None
    if not people_decide(case):
        return None
    acts, _ = approvals_given(case, history)
    if len(acts) < approvals_needed(case):
        return None
    people = ", ".join(act.spec.approver for act in acts)
    names = tuple(act.metadata.name for act in acts)
    return Will(
        challenger, "Promote", "Approval", f"approved by {people}", user=acts[-1].spec.approver, acts=names,
        compatible=True,
    )  # fmt: skip


def _harmful(case: Case, history: History) -> Will | None:
    """The champion did harm in the window after its promotion: back to the one before it."""
    found = next((one for one in unanswered(case) if watches(one, history) and _ruled(one, "RollBack")), None)
    if found is None or found.status.ruling is None:
        return None
    # Newer gates that the old champion would fail today are no reason to stay with harm.
    ways = ways_back(history) or [one for one in history.former if one.digest not in history.refused]
    compared = found.status.champion
    before = [one for one in ways if compared is not None and one.digest == compared.digest]
    if not ways:
        return None
    return Will((before or ways)[0], "RollBack", "Experiment", found.status.ruling.message, experiment=found)


def _shown(case: Case, history: History) -> Will | None:
    """The challenger's experiment showed all that it had to."""
    trial, challenger, champion = history.trial, history.challenger, history.champion
    found = by_uid(case, trial.uid) if trial is not None else None
    if found is None or not _ruled(found, "Promote") or challenger is None or champion is None:
        return None
    if case.spec.suspend or case.killed or rejection(case, history) is not None:
        return None
    fixed, ruling = (found.status.champion, found.status.challenger), found.status.ruling
    if ruling is None or [one and one.digest for one in fixed] != [champion.digest, challenger.digest]:
        return None  # another version is champion meanwhile
    if closed(case, history, found) is not None:
        return None  # it was ruled on an open day and waited: what counts is the day on which it is carried out
    why = f"ModelExperiment {found.metadata.name}: {ruling.message}"
    return Will(challenger, "Promote", "Experiment", why, compatible=True, experiment=found)


def closed(case: Case, history: History, experiment: ModelExperiment | None) -> Closure | None:
    """What the experiment's calendar has against carrying out its promotion now; None where there is nothing."""
    if experiment is None or not _ruled(experiment, "Promote") or watches(experiment, history):
        return None
    found = closure(experiment.spec.calendar, case.world.platform.calendars, case.now)
    return found if found.freeze or found.window or found.unknown else None


def _ruled(experiment: ModelExperiment, verdict: str) -> bool:
    ruling = experiment.status.ruling
    return ruling is not None and ruling.verdict == verdict


def _about_challenger(case: Case, history: History, decision: Literal["Approve", "Reject"]) -> list[ModelApproval]:
    evidence = history.challenger_evidence
    if history.challenger is None or evidence is None:
        return []
    return [
        act for act in case.approvals(decision) if act.spec.experiment is None and act.spec.evidence_digest == evidence
    ]


def _pending(case: Case, history: History, decision: Literal["RollBack"]) -> list[ModelApproval]:
    """Acts on the champion that is in force: one from before it took its place is about another."""
    since = history.champion_at.timestamp() if history.champion_at is not None else 0.0
    return [
        act
        for act in case.approvals(decision)
        if act.metadata.name not in history.approvals
        and act.metadata.creation_timestamp is not None
        and _created(act) >= since
    ]


def _created(act: ModelApproval) -> float:
    created = act.metadata.creation_timestamp
    return 0.0 if created is None else created.timestamp()


def _way_back(act: ModelApproval, history: History) -> VersionRef | None:
    ways = ways_back(history)
    if act.spec.version is None:
        return next(iter(ways), None)
    return next((version for version in ways if version.version == act.spec.version), None)


def _is_champion(history: History, digest: str) -> bool:
    return history.champion is not None and history.champion.digest == digest


def _accepted(history: History) -> list[VersionRef]:
    return [one.version for one in history.verdicts.values() if one.action == "Accept" and one.version is not None]
