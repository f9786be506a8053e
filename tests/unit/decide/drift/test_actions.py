"""What alarms ask for, and what holds it: one row a rule."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from fiduciary.decide.drift.actions import may_roll_back
from fiduciary.decide.drift.world import Acted, Health, QueryValue
from fiduciary.decide.driftpolicy import decide
from tests.unit.decide.drift.watch import CHAMPION, FACTS, T0, Watch, draw, policy

QUERY = {"name": "broken", "query": "sum(up)", "above": "0.5", "actions": ["Alert", "RollBack"]}


def drifted(**watch: Any) -> Watch:
    """A policy whose inputs have an alarm."""
    its = Watch(**watch)
    its.until_alarm(np.random.default_rng(3), 1.5)
    return its


def broken(value: float = 1.0, **watch: Any) -> Watch:
    """A policy whose query is beyond its limit after one window."""
    its = Watch(spec={"monitors": [QUERY]}, **watch)
    its.now = T0 + timedelta(hours=2)
    its.queries = (QueryValue("broken", int(its.now.timestamp() * 1000), value),)
    its.evaluate()
    return its


def test_drifted_inputs_ask_for_a_retrain_and_never_for_a_rollback() -> None:
    asked = drifted().decisions[-1].requested_action
    assert asked is not None
    assert asked.kind == "Retrain"
    assert "inputs: 1 of 2 judged features drifted (50 %), fast most" in asked.reason
    monitor = {"name": "inputs", "histogram": {"metric": "feature"}, "statistic": "PSI", "actions": ["RollBack"]}
    # an object that no rule of the API server has seen, and nothing else that would hold it
    late = {"rollBack": {"onlyWithin": "9999d"}}
    stored = drifted(spec={"monitors": [monitor], "actions": late}).decisions[-1]
    assert stored.status.phase == "Drifted"
    assert stored.requested_action is None
    assert stored.status.next_action is None
    broken_too = {**QUERY, "name": "inputs"}
    its = Watch(spec={"monitors": [broken_too], "actions": late}, now=T0 + timedelta(days=900))
    its.queries = (QueryValue("inputs", int(its.now.timestamp() * 1000), 1.0),)
    assert its.evaluate().requested_action is not None
    against = {"name": "loss", "realisedLoss": {"against": "Reference"}, "actions": ["RollBack"]}
    assert not may_roll_back(policy({"monitors": [against]}).spec.monitors[0])


def test_broken_inputs_ask_for_a_rollback_after_a_promotion() -> None:
    asked = broken().decisions[-1].requested_action
    assert asked is not None
    assert asked.kind == "RollBack"
    assert broken(0.5).decisions[-1].requested_action is None


def test_counts_that_nobody_has_seen_are_not_called_whole() -> None:
    """A policy of queries alone is not blind before its first window, and has seen no counts either."""
    its = broken(0.1)
    found = next(one for one in its.decisions[-1].status.conditions if one.type == "DataHealthy")
    assert (found.status, found.reason) == ("Unknown", "FirstWindow")
    its.serve(draw(np.random.default_rng(5), 42))
    found = next(one for one in its.evaluate().status.conditions if one.type == "DataHealthy")
    assert (found.status, found.reason) == ("True", "CountsSeen")


def acted(kind: Any, hours: float, policy: str = "spx", digest: str = "sha256:" + "0" * 64) -> Acted:
    return Acted(kind, policy, digest, datetime(2027, 3, 1, tzinfo=UTC) - timedelta(hours=hours), 7)


RETRAIN: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("KillEngaged", {}, {"killed": True}),
    ("Suspended", {}, {"suspended": True}),
    ("DryRun", {"guards": {"dryRun": True}}, {}),
    ("NothingNew", {}, {"rolling": False}),
    ("InFreeze", {"guards": {"freeze": ["2026-12-24/2027-12-31"]}}, {}),
    ("CalendarUnknown", {"guards": {"freeze": ["2027-02-01/2027-02-31"]}}, {}),
    ("CalendarUnknown", {"guards": {"freeze": ["2027-02-01/2027-02-28"]}, "window": {"calendar": "XXXX"}}, {}),
    ("ModelBusy", {}, {"busy": "version 9 is being trained"}),
    ("CoolingDown", {"actions": {"retrain": {"cooldown": "365d"}}}, {"acted": (acted("Retrain", 24),)}),
    ("TooFewNewRows", {}, {"champion": CHAMPION.model_copy(update={"as_of": "2026-12-31"})}),
    ("TooFewNewRows", {}, {"champion": CHAMPION.model_copy(update={"as_of": None})}),
    ("TooFewNewRows", {}, {"trained_to": "2026-12-31"}),  # and refused: the champion is older
]


@pytest.mark.parametrize(("reason", "spec", "facts"), RETRAIN, ids=[f"{row[0]}-{k}" for k, row in enumerate(RETRAIN)])
def test_a_retrain_is_held(reason: str, spec: dict[str, Any], facts: dict[str, Any]) -> None:
    # what is needed of the model is true from the beginning, so that the state is of the same version
    its = drifted(spec=spec, model=replace(FACTS, **facts))
    decision = its.decisions[-1]
    assert decision.requested_action is None
    assert decision.status.next_action == f"Retrain held: {reason}"
    held = next(one for one in decision.status.conditions if one.type == "ActionHeld")
    assert held.reason == reason
    assert held.message.startswith("Retrain: ")
    its.spec, its.model = {}, FACTS
    assert its.evaluate().requested_action is not None or "calendar" in spec.get("window", {})


ROLLBACK: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("KillEngaged", {}, {"killed": True}),
    ("Suspended", {}, {"suspended": True}),
    ("DryRun", {"guards": {"dryRun": True}}, {}),
    ("OverriddenByPin", {}, {"mode": "Pinned"}),
    ("RollBackImpossible", {}, {"previous": None}),
    ("RollBackImpossible", {}, {"returned": True}),
    ("TooLateToRollBack", {"actions": {"rollBack": {"onlyWithin": "1h"}}}, {}),
    ("TooLateToRollBack", {}, {"champion": CHAMPION.model_copy(update={"since": None})}),
    ("BudgetUsedUp", {}, {"acted": (Acted("RollBack", "other", "sha256:" + "1" * 64, T0, 6),)}),
]


@pytest.mark.parametrize(("reason", "spec", "facts"), ROLLBACK, ids=[f"{row[0]}-{k}" for k, row in enumerate(ROLLBACK)])
def test_a_rollback_is_held(reason: str, spec: dict[str, Any], facts: dict[str, Any]) -> None:
    its = Watch(spec={"monitors": [QUERY], **spec}, model=replace(FACTS, **facts), now=T0 + timedelta(hours=2))
    its.queries = (QueryValue("broken", int(its.now.timestamp() * 1000), 1.0),)
    decision = its.evaluate()
    assert decision.status.phase in ("Drifted", "Suspended")
    assert decision.requested_action is None
    assert decision.status.next_action == f"RollBack held: {reason}"


def test_a_frozen_day_holds_no_rollback() -> None:
    its = broken()
    its.spec = {"monitors": [QUERY], "guards": {"freeze": ["2026-01-01/2027-12-31"]}}
    assert its.evaluate().requested_action is not None


def test_budget_counts_all_policies_of_the_model_and_ends_by_itself() -> None:
    its = drifted()
    recent = tuple(Acted("Retrain", f"p{k}", "sha256:" + "0" * 64, its.now - timedelta(days=k), k) for k in (1, 3))
    its.model = replace(FACTS, acted=recent)
    decision = its.evaluate()
    assert decision.status.next_action == "Retrain held: BudgetUsedUp"
    assert decision.wake_at is not None
    assert decision.wake_at <= its.now + timedelta(days=4)
    its.serve(draw(np.random.default_rng(5), 4, 1.5))  # the market goes on: a stale alarm would not act
    assert its.evaluate().requested_action is not None


def test_another_policys_retrain_does_not_cool_this_one_down() -> None:
    spec = {"actions": {"retrain": {"cooldown": "30d"}}}
    other = drifted(spec=spec, model=replace(FACTS, acted=(acted("Retrain", 24, policy="other"),)))
    assert other.decisions[-1].requested_action is not None
    own = drifted(spec=spec, model=replace(FACTS, acted=(acted("Retrain", 24),)))
    assert own.decisions[-1].status.next_action == "Retrain held: CoolingDown"


def test_a_rollback_cools_the_retrains_of_its_policy_down() -> None:
    spec = {"actions": {"retrain": {"cooldown": "30d"}}}
    own = drifted(spec=spec, model=replace(FACTS, acted=(acted("RollBack", 24),)))
    assert own.decisions[-1].status.next_action == "Retrain held: CoolingDown"
    held = next(one for one in own.decisions[-1].status.conditions if one.type == "ActionHeld")
    assert "this policy's last rollback" in held.message


def test_what_was_taken_back_in_the_moment_in_which_it_was_recorded_is_done_all_the_same() -> None:
    its = drifted()
    asked = its.decisions[-1].requested_action
    assert asked is not None
    its.health = Health("Prometheus does not answer")
    assert its.evaluate().requested_action is None
    its.model = replace(FACTS, acted=(Acted("Retrain", "spx", asked.digest, its.now, 12),))
    done = its.evaluate()
    assert [one.kind for one in done.status.actions] == ["Retrain"]
    assert done.state is not None
    assert [alarm.reason for alarm in done.state.alarms] == ["RetrainAsked"]
    its.health = Health()
    assert its.evaluate().requested_action is None, "it is not asked for once more"
    assert its.evaluate().status.actions == done.status.actions


def test_a_request_stands_until_it_is_recorded_and_then_the_detectors_begin_anew() -> None:
    its = drifted(spec={"actions": {"retrain": {"cooldown": "200d"}}})
    first = its.decisions[-1].requested_action
    assert first is not None
    rng = np.random.default_rng(4)
    assert its.window(rng, 1.5).requested_action == first  # more evidence does not move what was asked for
    its.model = replace(FACTS, acted=(Acted("Retrain", "spx", first.digest, its.now, 12),))
    done = its.evaluate()
    assert done.requested_action is None
    assert done.state is not None
    assert [stream.detector.cusum for stream in done.state.streams[:2]] == [0.0, 0.0]
    assert done.status.actions[0].kind == "Retrain"
    assert "record 12" in (done.status.actions[0].message or "")
    assert done.alerts[0].ends_at == its.now.replace(microsecond=0)
    again = its.until_alarm(rng, 1.5)
    assert again.requested_action is None
    assert again.status.next_action == "Retrain held: CoolingDown"
    for _ in range(8):
        following = its.window(rng, 1.5).requested_action
    assert following is not None
    assert following.digest != first.digest


def test_what_was_carried_out_ends_the_alarms_that_asked_for_it_and_no_others() -> None:
    monitors = [
        {"name": "inputs", "query": "a", "above": "1", "actions": ["Retrain"]},
        {"name": "told", "query": "b", "above": "1", "actions": ["Alert"]},
    ]
    its = Watch(spec={"monitors": monitors}, now=T0 + timedelta(hours=2))
    at = int(its.now.timestamp() * 1000)
    its.queries = (QueryValue("inputs", at, 2.0), QueryValue("told", at, 2.0))
    asked = its.evaluate().requested_action
    assert asked is not None
    its.model = replace(FACTS, acted=(Acted("Retrain", "spx", asked.digest, its.now, 12),))
    done = its.evaluate()
    assert [(one.name, one.state) for one in done.status.monitors] == [("inputs", "Stable"), ("told", "Drifted")]
    assert done.state is not None
    assert [(one.monitor, one.reason) for one in done.state.alarms] == [("inputs", "RetrainAsked"), ("told", "")]


def test_a_rollback_beats_a_retrain_that_was_asked_for() -> None:
    monitors = [{"name": "inputs", "query": "a", "above": "1", "actions": ["Retrain"]}, QUERY]
    its = Watch(spec={"monitors": monitors}, now=T0 + timedelta(hours=2))
    its.queries = (QueryValue("inputs", int(its.now.timestamp() * 1000), 2.0),)
    asked = its.evaluate().requested_action
    assert asked is not None
    assert asked.kind == "Retrain"
    its.queries = (QueryValue("broken", int(its.now.timestamp() * 1000), 2.0),)
    asked = its.evaluate().requested_action
    assert asked is not None
    assert asked.kind == "RollBack"


def test_what_was_carried_out_is_known_though_nothing_can_be_judged() -> None:
    """A process that has just begun has not read the reference yet: the request was taken back, its record ignored."""
    its = drifted()
    asked = its.decisions[-1].requested_action
    assert asked is not None
    assert its.model is not None
    acted = Acted("Retrain", "spx", asked.digest, its.now, 7)
    world = replace(its.world(), model=replace(its.model, acted=(acted,)), calibrated=None)
    status = decide(world, its.now).status
    assert [one.kind for one in status.actions] == ["Retrain"]
    assert status.requested_action is None
