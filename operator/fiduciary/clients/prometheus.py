"""Prometheus' HTTP API: instant queries at a given time, and every way in which an answer can be no answer.

No data is never a pass, so nothing here turns a failure into an empty result: what is not a complete, well-formed
answer is a :class:`PrometheusError` whose reason and message are fit for a condition. Nothing is asked twice: the next
interval asks anyway, and a server that is overloaded must not be asked more.
"""

from __future__ import annotations

import asyncio
import copy
import ssl
import time
from typing import TYPE_CHECKING, TypeVar

import aiohttp

from fiduciary.clients import prometheus_answers
from fiduciary.clients.prometheus_answers import PrometheusError
from fiduciary.clients.unreachable import why

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from fiduciary.decide.counters.samples import Series, Valued

MAX_BYTES = 16 << 20
"""An answer beyond it was not what was asked for: queries are cut to a tenth of it."""
LARGE = 1 << 19
"""Bytes, some 2,000 series, which are decoded in twenty milliseconds."""

Found = TypeVar("Found")


class Prometheus:
    """One Prometheus, or whatever speaks its API (Thanos, Mimir, VictoriaMetrics).

    ``address`` is an entry of the operator's settings, never a user's text. ``token_file`` is read for each query, so
    that a rotated token needs no restart; its content never reaches a log or a message. At most ``in_flight`` queries
    run at once, and none waits longer than ``timeout`` for its turn: what has to be quick has a client of its own.
    ``observe`` is told of each (HTTP status, 0 where none came) for the metrics.
    """

    def __init__(
        self,
        address: str,
        *,
        ca_file: Path | None = None,
        token_file: Path | None = None,
        timeout: float = 10.0,
        in_flight: int = 4,
        max_bytes: int = MAX_BYTES,
        observe: Callable[[int], None] = lambda status: None,
        connector: aiohttp.BaseConnector | None = None,
    ) -> None:
        self._url = address.rstrip("/") + "/api/v1/query"
        self._token_file = token_file
        self._in_flight = in_flight
        self._slots = asyncio.Semaphore(in_flight)
        self._seconds = timeout
        self._max_bytes = max_bytes
        self._observe = observe
        tls = ssl.create_default_context(cafile=str(ca_file)) if ca_file is not None else True
        # No proxy of the environment may see the traffic inside the cluster; cookies are nobody's.
        self._http = aiohttp.ClientSession(
            connector=connector or aiohttp.TCPConnector(ssl=tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    def beside(self, *, timeout: float | None = None, in_flight: int) -> Prometheus:
        """The same server with turns and a time limit of its own: who asks here waits for nobody who asks there.

        It is closed with this one.
        """
        other = copy.copy(self)
        other._seconds = self._seconds if timeout is None else timeout
        other._in_flight, other._slots = in_flight, asyncio.Semaphore(in_flight)
        return other

    async def close(self) -> None:
        await self._http.close()

    async def matrix(self, promql: str, at: int) -> tuple[Series, ...]:
        """The raw samples of a range selector that ends at ``at`` (ms since 1970). Raises :class:`PrometheusError`."""
        return (await self._query(promql, at, prometheus_answers.decoded)).of("matrix")

    async def vector(self, promql: str, at: int) -> tuple[Series, ...]:
        """The value of each series at ``at`` (ms), with that time; a scalar is one series without labels.

        Raises :class:`PrometheusError`. An empty answer is none: the caller knows whether something should be there.
        """
        return (await self._query(promql, at, prometheus_answers.decoded)).of("vector", "scalar")

    async def values(self, promql: str, at: int) -> Sequence[Valued]:
        """Labels and value of each series at ``at`` (ms): :meth:`vector` for tens of thousands of counters.

        Raises :class:`PrometheusError`.
        """
        return await self._query(promql, at, prometheus_answers.valued)

    async def _query(self, promql: str, at: int, decoded: Callable[[str, int, bytes], Found]) -> Found:
        # POST: a query for hundreds of versions is longer than a URL may be
        form = {"query": promql, "time": f"{at / 1000:.3f}", "timeout": f"{self._seconds:g}s"}
        await self._turn()
        try:
            status, body, date, asked = 0, b"", "", time.time()
            try:
                async with self._http.post(
                    self._url,
                    data=form,
                    headers=self._headers(),
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=self._seconds),
                ) as response:
                    status, date = response.status, response.headers.get("Date", "")
                    answered = time.time()
                    body = await self._read(response)
            except TimeoutError as error:
                message = f"{self._url} gave no answer within {self._seconds:g} s"
                raise PrometheusError("PrometheusTimeout", message) from error
            except (aiohttp.ClientError, OSError) as error:
                message = f"{self._url} cannot be reached: {why(error)}"
                raise PrometheusError("PrometheusUnreachable", message) from error
            finally:
                self._observe(status)
        finally:
            self._slots.release()
        # A large one takes as long as a small question to somebody else: it is read beside the loop.
        answer = (
            await asyncio.to_thread(decoded, self._url, status, body)
            if len(body) > LARGE
            else decoded(self._url, status, body)
        )
        prometheus_answers.agreeing(self._url, date, asked, answered)
        return answer

    async def _turn(self) -> None:
        """Take one of the slots. Whoever cannot within the time limit has no answer, and says so."""
        try:
            async with asyncio.timeout(self._seconds):
                await self._slots.acquire()
        except TimeoutError:
            message = (
                f"{self._url} is slow: {self._in_flight} questions before this one took all of {self._seconds:g} s"
            )
            raise PrometheusError("PrometheusOverloaded", message) from None

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json"}
        if self._token_file is None:
            return headers
        try:
            token = self._token_file.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            message = f"the token in {self._token_file} cannot be read: {type(error).__name__}"
            raise PrometheusError("PrometheusUnauthorized", message) from None
        return {**headers, "Authorization": f"Bearer {token}"}

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """The body, which is not kept beyond the bound: whoever answers may be anything."""
        parts: list[bytes] = []
        size = 0
        async for part in response.content.iter_chunked(1 << 16):
            size += len(part)
            if size > self._max_bytes:
                message = f"{self._url} answered with more than {self._max_bytes} bytes: too many series match"
                raise PrometheusError("PrometheusTooLarge", message)
            parts.append(part)
        return b"".join(parts)
