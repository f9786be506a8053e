"""The life of a drift policy in the engine: counted, judged window by window, recorded, asked for, carried out."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from fiduciary.clients.kube import Forbidden
from fiduciary.decide.drift.calibrate import Calibrated
from fiduciary.decide.history import fold
from fiduciary.engine import kinds
from fiduciary.engine.drift.references import Asked, References
from fiduciary.engine.stores import Key
from tests.unit.decide.drift.watch import UID, document, policy
from tests.unit.decide.worlds import NAME, NAMESPACE
from tests.unit.engine.drift_story import DIGEST, DP, Artifacts, DriftStory

if TYPE_CHECKING:
    from fiduciary.decide.drift.state import State

KEY = Key("DriftPolicy", NAMESPACE, DP)


def seen(state: State) -> State:
    """What does not depend on when somebody looked."""
    alarms = tuple(replace(alarm, until=None if alarm.until is None else 0) for alarm in state.alarms)
    return replace(state, judged=0, grown=0, rows=0, request=None, withdrawn=(), alarms=alarms)


def test_a_quiet_market_is_watched_without_an_alarm_and_without_many_writes() -> None:
    story = DriftStory()
    story.minute()
    assert story.condition("Ready")[:2] == ("False", "FirstWindow")
    story.windows(12)
    status = story.policy.status
    assert (status.phase, story.condition("Drifted")[:2]) == ("Stable", ("False", "NoDrift"))
    assert story.condition("Ready")[1] == "MonitorsUnknown" or story.condition("Ready")[0] == "True"
    assert story.state.folded == 12
    assert status.last_window is not None
    assert status.requested_action is None
    assert [spec["action"] for spec in story.records] == ["Accept", "Shift"]
    writes = story.points.count("3-status")
    assert writes <= 12 + 4, "one a window"
    for _ in range(10):
        story.minute(rows=0)
    assert story.points.count("3-status") == writes, "an idle operator writes nothing"


def test_shifted_inputs_become_an_alarm_a_record_an_event_and_a_request() -> None:
    story = DriftStory()
    story.windows(4)
    story.shift = 1.5
    story.until_alarm()
    status = story.policy.status
    asked = status.requested_action
    assert asked is not None
    assert (asked.kind, status.next_action) == ("Retrain", "Retrain asked for")
    assert asked.evidence["asked"] == {"kind": "Retrain", "digest": asked.digest}
    record = story.records[-1]
    assert (record["action"], record["cause"]["kind"], record["to"]["version"]) == ("Alarm", "Drift", "8")
    assert record["cause"]["message"].startswith(f"DriftPolicy {DP}, inputs: ")
    summary = record["evidence"]["summary"]
    assert summary["alarms"][0]["digest"] == story.state.alarms[0].digest
    assert summary["alarms"][0]["detectors"][0][0] == "fast"
    assert {reason for reason, _ in story.events} >= {"DriftShown", "RetrainAsked"}
    assert story.told[-1][0] == "alertmanager"
    assert [alert.labels["monitor"] for alert in story.told[-1][1]] == ["inputs"]
    history = fold([story._stored(spec) for spec in story.records])
    assert history.broken is None
    assert history.champion is not None
    assert history.champion.version == "8"
    story.windows(3)
    assert len(story.records) == 3, "an alarm that lasts is one record"
    assert story.policy.status.requested_action == asked


def test_what_the_model_carried_out_ends_the_request_and_begins_anew() -> None:
    story = DriftStory()
    story.shift = 1.5
    story.until_alarm()
    asked = story.policy.status.requested_action
    assert asked is not None
    cause = {"kind": "Drift", "policy": "spx", "request": asked.digest}
    story.write("Retrain", cause=cause, summary=dict(asked.evidence))
    story.settle()
    status = story.policy.status
    assert status.requested_action is None
    assert [(one.kind, one.monitor) for one in status.actions] == [("Retrain", "inputs")]
    assert story.state.alarms[0].until is not None
    assert fold([story._stored(spec) for spec in story.records]).acted[0].digest == asked.digest
    story.until_alarm()
    assert story.policy.status.next_action == "Retrain held: CoolingDown"


def test_people_hear_of_an_alarm_though_the_log_takes_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    story = DriftStory()
    create = story.cluster.create

    async def full(resource: Any, body: Any) -> Any:
        if resource == kinds.MODELDECISION:
            raise Forbidden(403, "Forbidden", "exceeded quota: count/modeldecisions.fiduciary.dev")
        return await create(resource, body)

    story.process.refusals = True
    monkeypatch.setattr(story.cluster, "create", full)
    story.shift = 1.5
    for _ in range(40):
        story.windows(1)
        if any(alerts for _, alerts in story.told):
            break
    assert any(alerts for _, alerts in story.told)
    assert not [spec for spec in story.records if spec["action"] == "Alarm"]
    monkeypatch.undo()
    story.windows(1)
    assert [spec["action"] for spec in story.records][-1] == "Alarm", "and it is written once there is room"


def test_alerts_that_reach_nobody_are_a_condition_while_they_do() -> None:
    story = DriftStory()
    story.windows(1)
    story.undelivered = "Alertmanager alertmanager: nobody there"
    story.windows(1)
    found = {one.type: one for one in story.policy.status.conditions}["AlertsDelivered"]
    assert (found.status, found.reason, found.message) == ("False", "Undelivered", story.undelivered)
    story.undelivered = ""
    story.windows(1)
    assert "AlertsDelivered" not in {one.type for one in story.policy.status.conditions}


def test_killed_at_any_write_it_finds_the_same_alarms_at_the_same_windows() -> None:
    whole = DriftStory()

    def play(story: DriftStory) -> None:
        story.shift = 1.5
        story.windows(5)
        story.shift = 0.0
        story.windows(13)

    play(whole)
    assert [spec["action"] for spec in whole.records].count("Alarm") >= 1
    assert any(alarm.until is not None for alarm in whole.state.alarms), "it ended again"
    # Each write that tells somebody, and every fifth of those that only fold.
    folds = [place for place, name in enumerate(whole.points) if name == "3-status"]
    telling = [place for place, name in enumerate(whole.points) if name != "3-status"]
    assert len(telling) >= 4
    for die_at in sorted({*telling, *folds[::5]}):
        story = DriftStory(die_at)
        play(story)
        assert story.broken == []
        assert seen(story.state) == seen(whole.state), whole.points[die_at]
        assert [_said(spec) for spec in story.records] == [_said(spec) for spec in whole.records], whole.points[die_at]


def _said(spec: dict[str, Any]) -> Any:
    alarms = spec.get("evidence", {}).get("summary", {}).get("alarms", [])
    return spec["sequence"], spec["action"], [(one["monitor"], one["digest"]) for one in alarms]


def test_prometheus_down_for_many_windows_is_unknown_asks_for_nothing_and_is_caught_up_with() -> None:
    story, whole = DriftStory(), DriftStory()
    for one in (story, whole):
        one.windows(3)
        one.shift = 1.5
    story.scorer.away = "PrometheusUnreachable"
    for one in (story, whole):
        one.windows(9)
    status = story.policy.status
    assert status.phase == "Unknown"
    assert story.condition("Ready")[:2] == ("False", "CountersUnreachable")
    assert story.condition("Drifted")[0] == "Unknown"
    assert "PrometheusUnreachable: Prometheus is away" in story.condition("DataHealthy")[2]
    assert status.requested_action is None
    assert len(story.records) == 2
    story.scorer.away = ""
    for one in (story, whole):
        one.windows(2)
    assert seen(story.state) == seen(whole.state)
    assert story.policy.status.phase == "Drifted"
    assert story.policy.status.requested_action is not None
    assert [_said(spec) for spec in story.records] == [_said(spec) for spec in whole.records]


def test_an_operator_that_was_away_catches_up_window_by_window() -> None:
    story, whole = DriftStory(), DriftStory()
    for one in (story, whole):
        one.windows(3)
        one.shift = 1.5
    process = story.process
    story.process = _Away()  # type: ignore[assignment]
    for one in (story, whole):
        one.windows(30)
    del process
    story.process = story.born()
    for one in (story, whole):
        one.windows(2)
    assert seen(story.state) == seen(whole.state)
    assert [_said(spec) for spec in story.records] == [_said(spec) for spec in whole.records]


class _Away:
    def settle(self, horizon: float) -> None:
        """Nobody works."""


def test_without_mlflow_it_waits_and_says_so_and_what_is_not_the_versions_is_refused() -> None:
    story = DriftStory()
    story.artifacts.away = True
    story.minute()
    assert story.condition("Ready")[:2] == ("False", "ReferenceUnread")
    assert "RegistryUnreachable" in story.condition("Ready")[2]
    story.artifacts.away = False
    for _ in range(5):
        story.minute()
    assert story.condition("Ready")[1] == "Watching"
    other = DriftStory()
    other.artifacts.reference += b" "
    other.minute()
    assert other.condition("Stalled")[:2] == ("True", "SpecRefused")
    assert "is not the file that the version's manifest names" in other.condition("Stalled")[2]
    other.artifacts.reference = document()
    for _ in range(5):
        other.minute()
    assert other.condition("Ready")[1] == "Watching", "it was restored, as the message said"


def test_a_reference_is_read_from_the_connection_that_the_model_names_now() -> None:
    told: list[object] = []
    references = References({"mlflow": Artifacts()}, told.append)
    asked = Asked("k", "elsewhere", "run", DIGEST, policy().spec, UID, "Volatility")
    references.aim("spx", asked)
    asyncio.run(references.step("spx"))
    assert "connection 'elsewhere' is not in the operator's settings" in references.problem("spx")
    references.aim("spx", replace(asked, connection="mlflow"))
    asyncio.run(references.step("spx"))
    assert references.problem("spx") == ""
    assert isinstance(references.of("spx", "k"), Calibrated)
    assert told == ["spx", "spx"]


def test_counts_over_other_edges_are_never_compared_and_are_once_they_are_the_same() -> None:
    story = DriftStory()
    edges, story.scorer.edges = story.scorer.edges, "ab" * 32
    story.windows(3)
    assert story.condition("Ready")[:2] == ("False", "ReferenceDiffers")
    assert story.state.folded == 0
    story.scorer.edges = edges
    story.windows(3)
    assert story.state.folded > 0


def test_a_status_that_somebody_changed_is_kept_and_not_gone_on_from() -> None:
    story = DriftStory()
    story.windows(3)
    body = story.cluster.objects["DriftPolicy", NAMESPACE, DP]
    evidence = {**body["status"]["evidence"], "state": body["status"]["evidence"]["state"].replace("8", "9")}
    story.cluster.touch(kinds.DRIFTPOLICY, NAMESPACE, DP, status={**body["status"], "evidence": evidence})
    story.windows(2)
    assert story.condition("Stalled")[:2] == ("True", "EvidenceUnreadable")
    kept = story.policy.status.evidence
    assert kept is not None
    assert kept.state == evidence["state"]


@pytest.mark.parametrize(("value", "phase"), [(1.0, "Drifted"), (0.1, "Stable"), (None, "Unknown")])
def test_a_query_is_asked_at_the_end_of_each_window(value: float | None, phase: str) -> None:
    query = {"name": "errors", "query": "sum(rate(errors[1h]))", "above": "0.5", "actions": ["Alert"]}
    story = DriftStory(spec={"monitors": [query]})
    story.scorer.value = value
    story.windows(3)
    assert story.policy.status.phase == phase
    asked = [text for text in story.scorer.queries if "errors" in text]
    assert len(asked) == 3, "once a window"
    assert set(asked) == {f'sum(rate(errors{{namespace="{NAMESPACE}"}}[1h]))'}


def test_missing_rows_are_seen_in_one_window() -> None:
    missing = {"name": "gone", "missing": {"above": "0.02"}, "actions": ["Alert"]}
    story = DriftStory(spec={"monitors": [missing]})
    story.windows(3)
    assert story.policy.status.phase == "Stable"
    story.lost = 4
    story.windows(1)
    assert story.policy.status.phase == "Drifted"


def test_windows_of_a_length_end_on_the_wall_clock() -> None:
    # Rows of the reference are days: a length holds them as densely as training did.
    story = DriftStory(spec={"window": {"rows": None, "length": "21d"}})
    story.minute()
    assert story.condition("Ready")[:2] == ("False", "FirstWindow")
    assert story.policy.status.next_window is not None


def test_without_a_model_a_prometheus_or_a_version_it_says_what_is_missing() -> None:
    story = DriftStory(seen=False)
    story.minute()
    assert "PrometheusNotConfigured" in story.condition("DataHealthy")[2]
    assert story.condition("Stalled")[0] == "True", "it does not pass by itself"
    assert story.condition("Reconciling")[0] == "False"
    story.cluster.remove(kinds.FINANCIALMODEL, NAMESPACE, NAME)
    story.settle()
    assert story.condition("Stalled")[:2] == ("True", "ModelMissing")
    story.cluster.remove(kinds.DRIFTPOLICY, NAMESPACE, DP)
    story.settle()
    assert story.told[-1] == ("dropped", ())


def test_without_an_outcome_scorer_nothing_is_judged_from_outcomes_and_that_is_said() -> None:
    story = DriftStory(
        spec={"monitors": [{"name": "loss", "realisedLoss": {"against": "Reference"}, "actions": ["Alert"]}]}
    )
    story.windows(2)
    assert story.condition("OutcomesRead")[:2] == ("False", "OutcomesUnread")
    assert story.policy.status.phase == "Unknown"
    assert "the operator's settings make no outcome scorer" in (story.policy.status.monitors[0].message or "")
