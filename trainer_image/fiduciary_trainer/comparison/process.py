"""One comparison: a document in, a ledger at the scorer, an exit code for Kubernetes."""

from __future__ import annotations

import argparse
import hashlib
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fiduciary_trainer import outcome, provenance
from fiduciary_trainer.comparison import document as documents
from fiduciary_trainer.comparison import pairing, posting, versions
from fiduciary_trainer.comparison.replay import check, replay
from fiduciary_trainer.comparison.sessions import ALWAYS_OPEN, session_of
from fiduciary_trainer.data.locations import Locations, secret_values
from fiduciary_trainer.outcome import CONTRACT_VERSION, Retryable, encode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fiduciary_trainer.comparison.document import Document
    from fiduciary_trainer.comparison.pairing import Compared
    from fiduciary_trainer.comparison.replay import Replayed
    from fiduciary_trainer.comparison.versions import Frozen


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one comparison; returns the exit code of docs/trainer-contract.md."""
    given = _parse(arguments)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: _end(stop))
    locations = Locations(claims=given.claims, secret=given.secrets)
    try:
        code, document = 0, encode(run(documents.load(given.job), locations, stop, given.patience))
    except Exception as error:  # everything ends in a document: the operator reads nothing else
        code, document = outcome.failure(error, None, secrets=secret_values(locations))
    outcome.write(given.termination_log, document)
    return code


def run(document: Document, locations: Locations, stop: threading.Event, patience: float) -> dict[str, Any]:
    """Fetch, replay, pair and post; returns the termination message.

    Raises:
        DataRefused, BadContract, Retryable, Diverged, OutOfMemory: see :mod:`fiduciary_trainer.outcome`.
    """
    began = time.monotonic()
    champion = versions.fetch(document.mlflow, "champion", document.champion, stop, patience)
    challenger = versions.fetch(document.mlflow, "challenger", document.challenger, stop, patience)
    check(champion, challenger)
    replayed = replay(champion, challenger, locations)
    calendar = challenger.procedure["data"].get("calendar") or ALWAYS_OPEN
    of = session_of(calendar, (time for ledger in replayed.ledgers for time, _ in ledger))
    label = challenger.procedure["data"]["label"]
    compared = pairing.compare(*replayed.ledgers, label["kind"], of)
    ledger = posted(document, champion, challenger, replayed, compared, calendar)
    posting.post(document.scorer, document.ledger, document.token, ledger, stop, patience)
    return {
        "contractVersion": CONTRACT_VERSION,
        "outcome": "Compared",
        "ledger": document.ledger,
        "digest": ledger["digest"],
        "sessions": len(compared.rows),
        "entities": compared.entities,
        "first": compared.first,
        "last": compared.last,
        "refitted": replayed.refitted,
        "seconds": round(time.monotonic() - began, 1),
    }


def posted(
    document: Document,
    champion: Frozen,
    challenger: Frozen,
    replayed: Replayed,
    compared: Compared,
    calendar: str,
) -> dict[str, Any]:
    """The ledger as the scorer takes it. Equal versions, data and code make equal bytes, whoever asks and whenever."""
    label = challenger.procedure["data"]["label"]
    whole = {
        "contractVersion": CONTRACT_VERSION,
        "kind": "Prequential",
        "model": document.model,
        "champion": {"version": document.champion.number, "digest": document.champion.digest},
        "challenger": {"version": document.challenger.number, "digest": document.challenger.digest},
        "label": {"kind": label["kind"], "horizon": label.get("horizon", 1)},
        "calendar": calendar,
        "provenance": {
            "champion": _provenance(champion, replayed.data_digests[0]),
            "challenger": _provenance(challenger, replayed.data_digests[1]),
            "refitted": replayed.refitted,
            "asOf": replayed.as_of,
            "stretches": [list(stretch) for stretch in replayed.stretches],
            "code": provenance.code_sha256(),
        },
        "rows": compared.rows,
    }
    return {**whole, "digest": digest(whole)}


def digest(document: Mapping[str, Any]) -> str:
    """``sha256:`` over the canonical JSON."""
    return f"sha256:{hashlib.sha256(encode(document)).hexdigest()}"


def _provenance(frozen: Frozen, data_digest: str) -> dict[str, str]:
    return {
        "configKey": frozen.text("configKey"),
        "trainingKey": frozen.text("trainingKey"),
        "runId": frozen.version.run_id,
        "dataDigest": data_digest,
    }


def _end(stop: threading.Event) -> None:
    """Nothing is kept of a replay that did not end; a wait ends by the event, a computation by the exception."""
    stop.set()
    raise Retryable("Terminated", "the pod was told to stop; the next attempt begins again")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fiduciary_trainer compare", description="Compare two versions on past days.")
    parser.add_argument("job", nargs="?", type=Path, default=Path("/etc/fiduciary/job.json"))
    parser.add_argument("--termination-log", type=Path, default=Path("/dev/termination-log"))
    parser.add_argument("--claims", type=Path, default=Path("/data"), help="holds one folder a claim that is read")
    parser.add_argument("--secrets", type=Path, default=Path("/etc/fiduciary/secret"), help="one file a key")
    parser.add_argument(
        "--patience", type=float, default=posting.PATIENCE, help="seconds that MLflow and the scorer are waited for"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
