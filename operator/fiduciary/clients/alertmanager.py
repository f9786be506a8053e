"""Alertmanager's API v2 (``POST /api/v2/alerts``): the members of one cluster, each of which is told.

They share what they notified, not what they were told, so a load balancer before them loses alerts: Prometheus, too,
sends to all of them. An alert is told when any member took it.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from fiduciary.clients.delivery import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fiduciary.clients.delivery import Receiver

PATH = "/api/v2/alerts"
HEADERS = {"Content-Type": "application/json"}


class Alertmanager:
    """One Alertmanager, or the members of its cluster. ``members``: addresses that end in :data:`PATH`."""

    def __init__(self, members: Sequence[Receiver]) -> None:
        self._members = tuple(members)

    async def close(self) -> None:
        for member in self._members:
            await member.close()

    async def post(self, alerts: Sequence[Mapping[str, Any]]) -> None:
        """Tell of alerts as :func:`fiduciary.decide.drift.notices.postable` writes them.

        Raises :class:`DeliveryError` where no member took them. Repeating it is a no-op there.
        """
        body = json.dumps(list(alerts), ensure_ascii=False).encode()
        told = await asyncio.gather(*(self._tell(member, body) for member in self._members))
        failed = [error for error in told if error is not None]
        if len(failed) == len(told):
            raise failed[0]

    async def _tell(self, member: Receiver, body: bytes) -> DeliveryError | None:
        try:
            await member.post(body, HEADERS)
        except DeliveryError as error:
            return error
        return None
