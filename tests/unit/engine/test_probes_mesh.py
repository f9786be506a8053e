"""Probing a split: several requests make one look, and the rarest answer is what it shows."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, cycle, repeat
from typing import TYPE_CHECKING

from tests.unit.engine.test_probes import NEW, OLD, REFUSED, TARGET, Rig, served

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fiduciary.clients.inference import Answer, Example
    from fiduciary.serving.observed import ProbeTarget

SPLIT = replace(TARGET, draws=20, headers=(("seldon-model", "a"),))


def answering(rig: Rig, answers: Iterable[Answer]) -> None:
    """Answer one request after the other with these."""
    left = iter(answers)

    async def infer(target: ProbeTarget, example: Example) -> Answer:
        rig.servers.asked.append(rig.clock.seconds)
        return next(left)

    rig.servers.infer = infer  # pyright: ignore[reportAttributeAccessIssue]


def test_a_look_draws_as_often_as_it_is_told_and_counts_who_answered() -> None:
    rig = Rig()
    answering(rig, cycle([served()] * 19 + [served(NEW)]))
    rig.prober.aim("m", (SPLIT,))
    rig.until(0)
    assert len(rig.servers.asked) == 20
    (view,) = rig.prober.results("m")
    assert view.ok
    assert view.digest == NEW, "what answers least is what somebody has to see"
    assert dict(view.drawn) == {OLD: 19, NEW: 1}
    rig.until(1)
    assert sum(dict(rig.prober.results("m")[0].drawn).values()) == 60, "looks are added up"


def test_old_looks_leave_the_count() -> None:
    rig = Rig()
    answering(rig, chain([served(NEW)] * 20, repeat(served())))
    rig.prober.aim("m", (SPLIT,))
    rig.until(0)
    assert dict(rig.prober.results("m")[0].drawn) == {NEW: 20}
    rig.until(400)
    assert dict(rig.prober.results("m")[0].drawn) == {OLD: 200}


def test_one_failure_fails_the_look_and_the_count_begins_anew() -> None:
    rig = Rig()
    answering(rig, chain([served()] * 25, [REFUSED], repeat(served())))
    rig.prober.aim("m", (SPLIT,))
    rig.until(0.3)
    (view,) = rig.prober.results("m")
    assert (view.ok, view.drawn) == (False, ())
    rig.until(0.6)
    assert dict(rig.prober.results("m")[0].drawn) == {OLD: 20}


def test_a_split_is_not_asked_more_often_because_its_draws_differ() -> None:
    rig = Rig()
    answering(rig, cycle([*[served()] * 20, *[served()] * 19, served(NEW)]))
    rig.prober.aim("m", (SPLIT,))
    rig.until(600)
    assert len(rig.servers.asked) <= 20 * (8 + 600 // 30)
