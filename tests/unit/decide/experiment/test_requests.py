"""Requests: steps, harm, non-inferiority, breakers, sample ratio, missing data, played minute by minute."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from fiduciary.api.conditions import find
from fiduciary.decide import reasons
from fiduciary.decide.experiment.begin import begin
from fiduciary.decide.experiment.world import (
    TRANSPORT,
    Anchor,
    ArmCounts,
    Carried,
    ClosedBlock,
    GoneBack,
    Health,
    Live,
    LiveCounts,
    PodFacts,
    Recorded,
    Spending,
)
from fiduciary.evidence.blocks import Counts
from tests.unit.decide.experiment.trials import T0, Trial, past

EASY = Spending(anchors=(Anchor("errors", 0.02),))  # a margin of .005
PODS = PodFacts(ready=1)


def easy(**parts: Any) -> Trial:
    """An experiment whose margin is large enough to be shown within an hour."""
    return Trial(spending=EASY, **parts)


def test_an_equal_challenger_walks_through_the_steps_and_is_promoted() -> None:
    trial = easy(bad=(0.0, 0.0))
    first = trial.evaluate()
    assert (first.ruling.reason, first.traffic.mirror, first.traffic.challenger) == (reasons.STEP_ENTERED, 100, 0)
    last = trial.until(reasons.PROMOTED)
    assert [d.traffic.step for d in trial.decisions if d.ruling.reason == reasons.STEP_ENTERED] == [
        "shadow", "canary", "half"
    ]  # fmt: skip
    assert last.ruling.verdict == "Promote"
    assert (last.traffic.champion, last.traffic.challenger) == (0, 100)
    assert "errors not worse 3." in last.ruling.message
    assert last.status.phase == "Promoted"


def test_steps_are_left_on_blocks_at_their_weights_only() -> None:
    trial = easy()
    trial.evaluate()
    trial.follows = False  # the gateway does not take the new weights
    trial.until(reasons.STEP_ENTERED)
    stuck = trial.minutes(5)
    assert stuck.ruling.reason == reasons.ROUTE_NOT_CONFIRMED
    assert "asks for weight 10" in stuck.ruling.message
    assert trial.state is not None
    assert trial.state.course.blocks == 0


def test_a_step_is_not_entered_before_its_capacity_is_ready() -> None:
    trial = easy(ready=(4, 0))
    held = trial.evaluate()
    assert (held.ruling.reason, held.state, held.traffic.challenger) == (reasons.WAITING_FOR_CAPACITY, None, 0)
    trial.ready = (4, 3)  # copies of all requests load as much as the champion's four pods
    assert trial.evaluate().ruling.reason == reasons.WAITING_FOR_CAPACITY
    trial.ready = (4, 4)
    assert trial.evaluate().ruling.reason == reasons.STEP_ENTERED
    trial.until(reasons.STEP_ENTERED)  # canary
    trial.ready = (4, 1)  # 10 % of four pods is one
    trial.minutes(3)
    assert trial.decisions[-1].ruling.reason == reasons.WAITING_FOR_CAPACITY  # half needs two
    trial.ready = (4, 2)
    assert trial.evaluate().traffic.step == "half"


def test_a_promotion_needs_as_many_pods_as_the_champion_has() -> None:
    trial = easy(bad=(0.0, 0.0))
    trial.evaluate()
    trial.until(reasons.STEP_ENTERED)
    trial.until(reasons.STEP_ENTERED)
    trial.ready = (4, 3)
    assert "3 pods of the challenger" in trial.until(reasons.WAITING_FOR_CAPACITY).ruling.message
    trial.ready = (4, 4)
    assert trial.evaluate().ruling.verdict == "Promote"


def test_min_duration_is_waited_for() -> None:
    trial = easy(bad=(0.0, 0.0), spec={"stopping": {"minDuration": "2h", "maxDuration": "1d"}})
    trial.evaluate()
    trial.until(reasons.MIN_DURATION)
    trial.until(reasons.PROMOTED)
    assert trial.now == T0 + timedelta(hours=2)


def test_five_percent_errors_are_rolled_back_within_minutes_and_stay_so() -> None:
    trial = easy(history=(past(0.005, 60),))
    trial.evaluate()
    trial.until(reasons.STEP_ENTERED)
    trial.bad = (0.005, 0.05)
    before = trial.now
    found = trial.until(reasons.HARM_SHOWN, 20)
    assert trial.now - before <= timedelta(minutes=8)  # at a tenth of 300 requests a minute
    assert (found.ruling.verdict, found.ruling.test, found.traffic.challenger) == ("RollBack", "errors", 0)
    assert found.status.harm is not None
    assert found.status.harm.test == "errors"
    trial.bad = (0.5, 0.0)  # whatever the numbers say now
    for _ in range(30):
        kept = trial.minute()
        assert (kept.ruling.verdict, kept.ruling.reason, kept.traffic.challenger) == ("RollBack", "HarmShown", 0)
        assert kept.ruling.message == found.ruling.message
    trial.record()
    assert trial.minutes(3).ruling.reason == reasons.VERDICT_RECORDED
    assert trial.status.phase == "RolledBack"
    assert trial.status.verdict == "RollBack"


def test_harm_in_the_shadow_is_found_before_anybody_was_served_by_it() -> None:
    trial = easy(bad=(0.005, 0.2), spec={"traffic": {"steps": [{"name": "shadow", "mirror": 100, "minBlocks": 30}]}})
    trial.evaluate()
    found = trial.until(reasons.HARM_SHOWN, 10)
    assert all(d.traffic.challenger == 0 for d in trial.decisions)
    assert found.ruling.verdict == "RollBack"


def test_only_blocks_at_the_final_weight_count_for_promotion() -> None:
    trial = easy(bad=(0.0, 0.0))
    trial.evaluate()
    trial.until(reasons.STEP_ENTERED)
    trial.until(reasons.STEP_ENTERED)
    assert trial.state is not None
    guardrail = trial.state.evidence.guardrails[0]
    assert guardrail.final_challenger == Counts(0, 0)
    assert guardrail.noninferiority is not None
    assert guardrail.noninferiority.log_e == 0.0
    assert guardrail.seen_challenger.trials == 3 * 300 + 3 * 30


def test_a_challenger_at_the_margin_is_kept_out_at_max_duration() -> None:
    trial = easy(bad=(0.02, 0.025), history=(past(0.02, 60),), spec={"stopping": {"maxDuration": "45m"}})
    trial.evaluate()
    last = trial.until(reasons.NOT_SHOWN)
    assert trial.now == T0 + timedelta(minutes=45)
    assert (last.ruling.verdict, last.traffic.challenger) == ("KeepChampion", 0)
    assert "non-inferiority of errors" in last.ruling.message


# --- margins ---------------------------------------------------------------------------------------------------------


def terms(spending: Spending, rate: float = 0.02) -> Any:
    trial = Trial(spending=spending, history=(past(rate, 60),))
    trial.evaluate()
    assert trial.state is not None
    return trial.state.terms


def test_margins_are_measured_from_the_anchor_and_less_what_is_consumed() -> None:
    assert terms(Spending()).guardrails[0].margin == pytest.approx(0.005)  # the first champion is the first anchor
    assert terms(Spending(anchors=(Anchor("errors", 0.012),))).guardrails[0].margin == pytest.approx(0.003)
    consumed = Spending(anchors=(Anchor("errors", 0.012, 0.002),))
    assert terms(consumed).guardrails[0].margin == pytest.approx(0.001)
    better = Spending(anchors=(Anchor("errors", 0.012, -0.002),))
    assert terms(better).guardrails[0].margin == pytest.approx(0.003)


def test_a_margin_that_is_used_up_says_so_and_a_better_challenger_gives_it_back() -> None:
    used_up = Spending(anchors=(Anchor("errors", 0.02, 0.006),))
    trial = Trial(spending=used_up, bad=(0.026, 0.026), history=(past(0.026, 60),))
    said = trial.evaluate()
    found = next(c for c in said.status.conditions if c.type == "Underpowered")
    assert (found.status, found.reason) == ("True", reasons.MARGIN_CONSUMED)
    trial.bad = (0.026, 0.0)
    assert trial.until(reasons.PROMOTED).ruling.verdict == "Promote"


def test_twenty_slightly_worse_refreshes_do_not_pass() -> None:
    anchor = Anchor("errors", 0.02)
    for _ in range(20):
        trial = Trial(
            spending=Spending(anchors=(anchor,)),
            bad=(0.02 + max(0.0, anchor.differences), 0.0215 + max(0.0, anchor.differences)),
            history=(past(0.02, 60),),
            spec={"stopping": {"maxDuration": "45m"}},
            per_minute=1200,
        )
        trial.evaluate()
        while not trial.decisions[-1].ruling.rule.final:
            trial.minute()
        if trial.decisions[-1].ruling.verdict == "Promote":
            anchor = replace(anchor, differences=anchor.differences + 0.0015)
    assert anchor.differences <= 0.005


# --- no data ---------------------------------------------------------------------------------------------------------


def running(duration: str = "1d", **parts: Any) -> Trial:
    """In the last step, with no promotion before its end."""
    stopping = {"minDuration": duration, "maxDuration": duration}
    trial = easy(history=(past(0.005, 60),), spec={"stopping": stopping}, **parts)
    trial.evaluate()
    trial.until(reasons.STEP_ENTERED)
    trial.until(reasons.STEP_ENTERED)
    trial.minutes(3)
    return trial


def test_both_arms_dark_take_the_weight_away_and_freeze_evidence_and_light_gives_it_back() -> None:
    trial = running()
    assert trial.state is not None
    before = trial.state.evidence
    trial.seen = False
    assert trial.minute().ruling.reason == reasons.GATHERING_EVIDENCE  # one closing is not dark yet
    dark = trial.minute()
    assert (dark.ruling.reason, dark.ruling.verdict, dark.traffic.challenger) == (reasons.BOTH_DARK, "Hold", 0)
    assert dark.status.data_health.state == "BothDark"
    trial.minutes(20)
    assert trial.state.evidence == before
    trial.seen = True
    back = trial.minute()
    assert back.traffic.challenger == 50
    assert trial.state.evidence.last > before.last + 20
    merged = trial.state.evidence.guardrails[0]
    assert merged.final_champion == before.guardrails[0].final_champion  # the gap is folded for harm only
    assert merged.seen_champion.trials > before.guardrails[0].seen_champion.trials
    assert trial.state.evidence.ratio is not None
    assert before.ratio is not None
    assert trial.state.evidence.ratio.log_e == before.ratio.log_e
    assert trial.state.course.blocks == 3


def test_weight_does_not_come_back_while_blind() -> None:
    """Once nothing is sent to the challenger the counters call it seen: that is no light (counters: 0 missed)."""
    trial = running()
    trial.health = Health(2, 2)
    assert trial.evaluate().traffic.challenger == 0
    since = trial.now
    for _ in range(119):
        trial.now += timedelta(minutes=1)
        trial.health = Health(trial.health.champion_missed + 1, 0)
        blind = trial.evaluate()
        assert (blind.ruling.reason, blind.traffic.challenger) == (reasons.BOTH_DARK, 0)
        assert blind.status.data_health.state == "BothDark"
    trial.now = since + timedelta(hours=2)
    assert trial.evaluate().ruling.reason == reasons.NO_DATA


def test_the_champion_is_kept_after_max_hold_without_data() -> None:
    trial = running()
    trial.seen = False
    trial.until(reasons.BOTH_DARK)
    since = trial.now
    last = trial.until(reasons.NO_DATA)
    assert trial.now - since == timedelta(hours=2)
    assert (last.ruling.verdict, last.traffic.challenger) == ("KeepChampion", 0)


def test_only_the_challenger_dark_rolls_back() -> None:
    trial = running()
    trial.health = replace(trial.health, challenger_missed=2)
    found = trial.evaluate()
    assert (found.ruling.reason, found.ruling.verdict) == (reasons.CHALLENGER_DARK, "RollBack")


def test_a_challenger_without_traffic_is_not_dark() -> None:
    trial = running()
    trial.seen = False
    trial.until(reasons.BOTH_DARK)
    trial.health = replace(trial.health, champion_missed=0)  # it comes back first, and nothing is sent to the other one
    assert trial.evaluate().ruling.verdict is None


def test_only_the_champion_dark_holds() -> None:
    trial = running()
    trial.health = replace(trial.health, champion_missed=2)
    found = trial.evaluate()
    assert (found.ruling.reason, found.ruling.verdict, found.traffic.challenger) == (reasons.CHAMPION_DARK, "Hold", 50)


def test_zero_increments_are_data() -> None:
    trial = running(per_minute=0)
    assert trial.minutes(5).ruling.reason == reasons.GATHERING_EVIDENCE


def test_harm_that_happened_in_a_gap_is_found_when_it_closes() -> None:
    trial = running()
    trial.seen = False
    trial.minutes(3)
    trial.bad, trial.seen, trial.route = (0.005, 0.4), True, replace(trial.route, weight=50)
    assert trial.minute().ruling.reason == reasons.HARM_SHOWN


def test_too_many_series_hold() -> None:
    trial = running()
    trial.health = replace(trial.health, excess_series=7, message="pods come and go")
    assert trial.evaluate().ruling.reason == reasons.TOO_MANY_SERIES


# --- what cannot be ---------------------------------------------------------------------------------------------------


def block(k: int, tests: tuple[ArmCounts, ...], **parts: Any) -> ClosedBlock:
    return ClosedBlock(k, k, 50, 0, (150, 150), tests, **parts)


def test_impossible_blocks_are_refused_aloud_and_fold_nothing() -> None:
    trial = running()
    assert trial.state is not None
    before, k = trial.state.evidence, trial.state.evidence.last + 1
    for bad in (
        block(k, (ArmCounts("errors", Counts(150, 151), Counts(150, 0)),)),
        block(k, (ArmCounts("other", Counts(150, 1), Counts(150, 0)),)),
        block(k + 1, (ArmCounts("errors", Counts(150, 1), Counts(150, 0)),)),
        block(k, (ArmCounts("errors", Counts(150, 1), Counts(150, 0)),), misrouted=-1),
    ):
        trial.blocks = (bad,)
        found = trial.evaluate()
        assert (found.ruling.reason, found.ruling.verdict) == (reasons.EVIDENCE_REFUSED, "Hold")
        assert trial.state.evidence == before


def test_a_block_that_was_folded_is_not_folded_again() -> None:
    trial = running()
    assert trial.state is not None
    before = trial.state.evidence
    trial.blocks = (block(before.last, (ArmCounts("errors", Counts(150, 150), Counts(150, 150)),)),)
    trial.evaluate()
    assert trial.state.evidence == before


# --- breakers --------------------------------------------------------------------------------------------------------

BREAKER = [{"metric": "ErrorRate", "above": "0.25", "normal": "0.01"}]


@pytest.mark.parametrize(
    ("challenger", "champion", "trips"),
    [
        (Counts(30, 15), Counts(30, 0), True),
        (Counts(3, 3), Counts(30, 0), False),  # three unlucky requests
        (Counts(30, 15), Counts(30, 15), False),  # an outage that both share
        (Counts(300, 60), Counts(300, 0), False),  # beyond luck, not beyond `above`
        (Counts(0, 0), Counts(0, 0), False),
    ],
)
def test_breakers_see_what_is_not_settled(challenger: Counts, champion: Counts, trips: bool) -> None:
    trial = easy(spec={"circuitBreakers": BREAKER})
    trial.evaluate()
    trial.live = Live((LiveCounts(0, champion, challenger),), PODS, PODS)
    found = trial.evaluate()
    assert (found.ruling.reason == reasons.BREAKER_TRIPPED) is trips
    if trips:
        assert (found.ruling.verdict, found.traffic.challenger) == ("RollBack", 0)
        assert "15 of 30 requests" in found.ruling.message


@pytest.mark.parametrize("change", [{"normal": "0"}, {"above": "1"}, {"above": "1.5"}])
def test_a_breaker_that_can_never_trip_is_refused_aloud(change: dict[str, str]) -> None:
    """Admission refuses it; whatever gets past it must not look like a breaker that watches."""
    trial = easy(spec={"circuitBreakers": [{**BREAKER[0], **change}]})
    found = trial.evaluate()
    assert (found.ruling.reason, found.traffic.challenger, found.state) == (reasons.EVIDENCE_REFUSED, 0, None)
    assert "circuitBreakers[0]" in found.ruling.message


@pytest.mark.parametrize(
    ("champion", "challenger", "trips"),
    [
        (PODS, PodFacts(1, restarts=1), True),
        (PODS, PodFacts(1, out_of_memory=1), True),
        (PODS, PodFacts(0), False),  # the cluster may have taken it
        (PODS, PodFacts(0, unready=1), False),  # not yet
        (PodFacts(1, restarts=1), PodFacts(1, restarts=1), False),  # the node restarted
        (PodFacts(0), PodFacts(0), False),
    ],
)
def test_breakers_on_pods_are_always_on(champion: PodFacts, challenger: PodFacts, trips: bool) -> None:
    trial = easy()
    trial.evaluate()
    trial.live = Live((), champion, challenger)
    assert (trial.evaluate().ruling.reason == reasons.PODS_FAILED) is trips


GONE = PodFacts(0, told="spx-volatility-8-abc: it is being deleted")


@pytest.mark.parametrize("step", ["shadow", "half"])
def test_pods_that_the_cluster_takes_are_waited_for_without_requests_and_the_share_comes_back(step: str) -> None:
    trial = easy()
    trial.evaluate()
    while trial.decisions[-1].status.step != step:
        trial.minute()
    share = trial.decisions[-1].traffic
    trial.live, trial.ready = Live((), PODS, GONE), (2, 0)
    for _ in range(5):
        found = trial.minute()
        assert (found.ruling.reason, found.ruling.verdict) == (reasons.PODS_NOT_READY, "Hold")
        assert (found.traffic.challenger, found.traffic.mirror) == (0, 0)
    assert "it is being deleted" in found.ruling.message
    assert "maxDuration, which ends at 2026-11-25 12:00 UTC" in found.ruling.message
    trial.live = Live((), PODS, PODS)
    if step == "shadow":  # copies of all requests need as many pods as the champion has
        trial.ready = (2, 1)
        assert trial.minute().ruling.reason == reasons.PODS_NOT_READY
    trial.ready = (2, 1 if step == "half" else 2)
    assert trial.minute().traffic == share
    trial.ready = (2, 2)
    assert trial.until(reasons.PROMOTED).ruling.verdict == "Promote"


def test_pods_that_run_and_stay_unready_roll_back_after_two_scrapes_and_not_before() -> None:
    trial = running()
    trial.live = Live((), PODS, PodFacts(0, unready=1, told="spx-volatility-8-abc: Running"))
    trial.now += timedelta(seconds=1)
    begun = trial.evaluate()
    assert (begun.ruling.reason, begun.traffic.challenger) == (reasons.PODS_NOT_READY, 0)
    assert begun.wake_at <= trial.now + timedelta(seconds=30)  # nobody calls before
    trial.now += timedelta(seconds=29)
    assert trial.evaluate().ruling.verdict == "Hold"
    trial.now += timedelta(seconds=1)
    found = trial.evaluate()
    assert (found.ruling.reason, found.ruling.verdict) == (reasons.PODS_FAILED, "RollBack")
    assert "for 30 s: spx-volatility-8-abc" in found.ruling.message


def test_a_pod_that_is_ready_again_in_time_begins_anew() -> None:
    trial = running()
    unready, well = Live((), PODS, PodFacts(0, unready=1)), Live((), PODS, PODS)
    for live in (unready, well, unready, well):
        trial.live = live
        trial.now += timedelta(seconds=20)
        assert trial.evaluate().ruling.verdict != "RollBack"


def test_pods_that_come_and_go_all_day_do_not_fill_the_log() -> None:
    """Each change of the share is a record."""
    trial = running(duration="3d")
    shares: list[int] = []
    for minute in range(1440):
        there = minute % 3 > 0
        trial.live = Live((), PODS, PODS if there else GONE)
        trial.now += timedelta(minutes=1)
        decision = trial.evaluate()
        assert decision.traffic is not None
        shares.append(decision.traffic.challenger)
    changes = sum(one != other for one, other in itertools.pairwise(shares))
    assert shares[2] == 50, "the first time it comes back at once"
    assert changes <= 8
    trial.live = Live((), PODS, PODS)
    for _ in range(7):
        trial.now += timedelta(hours=1)
        decision = trial.evaluate()
    assert decision.traffic is not None
    assert decision.traffic.challenger == 50


def test_pods_that_end_while_others_are_waited_for_roll_back() -> None:
    """The route sends nothing any more, and what the pod does is still a verdict."""
    trial = running()
    trial.live = Live((), PODS, GONE)
    trial.minute()
    trial.live = Live((), PODS, PodFacts(0, restarts=1))
    assert trial.minute().ruling.reason == reasons.PODS_FAILED


def test_waiting_for_pods_ends_with_max_duration() -> None:
    trial = running(duration="1h")
    trial.live, trial.ready = Live((), PODS, GONE), (1, 0)
    found = trial.until(reasons.NOT_SHOWN, 70)
    assert found.ruling.verdict == "KeepChampion"


def test_a_challenger_without_pods_is_not_dark() -> None:
    """The model could not take its share away, so that it is sent requests and has no metrics."""
    trial = running()
    trial.live, trial.follows, trial.health = Live((), PODS, GONE), False, Health(challenger_missed=3)
    assert trial.evaluate().ruling.reason == reasons.PODS_NOT_READY


def test_a_block_without_pods_is_no_evidence_about_the_version() -> None:
    trial = running()
    assert trial.state is not None
    before, course = trial.state.evidence, trial.state.course
    lost = (ArmCounts("errors", Counts(150, 1), Counts(150, 150)),)
    trial.blocks = (block(before.last + 1, lost, absent=True),)
    assert trial.evaluate().ruling.verdict != "RollBack"
    after = trial.state.evidence
    assert (after.last, after.requests) == (before.last + 1, before.requests + 300)
    one, other = before.guardrails[0], after.guardrails[0]
    assert other.final_blocks == one.final_blocks
    assert other.seen_challenger == one.seen_challenger
    assert other.harm_log_e <= one.harm_log_e
    assert trial.state.course.blocks == course.blocks


@pytest.mark.parametrize("facts", [GONE, PodFacts(0, unready=1)])
def test_a_new_champion_without_pods_is_waited_for_a_while_only(facts: PodFacts) -> None:
    """Clients have nobody else: the cluster has the time that it takes to make a pod anew, the version two scrapes."""
    trial = promoted()
    limit = 30 if facts.unready else 120
    trial.live = Live((), PODS, facts)
    trial.now += timedelta(seconds=1)
    assert trial.evaluate().ruling.reason == reasons.VERDICT_RECORDED
    trial.now += timedelta(seconds=limit - 1)
    assert trial.evaluate().ruling.reason == reasons.VERDICT_RECORDED
    trial.now += timedelta(seconds=1)
    found = trial.evaluate()
    assert (found.ruling.reason, found.ruling.verdict) == (reasons.HARM_AFTER_PROMOTION, "RollBack")


def test_lost_requests_are_a_harm_test_of_their_own() -> None:
    trial = easy(history=(past(), past(name=TRANSPORT)))
    world = replace(trial.world(), transport=True)
    state: Any = begin(world, 0)
    assert [(g.name, g.noninferiority is None) for g in state.evidence.guardrails] == [
        ("errors", False), (TRANSPORT, True)
    ]  # fmt: skip


# --- sample ratio ----------------------------------------------------------------------------------------------------


def test_a_challenger_that_gets_less_than_its_share_is_rolled_back() -> None:
    trial = running()
    trial.share = 0.4
    found = trial.until(reasons.REQUESTS_LOST, 40)
    assert found.ruling.verdict == "RollBack"
    assert "where the route says 50 %" in found.ruling.message


def test_a_challenger_that_gets_more_than_its_share_holds_until_the_end() -> None:
    trial = running(duration="2h")
    trial.share = 0.6
    trial.until(reasons.SAMPLE_RATIO_MISMATCH, 40)
    trial.share = None  # repaired: what was counted since the start is still not what the route said
    held = trial.minutes(30)
    assert (held.ruling.verdict, held.status.srm.alarm) == ("Hold", True)
    assert trial.until(reasons.NOT_SHOWN).ruling.verdict == "KeepChampion"


def test_an_exact_router_raises_no_alarm_over_changing_weights() -> None:
    trial = running()
    trial.minutes(100)
    assert trial.status.srm.alarm is False
    assert float(trial.status.srm.log_e) < 0.0


STICKY = {"traffic": {"sticky": {"header": "fiduciary-bucket"}}}


def test_sticky_routes_tolerate_no_misrouted_request_and_compare_copies_only() -> None:
    trial = easy(spec=STICKY)
    trial.evaluate()
    trial.minutes(5)
    assert trial.state is not None
    assert trial.state.evidence.ratio is None
    assert trial.state.evidence.guardrails[0].seen_challenger.trials == 900  # three minutes of copies, no live request
    trial.misrouted = 1
    found = trial.minute()
    assert (found.ruling.reason, found.ruling.verdict) == (reasons.MISROUTED, "Hold")


# --- after the verdict ------------------------------------------------------------------------------------------------


def promoted() -> Trial:
    trial = easy(bad=(0.005, 0.005), history=(past(0.005, 60),), spec={"circuitBreakers": BREAKER})
    trial.evaluate()
    trial.until(reasons.PROMOTED)
    trial.record()
    return trial


def test_a_new_champion_is_watched_and_taken_back_for_harm() -> None:
    trial = promoted()
    assert trial.minutes(30).ruling.reason == reasons.VERDICT_RECORDED
    assert trial.decisions[-1].traffic.challenger == 100
    trial.bad = (0.005, 0.05)
    found = trial.until(reasons.HARM_AFTER_PROMOTION, 30)
    assert (found.ruling.verdict, found.ruling.test, found.traffic.champion) == ("RollBack", "errors", 100)
    assert trial.minute().ruling.verdict == "RollBack"  # latched until its record exists
    trial.record()
    after = trial.minutes(3)
    assert (after.ruling.reason, after.traffic.champion, after.traffic.challenger) == ("VerdictRecorded", 100, 0)
    assert (after.status.phase, after.status.verdict) == ("RolledBack", "RollBack")
    assert after.status.reason == reasons.HARM_AFTER_PROMOTION
    ready = find(after.status.conditions, "Ready")
    assert ready is not None
    assert ready.message == f"RollBack is record 10: {found.ruling.message}; before it, Promote was record 9"


def row_of(trial: Trial, side: str, name: str = "errors") -> Any:
    return next(row for row in trial.status.tests if (row.side, row.name) == (side, name))


def test_the_watch_is_a_test_like_any_other_and_says_until_when() -> None:
    trial = promoted()
    assert {row.side for row in trial.status.tests} == {"NonInferiority", "Harm"}
    trial.minutes(10)
    row = row_of(trial, "Watch")
    assert row.n == 10
    assert row.log_e is not None
    assert float(row.log_e) < float(row.threshold)
    assert row.interval is not None
    assert float(row.interval.low) < float(row.estimate) < float(row.interval.high)
    ends = T0 + (trial.now - T0) // timedelta(minutes=1) * timedelta(minutes=1)
    assert row.last_block == ends
    assert row.waits_for is not None
    assert row.waits_for.startswith("harm: more than ")
    assert "until 2026-11-25 12:" in row.waits_for, "promotion.rollbackWindow is a day"
    trial.bad = (0.005, 0.05)
    found = trial.until(reasons.HARM_AFTER_PROMOTION, 30)
    assert "requests are bad in errors" in found.ruling.message
    assert "at most" in found.ruling.message
    trial.record()
    trial.minute()
    assert row_of(trial, "Watch").waits_for is None


def test_what_the_arms_had_side_by_side_stays_as_it_was_at_the_promotion() -> None:
    """Else the estimate of the harm test would compare a busy evening with the quiet morning before."""
    trial = promoted()
    trial.minute()
    before, non = row_of(trial, "Harm"), row_of(trial, "NonInferiority")
    trial.bad = (0.005, 0.02)
    trial.minutes(20)
    assert row_of(trial, "Harm") == before
    assert row_of(trial, "NonInferiority") == non
    assert row_of(trial, "Watch").estimate > before.estimate
    newest = trial.status.segments[0]
    assert (newest.step, newest.reason, newest.blocks) == (None, "Promoted", 21)
    health = find(trial.status.conditions, "DataHealthy")
    assert health is not None
    assert health.message == "the promoted version is seen"


def test_nobody_says_that_he_sees_what_nobody_looks_at() -> None:
    trial = promoted()
    trial.now += timedelta(hours=25)
    after = trial.evaluate()
    assert find(after.status.conditions, "DataHealthy") is None


def test_nothing_is_waited_for_or_foretold_once_the_verdict_is_recorded() -> None:
    trial = easy(history=(past(0.005, 60),))
    trial.evaluate()
    trial.minutes(3)
    before = row_of(trial, "NonInferiority")
    assert before.waits_for is not None
    assert before.earliest is not None
    assert find(trial.status.conditions, "Underpowered") is not None
    trial.bad = (0.005, 0.5)
    trial.until(reasons.HARM_SHOWN, 20)
    trial.record()
    trial.minute()
    after = row_of(trial, "NonInferiority")
    assert (after.waits_for, after.earliest) == (None, None)
    assert trial.status.feasibility is None
    assert find(trial.status.conditions, "Underpowered") is None


def test_the_test_that_decides_is_named_with_what_it_needs() -> None:
    trial = easy(history=(past(0.005, 60),))
    trial.evaluate()
    trial.minutes(3)
    assert trial.status.deciding is not None
    assert (trial.status.deciding.name, trial.status.deciding.side) == ("errors", "NonInferiority")
    assert trial.status.deciding.threshold == row_of(trial, "NonInferiority").threshold
    assert trial.status.log_e == row_of(trial, "NonInferiority").log_e
    trial.bad = (0.005, 0.5)
    trial.until(reasons.HARM_SHOWN, 20)
    found = trial.status
    assert (found.deciding.name, found.deciding.side) == ("errors", "Harm"), "what it was rolled back for"
    assert float(found.log_e) >= float(found.deciding.threshold)


def test_the_test_that_decides_after_a_promotion_that_was_taken_back_is_the_watch() -> None:
    trial = promoted()
    trial.bad = (0.005, 0.05)
    trial.until(reasons.HARM_AFTER_PROMOTION, 40)
    for _ in range(2):
        assert (trial.status.deciding.name, trial.status.deciding.side) == ("errors", "Watch")
        assert float(trial.status.log_e) >= float(trial.status.deciding.threshold)
        if trial.status.reason == reasons.HARM_AFTER_PROMOTION and trial.recorded.rolled_back is None:
            trial.record()
            trial.minute()


def test_a_promotion_that_somebody_else_went_back_on_says_so() -> None:
    trial = promoted()
    assert trial.recorded is not None
    trial.minute()
    gone = GoneBack(12, reasons.ROLLED_BACK, "ana@desk: errors at the desk")
    trial.recorded = replace(trial.recorded, rolled_back=gone)
    after = trial.minute().status
    assert (after.phase, after.verdict, after.reason) == ("RolledBack", "RollBack", reasons.ROLLED_BACK)


def test_a_new_champion_is_taken_back_by_a_breaker() -> None:
    trial = promoted()
    trial.live = Live((LiveCounts(0, Counts(0, 0), Counts(60, 30)),), PODS, PODS)
    assert trial.evaluate().ruling.reason == reasons.HARM_AFTER_PROMOTION


def test_a_new_champion_on_a_sticky_route_is_watched_by_its_live_requests() -> None:
    traffic = {"sticky": {"header": "fiduciary-bucket"}, "steps": [{"name": "shadow", "mirror": 100, "minBlocks": 3}]}
    trial = easy(bad=(0.0, 0.0), spec={"traffic": traffic})
    assert trial.evaluate().status.srm is None  # nothing counts misrouted requests yet: no reassuring "false"
    trial.until(reasons.PROMOTED)
    trial.record()
    trial.minutes(3)
    trial.bad = (0.0, 0.3)
    assert trial.until(reasons.HARM_AFTER_PROMOTION, 30).ruling.verdict == "RollBack"


def test_harm_in_the_last_minute_of_the_window_is_still_carried_out_after_it() -> None:
    trial = promoted()
    trial.now += timedelta(hours=23)
    trial.live = Live((LiveCounts(0, Counts(0, 0), Counts(60, 30)),), PODS, PODS)
    assert trial.evaluate().ruling.reason == reasons.HARM_AFTER_PROMOTION
    trial.now += timedelta(hours=3)  # the record could not be written meanwhile
    trial.live = Live((), PODS, PODS)
    found = trial.evaluate()
    assert (found.ruling.verdict, found.traffic.challenger) == ("RollBack", 0)


def test_after_the_window_nothing_is_judged() -> None:
    trial = promoted()
    trial.now += timedelta(hours=25)
    trial.live = Live((LiveCounts(0, Counts(0, 0), Counts(60, 30)),), PODS, PODS)
    assert trial.evaluate().ruling.reason == reasons.VERDICT_RECORDED


@pytest.mark.parametrize("verdict", ["RollBack", "KeepChampion"])
def test_a_recorded_refusal_stays_whatever_the_evidence_says(verdict: Any) -> None:
    trial = easy(bad=(0.0, 0.0))
    trial.evaluate()
    trial.recorded = Recorded(verdict, "HarmShown", "a record", 4, trial.now)
    for _ in range(100):
        kept = trial.minute()
        assert (kept.ruling.reason, kept.status.verdict, kept.traffic.challenger) == ("VerdictRecorded", verdict, 0)


def test_resuming_a_pair_multiplies_its_old_evidence() -> None:
    carried = (
        Carried("errors", "Harm", "ErrorRate", 2.9),
        Carried("errors", "NonInferiority", "ErrorRate", -1.0, margin=0.005),
    )
    trial = Trial(spending=replace(EASY, carried=carried), history=(past(0.005, 60),))
    trial.evaluate()
    trial.minute()
    assert trial.state is not None
    guardrail = trial.state.evidence.guardrails[0]
    assert guardrail.harm_log_e == 2.9 + guardrail.harm.log_e
    assert guardrail.noninferiority_log_e == pytest.approx(-1.0)
    trial.bad = (0.005, 0.03)
    found = trial.until(reasons.HARM_SHOWN, 3)
    assert found.ruling.verdict == "RollBack"


def test_a_clock_that_was_ahead_does_not_put_off_the_next_look() -> None:
    trial = running()
    trial.now += timedelta(hours=3)
    trial.evaluate()
    trial.now -= timedelta(hours=3)
    assert trial.evaluate().wake_at - trial.now <= timedelta(seconds=60 + 60)  # the next block


def test_circuit_breakers_look_again_after_two_scrapes_without_an_answer() -> None:
    breaker = {"metric": "ErrorRate", "above": "0.5", "normal": "0.01"}
    trial = running()
    assert trial.evaluate().wake_at - trial.now > timedelta(seconds=30)
    trial.spec = {**trial.spec, "circuitBreakers": [breaker]}
    assert trial.evaluate().wake_at - trial.now <= timedelta(seconds=30)


def test_time_never_runs_backwards() -> None:
    trial = running()
    assert trial.state is not None
    judged = trial.state.course.judged
    trial.now -= timedelta(hours=5)
    assert trial.evaluate().status.conditions
    assert trial.state.course.judged == judged
