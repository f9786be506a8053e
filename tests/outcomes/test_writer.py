"""The writing thread: one transaction for what waits, a bounded queue, a full disk, a change with a bug."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fiduciary_outcomes.batch import read_batch
from fiduciary_outcomes.document import Refused
from fiduciary_outcomes.memory import Memory
from fiduciary_outcomes.sql import FAILURES, Sqlite, Store
from fiduciary_outcomes.taking import take_batch
from fiduciary_outcomes.writer import Full, Writer
from tests.outcomes.worlds import MODEL, NAMESPACE, at, batch, calendars, record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NOW = at("2018-01-01")


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    store = Store(tmp_path / "outcomes.db")
    found = Writer(lambda: Memory(store.writer(), NAMESPACE, calendars()), lambda: NOW, 1000, 1e9)
    found.start()
    while not found.ready:
        assert not found.ended.done()
    yield found
    found.stop()
    found.ended.result(30)
    assert found.failure is None


def take(number: int, size: int = 1) -> Callable[[Memory], Any]:
    rows = [record("2018-01-01", -4.0, f"{number}-{i}") for i in range(size)]
    found = read_batch(json.dumps(batch("champion", rows, sender=f"s{number}")).encode(), NAMESPACE)
    return lambda memory: take_batch(memory, found, NOW)


class Held:
    """Keeps the writer busy until it is let go."""

    def __init__(self, writer: Writer) -> None:
        self._go, began = threading.Event(), threading.Event()
        self._done = writer.submit(lambda _: (began.set(), self._go.wait(30)), changes=False)
        assert began.wait(30)

    def let_go(self) -> None:
        self._go.set()
        self._done.result(30)


def stored(writer: Writer) -> int:
    return writer.submit(
        lambda memory: memory.arms[MODEL, "7", "sha256:" + "7" * 64].results["first"], changes=False
    ).result(30)


def test_what_waits_shares_a_commit(writer: Writer) -> None:
    held = Held(writer)
    waiting = [writer.submit(take(number)) for number in range(50)]
    held.let_go()
    assert [each.result(30)["first"] for each in waiting] == [1] * 50
    assert writer.commits == 1
    assert stored(writer) == 50


def test_the_queue_is_bounded_and_drains(writer: Writer) -> None:
    held = Held(writer)
    first = writer.submit(take(1, 600), 600)
    with pytest.raises(Full):
        writer.submit(take(2, 600), 600)
    held.let_go()
    assert first.result(30)["first"] == 600
    assert stored(writer) == 600  # a later look: by then the queue has let go of what was answered
    assert writer.submit(take(2, 600), 600).result(30)["first"] == 600


def test_a_full_disk_loses_nothing_that_was_answered(writer: Writer) -> None:
    assert writer.submit(take(1)).result(30)["first"] == 1

    def limit(memory: Memory, pages: int | None) -> None:
        used = memory.db.execute("PRAGMA page_count")[0][0]
        memory.db.execute(f"PRAGMA max_page_count = {used if pages is None else pages}")

    writer.submit(lambda memory: limit(memory, None), changes=False).result(30)
    with pytest.raises(FAILURES, match="full"):
        writer.submit(take(2, 900), 900).result(30)
    assert stored(writer) == 1
    writer.submit(lambda memory: limit(memory, 1_000_000), changes=False).result(30)
    assert writer.submit(take(2, 900), 900).result(30)["first"] == 900
    assert stored(writer) == 901


def test_a_change_with_a_bug_takes_no_other_with_it(writer: Writer) -> None:
    def broken(memory: Memory) -> None:
        memory.arm(MODEL, "9", "sha256:" + "9" * 64)
        raise ZeroDivisionError

    def refused(memory: Memory) -> None:
        raise Refused("No", "no")

    held = Held(writer)
    waiting = [writer.submit(each) for each in (take(1), broken, refused, take(2))]
    held.let_go()
    assert (waiting[0].result(30)["first"], waiting[3].result(30)["first"]) == (1, 1)
    with pytest.raises(ZeroDivisionError):
        waiting[1].result(30)
    with pytest.raises(Refused):
        waiting[2].result(30)
    assert writer.submit(lambda memory: len(memory.arms), changes=False).result(30) == 1


def test_who_went_away_is_not_missed(writer: Writer) -> None:
    held = Held(writer)
    gone = writer.submit(take(1))
    assert gone.cancel()
    held.let_go()
    assert stored(writer) == 1


def test_a_lost_store_ends_the_writer(tmp_path: Path) -> None:
    """Another process may hold the lock by then: this one must not go on."""
    store = Store(tmp_path / "outcomes.db")
    opened: list[Memory] = []

    def open_memory() -> Memory:
        opened.append(Memory(store.writer(), NAMESPACE, calendars()))
        return opened[-1]

    writer = Writer(open_memory, lambda: NOW, 1000, 1e9)
    writer.start()
    while not writer.ready:
        assert not writer.ended.done()
    database = opened[0].db
    assert isinstance(database, Sqlite)
    database._connection.close()
    with pytest.raises((Full, *FAILURES)):
        writer.submit(take(1)).result(30)
    writer.ended.result(30)
    assert writer.failure is not None
    with pytest.raises(Full):
        writer.submit(take(2))
