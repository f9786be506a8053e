"""These tests run in the server's image (Dockerfile target ``server-test``), which has MLServer; elsewhere none is
collected."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fiduciary_server import absent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.server.served import Served

collect_ignore_glob = [] if find_spec("mlserver") else ["test_*.py"]
absent.stand_in()  # before any module here imports MLServer
VERSIONS = Path(os.environ.get("FIDUCIARY_TEST_VERSIONS", "/scratch/versions"))


@pytest.fixture(scope="session")
def versions() -> Path:
    """Folder of versions that ``made_by_trainer.py`` made."""
    assert (VERSIONS / "complete").exists(), f"{VERSIONS} holds no versions; run python -m tests.in_server_image"
    return VERSIONS


@pytest.fixture(scope="session")
def bars(versions: Path) -> Mapping[str, np.ndarray]:
    """Real daily bars of the S&P 500, the whole history: time (dates as text), open, high, low, close, volume."""
    with np.load(versions / "bars.npz") as stored:
        return dict(stored)


@pytest.fixture(scope="session")
def linear(versions: Path) -> Iterator[Served]:
    """A server process with the linear model; its counters run on from test to test."""
    from tests.server.served import serving

    with serving(versions / "linear") as served:
        yield served
