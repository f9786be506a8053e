"""Every test of the store runs on SQLite, and on PostgreSQL where that is asked for (see postgresql.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from fiduciary_outcomes.sql import Store
from tests.outcomes import postgresql

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POSTGRESQL = pytest.param(
    "postgresql",
    marks=pytest.mark.skipif(not postgresql.wanted(), reason=f"opt-in: {postgresql.VARIABLE}=1, needs PostgreSQL"),
)


@pytest.fixture(scope="session")
def server() -> Iterator[postgresql.Server]:
    with postgresql.server() as found:
        yield found


@pytest.fixture(params=["sqlite", POSTGRESQL])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "sqlite":
        return Store(tmp_path / "outcomes.db")
    return Store(None, request.getfixturevalue("server").database())


# A busy machine makes single examples slow; a time is never a reason to fail.
settings.register_profile("outcomes", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("outcomes")
