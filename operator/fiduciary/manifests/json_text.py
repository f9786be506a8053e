"""JSON as it goes into annotations: sorted and compact, so that equal content is an equal text."""

from __future__ import annotations

import json
from typing import Any


def compact(value: Any) -> str:
    """Sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
