"""Logs as JSON lines on standard error. Bodies, tokens and passwords are never among the values."""

from __future__ import annotations

import json
import sys
import traceback
from datetime import UTC, datetime


def log(level: str, event: str, error: BaseException | None = None, **values: object) -> None:
    """One line. ``error`` is told by type and message, with its traceback where it was not foreseen."""
    line: dict[str, object] = {"timestamp": datetime.now(UTC).isoformat(), "level": level, "event": event}
    if error is not None:
        line["error"] = f"{type(error).__name__}: {error}"
        if level == "error":
            line["traceback"] = "".join(traceback.format_tb(error.__traceback__))
    print(json.dumps({**line, **values}, default=str), file=sys.stderr, flush=True)
