"""What the engine does with MLflow: ask what a decision needs, register (write 0), and mirror later (write 5).

MLflow may be away for hours. A question that cannot be answered becomes an answer that says so, and the decision shows
it in a condition; a registration is tried again with backoff; the mirror of aliases and tags is a queue of its own that
no reconcile ever waits for. How long one waits for the others says :mod:`fiduciary.engine.patience`.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

import structlog

from fiduciary.clients.mlflow import RegistryError
from fiduciary.decide.world import Questions, RegistryView
from fiduciary.engine.queue import Backoff, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping
    from datetime import datetime

    from fiduciary.api.financialmodel import FinancialModel
    from fiduciary.decide.decision import Mirror, Registration
    from fiduciary.decide.world import RunView, VersionView, World

log = structlog.get_logger(part="registry")

NOTHING = Questions()

#: An answer may raise one more question (a result that only the run still has names the artifact to look at).
ROUNDS = 3


class RegistryClient(Protocol):
    """The calls of :class:`fiduciary.clients.mlflow.Registry` that the engine makes."""

    async def run_for_key(self, experiment: str, training_key: str) -> RunView | None: ...
    async def version_by_digest(self, model: str, digest: str) -> VersionView | None: ...
    async def manifest_digest(self, run_id: str) -> str | None: ...
    async def aliases(self, model: str) -> dict[str, str]: ...
    async def ensure_model(self, model: str) -> None: ...
    async def create_version(
        self, model: str, *, source: str, run_id: str, digest: str, tags: Mapping[str, str]
    ) -> VersionView: ...
    async def version_tags(self, model: str, version: str) -> dict[str, str]: ...
    async def set_version_tag(self, model: str, version: str, key: str, value: str) -> None: ...
    async def set_alias(self, model: str, alias: str, version: str) -> None: ...
    async def delete_alias(self, model: str, alias: str) -> None: ...


Registries = dict[str, RegistryClient]


def registered_model(model: FinancialModel) -> str:
    """Name of the registered model that this FinancialModel uses."""
    return model.spec.registry.model or f"{model.metadata.namespace}.{model.metadata.name}"


def experiment(model: FinancialModel) -> str:
    """Name of the MLflow experiment that its runs are in."""
    return f"{model.metadata.namespace}.{model.metadata.name}"


async def ask(registries: Mapping[str, RegistryClient], model: FinancialModel, questions: Questions) -> RegistryView:
    """Put the questions to the model's registry. Never raises: not being answered is an answer."""
    client = registries.get(model.spec.registry.connection)
    if client is None:
        known = ", ".join(sorted(registries)) or "none"
        message = (
            f"spec.registry.connection names {model.spec.registry.connection!r}, which the operator's settings do not "
            f"have (there: {known}); name one of those, or ask the operator's owner to add it"
        )
        return RegistryView(reachable=False, reason="RegistryUnknown", message=message)
    name, asked = registered_model(model), questions
    try:
        run = await client.run_for_key(experiment(model), asked.run_for_key) if asked.run_for_key else None
        version = await client.version_by_digest(name, asked.version_by_digest) if asked.version_by_digest else None
        manifest = await client.manifest_digest(asked.manifest_of_run) if asked.manifest_of_run else None
        aliases = await client.aliases(name) if asked.aliases else {}
    except RegistryError as error:
        return RegistryView(reachable=False, reason=error.reason, message=error.message)
    return RegistryView(reachable=True, run=run, version=version, manifest_digest=manifest, aliases=aliases)


async def register(client: RegistryClient, wanted: Registration, checkpoint: Callable[[str], None]) -> None:
    """Write 0. The digest tag is part of the creating call, so a crash leaves a version that is found, or none."""
    if await client.version_by_digest(wanted.model, wanted.digest) is not None:
        return
    checkpoint("0-model")
    await client.ensure_model(wanted.model)
    checkpoint("0-version")
    await client.create_version(
        wanted.model, source=wanted.source, run_id=wanted.run_id, digest=wanted.digest, tags=wanted.tags
    )


class Desk:
    """Asks and registers for one reconcile, which waits for it. ``questions``: what a decision on a world needs."""

    def __init__(
        self,
        registries: Mapping[str, RegistryClient],
        questions: Callable[[World, datetime], Questions],
        now: Callable[[], datetime],
        checkpoint: Callable[[str], None] = lambda name: None,
    ) -> None:
        self.registries = registries
        self._questions = questions
        self._now = now
        self._checkpoint = checkpoint

    def questions(self, world: World) -> Questions:
        return self._questions(world, self._now())

    async def informed(self, key: Hashable, world: World) -> World:
        """The world with what MLflow says to each question that it raises."""
        asked = NOTHING
        for _ in range(ROUNDS):
            questions = self.questions(world)
            if questions == asked:
                break
            world = replace(world, registry=await ask(self.registries, world.model, questions))
            asked = questions
        return world

    async def register(self, key: Hashable, wanted: Registration) -> None:
        client = self.registries.get(wanted.connection)
        if client is None:
            message = f"connection {wanted.connection!r} is not in the operator's settings"
            raise RegistryError("RegistryRefused", message)
        await register(client, wanted, self._checkpoint)


class Mirroring:
    """Write 5: aliases and tags follow the log, retried for ever, latest wish of a model wins.

    Each connection has a line of its own, in which one wish is written after the other: a server that takes questions
    and never answers holds up nobody else's. ``done`` is told the key after something was really written, so that a
    decision that waits for it goes on.
    """

    def __init__(
        self,
        registries: Mapping[str, RegistryClient],
        done: Callable[[Hashable], None],
        checkpoint: Callable[[str], None],
        *,
        queue: Callable[[], Waiting[Hashable]] = lambda: Waiting(Backoff(first=1.0, limit=300.0)),
    ) -> None:
        self._registries = registries
        self._done = done
        self._checkpoint = checkpoint
        self._lines = {connection: queue() for connection in registries}
        self._wishes: dict[Hashable, Mirror] = {}
        self._closed = asyncio.Event()

    @property
    def open(self) -> int:
        """Wishes that are not fulfilled yet."""
        return len(self._wishes)

    def put(self, key: Hashable, wish: Mirror) -> None:
        if self._wishes.get(key) == wish:
            return  # already on its way; its backoff stays
        line = self._lines.get(wish.connection)
        if line is None:
            self._wishes.pop(key, None)  # the settings do not know the connection; a condition says so
            return
        self._wishes[key] = wish
        line.add(key)

    def drop(self, key: Hashable) -> None:
        """The model is gone: no alias may be given to it any more. What is to be taken away still is."""
        wish = self._wishes.get(key)
        if wish is not None and wish.set_aliases:
            del self._wishes[key]

    def close(self) -> None:
        self._closed.set()
        for line in self._lines.values():
            line.close()

    async def run(self) -> None:
        """Work until :meth:`close`."""
        async with asyncio.TaskGroup() as tasks:
            for connection, line in self._lines.items():
                tasks.create_task(line.work_off(partial(self._work, connection), 1))
        await self._closed.wait()  # without a connection there is nothing to do until then

    async def _work(self, connection: str, key: Hashable) -> None:
        wish = self._wishes.get(key)
        if wish is None or wish.connection != connection:
            return  # its turn is in another line by now
        try:
            await self.step(key)
        except Exception:
            log.exception("mirror.bug", key=str(key))  # the other models go on, and so does this one
            self._lines[connection].fail(key)

    async def step(self, key: Hashable) -> None:
        wish = self._wishes.get(key)
        if wish is None:
            return
        line = self._lines[wish.connection]
        try:
            wrote = await self._write(self._registries[wish.connection], wish)
        except RegistryError as error:
            delay = line.fail(key)
            log.warning("mirror.waits", key=str(key), reason=error.reason, why=error.message, retry_in=round(delay, 1))
            return
        line.core.forget(key)
        if self._wishes.get(key) == wish:
            del self._wishes[key]
        if wrote:
            log.info("mirror.written", key=str(key), aliases=dict(wish.set_aliases), removed=list(wish.delete_aliases))
            self._done(key)

    async def _write(self, client: RegistryClient, wish: Mirror) -> bool:
        """Write what differs; whether anything did."""
        wrote = False
        aliases = await client.aliases(wish.model) if wish.set_aliases or wish.delete_aliases else {}
        for version, tags in wish.version_tags.items():
            present = await client.version_tags(wish.model, version)
            for key, value in tags.items():
                if present.get(key) != value:
                    self._checkpoint("5-tag")
                    await client.set_version_tag(wish.model, version, key, value)
                    wrote = True
        for alias, version in wish.set_aliases.items():
            if aliases.get(alias) != version:
                self._checkpoint("5-alias")
                await client.set_alias(wish.model, alias, version)
                wrote = True
        for alias in wish.delete_aliases:
            if alias in aliases:
                self._checkpoint("5-alias")
                await client.delete_alias(wish.model, alias)
                wrote = True
        return wrote
