"""Defects that the review of the wiring of experiments found in the engine."""

from __future__ import annotations

from typing import Any

from fiduciary.engine import kinds
from tests.unit.decide.worlds import NAME, NAMESPACE
from tests.unit.engine.trial_story import MX, TrialStory

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
