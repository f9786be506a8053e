"""One run: a table in, outcomes at the scorer, an exit code for Kubernetes. A CronJob runs it as files come."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pandas as pd

from fiduciary_trainer import errand
from fiduciary_trainer.comparison.posting import PATIENCE, delivered
from fiduciary_trainer.outcome import CONTRACT_VERSION, DataRefused
from fiduciary_trainer.outcomes import document as documents
from fiduciary_trainer.outcomes.table import outcomes

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence
    from pathlib import Path

    from fiduciary_trainer.data.locations import Locations
    from fiduciary_trainer.outcomes.document import Document

BATCH = 5_000
COUNTED = ("accepted", "duplicate", "revised", "conflicting", "late", "refused")
"""What the scorer says of outcomes (docs/outcomes.md)."""
SHOWN = 3
"""Refusals that the message quotes."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Send what is there; returns the exit code of docs/trainer-contract.md."""
    parser = errand.parser("outcomes", "Send outcomes to the scorer.", PATIENCE, "the scorer is")
    return errand.carry_out(arguments, parser, _send, cut_short="what was sent is sent again, and counted once")


def _send(job: Path, locations: Locations, stop: threading.Event, patience: float) -> dict[str, Any]:
    return run(documents.load(job), locations, stop, patience)


def run(document: Document, locations: Locations, stop: threading.Event, patience: float) -> dict[str, Any]:
    """Read and send; returns the termination message.

    Raises:
        DataRefused: the source is not there or not readable, or the scorer refuses every outcome.
        BadContract, Retryable: see :mod:`fiduciary_trainer.outcome`.
    """
    found = outcomes(document, locations, pd.Timestamp.now("UTC").tz_localize(None))
    counts, refusals = dict.fromkeys(COUNTED, 0), list[str]()
    for start in range(0, len(found), BATCH):
        body = {
            "contractVersion": CONTRACT_VERSION,
            "model": document.model,
            "outcomes": found[start : start + BATCH],
        }
        content = json.dumps(body, ensure_ascii=False).encode()
        url = f"{document.scorer}/v1/outcomes"
        answer = delivered("POST", url, document.token, content, "outcomes", stop, patience)
        for what in COUNTED:
            counts[what] += int(answer.get(what, 0))
        refusals += [str(one.get("message", "")) for one in answer.get("refusals", ())]
    if found and counts["refused"] == len(found):
        raise DataRefused("OutcomesRefused", f"the scorer refuses all {len(found)} outcomes: {refusals[0]}")
    return {
        "contractVersion": CONTRACT_VERSION,
        "outcome": "Sent",
        "model": document.model,
        "sent": len(found),
        **counts,
        "refusals": [message[:200] for message in refusals[:SHOWN]],
    }


if __name__ == "__main__":
    sys.exit(main())
