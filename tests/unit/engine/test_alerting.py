"""Who is told of alarms, when, and how often. The real Alertmanager: tests/prometheus/test_alertmanager.py."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from fiduciary.clients.delivery import DeliveryError
from fiduciary.decide.drift.decision import Alert
from fiduciary.engine.alerting import FAREWELL, ROUNDS, Alerting
from fiduciary.engine.queue import Backoff, Waiting
from fiduciary.engine.stores import Key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

T0 = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
KEY = Key("DriftPolicy", "quant", "inputs")
OTHER = Key("DriftPolicy", "quant", "other")
SECONDS = 60.0


def alarm(monitor: str = "inputs", digit: str = "a", severity: str = "warning") -> Alert:
    labels = {"alertname": "FiduciaryDrift", "namespace": "quant", "model": "spx", "policy": "inputs"}
    annotations = {"summary": f"spx: {monitor} drifted", "evidence": "sha256:" + digit * 64}
    return Alert({**labels, "monitor": monitor, "severity": severity}, annotations, T0)


def over(alert: Alert, seconds: float = 30) -> Alert:
    return replace(alert, ends_at=T0 + timedelta(seconds=seconds))


@dataclass
class Receivers:
    """One Alertmanager and one sink that a test lets go away, and a clock that it moves."""

    seconds: float = 0.0
    away: str = ""
    refused: str = ""  # the evidence of which the sink takes no event
    posts: list[list[Mapping[str, Any]]] = field(default_factory=list[list["Mapping[str, Any]"]])
    events: list[str] = field(default_factory=list[str])
    woken: list[Key] = field(default_factory=list[Key])

    def __post_init__(self) -> None:
        self.queue: Waiting[Key] = Waiting(Backoff(first=1.0, limit=SECONDS), lambda: self.seconds)
        self.alerting = Alerting(
            {"alertmanager": self}, {"broker": self}, self.woken.append, seconds=SECONDS, now=self.now, queue=self.queue
        )

    def now(self) -> datetime:
        return T0 + timedelta(seconds=self.seconds)

    async def post(self, alerts: Sequence[Mapping[str, Any]]) -> None:
        if self.away:
            raise DeliveryError("ReceiverUnreachable", self.away)
        self.posts.append(list(alerts))

    async def send(self, event: Mapping[str, Any]) -> None:
        if self.away:
            raise DeliveryError("ReceiverUnreachable", self.away)
        if self.refused and self.refused in event["id"]:
            raise DeliveryError("ReceiverRefused", "answered 413")
        self.events.append(event["id"].partition("/")[2])

    def pass_time(self, seconds: float) -> None:
        """Time passes, and what is due is done."""

        async def work() -> None:
            until = self.seconds + seconds
            while True:
                taken = self.queue.core.pop(self.seconds)
                if taken is not None:
                    await self.alerting.step(taken[0])
                    self.queue.done(taken[0])
                    continue
                due = self.queue.core.next_due()
                if due is None or due > until:
                    break
                self.seconds = due
            self.seconds = until

        asyncio.run(work())


def ends(posts: list[Mapping[str, Any]]) -> list[tuple[str, str]]:
    return [(one["labels"]["monitor"], one["endsAt"]) for one in posts]


def text(seconds: float) -> str:
    return (T0 + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def test_what_lasts_is_told_again_before_it_would_end_and_what_ended_once() -> None:
    its = Receivers()
    its.alerting.put(KEY, "alertmanager", (alarm(),))
    its.pass_time(0)
    assert [ends(post) for post in its.posts] == [[("inputs", text(SECONDS * ROUNDS))]]
    its.alerting.put(KEY, "alertmanager", (alarm(),))
    its.pass_time(SECONDS - 1)
    assert len(its.posts) == 1, "the same again is no news"
    its.pass_time(2 * SECONDS)
    assert [ends(post)[0][1] for post in its.posts[1:]] == [text(SECONDS * (ROUNDS + n)) for n in (1, 2)]
    ended = over(alarm(), its.seconds)
    its.alerting.put(KEY, "alertmanager", (ended,))
    its.pass_time(3600)
    assert [ends(post) for post in its.posts[3:]] == [[("inputs", text(its.seconds - 3600))]]


def test_a_receiver_that_is_away_is_tried_again_ever_more_slowly_and_the_policy_says_so() -> None:
    its = Receivers(away="nobody there")
    its.alerting.put(KEY, "alertmanager", (alarm(),), sink="broker")
    its.pass_time(0)
    assert its.alerting.problem(KEY) == "Alertmanager alertmanager: nobody there; sink broker: nobody there"
    assert its.alerting.problem(OTHER) == ""
    assert its.woken == [KEY]
    its.pass_time(600)
    assert its.queue.core.failures(KEY) in range(10, 20), "1, 2, 4, ... 60 s"
    assert its.woken == [KEY], "told once"
    its.away = ""
    its.pass_time(SECONDS)
    assert its.alerting.problem(KEY) == ""
    assert its.woken == [KEY, KEY]
    assert len(its.posts) >= 1
    assert its.events == ["begun"]


def test_the_end_of_an_alarm_is_not_lost_while_its_receiver_is_away() -> None:
    its = Receivers()
    its.alerting.put(KEY, "alertmanager", (alarm(),), sink="broker")
    its.pass_time(0)
    its.away = "restarting"
    its.alerting.put(KEY, "alertmanager", (over(alarm()),), sink="broker")
    its.pass_time(300)
    its.away = ""
    its.pass_time(SECONDS)
    assert ends(its.posts[-1]) == [("inputs", text(30))]
    assert its.events == ["begun", "ended"]
    count = len(its.posts)
    its.pass_time(3600)
    assert (len(its.posts), its.events) == (count, ["begun", "ended"])


def test_an_alarm_that_ended_before_a_sink_could_hear_of_it_is_told_from_its_begin() -> None:
    its = Receivers(away="restarting")
    its.alerting.put(KEY, "alertmanager", (alarm(),), sink="broker")
    its.pass_time(20)
    its.alerting.put(KEY, "alertmanager", (over(alarm()),), sink="broker")
    its.pass_time(20)
    its.away = ""
    its.pass_time(SECONDS)
    assert its.events == ["begun", "ended"]


def test_an_event_that_a_sink_refuses_keeps_it_from_no_other() -> None:
    its = Receivers(refused="a" * 64)
    its.alerting.put(KEY, "alertmanager", (alarm(), alarm("score", "b")), sink="broker")
    its.pass_time(0)
    assert its.events == ["begun"]
    assert its.alerting.problem(KEY) == "sink broker: answered 413"


def test_events_are_sent_once_for_each_begin_and_end() -> None:
    its = Receivers()
    for alerts in ((alarm(),), (alarm(),), (alarm(), alarm("score", "b")), (over(alarm()), alarm("score", "b"))):
        its.alerting.put(KEY, "alertmanager", alerts, sink="broker")
        its.pass_time(SECONDS * 2)
    assert its.events == ["begun", "begun", "ended"]


def test_a_policy_that_is_gone_ends_what_it_told_and_is_forgotten() -> None:
    its = Receivers()
    its.alerting.put(KEY, "alertmanager", (alarm(), over(alarm("score", "b"))), sink="broker")
    its.pass_time(10)
    its.alerting.drop(KEY)
    its.pass_time(0)
    assert ends(its.posts[-1]) == [("inputs", text(10))]
    assert sorted(its.events) == ["begun", "begun", "ended", "ended"]
    count = len(its.posts)
    its.pass_time(3600)
    assert len(its.posts) == count
    its.alerting.put(KEY, "alertmanager", (), sink="broker")
    its.pass_time(3600)
    assert len(its.posts) == count, "one of its name that is quiet has nothing to tell"


def test_the_end_of_a_policy_is_not_tried_for_ever() -> None:
    its = Receivers()
    its.alerting.put(KEY, "alertmanager", (alarm(),))
    its.pass_time(0)
    its.away = "for good"
    its.alerting.drop(KEY)
    its.pass_time(FAREWELL + 2 * SECONDS)
    its.away = ""
    its.pass_time(3600)
    assert len(its.posts) == 1, "it ended there by itself long ago"
    assert its.alerting.problem(KEY) == ""


def test_what_is_not_named_any_more_ends() -> None:
    its = Receivers()
    its.alerting.put(KEY, "alertmanager", (alarm(), alarm("score", "b")))
    its.pass_time(5)
    its.alerting.put(KEY, "alertmanager", (alarm(severity="critical"),))
    its.pass_time(0)
    last = {(one["labels"]["monitor"], one["labels"]["severity"]): one["endsAt"] for one in its.posts[-1]}
    assert last == {
        ("inputs", "warning"): text(5),
        ("score", "warning"): text(5),
        ("inputs", "critical"): text(5 + SECONDS * ROUNDS),
    }
    its.pass_time(SECONDS)
    assert len(its.posts[-1]) == 1


def test_an_alarm_that_begins_again_is_not_ended_by_the_one_before() -> None:
    its = Receivers()
    its.alerting.put(KEY, "alertmanager", (alarm(),))
    its.pass_time(5)
    its.alerting.put(KEY, "alertmanager", (alarm(digit="c"),))
    its.pass_time(0)
    assert ends(its.posts[-1]) == [("inputs", text(5 + SECONDS * ROUNDS))]


def test_an_entry_that_the_settings_do_not_know_is_named() -> None:
    its = Receivers()
    its.alerting.put(KEY, "pager", (alarm(),), sink="queue")
    its.pass_time(0)
    problem = its.alerting.problem(KEY)
    assert "actions.alert.alertmanager names pager, which is no entry of alertmanagers" in problem
    assert "(there: alertmanager)" in problem
    assert "actions.alert.sink names queue, which is no entry of eventSinks" in problem
    its.alerting.put(KEY, "alertmanager", (alarm(),), sink="broker")
    its.pass_time(SECONDS)
    assert its.alerting.problem(KEY) == ""
    assert (len(its.posts[0]), its.events) == (1, ["begun"])


def test_a_policy_without_alarms_costs_nothing() -> None:
    its = Receivers()
    its.alerting.put(KEY, "alertmanager", ())
    its.alerting.drop(KEY)
    assert its.queue.core.next_due() is None
    its.pass_time(3600)
    assert its.posts == []


def test_a_receiver_that_hangs_ends_no_alert_of_another() -> None:
    """An alert that is not told again in time ends by itself: its receivers would hear that the drift is over."""

    class Hangs:
        async def post(self, alerts: Sequence[Mapping[str, Any]]) -> None:
            await asyncio.Event().wait()

    class Takes:
        def __init__(self) -> None:
            self.told = asyncio.Event()

        async def post(self, alerts: Sequence[Mapping[str, Any]]) -> None:
            self.told.set()

    async def story() -> None:
        takes = Takes()
        alerting = Alerting({"hangs": Hangs(), "takes": takes}, {})
        for number in range(50):
            alerting.put(Key("DriftPolicy", "loud", f"p{number}"), "hangs", (alarm(),))
        alerting.put(KEY, "takes", (alarm(),))
        running = asyncio.create_task(alerting.run())
        async with asyncio.timeout(5):
            await takes.told.wait()
        running.cancel()
        await asyncio.wait((running,))

    asyncio.run(story())


def test_what_nobody_foresaw_is_tried_again() -> None:
    class Breaks:
        def __init__(self) -> None:
            self.told, self.asked = asyncio.Event(), 0

        async def post(self, alerts: Sequence[Mapping[str, Any]]) -> None:
            self.asked += 1
            if self.asked == 1:
                raise RuntimeError("a bug of ours")
            self.told.set()

    async def story() -> None:
        breaks = Breaks()
        alerting = Alerting({"alertmanager": breaks}, {}, queue=Waiting(Backoff(first=0.01, limit=0.01)))
        alerting.put(KEY, "alertmanager", (alarm(),))
        running = asyncio.create_task(alerting.run())
        async with asyncio.timeout(5):
            await breaks.told.wait()
        alerting.close()
        await running

    asyncio.run(story())
