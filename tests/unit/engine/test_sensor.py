"""The sensor with the real kopf: a watch that dies ends the process, and an optional kind may come and go."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fiduciary.app import Operator
from fiduciary.clients.access import Access
from fiduciary.engine import sensor
from fiduciary.settings import load
from tests.unit.engine.api_server import ApiServer

if TYPE_CHECKING:
    from collections.abc import Callable

SETTINGS = {"FIDUCIARY_LISTEN": "127.0.0.1:0", "FIDUCIARY_LEASE": "false", "FIDUCIARY_SERVER_IMAGE": ""}


async def until(check: Callable[[], object], work: asyncio.Future[None]) -> None:
    while not check():
        if work.done():
            work.result()
            raise AssertionError("the operator ended")
        await asyncio.sleep(0.01)


def operator(api: ApiServer) -> Operator:
    return Operator(load(SETTINGS), Access(api.url, None))


def test_a_kind_that_may_not_be_watched_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = sensor.sensor_settings()
    quick.networking.error_backoffs = (0.1,)
    monkeypatch.setattr(sensor, "sensor_settings", lambda: quick)

    async def scenario() -> None:
        async with ApiServer().running() as api:
            api.forbidden.add("serviceaccounts")
            async with asyncio.timeout(15):  # less than the reconciles under way would get
                with pytest.raises(BaseExceptionGroup) as ended:
                    await operator(api).run()
            assert "said so" in str(ended.value.exceptions)
            assert not [task for task in asyncio.all_tasks() if "watcher" in task.get_name()]

    asyncio.run(scenario())  # it would hang here, in the end of the event loop


def test_gateway_api_may_come_after_the_operator_and_go_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensor, "DISCOVERY_SECONDS", 0.05)

    async def scenario() -> None:
        async with ApiServer().running() as api:
            api.absent |= {"httproutes", "gateways"}
            running = operator(api)
            work = asyncio.ensure_future(running.run())
            await until(lambda: running.stores.synced, work)
            assert running.stores.missing == {"HTTPRoute", "Gateway"}
            api.absent.clear()
            await until(lambda: not running.stores.missing, work)
            assert running.stores.synced
            await until(lambda: api.watches.get("gateways") and api.watches.get("httproutes"), work)
            routes = api.watches["httproutes"]
            api.remove("gateways")
            await until(lambda: running.stores.missing == {"Gateway"}, work)
            await until(lambda: api.watches["httproutes"] > routes, work)  # kopf gave up both; one goes on
            api.remove("httproutes")
            await until(lambda: running.stores.missing == {"HTTPRoute", "Gateway"}, work)
            assert running.stores.synced
            api.absent.clear()
            await until(lambda: not running.stores.missing, work)
            running.stop.set()
            async with asyncio.timeout(20):
                await work

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_it_ends_when_told_to_also_while_a_kind_is_missing() -> None:
    async def scenario() -> None:
        async with ApiServer().running() as api:
            api.absent.add("driftpolicies")
            running = operator(api)
            work = asyncio.ensure_future(running.run())
            await until(lambda: api.watches.get("pods"), work)
            assert not running.stores.synced
            running.stop.set()
            async with asyncio.timeout(20):
                await work

    asyncio.run(scenario())
