"""The life of an experiment in the engine: begun, counted, ruled, recorded, watched, over."""

from __future__ import annotations

from typing import Any

import pytest

from fiduciary.engine import kinds
from fiduciary.engine.experiments import observe
from fiduciary.engine.experiments.kept import folded
from fiduciary.engine.stores import Key
from tests.unit.decide.logs import digest
from tests.unit.decide.worlds import NAME, NAMESPACE
from tests.unit.engine.trial_story import MX, TrialStory

KEY = Key("ModelExperiment", NAMESPACE, MX)
SLOW = {"guardrails": [{"name": "errors", "metric": "ErrorRate", "margin": {"absolute": "0.001"}}]}
MODEL = Key("FinancialModel", NAMESPACE, NAME)


def idle(story: TrialStory) -> bool:
    """Nobody will look at it by himself, and nothing is asked about it."""
    assert story.process.counted is not None
    queue = story.process.loop.queue.core
    story.settle()
    return KEY not in queue._due and story.process.counted.gatherer.next_due() is None


# --- the life


def test_equal_versions_go_through_the_steps_and_are_promoted_and_watched_and_then_cost_nothing() -> None:
    story = TrialStory()
    story.until("Promoted")
    ruling = story.status["ruling"]
    assert (ruling["verdict"], ruling["reason"]) == ("Promote", "Promoted")
    assert ruling["summary"]["guardrails"]
    assert story.status["champion"] == {"version": "1", "digest": digest("1")}
    assert story.status["challenger"] == {"version": "2", "digest": digest("2")}
    story.run_for(60)
    assert story.condition("Ready") == ("True", "VerdictRecorded")
    assert story.status["phase"] == "Promoted"
    assert not idle(story), "inside rollbackWindow it is watched"
    blocks = story.stored().state.evidence.last
    story.run_for(300)
    assert story.stored().state.evidence.last >= blocks + 3
    story.run_for(700)
    assert story.status["evidence"]["counters"] == ""
    assert story.status["ruling"] == ruling, "it stays as it was written"
    assert idle(story)
    asked = len(story.prometheus.queries)
    story.run_for(600)
    assert len(story.prometheus.queries) == asked


def test_worse_is_rolled_back_and_is_over_with_its_record() -> None:
    story = TrialStory()
    story.until("GatheringEvidence")
    story.bad["2"] = 0.5
    story.until("HarmShown")
    assert story.status["ruling"]["verdict"] == "RollBack"
    assert story.status["harm"]["test"]
    assert story.status["desiredTraffic"] == {"champion": 100, "challenger": 0, "mirror": 0}
    story.run_for(60)
    assert (story.status["phase"], story.status["weight"]) == ("RolledBack", 0)
    assert story.condition("Ready") == ("True", "VerdictRecorded")
    assert idle(story)


def test_harm_after_the_promotion_replaces_its_ruling_and_goes_back() -> None:
    story = TrialStory()
    story.until("Promoted")
    story.run_for(60)
    story.bad["2"] = 0.6
    until = story.clock.seconds + 500
    while story.status["ruling"]["verdict"] != "RollBack":
        assert story.clock.seconds < until
        story.turn()
    assert story.status["ruling"]["reason"] == "HarmAfterPromotion"
    story.run_for(60)
    assert [record.spec.action for record in story.log.records][-2:] == ["Promote", "RollBack"]
    shown = story.status
    assert (shown["phase"], shown["verdict"], shown["reason"]) == ("RolledBack", "RollBack", "HarmAfterPromotion")
    assert shown["deciding"]["side"] == "Watch"
    assert idle(story)


def test_a_ruling_that_waits_for_its_record_is_not_judged_again_but_for_harm() -> None:
    story = TrialStory()
    story.until("Promoted")
    story.follows = False
    ruling = story.status["ruling"]
    # what nobody recorded yet, and what would now be held, is still what was ruled
    story.cluster.touch(kinds.MODELEXPERIMENT, NAMESPACE, MX, spec={**story.mx["spec"], "suspend": True})
    story.run_for(120)
    assert story.status["ruling"] == ruling
    assert (story.status["verdict"], story.status["desiredTraffic"]["challenger"]) == ("Promote", 100)
    story.bad["2"] = 0.5
    until = story.clock.seconds + 900
    while story.status["ruling"]["verdict"] != "RollBack":
        assert story.clock.seconds < until
        story.turn()
    assert story.status["desiredTraffic"]["challenger"] == 0


def test_pods_that_fail_roll_back_at_once_and_what_they_suffered_before_does_not_count() -> None:
    story = TrialStory()
    story.pod("2", restarts=3, killed=True)  # before it was exposed
    story.until("GatheringEvidence")
    story.run_for(120)
    assert "ruling" not in story.status
    story.pod("2", restarts=4, killed=True)
    story.turn()
    assert story.status["ruling"]["reason"] == "PodsFailed"
    assert "1 restarts" in story.status["ruling"]["message"]


def unanswered(story: TrialStory) -> None:
    """Requests that met no pod; the last of them are scraped later."""
    counter = story.prometheus.pods["2"]
    counter.started += 10_000
    counter.failed += 10_000


def test_requests_that_meet_no_pod_would_roll_back() -> None:
    """What the next tests leave out: the same requests while a pod is there."""
    story = TrialStory(spec={"circuitBreakers": [{"metric": "ErrorRate", "above": "0.25", "normal": "0.01"}]})
    story.reaches("half")
    story.run_for(60)
    unanswered(story)
    story.run_for(90)
    assert story.status["ruling"]["verdict"] == "RollBack"


def test_a_drained_node_costs_the_challenger_time_and_nothing_else() -> None:
    """Until the route has changed, requests meet no pod: that is in the counters, and is no evidence of the version."""
    story = TrialStory(spec={"circuitBreakers": [{"metric": "ErrorRate", "above": "0.25", "normal": "0.01"}]})
    story.reaches("half")
    story.run_for(60)
    unanswered(story)
    story.drained("2")
    story.turn()
    assert (story.status["reason"], story.status["phase"]) == ("PodsNotReady", "Holding")
    ready = {one["type"]: one for one in story.status["conditions"]}["Ready"]
    assert "ContainerCreating" in ready["message"]
    assert story.status["desiredTraffic"].get("challenger", 0) == 0
    story.process = story.born()  # failover: what is known of the absence is in the status
    story.run_for(180)
    assert story.status["reason"] == "PodsNotReady"
    assert story.stored().kept.absences
    story.pod("2")
    story.until("Promoted")
    assert [record.spec.action for record in story.log.records][-3:] == ["Shift", "Shift", "Promote"]
    assert story.stored().kept.absences == ()


def test_a_new_champion_whose_node_is_drained_is_not_rolled_back_for_it() -> None:
    story = TrialStory()
    story.until("Promoted")
    story.run_for(120)
    unanswered(story)
    story.drained("2")
    story.run_for(60)
    story.pod("2")
    story.run_for(1000)
    assert (story.status["phase"], story.status["ruling"]["verdict"]) == ("Promoted", "Promote")


def test_a_lost_node_ends_no_run_of_the_version_and_a_crash_does() -> None:
    story = TrialStory()
    story.reaches("half")
    story.pod("2", restarts=1, ended="Unknown")
    story.run_for(60)
    assert "ruling" not in story.status
    story.pod("2", restarts=2, ended="Error")
    story.turn()
    assert story.status["ruling"]["reason"] == "PodsFailed"


# --- what it sees


def test_without_prometheus_it_holds_blind_loses_nothing_and_keeps_the_champion_in_the_end() -> None:
    story = TrialStory(spec={"noData": {"maxHold": "20m"}})
    story.until("GatheringEvidence")
    story.run_for(120)
    story.prometheus.away = "PrometheusTimeout"
    story.until("BothDark")
    health = story.status["dataHealth"]
    assert health["state"] == "BothDark"
    assert health["message"] == "PrometheusTimeout: Prometheus is away"
    since, blocks = health["since"], story.stored().state.evidence.last
    story.process = story.born()  # the clock goes on over a restart
    story.run_for(180)
    assert story.status["dataHealth"]["since"] == since
    assert story.stored().state.evidence.last == blocks
    story.prometheus.away = None
    story.until("GatheringEvidence")
    story.run_for(180)
    assert story.stored().state.evidence.last > blocks + 4
    trials = story.stored().state.evidence.guardrails[0].seen_champion.trials
    unit = story.stored().kept.counters.champion.streams[0].units[0]
    first = story.prometheus.pods["1"].samples
    origin = story.stored().state.terms.origin * 1000
    before = max((started for at, started, _ in first if at <= origin), default=0)
    assert trials == unit.values[0] - before, "everything since the start is in the evidence, the gap as one block"
    story.prometheus.away = "PrometheusUnreachable"
    story.until("NoData")
    assert story.status["ruling"]["verdict"] == "KeepChampion"


def test_what_cannot_be_counted_any_more_is_no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the model's template no longer names a latency at which the pods of a running experiment counted."""
    story = TrialStory(spec={"noData": {"maxHold": "20m"}})
    story.reaches("half")
    assert story.traffic.get("challenger")
    known = observe.plan_of
    monkeypatch.setattr(observe, "plan_of", lambda *_: "no histogram has a bucket that ends at 170ms")
    story.run_for(600)
    assert not story.traffic.get("challenger"), "nobody would see it do harm"
    assert story.condition("DataHealthy") == ("False", "EvidenceRefused")
    assert "170ms" in story.status["dataHealth"]["message"]
    blocks = story.stored().state.evidence.last
    monkeypatch.setattr(observe, "plan_of", known)
    story.until("GatheringEvidence")
    story.run_for(180)
    assert story.stored().state.evidence.last > blocks + 4, "what was counted meanwhile is read"
    monkeypatch.setattr(observe, "plan_of", lambda *_: "no histogram has a bucket that ends at 170ms")
    story.until("NoData")
    assert story.status["ruling"]["verdict"] == "KeepChampion"


def test_a_process_that_has_just_begun_judges_nothing_before_its_first_answer() -> None:
    story = TrialStory()
    story.until("GatheringEvidence")
    story.run_for(120)
    before = story.status
    story.process = story.born()
    story.clock.seconds += 1_200  # nobody looked for twenty minutes
    while story.milliseconds >= story.scraped + 15_000:
        story.scraped += 15_000
        story.serve()
        story.prometheus.scrape(story.scraped)
    story.process.step()
    assert story.status == before
    story.run_for(60)
    assert story.status["dataHealth"]["state"] == "Good"
    assert story.stored().state.evidence.last >= 20


def test_a_restart_at_any_time_goes_on_to_the_same_bits() -> None:
    straight, restarted = TrialStory(), TrialStory()
    for story in (straight, restarted):
        while not story.status.get("evidence"):
            story.turn()
    for minute in range(12):
        straight.run_for(60)
        restarted.run_for(60)
        if minute % 2:
            restarted.process = restarted.born()
    one, other = straight.stored(), restarted.stored()
    assert one.state.evidence.last > 8
    assert one.state.evidence == other.state.evidence
    assert one.kept == other.kept
    assert folded(one.state, one.kept).counters == folded(other.state, other.kept).counters


def test_the_answer_to_the_status_write_is_lost_and_nothing_is_folded_twice() -> None:
    straight, lossy = TrialStory(), TrialStory()
    for story in (straight, lossy):
        while not story.status.get("evidence"):
            story.turn()
    for minute in range(8):
        straight.run_for(60)
        lossy.cluster.lose_next = ("before", "after")[minute % 2]
        lossy.run_for(60)
    assert straight.stored().state.evidence == lossy.stored().state.evidence
    assert straight.stored().kept == lossy.stored().kept


def test_a_route_that_somebody_changed_makes_its_blocks_count_for_harm_only() -> None:
    story = TrialStory(spec=SLOW)
    story.reaches("half")
    story.run_for(60)
    assert story.stored().kept.changes[-1].settled is not None
    story.confirms = False
    story.tell()  # the same split, no longer in force
    story.run_for(200)
    assert story.stored().kept.changes[-1].settled is None
    shown = story.stored().state.evidence.guardrails[0].final_blocks
    story.run_for(120)
    assert story.stored().state.evidence.guardrails[0].final_blocks == shown
    assert story.status["reason"] == "RouteNotConfirmed"
    story.confirms = True
    story.run_for(240)
    assert story.stored().state.evidence.guardrails[0].final_blocks > shown


# --- what cannot be judged


@pytest.mark.parametrize(
    ("spec", "reason", "words"),
    [
        ({"modelRef": {"name": "other"}}, "UnknownModel", "no FinancialModel other in namespace quant"),
        ({"challenger": {"version": "9"}}, "UnknownVersion", "versions that it knows: 1, 2"),
        ({"champion": {"version": "8"}}, "UnknownVersion", "spec.champion.version 8"),
        ({"challenger": {"version": "1"}}, "SameVersion", "version 1 is the champion"),
        (
            {"traffic": {"sticky": {"header": "fiduciary-bucket"}, "steps": [{"name": "shadow", "mirror": 100}]}},
            "NotYetActive",
            "leave traffic.sticky out",
        ),
    ],
)
def test_what_names_something_wrong_is_stalled_with_what_to_do(spec: Any, reason: str, words: str) -> None:
    story = TrialStory(spec=spec)
    story.turn()
    assert story.condition("Stalled") == ("True", reason)
    assert story.condition("Ready") == ("False", reason)
    message = next(one["message"] for one in story.status["conditions"] if one["type"] == "Stalled")
    assert words in message
    assert "evidence" not in story.status
    assert "finalizers" not in story.mx["metadata"]
    assert idle(story)


def test_without_prometheus_in_the_settings_it_is_stalled() -> None:
    story = TrialStory(seen=False)
    story.turn()
    assert story.condition("Stalled") == ("True", "PrometheusNotConfigured")


def test_a_version_that_comes_later_mends_it() -> None:
    story = TrialStory(spec={"challenger": {"version": "3"}})
    story.turn()
    assert story.condition("Stalled") == ("True", "UnknownVersion")
    story.write("Accept", "3", role="Challenger")
    story.settle()
    assert story.condition("Stalled")[0] == "False"


def test_stored_evidence_that_somebody_changed_is_refused() -> None:
    story = TrialStory()
    story.until("GatheringEvidence")
    status = dict(story.status)
    status["evidence"] = {**status["evidence"], "state": status["evidence"]["state"].replace('"last":', '"last": ')}
    story.cluster.touch(kinds.MODELEXPERIMENT, NAMESPACE, MX, status=status)
    story.settle()
    assert story.condition("Stalled") == ("True", "EvidenceUnreadable")


# --- its end


def test_an_experiment_that_never_began_goes_at_once() -> None:
    story = TrialStory()
    story.prometheus.away = "PrometheusUnreachable"  # so that the past is not read, and it does not begin
    story.run_for(60)
    assert story.status["reason"] == "ReadingHistory"
    assert "finalizers" not in story.mx["metadata"]
    story.cluster.remove(kinds.MODELEXPERIMENT, NAMESPACE, MX)
    story.settle()
    assert not story.there
    assert idle(story)


def test_a_started_one_is_held_until_what_it_spent_is_recorded() -> None:
    story = TrialStory()
    story.until("GatheringEvidence")
    assert story.mx["metadata"]["finalizers"] == ["fiduciary.dev/finalizer"]
    story.follows = False
    story.cluster.remove(kinds.MODELEXPERIMENT, NAMESPACE, MX)
    story.run_for(60)
    assert story.there
    assert (story.status["ruling"]["verdict"], story.status["ruling"]["reason"]) == ("KeepChampion", "Deleting")
    story.follows = True
    story.run_for(10)
    assert not story.there
    assert story.log.records[-1].spec.action == "Reject"
    assert idle(story)


def test_in_a_namespace_that_ends_it_waits_for_nobody() -> None:
    story = TrialStory()
    story.until("GatheringEvidence")
    story.follows = False
    story.cluster.terminating.add(NAMESPACE)
    story.cluster.remove(kinds.MODELEXPERIMENT, NAMESPACE, MX)
    story.settle()
    assert not story.there


def test_without_its_model_it_waits_for_nobody() -> None:
    story = TrialStory()
    story.until("GatheringEvidence")
    story.follows = False
    story.cluster.remove(kinds.FINANCIALMODEL, NAMESPACE, NAME)
    story.settle()
    assert story.condition("Stalled") == ("True", "UnknownModel")
    story.cluster.remove(kinds.MODELEXPERIMENT, NAMESPACE, MX)
    story.settle()
    assert not story.there


# --- who is woken


def test_its_own_status_wakes_the_model_where_the_model_reads_it_and_not_otherwise() -> None:
    story = TrialStory(spec=SLOW)
    story.reaches("half")
    story.run_for(120)
    looked: list[Key] = []
    changed = story.process.loop.queue.add
    experiments = story.process.reconcile._reconciles[kinds.MODELEXPERIMENT.kind]
    experiments._changed = lambda key: (looked.append(key), changed(key))  # type: ignore[attr-defined]
    blocks = story.stored().state.evidence.last
    story.run_for(120)
    assert story.stored().state.evidence.last > blocks
    assert looked == []
    story.bad["2"] = 0.6
    story.until("HarmShown")
    assert set(looked) == {MODEL}


def test_after_a_restart_nobody_looks_at_what_is_over() -> None:
    story = TrialStory()
    story.until("GatheringEvidence")
    story.bad["2"] = 0.5
    story.until("HarmShown")
    story.run_for(60)
    story.process = story.born()
    queue = story.process.loop.queue.core
    assert KEY not in queue._due
    assert KEY not in queue._waiting
    assert MODEL in queue._waiting or MODEL in queue._due
