"""What the FinancialModel does about the requests of its policies: one at a time, each once, and never against people.

A policy publishes ``status.requestedAction``. Whether its alarms justify it was judged there; here stands what the
model has against it in the moment in which it would be carried out: a chain of small rules, the first that holds says
why. Cooldown and budgets are among them, since another request may have been carried out after this one was published.
What is held waits, until its policy takes it back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fiduciary.api.quantities import timedelta_of
from fiduciary.decide import reasons, records
from fiduciary.decide.calendar import ALWAYS_OPEN
from fiduciary.decide.decision import Event
from fiduciary.decide.drift.held import Held, cooling, frozen, gone_back_to, used_up
from fiduciary.decide.due import REQUEST, ROLLING, Due, planned
from fiduciary.decide.serving.following import active, experiments_decide, watches
from fiduciary.decide.serving.waysback import ways_back
from fiduciary.decide.step import Note, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fiduciary.api.driftpolicy import DriftPolicy, RequestedAction
    from fiduciary.decide.case import Case
    from fiduciary.decide.drift.world import Asked
    from fiduciary.decide.history import History


@dataclass(frozen=True, slots=True)
class Request:
    """What one policy asks for, which no record has carried out."""

    policy: DriftPolicy
    action: RequestedAction

    @property
    def name(self) -> str:
        return self.policy.metadata.name


def standing(case: Case, history: History) -> tuple[Request, ...]:
    """Requests in the order in which they are looked at: a rollback first, then the oldest, then by name.

    Two policies that ask for the same do not fight: the second one finds the model busy, or its alarm over.
    """
    done = {one.digest for one in history.acted}
    asking = [
        Request(policy, action)
        for policy in case.world.policies
        if policy.metadata.deletion_timestamp is None
        and (action := policy.status.requested_action) is not None
        and action.digest not in done
    ]
    return tuple(sorted(asking, key=_order))


def chosen(case: Case, history: History, kind: Asked) -> Request | None:
    """The request of this kind that is carried out now; None: nothing of it is asked for, or it has to wait.

    While a rollback can be carried out no retrain is taken on: the champion that it rests on is about to go.
    """
    free = next((one for one in standing(case, history) if holds(case, history, one) is None), None)
    return free if free is not None and free.action.kind == kind else None


def waiting(case: Case, history: History) -> tuple[Request, Held] | None:
    """The first request, and what holds it; None where there is none, or one is carried out now."""
    found = [(one, holds(case, history, one)) for one in standing(case, history)]
    if any(held is None for _, held in found):
        return None
    return next(((one, held) for one, held in found if held is not None), None)


def holds(case: Case, history: History, one: Request) -> Held | None:
    """What the model has against this request now; None: nothing."""
    return next((held for rule in RULES[one.action.kind] if (held := rule(case, history, one)) is not None), None)


def retrain(case: Case) -> Step | None:
    """A training that a policy asks for is taken on: the record makes it due, and says who asked on what evidence."""
    found = chosen(case, case.history, "Retrain")
    if found is None:
        return None
    message = f"DriftPolicy {found.name} asked to train again with newest data: {found.action.reason}"
    trigger = {REQUEST: found.action.digest}
    cause = records.cause(case, "Drift", message, trigger=trigger, asked=found)
    entry = records.record(case, "Retrain", cause, summary=found.action.evidence, before=case.history.champion)
    event = Event("Normal", reasons.RETRAIN_TAKEN_ON, message)
    return Step(record=entry, note=Note(reasons.TRAINING, message), events=(event,), again=True)


def busy(case: Case, history: History) -> str:
    """The training or experiment that is under way, in words; empty: there is none.

    A challenger that waits for people, perhaps for weeks, keeps nobody from training on what happened since.
    """
    claim, job = case.claim, case.job
    if job is not None or claim is not None:
        return f"Job {job.name if job is not None else claim.job if claim is not None else ''} trains"
    if isinstance(planned(case), Due):
        return "a training is due"
    if history.trial is not None:
        return f"ModelExperiment {history.trial.experiment} is under way"
    followed, challenger = active(case, history), history.challenger
    if followed is not None and not watches(followed, history):
        return f"ModelExperiment {followed.metadata.name} is under way"
    if challenger is not None and experiments_decide(case):
        return f"version {challenger.version} wants to be champion"
    return ""


# --- what holds any request ------------------------------------------------------------------------------------------


def _killed(case: Case, history: History, one: Request) -> Held | None:
    if history.kill is not None and history.kill.engaged:
        return Held(reasons.KILL_ENGAGED, "the kill switch is latched; only a person clears it")
    return None


def _suspended(case: Case, history: History, one: Request) -> Held | None:
    return (
        Held(reasons.SUSPENDED_BY_SPEC, "spec.suspend is true: nothing new is started") if case.spec.suspend else None
    )


def _edited(case: Case, history: History, one: Request) -> Held | None:
    """Somebody may just have forbidden it there."""
    if one.policy.status.observed_generation != one.policy.metadata.generation:
        return Held(reasons.POLICY_EDITED, "the policy was edited since it asked: it is judged again first")
    return None


def _about_another(case: Case, history: History, one: Request) -> Held | None:
    """Times are the operator's on both sides."""
    champion = history.champion
    if champion is None:
        return Held(reasons.NOTHING_SERVES, "there is no champion")
    if champion.since is not None and one.action.at <= champion.since:
        message = f"it was asked before version {champion.version} was champion; its policy looks at that version now"
        return Held(reasons.BEGUN_ANEW, message)
    return None


# --- a retrain -------------------------------------------------------------------------------------------------------


def _fixed(case: Case, history: History, one: Request) -> Held | None:
    if case.spec.data.as_of != ROLLING:
        return Held(reasons.NOTHING_NEW, "spec.data.asOf is a fixed date: a retrain would read the same rows")
    return None


def _frozen(case: Case, history: History, one: Request) -> Held | None:
    spec = one.policy.spec
    exchange = spec.window.calendar or case.spec.data.calendar or ALWAYS_OPEN
    return frozen(spec.guards.freeze, case.world.platform.calendars, exchange, case.now)


def _busy(case: Case, history: History, one: Request) -> Held | None:
    what = busy(case, history)
    return Held(reasons.MODEL_BUSY, f"{what}: one thing at a time") if what else None


def _cooling(case: Case, history: History, one: Request) -> Held | None:
    return cooling(one.policy.spec, history.acted, one.name, case.now)


def _retrains_used_up(case: Case, history: History, one: Request) -> Held | None:
    return used_up(one.policy.spec, history.acted, "Retrain", case.now)


# --- a rollback ------------------------------------------------------------------------------------------------------


def _pinned(case: Case, history: History, one: Request) -> Held | None:
    if case.spec.promotion.mode == "Pinned":
        return Held(reasons.OVERRIDDEN_BY_PIN, "promotion.mode is Pinned: change spec.promotion.pinned")
    return None


def _nowhere(case: Case, history: History, one: Request) -> Held | None:
    if not ways_back(history):
        return Held(reasons.ROLL_BACK_IMPOSSIBLE, "no approved version was champion before this one")
    return None


def _returned(case: Case, history: History, one: Request) -> Held | None:
    """What goes on after a rollback did not come with a version: each budget would lead one further into the past."""
    if history.champion is None or not history.returned:
        return None
    return Held(reasons.ROLL_BACK_IMPOSSIBLE, gone_back_to(history.champion.version))


def _too_late(case: Case, history: History, one: Request) -> Held | None:
    within = one.policy.spec.actions.roll_back.only_within
    since = None if history.champion is None else history.champion.since
    if since is not None and case.now < since + timedelta_of(within):
        return None
    when = "it is not known when" if since is None else f"it was promoted at {since:%Y-%m-%d %H:%M} UTC and"
    message = f"{when} actions.rollBack.onlyWithin is {within}: the version before has drifted as well"
    return Held(reasons.TOO_LATE_TO_ROLL_BACK, message)


def _rollbacks_used_up(case: Case, history: History, one: Request) -> Held | None:
    return used_up(one.policy.spec, history.acted, "RollBack", case.now)


_ALWAYS = (_killed, _suspended, _edited, _about_another)
RULES: Mapping[Asked, tuple[Callable[[Case, History, Request], Held | None], ...]] = {
    "RollBack": (*_ALWAYS, _pinned, _nowhere, _returned, _too_late, _rollbacks_used_up),
    "Retrain": (*_ALWAYS, _fixed, _frozen, _busy, _cooling, _retrains_used_up),
}


def _order(one: Request) -> tuple[bool, float, str]:
    return (one.action.kind != "RollBack", one.action.at.timestamp(), one.name)
