"""Start the operator: ``fiduciary-operator`` or ``python -m fiduciary``."""

from __future__ import annotations

# Modules, classes and schemas live as long as the process: collecting garbage among them while they are loaded, or ever
# after, is a tenth of an operator's CPU and finds nothing.
import gc

gc.disable()

import asyncio
import sys

import structlog

from fiduciary import logs
from fiduciary.app import Operator
from fiduciary.clients import access
from fiduciary.settings import SettingsError, load


async def _run() -> None:
    settings = load()
    await Operator(settings, access.find()).run()


def main() -> int:
    """Exit status: 0 after a signal, 1 when a fresh process has to take over, 2 when the settings are unusable."""
    try:
        logs.configure(load().log_level)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    gc.enable()
    try:
        asyncio.run(_run())
    except access.AccessError as error:
        structlog.get_logger().error("no cluster", why=str(error))
        return 2
    except Exception:
        structlog.get_logger().exception("ended")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
