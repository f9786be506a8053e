"""The client against a real Prometheus: what it refuses, what it cannot carry, and when it is not there."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from fiduciary.clients.prometheus import Prometheus
from fiduciary.clients.prometheus_answers import PrometheusError

if TYPE_CHECKING:
    from tests.prometheus.story import Told


def reason(told: Told, promql: str, *, matrix: bool = False) -> str:
    with pytest.raises(PrometheusError) as refused:
        told.ask(promql, round(time.time() * 1000), matrix=matrix)
    assert promql not in refused.value.message or len(promql) < 20
    return refused.value.reason


def test_a_query_that_is_none_is_refused_with_what_the_server_says(told: Told) -> None:
    assert reason(told, "up{") == "PrometheusRefused"


def test_a_query_that_loads_too_much_is_refused_so_that_a_smaller_one_is_asked(told: Told) -> None:
    assert reason(told, "sum_over_time(up[10m:1ms])") == "PrometheusRefused"


def test_an_answer_of_another_kind_is_no_answer(told: Told) -> None:
    assert reason(told, "up", matrix=True) == "PrometheusWrongSchema"
    assert reason(told, "up[5s]") == "PrometheusWrongSchema"
    assert reason(told, '"text"') == "PrometheusWrongSchema"


def test_scalars_infinities_and_emptiness_are_answers(told: Told) -> None:
    at = round(time.time() * 1000)
    assert told.ask("1 / 0", at)[0].samples == ((at, float("inf")),)
    assert told.ask("up * Inf", at)[0].samples[0][1] == float("inf")
    assert told.ask("nothing_of_this_name", at) == ()
    assert told.ask("vector(0) == 1", at) == ()


def test_a_query_of_many_kilobytes_arrives(told: Told) -> None:
    choices = "|".join(f"m-{number:08x}-[a-z0-9]+-[a-z0-9]+" for number in range(2_000))
    assert told.ask(f'up{{pod=~"{choices}|{told.steady.pod}"}}', round(time.time() * 1000))


def test_a_server_that_is_not_there_is_unreachable(told: Told) -> None:
    async def ask() -> None:
        prometheus = Prometheus("http://127.0.0.1:9", timeout=5)
        try:
            await prometheus.vector("up", 1_000)
        finally:
            await prometheus.close()

    with pytest.raises(PrometheusError) as refused:
        asyncio.run(ask())
    assert refused.value.reason == "PrometheusUnreachable"
