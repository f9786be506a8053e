"""The process ends at each write of an experiment: what was folded is there, nothing twice, and the end is right.

First the experiment alone, with a model that follows by hand: after any crash the bits are those of an undisturbed
life.
Then model and experiment together, by both real judges: record, route and status keep their order.
"""

from __future__ import annotations

import contextlib
import itertools

import pytest

from fiduciary.engine.writes import ORDER, Step
from tests.unit.engine.experiment_story import ExperimentStory
from tests.unit.engine.trial_story import TrialStory


def lived(die_at: int = -1) -> TrialStory:
    story = TrialStory(die_at)
    story.until("Promoted")
    story.run_for(900)
    return story


ALONE = lived()


def chosen_alone() -> list[int]:
    """The first and the last few writes, and some in between: each block has the same ones."""
    count = len(ALONE.points)
    return sorted({*range(8), *range(8, count - 8, 3), *range(count - 8, count)})


TOLD = ("ruling", "phase", "segments", "tests", "champion", "challenger")


def test_the_story_passes_every_write_of_an_experiment() -> None:
    assert set(ALONE.points) == {"finalizer", "3-status", "4-events"}
    assert ALONE.status["evidence"]["counters"] == ""
    assert ALONE.stored().state.evidence.last > 12


@pytest.mark.parametrize("number", chosen_alone(), ids=lambda number: f"{number}-{ALONE.points[number]}")
def test_ending_at_any_write_leaves_the_same_bits(number: int) -> None:
    story = lived(number)
    assert not story.broken
    assert story.stored().state.evidence == ALONE.stored().state.evidence
    assert {name: story.status.get(name) for name in TOLD} == {name: ALONE.status.get(name) for name in TOLD}
    actions = [record.spec.action for record in story.log.records]
    assert actions == [record.spec.action for record in ALONE.log.records]


BEGUN = ExperimentStory.begun()


def together(die_at: int = -1) -> ExperimentStory:
    story = BEGUN.goes_on(die_at)
    story.try_it()
    return story


TOGETHER = together()


def chosen(points: list[str]) -> list[int]:
    """Of each row of equal writes the first one; events and aliases once."""
    found: list[int] = []
    told: set[str] = set()
    for name, row in itertools.groupby(enumerate(points), key=lambda point: point[1].split(".")[0]):
        if name[0] in "45" and name in told:
            continue
        told.add(name)
        found.append(next(row)[0])
    return found


def test_a_trial_by_both_judges_is_the_one_that_is_meant() -> None:
    TOGETHER.check_end()
    assert {point.split(".")[0] for point in TOGETHER.points} >= {
        "finalizer", "1-record", "2-route", "2-children", "3-status", "4-events", "5-alias",
    }  # fmt: skip
    assert TOGETHER.points.count("1-record") == 4
    assert len(TOGETHER.node.seen) >= 2


@pytest.mark.parametrize("number", chosen(TOGETHER.points), ids=lambda number: f"{number}-{TOGETHER.points[number]}")
def test_ending_at_any_write_of_both_changes_nothing_in_the_end(number: int) -> None:
    story = together(number)
    story.check_end()


def after_a_route(points: list[str]) -> int:
    """The first record that is written right after a route."""
    moved = False
    for number, point in enumerate(points):
        if point == "1-record" and moved:
            return number
        moved = point == "2-route" or (moved and point.startswith("2-"))
    raise AssertionError(points)


def test_the_order_of_writes_is_what_keeps_it_true() -> None:
    """With the model's record after its route, one of the truths breaks: the tests above can fail."""
    exchange = {Step.RECORD: Step.CHILDREN, Step.CHILDREN: Step.RECORD}
    order = tuple(exchange.get(step, step) for step in ORDER)
    swapped = BEGUN.goes_on(-1, order)
    with contextlib.suppress(AssertionError):  # a swapped order may do worse than break a truth
        swapped.calm(700)
    story = BEGUN.goes_on(after_a_route(swapped.points), order)
    with contextlib.suppress(AssertionError):
        while not story.broken:
            story.calm(5)
    assert any("the route carries out a record that does not exist" in truth for truth in story.broken), story.broken
