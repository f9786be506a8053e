"""The rule table alone: each rule by the numbers that it is for, in its order, and on arrays as on numbers."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiduciary.decide import reasons
from fiduciary.decide.experiment.readings import Readings
from fiduciary.decide.experiment.rules import TABLE, judge

SHOWN = Readings(
    step=2,
    last_step=2,
    blocks=60,
    min_blocks=60,
    exposed=True,
    elapsed=7200.0,
    objectives_over=0.0,
    noninferiority_over=0.0,
)
DARK = {"champion_dark": True, "challenger_dark": True}

TRUSTED = {
    "step": 2,
    "blocks": 60,
    "objectives_over": 0.0,
    "refused": False,
    "excess_series": 0,
    "misrouted": 0,
    "ratio_alarm": False,
    "missing_share": 0.0,
}

CASES: list[tuple[str, dict[str, Any]]] = [
    # in the order of the table: each beats all that follow
    (reasons.HARM_AFTER_PROMOTION, {"recorded": True, "promoted": True, "watching": True, "watch_over": 0.0}),
    (reasons.VERDICT_RECORDED, {"recorded": True, "harm_over": 9.0}),
    (reasons.HARM_LATCHED, {"latched": True}),
    (reasons.PODS_FAILED, {"pods_failed": True}),
    (reasons.BREAKER_TRIPPED, {"breaker": True}),
    (reasons.HARM_SHOWN, {"harm_over": 0.0}),
    (reasons.REQUESTS_LOST, {"ratio_alarm": True, "shortfall": True}),
    (reasons.CHALLENGER_DARK, {"challenger_dark": True, "champion_dark": False, "pods_away": False}),
    (reasons.DELETING, {"deleted": True}),  # it began: a verdict, to be recorded
    (reasons.DELETING, {"deleted": True, "step": -1, "blocks": 0}),
    (reasons.SUPERSEDED, {"superseded": True}),
    (reasons.ABORTED, {"aborted": True}),
    (reasons.REJECTED_BY_PERSON, {"rejected": True}),
    (reasons.QUEUED, {"queued": True}),
    (reasons.NEVER_STARTED, {"step": -1, "blocks": 0, "waited": 2_592_000.0}),
    (reasons.NOT_SHOWN, {"elapsed": 2_592_000.0, "objectives_over": -0.001}),
    (reasons.EXPIRED, {"elapsed": 2_851_200.0, **TRUSTED}),
    (reasons.KILL_ENGAGED, {"killed": True}),
    (reasons.PINNED, {"pinned": True}),
    (reasons.NO_DATA, {**DARK, "dark_seconds": 7200.0}),
    (reasons.BOTH_DARK, DARK),
    (reasons.PODS_NOT_READY, {"pods_away": True}),
    (reasons.CHAMPION_DARK, {"champion_dark": True}),
    (reasons.EVIDENCE_REFUSED, {"refused": True}),
    (reasons.TOO_MANY_SERIES, {"excess_series": 1}),
    (reasons.MISROUTED, {"misrouted": 1}),
    (reasons.SAMPLE_RATIO_MISMATCH, {"ratio_alarm": True}),
    (reasons.CHAMPION_MISSING, {"missing_share": 0.0501}),
    (reasons.REPLAY_FAILED, {"replay_failed": True}),
    (reasons.SUSPENDED, {"suspended": True}),
    (reasons.READING_HISTORY, {"unread": True, "step": -1, "blocks": 0}),
    (reasons.GATHERING_OUTCOMES, {"step": 1, "outcomes_first": True, "objectives_over": -0.001}),
    (reasons.WAITING_FOR_CAPACITY, {"step": 1, "capacity": False}),
    (reasons.STEP_ENTERED, {"step": -1, "blocks": 0}),
    (reasons.ROUTE_NOT_CONFIRMED, {"confirmed": False}),
    (reasons.STEP_ENTERED, {"step": 1}),
    (reasons.GATHERING_EVIDENCE, {"objectives_over": -0.001}),
    (reasons.MIN_DURATION, {"elapsed": 3599.0}),
    (reasons.PROMOTION_ADVISED, {"enforced": False}),
    (reasons.AWAITING_APPROVAL, {"approvals_needed": 2, "approvals": 1}),
    (reasons.CALENDAR_UNKNOWN, {"calendar_unknown": True}),
    (reasons.IN_FREEZE, {"in_freeze": True}),
    (reasons.NO_PROMOTE_WINDOW, {"in_window": True}),
    (reasons.WAITING_FOR_CAPACITY, {"capacity_full": False}),
    (reasons.PROMOTED, {}),
]


@pytest.mark.parametrize(("reason", "change"), CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)])
def test_each_rule_is_reached_by_what_it_is_for(reason: str, change: dict[str, Any]) -> None:
    assert judge(replace(SHOWN, **change)).reason == reason


def test_the_cases_are_the_table() -> None:
    # These are about experiments that have not begun, and have tests of their own
    before = (reasons.INFEASIBLE, reasons.NOT_A_REFRESH)
    assert [reason for reason, _ in CASES] == [r.reason for r in TABLE if r.reason not in before]


@pytest.mark.parametrize("index", range(len(CASES) - 1))
def test_an_earlier_rule_beats_every_later_one(index: int) -> None:
    reason, change = CASES[index]
    for later, other in CASES[index + 1 :]:
        both = {**other, **change}
        if any(name in other and other[name] != value for name, value in change.items()):
            continue  # they say different things about the same number
        assert judge(replace(SHOWN, **both)).reason == reason, later


def test_an_infeasible_objective_is_refused_before_it_costs_a_request_and_never_after() -> None:
    before = judge(replace(SHOWN, step=-1, infeasible=True))
    assert (before.reason, before.verdict, before.final) == (reasons.INFEASIBLE, "KeepChampion", True)
    assert judge(replace(SHOWN, infeasible=True)).reason == reasons.PROMOTED


def test_a_refresh_of_another_configuration_is_refused_before_it_costs_a_request_and_never_after() -> None:
    before = judge(replace(SHOWN, step=-1, relabelled=True))
    assert (before.reason, before.verdict, before.final) == (reasons.NOT_A_REFRESH, "KeepChampion", True)
    assert judge(replace(SHOWN, relabelled=True)).reason == reasons.PROMOTED


def test_harm_after_promotion_needs_the_window() -> None:
    promoted = replace(SHOWN, recorded=True, promoted=True, watch_over=5.0, breaker=True, pods_failed=True)
    assert judge(promoted).reason == reasons.VERDICT_RECORDED
    assert judge(replace(promoted, watching=True)).verdict == "RollBack"


def test_harm_found_in_the_window_stays_found_when_the_window_ends_before_its_record_exists() -> None:
    found = replace(SHOWN, recorded=True, promoted=True, latched=True)
    assert judge(found).verdict == "RollBack"
    assert judge(replace(found, promoted=False)).reason == reasons.VERDICT_RECORDED  # gone back on: carried out


def test_blindness_does_not_end_because_the_challenger_without_traffic_counts_as_seen() -> None:
    dark = judge(replace(SHOWN, **DARK))
    assert (dark.reason, dark.exposure) == (reasons.BOTH_DARK, "Zero")
    after = judge(replace(SHOWN, champion_dark=True, challenger_dark=False, exposed=False))
    assert (after.reason, after.exposure) == (reasons.BOTH_DARK, "Zero")


def test_no_hold_outlives_max_duration() -> None:
    late = replace(SHOWN, elapsed=2_592_000.0)
    for change in ({"ratio_alarm": True}, {"misrouted": 1}, {"missing_share": 0.2}, {"objectives_over": -1.0},
                   {"refused": True}, {"excess_series": 1}):  # fmt: skip
        for other in ({}, {"killed": True}, {"pinned": True}):
            assert judge(replace(late, **change, **other)).reason == reasons.NOT_SHOWN, change
    for change in ({"suspended": True}, {"enforced": False}, {"confirmed": False}, {"killed": True}, {"pinned": True}):
        assert judge(replace(late, **change)).reason == reasons.EXPIRED, change


def test_people_the_calendar_and_pods_have_a_stated_grace_and_no_more() -> None:
    late, end = replace(SHOWN, elapsed=2_592_000.0), replace(SHOWN, elapsed=2_851_200.0)
    for change in ({"in_freeze": True}, {"approvals_needed": 1}, {"in_window": True}, {"capacity_full": False}):
        assert not judge(replace(late, **change)).final, change
        gone = judge(replace(end, **change))
        assert (gone.reason, gone.verdict, gone.final) == (reasons.EXPIRED, "KeepChampion", True), change


def test_waiting_before_the_start_ends() -> None:
    before = replace(SHOWN, step=-1, blocks=0, elapsed=0.0, waited=2_592_000.0)
    for change in ({"pinned": True}, {"killed": True}, {"capacity": False}, {"suspended": True}):
        assert judge(replace(before, **change)).reason == reasons.NEVER_STARTED, change
        assert not judge(replace(before, **change, waited=2_591_999.0)).final, change


def test_deleting_what_began_is_a_verdict() -> None:
    began = judge(replace(SHOWN, deleted=True, step=0, blocks=0))
    assert (began.reason, began.verdict, began.final) == (reasons.DELETING, "KeepChampion", True)
    never = judge(replace(SHOWN, deleted=True, step=-1, blocks=0))
    assert (never.reason, never.verdict, never.final) == (reasons.DELETING, None, False)


def test_a_request_for_signatures_freezes_what_was_shown() -> None:
    moved_on = replace(SHOWN, requested=True, objectives_over=-2.0, approvals_needed=1)
    assert judge(moved_on).reason == reasons.AWAITING_APPROVAL
    assert judge(replace(moved_on, approvals=1)).reason == reasons.PROMOTED
    assert judge(replace(moved_on, approvals=1, harm_over=0.0)).verdict == "RollBack"
    assert judge(replace(moved_on, approvals=1, ratio_alarm=True)).verdict == "Hold"


@pytest.mark.parametrize(
    "change",
    [
        {"objectives_over": -1e-9},
        {"noninferiority_over": -1e-9},
        {"objectives_over": math.nan},
        {"step": 1},
        {"blocks": 59},
        {"elapsed": 3599.9},
        {"ratio_alarm": True},
        {"misrouted": 1},
        {"suspended": True},
        {"enforced": False},
        {"approvals_needed": 1},
        {"capacity_full": False},
        {"confirmed": False},
    ],
)
def test_nothing_is_promoted_that_lacks_one_thing(change: dict[str, Any]) -> None:
    assert judge(SHOWN).verdict == "Promote"
    assert judge(replace(SHOWN, **change)).verdict != "Promote"


NUMBERS = {
    "step": st.integers(-1, 2),
    "last_step": st.just(2),
    "blocks": st.integers(0, 70),
    "min_blocks": st.just(60),
    "misrouted": st.integers(0, 1),
    "excess_series": st.integers(0, 1),
    "missing_share": st.sampled_from([0.0, 0.05, 0.2]),
    "approvals": st.integers(0, 2),
    "approvals_needed": st.integers(0, 2),
    "elapsed": st.sampled_from([0.0, 3600.0, 2_592_000.0, 2_851_200.0]),
    "waited": st.sampled_from([0.0, 2_592_000.0]),
    "longest": st.just(2_851_200.0),
    "min_duration": st.just(3600.0),
    "max_duration": st.just(2_592_000.0),
    "dark_seconds": st.sampled_from([0.0, 7200.0]),
    "max_hold": st.just(7200.0),
    **{name: st.sampled_from([-math.inf, -1.0, 0.0, math.inf]) for name in (
        "harm_over", "watch_over", "objectives_over", "noninferiority_over")},
}  # fmt: skip
ANY = st.builds(Readings, **{f.name: NUMBERS.get(f.name, st.booleans()) for f in fields(Readings)})


@given(ANY)
@settings(max_examples=500, deadline=None)
def test_some_rule_always_applies_and_the_words_of_a_verdict_fit(readings: Readings) -> None:
    rule = judge(readings)
    if rule.verdict == "Promote":
        shown = readings.objectives_over >= 0.0 and readings.noninferiority_over >= 0.0
        assert shown or (readings.requested and readings.approvals >= readings.approvals_needed >= 1)
        assert not any((readings.ratio_alarm, readings.misrouted, readings.recorded, readings.suspended))
        assert readings.harm_over < 0.0
        assert not readings.latched
    if rule.verdict in ("RollBack", "KeepChampion"):
        assert rule.exposure == "Zero"
        assert rule.final
    if readings.recorded and not (readings.promoted and (readings.watching or readings.latched)):
        assert rule.reason == reasons.VERDICT_RECORDED


@given(st.lists(ANY, min_size=1, max_size=30))
@settings(max_examples=100, deadline=None)
def test_arrays_are_judged_as_numbers_are(many: list[Readings]) -> None:
    columns: Any = Readings(**{f.name: np.array([getattr(r, f.name) for r in many]) for f in fields(Readings)})
    found = np.full(len(many), -1)
    for index, rule in reversed(list(enumerate(TABLE))):
        found[np.asarray(rule.applies(columns))] = index
    assert [TABLE[i] for i in found] == [judge(r) for r in many]
