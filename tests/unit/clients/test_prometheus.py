"""Prometheus' client: what it sends, and every answer that is none, by reason. The real server: tests/prometheus."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
import re
import ssl
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from fiduciary.clients.prometheus import Prometheus
from fiduciary.clients.prometheus_answers import PrometheusError, valued
from fiduciary.decide.counters.samples import Series

if TYPE_CHECKING:
    from pathlib import Path


def success(kind: str, result: object, **more: object) -> dict[str, object]:
    return {"status": "success", "data": {"resultType": kind, "result": result}, **more}


def ask(answer: Any, *, matrix: bool = False, tls: ssl.SSLContext | None = None, **options: Any) -> tuple[Series, ...]:
    """One query against a server that answers with ``answer``: a body, a response, or a handler."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if callable(answer):
            return await answer(request)
        if isinstance(answer, web.Response):
            return answer
        return web.Response(body=answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    async def scenario() -> tuple[Series, ...]:
        runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        scheme = "http" if tls is None else "https"
        prometheus = Prometheus(f"{scheme}://127.0.0.1:{runner.addresses[0][1]}/prefix/", **options)
        try:
            return await (prometheus.matrix if matrix else prometheus.vector)("up", 1_600_000_000_125)
        finally:
            await prometheus.close()
            await runner.cleanup()

    return asyncio.run(scenario())


def refused(answer: Any, **options: Any) -> PrometheusError:
    with pytest.raises(PrometheusError) as error:
        ask(answer, **options)
    return error.value


def test_a_query_is_posted_with_its_time_and_the_token_of_this_moment(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("rotated\n")
    seen: list[tuple[str, str, dict[str, Any], str | None]] = []

    async def answer(request: web.Request) -> web.Response:
        form = dict(await request.post())
        seen.append((request.method, request.path, form, request.headers.get("Authorization")))
        return web.json_response(success("vector", []))

    assert ask(answer, token_file=token, timeout=7.5) == ()
    form = {"query": "up", "time": "1600000000.125", "timeout": "7.5s"}
    assert seen == [("POST", "/prefix/api/v1/query", form, "Bearer rotated")]


def test_vectors_matrices_and_scalars_are_series_in_milliseconds() -> None:
    metric = {"__name__": "up", "pod": "a"}
    vector = success("vector", [{"metric": metric, "value": [1600000000.125, "1"]}])
    assert ask(vector) == (Series(metric, ((1_600_000_000_125, 1.0),)),)
    matrix = success("matrix", [{"metric": metric, "values": [[1, "0"], [2.5, "1e+06"], [3, "+Inf"]]}])
    assert ask(matrix, matrix=True) == (Series(metric, ((1_000, 0.0), (2_500, 1e6), (3_000, math.inf))),)
    assert ask(success("scalar", [5, "-0.5"])) == (Series({}, ((5_000, -0.5),)),)
    (nan,) = ask(success("vector", [{"metric": {}, "value": [1, "NaN"]}]))
    assert math.isnan(nan.samples[0][1])


def test_informations_are_no_warnings() -> None:
    assert ask(success("vector", [], infos=["PromQL info: metric might not be a counter"])) == ()


@pytest.mark.parametrize(
    ("answer", "reason", "said"),
    [
        (success("vector", [], warnings=["store 3 is away"]), "PrometheusPartial", "store 3 is away"),
        (b"<html>login</html>", "PrometheusWrongSchema", "<html>login</html>"),
        (b"", "PrometheusWrongSchema", "no answer of Prometheus"),
        (b"[]", "PrometheusWrongSchema", "no answer of Prometheus"),
        (b"[" * 100_000, "PrometheusWrongSchema", "no answer of Prometheus"),
        ({"status": "success"}, "PrometheusWrongSchema", "data = None; expected an object"),
        ({"status": "unheard"}, "PrometheusWrongSchema", "no answer of Prometheus"),
        (success("streams", []), "PrometheusWrongSchema", "resultType = streams"),
        (success("vector", {}), "PrometheusWrongSchema", "expected a list"),
        (success("vector", [1]), "PrometheusWrongSchema", "result[0] = 1"),
        (success("vector", [{"metric": {}}]), "PrometheusWrongSchema", "result[0].value = None"),
        (success("vector", [{"value": [1, "1"]}]), "PrometheusWrongSchema", "result[0].metric = None"),
        (success("vector", [{"metric": {"a": 1}, "value": [1, "1"]}]), "PrometheusWrongSchema", "metric.a = 1"),
        (success("vector", [{"metric": {}, "value": [1, 1]}]), "PrometheusWrongSchema", "expected a number as text"),
        (success("vector", [{"metric": {}, "value": [1, "1_0"]}]), "PrometheusWrongSchema", "1_0"),
        (success("vector", [{"metric": {}, "value": [1, " 1"]}]), "PrometheusWrongSchema", "number as text"),
        (success("vector", [{"metric": {}, "value": [1, "infinity"]}]), "PrometheusWrongSchema", "infinity"),
        (success("vector", [{"metric": {}, "value": ["1", "1"]}]), "PrometheusWrongSchema", "a time in seconds"),
        (success("vector", [{"metric": {}, "value": [True, "1"]}]), "PrometheusWrongSchema", "a time in seconds"),
        (success("vector", [{"metric": {}, "value": [1e300, "1"]}]), "PrometheusWrongSchema", "a time in seconds"),
        (success("vector", [{"metric": {}, "value": [10**400, "1"]}]), "PrometheusWrongSchema", "a time in seconds"),
        (success("vector", [{"metric": {}, "value": [1, "1", 2]}]), "PrometheusWrongSchema", "[time, value]"),
        (success("vector", [{"metric": {}, "histogram": [1, {}]}]), "PrometheusWrongSchema", "native histogram"),
        (success("vector", [{"metric": {}, "value": [1, "1"]}] * 2), "PrometheusWrongSchema", "same series twice"),
        (
            success("vector", [{"metric": m, "value": [1, "1"]} for m in ({"a": "1", "b": "2"}, {"b": "2", "a": "1"})]),
            "PrometheusWrongSchema",
            "same series twice",
        ),
        (success("matrix", []), "PrometheusWrongSchema", "answered with a matrix; expected vector or scalar"),
        (success("string", [1, "x"]), "PrometheusWrongSchema", "answered with a string"),
        ({"status": "error", "errorType": "bad_data", "error": "parse error"}, "PrometheusRefused", "parse error"),
        ({"status": "error", "errorType": "execution", "error": "too many"}, "PrometheusRefused", "too many"),
        ({"status": "error", "errorType": "unavailable", "error": "later"}, "PrometheusOverloaded", "later"),
        ({"status": "error", "errorType": "timeout", "error": "queue"}, "PrometheusTimeout", "queue"),
        ({"status": "error", "errorType": 5}, "PrometheusWrongSchema", "no answer of Prometheus"),
    ],
)
def test_an_answer_that_is_none(answer: object, reason: str, said: str) -> None:
    error = refused(answer)
    assert error.reason == reason
    assert said in error.message
    assert len(error.message) < 500
    if "same series twice" not in said:  # which who reads counters tells by himself
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        with pytest.raises(PrometheusError) as of_counters:
            valued("http://prometheus", 200, body)
        assert of_counters.value.reason == reason


COUNT: dict[str, Any] = {"metric": {"__name__": "rows", "bin": "1"}, "value": [1600000000, "21"]}


@pytest.mark.parametrize(
    "odd",
    [
        {"metric": {"bin": "2"}, "value": [1600000000.5, "NaN"]},
        {"metric": {"bin": "2"}, "value": [1600000000.5, "1.5"]},
        {"metric": {}, "value": [1, "1e+30"]},
        {"metric": {}, "value": [1, "9" * 400]},
    ],
)
def test_counters_are_read_as_any_vector_is(odd: dict[str, Any]) -> None:
    def read(result: list[dict[str, Any]]) -> list[tuple[dict[str, str], str]]:
        vector = success("vector", result)
        found = valued("http://prometheus", 200, json.dumps(vector).encode())
        # As texts, in which NaN is itself.
        told = [(dict(labels), repr(value)) for labels, value in found]
        assert told == [(dict(its.labels), repr(its.samples[0][1])) for its in ask(vector)]
        return told

    assert read([COUNT]) == [({"__name__": "rows", "bin": "1"}, "21.0")]
    assert len(read([COUNT, odd])) == 2
    assert read([]) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"metric": {"bin": 2}, "value": [1, "1"]}, "result[1].metric.bin = 2"),
        ({"metric": ["bin"], "value": [1, "1"]}, "result[1].metric"),
        ({"metric": {}, "value": [1, "²"]}, "result[1].value"),
        ({"metric": {}, "value": [1, "1"], "histogram": [1, {}]}, "native histogram"),
    ],
)
def test_what_is_no_counter_is_named_among_those_that_are(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(PrometheusError, match=re.escape(said)):
        valued("http://prometheus", 200, json.dumps(success("vector", [COUNT, wrong])).encode())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([], "a list of samples"),
        ([[2, "1"], [1, "1"]], "in the order of their times"),
        ([[1, "1"], [1, "1"]], "in the order of their times"),
        ([[1, "1"], "x"], "[time, value]"),
    ],
)
def test_a_matrix_whose_samples_are_none(values: object, said: str) -> None:
    assert said in refused(success("matrix", [{"metric": {}, "values": values}]), matrix=True).message


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, "PrometheusUnauthorized"),
        (403, "PrometheusUnauthorized"),
        (302, "PrometheusWrongSchema"),
        (404, "PrometheusWrongSchema"),
        (429, "PrometheusOverloaded"),
        (500, "PrometheusOverloaded"),
        (502, "PrometheusOverloaded"),
        (503, "PrometheusOverloaded"),
    ],
)
def test_a_status_that_is_no_success(status: int, reason: str) -> None:
    headers = {"Location": "http://127.0.0.1:1/"} if status == 302 else {}
    assert refused(web.Response(status=status, text="no", headers=headers)).reason == reason


def test_what_a_server_says_cannot_steer_a_terminal() -> None:
    message = refused(b"\x1b[31mred\nline").message
    assert message.isprintable()


def test_a_body_is_read_up_to_its_bound_and_not_unpacked_beyond_it() -> None:
    big = json.dumps(success("vector", [])).encode() + b" " * 300_000
    assert refused(big, max_bytes=100_000).reason == "PrometheusTooLarge"
    packed = web.Response(body=gzip.compress(b" " * 50_000_000), headers={"Content-Encoding": "gzip"})
    assert refused(packed, max_bytes=1_000_000).reason == "PrometheusTooLarge"


def test_a_body_that_breaks_off_is_no_answer() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "500"})
        await response.prepare(request)
        await response.write(b'{"status":')
        assert request.transport is not None
        request.transport.close()
        return response

    assert refused(answer).reason == "PrometheusUnreachable"


def test_silence_is_a_timeout() -> None:
    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    error = refused(answer, timeout=0.2)
    assert error.reason == "PrometheusTimeout"
    assert "within 0.2 s" in error.message


def test_who_does_not_get_a_turn_in_time_says_so_and_is_not_asked_for_later() -> None:
    seen: list[int] = []
    error = refused(success("vector", []), timeout=0.05, in_flight=0, observe=seen.append)
    assert error.reason == "PrometheusOverloaded"
    assert "took all of 0.05 s" in error.message
    assert seen == [], "no question was sent"


def test_a_client_beside_another_has_turns_and_a_time_limit_of_its_own() -> None:
    async def scenario() -> None:
        arrived, go = asyncio.Event(), asyncio.Event()

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            form = await request.post()
            if form["query"] == "slow":
                arrived.set()
                await go.wait()
            return web.json_response(success("scalar", [1, str(form["timeout"]).removesuffix("s")]))

        runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        prometheus = Prometheus(f"http://127.0.0.1:{runner.addresses[0][1]}", timeout=60, in_flight=1)
        try:
            slow = asyncio.create_task(prometheus.vector("slow", 0))
            await asyncio.wait_for(arrived.wait(), 20)
            (series,) = await prometheus.beside(timeout=20, in_flight=1).vector("quick", 0)
            assert series.samples == ((1_000, 20.0),)
            go.set()
            assert (await slow)[0].samples == ((1_000, 60.0),)
        finally:
            await prometheus.close()
            await runner.cleanup()

    asyncio.run(scenario())


def test_a_token_that_cannot_be_read_is_named_and_never_shown(tmp_path: Path) -> None:
    assert str(tmp_path / "none") in refused(success("vector", []), token_file=tmp_path / "none").message
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    assert "s3cret" not in refused(web.Response(status=401, text="no"), token_file=secret).message


def test_the_server_is_known_by_the_given_authority_alone(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "ca.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", "/CN=prometheus", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    assert ask(success("vector", []), tls=tls, ca_file=certificate) == ()
    assert refused(success("vector", []), tls=tls).reason == "PrometheusUnreachable"


def test_statuses_are_observed() -> None:
    seen: list[int] = []
    ask(success("vector", []), observe=seen.append)
    refused(web.Response(status=503, text="no"), observe=seen.append)
    assert seen == [200, 503]
