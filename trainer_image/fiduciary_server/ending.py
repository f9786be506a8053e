"""How a container of a serving pod ends when it cannot do its work: an exit code and one JSON line for the operator."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 1000
"""Characters of a message; Kubernetes keeps 4,096 bytes."""


class Ended(Exception):
    """The version cannot be fetched or served, for a reason that can be named.

    Attributes:
        reason: CamelCase, stable, for conditions.
        message: what was seen, what was expected, what to do.
        exit_code: of the process.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message if len(message) <= LIMIT else f"{message[: LIMIT - 1]}…"
        self.exit_code = EXIT_CODES[reason]

    def report(self, termination_log: Path) -> int:
        """Write the termination message and the log; returns the exit code."""
        document = json.dumps({"reason": self.reason, "message": self.message})
        with contextlib.suppress(OSError):  # no pod, no termination log
            termination_log.write_text(document)
        sys.stderr.write(document + "\n")
        return self.exit_code


EXIT_CODES = {
    "BadContract": 64,
    "DigestMismatch": 65,
    "ArtifactNotFound": 66,
    "BadVersion": 70,
    "ArtifactStoreUnreachable": 75,
    "RegistryUnauthorized": 77,
}
"""Only ``ArtifactStoreUnreachable`` can heal by itself; the kubelet tries all of them again."""
