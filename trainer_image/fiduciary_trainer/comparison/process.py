"""One comparison: a document in, a ledger at the scorer, an exit code for Kubernetes."""

from __future__ import annotations

import hashlib
import sys
import time
from typing import TYPE_CHECKING, Any

from fiduciary_trainer import errand, provenance
from fiduciary_trainer.comparison import document as documents
from fiduciary_trainer.comparison import pairing, posting, versions
from fiduciary_trainer.comparison.replay import check, replay
from fiduciary_trainer.comparison.sessions import ALWAYS_OPEN, session_of
from fiduciary_trainer.outcome import CONTRACT_VERSION, encode

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from fiduciary_trainer.comparison.document import Document
    from fiduciary_trainer.comparison.pairing import Compared
    from fiduciary_trainer.comparison.replay import Replayed
    from fiduciary_trainer.comparison.versions import Frozen
    from fiduciary_trainer.data.locations import Locations


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one comparison; returns the exit code of docs/trainer-contract.md."""
    description = "Compare two versions on past days."
    parser = errand.parser("compare", description, posting.PATIENCE, "MLflow and the scorer are")
    return errand.carry_out(arguments, parser, _compare, cut_short="the next attempt begins again")


def _compare(job: Path, locations: Locations, stop: threading.Event, patience: float) -> dict[str, Any]:
    return run(documents.load(job), locations, stop, patience)


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


if __name__ == "__main__":
    sys.exit(main())
