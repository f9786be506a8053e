"""The scorer over HTTP: reads a request, checks who asks and what, hands it to the writer, answers after the commit."""

from __future__ import annotations

import asyncio
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.exposition import generate_latest

from fiduciary_outcomes import ledgers
from fiduciary_outcomes.batch import read_batch, read_outcomes
from fiduciary_outcomes.definition import day
from fiduciary_outcomes.document import DNS_LABEL, Field, Refused, envelope, parse
from fiduciary_outcomes.logs import log
from fiduciary_outcomes.metrics import families
from fiduciary_outcomes.outcomes import take_outcomes
from fiduciary_outcomes.sql import FAILURES
from fiduciary_outcomes.taking import take_batch
from fiduciary_outcomes.writer import Full

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client.core import Metric

    from fiduciary_outcomes.memory import Memory
    from fiduciary_outcomes.settings import Settings
    from fiduciary_outcomes.sql import Database
    from fiduciary_outcomes.state import LedgerState
    from fiduciary_outcomes.tokens import Role
    from fiduciary_outcomes.writer import Writer

PAGE, LARGEST_PAGE = 500, 5000
RETRY_AFTER = "1"
SECONDS = 30.0
"""Longest wait for a commit; the sender comes again, and what was applied is not applied twice."""


class Api:
    """The two applications: the API, and what Prometheus and the kubelet ask."""

    def __init__(self, settings: Settings, writer: Writer, clock: Callable[[], float]) -> None:
        self._settings, self._writer, self._clock = settings, writer, clock
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="reader")
        self._reader: Database | None = None
        self.ending = False

    def api(self) -> web.Application:
        app = web.Application(middlewares=[_errors], client_max_size=self._settings.most_bytes)
        app.router.add_post("/v1/records", self._records)
        app.router.add_post("/v1/outcomes", self._outcomes)
        app.router.add_get("/v1/ledgers", self._heads, allow_head=False)
        app.router.add_put("/v1/ledgers/{name}", self._put)
        app.router.add_put("/v1/ledgers/{name}/end", self._end)
        app.router.add_get("/v1/ledgers/{name}", self._ledger, allow_head=False)
        self._add_health(app)
        return app

    def metrics(self) -> web.Application:
        app = web.Application(middlewares=[_errors])
        app.router.add_get("/metrics", self._metrics)
        self._add_health(app)
        return app

    def _add_health(self, app: web.Application) -> None:
        app.router.add_get("/livez", self._live)
        app.router.add_get("/readyz", self._ready)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._readers, self._forget_reader)
        self._readers.shutdown()

    # --- writes ---------------------------------------------------------------------------------------------------

    async def _records(self, request: web.Request) -> web.Response:
        await self._allowed(request, "records")
        batch = read_batch(await self._body(request), self._settings.namespace)
        return _json(
            await self._change(lambda memory: take_batch(memory, batch, self._clock()), max(1, len(batch.records)))
        )

    async def _outcomes(self, request: web.Request) -> web.Response:
        writer = await self._allowed(request, "outcomes")
        model, items = read_outcomes(await self._body(request), self._settings.namespace)
        return _json(
            await self._change(lambda memory: take_outcomes(memory, model, items, writer, self._clock()), len(items))
        )

    async def _put(self, request: web.Request) -> web.Response:
        name = _name(request)
        # Who may do it depends on the kind, which is in the body: a stranger's body is not read.
        try:
            await self._allowed(request, "define")
        except Refused:
            await self._allowed(request, "ledgers")
        document = parse(await self._body(request))
        prequential = ledgers.kind_of(document) == "Prequential"
        await self._allowed(request, "ledgers" if prequential else "define")
        definition, rows = await asyncio.to_thread(ledgers.read_ledger, document, self._settings.namespace)
        return _json(
            await self._change(lambda memory: ledgers.put_ledger(memory, name, definition, rows), 1 + len(rows or ()))
        )

    async def _end(self, request: web.Request) -> web.Response:
        name = _name(request)
        await self._allowed(request, "define")
        last = day(envelope(await self._body(request), frozenset({"lastSession"}))["lastSession"])
        return _json(await self._change(lambda memory: ledgers.end_ledger(memory, name, last)))

    async def _allowed(self, request: web.Request, role: Role) -> str:
        return await self._settings.verifier.check(role, request.headers.get("Authorization"))

    async def _body(self, request: web.Request) -> bytes:
        if request.content_type != "application/json":
            raise Refused(
                "UnsupportedMediaType", f"Content-Type is {request.content_type}; expected application/json", 415
            )
        return await request.read()

    async def _change(self, apply: Callable[[Memory], Any], weight: int = 1) -> Any:
        return await self._wait(self._writer.submit(apply, weight))

    async def _look(self, apply: Callable[[Memory], Any]) -> Any:
        return await self._wait(self._writer.submit(apply, changes=False))

    async def _wait(self, future: Any) -> Any:
        async with asyncio.timeout(SECONDS):
            return await asyncio.wrap_future(future)

    # --- reads ----------------------------------------------------------------------------------------------------

    async def _heads(self, request: web.Request) -> web.Response:
        await self._allowed(request, "read")
        model = request.query.get("model")
        found = await self._look(
            lambda memory: [
                _described(ledger)
                for ledger in memory.ledgers.values()
                if model is None or ledger.definition.model == model
            ]
        )
        return _tagged(request, json.dumps({"contractVersion": 1, "ledgers": found}))

    async def _ledger(self, request: web.Request) -> web.Response:
        await self._allowed(request, "read")
        name = _name(request)
        after = request.query.get("after", "")
        if after:
            day(Field("after", after))
        limit = _limit(request.query.get("limit"))
        described = await self._look(lambda memory: _described(ledgers.found(memory, name)))
        if described["broken"] is not None:
            raise Refused("LedgerBroken", f"ledger {name} is not served: {described['broken']}", 500)
        rows = await asyncio.get_running_loop().run_in_executor(
            self._readers, self._page, name, after, limit + 1, described["length"]
        )
        more = rows[limit - 1][0] if len(rows) > limit else None
        head = json.dumps({"contractVersion": 1, **described, "next": more})
        return _tagged(request, f'{head[:-1]}, "rows": [{",".join(document for _, document in rows[:limit])}]}}')

    def _page(self, name: str, after: str, limit: int, rows: int) -> list[tuple[str, str]]:
        try:
            if self._reader is None:
                self._reader = self._settings.store.reader()
            return self._reader.execute(
                "SELECT session, document FROM entries WHERE ledger = ? AND session > ? AND sequence < ? "
                "ORDER BY sequence LIMIT ?",
                (name, after, rows, limit),
            )
        except FAILURES:
            self._forget_reader()
            raise

    def _forget_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    # --- health ---------------------------------------------------------------------------------------------------

    async def _metrics(self, request: web.Request) -> web.Response:
        found = await self._look(lambda memory: families(memory, self._writer, self._clock()))
        text = await asyncio.to_thread(generate_latest, _Collected(found))
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _live(self, request: web.Request) -> web.Response:
        if self._writer.failure is not None:
            raise Refused("WriterEnded", "the writer ended; the log says why", 500)
        return web.Response(text="ok\n")

    async def _ready(self, request: web.Request) -> web.Response:
        if self.ending:
            raise Refused("Ending", "the process is ending", 503)
        if not self._writer.ready:
            raise Refused("StoreNotOpen", "the store is not open yet; the log says why", 503)
        return web.Response(text="ok\n")


class _Collected:
    def __init__(self, found: Iterable[Metric]) -> None:
        self._found = found

    def collect(self) -> Iterable[Metric]:
        return self._found


def _described(ledger: LedgerState) -> dict[str, Any]:
    return {
        "name": ledger.name,
        "definition": ledger.definition.document,
        "digest": ledger.definition.digest,
        "length": ledger.rows,
        "head": ledger.head,
        "lastSession": ledger.last_session or None,
        "closedThrough": ledger.closed_through or None,
        "ended": ledger.ended or None,
        "tooLate": ledger.after,
        "broken": ledger.broken,
        "problem": ledger.problem,
    }


def _name(request: web.Request) -> str:
    return Field("the ledger's name", request.match_info["name"]).text(63, shape=DNS_LABEL, what="a DNS label")


def _limit(text: str | None) -> int:
    if text is None:
        return PAGE
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    return Field("limit", value or text).integer(1, LARGEST_PAGE)


def _json(content: object, status: int = 200, **headers: str) -> web.Response:
    text = json.dumps(content) + "\n"
    return web.Response(text=text, status=status, content_type="application/json", headers=headers)


def _tagged(request: web.Request, text: str) -> web.Response:
    """With the content's hash as ETag: who has it already is told so in a few bytes."""
    tag = hashlib.sha256(text.encode()).hexdigest()[:32]
    if any(known.value in (tag, "*") for known in request.if_none_match or ()):
        return web.Response(status=304, headers={"ETag": f'"{tag}"'})
    answer = web.Response(text=text + "\n", content_type="application/json")
    answer.etag = tag
    return answer


@web.middleware
async def _errors(request: web.Request, handler: Any) -> web.StreamResponse:
    """Every error as ``{"reason", "message"}``; what nobody foresaw goes to the log, not to the client."""
    try:
        return await handler(request)
    except Refused as refused:
        retry = {"Retry-After": RETRY_AFTER} if refused.status in (429, 503) else {}
        return _refusal(refused.status, refused.reason, refused.message, **retry)
    except web.HTTPRequestEntityTooLarge as error:
        return _refusal(413, "TooLarge", error.text or "the body is too large")
    except web.HTTPException as error:
        allowed = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return _refusal(error.status, error.reason.replace(" ", ""), f"{request.method} {request.path:.200}", **allowed)
    except (Full, TimeoutError):
        return _refusal(
            503, "Busy", "the scorer cannot take this now; send the same again", **{"Retry-After": RETRY_AFTER}
        )
    except ConnectionError:
        raise  # the client's, not the store's: nobody is there to answer
    except FAILURES as error:
        log("error", "the store failed", error=error)
        return _refusal(
            503, "StoreUnavailable", "the store failed; send the same again", **{"Retry-After": RETRY_AFTER}
        )
    except Exception as error:
        log("error", "a request failed", error=error, path=request.path)
        return _refusal(500, "Internal", "an error that was not foreseen; the log has it")


def _refusal(status: int, reason: str, message: str, **headers: str) -> web.Response:
    return _json({"reason": reason, "message": message}, status, **headers)
