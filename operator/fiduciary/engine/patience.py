"""MLflow is waited for a moment, and not at all while it is silent.

It may take connections and never answer, or need a minute for an answer. Who waited for that would hold its key, many
together every worker, and a kill would stand behind them. So what is asked and registered goes on beside the
reconciles: one that has waited for some seconds decides without it, and its key comes back with the answer, however
late. Who waits stops at once where its object has changed meanwhile: a kill stands behind no question. Where a
connection answers nobody any more, nobody waits, until it is heard again.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import structlog

from fiduciary.clients.mlflow import RegistryError
from fiduciary.decide.world import RegistryView, World
from fiduciary.engine.registry import NOTHING, registered_model
from fiduciary.engine.writes import Stale

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable
    from contextlib import AbstractContextManager

    from fiduciary.decide.decision import Registration
    from fiduciary.decide.world import Questions
    from fiduciary.engine.registry import Desk

log = structlog.get_logger(part="registry")

#: So long a reconcile waits, its turn among others included. MLflow mostly answers in milliseconds.
PATIENCE = 2.0

#: A late answer is for the reconcile that it calls, not for one much later.
KEPT = 30.0

#: Between two looks at a connection that is silent.
PAUSE = 5.0

UNREACHABLE = "RegistryUnreachable"


@dataclass(eq=False, slots=True)
class _Letter:
    """Something that MLflow is asked or told for one key."""

    key: Hashable
    connection: str
    about: Hashable
    sent: float
    task: asyncio.Task[Any]
    awaited: bool = False


class PatientDesk:
    """A :class:`Desk` that nobody waits at for long.

    ``arrived`` is told the key whose answer, or whose turn, came; ``news`` gives an event that is set when a key
    that is worked on has changed. It is used inside one running event loop, until :meth:`close`.
    """

    def __init__(
        self,
        desk: Desk,
        arrived: Callable[[Hashable], None],
        news: Callable[[Hashable], AbstractContextManager[asyncio.Event]],
        *,
        patience: float = PATIENCE,
        pause: float = PAUSE,
        kept: float = KEPT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._desk = desk
        self._arrived = arrived
        self._news = news
        self._patience = patience
        self._pause = pause
        self._kept = kept
        self._clock = clock
        self._letters: dict[Hashable, _Letter] = {}
        self._heard: dict[str, float] = {}  # when a connection answered last
        self._listening: dict[str, asyncio.Task[None]] = {}  # to connections that are silent
        self._put_off: dict[str, set[Hashable]] = {}  # keys that were not even asked for

    def questions(self, world: World) -> Questions:
        return self._desk.questions(world)

    async def informed(self, key: Hashable, world: World) -> World:
        """The world with MLflow's answers, or with the answer that there is none yet.

        Raises :class:`Stale` where the world is another one by now.
        """
        questions, model = self._desk.questions(world), world.model
        if questions == NOTHING:
            return world
        name, connection = registered_model(model), model.spec.registry.connection
        about = (key, model.metadata.uid, connection, name, questions)
        try:
            told = await self._wait(key, connection, name, about, lambda: self._desk.informed(key, world))
        except RegistryError as error:
            return replace(world, registry=RegistryView(reachable=False, reason=error.reason, message=error.message))
        return replace(world, registry=told.registry)

    async def register(self, key: Hashable, wanted: Registration) -> None:
        """Write 0. Raises :class:`RegistryError`, or :class:`Stale`, also where it goes on and may still succeed."""
        about = (key, wanted.connection, wanted.model, wanted.digest)
        await self._wait(key, wanted.connection, wanted.model, about, lambda: self._desk.register(key, wanted))

    async def close(self) -> None:
        """Give up whatever is under way."""
        tasks = [*(letter.task for letter in self._letters.values()), *self._listening.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _wait(
        self, key: Hashable, connection: str, model: str, about: Hashable, work: Callable[[], Coroutine[Any, Any, Any]]
    ) -> Any:
        letter = self._letters.get(about)
        if letter is None:
            if connection in self._listening:
                self._put_off.setdefault(connection, set()).add(key)
                raise self._nothing_yet(connection)
            letter = _Letter(key, connection, about, self._clock(), asyncio.create_task(work()))
            self._letters[about] = letter
            letter.task.add_done_callback(lambda task: self._ended(letter))
        if connection not in self._listening and not letter.task.done():
            await self._read(letter)
        if not letter.task.done():
            if self._heard.get(connection, letter.sent) <= letter.sent:
                self._listen(connection, model)
            raise self._nothing_yet(connection)
        self._letters.pop(about, None)
        return letter.task.result()

    async def _read(self, letter: _Letter) -> None:
        """Wait until it is answered or its time is over, however often somebody began to wait for it."""
        letter.awaited = True
        with self._news(letter.key) as news:
            changed = asyncio.create_task(news.wait())
            try:
                patience = max(0.0, letter.sent + self._patience - self._clock())
                await asyncio.wait((letter.task, changed), timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            finally:
                letter.awaited = False
                changed.cancel()
            if news.is_set() and not letter.task.done():
                raise Stale("it changed while MLflow was asked")

    def _nothing_yet(self, connection: str) -> RegistryError:
        # The same words each time: a condition that shows them is written once.
        message = (
            f"connection {connection!r} has not answered within {self._patience:g} s; what is decided does not change, "
            "and its answer is used when it comes"
        )
        return RegistryError(UNREACHABLE, message)

    def _ended(self, letter: _Letter) -> None:
        answered = _answered(letter.task)
        if answered:
            self._hear(letter.connection)
        if letter.awaited:
            return  # somebody takes it in this moment
        if not answered:
            self._forget(letter)  # that there is no answer is known already
            return
        asyncio.get_running_loop().call_later(self._kept, self._forget, letter)
        self._arrived(letter.key)

    def _forget(self, letter: _Letter) -> None:
        if self._letters.get(letter.about) is letter:
            del self._letters[letter.about]

    def _hear(self, connection: str) -> None:
        self._heard[connection] = self._clock()
        listening = self._listening.pop(connection, None)
        if listening is None:
            return
        listening.cancel()
        put_off = self._put_off.pop(connection, set[Any]())
        log.info("registry.heard", connection=connection, waiting=len(put_off))
        for key in put_off:
            self._arrived(key)

    def _listen(self, connection: str, model: str) -> None:
        if connection not in self._listening and connection in self._desk.registries:
            log.warning("registry.silent", connection=connection, seconds=self._patience)
            self._listening[connection] = asyncio.create_task(self._until_heard(connection, model))

    async def _until_heard(self, connection: str, model: str) -> None:
        client = self._desk.registries[connection]
        while True:
            try:
                await client.aliases(model)
                break
            except RegistryError as error:
                if error.reason != UNREACHABLE:
                    break  # a refusal is an answer
            await asyncio.sleep(self._pause)
        self._hear(connection)


def _answered(task: asyncio.Task[Any]) -> bool:
    """Whether MLflow said anything, be it a refusal."""
    if task.cancelled():
        return False
    error = task.exception()
    if isinstance(error, RegistryError):
        return error.reason != UNREACHABLE
    if error is not None:
        return True  # a bug of ours is for the reconcile to raise
    told = task.result()
    registry = told.registry if isinstance(told, World) else None
    return registry is None or registry.reachable or registry.reason != UNREACHABLE
