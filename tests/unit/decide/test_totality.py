"""Any order of events, lost status, lost Jobs and crashes: decide never raises, and what was promised holds."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fiduciary.decide import financialmodel
from fiduciary.decide.history import fold
from fiduciary.decide.world import (
    Claim,
    QuotaView,
    ReferenceView,
    RegistryView,
    RunView,
    VersionView,
)
from tests.unit.decide.simulated_world import WRITES, Crash, SimulatedWorld, Unreachable, Write
from tests.unit.decide.worlds import PLATFORM, T0, approval, job, metric, model, pod, result, world

NO_SKILL = {"metrics": {"ewma_skill": metric(-0.05, 0.01, [-0.05] * 6)}}
EDITS: list[dict[str, Any]] = [
    {"training": {"seed": 8}},
    {"training": {"seed": 7}},
    {"training": {"architecture": "Linear"}},
    {"training": {"resources": {"requests": {"cpu": "2"}}}},
    {"gates": [{"metric": "har_skill", "above": "0.5"}]},
    {"gates": []},
    {"suspend": True},
    {"suspend": False},
    {"kill": {"engaged": True}},
    {"kill": {"engaged": False}},
    {"data": {"asOf": "Rolling", "calendar": None}},
    {"data": {"asOf": "2017-12-29"}},
    {"training": {"schedule": {"cron": "0 22 * * *", "timeZone": "America/New_York"}}},
    {"training": {"schedule": None}},
    {"training": {"retry": {"limit": 0}}},
    {"deletionPolicy": "Retain"},
]
DECISIONS = ["Kill", "Resume", "Retrain", "Abort", "Approve"]


class Life(RuleBasedStateMachine):
    """Things happen to a model; between them the operator reconciles, dies, or is away."""

    def __init__(self) -> None:
        super().__init__()
        self.sim = SimulatedWorld()
        self.acts = 0

    @rule()
    def reconcile(self) -> None:
        if not self.sim.gone:
            with contextlib.suppress(Unreachable):
                self.sim.step()

    @rule(write=st.sampled_from(WRITES))
    def die(self, write: Write) -> None:
        if not self.sim.gone:
            with contextlib.suppress(Crash, Unreachable):
                self.sim.step(die_before=write)

    @rule(minutes=st.sampled_from([0.02, 1, 20, 90, 60 * 24]))
    def wait(self, minutes: float) -> None:
        self.sim.advance(minutes=minutes)

    @precondition(lambda self: not self.sim.gone)
    @rule(change=st.sampled_from(EDITS))
    def edit(self, change: dict[str, Any]) -> None:
        self.sim.edit(change)

    @rule(decision=st.sampled_from(DECISIONS), approver=st.sampled_from(["ana@desk", "dev@desk"]))
    def act(self, decision: str, approver: str) -> None:
        self.acts += 1
        needs = {"experiment": "x", "evidenceDigest": "sha256:" + "0" * 64} if decision == "Approve" else {}
        self.sim.approve(approval(f"act-{self.acts}", decision, self.sim.now, approver, **needs))

    @precondition(lambda self: any(not job.finished for job in self.sim.jobs))
    @rule(good=st.booleans(), message=st.booleans())
    def finish(self, good: bool, message: bool) -> None:
        live = [job for job in self.sim.jobs if not job.finished][-1]
        self.sim.finish(result(live.key, change=None if good else NO_SKILL), message=message)

    @precondition(lambda self: any(not job.finished for job in self.sim.jobs))
    @rule(code=st.sampled_from([1, 42, 64, 75, 137]))
    def fail(self, code: int) -> None:
        said = {"outcome": "DataRefused", "reason": "StaleData", "message": "stale"} if code == 42 else None
        self.sim.fail(code, said)

    @precondition(lambda self: any(not job.finished for job in self.sim.jobs))
    @rule(percent=st.integers(0, 100))
    def progress(self, percent: int) -> None:
        self.sim.start({"percent": percent})

    @rule()
    def lose_jobs(self) -> None:
        self.sim.lose_jobs()

    @precondition(lambda self: not self.sim.gone)
    @rule()
    def lose_status(self) -> None:
        self.sim.lose_status()

    @rule()
    def mlflow_goes_or_comes(self) -> None:
        self.sim.registry.up = not self.sim.registry.up

    @rule(version=st.sampled_from(["1", "2", "9"]))
    def somebody_moves_an_alias(self, version: str) -> None:
        self.sim.registry.aliases["champion"] = version

    @precondition(lambda self: not self.sim.gone)
    @rule()
    def delete(self) -> None:
        self.sim.delete()

    @precondition(lambda self: self.sim.gone)
    @rule()
    def create_again(self) -> None:
        self.sim.create_again()

    @invariant()
    def the_log_holds_together(self) -> None:
        history = fold(self.sim.world.records)
        assert history.broken is None
        assert [record.sequence for record in self.sim.records] == list(range(1, len(self.sim.records) + 1))

    @invariant()
    def one_training_at_a_time_has_a_job(self) -> None:
        history = fold(self.sim.world.records)
        live = [job for job in self.sim.jobs if job.key not in history.verdicts and not job.finished]
        assert len({job.key for job in live}) == len(live), "the same training runs twice"

    @invariant()
    def an_artifact_is_one_version(self) -> None:
        digests = [version.tags["fiduciary.dev/digest"] for version in self.sim.registry.versions]
        assert len(digests) == len(set(digests))

    @invariant()
    def every_registered_version_passed(self) -> None:
        for record in self.sim.records:
            if record.action == "Accept":
                assert record.to is not None
                assert any(version.version == record.to.version for version in self.sim.registry.versions)

    def teardown(self) -> None:
        """Left alone with MLflow up, everything settles, and then nothing is written any more."""
        sim = self.sim
        if sim.gone:
            return
        sim.registry.up = True
        sim.advance(minutes=10)  # past the patience of a deletion
        sim.settle(60)
        if sim.gone:
            return
        status, records = sim.status, len(sim.records)
        sim.settle(5)
        assert sim.status == status
        assert len(sim.records) == records


Life.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
test_any_life_settles = Life.TestCase


@pytest.mark.parametrize("write", WRITES)
def test_a_crash_before_each_write_of_each_step_ends_in_the_same_state(write: Write) -> None:
    """From apply to a champion and a refused challenger, the process dies once at every opportunity."""

    def live(die: bool) -> SimulatedWorld:
        sim = SimulatedWorld()

        def carry_on() -> None:
            for _ in range(12):
                if die:
                    with contextlib.suppress(Crash):
                        sim.step(die_before=write)
                sim.step()

        carry_on()
        sim.finish(result(sim.jobs[-1].key))
        carry_on()
        sim.edit({"training": {"architecture": "Linear"}})
        carry_on()
        sim.finish(result(sim.jobs[-1].key, change=NO_SKILL))
        carry_on()
        return sim

    calm, harried = live(die=False), live(die=True)
    assert harried.status == calm.status
    assert harried.actions == calm.actions == ["Accept", "Reject"]
    assert harried.created == calm.created
    assert harried.registry.aliases == calm.registry.aliases
    assert len(harried.registry.versions) == 1


# --- worlds that no simulation makes ---------------------------------------------------------------------------------

texts = st.text(max_size=30)
times = st.integers(-(10**6), 10**6).map(lambda seconds: T0 + timedelta(seconds=seconds))
numbers = st.none() | st.integers(-5, 10**6) | st.floats() | texts
results = st.dictionaries(
    st.sampled_from(["contractVersion", "outcome", "trainingKey", "reason", "message", "metrics", "checks", "digest"]),
    numbers | st.just(1) | st.dictionaries(texts, numbers, max_size=3),
    max_size=6,
)
KEY = job(model()).key
messages = texts | st.sampled_from(['{"contractVersion": 1}', f'{{"contractVersion": 1, "trainingKey": "{KEY}"}}'])
pods = st.builds(
    pod,
    messages,
    st.none() | st.integers(0, 255),
    phase=st.sampled_from(["Pending", "Running", "Succeeded", "Failed", "Unknown"]),
    reason=st.sampled_from(["", "ImagePullBackOff", "Unschedulable", "OOMKilled", "Evicted", "weird reason!"]),
    message=texts,
)
jobs = st.builds(
    lambda **parts: job(model(), **parts),
    attempt=st.integers(1, 4),
    succeeded=st.booleans(),
    failed=st.booleans(),
    suspended=st.booleans(),
    deleting=st.booleans(),
    reason=texts,
    message=texts,
    created_at=times,
    finished_at=st.none() | times,
    pods=st.lists(pods, max_size=3).map(tuple),
)
views = st.none() | st.builds(
    RegistryView,
    reachable=st.booleans(),
    reason=st.sampled_from(["RegistryUnreachable", "RegistryHostRejected"]),
    message=texts,
    run=st.none() | st.builds(RunView, texts, texts, st.none() | results, st.none() | results),
    version=st.none() | st.builds(VersionView, st.sampled_from(["1", "77"]), texts, texts, st.just({})),
    manifest_digest=st.none() | texts,
    aliases=st.dictionaries(st.sampled_from(["champion", "challenger", "other"]), texts, max_size=3),
)
acts = st.builds(
    approval, st.sampled_from(["a", "b", "c"]), st.sampled_from(["Kill", "Resume", "Retrain", "Abort", "Reject"]), times
).filter(lambda act: act.spec.decision != "Reject")
references = st.builds(ReferenceView, st.just("Secret"), texts, st.sampled_from(["Found", "Missing", "Forbidden"]))
quotas = st.builds(
    QuotaView,
    texts,
    st.dictionaries(st.sampled_from(["pods", "requests.cpu", "limits.memory", "x"]), st.sampled_from(["0", "1Gi"])),
    st.dictionaries(st.sampled_from(["pods", "requests.cpu"]), st.sampled_from(["0", "200m"])),
)
claims = st.builds(Claim, texts, texts, texts, times)


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    change=st.lists(st.sampled_from(EDITS), max_size=4),
    found=st.lists(jobs, max_size=2),
    asked=views,
    approvals=st.lists(acts, max_size=3),
    named=st.lists(references, max_size=1),
    limits=st.lists(quotas, max_size=2),
    rivals=st.lists(claims, max_size=2),
    deleted=st.none() | times,
    terminating=st.booleans(),
    uid=st.text(min_size=1, max_size=30),
    now=times,
)
def test_no_world_makes_decide_raise(
    change: list[dict[str, Any]],
    found: list[Any],
    asked: RegistryView | None,
    approvals: list[Any],
    named: list[Any],
    limits: list[Any],
    rivals: list[Any],
    deleted: Any,
    terminating: bool,
    uid: str,
    now: Any,
) -> None:
    """Whatever a cluster, a foreign image or a stranger in MLflow answers, a status comes of it."""
    sim = SimulatedWorld()
    for edit in change:
        sim.edit(edit)
    metadata = sim.model.metadata.model_copy(update={"deletion_timestamp": deleted, "uid": uid})
    given_world = world(
        model=sim.model.model_copy(update={"metadata": metadata}),
        jobs=tuple(found),
        registry=asked,
        approvals=tuple(sorted(approvals, key=lambda act: act.metadata.creation_timestamp)),
        references=tuple(named),
        quotas=tuple(limits),
        claims=tuple(rivals),
        namespace_terminating=terminating,
        platform=PLATFORM,
    )
    financialmodel.questions(replace(given_world, registry=None), now)
    financialmodel.questions(given_world, now)
    decision = financialmodel.decide(given_world, now)
    assert decision == financialmodel.decide(given_world, now), "the same world, the same answer"
    body = decision.status.body()
    assert type(decision.status).model_validate(body) == decision.status
    if decision.record is not None:
        assert type(decision.record).model_validate(decision.record.body()) == decision.record


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    change=st.dictionaries(
        st.sampled_from(["digest", "dataDigest", "runId", "source", "labelKind", "rows", "code", "metrics", "seed"]),
        st.none() | texts | st.integers() | st.floats() | st.lists(texts, max_size=2) | st.just({"a": "b" * 5000}),
        max_size=4,
    ),
    good=st.booleans(),
    message=st.booleans(),
)
def test_whatever_a_foreign_image_reports_is_judged(change: dict[str, Any], good: bool, message: bool) -> None:
    """spec.training.image may be anybody's: its result is data, not a promise."""
    sim = SimulatedWorld()
    sim.settle()
    document = {**result(sim.jobs[-1].key, change=None if good else NO_SKILL), **change}
    sim.finish(document, message=message)
    sim.settle()
    assert sim.actions in (["Accept"], ["Reject"], ["TrainingFailed"])
    assert sim.status.training is None
