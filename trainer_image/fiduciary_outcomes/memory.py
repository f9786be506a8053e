"""The store's content as the writer holds it, and the one transaction that changes both."""

from __future__ import annotations

import json
from collections import deque
from contextlib import contextmanager
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, cast

from fiduciary_outcomes.calendar import Calendars, OutsideCalendar
from fiduciary_outcomes.chain import Link, broken
from fiduciary_outcomes.definition import LIVE, LIVE_OPTIONAL, SHARED, Definition, read_live, read_prequential
from fiduciary_outcomes.document import Field, Refused, check_contract
from fiduciary_outcomes.sql import SCHEMA_VERSION
from fiduciary_outcomes.state import ArmState, LedgerState, ModelState

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from fiduciary_outcomes.sql import Database

MOST_ARMS = 1000
RECENT = 200_000
"""Keys of predictions that are judged without asking the store: most records repeat one of the last seconds."""

Key = tuple[int, str, str, str]


class WrongStore(Exception):
    """The store belongs to another namespace or was written by another release."""


class Recent:
    """The newest keys with the prediction that came first for each (None: only incomplete ones); the oldest leave."""

    def __init__(self, most: int = RECENT) -> None:
        self._most = most
        self._found: dict[Key, float | None] = {}
        self._order: deque[Key] = deque()
        self.get = self._found.get

    def put(self, key: Key, value: float | None) -> None:
        if key not in self._found:
            self._order.append(key)
            if len(self._order) > self._most:
                del self._found[self._order.popleft()]
        self._found[key] = value


class Memory:
    """Everything but predictions, outcomes and rows, which stay in the store.

    What is changed in a transaction is named with :meth:`touch` and written at its end; when a transaction fails,
    memory is read again from the store, so that the two never differ.
    """

    def __init__(self, database: Database, namespace: str, calendars: Calendars) -> None:
        self.db = database
        self.namespace = namespace
        self.calendars = calendars
        self._verified: dict[str, str | None] = {}
        self.load()

    def load(self) -> None:
        """Read the store; the first time, verify every ledger's chain."""
        self.arms: dict[tuple[str, str, str], ArmState] = {}
        self.models: dict[str, ModelState] = {}
        self.ledgers: dict[str, LedgerState] = {}
        self.recent = Recent()
        self._touched: dict[int, ArmState | LedgerState | ModelState] = {}
        expected = {"schema": SCHEMA_VERSION, "namespace": self.namespace, "tick": "0"}
        self.db.many("INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO NOTHING", [*expected.items()])
        meta = dict(self.db.execute("SELECT key, value FROM meta"))
        for key in ("schema", "namespace"):
            if meta[key] != expected[key]:
                raise WrongStore(f"this store's {key} is {meta[key]!r}; this scorer's is {expected[key]!r}")
        self.tick = int(meta["tick"])
        for row in self.db.execute("SELECT id, model, version, digest, layout, state FROM arms ORDER BY id"):
            arm = ArmState.decode(*row)
            self.arms[arm.model, arm.version, arm.digest] = arm
        for name, state in self.db.execute("SELECT name, state FROM models"):
            self.models[name] = ModelState(name, json.loads(state))
        for name, definition, state in self.db.execute("SELECT name, definition, state FROM ledgers ORDER BY name"):
            self._load_ledger(name, definition, state)

    def _load_ledger(self, name: str, text: str, state: str) -> None:
        definition = read_definition(Field("", json.loads(text)), self.namespace)
        ledger = LedgerState.decode(name, definition, self._calendar(definition), state)
        self.ledgers[name] = ledger
        if name not in self._verified:
            self._verified[name] = broken(definition.digest, self.rows(name), ledger.rows, ledger.head)
        ledger.broken = self._verified[name]
        self.attach(ledger)

    def stop(self, name: str, why: str) -> None:
        """Neither serve nor continue a ledger, until the next start looks at it again."""
        self._verified[name] = self.ledgers[name].broken = why

    def _calendar(self, definition: Definition) -> Any:
        """None for a ledger that came complete: its sessions are not computed here."""
        return self.calendars.get(definition.calendar) if definition.kind != "Prequential" else None

    def rows(self, ledger: str, page: int = 1000) -> Iterator[Link]:
        """All rows of a ledger in order, a page at a time."""
        after = -1
        while True:
            found = self.db.execute(
                "SELECT sequence, session, digest, document FROM entries WHERE ledger = ? AND sequence > ? "
                "ORDER BY sequence LIMIT ?",
                (ledger, after, page),
            )
            yield from (Link(*row) for row in found)
            if len(found) < page:
                return
            after = found[-1][0]

    def attach(self, ledger: LedgerState) -> None:
        """Let a live ledger's versions know it, and find its open sessions among what is stored."""
        if not ledger.live:
            return
        for version in ledger.definition.versions.values():
            arm = self.arm(ledger.definition.model, version.number, version.digest)
            arm.ledgers = [*(other for other in arm.ledgers if other.live), ledger]
            self._find_open(ledger, arm)
            if ledger.definition.pairing == "RequestId" and not arm.by_request:
                arm.by_request = True
                self.touch(arm)

    def _find_open(self, ledger: LedgerState, arm: ArmState) -> None:
        # A decision's session may be some days before its date (weekend, holidays), and its date another than in UTC.
        since = earlier(max(ledger.definition.first_session, ledger.closed_through), days=3)
        found = self.db.execute(
            "SELECT DISTINCT time FROM predictions WHERE arm = ? AND time >= ? "
            "UNION SELECT time FROM drops WHERE arm = ? AND time >= ?",
            (arm.id, since, arm.id, since),
        )
        for (time,) in found:
            try:
                self.place(ledger, time)
            except OutsideCalendar as error:
                ledger.problem = str(error)

    def place(self, ledger: LedgerState, time: str) -> bool | None:
        """Open the session of a time: True. False where it is closed, None where it is not of this ledger.

        Raises:
            OutsideCalendar: the ledger's calendar does not cover the time.
        """
        assert ledger.calendar is not None
        session = ledger.calendar.session_of(time)
        if not ledger.takes(session):
            return None
        if session <= ledger.closed_through:
            return False
        ledger.open.setdefault(session, set()).add(time)
        return True

    def arm(self, model: str, version: str, digest: str) -> ArmState:
        """The version's state, begun when it is first heard of. Raises :class:`Refused` where there are too many."""
        found = self.arms.get((model, version, digest))
        if found is None:
            self.check_room(1)
            found = ArmState(len(self.arms) + 1, model, version, digest)
            self.arms[model, version, digest] = found
            self.touch(found)
        return found

    def check_room(self, versions: int) -> None:
        if len(self.arms) + versions > MOST_ARMS:
            raise Refused(
                "TooManyVersions",
                f"this scorer keeps {len(self.arms)} of at most {MOST_ARMS} versions; expected no further one. A new "
                "store (and a scorer for it) makes room; this one remains the evidence of what was",
                429,
            )

    def model(self, name: str) -> ModelState:
        if name not in self.models:
            self.models[name] = ModelState(name)
        return self.models[name]

    def live(self, model: str) -> list[LedgerState]:
        return [ledger for ledger in self.ledgers.values() if ledger.live and ledger.definition.model == model]

    def touch(self, *states: ArmState | LedgerState | ModelState) -> None:
        for state in states:
            self._touched[id(state)] = state

    def arrival(self) -> int:
        """The next number in the order of arrival: what is larger came later, whatever clocks say."""
        self.tick += 1
        return self.tick

    @contextmanager
    def transaction(self) -> Generator[None]:
        """All or nothing, in the store and here; the commit is on the disk when this ends."""
        self.db.execute("BEGIN")
        try:
            yield
            self._save()
            self.commit()
        except BaseException:
            self._rollback()
            raise

    def commit(self) -> None:
        """The one place where anything becomes true."""
        self.db.execute("COMMIT")

    def _rollback(self) -> None:
        try:
            self.db.execute("ROLLBACK")
        finally:
            self.load()

    def _save(self) -> None:
        put = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
        self.db.execute(put, ("tick", str(self.tick)))
        for state in self._touched.values():
            if isinstance(state, ArmState):
                self._save_arm(state)
            elif isinstance(state, LedgerState):
                self.db.execute("UPDATE ledgers SET state = ? WHERE name = ?", (state.encode(), state.name))
            else:
                self.db.execute(
                    "INSERT INTO models (name, state) VALUES (?, ?) "
                    "ON CONFLICT (name) DO UPDATE SET state = excluded.state",
                    (state.name, json.dumps(state.results)),
                )
        self._touched.clear()

    def _save_arm(self, arm: ArmState) -> None:
        layout, state = arm.encode()
        self.db.execute(
            "INSERT INTO arms (id, model, version, digest, layout, state) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET layout = excluded.layout, state = excluded.state",
            (arm.id, arm.model, arm.version, arm.digest, layout, state),
        )


def earlier(day: str, days: int) -> str:
    return (date.fromisoformat(day) - timedelta(days=days)).isoformat()


def read_definition(field: Field, namespace: str) -> Definition:
    """A stored or sent definition, without rows. Raises :class:`Refused`."""
    version = frozenset({"contractVersion"})
    # a document of the wrong shape is looked at by both, and refused
    prequential = isinstance(field.value, dict) and "provenance" in cast("dict[str, object]", field.value)
    if prequential:
        found = field.object(SHARED | version | {"provenance"})
    else:
        found = field.object(LIVE | version, LIVE_OPTIONAL)
    check_contract(found)
    return (read_prequential if prequential else read_live)(found, namespace)
