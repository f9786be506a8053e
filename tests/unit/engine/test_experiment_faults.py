"""Faults around an experiment in the engine: deaths, wiped statuses, answers that nobody can read; each failed once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from fiduciary.clients.kube import Invalid
from fiduciary.clients.prometheus_answers import PrometheusError
from fiduciary.decide.counters.blocks import START, read
from fiduciary.decide.counters.exposure import Change
from fiduciary.decide.counters.state import FIELDS
from fiduciary.decide.counters.templates import Workload
from fiduciary.engine import kinds
from tests.unit.decide.counters.played import plan
from tests.unit.decide.logs import version
from tests.unit.decide.worlds import NAMESPACE
from tests.unit.engine.counting import SCRAPE, MemoryPrometheus
from tests.unit.engine.experiment_story import ExperimentStory
from tests.unit.engine.test_gather import EDGE, MINUTE, SETTLED, Asked, Before
from tests.unit.engine.trial_story import MX, TrialStory

if TYPE_CHECKING:
    from fiduciary.decide.counters.samples import Series

SLOW = {"guardrails": [{"name": "errors", "metric": "ErrorRate", "margin": {"absolute": "0.001"}}]}


def scrapes(story: TrialStory, seconds: int) -> None:
    """Clients and Prometheus go on; nobody of ours is at work."""
    story.clock.seconds += seconds
    while story.milliseconds >= story.scraped + 15_000:
        story.scraped += 15_000
        story.serve()
        story.prometheus.scrape(story.scraped)


def test_a_process_that_died_between_the_route_and_the_models_status_counts_no_block_at_old_weights() -> None:
    """The record and the route say 50 %, the status of the model still says what was before."""
    story = TrialStory(spec=SLOW)
    story.reaches("half")
    story.run_for(300)
    assert story.stored().state.evidence.ratio is not None
    del story.process
    # a record and a route with other weights; the status was not written
    story.decided = story.clock.now()
    its = {"experiment": MX, "uid": story.mx["metadata"]["uid"], "purpose": "Refresh"}
    story.write("Shift", "2", traffic={"champion": 90, "challenger": 10}, summary=its, cause={"experiment": MX})
    story.traffic = {"champion": 90, "challenger": 10}
    scrapes(story, 600)
    story.confirms = story.follows = False
    story.process = story.born()
    story.run_for(120)
    evidence = story.stored().state.evidence
    assert not evidence.ratio_alarm, "the router did what the log says"
    assert "ruling" not in story.status


def test_what_cannot_be_judged_any_more_asks_for_no_share() -> None:
    """Its evidence is of another release, or was changed: nobody watches the challenger."""
    story = TrialStory(spec=SLOW)
    story.reaches("half")
    status = dict(story.status)
    status["evidence"] = {**status["evidence"], "state": status["evidence"]["state"].replace('"last":', '"last": ')}
    story.cluster.touch(kinds.MODELEXPERIMENT, NAMESPACE, MX, status=status)
    story.settle()
    assert story.condition("Stalled") == ("True", "EvidenceUnreadable")
    wish: dict[str, Any] = story.status["desiredTraffic"]
    assert (wish.get("champion"), wish.get("challenger", 0), wish.get("mirror", 0)) == (100, 0, 0)


def test_evidence_that_was_wiped_with_the_status_is_missed() -> None:
    """A person removed the status of a trial: a new start would forget harm, and test twice what was paid for once."""
    story = TrialStory(spec=SLOW)
    story.reaches("half")
    story.follows = False
    story.cluster.touch(kinds.MODELEXPERIMENT, NAMESPACE, MX, status={})
    story.run_for(60)
    assert story.condition("Stalled")[0] == "True", story.status
    assert "evidence" not in story.status


# --- questions to Prometheus


class Spoilt(MemoryPrometheus):
    """Answers no question that reaches the series of one namespace."""

    spoils = "greedy"

    async def matrix(self, promql: str, at: int) -> tuple[Series, ...]:
        found = await super().matrix(promql, at)
        if self.spoils in promql:
            raise PrometheusError("PrometheusTooLarge", "more than 16777216 bytes: too many series match")
        return found


def spoilt(count: int) -> Asked:
    asked = Asked(count=count)
    asked.prometheus.__class__ = Spoilt
    for number in range(count):
        asked.gatherer.aim(number, asked.want(number))
    want = asked.want(count)
    greedy = replace(want, champion=Workload("greedy", "m-a"), challenger=Workload("greedy", "m-b"))
    asked.gatherer.aim("greedy", greedy)
    return asked


def test_series_of_one_namespace_that_nobody_can_read_blind_nobody_else() -> None:
    asked = spoilt(20)
    asked.until(EDGE + MINUTE + SETTLED)
    errors = {key for key in (*range(20), "greedy") if asked.gatherer.results(key, -1).error is not None}  # type: ignore[union-attr]
    assert errors == {"greedy"}
    before = len(asked.prometheus.queries)
    for number in range(20):
        asked.gatherer.aim(number, asked.want(number, last=0))
    asked.until(EDGE + 2 * MINUTE + SETTLED - SCRAPE)
    asked.prometheus.queries.clear()
    asked.until(EDGE + 2 * MINUTE + SETTLED)
    assert len(asked.prometheus.queries) <= 3, "from then on it is asked about by itself"
    assert before < 20


def test_two_experiments_on_one_version_read_it_each_with_its_own_thresholds() -> None:
    asked = Asked()
    one, other = asked.want(), asked.want(thresholds=(50, 100, 250))
    asked.gatherer.aim(0, one)
    asked.gatherer.aim(1, other)
    asked.until(EDGE + MINUTE + SETTLED)
    for key, want in ((0, one), (1, other)):
        found = asked.gatherer.results(key, -1)
        assert found is not None
        fields = {len(FIELDS) + place for place in range(len(want.plan.thresholds))}
        (track,) = found.samples.champion["pods"].values()
        assert max(place for strand in track.strands for place in strand.fields) <= max(fields)
        assert len(read(want.plan, START, found.samples, (Change(0, 0, 50, 0),), found.at).blocks) == 1


def test_a_champion_whose_past_nobody_can_read_holds_up_no_other() -> None:
    before = Before(1.0)
    before.prometheus.__class__ = Spoilt
    before.pasts.aim("greedy", plan(), Workload("greedy", "m-a"))
    before.pasts.aim(0, plan(), Workload("quant", "m0-a"))
    started = before.now
    for _ in range(500):
        if not before.pasts.unread(0):
            break
        due = before.pasts.next_due()
        assert due is not None
        before.now = max(before.now, due)
        asyncio.run(before.pasts.step())
    assert before.pasts.unread(0) == ""
    assert before.now - started <= 2 * 15_000
    assert before.pasts.unread("greedy").startswith("PrometheusTooLarge")


def test_a_step_begins_as_soon_as_its_version_is_known_to_the_gateways() -> None:
    """Nobody calls when that is over: the model has to wake by itself, not with the resync in ten minutes."""
    story = ExperimentStory.begun().goes_on(-1)
    began = story.clock.seconds
    while story.log()[-1]["action"] != "Shift":
        story.calm(1)
        assert story.clock.seconds < began + 60, story.log()[-1]


def test_a_challenger_on_whose_experiment_the_operator_fails_gives_back_its_share() -> None:
    """No breaker, no harm test and no end is judged then: it must not go on answering clients."""
    story = ExperimentStory.begun().goes_on(-1)
    until = story.clock.seconds + 600
    while story.status["traffic"].get("challenger", 0) == 0:
        story.calm(5)
        assert story.clock.seconds < until
    experiments = story.process.reconcile._reconciles[kinds.MODELEXPERIMENT.kind]  # pyright: ignore[reportPrivateUsage]
    judge = experiments._judge  # type: ignore[attr-defined]

    class Broken:
        @staticmethod
        def decide(world: Any, now: Any) -> Any:
            raise Invalid(422, "Invalid", "the API server takes no such status")

    experiments._judge = Broken  # type: ignore[attr-defined]
    story.process.refusals = True
    story.calm(60)
    assert story.status["traffic"].get("challenger", 0) == 0, "whoever is refused is tried again after half a minute"
    assert story.ready() == ("True", "Serving")
    experiments._judge = judge  # type: ignore[attr-defined]
    story.calm(60)
    assert story.status["traffic"].get("challenger", 0) == 50


def test_an_experiment_whose_challenger_people_made_champion_is_over_with_its_record() -> None:
    """All requests are the version's, by a pin: that is no reason to count them for ever."""
    story = TrialStory(spec=SLOW)
    story.reaches("half")
    story.follows = False
    story.decided = story.clock.now()
    story.write("Promote", "2", **{"from": version("1")}, traffic={"champion": 100}, cause={"kind": "Pinned"})
    story.traffic, story.places = {"champion": 100}, {"champion": version("2")}
    story.tell()
    story.until("Superseded", minutes=5)
    its = {**story.status["ruling"]["summary"], "experiment": MX, "uid": story.mx["metadata"]["uid"]}
    story.write("Abort", "2", **{"from": version("1")}, summary=its, cause={"experiment": MX})
    story.tell()
    story.run_for(30)
    assert story.status["evidence"]["counters"] == ""


def test_a_status_that_was_wiped_while_a_promotion_is_watched_is_missed() -> None:
    """The evidence of the watch is gone with it: nobody rolls back by itself any more, and a person has to know."""
    story = TrialStory()
    story.until("Promoted")
    story.run_for(30)
    promoted = story.log.records[-1].spec
    assert promoted.action == "Promote"
    story.cluster.touch(kinds.MODELEXPERIMENT, NAMESPACE, MX, status={})
    story.run_for(30)
    assert story.condition("Stalled") == ("True", "WatchLost"), story.status
    assert story.condition("Ready") == ("False", "WatchLost")
    said = next(one["message"] for one in story.status["conditions"] if one["type"] == "Stalled")
    assert "decision: RollBack" in said
    assert f"{promoted.decided_at + timedelta(minutes=10):%H:%M:%S}" in said, "the end of rollbackWindow"
    story.run_for(600)
    assert story.condition("Stalled")[0] == "False", "nothing is left to be watched"
    assert story.condition("Ready") == ("True", "VerdictRecorded")
    assert story.status["phase"] == "Promoted"
