"""How a training Job ended: the trainer's words first, Kubernetes' otherwise."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from fiduciary.decide import reasons
from fiduciary.decide.outcome import Failed, Measured, Unknown, needs_registry, outcome
from fiduciary.decide.world import JobView, RegistryView, RunView
from tests.unit.decide.worlds import T0, job, model, pod, result

KEY = job(model()).key


def ended(*pods: Any, **parts: Any) -> JobView:
    return job(model(), finished_at=T0 + timedelta(minutes=1), pods=pods, **parts)


def said(outcome_: str, reason: str, message: str) -> str:
    document = {"contractVersion": 1, "outcome": outcome_, "trainingKey": KEY, "reason": reason, "message": message}
    return json.dumps(document)


def run(document: Any) -> RegistryView:
    return RegistryView(True, run=RunView("run-1", "FINISHED", result=document))


def test_the_termination_message_of_the_pod_that_succeeded() -> None:
    failed_first = pod(said("Retryable", "SourceUnreachable", "s3 is away"), 75, name="a")
    found = outcome(ended(failed_first, pod(json.dumps(result(KEY)), 0, name="b"), succeeded=True), None)
    assert found == Measured(result(KEY))


def test_pods_that_only_carried_out_trials_have_no_result_and_no_last_word() -> None:
    searched = json.dumps({"contractVersion": 1, "outcome": "Searched", "trainingKey": KEY, "trials": 20})
    helper = pod(searched, 0, name="a-1", finished_at=T0 + timedelta(seconds=30))
    trained = pod(json.dumps(result(KEY)), 0, name="b-0", finished_at=T0 + timedelta(seconds=20))
    assert outcome(ended(helper, trained, succeeded=True), None) == Measured(result(KEY))
    assert needs_registry(ended(helper, succeeded=True))
    broken = pod(said("Failed", "KeyError", "'close' (at data.py:12)"), 1, name="b-0", finished_at=T0)
    failed = outcome(ended(helper, broken, failed=True, reason="FailedIndexes"), None)
    assert isinstance(failed, Failed)
    assert failed.reason == "KeyError"


def test_the_result_of_the_pod_that_trained_counts_where_another_one_has_used_up_its_retries() -> None:
    """The Job controller counts failed indexes before it asks successPolicy: with none left to run, it says Failed."""
    helper = pod("", 137, name="a-1", reason="OOMKilled", finished_at=T0 + timedelta(seconds=30))
    trained = pod(json.dumps(result(KEY)), 0, name="b-0", finished_at=T0 + timedelta(seconds=40))
    search = ended(helper, trained, failed=True, reason="FailedIndexes")
    assert outcome(search, None) == Measured(result(KEY))
    assert not needs_registry(search)
    short = ended(
        helper, pod(json.dumps({**result(KEY), "truncated": ["pnl.f"]}), 0), failed=True, reason="FailedIndexes"
    )
    assert needs_registry(short)
    assert outcome(short, run(result(KEY))) == Measured(result(KEY))


def test_the_pod_whose_end_is_final_speaks_and_not_the_one_that_was_stopped_for_it() -> None:
    helper = pod(said("OutOfMemory", "OutOfMemory", "what was seen"), 44, name="a-1", finished_at=T0)
    stopped = pod(said("Retryable", "Terminated", "SIGTERM"), 75, name="b-0", finished_at=T0 + timedelta(seconds=9))
    found = outcome(ended(helper, stopped, failed=True, reason="PodFailurePolicy"), None)
    assert found == Failed("OutOfMemory", "what was seen")


def test_a_result_of_another_training_is_not_ours() -> None:
    other = json.dumps(result("sha256:" + "e" * 64))
    lost = ended(pod(other, 0), succeeded=True)
    assert needs_registry(lost)
    assert isinstance(outcome(lost, None), Unknown)
    found = outcome(lost, run(result("sha256:" + "e" * 64)))
    assert isinstance(found, Failed)
    assert found.reason == reasons.RESULT_LOST


def test_a_lost_message_is_asked_of_the_run() -> None:
    lost = ended(succeeded=True)
    away = RegistryView(False, "RegistryUnreachable", "no answer from http://mlflow")
    waits = outcome(lost, away)
    assert isinstance(waits, Unknown)
    assert "no answer from http://mlflow" in waits.message
    assert outcome(lost, run(result(KEY))) == Measured(result(KEY))
    assert isinstance(outcome(lost, run(None)), Failed)


def test_a_shortened_message_is_completed_from_the_run() -> None:
    short = ended(pod(json.dumps({**result(KEY), "truncated": ["ewma_skill.f"]}), 0), succeeded=True)
    assert needs_registry(short)
    assert isinstance(outcome(short, None), Unknown)
    assert outcome(short, run(result(KEY))) == Measured(result(KEY))
    assert isinstance(outcome(short, run(None)), Measured), "what the pod said is better than nothing"


@pytest.mark.parametrize(
    ("field", "value"),
    [("digest", "sha256:abc"), ("digest", None), ("runId", ""), ("labelKind", "Other"), ("source", "a b")],
)
def test_a_result_that_names_no_artifact_cannot_be_used(field: str, value: Any) -> None:
    found = outcome(ended(pod(json.dumps({**result(KEY), field: value}), 0), succeeded=True), None)
    assert isinstance(found, Failed)
    assert found.reason == reasons.BAD_RESULT
    assert field in found.message


def test_refused_data_speaks_for_itself() -> None:
    found = outcome(ended(pod(said("DataRefused", "StaleData", "84 days old"), 42), failed=True), None)
    assert found == Failed("StaleData", "84 days old")


def test_a_bug_of_the_trainer_names_pod_and_job_reason() -> None:
    words = said("Failed", "KeyError", "'close' (at data.py:12)")
    found = outcome(ended(pod(words, 1), failed=True, reason="BackoffLimitExceeded"), None)
    assert isinstance(found, Failed)
    assert found.reason == "KeyError"
    assert "pod-1" in found.message
    assert "BackoffLimitExceeded" in found.message


@pytest.mark.parametrize(
    ("parts", "reason", "words"),
    [
        ({"reason": "DeadlineExceeded"}, reasons.DEADLINE_EXCEEDED, ("activeDeadline",)),
        ({"reason": "BackoffLimitExceeded", "message": "3 failed"}, "BackoffLimitExceeded", ("3 failed",)),
    ],
)
def test_without_words_kubernetes_is_quoted(parts: dict[str, Any], reason: str, words: tuple[str, ...]) -> None:
    found = outcome(ended(failed=True, **parts), None)
    assert isinstance(found, Failed)
    assert found.reason == reason
    for word in words:
        assert word in found.message


def test_out_of_memory_is_named() -> None:
    found = outcome(ended(pod("", 137, reason="OOMKilled"), failed=True, reason="BackoffLimitExceeded"), None)
    assert isinstance(found, Failed)
    assert found.reason == reasons.OUT_OF_MEMORY
    for word in ("137", "spec.training.resources.limits.memory"):
        assert word in found.message


def test_a_kill_without_a_word_is_no_kill_at_the_limit() -> None:
    found = outcome(ended(pod("", 137, reason="Error"), failed=True, reason="BackoffLimitExceeded"), None)
    assert isinstance(found, Failed)
    assert found.reason == reasons.POD_KILLED
    assert "requests.memory" in found.message


@pytest.mark.parametrize(("kind", "code"), [("Diverged", 43), ("OutOfMemory", 44)])
def test_a_training_that_would_end_so_again_speaks_for_itself(kind: str, code: int) -> None:
    told = said(kind, kind, "what was seen; what to do")
    found = outcome(ended(pod(told, code), failed=True, reason="PodFailurePolicy"), None)
    assert found == Failed(kind, "what was seen; what to do")


def test_the_newest_pod_speaks() -> None:
    old = pod(said("Retryable", "SourceUnreachable", "s3 is away"), 75, name="z", finished_at=T0)
    new = pod(said("DataRefused", "StaleData", "old"), 42, name="a", finished_at=T0 + timedelta(seconds=9))
    assert outcome(ended(old, new, failed=True), None) == Failed("StaleData", "old")
