"""One SQL for two databases: SQLite on a volume, or PostgreSQL by URL. What differs between them is here."""

from __future__ import annotations

import fcntl
import sqlite3
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import psycopg
from psycopg import conninfo

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SCHEMA_VERSION = "1"

# {rowless}: SQLite then keeps the rows in the primary key's own tree instead of in two.
TABLES = (
    "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """CREATE TABLE IF NOT EXISTS arms (id BIGINT PRIMARY KEY, model TEXT NOT NULL, version TEXT NOT NULL,
       digest TEXT NOT NULL, layout TEXT, state TEXT NOT NULL, UNIQUE (model, version, digest))""",
    "CREATE TABLE IF NOT EXISTS models (name TEXT PRIMARY KEY, state TEXT NOT NULL)",
    """CREATE TABLE IF NOT EXISTS senders (sender TEXT PRIMARY KEY, sequence BIGINT NOT NULL, answer TEXT NOT NULL,
       seen_at BIGINT NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS predictions (arm BIGINT NOT NULL, time TEXT NOT NULL, entity TEXT NOT NULL,
       request TEXT NOT NULL, label_end TEXT NOT NULL, prediction_id TEXT NOT NULL,
       prediction DOUBLE PRECISION, counted BIGINT NOT NULL, arrived BIGINT NOT NULL, arrived_at BIGINT NOT NULL,
       PRIMARY KEY (arm, time, entity, request)) {rowless}""",
    "CREATE INDEX IF NOT EXISTS predictions_request ON predictions (request) WHERE request <> ''",
    """CREATE TABLE IF NOT EXISTS outcomes (model TEXT NOT NULL, label_end TEXT NOT NULL, entity TEXT NOT NULL,
       request TEXT NOT NULL, value DOUBLE PRECISION NOT NULL, next_return DOUBLE PRECISION, writer TEXT NOT NULL,
       arrived BIGINT NOT NULL, arrived_at BIGINT NOT NULL,
       PRIMARY KEY (model, label_end, entity, request)) {rowless}""",
    """CREATE TABLE IF NOT EXISTS revisions (model TEXT NOT NULL, label_end TEXT NOT NULL, entity TEXT NOT NULL,
       request TEXT NOT NULL, arrived BIGINT NOT NULL, value DOUBLE PRECISION NOT NULL, next_return DOUBLE PRECISION,
       writer TEXT NOT NULL, arrived_at BIGINT NOT NULL,
       PRIMARY KEY (model, label_end, entity, request, arrived)) {rowless}""",
    """CREATE TABLE IF NOT EXISTS drops (arm BIGINT NOT NULL, time TEXT NOT NULL, records BIGINT NOT NULL,
       PRIMARY KEY (arm, time))""",
    """CREATE TABLE IF NOT EXISTS ledgers (name TEXT PRIMARY KEY, definition TEXT NOT NULL, digest TEXT NOT NULL,
       state TEXT NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS entries (ledger TEXT NOT NULL, sequence BIGINT NOT NULL, session TEXT NOT NULL,
       digest TEXT NOT NULL, document TEXT NOT NULL, PRIMARY KEY (ledger, sequence), UNIQUE (ledger, session))""",
)
IMMUTABLE = (
    ("entries_fixed", "entries", "UPDATE"),
    ("entries_kept", "entries", "DELETE"),
    ("ledgers_fixed", "ledgers", "UPDATE OF name, definition, digest"),
    ("ledgers_kept", "ledgers", "DELETE"),
)
"""What even a slip of our own may not do: (trigger, table, event)."""


class Busy(Exception):
    """Another scorer writes to this store."""


class Database(Protocol):
    """A connection. Statements use ``?`` for parameters; a transaction is begun and ended by name."""

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> list[Any]: ...

    def many(self, sql: str, rows: Sequence[Sequence[object]]) -> None: ...

    def close(self) -> None: ...


class Sqlite:
    """SQLite in WAL mode: a commit is on the disk before it is answered, and readers do not wait for the writer."""

    def __init__(self, path: Path, *, writes: bool) -> None:
        self._lock = self._locked(path) if writes else None
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
        self.execute("PRAGMA query_only = ON" if not writes else "PRAGMA journal_mode = WAL")
        self.execute("PRAGMA synchronous = FULL")

    @staticmethod
    def _locked(path: Path) -> Any:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(path.name + ".lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise Busy(f"another scorer holds {path}.lock") from None
        return lock

    def create(self) -> None:
        for table in TABLES:
            self.execute(table.format(rowless="WITHOUT ROWID"))
        for name, table, event in IMMUTABLE:
            self.execute(
                f"CREATE TRIGGER IF NOT EXISTS {name} BEFORE {event} ON {table} "
                "BEGIN SELECT RAISE(ABORT, 'the ledger is immutable'); END"
            )

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> list[Any]:
        return self._connection.execute(sql, parameters).fetchall()

    def many(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        self._connection.executemany(sql, rows)

    def close(self) -> None:
        self._connection.close()
        if self._lock is not None:
            self._lock.close()


class Postgresql:
    """PostgreSQL; the writer holds an advisory lock for as long as its connection lives."""

    def __init__(self, url: str, password: str | None, *, writes: bool) -> None:
        where = conninfo.make_conninfo(url, **({} if password is None else {"password": password}))
        self._connection = psycopg.connect(where, autocommit=True, connect_timeout=10)
        if writes:
            held = self.execute("SELECT pg_try_advisory_lock(hashtextextended('fiduciary outcomes', 0))")
            if not held[0][0]:
                self._connection.close()
                raise Busy("another scorer holds the advisory lock of this database")
        else:
            self.execute("SET default_transaction_read_only = on")

    def create(self) -> None:
        for table in TABLES:
            self.execute(table.format(rowless=""))
        self.execute(
            "CREATE OR REPLACE FUNCTION fiduciary_immutable() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'the ledger is immutable'; END $$"
        )
        for name, table, event in IMMUTABLE:
            self.execute(
                f"CREATE OR REPLACE TRIGGER {name} BEFORE {event} ON {table} "
                "FOR EACH ROW EXECUTE FUNCTION fiduciary_immutable()"
            )

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> list[Any]:
        cursor = self._connection.execute(_numbered(sql), parameters or None)
        return [] if cursor.description is None else cursor.fetchall()

    def many(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        with self._connection.cursor() as cursor:
            cursor.executemany(_numbered(sql), rows)

    def close(self) -> None:
        self._connection.close()


@lru_cache(maxsize=512)
def _numbered(sql: str) -> Any:
    return sql.replace("?", "%s")


FAILURES = (sqlite3.Error, psycopg.Error, OSError)
"""What a store that cannot be reached or written raises."""


class Store:
    """Where the data are: opens connections."""

    def __init__(self, sqlite: Path | None, url: str = "", password_file: Path | None = None) -> None:
        self._sqlite, self._url, self._password_file = sqlite, url, password_file

    def writer(self) -> Database:
        """The one connection that writes, with the schema in place.

        Raises:
            Busy: another process has it.
        """
        database = self._open(writes=True)
        database.create()
        return database

    def reader(self) -> Database:
        return self._open(writes=False)

    def _open(self, *, writes: bool) -> Sqlite | Postgresql:
        if self._sqlite is not None:
            return Sqlite(self._sqlite, writes=writes)
        # read each time: the password may have been rotated
        password = None if self._password_file is None else self._password_file.read_text().strip()
        return Postgresql(self._url, password, writes=writes)
