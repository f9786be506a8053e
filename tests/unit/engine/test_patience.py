"""MLflow may be silent, or slow: nobody waits long, nobody is held up by another's question, no answer is lost."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from fiduciary.clients.mlflow import Registry, RegistryError
from fiduciary.decide.decision import Registration
from fiduciary.decide.world import Questions, RegistryView, World
from fiduciary.engine import kinds
from fiduciary.engine.patience import PatientDesk
from fiduciary.engine.queue import Priority, Waiting
from fiduciary.engine.registry import Desk, RegistryClient
from fiduciary.engine.writes import Stale
from tests.unit.decide.worlds import SERVED, SPEC, T0, merged, world
from tests.unit.engine.memory import MemoryRegistry
from tests.unit.engine.serving_story import ServingStory

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Hashable

WORLD = world()
CONNECTION = WORLD.model.spec.registry.connection
NAME = f"{WORLD.model.metadata.namespace}.{WORLD.model.metadata.name}"
DIGEST = "sha256:" + "1" * 64
WANTED = Registration(CONNECTION, NAME, "run", DIGEST, "source", {})

#: Seconds. A test that fails takes this long, one that passes never.
LONG = 20.0


def asks(world: World, now: object) -> Questions:
    return Questions(aliases=True)


class Held(MemoryRegistry):
    """Takes every call, and answers none but while it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.alias = {NAME: {"champion": "1"}}
        self.let = asyncio.Event()
        self.asked = asyncio.Event()
        self.calls = 0

    async def _answer(self, *, write: bool = False) -> None:
        self.calls += 1
        self.asked.set()
        await self.let.wait()
        await super()._answer(write=write)


class Office:
    """A desk in front of one registry; ``arrived`` are the keys that were called."""

    def __init__(self, registry: RegistryClient, *, patience: float = 0.01, **options: Any) -> None:
        self.arrived: asyncio.Queue[Hashable] = asyncio.Queue()
        desk = Desk({CONNECTION: registry}, options.pop("questions", asks), lambda: T0)
        self.queue: Waiting[Hashable] = Waiting()
        self.desk = PatientDesk(
            desk, self.arrived.put_nowait, self.queue.news, patience=patience, pause=0.01, **options
        )

    async def ask(self, key: Hashable) -> Any:
        return (await self.desk.informed(key, WORLD)).registry


@asynccontextmanager
async def office(registry: RegistryClient, **options: Any) -> AsyncGenerator[Office]:
    found = Office(registry, **options)
    try:
        yield found
    finally:
        await found.desk.close()


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), LONG))


def at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of what must not wait for anything, not even for a turn of the loop."""
    with pytest.raises(StopIteration) as stop:
        coroutine.send(None)
    return stop.value.value


def test_an_answer_that_comes_soon_is_simply_the_answer() -> None:
    async def scenario() -> None:
        registry = Held()
        registry.let.set()
        async with office(registry, patience=LONG) as at:
            view = await at.ask("a")
            assert (view.reachable, view.aliases) == (True, {"champion": "1"})
            assert at.arrived.empty()
            assert not at.desk._letters

    run(scenario)


def test_without_questions_nothing_is_asked() -> None:
    async def scenario() -> None:
        registry = Held()
        async with office(registry, questions=lambda world, now: Questions()) as at:
            assert at_once(at.desk.informed("a", WORLD)) is WORLD
            assert not registry.calls

    run(scenario)


def test_after_one_has_waited_in_vain_nobody_waits_until_the_connection_is_heard() -> None:
    async def scenario() -> None:
        registry = Held()
        async with office(registry) as at:
            first = await at.ask("a")
            assert (first.reachable, first.reason) == (False, "RegistryUnreachable")
            for key in ("b", "c", "a", "b"):
                assert at_once(at.ask(key)) == first, "the same words: a condition is not written again and again"
            with pytest.raises(RegistryError, match="has not answered"):
                await at.desk.register("d", WANTED)
            assert not registry.versions, "nor is anything begun"
            registry.let.set()
            assert {await at.arrived.get() for _ in range(4)} == {"a", "b", "c", "d"}
            assert (await at.ask("b")).aliases == {"champion": "1"}

    run(scenario)


def test_a_server_that_takes_connections_and_says_nothing_holds_no_worker_up() -> None:
    """The real client, whose four turns are all taken by others: the wait for a turn is part of the patience."""

    async def scenario() -> None:
        async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(mute, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        client = Registry(f"http://127.0.0.1:{port}", timeout=10 * LONG, in_flight=4)
        async with server:
            async with office(client, patience=0.05) as at:
                views = await asyncio.gather(*(at.ask(number) for number in range(16)))
                assert [view.reachable for view in views] == [False] * 16
                assert not at_once(at.ask("a kill")).reachable
            await client.close()

    run(scenario)


def test_a_late_answer_calls_its_key_and_is_used_then() -> None:
    async def scenario() -> None:
        registry = Held()
        async with office(registry) as at:
            assert not (await at.ask("a")).reachable
            registry.let.set()
            assert await at.arrived.get() == "a"
            before = registry.calls
            registry.let.clear()
            view = at_once(at.ask("a"))
            assert (view.reachable, view.aliases) == (True, {"champion": "1"})
            assert registry.calls == before, "it was not asked a second time"
            assert not (await at.ask("a")).reachable, "and is used once"

    run(scenario)


def test_a_late_answer_that_nobody_fetches_is_forgotten() -> None:
    async def scenario() -> None:
        registry = Held()
        async with office(registry, kept=0.0) as at:
            assert not (await at.ask("a")).reachable
            registry.let.set()
            await at.arrived.get()
            later = asyncio.Event()
            asyncio.get_running_loop().call_later(0.0, later.set)
            await later.wait()
            assert not at.desk._letters

    run(scenario)


def test_a_late_answer_to_another_question_is_none() -> None:
    async def scenario() -> None:
        registry = Held()
        questions = [Questions(aliases=True)]
        async with office(registry, questions=lambda world, now: questions[0]) as at:
            assert not (await at.ask("a")).reachable
            registry.let.set()
            await at.arrived.get()
            questions[0] = Questions(version_by_digest=DIGEST)
            assert (await at.ask("a")).aliases == {}

    run(scenario)


def test_one_slow_question_is_no_silence_while_others_are_answered() -> None:
    async def scenario() -> None:
        registry = Held()
        async with office(registry, patience=0.2) as at:
            slow = asyncio.create_task(at.ask("slow"))
            await registry.asked.wait()
            held, registry.let = registry.let, asyncio.Event()
            registry.let.set()
            while not slow.done():
                assert (await at.ask("quick")).reachable
                await asyncio.sleep(0.01)
            assert not slow.result().reachable
            assert (await at.ask("quick")).reachable, "nobody else is put off"
            held.set()
            assert await at.arrived.get() == "slow"

    run(scenario)


def test_who_refuses_connections_is_asked_by_everybody_since_that_takes_no_time() -> None:
    async def scenario() -> None:
        registry = Held()
        registry.let.set()
        registry.away = True
        async with office(registry, patience=LONG) as at:
            view = await at.ask("a")
            assert (view.reachable, view.message) == (False, "no answer from http://mlflow:5000 (away)")
            registry.away = False
            assert (await at.ask("b")).reachable

    run(scenario)


def test_who_waits_stops_at_once_where_its_object_changes_and_the_question_is_not_asked_twice() -> None:
    async def scenario() -> None:
        registry = Held()
        async with office(registry, patience=LONG) as at:
            at.queue.add("a")
            await at.queue.take()
            asked = asyncio.create_task(at.ask("a"))
            await registry.asked.wait()
            at.queue.add("b")
            at.queue.add("a", Priority.RESYNC)  # no news
            for _ in range(10):
                await asyncio.sleep(0)
            assert not asked.done()
            at.queue.add("a")
            with pytest.raises(Stale):
                await asked
            with pytest.raises(Stale):
                await at.ask("a")  # it still is the picture of before
            at.queue.done("a")
            assert await at.queue.take() is not None
            asked = asyncio.create_task(at.ask("a"))
            registry.let.set()
            assert (await asked).reachable
            assert registry.calls == 1

    run(scenario)


def test_an_answer_for_one_that_went_another_way_is_kept_for_it() -> None:
    async def scenario() -> None:
        registry = Held()
        async with office(registry, patience=LONG) as at:
            at.queue.add("a")
            await at.queue.take()
            at.queue.add("a")
            with pytest.raises(Stale):
                await at.ask("a")
            registry.let.set()
            assert await at.arrived.get() == "a"
            assert at_once(at.ask("a")).reachable

    run(scenario)


def test_a_registration_that_takes_long_goes_on_and_is_not_made_twice() -> None:
    async def scenario() -> None:
        registry = Held()
        async with office(registry) as at:
            with pytest.raises(RegistryError, match="has not answered within") as late:
                await at.desk.register("a", WANTED)
            assert late.value.reason == "RegistryUnreachable"
            registry.let.set()
            assert await at.arrived.get() == "a"
            await at.desk.register("a", WANTED)
            assert len(registry.versions[NAME]) == 1

    run(scenario)


def test_what_the_registry_refuses_late_is_raised_then() -> None:
    async def scenario() -> None:
        registry = Held()
        async with office(registry) as at:
            with pytest.raises(RegistryError, match="has not answered within"):
                await at.desk.register("a", replace(WANTED, digest="sha256:" + "2" * 64))

            async def refuse(*_: object, **__: object) -> Any:
                raise RegistryError("RegistryRefused", "no such run")

            registry.create_version = refuse
            registry.let.set()
            assert await at.arrived.get() == "a"
            with pytest.raises(RegistryError, match="no such run"):
                await at.desk.register("a", replace(WANTED, digest="sha256:" + "2" * 64))

    run(scenario)


def test_a_connection_that_the_settings_do_not_have_is_named() -> None:
    async def scenario() -> None:
        queue: Waiting[Hashable] = Waiting()
        desk = PatientDesk(Desk({}, asks, lambda: T0), lambda key: None, queue.news)
        view = (await desk.informed("a", WORLD)).registry
        assert view is not None
        assert view.reason == "RegistryUnknown"
        with pytest.raises(RegistryError, match="not in the operator's settings"):
            await desk.register("a", WANTED)
        await desk.close()

    run(scenario)


class Slow:
    """A desk whose answers all come later than anybody waits: each question is put off once, and its key called."""

    def __init__(self, desk: Any, arrived: Callable[[Any], None]) -> None:
        self._desk = desk
        self._arrived = arrived
        self._came: set[Hashable] = set()

    def questions(self, world: World) -> Questions:
        return self._desk.questions(world)

    async def informed(self, key: Hashable, world: World) -> World:
        about = (key, self.questions(world))
        if about in self._came:
            self._came.remove(about)
            return await self._desk.informed(key, world)
        self._came.add(about)
        self._arrived(key)
        view = RegistryView(reachable=False, reason="RegistryUnreachable", message="not within 2 s")
        return replace(world, registry=view)

    async def register(self, key: Hashable, wanted: Registration) -> None:
        await self._desk.register(key, wanted)


def test_a_training_starts_although_every_answer_is_late() -> None:
    """A claim looks at the cluster a second time. It asked MLflow again with it, was put off again, and so for ever."""
    story = ServingStory()
    reconcile = story.process.reconcile
    reconcile._registrar = Slow(reconcile._registrar, lambda key: story.process.loop.queue.add(key))
    head = {"apiVersion": "fiduciary.dev/v1alpha1", "kind": "FinancialModel"}
    story.cluster.put(
        kinds.FINANCIALMODEL, {**head, "metadata": {"namespace": "quant", "name": "spx"}, "spec": merged(SPEC, SERVED)}
    )
    while story.cluster.outbox:
        story.process.deliver(story.cluster.outbox.pop(0))
    for _ in range(30):
        story.process.step()
    assert any(kind == "Job" for kind, _, _ in story.cluster.objects)
