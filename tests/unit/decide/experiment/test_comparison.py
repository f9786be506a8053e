"""The replay of both procedures: when its Job is made, what its state means, and when nobody waits for it any more."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from fiduciary.api.conditions import find
from fiduciary.api.versions import VersionRef
from fiduciary.decide import reasons
from fiduciary.decide.decision import Create, Delete
from fiduciary.decide.experiment.comparison import ARRIVES, ATTEMPTS, FIRST_DELAY, replayable
from fiduciary.decide.experiment.ledgers import prequential_name
from fiduciary.decide.experiment.world import (
    Anchor,
    Comparison,
    ComparisonJob,
    Live,
    ModelFacts,
    PodFacts,
    PostedLedger,
    Spending,
)
from fiduciary.decide.world import PodView, QuotaView, ReferenceView
from tests.golden.comparison import SCORER
from tests.unit.decide.experiment.trials import FACTS, T0, UID, Trial, past, sessions
from tests.unit.decide.worlds import model

if TYPE_CHECKING:
    from fiduciary.decide.experiment.decision import Decision

CHAMPION, CHALLENGER = (
    VersionRef(version=n, digest="sha256:" + n * 64, run_id=n * 32, training_key="sha256:" + n * 64) for n in "78"
)
LEDGER = prequential_name("spx-volatility", CHAMPION.digest or "", CHALLENGER.digest or "")
NOTHING = PostedLedger(0)
ANSWERED = Comparison(model(), SCORER, ledger=NOTHING)


def improve(comparison: Comparison | None = ANSWERED, **parts: Any) -> Trial:
    spending = Spending(anchors=(Anchor("errors", 0.02),))
    spec = {"purpose": "Improve", **parts.pop("spec", {})}
    facts: ModelFacts = replace(FACTS, champion=CHAMPION)
    given = {"spending": spending, "bad": (0.0, 0.0), "champion": CHAMPION, "challenger": CHALLENGER, "model": facts}
    return Trial(**{**given, "spec": spec, "comparison": comparison, **parts})


def job(number: int = 1, **parts: Any) -> ComparisonJob:
    return ComparisonJob(
        **{
            "name": f"spx-volatility-compare-0-{number}", "uid": f"job-{number}", "attempt": number, "ledger": LEDGER,
            "owner_uid": UID, "created_at": T0, **parts,
        }
    )  # fmt: skip


def failed(number: int = 1, at: datetime = T0, ends: str = "BackoffLimitExceeded", **said: Any) -> ComparisonJob:
    message = json.dumps(
        {"contractVersion": 1, "outcome": "Retryable", "reason": "ScorerUnreachable", "message": "it is away", **said}
    )
    pod = PodView(f"pod-{number}", "Failed", exit_code=75, termination_message=message, finished_at=at)
    return job(number, failed=True, reason=ends, finished_at=at, pods=(pod,))


def with_jobs(trial: Trial, *jobs: ComparisonJob, ledger: PostedLedger | None = NOTHING) -> Decision:
    trial.comparison = replace(ANSWERED, jobs=jobs, ledger=ledger)
    return trial.evaluate()


def told(decision: Decision) -> tuple[str, str, str]:
    found = find(decision.status.conditions, reasons.REPLAYED)
    assert found is not None
    return found.status, found.reason, found.message


def made(decision: Decision) -> list[dict[str, Any]]:
    return [dict(child.body) for child in decision.children if isinstance(child, Create)]


def test_a_policy_and_then_a_job_are_made_at_once() -> None:
    decision = improve().evaluate()
    policy, wanted = made(decision)
    assert (policy["kind"], wanted["kind"]) == ("NetworkPolicy", "Job")
    assert wanted["metadata"]["ownerReferences"][0]["uid"] == UID
    document = json.loads(wanted["spec"]["template"]["metadata"]["annotations"]["fiduciary.dev/job"])
    assert document["ledger"]["name"] == LEDGER
    assert document["champion"]["runId"] == CHAMPION.run_id
    assert told(decision)[:2] == ("False", reasons.REPLAYING)
    # the same question again makes the same Job, whose name is taken
    assert made(improve().evaluate()) == [policy, wanted]


def test_no_job_is_made_while_the_scorer_does_not_say_what_it_has() -> None:
    decision = improve(replace(ANSWERED, ledger=None, unreachable="connection refused")).evaluate()
    assert decision.children == ()
    status, reason, message = told(decision)
    assert (status, reason) == ("False", reasons.SCORER_UNREACHABLE)
    assert "connection refused" in message
    assert decision.ruling.verdict is None  # steps go on; nothing is lost by waiting


def test_a_ledger_that_is_there_needs_no_job() -> None:
    """Another experiment on the pair has asked before, or the Job was deleted since."""
    trial = improve(replace(ANSWERED, ledger=PostedLedger(3000)))
    assert trial.evaluate().children == ()
    trial.ledger = sessions(0.2, 3000)
    decision = trial.minute()
    assert decision.children == ()
    assert told(decision) == ("True", reasons.REPLAYED, "3000 of 3000 replayed sessions are counted")
    # the scorer away now: what was folded stays
    trial.comparison = replace(ANSWERED, ledger=None)
    assert told(trial.minute())[:2] == ("True", reasons.REPLAYED)


def test_what_is_shown_is_not_the_test_that_decides_while_another_one_is_not() -> None:
    known = (past(0.005, 60),)
    trial = improve(replace(ANSWERED, ledger=PostedLedger(3000)), bad=(0.005, 0.005), history=known)
    trial.evaluate()
    trial.minute()
    replaying = trial.status.tests[0]
    assert (replaying.name, replaying.waits_for) == ("loss", "the replay: 0 of 3000 replayed sessions are counted")
    powered = find(trial.status.conditions, "Underpowered")
    assert powered is not None
    assert "loss" in powered.message, "nothing is known of it yet"
    trial.ledger = sessions(0.2, 3000)
    trial.minute()
    shown = trial.status.tests[0]
    assert (shown.waits_for, shown.earliest) == (None, None)
    assert f"{shown.last_block:%Y-%m-%d}" == "2018-03-22"
    assert (trial.status.deciding.name, trial.status.deciding.side) == ("errors", "NonInferiority")


def test_a_finished_replay_stays_told_once_the_challenger_holds_no_place() -> None:
    """Rolled back by the watch, or refused: the log knows no place of the challenger, and no run is looked for."""
    trial = improve(replace(ANSWERED, ledger=PostedLedger(3000)))
    trial.evaluate()
    trial.ledger = sessions(0.2, 3000)
    trial.until(reasons.PROMOTED)
    before = told(trial.decisions[-1])
    trial.record()
    trial.minute()
    trial.bad = (0.0, 0.2)
    trial.until(reasons.HARM_AFTER_PROMOTION)
    trial.record()
    trial.challenger = None
    trial.comparison = replace(ANSWERED, ledger=None)  # nobody asks the scorer any more
    assert told(trial.minute()) == before == ("True", reasons.REPLAYED, "3000 of 3000 replayed sessions are counted")


def test_a_replay_that_the_verdict_did_not_wait_for_is_said_to_have_ended_with_it() -> None:
    trial = improve()
    trial.evaluate()
    trial.live = Live(champion=PodFacts(ready=1), challenger=PodFacts(ready=1, restarts=3))
    assert trial.evaluate().ruling.reason == reasons.PODS_FAILED
    trial.record()
    trial.challenger = None
    status, reason, message = told(trial.minute())
    assert (status, reason) == ("False", reasons.REPLAY_NOT_NEEDED)
    assert "the verdict came before both procedures were replayed" in message


def test_a_part_of_a_ledger_shows_nothing() -> None:
    trial = improve(replace(ANSWERED, ledger=PostedLedger(3000)))
    trial.evaluate()
    trial.ledger = sessions(0.5, 2999)
    decision = trial.minutes(80)
    assert decision.status.log_e is not None
    assert float(decision.status.log_e) > 100
    assert decision.ruling.reason == reasons.GATHERING_EVIDENCE
    assert "2999 of 3000 replayed sessions are counted" in decision.ruling.message
    assert told(decision) == ("False", reasons.REPLAYING, "2999 of 3000 replayed sessions are counted")
    trial.ledger = sessions(0.5, 1, 2999)
    assert trial.minute().ruling.verdict == "Promote"


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"purpose": "Refresh"}},
        {"spec": {"purpose": "Improve", "evidence": {"outcomes": "Live"}}},
        {"procedures_known": False},
        {"comparison": None},
    ],
)
def test_where_nothing_is_to_be_replayed_nothing_is_said(change: dict[str, Any]) -> None:
    decision = improve(**change).evaluate()
    assert decision.children == ()
    assert find(decision.status.conditions, reasons.REPLAYED) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model": replace(FACTS, champion=CHAMPION, active=("other", "uid"))}, reasons.QUEUED),
        ({"model": replace(FACTS, champion=CHAMPION, killed=True)}, reasons.KILL_ENGAGED),
        ({"model": replace(FACTS, champion=CHAMPION, mode="Pinned")}, reasons.PINNED),
        ({"spec": {"suspend": True}}, reasons.SUSPENDED),
        ({"challenger": None}, reasons.SUPERSEDED),
    ],
)
def test_nothing_is_started_for_an_experiment_that_waits_or_is_over(change: dict[str, Any], reason: str) -> None:
    decision = improve(**change).evaluate()
    assert decision.ruling.reason == reason
    assert decision.children == ()


@pytest.mark.parametrize(
    ("running", "words"),
    [
        (job(suspended=True), "waits for admission"),
        (job(), "is being started"),
        (job(pods=(PodView("p", "Running", started_at=T0),)), "replays both procedures"),
        (job(pods=(PodView("p", "Pending", reason="ImagePullBackOff", message="no such image"),)), "no such image"),
        (job(pods=(failed().pods[0], PodView("q", "Running", started_at=T0))), "ScorerUnreachable: it is away"),
    ],
)
def test_a_job_under_way_is_waited_for(running: ComparisonJob, words: str) -> None:
    decision = with_jobs(improve(), running)
    assert decision.children == ()
    assert told(decision)[0] == "False"
    assert words in told(decision)[2]


def test_what_cannot_be_mended_by_trying_again_holds_the_experiment() -> None:
    message = "run 8 in MLflow lacks version/ledger.csv"
    trial = improve()
    decision = with_jobs(
        trial, failed(ends="PodFailurePolicy", message=message, outcome="DataRefused", reason="ArtifactMissing")
    )
    assert decision.children == ()
    assert (decision.ruling.verdict, decision.ruling.reason) == ("Hold", reasons.REPLAY_FAILED)
    assert decision.ruling.message == f"ArtifactMissing: {message}"
    assert told(decision) == ("False", "ArtifactMissing", message)
    assert trial.route.weight == trial.route.mirror == 0  # held before a request was spent
    stalled = find(decision.status.conditions, reasons.STALLED)
    assert stalled is not None
    assert stalled.status == "True"


def test_a_failure_outside_is_tried_again_later_each_time() -> None:
    trial = improve()
    first = with_jobs(trial, failed(at=trial.now))
    assert first.children == ()
    assert first.ruling.verdict is None
    assert first.wake_at <= trial.now + timedelta(seconds=FIRST_DELAY)
    assert told(first)[1] == "ScorerUnreachable"
    delays: list[float] = []
    jobs: tuple[ComparisonJob, ...] = (failed(at=trial.now),)
    for attempt in range(2, ATTEMPTS + 1):
        ended = trial.now
        while not (found := made(decision := with_jobs(trial, *jobs))):
            trial.now = max(trial.now + timedelta(seconds=1), min(decision.wake_at, trial.now + timedelta(seconds=60)))
        assert found[1]["metadata"]["name"].endswith(f"-{attempt}")
        delays.append((trial.now - ended).total_seconds())
        jobs = (*jobs, failed(attempt, at=trial.now))
    assert delays == sorted(delays)
    assert FIRST_DELAY <= delays[0] < 2 * FIRST_DELAY
    last = with_jobs(trial, *jobs)
    assert last.ruling.reason == reasons.REPLAY_FAILED
    assert f"{ATTEMPTS} Jobs failed" in last.ruling.message
    assert f"delete Job {jobs[-1].name}" in last.ruling.message


def test_a_posted_ledger_is_awaited_and_missed_when_the_scorer_lost_it() -> None:
    trial = improve()
    done = job(succeeded=True, finished_at=trial.now)
    assert told(with_jobs(trial, done))[1] == reasons.REPLAYING
    trial.now += timedelta(seconds=ARRIVES + 1)
    decision = with_jobs(trial, done)
    assert told(decision)[1] == reasons.LEDGER_LOST
    assert made(decision)[1]["metadata"]["name"].endswith("-2")


def test_jobs_that_nobody_waits_for_are_removed() -> None:
    trial = improve()
    running, old = job(2), job(1, succeeded=True, finished_at=T0)
    kept = trial.platform.job_ttl_seconds
    assert with_jobs(trial, running, ledger=PostedLedger(9)).children == ()  # it will find its ledger there
    trial.now += timedelta(seconds=kept)
    trial.ledger = sessions(0.2, 9)
    assert with_jobs(trial, old, ledger=PostedLedger(9)).children == (Delete("batch/v1", "Job", old.name, old.uid),)
    # an experiment that ends takes its running Job along
    trial.challenger = None
    decision = with_jobs(trial, running)
    assert decision.ruling.reason == reasons.SUPERSEDED
    assert decision.children == (Delete("batch/v1", "Job", running.name, running.uid),)
    assert with_jobs(trial, replace(running, deleting=True)).children == ()


def test_jobs_of_another_pair_are_not_its_own() -> None:
    decision = with_jobs(improve(), replace(failed(ends="PodFailurePolicy"), ledger="prequential-of-others"))
    assert made(decision)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"references": (ReferenceView("Secret", "desk-s3", "Found"),)}, reasons.REFERENCE_NOT_CONSUMABLE),
        ({"references": (ReferenceView("Secret", "desk-s3", "Missing"),)}, reasons.REFERENCE_MISSING),
        ({"quotas": (QuotaView("desk", {"cpu": "1"}, {"cpu": "900m"}),)}, reasons.QUOTA_EXCEEDED),
        ({"model": model({"registry": {"connection": "elsewhere"}})}, reasons.CONNECTION_UNKNOWN),
        (
            {"model": model({"data": {"source": {"dataset": None, "files": {"uri": "s3://theirs/spx.csv"}}}})},
            reasons.URI_NOT_ALLOWED,
        ),
    ],
)
def test_a_replay_reads_and_mounts_only_what_a_training_might(change: dict[str, Any], reason: str) -> None:
    """The spec may name another Secret now than the one with which a version was trained."""
    decision = improve(replace(ANSWERED, **change)).evaluate()
    assert decision.children == ()
    assert told(decision)[:2] == ("False", reason)
    usable = replace(ANSWERED, references=(ReferenceView("Secret", "desk-s3", "Found", consumable=True),))
    assert made(improve(usable).evaluate())


def test_without_a_scorer_or_a_run_nothing_can_be_replayed() -> None:
    assert told(improve(replace(ANSWERED, scorer=None)).evaluate())[1] == reasons.NO_SCORER
    decision = improve(challenger=CHALLENGER.model_copy(update={"run_id": None})).evaluate()
    assert told(decision)[1] == reasons.NOT_REPLAYABLE
    assert replayable(CHAMPION, CHALLENGER)
    assert not replayable(CHAMPION, None)
    assert not replayable(CHAMPION, VersionRef(version="9", digest="sha256:" + "9" * 64))


def test_a_failed_replay_ends_with_the_champion_when_time_is_over() -> None:
    trial = improve(spec={"stopping": {"maxDuration": "2h"}})
    trial.evaluate()
    trial.comparison = replace(ANSWERED, jobs=(failed(ends="PodFailurePolicy"),))
    assert trial.until(reasons.NOT_SHOWN).ruling.verdict == "KeepChampion"
