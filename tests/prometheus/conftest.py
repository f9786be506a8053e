"""One Prometheus and one story of targets for all contract tests: see ``story.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.prometheus import story

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[story.Told]:
    """What happened to the targets, and the Prometheus that saw it; it is still there."""
    with story.told(tmp_path_factory.mktemp("prometheus")) as happened:
        yield happened
