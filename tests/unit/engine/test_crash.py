"""The process ends at each numbered write of the protocols: what is there then must be true, and the end must be right.

Truths that hold at every moment, also just after a crash, whichever write came last. Swapping two writes breaks at
least one of them, which is shown too: a test that cannot fail shows nothing.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from fiduciary.api import meta
from fiduciary.engine import kinds
from fiduciary.engine.writes import ORDER, Step
from tests.unit.engine import toy_judge
from tests.unit.engine.memory import MemoryCluster, MemoryRegistry
from tests.unit.engine.mortal import Mortal
from tests.unit.engine.rig import Clock, Process, finish_jobs

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL = ("FinancialModel", "quant", "m")


class Story(Mortal):
    """A model from its first day to its deletion, with a process that ends at its n-th write and starts again."""

    def __init__(self, order: tuple[Step, ...] = ORDER, die_at: int = -1) -> None:
        super().__init__(die_at, order)
        self.clock = Clock()
        self.cluster = MemoryCluster(self.clock.now)
        self.registry = MemoryRegistry()
        self.process = self.born()

    def born(self) -> Process:
        process = Process(self.cluster, self.registry, self.clock, order=self.order, checkpoint=self.point)
        process.start()
        return process

    def died(self, where: str) -> None:
        self.broken += [f"{truth} (killed at {where})" for truth in self.untrue()]

    def run(self) -> None:
        self.cluster.put(kinds.FINANCIALMODEL, toy_judge.body(seed=1))
        for seed in (1, 2):
            self.cluster.put(kinds.FINANCIALMODEL, toy_judge.body(seed=seed))
            self.settle()
            finish_jobs(self.cluster)
            self.settle()
            assert self.cluster.objects[MODEL]["status"]["phase"] == "Registered"
        self.cluster.remove(kinds.FINANCIALMODEL, "quant", "m")
        self.settle()

    def untrue(self) -> Iterator[str]:
        """Which of the truths does not hold now."""
        model = self.cluster.objects.get(MODEL)
        records = [body["spec"] for (kind, _, _), body in self.cluster.objects.items() if kind == "ModelDecision"]
        accepted = {spec["to"]["digest"]: spec["to"]["version"] for spec in records if spec["action"] == "Accept"}
        champion = (model or {}).get("status", {}).get("champion")
        if champion and champion["digest"] not in accepted:
            yield "the status names a champion that no record names"
        if set(self.registry.alias.get("quant.m", {}).values()) - set(accepted.values()):
            yield "an alias points at a version that no record names"
        jobs = [body for (kind, _, _), body in self.cluster.objects.items() if kind == "Job"]
        if jobs and model is not None and meta.FINALIZER not in model["metadata"].get("finalizers", []):
            yield "a Job runs for a model that could vanish without cleaning up"
        if model is None and records and records[-1]["action"] != "Retire":
            yield "the model is gone and no record says so"
        if model is None and self.registry.alias.get("quant.m"):
            yield "the model is gone and its alias is not"

    def check_end(self) -> None:
        """One Job, one version and one verdict a key; everything cleaned up; the log says all of it, in order."""
        jobs = [name for kind, _, name in self.cluster.created if kind == "Job"]
        assert len(jobs) == len(set(jobs)) == 2
        assert len(self.registry.versions["quant.m"]) == 2
        records = sorted(name for kind, _, name in self.cluster.objects if kind == "ModelDecision")
        actions = [self.cluster.objects["ModelDecision", "quant", name]["spec"]["action"] for name in records]
        assert records == ["m-1", "m-2", "m-3"]
        assert actions == ["Accept", "Accept", "Retire"]
        assert MODEL not in self.cluster.objects
        assert self.registry.alias["quant.m"] == {}
        assert not list(self.untrue())


def points() -> list[str]:
    story = Story()
    story.run()
    story.check_end()
    return story.points


POINTS = points()


def test_the_story_passes_every_kind_of_write() -> None:
    assert {point.split(".")[0] for point in POINTS} == {
        "finalizer", "0-model", "0-version", "1-record", "2-children", "3-status", "4-events", "5-alias", "release",
    }  # fmt: skip


@pytest.mark.parametrize("number", range(len(POINTS)), ids=[f"{n}-{name}" for n, name in enumerate(POINTS)])
def test_ending_at_any_write_changes_nothing_in_the_end(number: int) -> None:
    story = Story(die_at=number)
    story.run()
    assert not story.broken
    story.check_end()


def swapped(first: Step, second: Step) -> tuple[Step, ...]:
    """The order of writes with two of them exchanged."""
    exchange = {first: second, second: first}
    return tuple(exchange.get(step, step) for step in ORDER)


@pytest.mark.parametrize(
    ("first", "second", "truth"),
    [
        (Step.FINALIZER, Step.CHILDREN, "could vanish without cleaning up"),
        (Step.RECORD, Step.STATUS, "a champion that no record names"),
        (Step.RECORD, Step.RELEASE, "the model is gone and no record says so"),
    ],
    ids=lambda value: value.value if isinstance(value, Step) else None,
)
def test_swapping_two_writes_is_noticed(first: Step, second: Step, truth: str) -> None:
    found: list[str] = []
    for number in itertools.count():
        story = Story(swapped(first, second), die_at=number)
        try:
            story.run()
        except AssertionError as error:
            found.append(str(error))
        found += story.broken
        if any(truth in broken for broken in found):
            return
        if number > len(story.points):
            break
    pytest.fail(f"no crash broke {truth!r}; broken were {found}")
