"""Every test of the store runs on SQLite, and on PostgreSQL where that is asked for (see postgresql.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fiduciary_outcomes.sql import Store
from tests.outcomes import postgresql
from tests.outcomes.worlds import Scorer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STORES = ["sqlite", "postgresql"] if postgresql.wanted() else ["sqlite"]


@pytest.fixture(scope="session")
def server() -> Iterator[postgresql.Server]:
    with postgresql.server() as found:
        yield found


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "sqlite":
        return Store(tmp_path / "outcomes.db")
    return Store(None, request.getfixturevalue("server").database())


@pytest.fixture
def scorer(store: Store) -> Iterator[Scorer]:
    found = Scorer(store)
    yield found
    found.memory.db.close()
