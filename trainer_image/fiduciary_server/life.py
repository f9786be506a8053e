"""Whether this server is loading, ready or draining, as probes and transports see it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from mlserver.version import __version__ as mlserver_version

if TYPE_CHECKING:
    from fiduciary_server.runtime import FiduciaryRuntime

QUIET_SECONDS = 2.0
"""Without a request for so long, a draining server takes it that nobody sends any more."""

_TICK = 0.05


class Life:
    """State of the server.

    Attributes:
        draining: SIGTERM came: no longer ready, still answering.
    """

    def __init__(self, runtime: FiduciaryRuntime) -> None:
        self._runtime = runtime
        self.draining = False

    @property
    def loaded(self) -> bool:
        """The version has answered its warm-up."""
        return self._runtime.ready

    @property
    def ready(self) -> bool:
        return self.loaded and not self.draining

    @property
    def why_not(self) -> str:
        name, version = self._runtime.serving.name, self._runtime.serving.version
        return f"version {version} of {name} is {'draining' if self.draining else 'being loaded'}"

    @property
    def server_metadata(self) -> dict[str, Any]:
        return {"name": "fiduciary", "version": f"mlserver-{mlserver_version}", "extensions": []}

    async def drain(self, seconds: float) -> None:
        """Stop being ready, and wait until no request is under way and none has come for a while, or time is up."""
        self.draining = True
        if not self.loaded:
            return
        metrics, began = self._runtime.metrics, time.monotonic()
        quiet = min(QUIET_SECONDS, seconds)
        while time.monotonic() < began + seconds:
            idle_since = max(began, metrics.last_ended)
            if metrics.in_flight == 0 and time.monotonic() - idle_since >= quiet:
                return
            await asyncio.sleep(_TICK)
