"""Probes against a real model server: what is sent, who is said to have answered, and what all else is called."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from aiohttp import web

from fiduciary.clients import oip
from fiduciary.clients.inference import InferenceClient, NoExample, printable, rest_url, told
from fiduciary.clients.probekey import ProbeKey
from fiduciary.serving.observed import ProbeTarget
from sandbox import pki
from tests.unit.clients.model_server import DIGEST, EXAMPLE, MODEL, ModelServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

KEY = ProbeKey.generate()
NOW = 1_790_000_000.75


def run(scenario: Callable[[ModelServer, InferenceClient], Awaitable[None]], **options: Any) -> None:
    async def whole() -> None:
        async with ModelServer(KEY.public).running() as server:
            client = InferenceClient(KEY, now=lambda: NOW, **{"timeout": 5.0, **options})
            try:
                await scenario(server, client)
            finally:
                await client.close()

    asyncio.run(whole())


def rest(server: ModelServer, **change: Any) -> ProbeTarget:
    url = f"http://127.0.0.1:{server.rest_port}/v2/models/{MODEL}"
    return replace(ProbeTarget("Route", "rest", url, MODEL), **change)


def over_grpc(server: ModelServer, **change: Any) -> ProbeTarget:
    return replace(ProbeTarget("Route", "grpc", f"http://127.0.0.1:{server.grpc_port}", MODEL), **change)


def test_the_example_of_the_metadata_comes_back_signed_and_the_answer_says_who_gave_it() -> None:
    async def scenario(server: ModelServer, client: InferenceClient) -> None:
        target = rest(server, host="models.example.com")
        example = await client.example(target)
        answer = await client.infer(target, example)
        assert (answer.ok, answer.status, answer.version, answer.digest) == (True, 200, "7", DIGEST)
        assert answer.latency_s > 0
        assert server.bodies == [EXAMPLE]
        assert server.hosts == ["models.example.com"] * 2
        assert [(digest, seconds) for digest, seconds, _ in server.verified] == [("*", int(NOW))]

    run(scenario)


def test_a_probe_of_one_version_is_signed_for_it_alone_and_no_two_are_alike() -> None:
    async def scenario(server: ModelServer, client: InferenceClient) -> None:
        for _ in range(2):
            await client.infer(rest(server, via="Version", digest=DIGEST), EXAMPLE)
        assert [digest for digest, _, _ in server.verified] == [DIGEST, DIGEST]
        assert len({nonce for _, _, nonce in server.verified}) == 2
        server.digest = "sha256:" + "8" * 64
        await client.infer(rest(server, via="Version", digest=DIGEST), EXAMPLE)
        assert server.bad == 1, "another version takes the signature for its own"

    run(scenario)


def test_over_grpc_the_same_example_is_sent_and_the_answer_says_who_gave_it() -> None:
    async def scenario(server: ModelServer, client: InferenceClient) -> None:
        answer = await client.infer(over_grpc(server, host="models.example.com"), EXAMPLE)
        assert (answer.ok, answer.status, answer.version, answer.digest) == (True, None, "7", DIGEST)
        assert [digest for digest, _, _ in server.verified] == ["*"]
        assert server.bodies == [oip.infer_request(MODEL, EXAMPLE)]

    run(scenario)


def test_a_large_request_waits_for_the_windows_of_http2() -> None:
    async def scenario(server: ModelServer, client: InferenceClient) -> None:
        wide = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [100_000], "data": [1.0] * 100_000}]}
        assert (await client.infer(over_grpc(server), wide)).ok
        assert len(server.bodies[0]) > 800_000

    run(scenario)


def test_a_grpc_refusal_is_told_in_words() -> None:
    async def scenario(server: ModelServer, client: InferenceClient) -> None:
        answer = await client.infer(over_grpc(server, model="quant.other"), EXAMPLE)
        assert (answer.ok, answer.status) == (False, None)
        assert answer.message == "no model 'quant.other' hereü"

    run(scenario)


def test_a_gateway_that_routes_no_such_call_says_so_in_grpc_s_own_word_for_404() -> None:
    """Seen with Envoy in the second of a move from Seldon, whose route takes no gRPC, to KServe."""

    async def scenario(server: ModelServer, client: InferenceClient) -> None:
        nobody = grpc.aio.server()
        port = nobody.add_insecure_port("127.0.0.1:0")
        await nobody.start()
        answer = await client.infer(replace(over_grpc(server), url=f"http://127.0.0.1:{port}"), EXAMPLE)
        await nobody.stop(None)
        assert (answer.ok, answer.status, answer.digest) == (False, 404, "")

    run(scenario)


def test_grpc_to_a_server_that_speaks_no_http2_is_no_answer() -> None:
    async def scenario(server: ModelServer, client: InferenceClient) -> None:
        answer = await client.infer(replace(over_grpc(server), url=f"http://127.0.0.1:{server.rest_port}"), EXAMPLE)
        assert not answer.ok
        assert "HTTP/2" in answer.message

    run(scenario)


@pytest.mark.parametrize(
    ("response", "status", "message"),
    [
        (lambda: web.Response(status=404, text="no"), 404, "HTTP 404"),
        (lambda: web.Response(status=503), 503, "HTTP 503"),
        (lambda: web.json_response({"outputs": []}), 200, "names neither version nor digest"),
        (lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}), 302, "HTTP 302"),
        (lambda: web.Response(body=b"x" * (2 << 20)), None, "the answer is larger than 1048576 bytes"),
    ],
    ids=["404", "503", "somebody-else", "redirect", "too-large"],
)
@pytest.mark.parametrize("where", ["example", "infer"])
def test_what_is_no_answer_of_ours_is_said_as_it_is(
    where: str, response: Callable[[], web.Response], status: int | None, message: str
) -> None:
    async def scenario(server: ModelServer, client: InferenceClient) -> None:
        server.intercept = lambda request: response()
        if where == "example":
            with pytest.raises(NoExample) as none:
                await client.example(rest(server))
            answer = none.value.answer
        else:
            answer = await client.infer(rest(server), EXAMPLE)
        assert (answer.ok, answer.status, answer.digest) == (False, status, "")
        assert message in answer.message

    run(scenario)


def test_nobody_there_and_nobody_answering_in_time() -> None:
    async def scenario(server: ModelServer, client: InferenceClient) -> None:
        answer = await client.infer(replace(rest(server), url="http://127.0.0.1:1/v2/models/quant.spx"), EXAMPLE)
        assert (answer.ok, answer.status) == (False, None)
        assert answer.message == "http://127.0.0.1:1: Connection refused"

        silent = await asyncio.start_server(lambda reader, writer: asyncio.sleep(9), "127.0.0.1", 0)
        port = silent.sockets[0].getsockname()[1]
        for protocol in ("rest", "grpc"):
            target = ProbeTarget("Route", protocol, f"http://127.0.0.1:{port}", MODEL)  # type: ignore[arg-type]
            answer = await client.infer(target, EXAMPLE)
            assert answer.message == f"http://127.0.0.1:{port}: no answer within 0.3 s"
        silent.close()

    run(scenario, timeout=0.3)


def test_metadata_without_an_example_says_so() -> None:
    async def scenario(server: ModelServer, client: InferenceClient) -> None:
        server.intercept = lambda request: web.json_response({"name": MODEL}, headers=server.headers)
        with pytest.raises(NoExample, match="shows no example request") as none:
            await client.example(rest(server))
        assert none.value.answer.digest == DIGEST, "who it was is known all the same"

    run(scenario)


def test_the_example_may_be_another_version_s() -> None:
    async def scenario(server: ModelServer, client: InferenceClient) -> None:
        async with ModelServer(KEY.public, "sha256:" + "8" * 64, "8").running() as champion:
            asked = f"http://127.0.0.1:{champion.rest_port}/v2/models/{MODEL}"
            assert await client.example(rest(server, host="ignored.example.com", example_url=asked)) == EXAMPLE
            assert champion.hosts == [f"127.0.0.1:{champion.rest_port}"], "the other's Host header is not for it"
            assert not server.hosts

    run(scenario)


def test_an_unsigned_probe_is_sent_without_the_header() -> None:
    async def scenario() -> None:
        async with ModelServer(KEY.public).running() as server:
            client = InferenceClient(None)
            assert (await client.infer(rest(server), EXAMPLE)).ok
            assert (server.verified, server.bad) == ([], 1)
            await client.close()

    asyncio.run(scenario())


def test_an_unknown_certificate_is_not_accepted(tmp_path: Any) -> None:
    identity = pki.Authority(tmp_path).issue("server", "models.example.com", names=["DNS:models.example.com"])
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(identity.certificate, identity.key)

    async def scenario() -> None:
        application = web.Application()
        application.router.add_post("/v2/models/{model}/infer", _answer)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        address = f"https://127.0.0.1:{runner.addresses[0][1]}"
        target = ProbeTarget("Route", "rest", f"{address}/v2/models/{MODEL}", MODEL, host="models.example.com")
        trusting = InferenceClient(KEY, authorities={address: str(tmp_path / "ca.crt")})
        assert (await trusting.infer(target, EXAMPLE)).ok
        other = replace(target, host="other.example.com")
        assert "certificate" in (await trusting.infer(other, EXAMPLE)).message
        wary = InferenceClient(KEY)
        assert "certificate" in (await wary.infer(target, EXAMPLE)).message
        await trusting.close()
        await wary.close()
        await runner.cleanup()

    asyncio.run(scenario())


def test_grpc_and_rest_to_one_address_over_tls(tmp_path: Any) -> None:
    """Each offers its own protocol in the handshake; a Gateway that is offered both would choose for us."""
    identity = pki.Authority(tmp_path).issue("server", "models.example.com", names=["DNS:models.example.com"])

    async def scenario() -> None:
        async with ModelServer(KEY.public).running() as plain:
            tls = grpc.ssl_server_credentials([(identity.key.read_bytes(), identity.certificate.read_bytes())])
            async with plain.secured(tls) as port:
                address = f"https://127.0.0.1:{port}"
                client = InferenceClient(KEY, authorities={address: str(tmp_path / "ca.crt")})
                target = ProbeTarget("Route", "grpc", address, MODEL, host="models.example.com")
                answer = await client.infer(target, EXAMPLE)
                assert (answer.ok, answer.message) == (True, "")
                tls_of = client._tls_of
                assert tls_of(address, "h2") is not tls_of(address, "http/1.1")
                wary = await client.infer(replace(target, host="other.example.com"), EXAMPLE)
                assert "certificate" in wary.message
                await client.close()

    asyncio.run(scenario())


async def _answer(request: web.Request) -> web.Response:
    return web.json_response({}, headers={"fiduciary-version": "7", "fiduciary-digest": DIGEST})


def test_somebody_else_s_text_becomes_one_short_line() -> None:
    assert printable("a\nb\x1b[31m\t c" + "x" * 999, 12) == "a b [31m cxx"


def test_a_mesh_is_told_whom_to_ask_and_an_example_may_be_of_another_of_its_models() -> None:
    mesh = ProbeTarget(
        "Version", "rest", "http://seldon-mesh.quant.svc/v2/models/b", "quant.spx", served="b",
        headers=(("seldon-model", "b"), ("x-seldon-route", ":b_1:")),
    )  # fmt: skip
    assert rest_url(mesh) == mesh.url
    assert told(mesh, mesh.url) == {"seldon-model": "b", "x-seldon-route": ":b_1:"}
    champion = "http://seldon-mesh.quant.svc/v2/models/a"
    assert told(replace(mesh, example_url=champion), champion) == {"seldon-model": "a"}
    assert told(replace(mesh, headers=()), champion) == {}


def test_the_answer_of_a_mesh_names_its_model() -> None:
    async def scenario(server: ModelServer, client: InferenceClient) -> None:
        server.further = {"x-seldon-route": ":spx-777_1:"}
        target = rest(server, headers=(("seldon-model", "spx-777"),))
        answer = await client.infer(target, EXAMPLE)
        assert (answer.ok, answer.route) == (True, "spx-777_1")
        assert server.received["seldon-model"] == "spx-777"

    run(scenario)
