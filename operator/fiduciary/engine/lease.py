"""Leader election over a ``coordination.k8s.io`` Lease: one replica works, the others wait.

The rules are client-go's. A Lease counts as held until ``duration`` after *we* saw it change, by our own clock, so
that clocks of two machines need not agree. A holder that could not renew for ``renew_deadline`` has lost it, which is
earlier than anyone else may take it. Loss ends the process at once: whatever it was doing, the log's compare-and-swap
is the fence, and a fresh process observes again.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fiduciary.clients.kube import Cluster, Conflict, KubeError, NotFound
from fiduciary.engine.kinds import LEASE

if TYPE_CHECKING:
    from collections.abc import Callable

    from fiduciary.clients.kube import Body
    from fiduciary.settings import LeaseSettings


class LeaseLost(Exception):
    """Somebody else may work now; this process must not write another byte."""


class Lease:
    """One replica's view of the Lease. ``clock`` is monotonic seconds."""

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        identity: str,
        settings: LeaseSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.held = False
        self._cluster = cluster
        self._namespace = namespace
        self._identity = identity
        self._settings = settings
        self._clock = clock
        self._seen: tuple[str, str] | None = None  # holder and renew time as last observed
        self._seen_at = 0.0
        self._renewed_at = 0.0

    async def acquire(self) -> None:
        """Wait until the Lease is ours."""
        while not await self._try():
            await asyncio.sleep(self._settings.retry)
        self.held = True

    async def keep(self) -> None:
        """Renew for ever; raises :class:`LeaseLost`."""
        while True:
            await asyncio.sleep(self._settings.retry)
            remaining = self._renewed_at + self._settings.renew_deadline - self._clock()
            renewed = False
            if remaining > 0:
                try:
                    async with asyncio.timeout(remaining):
                        renewed = await self._try()
                except TimeoutError:
                    pass
            if not renewed and self._holder_changed():
                self.held = False
                raise LeaseLost(f"the Lease is held by {self._seen[0] if self._seen else 'nobody'} now")
            if self._clock() - self._renewed_at >= self._settings.renew_deadline:
                self.held = False
                raise LeaseLost(f"the Lease could not be renewed for {self._settings.renew_deadline:g} s")

    async def release(self) -> None:
        """Give the Lease up, so that a standby takes over within its retry instead of the whole duration."""
        if not self.held:
            return
        self.held = False
        try:
            lease = await self._cluster.get(LEASE, self._namespace, self._settings.name)
            if lease["spec"].get("holderIdentity") == self._identity:
                await self._cluster.apply(LEASE, self._body(lease, holder="", duration=1))
        except KubeError:
            return  # it runs out by itself

    def _holder_changed(self) -> bool:
        return self._seen is not None and self._seen[0] not in ("", self._identity)

    async def _try(self) -> bool:
        """Take or renew; False where it is somebody else's or the API server did not do it."""
        started = self._clock()
        try:
            lease = await self._cluster.get(LEASE, self._namespace, self._settings.name)
        except NotFound:
            lease = None
        except KubeError:
            return False
        if lease is not None and not self._free(lease):
            return False
        try:
            if lease is None:
                await self._cluster.create(LEASE, self._body(None, self._identity, self._settings.duration))
            else:
                await self._cluster.apply(LEASE, self._body(lease, self._identity, self._settings.duration))
        except (Conflict, KubeError):
            return False
        self._seen = (self._identity, "")
        self._renewed_at = started  # what others see began no earlier than our request
        return True

    def _free(self, lease: Body) -> bool:
        spec = lease["spec"]
        holder = spec.get("holderIdentity") or ""
        seen = (holder, str(spec.get("renewTime")))
        if holder in ("", self._identity):
            self._seen = seen
            return True
        now = self._clock()
        if seen != self._seen:
            self._seen, self._seen_at = seen, now
        return now - self._seen_at >= float(spec.get("leaseDurationSeconds") or self._settings.duration)

    def _body(self, before: Body | None, holder: str, duration: float) -> Body:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec: Body = {} if before is None else before["spec"]
        same = spec.get("holderIdentity") == holder
        metadata: Body = {"name": self._settings.name, "namespace": self._namespace}
        if before is not None:
            metadata |= {key: before["metadata"][key] for key in ("uid", "resourceVersion")}
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": metadata,
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": max(1, round(duration)),
                "acquireTime": spec.get("acquireTime", now) if same else now,
                "renewTime": now,
                "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (0 if same or before is None else 1),
            },
        }
