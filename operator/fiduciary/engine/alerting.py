"""Alarms to people: to Alertmanagers again and again while they last, to sinks of CloudEvents once they begin or end.

It is told what is true now (:meth:`Alerting.put`), as often as somebody looks, and sees to it that receivers know. An
alert names its own end, four rounds ahead, as Prometheus' do: should the operator go away for good, it ends by itself.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from fiduciary.clients.delivery import DeliveryError
from fiduciary.decide.drift.notices import cloud_event, postable
from fiduciary.engine.queue import Backoff, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fiduciary.decide.drift.decision import Alert
    from fiduciary.engine.stores import Key

log = structlog.get_logger(part="alerting")

SECONDS = 60.0
"""Between two rounds in which what lasts is told again."""
ROUNDS = 4
"""After so many without news Alertmanager takes an alert for ended."""
FAREWELL = 3600.0
"""How long the end of what a deleted policy told is tried, seconds; by then it has ended there by itself."""
CONCURRENCY = 32
LENT = 1.0
"""Seconds after which a policy's place is another's: a receiver that hangs has to leave others their turn before their
alerts end by themselves."""


class AlertTaker(Protocol):
    """:class:`fiduciary.clients.alertmanager.Alertmanager`."""

    async def post(self, alerts: Sequence[Mapping[str, Any]]) -> None: ...


class EventTaker(Protocol):
    """:class:`fiduciary.clients.cloudevents.EventSink`."""

    async def send(self, event: Mapping[str, Any]) -> None: ...


@dataclass
class _Told:
    """What is true of one policy, and what of it was told.

    ``gone``: what lasted when it was last heard of, and has ended since without a word. ``ended``: ends that
    Alertmanager knows. ``events``: ids that the sink has. ``until``: when a policy that is gone is forgotten at last.
    """

    channel: str
    sink: str | None
    alerts: tuple[Alert, ...]
    gone: tuple[Alert, ...] = ()
    ended: set[str] = field(default_factory=set[str])
    events: set[str] = field(default_factory=set[str])
    problem: str = ""
    until: datetime | None = None

    @property
    def all(self) -> tuple[Alert, ...]:
        return (*self.gone, *self.alerts)


class Alerting:
    """One for all policies. ``changed`` is told of a policy whose alerts began, or ceased, to reach their receivers."""

    def __init__(
        self,
        alertmanagers: Mapping[str, AlertTaker],
        sinks: Mapping[str, EventTaker],
        changed: Callable[[Key], None] = lambda key: None,
        *,
        seconds: float = SECONDS,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        queue: Waiting[Key] | None = None,
    ) -> None:
        self._alertmanagers = alertmanagers
        self._sinks = sinks
        self._changed = changed
        self._seconds = seconds
        self._now = now
        self._queue = queue or Waiting(Backoff(first=1.0, limit=seconds))
        self._policies: dict[Key, _Told] = {}

    def put(self, key: Key, channel: str, alerts: tuple[Alert, ...], *, sink: str | None = None) -> None:
        """What is true of a policy now: alarms that last, and those that ended within a day."""
        told = self._policies.get(key)
        if told is None or (told.channel, told.sink) != (channel, sink):
            if alerts or told is not None:
                self._policies[key] = _Told(channel, sink, alerts)  # another receiver knows nothing yet
                self._queue.add(key)
        elif told.alerts != alerts or told.until is not None:
            self._replace(told, alerts)
            told.until = None
            self._queue.add(key)

    def drop(self, key: Key) -> None:
        """The policy is gone, and so is the reason to alarm anybody: what lasts ends now."""
        told = self._policies.get(key)
        if told is not None and told.until is None:
            self._replace(told, ())
            told.until = self._now() + timedelta(seconds=FAREWELL)
            self._queue.add(key)

    def problem(self, key: Key) -> str:
        """Why a policy's alerts do not reach their receivers; empty: they do, as far as is known."""
        told = self._policies.get(key)
        return "" if told is None else told.problem

    def close(self) -> None:
        self._queue.close()

    async def run(self) -> None:
        """Work until :meth:`close`."""
        await self._queue.work_off(self._work, CONCURRENCY, LENT)

    async def _work(self, key: Key) -> None:
        try:
            await self.step(key)
        except Exception:
            log.exception("alerts.bug", key=str(key))  # nobody else would come back to it
            self._queue.fail(key)

    async def step(self, key: Key) -> None:
        """One round of one policy: everything that its receivers do not know, or have to hear again."""
        told = self._policies.get(key)
        if told is None:
            return
        alerts = told.all
        found = await asyncio.gather(self._post(told, alerts), self._send(told, alerts))
        if self._policies.get(key) is not told:
            return  # another receiver was named meanwhile, and has a round of its own
        before, told.problem = told.problem, "; ".join(one for one in found if one)
        if told.problem and not before:
            log.warning("alerts.undelivered", key=str(key), why=told.problem)
        if bool(told.problem) != bool(before):
            self._changed(key)
        if told.problem and (told.until is None or self._now() < told.until):
            self._queue.fail(key)
            return
        self._queue.core.forget(key)
        if told.all == alerts:
            told.gone = ()
            if told.until is not None:
                del self._policies[key]
        if any(one.ends_at is None for one in told.alerts):
            self._queue.add_after(key, self._seconds)

    def _replace(self, told: _Told, alerts: tuple[Alert, ...]) -> None:
        """What lasted and is not named any more (its monitor was removed, say) must not last there either."""
        named, now = [one.labels for one in alerts], self._now()
        lost = [replace(one, ends_at=now) for one in told.alerts if one.ends_at is None and one.labels not in named]
        told.gone = (*(one for one in told.gone if one.labels not in named), *lost)
        told.alerts = alerts

    async def _post(self, told: _Told, alerts: tuple[Alert, ...]) -> str:
        """Tell the Alertmanager; why it was not told, or nothing."""
        told.ended &= {_end(one) for one in alerts}
        due = [one for one in alerts if one.ends_at is None or _end(one) not in told.ended]
        if not due:
            return ""
        taker = self._alertmanagers.get(told.channel)
        if taker is None:
            return _unknown("actions.alert.alertmanager", "alertmanagers", told.channel, self._alertmanagers)
        end = self._now() + timedelta(seconds=self._seconds * ROUNDS)
        try:
            await taker.post([postable(one if one.ends_at is not None else replace(one, ends_at=end)) for one in due])
        except DeliveryError as error:
            return f"Alertmanager {told.channel}: {error.message}"
        told.ended |= {_end(one) for one in due if one.ends_at is not None}
        return ""

    async def _send(self, told: _Told, alerts: tuple[Alert, ...]) -> str:
        """Tell the sink what it was not told; why it was not, or nothing."""
        if told.sink is None:
            return ""
        events = {str(event["id"]): event for alert in alerts for event in map(cloud_event, _lives(alert))}
        told.events &= events.keys()
        refused = ""
        for name in [name for name in events if name not in told.events]:
            taker = self._sinks.get(told.sink)
            if taker is None:
                return _unknown("actions.alert.sink", "eventSinks", told.sink, self._sinks)
            try:
                await taker.send(events[name])
            except DeliveryError as error:
                why = f"sink {told.sink}: {error.message}"
                if error.reason != "ReceiverRefused":
                    return why
                refused = refused or why  # what is wrong with one is nothing of the others
            else:
                told.events.add(name)
        return refused


def _lives(alert: Alert) -> tuple[Alert, ...]:
    """An alarm as it began and, where it did, as it ended: who hears of the end has to have heard of the begin."""
    return (alert,) if alert.ends_at is None else (replace(alert, ends_at=None), alert)


def _end(alert: Alert) -> str:
    return f"{alert.labels['monitor']} {alert.annotations['evidence']} {alert.ends_at}"


def _unknown(path: str, where: str, name: str, known: Mapping[str, object]) -> str:
    entries = ", ".join(sorted(known)) or "none"
    return f"{path} names {name}, which is no entry of {where} in the operator's settings (there: {entries})"
