"""The poller of ledgers against scorers that err, lie, or answer while what is wanted changes."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from fiduciary.clients import ledger_answers
from fiduciary.clients.ledger_answers import Head, LedgerError, Page, canonical_digest
from fiduciary.decide.experiment.ledgers import Wanted
from fiduciary.engine.ledgers import Ledgers

PAIR = ("sha256:" + "7" * 64, "sha256:" + "8" * 64)
DEFINITION: dict[str, Any] = {
    "kind": "Prequential",
    "model": "quant.spx",
    "champion": {"version": "7", "digest": PAIR[0]},
    "challenger": {"version": "8", "digest": PAIR[1]},
}
WANTED = Wanted("quant", "quant.spx", *PAIR, prequential="p")
KEY = "mx"


def chained(count: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    previous = canonical_digest(DEFINITION)
    for number in range(count):
        row: dict[str, Any] = {
            "sequence": number,
            "session": f"2018-01-{number + 1:02d}",
            "entities": 1,
            "sum": "0.5",
            "sumSquares": "0.25",
            "missing": {"champion": 0, "challenger": 0},
            "dropped": {"champion": 0, "challenger": 0},
            "previous": previous,
        }
        previous = canonical_digest(row)
        rows.append({**row, "digest": previous})
    return rows


def resealed(row: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Changed, with a digest of its own that fits."""
    content = {name: value for name, value in {**row, **changes}.items() if name != "digest"}
    return {**content, "digest": canonical_digest(content)}


@dataclass
class Scorer:
    """Serves rows two at a time. ``between`` happens while a page is under way."""

    rows: list[dict[str, Any]]
    head: dict[str, Any] = field(default_factory=dict[str, Any])
    between: Any = None
    tag: int = 0

    def described(self) -> dict[str, Any]:
        last = self.rows[-1]["digest"] if self.rows else canonical_digest(DEFINITION)
        own = {"name": "p", "definition": DEFINITION, "digest": canonical_digest(DEFINITION)}
        return {"contractVersion": 1, **own, "length": len(self.rows), "head": last, **self.head}

    async def heads(self, namespace: str, tag: str = "") -> tuple[str, tuple[Head, ...]] | None:
        body = json.dumps({"contractVersion": 1, "ledgers": [self.described()]}).encode()
        found = canonical_digest(json.loads(body))
        return None if found == tag else (found, ledger_answers.heads("http://scorer", body))

    async def page(self, namespace: str, name: str, after: str = "") -> Page:
        if self.between is not None:
            self.between()
        rows = [row for row in self.rows if row["session"] > after][:2]
        return ledger_answers.page(
            "http://scorer", json.dumps({**self.described(), "next": None, "rows": rows}).encode()
        )

    async def define(self, namespace: str, name: str, definition: Any) -> None:
        raise AssertionError("a ledger of replayed days is not ours to begin")

    async def end(self, namespace: str, name: str, last_session: str) -> None:
        raise AssertionError("nor to end")


def polled(scorer: Scorer, wanted: Wanted = WANTED, times: int = 1) -> tuple[Ledgers, list[Any]]:
    told: list[Any] = []
    ledgers = Ledgers(scorer, told.append)
    ledgers.aim(KEY, wanted)
    for _ in range(times):
        asyncio.run(ledgers.step("quant"))
    return ledgers, told


def test_rows_come_in_pages_and_are_told_once() -> None:
    ledgers, told = polled(Scorer(chained(5)), times=3)
    assert [row.number for row in ledgers.results(KEY).rows] == [0, 1, 2, 3, 4]
    assert told == [KEY]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda rows: rows[2].update(sum="0.25"), "LedgerBroken"),  # its digest does not fit
        (lambda rows: rows.__setitem__(2, resealed(rows[2], sum="0.25")), "LedgerRewritten"),  # the next one's previous
        (lambda rows: rows.__delitem__(1), "LedgerRewritten"),
        (lambda rows: rows.insert(1, resealed(rows[0], session="2018-01-01T", sequence=1)), "ScorerWrongSchema"),
        (lambda rows: rows[0].update(entities=-1), "ScorerWrongSchema"),
        (lambda rows: rows[0].update(entities=True), "ScorerWrongSchema"),
        (lambda rows: rows.__setitem__(0, resealed(rows[0], sum="nan")), "ScorerWrongSchema"),
        (lambda rows: rows.__setitem__(0, resealed(rows[0], sum=0.5)), "ScorerWrongSchema"),
    ],
    ids=["changed", "resealed", "hole", "no-day", "negative", "truth", "nan", "number"],
)
def test_a_ledger_that_does_not_hold_together_is_never_handed_on_whole(change: Any, reason: str) -> None:
    rows = chained(5)
    change(rows)
    ledgers, _ = polled(Scorer(rows), times=2)
    view = ledgers.results(KEY)
    assert (view.reason, view.complete) == (reason, False)
    assert all(row.digest in {each["digest"] for each in chained(5)} for row in view.rows)


def test_a_head_that_promises_more_than_is_served_waits() -> None:
    ledgers, _ = polled(Scorer(chained(3), {"length": 5}), times=2)
    view = ledgers.results(KEY)
    assert (view.reason, len(view.rows), view.complete) == ("LedgerBroken", 3, False)
    assert "5 rows, and serves 3" in view.message


@pytest.mark.parametrize("count", [3, 5])
def test_a_ledger_that_changes_behind_us_is_noticed(count: int) -> None:
    scorer = Scorer(chained(5))
    ledgers, _ = polled(scorer)
    rows = chained(5)[:count]
    rows[-1] = resealed(rows[-1], sum="0.125")
    scorer.rows = rows
    asyncio.run(ledgers.step("quant"))
    assert (ledgers.results(KEY).reason, ledgers.results(KEY).rows) == ("LedgerRewritten", ())


def test_what_is_dropped_or_folded_while_it_is_read_is_not_handed_out() -> None:
    scorer = Scorer(chained(5))
    ledgers, told = polled(scorer, times=0)
    scorer.between = lambda: ledgers.drop(KEY)
    asyncio.run(ledgers.step("quant"))
    assert told == []
    ledgers.aim(KEY, WANTED)
    scorer.between = lambda: ledgers.aim(KEY, replace(WANTED, folded=1, chain="x"))
    asyncio.run(ledgers.step("quant"))
    assert [row.number for row in ledgers.results(KEY).rows] == [2, 3, 4]


def test_one_experiment_s_ledger_does_not_hold_up_another_s() -> None:
    ledgers, _ = polled(Scorer(chained(4)), times=0)
    ledgers.aim("other", replace(WANTED, challenger="sha256:" + "9" * 64))
    asyncio.run(ledgers.step("quant"))
    assert len(ledgers.results(KEY).rows) == 4
    assert ledgers.results("other").reason == "LedgerExists"


def test_a_silent_scorer_is_asked_ever_more_seldom_and_what_was_read_stays() -> None:
    scorer = Scorer(chained(2))
    ledgers, _ = polled(scorer)

    async def silent(namespace: str, tag: str = "") -> None:
        raise LedgerError("ScorerUnreachable", "no route to host")

    scorer.heads = silent  # type: ignore[method-assign, assignment]
    due: list[float] = []
    for _ in range(3):
        ledgers.queue.core.drop("quant") if not due else None
        asyncio.run(ledgers.step("quant"))
        appointment = ledgers.queue.core.next_due()
        assert appointment is not None
        due.append(appointment - ledgers.queue.clock())
        ledgers.queue.core._due.clear()
    assert due == pytest.approx([1.0, 2.0, 4.0], abs=0.2)
    view = ledgers.results(KEY)
    assert (view.reason, len(view.rows)) == ("ScorerUnreachable", 2)


def test_a_scorer_that_promises_sessions_without_end_is_not_read() -> None:
    """It runs in somebody's namespace: it must not fill the memory of the operator of all."""
    scorer = Scorer(chained(5), {"length": 10**9})
    asked: list[int] = []
    scorer.between = lambda: asked.append(1)
    ledgers, _ = polled(scorer)
    view = ledgers.results(KEY)
    assert (view.reason, view.rows, asked) == ("LedgerTooLong", (), [])


class Silent(Scorer):
    """Namespaces whose scorer takes a question and never answers."""

    async def heads(self, namespace: str, tag: str = "") -> tuple[str, tuple[Head, ...]] | None:
        if namespace != "quant":
            await asyncio.Event().wait()
        return await super().heads(namespace, tag)


@pytest.mark.timeout(60)
def test_scorers_that_do_not_answer_hold_up_no_other() -> None:
    async def scenario() -> None:
        told = asyncio.Event()
        ledgers = Ledgers(Silent(chained(5)), lambda key: told.set() if key == KEY else None, concurrency=4)
        for number in range(9):
            ledgers.aim(number, replace(WANTED, namespace=f"other-{number}"))
        ledgers.aim(KEY, WANTED)
        task = asyncio.create_task(ledgers.run())
        await asyncio.wait_for(told.wait(), 30)
        assert len(ledgers.results(KEY).rows) == 5
        ledgers.close()
        await asyncio.wait_for(task, 10)

    asyncio.run(scenario())
