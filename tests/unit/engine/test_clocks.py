"""The operator's clock beside Prometheus': wrong from the beginning, or during an experiment, and set right again."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest

from fiduciary.clients.prometheus_answers import PrometheusError, agreeing
from fiduciary.decide.counters.exposure import Change
from fiduciary.engine.experiments.kept import Kept, Split, followed
from tests.unit.engine.counting import MemoryPrometheus
from tests.unit.engine.rig import Clock
from tests.unit.engine.trial_story import TrialStory

if TYPE_CHECKING:
    from fiduciary.decide.counters.samples import Series

SPEC: dict[str, Any] = {
    "traffic": {
        "steps": [
            {"name": "shadow", "mirror": 100, "minBlocks": 2},
            {"name": "canary", "weight": 5, "minBlocks": 4},
            {"name": "half", "weight": 50, "minBlocks": 3},
        ]
    },
    "guardrails": [{"name": "errors", "metric": "ErrorRate", "margin": {"absolute": "0.004"}}],
    "circuitBreakers": [{"metric": "ErrorRate", "above": "0.25", "normal": "0.05"}],
}
DATE = "Fri, 27 Nov 2026 06:00:00 GMT"
AT = 1795759200.0


class WrongClock(Clock):
    """Ours. ``seconds`` go on as they do; what the clock on the wall says is ``ahead`` of everybody else's."""

    ahead = 0.0

    def true(self) -> datetime:
        return super().now()

    def now(self) -> datetime:
        return self.true() + timedelta(seconds=self.ahead)


class DatedPrometheus(MemoryPrometheus):
    """Says what time it is, as every HTTP server does, and is believed or not as the real client does."""

    clock: WrongClock

    async def matrix(self, promql: str, at: int) -> tuple[Series, ...]:
        answer = await super().matrix(promql, at)
        now = self.clock.now().timestamp()
        agreeing("http://prometheus", format_datetime(self.clock.true(), usegmt=True), now, now)
        return answer


class ClockStory(TrialStory):
    def __init__(self, ahead: float = 0.0) -> None:
        self.wrong = ahead
        super().__init__(spec=SPEC)

    @property
    def milliseconds(self) -> int:
        """What is counted and scraped is so by the right clock."""
        clock = self.clock
        assert isinstance(clock, WrongClock)
        return round(clock.true().timestamp() * 1000)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "clock":
            value = WrongClock()
            value.ahead = self.wrong
        if name == "prometheus":
            value = DatedPrometheus()
            value.clock = self.clock
        super().__setattr__(name, value)

    def set(self, ahead: float) -> None:
        clock = self.clock
        assert isinstance(clock, WrongClock)
        clock.ahead = ahead

    def ruling(self, minutes: int = 60) -> dict[str, Any]:
        until = self.clock.seconds + 60 * minutes
        while "ruling" not in self.status and self.clock.seconds < until:
            self.turn()
        return self.status.get("ruling", {"verdict": None, "status": self.status})


@pytest.mark.parametrize("ahead", [-2.0, 2.0])
def test_clocks_that_differ_a_little_change_nothing(ahead: float) -> None:
    right, story = ClockStory(), ClockStory(ahead)
    assert right.ruling()["verdict"] == story.ruling()["verdict"] == "Promote"
    assert not story.stored().state.evidence.ratio_alarm


@pytest.mark.parametrize("ahead", [-120.0, 45.0, 600.0])
def test_an_experiment_does_not_begin_by_a_clock_that_is_wrong_and_begins_when_it_is_right(ahead: float) -> None:
    story = ClockStory(ahead)
    story.run_for(600)
    assert story.status["reason"] == "ReadingHistory"
    assert story.condition("DataHealthy") == ("False", "PrometheusSilent")
    assert "PrometheusClockSkew" in str(story.status["conditions"])
    story.set(0.0)
    assert story.ruling(120)["verdict"] == "Promote"
    assert not story.stored().state.evidence.ratio_alarm


@pytest.mark.parametrize(
    ("step", "ahead"),
    [
        *itertools.product(("shadow", "canary", "half"), (-75.0, 75.0)),
        *itertools.product(("half",), (-600.0, -20.0, 20.0, 600.0)),
    ],
)
def test_a_clock_that_is_wrong_for_a_while_changes_no_verdict_and_loses_no_block(step: str, ahead: float) -> None:
    story = ClockStory()
    story.reaches(step)
    story.run_for(40)
    before = story.stored().state.evidence.last
    story.set(ahead)
    story.run_for(400)
    held = story.stored()
    assert held.state.evidence.last <= before + 1, "nothing is folded by a clock that is wrong"
    assert held.kept.skewed
    story.set(0.0)
    assert story.ruling(120)["verdict"] == "Promote"
    after = story.stored().state.evidence
    assert not after.ratio_alarm
    assert after.last * 60 >= story.clock.seconds - 60 - 180, "what was counted meanwhile is folded"


@pytest.mark.parametrize("ahead", [-75.0, 75.0])
def test_a_challenger_that_fails_while_the_clock_is_wrong_is_rolled_back_when_it_is_right(ahead: float) -> None:
    story = ClockStory()
    story.reaches("half")
    story.run_for(40)
    story.set(ahead)
    story.bad["2"] = 0.2
    story.run_for(120)
    assert "ruling" not in story.status
    story.set(0.0)
    assert story.ruling()["verdict"] == "RollBack"


def test_breakers_are_fed_on_after_the_clock_was_set_back() -> None:
    story = ClockStory(600.0)
    story.run_for(60)
    story.set(0.0)
    story.reaches("half")
    story.run_for(40)
    asked = len(story.prometheus.queries)
    story.set(-2.0)
    story.run_for(60)
    assert len(story.prometheus.queries) - asked >= 3
    story.set(-700.0)
    asked = len(story.prometheus.queries)
    story.run_for(60)
    assert len(story.prometheus.queries) - asked >= 3, "who was asked in the future is asked now"


@pytest.mark.parametrize(
    ("asked", "answered", "said"),
    [
        (AT - 1.9, AT, ""),
        (AT + 3.9, AT + 4.0, ""),  # its second may have ended just then
        (AT + 4.1, AT + 4.2, "behind"),
        (AT - 3.0, AT - 2.9, ""),
        (AT - 3.3, AT - 3.1, "ahead of"),
        (AT - 30.0, AT + 0.5, ""),  # a slow answer proves nothing
        (AT - 0.5, AT + 30.0, ""),
    ],
)
def test_what_a_date_proves(asked: float, answered: float, said: str) -> None:
    if not said:
        agreeing("http://p", DATE, asked, answered)
        return
    with pytest.raises(PrometheusError, match=said) as error:
        agreeing("http://p", DATE, asked, answered)
    assert error.value.reason == "PrometheusClockSkew"


@pytest.mark.parametrize("date", ["", "yesterday", "Fri, 99 Nov 2026 06:00:00 GMT"])
def test_an_answer_without_a_date_is_taken_as_it_is(date: str) -> None:
    agreeing("http://p", date, 0.0, 0.0)


def test_a_change_that_was_told_by_a_clock_that_was_ahead_is_not_of_the_future() -> None:
    kept = Kept(changes=(Change(0, 1_000, 50, 0), Change(700_000, 702_000, 0, 0)), skewed=True)
    agreed = kept.agreeing(100_000)
    assert agreed.changes == (Change(0, 1_000, 50, 0), Change(100_000, 702_000, 0, 0))
    assert all(change.settled is not None and change.settled >= 100_000 for change in agreed.confirmed)
    (_, newest) = followed((Change(0, 1_000, 50, 0),), Split(0, 0, 700_000, None), 100_000)
    assert newest.begun == 100_000
    assert Kept(changes=kept.changes).agreeing(100_000).changes == kept.changes, "they always agreed"
    assert all(one.begun <= other.begun for one, other in itertools.pairwise(agreed.changes))
