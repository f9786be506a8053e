"""A pod that does one thing and ends: a document in, a termination message and an exit code for Kubernetes out."""

from __future__ import annotations

import argparse
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fiduciary_trainer import outcome
from fiduciary_trainer.data.locations import Locations, secret_values
from fiduciary_trainer.outcome import Retryable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Work = Callable[[Path, Locations, threading.Event, float], Mapping[str, Any]]


def carry_out(arguments: Sequence[str] | None, parser: argparse.ArgumentParser, work: Work, *, cut_short: str) -> int:
    """Do it; returns the exit code of docs/trainer-contract.md.

    Args:
        parser: of :func:`parser`.
        work: given the document's file, where data are, what is set by SIGTERM, and its patience in seconds; returns
            the termination message.
        cut_short: what becomes of work that SIGTERM ended.
    """
    given = parser.parse_args(arguments)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: _end(stop, cut_short))
    locations = Locations(claims=given.claims, secret=given.secrets)
    try:
        code, written = 0, outcome.encode(work(given.job, locations, stop, given.patience))
    except Exception as error:  # everything ends in a document: nobody reads anything else
        code, written = outcome.failure(error, None, secrets=secret_values(locations))
    outcome.write(given.termination_log, written)
    return code


def parser(name: str, description: str, patience: float, awaited: str) -> argparse.ArgumentParser:
    """What every such pod is told. ``awaited``: who may be away for ``patience`` seconds."""
    made = argparse.ArgumentParser(prog=f"fiduciary_trainer {name}", description=description)
    made.add_argument("job", nargs="?", type=Path, default=Path("/etc/fiduciary/job.json"))
    made.add_argument("--termination-log", type=Path, default=Path("/dev/termination-log"))
    made.add_argument("--claims", type=Path, default=Path("/data"), help="holds one folder a claim that is read")
    made.add_argument("--secrets", type=Path, default=Path("/etc/fiduciary/secret"), help="one file a key")
    made.add_argument("--patience", type=float, default=patience, help=f"seconds that {awaited} waited for")
    return made


def _end(stop: threading.Event, cut_short: str) -> None:
    """A wait ends by the event, a computation by the exception."""
    stop.set()
    raise Retryable("Terminated", f"the pod was told to stop; {cut_short}")
