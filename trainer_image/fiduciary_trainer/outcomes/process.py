"""One run: a table in, outcomes at the scorer, an exit code for Kubernetes. A CronJob runs it as files come."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from fiduciary_trainer import outcome
from fiduciary_trainer.comparison.posting import PATIENCE, delivered
from fiduciary_trainer.data.locations import Locations, secret_values
from fiduciary_trainer.outcome import CONTRACT_VERSION, DataRefused, Retryable, encode
from fiduciary_trainer.outcomes import document as documents
from fiduciary_trainer.outcomes.table import outcomes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fiduciary_trainer.outcomes.document import Document

BATCH = 5_000
COUNTED = ("accepted", "duplicate", "revised", "conflicting", "late", "refused")
"""What the scorer says of outcomes (docs/outcomes.md)."""
SHOWN = 3
"""Refusals that the message quotes."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Send what is there; returns the exit code of docs/trainer-contract.md."""
    given = _parse(arguments)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: _end(stop))
    locations = Locations(claims=given.claims, secret=given.secrets)
    try:
        code, written = 0, encode(run(documents.load(given.job), locations, stop, given.patience))
    except Exception as error:  # everything ends in a document
        code, written = outcome.failure(error, None, secrets=secret_values(locations))
    outcome.write(given.termination_log, written)
    return code


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


def _end(stop: threading.Event) -> None:
    stop.set()
    raise Retryable("Terminated", "the pod was told to stop; what was sent is sent again, and counted once")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fiduciary_trainer outcomes", description="Send outcomes to the scorer.")
    parser.add_argument("job", nargs="?", type=Path, default=Path("/etc/fiduciary/job.json"))
    parser.add_argument("--termination-log", type=Path, default=Path("/dev/termination-log"))
    parser.add_argument("--claims", type=Path, default=Path("/data"), help="holds one folder a claim that is read")
    parser.add_argument("--secrets", type=Path, default=Path("/etc/fiduciary/secret"), help="one file a key")
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds that the scorer is waited for")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
