"""Write 5 beside the reconciles: a registry that hangs, or answers nonsense, holds up no other model's alias."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from fiduciary.decide.decision import Mirror
from fiduciary.engine.registry import Mirroring
from tests.unit.engine.memory import MemoryRegistry

if TYPE_CHECKING:
    from collections.abc import Hashable

WISH = Mirror("well", "quant.spx", set_aliases={"champion": "1"})


class Hangs(MemoryRegistry):
    """Takes every question and answers none."""

    async def aliases(self, model: str) -> dict[str, str]:
        await asyncio.Event().wait()
        return {}


@dataclass
class Odd(MemoryRegistry):
    """Answers some models' questions with JSON that nobody expects: a proxy that asks for a login, an older server."""

    asked: int = 0

    async def aliases(self, model: str) -> dict[str, str]:
        self.asked += 1
        if model != WISH.model:
            raise KeyError("registered_model")
        return await super().aliases(model)


async def until_written(mirroring: Mirroring, written: asyncio.Event) -> None:
    """Run it until the wish of the test is fulfilled."""
    task = asyncio.create_task(mirroring.run())
    told = asyncio.create_task(written.wait())
    try:
        done, _ = await asyncio.wait((told, task), timeout=30, return_when=asyncio.FIRST_COMPLETED)
        if task in done:
            await task  # what ends it would end the operator
        assert told in done, "nobody wrote it"
    finally:
        mirroring.close()
        told.cancel()
        await asyncio.wait((task,), timeout=10)


@pytest.mark.timeout(60)
def test_a_registry_that_does_not_answer_holds_up_no_other() -> None:
    async def scenario() -> None:
        written, well = asyncio.Event(), MemoryRegistry()

        def done(key: Hashable) -> None:
            assert key == "mine"
            written.set()

        mirroring = Mirroring({"hangs": Hangs(), "well": well}, done, lambda name: None)
        for number in range(20):
            mirroring.put(number, Mirror("hangs", f"quant.other-{number}", set_aliases={"champion": "1"}))
        mirroring.put("mine", WISH)
        await until_written(mirroring, written)
        assert well.alias == {WISH.model: {"champion": "1"}}

    asyncio.run(scenario())


@pytest.mark.timeout(60)
def test_an_answer_that_cannot_be_read_ends_nothing_and_is_asked_for_again() -> None:
    async def scenario() -> None:
        written, registry = asyncio.Event(), Odd()
        mirroring = Mirroring({"well": registry}, lambda key: written.set(), lambda name: None)
        mirroring.put("other", Mirror("well", "quant.other", set_aliases={"champion": "1"}))
        mirroring.put("mine", WISH)
        await until_written(mirroring, written)
        assert registry.alias == {WISH.model: {"champion": "1"}}
        assert mirroring.open == 1, "the other's wish stands"

    asyncio.run(scenario())


@pytest.mark.timeout(60)
def test_without_a_connection_it_waits_for_its_end() -> None:
    """A part of the operator that ends ends the operator."""

    async def scenario() -> None:
        mirroring = Mirroring({}, lambda key: None, lambda name: None)
        mirroring.put("mine", WISH)
        task = asyncio.create_task(mirroring.run())
        await asyncio.sleep(0.05)
        assert not task.done()
        assert mirroring.open == 0
        mirroring.close()
        await asyncio.wait_for(task, 10)

    asyncio.run(scenario())
