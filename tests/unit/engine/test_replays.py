"""Outcomes in the engine: the comparison Job of an experiment, the ledger that it posts, and what is read of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fiduciary.decide.experiment.comparison import FIRST_DELAY
from fiduciary.decide.experiment.ledgers import LedgerView, prequential_name
from fiduciary.engine import kinds
from fiduciary.engine.stores import Key
from fiduciary.manifests.plans import Scoring
from tests.unit.decide.experiment.trials import XNYS, sessions
from tests.unit.decide.logs import digest
from tests.unit.decide.worlds import NAME, NAMESPACE, PLATFORM
from tests.unit.engine.trial_story import MX, TrialStory

if TYPE_CHECKING:
    from fiduciary.decide.experiment.ledgers import Wanted

KEY = Key("ModelExperiment", NAMESPACE, MX)
LEDGER = prequential_name(NAME, digest("1"), digest("2"))
DAYS = 700
IMPROVE: dict[str, Any] = {"purpose": "Improve"}


class Read:
    """What the poller has read; its own work is tested with the real scorer (tests/outcomes/test_operator.py)."""

    def __init__(self) -> None:
        self.wanted: dict[Any, Wanted] = {}
        self.view = LedgerView()

    def aim(self, key: Any, wanted: Wanted) -> None:
        self.wanted[key] = wanted

    def results(self, key: Any) -> LedgerView:
        wanted = self.wanted.get(key)
        if wanted is None:
            return LedgerView()
        source = "Live" if wanted.prequential is None else "Prequential"
        rows = (row for row in self.view.rows if row.source == source)
        return replace(self.view, rows=tuple(row for row in rows if row.number > wanted.folded))

    def drop(self, key: Any) -> None:
        self.wanted.pop(key, None)


class ReplayStory(TrialStory):
    """A trial whose namespace has a scorer."""

    def __init__(self, spec: dict[str, Any] | None = None, die_at: int = -1) -> None:
        assert PLATFORM.serving is not None
        scoring = Scoring("outcomes:1", "https://issuer", "system:serviceaccount:f:o", "f")
        serving = replace(PLATFORM.serving, scoring=scoring)
        self.platform = replace(PLATFORM, serving=serving, calendars={"XNYS": XNYS})
        self.ledgers = Read()
        super().__init__(die_at, {**IMPROVE, **(spec or {})})

    def says(self, **view: Any) -> None:
        """The scorer answers."""
        self.ledgers.view = replace(LedgerView(), complete=True, at=self.clock.now(), **view)
        self.process.loop.queue.add(KEY)

    def jobs(self) -> list[dict[str, Any]]:
        return [body for (kind, _, _), body in self.cluster.objects.items() if kind == "Job"]

    def ended(self, kind: str, **parts: Any) -> None:
        """How the only Job under way ended."""
        condition = {"type": kind, "status": "True", "lastTransitionTime": self.clock.now().isoformat(), **parts}
        name = max(job["metadata"]["name"] for job in self.jobs())
        self.cluster.touch(kinds.JOB, NAMESPACE, name, status={"conditions": [condition]})

    def posted(self) -> None:
        self.ended("Complete")
        self.says(rows=sessions(0.3, DAYS), prequential_length=DAYS)


def begun(**parts: Any) -> ReplayStory:
    story = ReplayStory(**parts)
    story.reaches("shadow")
    story.says()
    story.run_for(10)
    return story


def test_a_job_replays_and_its_ledger_promotes() -> None:
    story = begun()
    [job] = story.jobs()
    document = json.loads(job["spec"]["template"]["metadata"]["annotations"]["fiduciary.dev/job"])
    assert document["ledger"]["name"] == LEDGER
    assert document["champion"]["runId"] == "1" * 32
    assert job["metadata"]["ownerReferences"][0]["uid"] == story.mx["metadata"]["uid"]
    assert story.condition("Replayed") == ("False", "Replaying")
    assert [kind for kind, _, _ in story.cluster.created if kind in ("NetworkPolicy", "Job")][-2:] == [
        "NetworkPolicy",
        "Job",
    ]
    story.posted()
    story.run_for(10)
    assert story.condition("Replayed") == ("True", "Replayed")
    assert story.stored().state.evidence.sessions.last == DAYS - 1
    story.until("Promoted")
    grounds = {one["reason"] for one in story.status["ruling"]["reasons"]}
    assert "PrequentialEvidence" in grounds
    assert story.ledgers.wanted[KEY].folded == DAYS - 1
    assert len(story.jobs()) == 1


def test_no_job_before_the_scorer_has_answered() -> None:
    story = ReplayStory()
    story.reaches("shadow")
    assert story.jobs() == []
    assert story.condition("Replayed") == ("False", "ScorerUnreachable")
    assert story.ledgers.wanted[KEY].prequential == LEDGER


def test_a_refusal_holds_and_a_deleted_job_is_another_try() -> None:
    story = begun()
    story.ended("Failed", reason="PodFailurePolicy", message="exit code 42")
    story.until("ReplayFailed")
    assert story.status["phase"] == "Holding"
    [job] = story.jobs()
    story.cluster.remove(kinds.JOB, NAMESPACE, job["metadata"]["name"])
    story.run_for(60)
    [again] = story.jobs()
    assert again["metadata"]["name"] == job["metadata"]["name"]
    assert again["metadata"]["uid"] != job["metadata"]["uid"]


def test_an_outage_is_tried_again_later() -> None:
    story = begun()
    story.ended("Failed", reason="BackoffLimitExceeded")
    story.run_for(FIRST_DELAY - 20)
    assert len(story.jobs()) == 1
    story.run_for(60)
    assert [job["metadata"]["name"][-2:] for job in story.jobs()] == ["-1", "-2"]


def test_an_experiment_that_ends_takes_its_running_job_along() -> None:
    story = begun()
    story.bad["2"] = 0.5
    story.until("HarmShown")
    story.run_for(60)
    assert story.jobs() == []
    assert KEY not in story.ledgers.wanted


def test_live_outcomes_alone_promote() -> None:
    """Nothing is replayed: sessions close one after the other while both arms see every request, over a failover."""
    spec = {
        "evidence": {"dispersion": "1", "outcomes": "Live"},
        "stopping": {"minDuration": "1m", "maxDuration": "2000d"},
    }
    story = ReplayStory(spec)
    story.says()
    story.reaches("shadow")
    story.run_for(30)
    wanted = story.ledgers.wanted[KEY]
    assert (wanted.prequential, wanted.live is not None) == (None, True)
    assert wanted.first == "2026-01-01", "it is the 31st in New York: the first whole session of the mirror"
    for closed in (200, 400, 401):  # the first 250 set the scale
        story.says(rows=sessions(0.3, closed, source="Live"), begun=True)
        story.run_for(60)
        assert "ruling" not in story.status
    story.process = story.born()
    story.says(rows=sessions(0.3, DAYS, source="Live"), begun=True)
    story.until("Promoted")
    ruling = story.status["ruling"]
    assert {"LiveEvidence", "NotWorse"} == {one["reason"] for one in ruling["reasons"]}
    assert story.stored().state.evidence.objectives[0].folded == DAYS - 250
    assert story.jobs() == []
    assert [record.spec.action for record in story.log.records][-1] == "Promote"


def test_live_outcomes_that_say_the_challenger_is_worse_promote_nothing() -> None:
    spec = {
        "evidence": {"dispersion": "1", "outcomes": "Live"},
        "stopping": {"minDuration": "1m", "maxDuration": "2000d"},
    }
    story = ReplayStory(spec)
    story.reaches("shadow")
    story.says(rows=sessions(-0.3, DAYS, source="Live"), begun=True)
    story.run_for(900)
    assert "ruling" not in story.status
    assert (story.status["step"], story.status["reason"]) == ("shadow", "GatheringOutcomes")


def test_a_refresh_is_not_replayed_and_its_live_sessions_are_read() -> None:
    story = ReplayStory({"purpose": "Refresh"})
    story.says()
    story.until("Promoted")
    assert story.jobs() == []
    assert story.ledgers.wanted[KEY].prequential is None
    assert story.ledgers.wanted[KEY].live is not None


def test_wherever_the_process_ends_one_job_is_made_and_every_day_folded_once() -> None:
    whole = begun()
    points = len(whole.points)
    for die_at in range(points):
        story = begun(die_at=die_at)
        assert len(story.jobs()) == 1
        story.posted()
        story.until("Promoted")
        assert story.stored().state.evidence.sessions.last == DAYS - 1
        assert not story.broken
