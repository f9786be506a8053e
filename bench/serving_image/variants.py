"""Our server with one thing changed, to see what that thing costs: ``python -m ... NAME serve [options]``.

``unmetered`` counts nothing and keeps no record; ``threads`` answers every request in a thread of its own;
``coarse`` lets Python change threads as seldom as it does by itself. ``stock`` serves our runtime through MLServer's
own transports: ``stock FOLDER PORT``.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from fiduciary_server import absent

if TYPE_CHECKING:
    from types import TracebackType

absent.stand_in()


class _Nothing:
    """Counts nothing."""

    outcome = ""

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        return None


def unmetered() -> None:
    from fiduciary_server import metrics, records

    metrics.Metrics.request = lambda self, protocol, probe: _Nothing()  # type: ignore[method-assign,assignment,return-value]
    records.Records.add = lambda self, given: None  # type: ignore[method-assign]


def threads() -> None:
    from fiduciary_server import rest

    rest.APART_FROM = 0


def coarse() -> None:
    from fiduciary_server import __main__

    __main__.SWITCH_SECONDS = 0.005


def stock(folder: str, port: int) -> None:
    """MLServer as it is: REST by FastAPI, its metrics, our model."""
    import asyncio

    import uvloop
    from mlserver import MLServer, ModelSettings, Settings
    from mlserver.settings import ModelParameters

    from fiduciary_server.runtime import FiduciaryRuntime

    settings = Settings(
        debug=False,
        parallel_workers=0,
        host="127.0.0.1",
        http_port=port,
        grpc_port=port + 1,
        metrics_port=port + 2,
        load_models_at_startup=False,
    )
    extra: dict[str, Any] = {"serving": os.environ["FIDUCIARY_SERVING"]}
    model = ModelSettings(
        name="quant.bench",
        implementation=FiduciaryRuntime,
        parameters=ModelParameters(uri=folder, version="1", extra=extra),
    )

    async def run() -> None:
        await MLServer(settings).start([model])

    uvloop.install()
    asyncio.run(run())


if __name__ == "__main__":
    which, *rest_of = sys.argv[1:]
    if which == "stock":
        stock(rest_of[0], int(rest_of[1]))
    else:
        {"unmetered": unmetered, "threads": threads, "coarse": coarse}[which]()
        from fiduciary_server.__main__ import main

        sys.exit(main(rest_of))
