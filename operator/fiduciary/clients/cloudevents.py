"""CloudEvents 1.0 over HTTP, protocol binding 1.0.2, in either content mode."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary.clients.delivery import Receiver

Mode = Literal["Structured", "Binary"]
STRUCTURED = {"Content-Type": "application/cloudevents+json; charset=utf-8"}
#: Printable ASCII but for space, double quote and percent, which §3.1.3.2 has encoded like all that is not ASCII.
_AS_THEY_ARE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


class EventSink:
    """Whoever takes events: Knative's broker, Argo Events, a workflow. Delivery is at least once, told apart by id."""

    def __init__(self, receiver: Receiver, mode: Mode = "Structured") -> None:
        self._receiver = receiver
        self._mode: Mode = mode

    async def close(self) -> None:
        await self._receiver.close()

    async def send(self, event: Mapping[str, Any]) -> None:
        """Deliver one event in JSON format. Raises :class:`fiduciary.clients.delivery.DeliveryError`."""
        if self._mode == "Structured":
            await self._receiver.post(_encoded(event), STRUCTURED)
            return
        attributes = {name: str(value) for name, value in event.items() if name not in ("data", "datacontenttype")}
        headers = {f"ce-{name}": quote(value, safe=_AS_THEY_ARE) for name, value in attributes.items()}
        content = str(event.get("datacontenttype", "application/json"))
        await self._receiver.post(_encoded(event.get("data")), {**headers, "Content-Type": content})


def _encoded(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
