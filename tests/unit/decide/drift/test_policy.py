"""A policy from its first window to alarm, recovery, blindness and another version."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fiduciary.decide.drift.calibrate import MOST_DETECTORS, Calibrated, Grid, calibrated, key
from fiduciary.decide.drift.notices import cloud_event, postable
from fiduciary.decide.drift.record import MOST_RECORDS
from fiduciary.decide.drift.report import folded
from fiduciary.decide.drift.state import FeatureCounts, Reading, State, Stream
from fiduciary.decide.drift.world import Health, LogHead, QueryValue, RecordedAlarm, SessionLoss, World
from fiduciary.decide.driftpolicy import decide
from fiduciary.evidence.codec import encode
from fiduciary.evidence.conformal import ConformalCusum
from fiduciary.evidence.packed import packed
from fiduciary.evidence.refusal import Refusal
from tests.unit.decide.drift.watch import FACTS, T0, UID, VERSION, Watch, draw, policy, reference

if TYPE_CHECKING:
    from fiduciary.decide.drift.decision import Decision

MISSING = {"name": "gone", "missing": {"above": "0.02"}, "actions": ["Alert", "RollBack"]}


def condition(decision: Any, kind: str) -> Any:
    return next(one for one in decision.status.conditions if one.type == kind)


def rng(seed: int = 5) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_before_the_first_window_it_is_unknown_and_says_how_many_rows_are_wanting() -> None:
    its = Watch()
    its.serve(draw(rng(), 13))
    first = its.evaluate()
    assert first.status.phase == "Unknown"
    assert condition(first, "Ready").reason == "FirstWindow"
    assert condition(first, "Ready").message == "13 of the 21 rows of the first window were counted"
    assert condition(first, "Drifted").status == "Unknown"
    assert first.alerts == ()
    second = its.window(rng())
    assert second.status.phase == "Stable"
    assert condition(second, "Ready").status == "True"
    assert condition(second, "Drifted").message.endswith("raise one in 200 windows on average over references")


def test_a_slow_feature_is_named_unknown_while_the_others_are_judged() -> None:
    its = Watch()
    message = its.window(rng()).status.monitors[0].message or ""
    assert "1 of 3 features are Unknown (slow): it averages over 66 rows, so that windows need at least 330" in message


def test_an_alarm_ends_when_windows_look_like_the_reference_again() -> None:
    its, noise = Watch(spec={"actions": {"retrain": {"minNewRows": 1_000_000}}}), rng()
    alarm = its.until_alarm(noise, 1.5)
    assert [one.reason for one in alarm.events] == ["DriftShown"]
    assert alarm.alerts[0].ends_at is None
    assert alarm.alerts[0].annotations["features"] == "fast"
    for _ in range(30):
        decision = its.window(noise)
        if decision.status.phase != "Drifted":
            break
    assert decision.status.phase == "Stable"
    assert decision.alerts[0].ends_at is not None
    assert [(one.type, one.reason) for one in decision.events] == [("Normal", "BackToReference")]
    its.serve(draw(noise, 2))
    assert its.evaluate().alerts == ()  # a day later nobody is told any more


def test_a_correlation_that_no_feature_shows_alone_is_seen_by_the_joint_distance() -> None:
    monitors = [
        {"name": "inputs", "histogram": {"metric": "feature"}, "statistic": "PSI", "actions": ["Alert"]},
        {"name": "together", "histogram": {"metric": "joint"}, "statistic": "JS", "actions": ["Alert", "Retrain"]},
    ]
    its, numbers = Watch(spec={"monitors": monitors}), rng()
    for _ in range(30):
        rows = draw(numbers, 21)
        rows[:, 2] = 0.95 * rows[:, 0] + np.sqrt(1.0 - 0.95**2) * rows[:, 2]
        its.serve(rows)
        decision = its.evaluate()
    states = {one.name: one.state for one in decision.status.monitors}
    assert states["together"] == "Drifted"
    assert states["inputs"] != "Drifted"
    told = decision.status.monitors[1].message or ""
    assert told.startswith("inputs drifted together: JS ")
    asked = decision.requested_action
    assert asked is not None
    assert asked.kind == "Retrain"


def test_a_version_without_a_joint_distance_says_why_and_a_runtime_that_sends_none_is_named() -> None:
    monitor = {"name": "together", "histogram": {"metric": "joint"}, "statistic": "JS", "actions": ["Alert"]}
    without = replace(reference(), joint=None, without_joint="300 features; the joint distance is kept up to 128")
    its = calibrated(policy({"monitors": [monitor]}).spec, "u", "v", "Volatility", without)
    assert isinstance(its, Calibrated)
    assert its.gauges[0].blind == "no joint distance: 300 features; the joint distance is kept up to 128"
    silent = Watch(spec={"monitors": [monitor]})
    silent.serve(draw(rng(), 21))
    silent.readings = tuple(replace(one, joint=()) for one in silent.readings)
    shown = silent.evaluate().status.monitors[0]
    assert shown.state == "Unknown"
    assert "serve it with the runtime of this release" in (shown.message or "")


def test_a_drift_smaller_than_the_minimum_effect_never_alarms() -> None:
    monitor = {"name": "inputs", "histogram": {"metric": "feature"}, "statistic": "PSI", "actions": ["Alert"]}
    its, noise = Watch(spec={"monitors": [{**monitor, "minEffect": "0.9"}]}), rng()
    for _ in range(25):
        decision = its.window(noise, 0.6)
    inputs = decision.status.monitors[0]
    assert float(inputs.score) > float(inputs.threshold)
    assert float(inputs.distance) < 0.9
    assert inputs.state == "Drifting"
    assert decision.alerts == ()
    assert its.until_alarm(noise, 3.0).status.monitors[0].drifted == ("fast",)


def test_windows_in_a_row_are_counted_before_the_alarm() -> None:
    monitor = {"name": "inputs", "histogram": {"metric": "feature"}, "statistic": "KS", "actions": ["Alert"]}
    its, noise, seen = Watch(spec={"monitors": [{**monitor, "forWindows": 3}]}), rng(), []
    for _ in range(8):
        its.window(noise, 1.5)
        assert its.state is not None
        seen.append((its.state.streams[0].above, its.state.streams[0].alarm is not None))
    first = next(k for k, (above, _) in enumerate(seen) if above)
    assert seen[first : first + 4] == [(1, False), (2, False), (3, True), (4, True)]


def test_prometheus_away_for_many_windows_is_unknown_without_action_and_is_caught_up_with() -> None:
    its, same = Watch(), Watch()
    noise, again = rng(), rng()
    for _ in range(3):
        its.window(noise)
        same.window(again)
    held: Any = None
    for _ in range(8):
        drifted = draw(noise, 21, 1.5)
        its.serve(drifted)
        kept, its.readings = its.readings, ()
        held = its.health
        its.health = Health("Prometheus does not answer: 503")
        decision = its.evaluate()
        its.health, its.readings = held, kept
        assert decision.status.phase == "Unknown"
        assert condition(decision, "DataHealthy").reason == "CountersUnreachable"
        assert decision.requested_action is None
        same.serve(drifted)
        same.evaluate()
    decision = its.evaluate()  # Prometheus kept the samples
    assert decision.state is not None
    assert same.state is not None
    assert replace(decision.state, request=None, withdrawn=()) == replace(same.state, request=None, withdrawn=())
    assert decision.status.phase == "Drifted"


def test_an_alarm_stands_while_nothing_is_seen_and_asks_for_nothing() -> None:
    its = Watch()
    assert its.until_alarm(rng(), 1.5).requested_action is not None
    its.health = Health("older windows first", catching_up=True)
    assert its.evaluate().status.next_action == "Retrain held: CatchingUp"
    its.health = Health("Prometheus does not answer")
    decision = its.evaluate()
    assert decision.status.phase == "Drifted"
    assert decision.requested_action is None
    assert decision.status.next_action == "Retrain held: CountersUnreachable"


def test_rows_that_do_not_come_are_stale_by_the_exchange() -> None:
    its = Watch()
    its.now = T0  # Monday after the close
    assert its.window(rng()).status.phase == "Stable"
    its.now += timedelta(days=2)
    assert its.evaluate().status.phase == "Stable"
    its.now += timedelta(days=3)
    decision = its.evaluate()
    assert decision.status.phase == "Unknown"
    assert condition(decision, "Ready").reason == "Stale"
    assert "XNYS has closed 3 sessions since" in condition(decision, "Ready").message


def hourly(its: Watch, end: datetime) -> World:
    """A policy of windows of an hour, five of which it has judged; the last ended at ``end`` with row 300."""
    dp = policy({"window": {"length": "1h", "rows": None}})
    known = calibrated(policy().spec, UID, VERSION, "Volatility", reference())
    assert isinstance(known, Calibrated)
    known = replace(known, key=key(dp.spec, UID, VERSION), grid=Grid(60, 60, 3_600_000, 30, 90))
    grown = int(end.timestamp() * 1000)
    streams = tuple(Stream(gauge.monitor, gauge.name) for gauge in known.gauges)
    edge, number = Reading(grown, 300), grown // 3_600_000 - 1
    state = State(known.key, edge=edge, window=number, folded=5, ended=grown, grown=grown, rows=300, streams=streams)
    return replace(its.world(), policy=dp, calibrated=known, state=state, model=replace(FACTS, calendar="XNYS"))


@pytest.mark.parametrize(
    ("now", "stale"),
    [
        ("2026-11-06T21:30", False),  # the Friday's last window is read
        ("2026-11-09T14:20", False),  # Monday before the open: nobody trades at a weekend
        ("2026-11-09T16:05", False),  # two windows since the open
        ("2026-11-09T17:05", True),
    ],
)
def test_windows_in_which_the_exchange_is_closed_make_no_rows_late(now: str, stale: bool) -> None:
    world = hourly(Watch(), datetime(2026, 11, 6, 21, tzinfo=UTC))  # Friday's close
    found = condition(decide(world, datetime.fromisoformat(now).replace(tzinfo=UTC)), "DataHealthy")
    assert (found.reason == "Stale") is stale


@pytest.mark.parametrize(
    ("close", "end", "rows", "judged"),
    [
        ("2026-11-06T21:00", "2026-11-06T22:00", 0, None),  # Friday evening
        ("2026-11-06T21:00", "2026-11-08T22:00", 0, None),  # nobody looked at the weekend
        ("2026-11-06T21:00", "2026-11-09T15:00", 0, False),  # Monday's first window: it was open for half an hour
        ("2026-11-27T18:00", "2026-11-27T19:00", 0, None),  # a half day after Thanksgiving, closed at 13:00
        ("2026-10-30T20:00", "2026-11-02T14:00", 0, None),  # New York's clocks are set back: it opens at 14:30 UTC
        ("2026-10-30T20:00", "2026-11-02T15:00", 0, False),
        ("2026-11-06T21:00", "2026-11-06T22:00", 3, False),  # rows came all the same
        ("2026-11-06T21:00", "2031-11-08T22:00", 0, False),  # no calendar reaches so far
    ],
)
def test_a_window_in_which_the_exchange_is_closed_is_nothing_that_was_missed(
    close: str, end: str, rows: int, judged: bool | None
) -> None:
    close_, end_ = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (close, end))
    world = hourly(Watch(), close_)
    world = replace(world, readings=(Reading(int(end_.timestamp() * 1000), 300 + rows),))
    decision = decide(world, end_ + timedelta(seconds=30))
    assert decision.state is not None
    assert (decision.state.folded, decision.state.skipped) == (5, 0 if judged is None else 1)
    assert decision.state.edge == world.readings[0], "the next window begins here all the same"
    assert bool(decision.state.why) is (judged is False)
    assert (condition(decision, "DataHealthy").reason == "CountsSeen") is (judged is None)


def test_a_process_that_cannot_ask_says_so_and_one_that_sees_no_row_waits_for_the_first() -> None:
    """Neither says that references differ: a process that has just begun knows none of the scorer's edges."""
    watch = Watch(edges=None)
    for _ in range(2):
        assert condition(watch.evaluate(), "Ready").reason == "FirstWindow"
    watch = Watch()
    watch.window(np.random.default_rng(3))
    watch.edges, watch.readings, watch.health = None, (), Health("PrometheusUnreachable: connection refused")
    found = watch.evaluate()
    assert condition(found, "Ready").reason == "CountersUnreachable"
    assert condition(found, "Drifted").status == "Unknown"


@pytest.mark.parametrize(("edges", "reason"), [("f" * 64, "ReferenceDiffers"), (None, "ReferenceDiffers")])
def test_counts_over_other_edges_are_never_compared(edges: str | None, reason: str) -> None:
    its = Watch(edges=edges)
    decision = its.window(rng(), 5.0)
    assert decision.status.phase == "Unknown"
    assert condition(decision, "Ready").reason == reason
    assert decision.state is not None
    assert decision.state.edge is None


def test_a_window_that_is_too_large_is_not_judged_and_says_so() -> None:
    its = Watch()
    its.window(rng())
    its.serve(draw(rng(), 50))
    its.readings = its.readings[-1:]
    decision = its.evaluate()
    assert decision.status.phase == "Unknown"
    assert condition(decision, "Ready").reason == "WindowNotJudged"
    assert decision.state is not None
    assert (decision.state.folded, decision.state.skipped) == (1, 1)
    its.serve(draw(rng(), 13))  # the next edge is where it always was, and so is the one after it
    assert (
        condition(its.evaluate(), "Ready").message == "the last window was not judged: 13 rows, at least 15 are needed"
    )
    assert its.window(rng()).status.phase == "Stable"


def test_missing_rows_beyond_the_limit_and_beyond_chance_alarm_at_once() -> None:
    its = Watch(spec={"monitors": [MISSING]}, missing=(1, 0, 0))
    one = its.window(rng())
    assert one.status.phase == "Stable"  # one of 21 is 4.8 %, and may be chance
    its.missing = (4, 2, 0)
    decision = its.window(rng())
    assert decision.status.phase == "Drifted"
    assert decision.status.monitors[0].drifted == ("fast", "heavy")
    assert decision.status.monitors[0].score == "0.1905"
    its.missing = (0, 0, 0)
    assert [its.window(rng()).status.phase for _ in range(3)] == ["Drifted", "Drifted", "Stable"]
    tolerant = Watch(spec={"monitors": [{**MISSING, "missing": {"above": "0.5"}}]}, missing=(9, 0, 0))
    assert tolerant.window(rng()).status.phase == "Stable"  # more than chance, and not more than is tolerated


def test_a_feature_that_is_mostly_missing_is_unknown_and_not_drifted() -> None:
    its = Watch(missing=(9, 0, 0))
    inputs = its.window(rng()).status.monitors[0]
    assert "2 of 3 features are Unknown (fast, slow): it has a value in 12 rows" in (inputs.message or "")


def test_a_query_needs_its_windows_in_a_row_and_no_value_is_neither() -> None:
    query = {"name": "volume", "query": "sum(x)", "below": "10", "forWindows": 2, "actions": ["Alert"]}
    its = Watch(spec={"monitors": [query]})
    seen: list[tuple[str, str]] = []
    for hour, value in enumerate((50.0, 5.0, None, float("nan"), 4.0, 4.0, None, 20.0)):
        at = int((T0 + timedelta(hours=hour)).timestamp() * 1000)
        its.queries = (QueryValue("volume", at, value, "" if value is not None else "no series"),)
        shown = its.evaluate().status.monitors[0]
        seen.append((shown.state, shown.score or ""))
    assert seen == [
        ("Stable", "50"),
        ("Drifting", "5"),
        ("Unknown", "5"),
        ("Unknown", "5"),
        ("Drifted", "4"),
        ("Drifted", "4"),
        ("Drifted", "4"),
        ("Drifted", "20"),
    ]


def test_a_value_that_dances_around_its_limit_is_one_alarm_which_quiet_windows_end() -> None:
    query = {"name": "errors", "query": "sum(x)", "above": "1", "actions": ["Alert", "RollBack"]}
    its = Watch(spec={"monitors": [query]})
    asked: list[bool] = []

    def value(hour: int, number: float) -> Decision:
        its.now = T0 + timedelta(hours=hour)
        its.queries = (QueryValue("errors", int(its.now.timestamp() * 1000), number),)
        decision = its.evaluate()
        asked.append(decision.requested_action is not None)
        return decision

    dance = [value(hour, float(hour % 2) * 2) for hour in range(1, 21)]
    found = {alarm.digest for decision in dance if decision.state for alarm in decision.state.alarms}
    assert len(found) == 1
    assert sum(event.reason == "DriftShown" for decision in dance for event in decision.events) == 1
    assert asked[:4] == [True, False, True, False], "what is within its limit now asks for nothing"
    within = dance[-1].status.monitors[0]
    assert within.state == "Drifted"
    assert "within the limit in 1 of 3 windows that end the alarm" in (within.message or "")
    assert value(21, 0.0).status.phase == "Drifted"
    over = value(22, 0.0)
    assert over.status.phase == "Stable"
    assert over.state is not None
    assert over.state.alarms[0].reason == "BackToReference"
    again = value(23, 2.0)
    assert again.state is not None
    assert again.state.alarms[0].digest not in found


def test_a_policy_writes_so_many_records_a_day_and_the_newest_alarm_once_there_is_room() -> None:
    query = {"name": "errors", "query": "sum(x)", "above": "1", "actions": ["Alert"]}
    its = Watch(spec={"monitors": [query]}, now=T0 + timedelta(days=2))
    log = LogHead("spx-volatility", "u", 1, 40, "sha256:" + "1" * 64)
    old = [RecordedAlarm("spx", f"{k}", its.now - timedelta(hours=20)) for k in range(MOST_RECORDS)]
    other = RecordedAlarm("other", "x", its.now)
    its.model = replace(FACTS, log=log, recorded=(*old, other))
    its.queries = (QueryValue("errors", int(its.now.timestamp() * 1000), 2.0),)
    full = its.evaluate()
    assert full.records == ()
    assert full.alerts, "people hear of it"
    its.now += timedelta(hours=5)
    assert [record.action for record in its.evaluate().records] == ["Alarm"]


def test_a_query_that_reads_another_namespace_needs_a_person() -> None:
    query = {"name": "volume", "query": 'sum(x{namespace="other"})', "above": "1", "actions": ["Alert"]}
    decision = Watch(spec={"monitors": [query]}).evaluate()
    assert decision.status.monitors[0].state == "Unknown"
    assert condition(decision, "Stalled").reason == "QueryRefused"


@pytest.mark.parametrize(
    ("change", "reason", "stalled"),
    [
        ({"model": None}, "ModelMissing", "True"),
        ({"model": replace(FACTS, champion=None)}, "NothingServes", "False"),
        ({"spec": {"window": {"rows": 22}}}, "SpecRefused", "True"),
    ],
)
def test_what_keeps_it_from_watching(change: dict[str, Any], reason: str, stalled: str) -> None:
    decision = Watch(**change).evaluate()
    assert condition(decision, "Ready").reason == reason
    assert condition(decision, "Stalled").status == stalled
    assert decision.status.phase == "Unknown"


def test_a_killed_model_is_watched_and_nothing_is_asked_of_it() -> None:
    its = Watch(model=replace(FACTS, killed=True))
    decision = its.until_alarm(rng(), 1.5)
    assert decision.status.phase == "Suspended"
    assert condition(decision, "Drifted").status == "True"
    assert decision.requested_action is None


def test_another_version_begins_anew_and_its_predecessors_alarm_is_over() -> None:
    its = Watch()
    its.until_alarm(rng(), 1.5)
    champion = FACTS.champion
    assert champion is not None
    its.model = replace(FACTS, champion=champion.model_copy(update={"version": "9", "digest": "sha256:" + "9" * 64}))
    its.readings = ()
    decision = its.evaluate()
    assert decision.state is not None
    assert decision.state.folded == 0
    assert decision.requested_action is None
    assert decision.alerts[0].ends_at is not None
    assert [one.reason for one in decision.events] == ["BegunAnew", "FirstWindow"]


def session(
    number: int, loss: float, previous: float | None = None, dropped: int = 0, entities: int = 1
) -> SessionLoss:
    day, paired = T0 + timedelta(days=number), 0 if previous is None else entities
    return SessionLoss(
        number, f"{day:%Y-%m-%d}", entities, loss, paired, loss - (previous or 0.0) if paired else 0.0, dropped
    )


def test_the_loss_is_compared_with_that_of_the_walk_forward_by_windows_of_sessions() -> None:
    loss = {"name": "loss", "realisedLoss": {"against": "Reference"}, "actions": ["Alert"]}
    its, noise = Watch(spec={"monitors": [loss]}), rng()
    its.sessions = tuple(session(k, float(noise.chisquare(1))) for k in range(20))
    before = its.evaluate().status.monitors[0]
    assert before.state == "Unknown"
    assert before.message == "20 of 21 sessions of the first window have their outcomes"
    its.sessions = (session(20, 1.0), session(21, 9.0, dropped=1), session(22, 9.0, entities=0))
    decision = its.evaluate()
    assert decision.status.monitors[0].state == "Stable"
    assert decision.state is not None
    assert (decision.state.losses.windows, decision.state.losses.dropped, decision.state.losses.empty) == (1, 1, 1)
    its.sessions = tuple(session(k, float(2.5 * noise.chisquare(1))) for k in range(23, 23 + 21 * 12))
    decision = its.evaluate()
    assert decision.status.monitors[0].state == "Drifted"
    assert "the loss rose: mean loss" in (decision.status.monitors[0].message or "")
    assert "expected from validation, evidence" in (decision.status.monitors[0].message or "")


def test_a_loss_that_rose_by_less_than_matters_is_no_alarm() -> None:
    noise = rng()
    drawn = [float(1.5 * noise.chisquare(1)) for _ in range(21 * 40)]
    seen: list[str] = []
    for least in ("0", "0.3", "0.9"):
        loss = {"name": "loss", "realisedLoss": {"against": "Reference"}, "minEffect": least, "actions": ["Alert"]}
        its = Watch(spec={"monitors": [loss]})
        its.sessions = tuple(session(k, one) for k, one in enumerate(drawn))
        seen.append(its.evaluate().status.monitors[0].state)
    assert seen == ["Drifted", "Drifted", "Drifting"], "about half a unit above what was expected"


def of_events(number: int, likely: list[float], happened: list[float]) -> SessionLoss:
    """A session of a panel whose events were called so likely."""
    bins = np.zeros((10, 3))
    for p, y in zip(likely, happened, strict=True):
        bins[min(int(p * 10), 9)] += (1.0, p, y)
    loss = float(np.sum((np.array(likely) - np.array(happened)) ** 2))
    its = session(number, loss, entities=len(likely))
    return replace(its, calibration=tuple(bins.ravel().tolist()))


def test_probabilities_that_are_no_longer_honest_are_found_and_never_roll_back() -> None:
    monitor = {"name": "honest", "calibration": {}, "minEffect": "0.05", "actions": ["Alert", "Retrain"]}
    its, noise = Watch(spec={"monitors": [monitor]}, probabilities=True), rng()
    its.model = replace(FACTS, label="Direction")

    def play(first: int, windows: int, lie: float) -> str:
        found: list[SessionLoss] = []
        for number in range(first, first + 21 * windows):
            likely = noise.uniform(0.35, 0.65, size=1)
            found.append(of_events(number, likely.tolist(), (noise.random(1) < likely - lie).astype(float).tolist()))
        its.sessions = tuple(found)
        return its.evaluate().status.monitors[0].state

    assert play(0, 20, 0.0) in ("Stable", "Drifting")
    assert play(420, 60, 0.3) == "Drifted"
    shown = its.decisions[-1].status.monitors[0]
    assert "probabilities are no longer honest: events come" in (shown.message or "")
    assert float(shown.distance or 0) == pytest.approx(0.3, abs=0.1), "in points of probability"
    asked = its.decisions[-1].requested_action
    assert asked is not None
    assert asked.kind == "Retrain", "the version before was made of the same market"


def test_a_label_that_is_no_event_has_no_calibration() -> None:
    its = Watch(spec={"monitors": [{"name": "honest", "calibration": {}, "actions": ["Alert"]}]})
    shown = its.evaluate().status.monitors[0]
    assert (shown.state, shown.message) == ("Unknown", "the label is Volatility, whose forecasts are no probabilities")


def test_what_the_forecasts_of_a_window_will_cost_is_estimated_and_moves_nothing() -> None:
    loss = {"name": "loss", "realisedLoss": {"against": "Reference"}, "actions": ["Alert", "Retrain"]}
    its = Watch(spec={"monitors": [loss]})
    decision = its.window(rng())
    for _ in range(12):
        decision = its.window(rng(), 4.0)
    shown = decision.status.monitors[0]
    assert float(shown.estimate or 0) == pytest.approx(1.0, abs=0.3), "the walk-forward's losses have mean 1"
    assert (shown.state, decision.requested_action) == ("Unknown", None)


def test_outcomes_that_cannot_be_read_are_unknown_and_ask_for_nothing() -> None:
    worse = {"name": "worse", "realisedLoss": {}, "actions": ["Alert", "RollBack"]}
    its = Watch(spec={"monitors": [worse], "actions": {"rollBack": {"onlyWithin": "30d"}}}, now=T0 + timedelta(days=1))
    its.outcomes = "ScorerUnreachable: http://x cannot be reached"
    decision = its.evaluate()
    assert decision.status.monitors[0].state == "Unknown"
    assert condition(decision, "OutcomesRead").reason == "OutcomesUnread"
    its.outcomes, noise = "", rng()
    its.sessions = tuple(session(k, 4.0 + float(noise.normal()), 1.0) for k in range(200))
    assert (its.evaluate().requested_action is not None, condition(its.decisions[-1], "OutcomesRead").status) == (
        True, "True",
    )  # fmt: skip
    its.outcomes = "ScorerUnreachable: http://x cannot be reached"
    decision = its.evaluate()
    assert decision.requested_action is None
    assert decision.status.next_action == "RollBack held: OutcomesUnread"
    assert decision.status.monitors[0].state == "Drifted", "an alarm stands until something ends it"


def test_people_hear_of_the_end_of_an_alarm_of_sessions_though_those_close_days_later() -> None:
    worse = {"name": "worse", "realisedLoss": {}, "actions": ["Alert"]}
    its, noise = Watch(spec={"monitors": [worse]}, now=T0 + timedelta(days=700)), rng()
    its.sessions = tuple(session(k, 4.0 + float(noise.normal()), 1.0) for k in range(200))
    assert its.evaluate().alerts[0].ends_at is None
    ended = None
    for number in range(200, 600):
        its.sessions = (session(number, -2.0 + float(noise.normal()), 1.0),)
        decision = its.evaluate()
        assert decision.alerts, "an alarm that lasts, or has just ended"
        ended = decision.alerts[0].ends_at
        if ended is not None:
            break
    assert ended is not None
    assert ended < its.now - timedelta(days=2), "the day of the session"
    its.sessions = tuple(session(k, 1.0, 1.0) for k in range(number + 1, number + 4))
    assert its.evaluate().alerts == ()


def test_sessions_of_another_ledger_are_counted_anew() -> None:
    worse = {"name": "worse", "realisedLoss": {}, "actions": ["Alert"]}
    its = Watch(spec={"monitors": [worse]}, ledger="watch-a")
    its.sessions = tuple(session(k, 1.0, 2.0) for k in range(30))
    assert its.evaluate().state is not None
    its.ledger, its.sessions = "watch-b", (session(0, 1.0, 2.0),)
    state = its.evaluate().state
    assert state is not None
    assert (state.losses.ledger, state.losses.last, state.versus[0].detector.burn_in.count) == ("watch-b", 0, 1)


def test_overlapping_labels_and_sessions_that_were_damaged_are_not_compared() -> None:
    worse = {"name": "worse", "realisedLoss": {}, "actions": ["Alert"]}
    its = Watch(spec={"monitors": [worse]}, model=replace(FACTS, horizon=5))
    damaged = replace(session(20, 1.0, 2.0), dropped_previous=1)
    its.sessions = (*(session(k, 1.0, 2.0) for k in range(20)), damaged, session(21, 1.0, 2.0))
    state = its.evaluate().state
    assert state is not None
    assert state.versus[0].detector.burn_in.count == 4


def test_worse_than_the_previous_version_on_the_same_sessions_rolls_back() -> None:
    worse = {"name": "worse", "realisedLoss": {}, "actions": ["Alert", "RollBack"]}
    its = Watch(spec={"monitors": [worse], "actions": {"rollBack": {"onlyWithin": "30d"}}}, now=T0 + timedelta(days=1))
    noise = rng()
    its.sessions = tuple(session(k, 1.0 + float(noise.normal()) + 3.0, 1.0) for k in range(15))
    assert its.evaluate().status.monitors[0].state == "Unknown"
    its.sessions = tuple(session(k, 1.0 + float(noise.normal()) + 3.0, 1.0) for k in range(15, 200))
    decision = its.evaluate()
    assert decision.status.monitors[0].state == "Drifted"
    assert decision.requested_action is not None
    assert decision.requested_action.kind == "RollBack"
    assert "worse than the previous version on the same sessions: log evidence" in decision.requested_action.reason
    its.model = replace(FACTS, previous=None)
    assert its.evaluate().status.monitors[0].message == "there is no previous version to compare with"


def test_a_hole_in_the_ledger_is_refused_and_everything_else_goes_on() -> None:
    worse = {"name": "worse", "realisedLoss": {}, "actions": ["Alert"]}
    its = Watch(spec={"monitors": [worse]})
    its.sessions = (session(0, 1.0, 1.0), session(2, 1.0, 1.0))
    decision = its.evaluate()
    assert decision.state is not None
    assert decision.state.losses.last == 0
    assert condition(decision, "Ready").reason == "EvidenceRefused"


def test_the_record_names_windows_scores_thresholds_and_digests_and_fits() -> None:
    its = Watch(spec={"monitors": [
        {"name": f"m{k:02}", "histogram": {"metric": "feature"}, "statistic": s, "actions": ["Alert", "Retrain"]}
        for k, s in enumerate(("PSI", "JS", "KS", "Wasserstein") * 8)
    ]})  # fmt: skip
    decision = its.until_alarm(rng(), 2.0)
    for _ in range(6):
        decision = its.window(rng(), 2.0)
    asked = decision.requested_action
    assert asked is not None
    assert len(json.dumps(asked.evidence, separators=(",", ":"))) <= 3072
    assert asked.evidence["versionDigest"] == "sha256:" + "8" * 64
    assert asked.evidence["asked"] == {"kind": "Retrain", "digest": asked.digest}
    assert asked.evidence["alarms"][0]["detectors"][0][0] == "fast"
    first = next(one.requested_action for one in its.decisions if one.requested_action is not None)
    assert asked == first, "what was asked for stays as it was when it was asked for"
    assert len(json.dumps(encode(its.state))) < 262_144 if its.state else False


def test_what_kubectl_shows() -> None:
    its = Watch()
    its.until_alarm(rng(), 1.5)
    body = {**policy().body(), "status": its.status.body()}
    cells = [
        next((str(value) for value in (body["status"].get(name),) if value), "")
        for name in ("phase", "worst", "score", "lastWindow", "nextAction")
    ]
    assert cells[0] == "Drifted"
    assert cells[1] == "inputs"
    assert float(cells[2].split("/")[0]) > float(cells[2].split("/")[1]) > 0
    assert cells[4] == "Retrain asked for"


def test_the_largest_state_fits_into_a_status_and_more_detectors_are_refused() -> None:
    monitors = [
        {"name": f"m{k}", "histogram": {"metric": "feature"}, "statistic": "PSI", "actions": ["Alert"]}
        for k in range(32)
    ]
    found = Watch(spec={"monitors": monitors}).calibrated
    assert isinstance(found, Calibrated)
    gauges = [found.gauges[0]] * MOST_DETECTORS
    noise = rng()
    later = packed(sorted(float(f"{value:.6g}") for value in noise.lognormal(9.0, 0.1, size=100)))
    detector = ConformalCusum(later, 10**6, 10**6, 3.123456789012345, 3.123456789012345)
    streams = tuple(
        Stream("a-monitor-with-a-name", f"feature_{k}", detector, 10**6, (10**5,) * 10, 99, 10**6, 0.123456789012345)
        for k in range(len(gauges))
    )
    counts = tuple(FeatureCounts(f"feature_{k}", (10**9,) * 10, 10**6) for k in range(MOST_DETECTORS))
    state = replace(Watch().evaluate().state or State(""), streams=streams, edge=Reading(10**13, 10**10, counts))
    assert len(folded(state).state) < 240_000  # of 262,144: alarms and the request take the rest
    many = policy({"monitors": monitors}).spec
    wide = replace(reference(), features=(reference().features[0],) * 6)
    refused = calibrated(many, "uid", "sha256:" + "8" * 64, "Volatility", wide)
    assert isinstance(refused, Refusal)
    assert "192 detectors (monitors × features), a status holds at most 140" in refused.message


def test_alerts_as_alertmanager_and_a_cloudevents_sink_take_them() -> None:
    its, noise = Watch(spec={"actions": {"alert": {"severity": "critical"}, "retrain": {"minNewRows": 10**6}}}), rng()
    alarm = its.until_alarm(noise, 1.5).alerts[0]
    posted = postable(alarm)
    assert posted["labels"] == {
        "alertname": "FiduciaryDrift",
        "namespace": "quant",
        "model": "spx-volatility",
        "policy": "spx",
        "monitor": "inputs",
        "severity": "critical",
    }
    assert posted["startsAt"].endswith("Z")
    assert "endsAt" not in posted
    event = cloud_event(alarm)
    assert event["source"] == "/apis/fiduciary.dev/v1alpha1/namespaces/quant/driftpolicies/spx"
    assert event["type"] == "dev.fiduciary.drift.alarm.begun.v1"
    assert event["data"]["features"] == "fast"
    while its.decisions[-1].status.phase == "Drifted":
        its.window(noise)
    over = its.decisions[-1].alerts[0]
    assert postable(over)["endsAt"] > postable(over)["startsAt"] == posted["startsAt"]
    assert cloud_event(over)["id"] == f"{over.annotations['evidence']}/ended" != event["id"]
    assert cloud_event(over)["time"] == postable(over)["endsAt"]
