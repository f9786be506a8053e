"""The real judgement on the memory cluster, ended before each of its writes: trained, judged, re-judged, retired.

What `test_crash.py` shows of the engine with a toy judge, this shows of the product: whichever write the process dies
at, there is one Job, one version and one verdict a key, the chain of the log holds, and nothing is ever trained twice.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from fiduciary.api.modeldecision import ModelDecision
from fiduciary.decide import financialmodel
from fiduciary.decide.history import fold
from fiduciary.engine import kinds
from fiduciary.engine.writes import ORDER, Step
from tests.unit.decide.worlds import SPEC, merged, result
from tests.unit.engine.memory import MemoryCluster, MemoryRegistry
from tests.unit.engine.mortal import Mortal
from tests.unit.engine.rig import Clock, Process

MODEL = ("FinancialModel", "quant", "spx")
HELD = {"gates": [{"metric": "har_skill", "above": "0.05"}]}
MISSED = {"gates": [{"metric": "har_skill", "above": "0.5"}]}


class Story(Mortal):
    """Train and accept; make a gate stricter and softer; another configuration; delete."""

    horizon = 10.0  # a running training is looked at every 15 s, for ever

    def __init__(self, die_at: int = -1, order: tuple[Step, ...] = ORDER) -> None:
        super().__init__(die_at, order)
        self.clock = Clock()
        self.cluster = MemoryCluster(self.clock.now)
        self.registry = MemoryRegistry()
        self.process = self.born()

    def born(self) -> Process:
        process = Process(
            self.cluster,
            self.registry,
            self.clock,
            judge=financialmodel,
            order=self.order,
            checkpoint=self.point,
        )
        process.start()
        return process

    def apply(self, change: dict[str, Any]) -> None:
        body = {"apiVersion": "fiduciary.dev/v1alpha1", "kind": "FinancialModel", "spec": merged(SPEC, change)}
        self.cluster.put(kinds.FINANCIALMODEL, {**body, "metadata": {"namespace": "quant", "name": "spx"}})
        self.settle()

    def train(self) -> None:
        """The node runs every Job that waits, and the trainer leaves what it leaves."""
        for (kind, namespace, name), job in list(self.cluster.objects.items()):
            if kind != "Job" or (job.get("status") or {}).get("conditions"):
                continue
            key = job["metadata"]["annotations"]["fiduciary.dev/training-key"]
            document = result(key)
            self.registry.manifests[document["runId"]] = document["digest"]
            ended = {"exitCode": 0, "message": json.dumps(document), "reason": "Completed"}
            labels = {**job["metadata"]["labels"], "job-name": name}
            metadata = {"namespace": namespace, "name": f"{name}-x", "labels": labels}
            owner = [{"uid": job["metadata"]["uid"]}]
            status = {"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": ended}}]}
            pod = {"metadata": {**metadata, "ownerReferences": owner}, "spec": {}, "status": status}
            self.cluster.put(kinds.POD, pod)
            done = {"type": "Complete", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
            self.cluster.touch(kinds.JOB, namespace, name, status={"conditions": [done]})
        self.settle()

    def run(self) -> None:
        self.apply({})
        self.train()
        self.apply(MISSED)
        self.apply(HELD)
        self.apply(merged(HELD, {"training": {"seed": 8}}))
        self.train()
        self.clock.seconds += 7200  # the TTL of Jobs whose verdict is stored
        self.settle()
        self.cluster.remove(kinds.FINANCIALMODEL, "quant", "spx")
        self.settle()

    def log(self) -> list[dict[str, Any]]:
        bodies = [body for (kind, _, _), body in self.cluster.objects.items() if kind == "ModelDecision"]
        return sorted((body["spec"] for body in bodies), key=lambda spec: spec["sequence"])

    def died(self, where: str) -> None:
        records = self.log()
        versions = {record["to"]["version"] for record in records if record["action"] == "Accept"}
        model = self.cluster.objects.get(MODEL)
        status = (model or {}).get("status", {})
        if status.get("lastDecision", {}).get("sequence", 0) > len(records):
            self.broken.append(f"the status names a record that does not exist ({where})")
        if set(self.registry.alias.get("quant.spx", {}).values()) - versions:
            self.broken.append(f"an alias names a version that no record names ({where})")
        if model is None and records and records[-1]["action"] != "Retire":
            self.broken.append(f"the model is gone and no record says so ({where})")

    def check_end(self) -> None:
        assert not self.broken
        jobs = [name for kind, _, name in self.cluster.created if kind == "Job"]
        assert len(jobs) == len(set(jobs)) == 2, "trained twice"
        assert len(self.registry.versions["quant.spx"]) == 2
        assert [record["action"] for record in self.log()] == ACTIONS
        bodies = [body for (kind, _, _), body in self.cluster.objects.items() if kind == "ModelDecision"]
        assert fold(tuple(ModelDecision.model_validate(body) for body in bodies)).broken is None
        assert MODEL not in self.cluster.objects
        assert self.registry.alias.get("quant.spx", {}) == {}


def undisturbed() -> Story:
    story = Story()
    story.run()
    return story


REFERENCE = undisturbed()
ACTIONS = [record["action"] for record in REFERENCE.log()]
POINTS = REFERENCE.points


def test_the_story_is_the_one_that_is_meant() -> None:
    REFERENCE.check_end()
    assert ACTIONS[0] == "Accept"
    assert ACTIONS[-1] == "Retire"
    assert ACTIONS.count("Accept") + ACTIONS.count("Reject") >= 4, ACTIONS
    assert {point.split(".")[0] for point in POINTS} >= {step.value for step in ORDER} - {"0-registration", "5-mirror"}


@pytest.mark.parametrize("number", range(len(POINTS)), ids=[f"{n}-{name}" for n, name in enumerate(POINTS)])
def test_ending_at_any_write_changes_nothing_in_the_end(number: int) -> None:
    story = Story(die_at=number)
    story.run()
    story.check_end()


@pytest.mark.parametrize(
    ("first", "second", "truth"),
    [
        (Step.RECORD, Step.STATUS, "the status names a record that does not exist"),
        (Step.RECORD, Step.RELEASE, "the model is gone and no record says so"),
    ],
    ids=["record-status", "record-release"],
)
def test_swapping_two_writes_is_noticed(first: Step, second: Step, truth: str) -> None:
    exchange = {first: second, second: first}
    order = tuple(exchange.get(step, step) for step in ORDER)
    for number in itertools.count():
        story = Story(number, order)
        story.run()
        if any(truth in broken for broken in story.broken):
            return
        assert number <= len(story.points), f"no crash broke {truth!r}: {story.broken}"
