"""The conditions of a FinancialModel: one small function each, over what will be true after this step.

Ready, Reconciling and Stalled follow kstatus: whoever waits on them is told the truth, neither early nor never.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fiduciary.api.conditions import Condition, Status, condition, find
from fiduciary.decide import aliases, reasons
from fiduciary.decide.acts import answering_resume
from fiduciary.decide.drift.requests import waiting
from fiduciary.decide.due import NothingNew, planned
from fiduciary.decide.notyet import inactive_fields
from fiduciary.decide.verdict import explain, present_judgement

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fiduciary.api.modelstatus import RejectedVersion
    from fiduciary.decide.case import Case
    from fiduciary.decide.history import History, Verdict
    from fiduciary.decide.serving.upkeep import Upkeep
    from fiduciary.decide.step import Note, Step

ENDED = {
    "TrainingFailed": reasons.TRAINING_FAILED,
    "Abort": reasons.ABORTED,
    "Reject": reasons.GATES_REFUSED,
}


@dataclass(frozen=True)
class Outlook:
    """The case, the step taken, and the history as it is once the step's record exists."""

    case: Case
    step: Step
    history: History
    current: Verdict | None
    care: Upkeep

    def condition(self, kind: str, status: Status, reason: str, message: str) -> Condition:
        """A condition at the present generation; its transition time moves only when its status does."""
        case = self.case
        return condition(
            case.status.conditions, kind, status, reason, message, generation=case.generation, now=case.now
        )


def conditions(outlook: Outlook) -> tuple[Condition, ...]:
    """All conditions, the ones that people wait on first."""
    return tuple(found for build in CONDITIONS if (found := _as_told(outlook, build) or build(outlook)) is not None)


def _as_told(this: Outlook, build: Callable[[Outlook], Condition | None]) -> Condition | None:
    """What the status says of a training that this step did not look at."""
    kind = _OF_TRAINING.get(build)
    if kind is None or not this.step.interlude or (this.step.training is None and kind != reasons.REGISTRY_DRIFT):
        return None
    told = _urgent(this) if kind == reasons.STALLED else _on_its_way(this) if kind == reasons.RECONCILING else None
    if told is not None:
        return None  # serving has something to say
    before = find(this.case.status.conditions, kind)
    if before is None:
        return None
    return this.condition(kind, before.status, before.reason, before.message)


def _ready(this: Outlook) -> Condition:
    """True only where a probe got an answer as clients get it; else the reason says how far the model got."""
    killed = this.history.kill is not None and this.history.kill.engaged
    if this.care.served and not killed:
        return this.condition(reasons.READY, "True", reasons.SERVING, _answer(this))
    reason, message = _why_not_ready(this)
    return this.condition(reasons.READY, "False", reason, message)


def _why_not_ready(this: Outlook) -> tuple[str, str]:
    history, note, current = this.history, this.step.note, this.current
    if this.case.world.model.metadata.deletion_timestamp is not None:
        return reasons.DELETING, note.message if note is not None else "the object is being deleted"
    if history.kill is not None and history.kill.engaged:
        return reasons.KILL_ENGAGED, _kill_message(this)
    if history.champion is not None and this.care.lacking is not None:
        return this.care.lacking.reason, this.care.lacking.message
    if note is not None:
        return note.reason, note.message
    if current is None:
        return reasons.WAITING, "nothing was trained yet"
    if current.action in ENDED:
        return ENDED[current.action], current.record.cause.message
    return reasons.REGISTERING, current.record.cause.message


def _reconciling(this: Outlook) -> Condition:
    training = this.step.training
    note = _on_its_way(this)
    if note is not None:
        training = training if note is this.step.note else None
        since = f" (since {training.since:%Y-%m-%d %H:%M:%S} UTC)" if training is not None and training.since else ""
        return this.condition(reasons.RECONCILING, "True", note.reason, note.message + since)
    return this.condition(reasons.RECONCILING, "False", reasons.IDLE, "nothing is on its way")


def _stalled(this: Outlook) -> Condition:
    note, current = this.step.note, this.current
    urgent = _urgent(this)
    if urgent is not None:
        return this.condition(reasons.STALLED, "True", urgent.reason, urgent.message)
    ended = current is not None and current.action in ("Reject", "TrainingFailed", "Abort")
    # With a champion in force a person must act only where what the spec itself asks for cannot be trained.
    failed = current is not None and current.action == "TrainingFailed" and not current.trigger
    if note is None and current is not None and ended and (this.history.champion is None or failed):
        reason = ENDED[current.action]
        todo = {
            "Reject": "Change the model, the data or a gate",
            "TrainingFailed": "Mend the cause; a changed spec or a ModelApproval {decision: Retrain} trains again",
            "Abort": "A changed spec or a ModelApproval {decision: Retrain} trains again",
        }[current.action]
        return this.condition(reasons.STALLED, "True", reason, f"{current.record.cause.message}. {todo}")
    return this.condition(reasons.STALLED, "False", reasons.NO_ACTION_NEEDED, "no person needs to act")


def _trained(this: Outlook) -> Condition:
    current, training, note = this.current, this.step.training, this.step.note
    if training is not None and (current is None or training.key != current.training_key):
        phase = training.phase or reasons.TRAINING
        message = note.message if note is not None else f"Job {training.job} is {phase}"
        # A retrain in progress does not take away that the spec's model was trained.
        if current is None or current.measured is None:
            return this.condition(reasons.TRAINED, "False", reasons.TRAINING, message)
    if current is None:
        reason, message = (note.reason, note.message) if note is not None else (reasons.WAITING, "not trained yet")
        return this.condition(reasons.TRAINED, "False", reason, message)
    if current.measured is not None:
        result = current.measured
        message = f"{result.get('rows', '?')} rows up to {current.as_of}, data {result.get('dataDigest', '?')}"
        return this.condition(reasons.TRAINED, "True", reasons.TRAINING_SUCCEEDED, message)
    cause = current.record.cause
    reason = cause.reasons[0].reason if cause.reasons else reasons.TRAINING_FAILED
    return this.condition(reasons.TRAINED, "False", reason, cause.message)


def _gates_passed(this: Outlook) -> Condition:
    current, history = this.current, this.history
    if current is None or current.measured is None:
        return this.condition(reasons.GATES_PASSED, "Unknown", reasons.NOT_JUDGED, "there are no numbers to judge yet")
    cause = current.record.cause
    if current.action == "Reject":
        champion = history.champion
        standing = champion is not None and champion.training_key == current.training_key
        first = cause.reasons[0].reason if cause.reasons else reasons.GATE_FAILED
        reason = reasons.CHAMPION_FAILS_GATES if standing else first
        return this.condition(reasons.GATES_PASSED, "False", reason, cause.message)
    failing = None if history.challenger is not None else _champion_failing(this)
    if failing is not None:
        return this.condition(reasons.GATES_PASSED, "False", reasons.CHAMPION_FAILS_GATES, failing)
    return this.condition(reasons.GATES_PASSED, "True", reasons.ALL_GATES_PASSED, cause.message)


def _champion_failing(this: Outlook) -> str | None:
    """What a champion of an earlier spec lacks by the gates as they are now."""
    verdict = this.case.champion_verdict
    if verdict is None or this.current is None or verdict.training_key == this.current.training_key:
        return None
    if verdict.gates_digest == this.case.gates_digest:
        return None
    judgement = present_judgement(this.case, verdict)
    if judgement is None or judgement.passed:
        return None
    return f"the champion stays, but would not pass today: {explain(judgement.failures, len(judgement.results))}"


def _served(this: Outlook) -> Condition:
    if this.care.served:
        return this.condition(reasons.SERVED, "True", reasons.SERVING, _answer(this))
    lacking = this.care.lacking
    if lacking is None:
        return this.condition(reasons.SERVED, "False", reasons.WAITING, "there is no version to serve")
    return this.condition(reasons.SERVED, "False", lacking.reason, lacking.message)


def _answer(this: Outlook) -> str:
    kill, champion, endpoint = this.history.kill, this.history.champion, this.care.endpoint
    engaged = kill is not None and kill.engaged
    version = this.history.kill_serves if engaged else champion
    where = endpoint.url if endpoint is not None else "its route"
    return f"version {version.version if version is not None else '?'} answers at {where}"


def _on_its_way(this: Outlook) -> Note | None:
    return next((note for note in _notes(this) if not note.stalled and note.reason not in _RESTING), None)


def _urgent(this: Outlook) -> Note | None:
    return next((note for note in _notes(this) if note.stalled), None)


def _notes(this: Outlook) -> tuple[Note, ...]:
    """What is on its way or needs a person: of the training first, then of serving."""
    notes = this.care.notes
    return notes if this.step.note is None else (this.step.note, *notes)


_RESTING = (reasons.SUSPENDED, reasons.SUSPENDED_BY_SPEC, reasons.KILL_ENGAGED)
"""Nothing is on its way, and that is meant."""


def _candidate_rejected(this: Outlook) -> Condition:
    current = this.current
    champion = this.history.champion
    standing = champion is not None and current is not None and champion.training_key == current.training_key
    if current is not None and current.action == "Reject" and not standing:
        cause = current.record.cause
        first = cause.reasons[0].reason if cause.reasons else reasons.GATE_FAILED
        return this.condition(reasons.CANDIDATE_REJECTED, "True", first, cause.message)
    refused = _refused(this)
    if refused is not None:
        return this.condition(reasons.CANDIDATE_REJECTED, "True", refused.reason, refused.message or "")
    return this.condition(reasons.CANDIDATE_REJECTED, "False", reasons.NO_ACTION_NEEDED, "no candidate was refused")


def _refused(this: Outlook) -> RejectedVersion | None:
    """The newest version of this spec, where it passed the gates and a person or serving refused it."""
    version = this.current.version if this.current is not None else None
    if version is None or version.digest not in this.history.refused:
        return None
    return next((entry for entry in this.history.rejected if entry.digest == version.digest), None)


def _route_hijacked(this: Outlook) -> Condition | None:
    told = this.care.hijacked
    return None if told is None else this.condition(reasons.ROUTE_HIJACKED, "True", reasons.ROUTE_HIJACKED, told)


def _promotion_pending(this: Outlook) -> Condition | None:
    note = this.care.pending
    return None if note is None else this.condition(reasons.PROMOTION_PENDING, "True", note.reason, note.message)


def _act_refused(this: Outlook) -> Condition | None:
    note = this.care.refused
    return None if note is None else this.condition(reasons.ACT_REFUSED, "True", note.reason, note.message)


def _registry_drift(this: Outlook) -> Condition | None:
    told = aliases.moved(this.case, this.history)
    return None if told is None else this.condition(reasons.REGISTRY_DRIFT, "True", reasons.ALIAS_MOVED, told)


def _killed(this: Outlook) -> Condition | None:
    kill = this.history.kill
    if kill is None or not kill.engaged:
        return None
    if this.case.spec.kill.engaged:
        return this.condition(reasons.KILLED, "True", reasons.KILL_ENGAGED, _kill_message(this))
    act = answering_resume(this.case)
    objection = None if act is None else this.case.objection(act)
    reason = reasons.RESUME_NEEDED if objection is None else objection[0]
    return this.condition(reasons.KILLED, "True", reason, _kill_message(this))


def _kill_message(this: Outlook) -> str:
    kill, case = this.history.kill, this.case
    who = kill.by if kill is not None else "?"
    if case.spec.kill.engaged:
        return (
            f"the kill switch is engaged by {who}; to go on, set spec.kill.engaged to false and create a ModelApproval "
            "{decision: Resume}"
        )
    act = answering_resume(case)
    if act is not None and (objection := case.objection(act)) is not None:
        return f"the kill switch was engaged by {who} and stays latched: {objection[1]}"
    return (
        f"the kill switch was engaged by {who} and is latched; it clears with a ModelApproval {{decision: Resume}} "
        "that is newer than it"
    )


def _suspended(this: Outlook) -> Condition | None:
    if not this.case.spec.suspend:
        return None
    message = "spec.suspend is true: nothing new is started or promoted; a training that runs ends and is judged"
    return this.condition(reasons.SUSPENDED, "True", reasons.SUSPENDED_BY_SPEC, message)


def _nothing_new(this: Outlook) -> Condition | None:
    if this.case.current is None:
        return None  # nothing can be repeated
    wanted = planned(this.case)
    if not isinstance(wanted, NothingNew):
        return None
    message = (
        f"{wanted.what} asks to train again, but spec.data.asOf is {wanted.as_of}: the same data would give the same "
        "version. Move asOf, or set it to Rolling"
    )
    return this.condition(reasons.NOTHING_NEW, "True", reasons.FIXED_AS_OF, message)


def _request_waits(this: Outlook) -> Condition | None:
    found = waiting(this.case, this.history)
    if found is None:
        return None
    one, held = found
    message = f"DriftPolicy {one.name} asks for a {_ASKED[one.action.kind]} ({one.action.reason}): {held.message}"
    return this.condition(reasons.ACTION_HELD, "True", held.reason, message)


_ASKED = {"Retrain": "retrain", "RollBack": "rollback"}


def _not_yet_active(this: Outlook) -> Condition | None:
    fields = inactive_fields(this.case.spec, this.case.world.platform)
    if not fields:
        return None
    message = f"accepted and validated, without effect in this release: {', '.join(fields)}"
    return this.condition(reasons.NOT_YET_ACTIVE, "True", reasons.ACCEPTED_NOT_ACTIVE, message)


_OF_TRAINING: Mapping[Callable[[Outlook], Condition | None], str] = {
    _reconciling: reasons.RECONCILING,
    _stalled: reasons.STALLED,
    _trained: reasons.TRAINED,
    _registry_drift: reasons.REGISTRY_DRIFT,
}

CONDITIONS = (
    _ready,
    _reconciling,
    _stalled,
    _trained,
    _gates_passed,
    _served,
    _candidate_rejected,
    # These are there only while they are true.
    _route_hijacked,
    _promotion_pending,
    _act_refused,
    _registry_drift,
    _killed,
    _suspended,
    _nothing_new,
    _request_waits,
    _not_yet_active,
)
