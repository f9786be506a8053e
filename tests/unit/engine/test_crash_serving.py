"""The process ends at each numbered write of a served model's life: clients get what the log says, whatever dies."""

from __future__ import annotations

import contextlib
import itertools

import pytest

from fiduciary.engine.writes import ORDER, Step
from tests.unit.engine.serving_story import ServingStory


def undisturbed() -> ServingStory:
    story = ServingStory()
    story.run()
    return story


REFERENCE = undisturbed()
POINTS = REFERENCE.points


def test_the_story_is_the_one_that_is_meant() -> None:
    REFERENCE.check_end()
    assert {point.split(".")[0] for point in POINTS} >= {
        "1-record", "2-route", "2-children", "3-status", "5-alias", "release",
    }  # fmt: skip
    assert POINTS.count("2-route") >= 5  # first traffic, listed, promoted, killed, resumed


@pytest.mark.parametrize("number", range(len(POINTS)), ids=[f"{n}-{name}" for n, name in enumerate(POINTS)])
def test_ending_at_any_write_changes_nothing_in_the_end(number: int) -> None:
    story = ServingStory(die_at=number)
    story.run()
    story.check_end()


@pytest.mark.parametrize(
    ("first", "second", "truth"),
    [
        (Step.RECORD, Step.CHILDREN, "the route carries out a record that does not exist"),
        (Step.RECORD, Step.STATUS, "the status names a record that does not exist"),
        (Step.RECORD, Step.RELEASE, "the model is gone and no record says so"),
    ],
    ids=["record-route", "record-status", "record-release"],
)
def test_swapping_two_writes_is_noticed(first: Step, second: Step, truth: str) -> None:
    exchange = {first: second, second: first}
    order = tuple(exchange.get(step, step) for step in ORDER)
    for number in itertools.count():
        story = ServingStory(number, order)
        with contextlib.suppress(AssertionError):  # a swapped order may do worse than break a truth
            story.run()
        if any(truth in broken for broken in story.broken):
            return
        assert number <= len(story.points), f"no crash broke {truth!r}: {story.broken}"
