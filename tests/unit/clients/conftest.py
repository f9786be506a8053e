"""One real MLflow server for all contract tests of this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import mlflow_server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the server."""
    with mlflow_server.running(tmp_path_factory.mktemp("mlflow")) as address:
        yield address
