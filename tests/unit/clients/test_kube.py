"""The API server's client: what it sends, how it names refusals, what it tries again."""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web

from fiduciary.clients.kube import (
    AiohttpCluster,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Resource,
    Unavailable,
    WebhookSilent,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

THING = Resource("fiduciary.dev/v1alpha1", "Thing", "things")
CORE = Resource("v1", "Node", "nodes", namespaced=False)


@contextlib.asynccontextmanager
async def cluster(
    answer: Callable[[web.Request], Awaitable[web.Response]], **options: Any
) -> AsyncIterator[AiohttpCluster]:
    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session:
        yield AiohttpCluster(f"http://127.0.0.1:{runner.addresses[0][1]}", lambda: session, **options)
    await runner.cleanup()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scenario())  # type: ignore[arg-type]


def failure(code: int, reason: str = "", **headers: str) -> web.Response:
    return web.json_response({"reason": reason, "message": "said so"}, status=code, headers=headers)


def test_paths_of_core_and_group_namespaced_and_not() -> None:
    assert THING.path("ns", "a", "status") == "/apis/fiduciary.dev/v1alpha1/namespaces/ns/things/a/status"
    assert THING.path() == "/apis/fiduciary.dev/v1alpha1/things"
    assert CORE.path(None, "n1") == "/api/v1/nodes/n1"


def test_a_status_apply_names_the_manager_forces_and_asks_for_metadata_alone() -> None:
    seen: list[tuple[str, str, str, dict[str, str], Any]] = []

    async def answer(request: web.Request) -> web.Response:
        headers = request.headers
        seen.append((request.method, request.path, headers["Content-Type"], dict(request.query), await request.json()))
        assert "PartialObjectMetadata" in headers["Accept"]
        return web.json_response({"metadata": {"resourceVersion": "2"}})

    async def scenario() -> None:
        async with cluster(answer) as kube:
            body = {"metadata": {"name": "a", "namespace": "ns", "uid": "u", "resourceVersion": "1"}, "status": {}}
            assert (await kube.apply_status(THING, body))["metadata"]["resourceVersion"] == "2"
            path = "/apis/fiduciary.dev/v1alpha1/namespaces/ns/things/a/status"
            query = {"fieldManager": "fiduciary", "force": "true"}
            assert seen == [("PATCH", path, "application/apply-patch+yaml", query, body)]

    run(scenario)


def test_a_token_is_asked_for_by_account_and_audience() -> None:
    seen: list[tuple[str, str, Any]] = []

    async def answer(request: web.Request) -> web.Response:
        body = await request.json()
        seen.append((request.method, request.path, body))
        # This server grants less than it is asked for.
        status = {"token": "t0ken", "expirationTimestamp": "2026-11-26T19:30:00Z"}
        return web.json_response(
            {**body, "spec": {**body["spec"], "expirationSeconds": 600}, "status": status}, status=201
        )

    async def scenario() -> None:
        async with cluster(answer) as kube:
            token = await kube.token("ns", "me", "them", 3600)
            assert token.text == "t0ken"
            assert (token.expires, token.lifetime.total_seconds()) == (datetime(2026, 11, 26, 19, 30, tzinfo=UTC), 600)
        ((method, path, body),) = seen
        assert (method, path) == ("POST", "/api/v1/namespaces/ns/serviceaccounts/me/token")
        assert (body["apiVersion"], body["kind"]) == ("authentication.k8s.io/v1", "TokenRequest")
        assert body["spec"] == {"audiences": ["them"], "expirationSeconds": 3600}

    run(scenario)


def test_a_list_reads_all_chunks_and_names_what_its_items_are() -> None:
    async def answer(request: web.Request) -> web.Response:
        page = int(request.query.get("continue", "0"))
        assert request.query["limit"] == "500"
        assert request.query["labelSelector"] == "a=b"
        metadata = {"resourceVersion": "9"} | ({"continue": str(page + 1)} if page < 2 else {})
        return web.json_response({"metadata": metadata, "items": [{"metadata": {"name": f"n{page}"}}]})

    async def scenario() -> None:
        async with cluster(answer) as kube:
            listing = await kube.list(THING, labels="a=b")
            assert [item["metadata"]["name"] for item in listing.items] == ["n0", "n1", "n2"]
            assert {(item["apiVersion"], item["kind"]) for item in listing.items} == {(THING.api_version, "Thing")}
            assert listing.resource_version == "9"

    run(scenario)


def test_a_delete_carries_the_uid_as_precondition() -> None:
    seen: list[Any] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(await request.json())
        return web.json_response({})

    async def scenario() -> None:
        async with cluster(answer) as kube:
            await kube.delete(THING, "ns", "a", uid="u1", propagation="Foreground")
            assert seen[0]["preconditions"] == {"uid": "u1"}
            assert seen[0]["propagationPolicy"] == "Foreground"

    run(scenario)


@pytest.mark.parametrize(
    ("code", "error"),
    [(404, NotFound), (409, Conflict), (422, Invalid), (400, Invalid), (403, Forbidden), (401, Forbidden)],
)
def test_refusals_are_typed_and_not_tried_again(code: int, error: type[Exception]) -> None:
    calls = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal calls
        calls += 1
        return failure(code, "Because")

    async def scenario() -> None:
        async with cluster(answer) as kube:
            with pytest.raises(error, match=f"get .*/things/a: {code} Because said so"):
                await kube.get(THING, "ns", "a")

    run(scenario)
    assert calls == 1


def test_429_waits_as_long_as_the_server_says_and_then_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    answers = iter(
        [failure(429, "TooManyRequests", **{"Retry-After": "7"}), failure(503), web.json_response({"ok": 1})]
    )

    async def sleep(seconds: float) -> None:
        if seconds:  # the server of this test sleeps, too, for no time
            waited.append(seconds)

    async def answer(request: web.Request) -> web.Response:
        return next(answers)

    async def scenario() -> None:
        async with cluster(answer) as kube:
            monkeypatch.setattr("fiduciary.clients.kube.asyncio.sleep", sleep)
            assert await kube.get(THING, "ns", "a") == {"ok": 1}

    run(scenario)
    assert waited == [7.0, 0.4]


def test_a_server_that_stays_away_is_unavailable_and_each_try_is_counted() -> None:
    counted: list[tuple[str, str, int]] = []

    async def scenario() -> None:
        async with aiohttp.ClientSession() as session:
            kube = AiohttpCluster(
                "http://127.0.0.1:9", lambda: session, attempts=2, observe=lambda *what: counted.append(what)
            )
            with pytest.raises(Unavailable, match="no answer"):
                await kube.create(THING, {"metadata": {"name": "a", "namespace": "ns"}})

    run(scenario)
    assert counted == [("create", "Thing", 0)] * 2


def test_a_webhook_that_nobody_answers_is_not_an_api_server_that_is_away() -> None:
    """As an API server 1.37 says it where KServe v0.20's manager is down. Each try may wait for the webhook's timeout
    (10 s by default), and everything else of the same reconcile with it."""
    said = (
        'Internal error occurred: failed calling webhook "inferenceservice.kserve-webhook-server.defaulter": failed to '
        'call webhook: Post "https://kserve-webhook-server-service.kserve.svc:443/mutate": connect: connection refused'
    )
    calls = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal calls
        calls += 1
        return web.json_response({"reason": "InternalError", "message": said}, status=500)

    async def scenario() -> None:
        async with cluster(answer) as kube:
            with pytest.raises(WebhookSilent, match=r"kserve-webhook-server.defaulter.*Start what answers it"):
                await kube.apply(THING, {"metadata": {"name": "a", "namespace": "ns"}})

    run(scenario)
    assert calls == 1


def test_a_body_that_is_no_json_does_not_hide_the_status() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=500, text="<html>proxy</html>")

    async def scenario() -> None:
        async with cluster(answer, attempts=1) as kube:
            with pytest.raises(Unavailable, match=r"500 .*proxy"):
                await kube.get(CORE, None, "n1")

    run(scenario)


def test_bodies_are_compact_json() -> None:
    raw: list[bytes] = []

    async def answer(request: web.Request) -> web.Response:
        raw.append(await request.read())
        return web.json_response({})

    async def scenario() -> None:
        async with cluster(answer) as kube:
            await kube.create(THING, {"metadata": {"name": "a", "namespace": "ns"}, "spec": {"x": 1}})

    run(scenario)
    assert raw == [json.dumps(json.loads(raw[0]), separators=(",", ":")).encode()]
