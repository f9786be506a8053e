"""The log folded into who serves: places, shares, the kill switch, and the route that follows from them alone."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from fiduciary.api.modeldecision import (
    Actor,
    Cause,
    DecidedModelRef,
    Evidence,
    ModelDecisionSpec,
    Reason,
    Traffic,
)
from fiduciary.api.versions import VersionRef
from fiduciary.decide.history import History, after
from fiduciary.decide.serving.routing import routing
from tests.unit.decide.worlds import NAME, T0, UID

ALL, NONE, CANARY = Traffic(champion=100), Traffic(), Traffic(champion=95, challenger=5, mirror=100)


def version(number: int, role: str = "Champion") -> VersionRef:
    return VersionRef.model_validate(
        {"version": str(number), "digest": "sha256:" + f"{number}" * 64, "trainingKey": "sha256:" + f"{number}" * 64,
         "role": role}
    )  # fmt: skip


def told(*entries: tuple[str, VersionRef | None, Traffic | None], **summaries: Any) -> History:
    """A history of (action, version, traffic), an hour apart. ``summaries``: of an action."""
    history = History()
    for number, (action, to, traffic) in enumerate(entries, start=1):
        record = ModelDecisionSpec(
            model_ref=DecidedModelRef(name=NAME, uid=UID),
            sequence=number,
            action=action,  # pyright: ignore[reportArgumentType]
            to=to,
            traffic=traffic,
            cause=Cause(kind="Initial", message=action, reasons=(Reason(reason=action, message=action),)),
            evidence=Evidence(summary=summaries.get(action, {})),
            actor=Actor(),
            previous=history.digest,
            decided_at=T0 + timedelta(hours=number),
        )
        history = after(history, record)
    return history


def shares(history: History) -> dict[str, int] | None:
    """Version -> share of live requests; None: there is no route."""
    route = routing(history)
    return None if route is None else {str(arm.version.version): arm.weight for arm in route.arms}


FIRST = (("Accept", version(1), None), ("Shift", version(1), ALL))
SECOND = ("Accept", version(2, "Challenger"), None)


def test_accepting_gives_a_place_and_no_requests() -> None:
    assert shares(told(FIRST[0])) is None
    assert shares(told(*FIRST)) == {"1": 100}
    assert shares(told(*FIRST, SECOND)) == {"1": 100}


def test_the_number_is_that_of_the_record_that_moved_requests() -> None:
    history = told(*FIRST, SECOND, ("Reject", version(2), None))
    route = routing(history)
    assert route is not None
    assert (route.decision, route.at) == (2, T0 + timedelta(hours=2))
    assert history.sequence == 4


def test_promotions_and_rollbacks_keep_the_way_back() -> None:
    promoted = told(*FIRST, SECOND, ("Promote", version(2), ALL))
    assert shares(promoted) == {"2": 100}
    assert [str(one.version) for one in promoted.former] == ["1"]
    assert promoted.previous_champion == promoted.former[0]
    assert promoted.anchor is not None
    assert promoted.anchor.version == "1"
    third = told(*FIRST, SECOND, ("Promote", version(2), ALL), ("Promote", version(3), ALL))
    assert [one.version for one in third.former] == ["2", "1"]
    back = told(
        *FIRST, SECOND, ("Promote", version(2), ALL), ("Promote", version(3), ALL), ("RollBack", version(2), ALL)
    )
    assert [one.version for one in back.former] == ["3", "1"]
    assert back.previous_champion is not None
    assert back.previous_champion.version == "1", "nobody is sent back to what was left"
    assert [entry.version for entry in back.rejected] == ["3"]
    forth = after_promote(back, 3)
    assert forth.rejected == ()
    assert forth.refused == frozenset()


def after_promote(history: History, number: int) -> History:
    record = ModelDecisionSpec(
        model_ref=DecidedModelRef(name=NAME, uid=UID),
        sequence=history.sequence + 1,
        action="Promote",
        to=version(number),
        traffic=ALL,
        cause=Cause(kind="Pinned"),
        previous=history.digest,
        decided_at=T0 + timedelta(hours=99),
    )
    return after(history, record)


def test_a_kill_lies_over_the_shares_and_a_resume_lifts_it() -> None:
    killed = told(*FIRST, ("Kill", None, NONE), Kill={"action": "Block"})
    route = routing(killed)
    assert route is not None
    assert route.blocked
    assert shares(killed) == {"1": 0}
    assert route.decision == 3
    resumed = told(*FIRST, ("Kill", None, NONE), ("Resume", version(1), ALL), Kill={"action": "Block"})
    assert shares(resumed) == {"1": 100}
    assert routing(resumed) is not None
    assert not routing(resumed).blocked


def test_who_stands_in_is_the_kills_to_say() -> None:
    entries = (*FIRST, SECOND, ("Promote", version(2), ALL), ("Kill", version(1), ALL), ("Promote", version(3), ALL))
    history = told(*entries, Kill={"action": "PreviousChampion"})
    assert shares(history) == {"1": 100}, "whoever is champion meanwhile"
    assert history.champion is not None
    assert history.champion.version == "3"


def test_a_kill_before_anything_was_served_makes_no_route() -> None:
    assert routing(told(FIRST[0], ("Kill", None, None))) is None


def test_serving_that_was_withdrawn_has_no_route_not_even_a_killed_one() -> None:
    assert routing(told(*FIRST, ("Shift", version(1), NONE))) is None
    assert routing(told(*FIRST, ("Kill", None, NONE), ("Shift", version(1), NONE))) is None


def test_a_canary_is_two_arms_and_copies() -> None:
    route = routing(told(*FIRST, SECOND, ("Shift", version(1), CANARY)))
    assert route is not None
    assert [(arm.version.version, arm.weight) for arm in route.arms] == [("1", 95), ("2", 5)]
    assert [(copy.version.version, copy.percent) for copy in route.mirrored] == [("2", 100)]
    assert len(route.answering) == 2


def test_a_challenger_inherits_no_requests() -> None:
    """What one challenger has earned is not the next one's."""
    canary = (*FIRST, SECOND, ("Shift", version(1), CANARY))
    for last in (("Accept", version(3, "Challenger"), None), ("Reject", version(2), None)):
        history = told(*canary, last)
        assert shares(history) == {"1": 100}
        route = routing(history)
        assert route is not None
        assert route.decision == 5, "the route changes, so it has another number"
        assert route.mirrored == ()
    again = told(*canary, ("Accept", version(2, "Challenger"), None))
    assert shares(again) == {"1": 95, "2": 5}, "judged again, it stays what it was"


def test_retired_and_retained() -> None:
    gone = told(*FIRST, ("Retire", None, None), Retire={"deletionPolicy": "Delete"})
    assert routing(gone) is None
    assert gone.routed == 2, "a later route has a larger number"
    left = told(*FIRST, ("Retire", None, None), Retire={"deletionPolicy": "Retain"})
    assert left.retained
    assert shares(left) == {"1": 100}
    back = told(*FIRST, ("Retire", None, None), ("Adopt", version(1), None), Retire={"deletionPolicy": "Retain"})
    assert not back.retained
    assert shares(back) == {"1": 100}
