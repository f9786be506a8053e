"""``python -m fiduciary_server fetch|serve|share``: the containers of a serving pod; the model server of Seldon's."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fiduciary_server import contract
from fiduciary_server.ending import Ended
from fiduciary_server.fetching import fetch
from fiduciary_server.fetching.fetch import verify

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fiduciary_server.contract import Serving

SWITCH_SECONDS = 0.0005
"""Python's own is 0.005, many times a whole request."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the two; returns the exit code of ``docs/serving-runtime.md``."""
    given = _parse(arguments)
    try:
        if given.what == "share":
            _share(given)
            return 0
        serving = _serving()
        if given.what == "fetch":
            fetch(serving, given.folder, given.claims, given.secrets)
        else:
            verify(given.folder, serving.digest)
            _serve(serving, given)
    except Ended as ended:
        return ended.report(given.termination_log)
    return 0


def _serving() -> Serving:
    try:
        return contract.parse(os.environ.get(contract.VARIABLE, ""))
    except contract.BadContract as error:
        raise Ended("BadContract", str(error)) from None


def _serve(serving: Serving, given: argparse.Namespace) -> None:
    # Only here: the init container starts in a tenth of the time without MLServer.
    from fiduciary_server import absent

    absent.stand_in()
    import asyncio

    import uvloop
    from mlserver import ModelSettings, Settings
    from mlserver.settings import ModelParameters

    from fiduciary_server.runtime import FiduciaryRuntime
    from fiduciary_server.server import Server

    settings = Settings(
        debug=False,
        parallel_workers=0,
        host=given.host,
        http_port=given.rest_port,
        grpc_port=given.grpc_port,
        metrics_port=given.metrics_port,
        metrics_endpoint=None,  # MLServer's own; ours replaces it
        gzip_enabled=False,
        use_structured_logging=True,
        load_models_at_startup=False,
    )
    model = ModelSettings(
        name=serving.name,
        implementation=FiduciaryRuntime,
        parameters=ModelParameters(
            uri=str(given.folder), version=serving.version, extra={"serving": os.environ[contract.VARIABLE]}
        ),
    )

    async def run() -> None:
        await Server(settings, model).serve()

    # A thread that works on a large request or packs records gives way to the event loop ten times as often as usual.
    sys.setswitchinterval(SWITCH_SECONDS)
    uvloop.install()
    asyncio.run(run())


def _share(given: argparse.Namespace) -> None:
    """The model server of a Seldon Core v2 Server: versions come and go by its agent."""
    from fiduciary_server import absent

    absent.stand_in()
    import asyncio

    import uvloop
    from mlserver import Settings

    from fiduciary_server.shared import SharedServer

    settings = Settings(
        debug=False,
        parallel_workers=0,
        host=given.host,
        http_port=int(os.environ.get("MLSERVER_HTTP_PORT", given.rest_port)),
        grpc_port=int(os.environ.get("MLSERVER_GRPC_PORT", given.grpc_port)),
        metrics_port=given.metrics_port,
        metrics_endpoint=None,
        gzip_enabled=False,
        use_structured_logging=True,
        load_models_at_startup=False,
        model_repository_root=os.environ.get("MLSERVER_MODELS_DIR", "/mnt/agent/models"),
    )

    async def run() -> None:
        await SharedServer(settings).serve()

    sys.setswitchinterval(SWITCH_SECONDS)
    uvloop.install()
    asyncio.run(run())


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fiduciary_server", description="Fetch or serve versions of models.")
    parser.add_argument("what", choices=("fetch", "serve", "share"))
    parser.add_argument("--folder", type=Path, default=Path("/version"), help="where the version is, or is brought to")
    parser.add_argument("--claims", type=Path, default=Path("/data"), help="fetch: holds one folder a mounted claim")
    parser.add_argument("--secrets", type=Path, default=Path("/etc/fiduciary/secret"), help="fetch: one file a key")
    parser.add_argument("--termination-log", type=Path, default=Path("/dev/termination-log"))
    parser.add_argument("--host", default="0.0.0.0", help="serve: address to listen on")
    parser.add_argument("--rest-port", type=int, default=8080)
    parser.add_argument("--grpc-port", type=int, default=8081)
    parser.add_argument("--metrics-port", type=int, default=8082)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
