"""Who asked the API server to change what: mutating requests in its audit log."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MUTATING = {"create", "update", "patch", "delete", "deletecollection"}


class Audit:
    """Mutating requests of one user, Lease renewals apart; each call goes on where the last one ended."""

    def __init__(self, log: Path, user: str) -> None:
        self._log = log
        self._user = user
        self._offset = log.stat().st_size

    def since_last(self) -> Counter[str]:
        """Requests by `verb resource` since the last call. Refused ones count too: they cost as much."""
        time.sleep(1.0)  # the log is written behind the answer
        counted: Counter[str] = Counter()
        with self._log.open("rb") as log:
            log.seek(self._offset)
            for line in log:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                event = json.loads(line)
                if event["user"]["username"] != self._user or event["verb"] not in MUTATING:
                    continue
                place = event["objectRef"]
                if place["resource"] == "leases":
                    continue
                what = place["resource"] + (f"/{place['subresource']}" if "subresource" in place else "")
                counted[f"{event['verb']} {what}"] += 1
        return counted
