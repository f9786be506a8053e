"""Probing what is served: beside the reconciles, a few at a time, newest result of each target in memory.

A decision says what is to be probed; a target that is new is asked at once, again soon while its answers change, and
ever more slowly, up to its own interval, while they stay the same. A key is queued when a target's answer becomes
another one, and when its last answer is so old that nobody should rely on it any more. A target whose answers change
again and again is asked ever more slowly, too, until they stay the same for a while: each change writes a status.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
import zlib
from collections import Counter, deque
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol
from weakref import WeakValueDictionary

import structlog

from fiduciary.clients.inference import Answer, Example, NoExample
from fiduciary.engine.queue import Waiting
from fiduciary.serving.observed import ProbeView

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from fiduciary.engine.metrics import Metrics
    from fiduciary.serving.observed import ProbeTarget

log = structlog.get_logger(part="probes")

#: A result counts for this many intervals.
FRESH = 3

#: All targets together are asked at most this often in the long run; with more of them each interval grows.
PER_SECOND = 50.0

#: Seconds that a server may take before others are asked beside it: each is in a tenant's hands, and may never answer.
LENT = 0.5

#: Looks at a split that are counted together: an old split must not stand in the way of a new one for long.
LOOKS = 10

#: Changes in a row that are looked at closely, and equal results after which the next one is again.
RESTLESS = 4
CALM = 6

#: How often results are looked through for old ones.
WATCH_SECONDS = 2.0


class Client(Protocol):
    """The calls of :class:`fiduciary.clients.inference.InferenceClient` that are made here."""

    async def example(self, target: ProbeTarget) -> Example: ...
    async def infer(self, target: ProbeTarget, example: Example) -> Answer: ...


class _Example:
    """An example request, packed; targets whose own address showed the very same one share it while they use it."""

    __slots__ = ("__weakref__", "_packed")

    def __init__(self, packed: bytes) -> None:
        self._packed = packed

    def request(self) -> Example:
        return json.loads(zlib.decompress(self._packed))


class _Aim:
    """One target of one key, with what is known of it."""

    __slots__ = ("changes", "equal", "example", "key", "looks", "stale", "view")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.example: _Example | None = None
        self.view: ProbeView | None = None
        self.looks: deque[Counter[str]] = deque(maxlen=LOOKS)
        self.equal = 0  # equal results in a row
        self.changes = 0  # since results were last equal for a while
        self.stale = False

    def drawn(self) -> tuple[tuple[str, int], ...]:
        """Who answered in the last looks, and how often."""
        return tuple(sorted(sum(self.looks, Counter[str]()).items()))


class Prober:
    """``changed`` is told the key of a result that is another one now, or too old."""

    def __init__(
        self,
        client: Client,
        changed: Callable[[Hashable], None],
        metrics: Metrics,
        *,
        fast: float = 0.25,
        concurrency: int = 8,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.queue: Waiting[ProbeTarget] = Waiting(clock=clock)
        self._client = client
        self._changed = changed
        self._metrics = metrics
        self._fast = fast
        self._concurrency = concurrency
        self._now = now
        self._jitter = jitter
        self._aims: dict[ProbeTarget, _Aim] = {}
        self._targets: dict[Hashable, tuple[ProbeTarget, ...]] = {}
        self._since: dict[Hashable, datetime] = {}
        self._examples: WeakValueDictionary[bytes, _Example] = WeakValueDictionary()
        metrics.watch_probes(lambda: len(self._aims), self._failing)

    def aim(self, key: Hashable, targets: tuple[ProbeTarget, ...]) -> None:
        """What ``key`` wants probed from now on; a target that it had before keeps its result."""
        before = self._targets.get(key, ())
        if targets == before:
            return
        for target in set(before) - set(targets):
            del self._aims[target]
            self.queue.core.drop(target)
        if targets:
            self._targets[key] = targets
            self._since.setdefault(key, self._now())
        else:
            del self._targets[key], self._since[key]
        for target in targets:
            if target not in self._aims:
                self._aims[target] = _Aim(key)
                self.queue.add(target)

    def drop(self, key: Hashable) -> None:
        self.aim(key, ())

    def results(self, key: Hashable) -> tuple[ProbeView, ...]:
        """Results of this key's targets that are fresh enough to rely on."""
        now, fresh = self._now(), list[ProbeView]()
        for target in self._targets.get(key, ()):
            aim = self._aims[target]
            if aim.view is None:
                continue
            if self._old(target, aim.view, now):
                aim.stale = True  # somebody decides without it now: its next answer is news, also the same one
            else:
                fresh.append(aim.view)
        return tuple(fresh)

    def since(self, key: Hashable) -> datetime | None:
        """Since when what ``key`` wants is probed; None where it wants nothing, or has not said so yet."""
        return self._since.get(key)

    def close(self) -> None:
        self.queue.close()

    async def run(self) -> None:
        """Probe until :meth:`close`; what is under way then is given up."""
        watching = asyncio.create_task(self._watch())
        try:
            await self.queue.work_off(self._work, self._concurrency, LENT)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _work(self, target: ProbeTarget) -> None:
        try:
            await self.step(target)
        except Exception:
            log.exception("probe.bug", model=target.model)  # the other targets go on, and so does this one
            self.queue.add_after(target, self._interval(target))

    async def step(self, target: ProbeTarget) -> None:
        """Probe one target, and make its next appointment."""
        aim = self._aims.get(target)
        if aim is None:
            return
        answer = await self._ask(target, aim)
        if self._aims.get(target) is not aim:
            return  # nobody wants to know any more
        self._metrics.probed(target.via, target.protocol, _outcome(answer), answer.latency_s)
        self._take(target, aim, answer)
        slower = aim.equal - 1 + max(0, aim.changes - RESTLESS)
        pause = min(self._interval(target), self._fast * 2.0 ** min(slower, 30))
        self.queue.add_after(target, pause * self._jitter(0.9, 1.1))

    async def _ask(self, target: ProbeTarget, aim: _Aim) -> Answer:
        try:
            if aim.example is None:
                aim.example = self._shared(await self._client.example(target))
        except NoExample as error:
            return error.answer
        answer = await self._draw(target, aim.example.request(), aim)
        if not answer.ok:
            aim.example = None  # it may have been another version's
        return answer

    async def _draw(self, target: ProbeTarget, request: Example, aim: _Aim) -> Answer:
        """As many requests as the target asks for, one after the other: each is drawn anew by a mesh.

        The look is as good as its worst answer: a failure, else one of a version that answered least often, which is
        what somebody who waits for a split to be over has to see.
        """
        drawn = Counter[str]()
        answers: dict[str, Answer] = {}
        for _ in range(target.draws):
            answer = await self._client.infer(target, request)
            if not answer.ok:
                aim.looks.clear()
                return answer
            drawn[answer.digest] += 1
            answers.setdefault(answer.digest, answer)
        if target.draws > 1:
            aim.looks.append(drawn)
        return answers[min(drawn, key=lambda digest: (drawn[digest], digest))]

    def _shared(self, request: Example) -> _Example:
        """By its content, never by the version that an answer claims to be of: anybody may claim that."""
        packed = zlib.compress(json.dumps(request, separators=(",", ":")).encode())
        example = self._examples.get(packed)
        if example is None:
            example = self._examples[packed] = _Example(packed)
        return example

    def _take(self, target: ProbeTarget, aim: _Aim, answer: Answer) -> None:
        before, now = aim.view, self._now()
        view = ProbeView(
            target,
            now,
            answer.ok,
            status=answer.status,
            version=answer.version,
            digest=answer.digest,
            message=answer.message,
            latency_s=answer.latency_s,
            since=now,
            route=answer.route,
            drawn=aim.drawn() if answer.ok else (),
        )
        same = before is not None and _result(before) == _result(view)
        if before is not None and same:
            # The words may differ (which address refused); what they say does not.
            view = replace(view, since=before.since, message=before.message)
        # Who answers a split is drawn anew in each look: that is no reason to look more often.
        calm = same or (before is not None and target.draws > 1 and before.ok and view.ok)
        aim.view, aim.equal = view, aim.equal + 1 if calm else 1
        aim.changes = 0 if aim.equal >= CALM else aim.changes + (not calm)
        if not same or aim.stale:
            log.info(
                "probe.changed",
                key=str(aim.key),
                via=target.via,
                protocol=target.protocol,
                decision=target.decision,
                ok=view.ok,
                status=view.status,
                digest=view.digest,
                why=view.message,
            )
            aim.stale = False
            self._changed(aim.key)

    def _interval(self, target: ProbeTarget) -> float:
        """Seconds from one probe to the next in peace."""
        return max(float(target.seconds), len(self._aims) / PER_SECOND)

    def _old(self, target: ProbeTarget, view: ProbeView, now: datetime) -> bool:
        return now - view.at > timedelta(seconds=FRESH * self._interval(target))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            self.expire()

    def expire(self) -> None:
        """Tell of each result that has become too old, once."""
        now = self._now()
        for target, aim in self._aims.items():
            if aim.view is not None and not aim.stale and self._old(target, aim.view, now):
                aim.stale = True
                self._metrics.probes_stale.inc()
                log.warning("probe.stale", key=str(aim.key), via=target.via, at=aim.view.at.isoformat())
                self._changed(aim.key)

    def _failing(self) -> int:
        return sum(1 for aim in self._aims.values() if aim.view is not None and not aim.view.ok)


def _result(view: ProbeView) -> tuple[bool, int | None, str]:
    return view.ok, view.status, view.digest


def _outcome(answer: Answer) -> str:
    if answer.ok:
        return "ok"
    if answer.status is None:
        return "unanswered"
    return "foreign" if answer.status == 200 else f"{answer.status // 100}xx"
