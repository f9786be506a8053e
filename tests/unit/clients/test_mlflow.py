"""Contract of the REST client: each call against a real MLflow 3.17.2 server, odd answers included."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socket
import uuid
from typing import TYPE_CHECKING, TypeVar

import aiohttp
import httpx
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from fiduciary.clients.mlflow import MAX_ARTIFACT, Registry, RegistryError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

T = TypeVar("T")
MANIFEST = b'{"files":{"model.onnx":"00"}}'


class Lab:
    """What a trainer does to MLflow, and what an operator asks of it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.model = f"quant.m-{uuid.uuid4().hex[:8]}"
        self.http = httpx.Client(base_url=address, timeout=30)

    def api(self, endpoint: str, body: dict[str, object]) -> dict[str, dict[str, str]]:
        answer = self.http.post(f"/api/2.0/mlflow/{endpoint}", json=body)
        answer.raise_for_status()
        return answer.json()

    def experiment(self) -> str:
        return str(self.api("experiments/create", {"name": self.model})["experiment_id"])

    def run(self, experiment: str, tags: dict[str, str], start: int = 1) -> tuple[str, str]:
        """Run id and artifact address of a new run."""
        pairs = [{"key": key, "value": value} for key, value in tags.items()]
        info = self.api("runs/create", {"experiment_id": experiment, "tags": pairs, "start_time": start})["run"]["info"]
        return info["run_id"], info["artifact_uri"]

    def upload(self, artifact_uri: str, path: str, content: bytes) -> None:
        place = artifact_uri.removeprefix("mlflow-artifacts:/")
        self.http.put(f"/api/2.0/mlflow-artifacts/artifacts/{place}/{path}", content=content).raise_for_status()

    def ask(self, question: Callable[[Registry], Awaitable[T]], **options: object) -> T:
        async def scenario() -> T:
            registry = Registry(self.address, **options)  # type: ignore[arg-type]
            try:
                return await question(registry)
            finally:
                await registry.close()

        return asyncio.run(scenario())


@pytest.fixture
def lab(mlflow: str) -> Lab:
    return Lab(mlflow)


def test_a_run_is_found_by_its_training_key_newest_first_with_progress_and_result(lab: Lab) -> None:
    experiment = lab.experiment()
    key = "sha256:" + "a" * 64
    lab.run(experiment, {"fiduciary.dev/training-key": key}, start=1)
    newest, _ = lab.run(
        experiment,
        {
            "fiduciary.dev/training-key": key,
            "fiduciary.dev/progress": json.dumps({"epoch": 3, "percent": 40}),
            "fiduciary.dev/result": json.dumps({"outcome": "Measured"}),
        },
        start=2,
    )
    found = lab.ask(lambda registry: registry.run_for_key(lab.model, key))
    assert found is not None
    assert (found.run_id, found.status) == (newest, "RUNNING")
    assert found.progress == {"epoch": 3, "percent": 40}
    assert found.result == {"outcome": "Measured"}


def test_no_experiment_and_no_run_are_no_error(lab: Lab) -> None:
    assert lab.ask(lambda registry: registry.run_for_key("nobody.made-this", "sha256:00")) is None
    lab.experiment()
    assert lab.ask(lambda registry: registry.run_for_key(lab.model, "sha256:00")) is None


def test_a_tag_that_is_no_json_object_counts_as_missing(lab: Lab) -> None:
    lab.run(lab.experiment(), {"fiduciary.dev/training-key": "sha256:bb", "fiduciary.dev/progress": "[1, oops"})
    found = lab.ask(lambda registry: registry.run_for_key(lab.model, "sha256:bb"))
    assert found is not None
    assert found.progress is None


def test_a_version_is_created_with_its_digest_tag_and_found_by_it(lab: Lab) -> None:
    run, place = lab.run(lab.experiment(), {})
    digest = "sha256:" + "d" * 64

    async def register(registry: Registry) -> None:
        assert await registry.version_by_digest(lab.model, digest) is None
        await registry.ensure_model(lab.model)
        await registry.ensure_model(lab.model)  # RESOURCE_ALREADY_EXISTS is 400, and fine
        made = await registry.create_version(
            lab.model, source=f"{place}/version", run_id=run, digest=digest, tags={"fiduciary.dev/owner": "c/quant/m"}
        )
        found = await registry.version_by_digest(lab.model, digest)
        assert found == made
        assert (made.version, made.run_id, made.source) == ("1", run, f"{place}/version")
        assert made.tags == {"fiduciary.dev/owner": "c/quant/m", "fiduciary.dev/digest": digest}
        await registry.set_version_tag(lab.model, "1", "fiduciary.dev/verdict", "Accepted")
        assert (await registry.version_tags(lab.model, "1"))["fiduciary.dev/verdict"] == "Accepted"
        assert await registry.version_tags(lab.model, "99") == {}
        assert await registry.version_by_digest("nobody.made-this", digest) is None

    lab.ask(register)


def test_aliases_are_set_moved_read_and_deleted(lab: Lab) -> None:
    run, place = lab.run(lab.experiment(), {})

    async def scenario(registry: Registry) -> None:
        assert await registry.aliases(lab.model) == {}
        await registry.ensure_model(lab.model)
        for digest in ("sha256:1", "sha256:2"):
            await registry.create_version(lab.model, source=place, run_id=run, digest=digest, tags={})
        await registry.set_alias(lab.model, "champion", "1")
        await registry.set_alias(lab.model, "challenger", "2")
        await registry.set_alias(lab.model, "champion", "2")
        assert await registry.aliases(lab.model) == {"champion": "2", "challenger": "2"}
        await registry.delete_alias(lab.model, "challenger")
        await registry.delete_alias(lab.model, "challenger")  # a missing alias is as good as deleted
        await registry.delete_alias("nobody.made-this", "champion")  # and so is a missing model
        assert await registry.aliases(lab.model) == {"champion": "2"}
        with pytest.raises(RegistryError, match="reserved") as refused:
            await registry.set_alias(lab.model, "latest", "1")
        assert refused.value.reason == "RegistryRefused"

    lab.ask(scenario)


def test_the_manifest_is_hashed_as_the_server_serves_it(lab: Lab) -> None:
    run, place = lab.run(lab.experiment(), {})
    assert lab.ask(lambda registry: registry.manifest_digest(run)) is None
    lab.upload(place, "version/manifest.json", MANIFEST)
    expected = "sha256:" + hashlib.sha256(MANIFEST).hexdigest()
    assert lab.ask(lambda registry: registry.manifest_digest(run)) == expected
    assert lab.ask(lambda registry: registry.manifest_digest("0" * 32)) is None


def test_an_artifact_that_is_no_manifest_by_its_size_is_refused(lab: Lab) -> None:
    run, place = lab.run(lab.experiment(), {})
    lab.upload(place, "version/manifest.json", b"x" * (MAX_ARTIFACT + 1))
    with pytest.raises(RegistryError, match="expected at most 1048576"):
        lab.ask(lambda registry: registry.manifest_digest(run))


def test_an_artifact_without_end_is_not_read_to_its_end() -> None:
    """Whoever trains may write to MLflow what he likes: it must not fill the memory of the operator of all."""
    sent = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while sent < 64 * MAX_ARTIFACT:
                await response.write(b"x" * MAX_ARTIFACT)
                sent += MAX_ARTIFACT
        return response

    async def scenario() -> None:
        async with _server(answer) as address:
            registry = Registry(address)
            with pytest.raises(RegistryError, match="expected at most 1048576") as refused:
                await registry.manifest_digest("0" * 32)
            assert refused.value.reason == "RegistryRefused"
            await registry.close()

    asyncio.run(scenario())
    assert sent < 32 * MAX_ARTIFACT, "what the buffers of a connection hold, and no more"


def test_a_refused_host_name_is_named_with_its_cure(mlflow: str) -> None:
    async def scenario() -> None:
        registry = Registry("http://mlflow.mlflow.svc:5000", connector=_as_host(mlflow))
        with pytest.raises(RegistryError) as refused:
            await registry.aliases("quant.m")
        assert refused.value.reason == "RegistryHostRejected"
        assert "--allowed-hosts 'mlflow.mlflow.svc:5000'" in refused.value.message
        await registry.close()

    asyncio.run(scenario())


def test_an_address_that_is_no_mlflow_says_so(mlflow: str) -> None:
    async def scenario() -> None:
        registry = Registry(mlflow + "/health?")
        with pytest.raises(RegistryError, match="expected JSON: is this the address of MLflow"):
            await registry.aliases("quant.m")
        await registry.close()

    asyncio.run(scenario())


def test_no_answer_is_unreachable_within_the_timeout() -> None:
    async def scenario() -> None:
        async with _silent_server() as address:
            registry = Registry(address, timeout=0.2)
            with pytest.raises(RegistryError) as refused:
                await registry.aliases("quant.m")
            assert refused.value.reason == "RegistryUnreachable"
            await registry.close()

    asyncio.run(scenario())


def test_the_token_is_read_for_each_call_and_shown_to_nobody(tmp_path: Path) -> None:
    token = tmp_path / "token"
    seen: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"])
        return web.json_response({"error_code": "UNAUTHENTICATED", "message": "no"}, status=401)

    async def scenario() -> None:
        async with _server(answer) as address:
            registry = Registry(address, token_file=token)
            for secret in ("first-secret", "second-secret"):
                token.write_text(secret + "\n")
                with pytest.raises(RegistryError) as refused:
                    await registry.aliases("quant.m")
                assert refused.value.reason == "RegistryUnauthorized"
                assert secret not in refused.value.message
            token.unlink()
            with pytest.raises(RegistryError, match="cannot be read from"):
                await registry.aliases("quant.m")
            await registry.close()

    asyncio.run(scenario())
    assert seen == ["Bearer first-secret", "Bearer second-secret"]


def test_at_most_so_many_calls_are_in_flight() -> None:
    running = peak = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0.01)
        running -= 1
        return web.json_response({"registered_model": {}})

    async def scenario() -> None:
        async with _server(answer) as address:
            registry = Registry(address, in_flight=4)
            await asyncio.gather(*(registry.aliases("quant.m") for _ in range(20)))
            await registry.close()

    asyncio.run(scenario())
    assert peak == 4


def test_a_read_survives_one_lost_answer_and_a_write_is_sent_once() -> None:
    calls: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        calls.append(request.method)
        if len(calls) == 1 or request.method == "POST":
            return web.Response(status=503, text="busy")
        return web.json_response({"registered_model": {"aliases": [{"alias": "champion", "version": "3"}]}})

    async def scenario() -> None:
        async with _server(answer) as address:
            registry = Registry(address)
            assert await registry.aliases("quant.m") == {"champion": "3"}
            with pytest.raises(RegistryError):
                await registry.set_alias("quant.m", "champion", "4")
            await registry.close()

    asyncio.run(scenario())
    assert calls == ["GET", "GET", "POST"]


def _as_host(server: str) -> aiohttp.TCPConnector:
    """Reaches the server on loopback under a Service's DNS name: the Host header is the client's own."""
    port = int(server.rpartition(":")[2])

    class Resolver(AbstractResolver):
        async def resolve(self, host: str, port_asked: int = 0, family: int = socket.AF_INET) -> list[ResolveResult]:
            found = ResolveResult(hostname=host, host="127.0.0.1", port=port, family=family, proto=0, flags=0)
            return [found]

        async def close(self) -> None:
            return None

    return aiohttp.TCPConnector(resolver=Resolver(), family=socket.AF_INET)


@contextlib.asynccontextmanager
async def _server(answer: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[str]:
    """An HTTP server that answers everything in this way."""
    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def _silent_server() -> AsyncIterator[str]:
    """Accepts connections and never answers."""
    writers: list[asyncio.StreamWriter] = []

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    server = await asyncio.start_server(keep, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        for writer in writers:
            writer.close()
        server.close()
