"""Deletion of a FinancialModel: the route, what serves, aliases, a record, then the finalizer."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from fiduciary.api.meta import FINALIZER
from fiduciary.decide import aliases, reasons, records
from fiduciary.decide.decision import Event, Mirror
from fiduciary.decide.preflight import registry_taken
from fiduciary.decide.serving import objects
from fiduciary.decide.serving.ability import Able, ability
from fiduciary.decide.serving.retained import retained, retained_route
from fiduciary.decide.serving.verdicts import ended_by_deletion
from fiduciary.decide.step import Note, Step

if TYPE_CHECKING:
    from fiduciary.decide.case import Case
    from fiduciary.decide.decision import Child
    from fiduciary.decide.history import History

PATIENCE = timedelta(minutes=5)
"""How long an unreachable MLflow may hold a deletion up; afterwards a record says what was left there."""
RETRY = timedelta(seconds=5)


def retire(case: Case) -> Step:
    """What is next while the object is being deleted. Children go with their owner reference."""
    if case.world.namespace_terminating:
        # No record can be created here any more, and a finalizer would only keep the namespace from going.
        return Step(finalizer="Remove", mirror=_removal(case))
    if FINALIZER not in case.world.model.metadata.finalizers:
        return Step(note=Note(reasons.DELETING, "nothing of the operator's holds it; other finalizers do"))
    if _recorded(case):
        return Step(finalizer="Remove")
    if case.spec.deletion_policy == "Retain" and (ending := ended_by_deletion(case)) is not None:
        return ending
    serving = _left_behind(case) if case.spec.deletion_policy == "Retain" else _taken_away(case)
    if serving is not None:
        return serving
    left: list[str] = []
    if case.spec.deletion_policy == "Delete" and may_hold_aliases(case):
        registry = case.registry
        if registry is None or not registry.reachable:
            deleted = case.world.model.metadata.deletion_timestamp or case.now
            if case.now < deleted + PATIENCE:
                why = registry.message if registry is not None else "MLflow was not asked yet"
                message = f"waits until {deleted + PATIENCE:%H:%M:%S} UTC for MLflow, to remove its aliases: {why}"
                return Step(note=Note(reasons.DELETING, message), wake_at=case.now + RETRY)
            left = [f"{alias} of {case.registered_model}" for alias in aliases.wanted(case.history)]
        elif (removal := _removal(case)) is not None:
            return Step(
                note=Note(reasons.DELETING, "removes its aliases in MLflow"), mirror=removal, wake_at=case.now + RETRY
            )
    policy = case.spec.deletion_policy
    message = f"deleted with deletionPolicy {policy}" + (f"; left in MLflow: {', '.join(left)}" if left else "")
    entry = records.record(
        case,
        "Retire",
        records.cause(case, "Deletion", message),
        summary={"deletionPolicy": policy, "left": left},
        before=case.history.champion,
    )
    return Step(record=entry, finalizer="Remove", events=(Event("Normal", reasons.RETIRED, message),))


def silenced(case: Case, history: History) -> tuple[Child, ...]:
    """A kill reaches what a model that goes leaves behind, also when it holds nothing of the operator's any more."""
    able = ability(case)
    kill = history.kill
    if case.spec.deletion_policy != "Retain" or kill is None or not kill.engaged or not isinstance(able, Able):
        return ()
    return retained_route(case, able, history)


def _taken_away(case: Case) -> Step | None:
    """The route first, so that nobody is sent to what goes; then what serves. None where all of it is going."""
    route = case.world.route
    if route is not None:
        children = () if route.deleting else (objects.route_deletion(route),)
        return Step(note=Note(reasons.DELETING, f"HTTPRoute {route.name} goes first"), children=children)
    gone = objects.everything(case)
    if not gone:
        return None
    return Step(note=Note(reasons.DELETING, "what served is deleted"), children=gone, again=True)


def _left_behind(case: Case) -> Step | None:
    """Serving goes on without the model: its objects lose their owner. None where they have none any more."""
    able = ability(case)
    if able is None or not (case.world.deployments or case.world.route is not None):
        return None
    if not isinstance(able, Able):
        # What cannot be described cannot be left behind, and must not go with its owner.
        todo = "mend that, or set deletionPolicy to Delete"
        message = f"serving cannot be left behind (deletionPolicy Retain): {able.message}; {todo}"
        return Step(note=Note(able.reason, message, stalled=True), wake_at=case.now + PATIENCE)
    children = retained(case, able, case.history)
    if not children:
        return None
    message = "serving is left behind (deletionPolicy Retain): its objects lose their owner"
    return Step(note=Note(reasons.DELETING, message), children=children, again=True)


def may_hold_aliases(case: Case) -> bool:
    """Whether aliases in MLflow may be ours to take away: not before a verdict, nor in another model's name."""
    return bool(case.history.verdicts) and registry_taken(case) is None


def _recorded(case: Case) -> bool:
    """Whether the newest record retires this very object: its UID says so, no clock."""
    last = case.history.last
    return last is not None and last.action == "Retire" and case.history.owner == case.world.model.metadata.uid


def _removal(case: Case) -> Mirror | None:
    """Take away those of our aliases that still name our versions; somebody else's are theirs."""
    registry = case.registry
    if registry is None or case.spec.deletion_policy == "Retain" or not may_hold_aliases(case):
        return None
    ours = {verdict.version.version for verdict in case.history.verdicts.values() if verdict.version is not None}
    found = tuple(
        alias for alias in (aliases.CHAMPION, aliases.CHALLENGER) if registry.aliases.get(alias) in ours - {None}
    )
    if not found:
        return None
    return Mirror(case.spec.registry.connection, case.registered_model, delete_aliases=found)
