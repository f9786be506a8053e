"""The operator and the scorer's process over real HTTP: ledgers begin, are read, verified and ended."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from fiduciary.clients.ledger import Scorers
from fiduciary.clients.ledger_answers import LedgerError
from fiduciary.clients.tokens import TokenError
from fiduciary.decide.experiment.fold import chained
from fiduciary.decide.experiment.ledgers import LedgerView, Wanted, live_name, prequential_name
from fiduciary.engine.ledgers import Ledgers
from tests.outcomes.process import ISSUED, JOB, OPERATOR, WRITER, Process
from tests.outcomes.worlds import (
    CHALLENGER,
    CHAMPION,
    MODEL,
    NAMESPACE,
    at,
    batch,
    live,
    outcome,
    prequential,
    record,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from fiduciary.decide.experiment.world import LedgerRow

KEY = ("ModelExperiment", NAMESPACE, "spx-8")
PAIR = (CHAMPION["digest"], CHALLENGER["digest"])
LIVE = live_name("spx", *PAIR, "uid-1")
REPLAYED = prequential_name("spx", *PAIR)
DEFINITION = {
    key: value for key, value in live(graceSeconds=0, paper=None, clock="Wall").items() if key != "firstSession"
}
WANTED = Wanted(NAMESPACE, MODEL, *PAIR, live=LIVE, definition=DEFINITION)
NOW = datetime(2026, 11, 26, 18, 0, tzinfo=UTC)


@pytest.fixture
def scorer(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path)
    process.start()
    yield process
    if process.process is not None and process.process.poll() is None:
        process.kill()


class Rig:
    """A poller that asks when the test says so; ``told`` are the keys that it reported."""

    def __init__(self, scorer: Process, client: Scorers) -> None:
        self.scorer = scorer
        self.client = client
        self.told: list[Any] = []
        self.asked: list[tuple[str, int]] = []
        self.ledgers = Ledgers(client, self.told.append, now=lambda: NOW, jitter=lambda low, high: 1.0)

    async def poll(self, wanted: Wanted | None = None) -> LedgerView:
        if wanted is not None:
            self.ledgers.aim(KEY, wanted)
        await self.ledgers.step(NAMESPACE)
        return self.ledgers.results(KEY)

    def again(self) -> None:
        """The operator's process begins anew."""
        self.ledgers = Ledgers(self.client, self.told.append, now=lambda: NOW, jitter=lambda low, high: 1.0)


def play(scorer: Process, tmp_path: Path, story: Callable[[Rig], Awaitable[None]]) -> None:
    token = tmp_path / "token"
    token.write_text(ISSUED.token(OPERATOR))

    async def shown(namespace: str) -> str:
        assert namespace == NAMESPACE
        try:
            return token.read_text()
        except FileNotFoundError:
            raise TokenError("the API server gives none") from None

    async def run() -> None:
        asked: list[tuple[str, int]] = []
        client = Scorers(
            f"http://127.0.0.1:{scorer.port}",
            token=shown,
            observe=lambda what, status: asked.append((what, status)),
        )
        rig = Rig(scorer, client)
        rig.asked = asked
        try:
            await story(rig)
        finally:
            await client.close()

    asyncio.run(run())


def session(scorer: Process, day: str, after: str, end: str, forecasts: tuple[float, float] = (-4.0, -4.4)) -> None:
    """Both arms predict, the outcome comes, the session closes."""
    for arm, value in zip(("champion", "challenger"), forecasts, strict=True):
        answer = scorer.send("POST", "/v1/records", batch(arm, [record(day, value)], sender=f"{arm}-{day}"))
        assert answer.status_code == 200, answer.text
    scorer.set_clock(at(after, "23:59:59"))
    body = {"contractVersion": 1, "model": MODEL, "outcomes": [outcome(after, -4.5)]}
    assert scorer.send("POST", "/v1/outcomes", body, WRITER).status_code == 200
    scorer.set_clock(at(end))
    scorer.send("POST", "/v1/records", batch("champion", [], sender=f"tick-{end}"))


def replayed(scorer: Process, count: int = 1203, **changes: Any) -> list[dict[str, Any]]:
    """The comparison Job's post: more rows than three pages hold."""
    rows: list[dict[str, Any]] = []
    for number in range(count):
        day = datetime.fromordinal(datetime(2010, 1, 4).toordinal() + number)
        total = (-1) ** number * 0.25 + 0.125
        rows.append(
            {"session": f"{day:%Y-%m-%d}", "entities": 1, "sum": repr(total), "sumSquares": repr(total * total)}
        )
    answer = scorer.send("PUT", f"/v1/ledgers/{REPLAYED}", prequential(rows, **changes), JOB)
    assert answer.status_code == 200, answer.text
    return rows


def chain(rows: tuple[LedgerRow, ...]) -> str:
    found = ""
    for row in rows:
        found = chained(found, row)
    return found


def test_a_live_ledger_begins_is_read_once_and_ends(scorer: Process, tmp_path: Path) -> None:
    async def story(rig: Rig) -> None:
        view = await rig.poll(WANTED)
        assert (view.begun, view.rows, view.complete, view.at) == (False, (), True, NOW)
        assert scorer.get(f"/v1/ledgers/{LIVE}").status_code == 404, "begun before the mirror was in force"
        begun = replace(WANTED, first="2018-01-01")
        assert not (await rig.poll(begun)).begun
        assert (await rig.poll()).begun
        session(scorer, "2018-01-01", "2018-01-02", "2018-01-03")
        told = len(rig.told)
        view = await rig.poll()
        (row,) = view.rows
        assert (row.number, row.session, row.source, row.entities) == (0, "2018-01-01", "Live", 1)
        assert row.total == pytest.approx(0.25 - 0.01)
        assert row.squares == pytest.approx(0.24**2)
        assert len(rig.told) == told + 1
        await rig.poll()
        assert len(rig.told) == told + 1, "nothing is new"
        assert rig.asked[-1] == ("heads", 304)
        # Folded: it is not handed out again. The first session is what it began with, whatever is wanted now.
        folded = replace(begun, first="2018-01-05", folded=0, chain=chain(view.rows))
        assert (await rig.poll(folded)).rows == ()
        session(scorer, "2018-01-02", "2018-01-03", "2018-01-04")
        assert [row.number for row in (await rig.poll()).rows] == [1]
        assert (await rig.poll(replace(folded, first=None, last="2018-01-01"))).ended
        ended = json.loads(scorer.get(f"/v1/ledgers/{LIVE}").text)["ended"]
        assert ended == "2018-01-02", "a row that is there cannot be cut off"
        defines = [status for what, status in rig.asked if what == "define"]
        assert defines == [200]

    play(scorer, tmp_path, story)


def test_replayed_days_come_first_and_a_restart_reads_the_same(scorer: Process, tmp_path: Path) -> None:
    both = replace(WANTED, prequential=REPLAYED, first="2018-01-01")

    async def story(rig: Rig) -> None:
        view = await rig.poll(both)
        assert (view.reason, view.prequential_length) == ("LedgerAwaited", None)
        assert (await rig.poll()).begun, "live sessions are gathered meanwhile"
        session(scorer, "2018-01-01", "2018-01-02", "2018-01-03")
        assert (await rig.poll()).rows == (), "they wait for those that come before them"
        rows = replayed(scorer)
        view = await rig.poll()
        assert (view.reason, view.complete, view.prequential_length) == ("", True, len(rows))
        assert [row.number for row in view.rows] == list(range(len(rows) + 1))
        assert [repr(row.total) for row in view.rows[:-1]] == [row["sum"] for row in rows]
        assert [row.source for row in view.rows[-2:]] == ["Prequential", "Live"]
        rig.again()
        assert (await rig.poll(both)).rows == view.rows
        # Half of them are in the status already.
        half = replace(both, folded=600, chain=chain(view.rows[:601]))
        rig.again()
        assert (await rig.poll(half)).rows == view.rows[601:]
        # A status that was read too late asks for rows that were forgotten: they are read again.
        assert (await rig.poll(both)).rows == view.rows

    play(scorer, tmp_path, story)


def test_rows_that_are_not_those_that_were_folded_are_not_handed_on(scorer: Process, tmp_path: Path) -> None:
    both = replace(WANTED, prequential=REPLAYED)

    async def story(rig: Rig) -> None:
        replayed(scorer, 20)
        rows = (await rig.poll(both)).rows
        for folded, wrong in ((9, chain(rows[:9])), (25, chain(rows))):
            rig.again()
            view = await rig.poll(replace(both, folded=folded, chain=wrong))
            assert (view.reason, view.rows) == ("LedgerRewritten", ())
            view = await rig.poll()
            assert (view.reason, view.rows) == ("LedgerRewritten", ()), "looking twice does not heal it"

    play(scorer, tmp_path, story)


def test_another_store_under_a_running_operator_is_noticed(scorer: Process, tmp_path: Path) -> None:
    both = replace(WANTED, prequential=REPLAYED)

    async def story(rig: Rig) -> None:
        replayed(scorer, 20)
        assert len((await rig.poll(both)).rows) == 20
        scorer.kill()
        port, folder = scorer.port, scorer.folder
        view = await rig.poll()
        assert view.reason == "ScorerUnreachable"
        assert len(view.rows) == 20, "what was read stays true"
        (folder / "outcomes.db").unlink()
        for left in folder.glob("outcomes.db-*"):
            left.unlink()
        scorer.settings["port"] = port
        scorer.start()
        replayed(scorer, 21, provenance={"dataDigest": "sha256:" + "b" * 64})
        view = await rig.poll()
        assert (view.reason, view.rows) == ("LedgerRewritten", ())

    play(scorer, tmp_path, story)


def test_a_store_that_somebody_wrote_into_is_served_no_more(scorer: Process, tmp_path: Path) -> None:
    async def story(rig: Rig) -> None:
        replayed(scorer, 5)
        scorer.kill()
        with sqlite3.connect(scorer.folder / "outcomes.db") as store:
            store.executescript(
                "".join(
                    f"DROP TRIGGER {name};"
                    for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
                )
            )
            store.execute("UPDATE entries SET document = replace(document, '0.375', '0.5') WHERE sequence = 2")
        scorer.settings["port"] = scorer.port
        scorer.start()
        view = await rig.poll(replace(WANTED, prequential=REPLAYED))
        assert (view.reason, view.rows) == ("LedgerBroken", ())

    play(scorer, tmp_path, story)


def test_a_ledger_of_other_versions_or_terms_is_not_folded(scorer: Process, tmp_path: Path) -> None:
    stranger = {"version": "9", "digest": "sha256:" + "9" * 64}

    async def story(rig: Rig) -> None:
        replayed(scorer, 5, challenger=stranger)
        view = await rig.poll(replace(WANTED, prequential=REPLAYED))
        assert (view.reason, view.rows) == ("LedgerExists", ())
        assert "challenger.digest" in view.message
        assert scorer.send("PUT", f"/v1/ledgers/{LIVE}", live(graceSeconds=7), OPERATOR).status_code == 200
        view = await rig.poll(replace(WANTED, first="2018-01-01"))
        assert view.reason == "LedgerExists"
        assert "graceSeconds" in view.message

    play(scorer, tmp_path, story)


def test_who_may_not_define_says_so_and_tries_again(scorer: Process, tmp_path: Path) -> None:
    async def story(rig: Rig) -> None:
        (tmp_path / "token").write_text(ISSUED.token("system:serviceaccount:quant:nobody"))
        view = await rig.poll(replace(WANTED, first="2018-01-01"))
        assert view.reason == "ScorerUnauthorized"
        assert "nobody" in view.message
        assert ISSUED.token(OPERATOR)[:20] not in view.message
        (tmp_path / "token").write_text(ISSUED.token(OPERATOR))
        await rig.poll()
        assert (await rig.poll()).begun
        (tmp_path / "token").unlink()
        assert (await rig.poll()).reason == "ScorerUnauthorized"

    play(scorer, tmp_path, story)


def test_a_scorer_that_dies_at_the_begin_has_one_ledger(scorer: Process, tmp_path: Path) -> None:
    """Killed after the commit and before the answer: the definition is repeated and changes nothing."""

    async def story(rig: Rig) -> None:
        await rig.poll(WANTED)
        scorer.kill()
        scorer.settings["port"] = scorer.port
        scorer.start(commit=1, after=True)
        while scorer.process is not None and scorer.process.poll() is None:
            view = await rig.poll(replace(WANTED, first="2018-01-01"))  # the first one may find a connection closed
            assert view.reason == "ScorerUnreachable"
        scorer.wait()
        scorer.start()
        # Another day has begun meanwhile: the ledger stays the one that was begun.
        view = await rig.poll(replace(WANTED, first="2018-01-02"))
        assert (view.begun, view.reason) == (True, "")
        assert scorer.get(f"/v1/ledgers/{LIVE}").json()["definition"]["firstSession"] == "2018-01-01"

    play(scorer, tmp_path, story)


def test_it_polls_by_itself_and_stops(scorer: Process, tmp_path: Path) -> None:
    async def story(rig: Rig) -> None:
        arrived = asyncio.Event()
        ledgers = Ledgers(rig.client, lambda key: arrived.set(), seconds=0.05)
        running = asyncio.create_task(ledgers.run())
        ledgers.aim(KEY, replace(WANTED, first="2018-01-01"))
        while not ledgers.results(KEY).begun:
            arrived.clear()
            await asyncio.wait_for(arrived.wait(), 30)
        session(scorer, "2018-01-01", "2018-01-02", "2018-01-03")
        while not ledgers.results(KEY).rows:
            arrived.clear()
            await asyncio.wait_for(arrived.wait(), 30)
        ledgers.drop(KEY)
        assert ledgers.results(KEY) == LedgerView()
        ledgers.close()
        await asyncio.wait_for(running, 30)

    play(scorer, tmp_path, story)


ANSWERS: list[tuple[bytes, str]] = [
    (b"<html>", "ScorerWrongSchema"),
    (b"[]", "ScorerWrongSchema"),
    (b"[" * 100_000, "ScorerWrongSchema"),
    (b'{"contractVersion": 2, "ledgers": []}', "ScorerWrongSchema"),
    (b'{"contractVersion": 1, "ledgers": [{"name": "x", "length": NaN}]}', "ScorerWrongSchema"),
    (b'{"contractVersion": 1, "ledgers": [{"name": "x"}]}', "ScorerWrongSchema"),
    (b'{"contractVersion": 1, "ledgers": []' + b" " * 4000 + b"}", "ScorerTooLarge"),
]


@pytest.mark.parametrize(("body", "reason"), ANSWERS, ids=range(len(ANSWERS)))
def test_whoever_else_answers_is_not_believed(body: bytes, reason: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        client = Scorers(f"http://127.0.0.1:{port}", max_bytes=200_001 if body[:1] == b"[" else 2000)
        try:
            with pytest.raises(LedgerError) as refused:
                await client.heads(NAMESPACE)
            assert refused.value.reason == reason
        finally:
            await client.close()
            server.close()

    asyncio.run(run())
