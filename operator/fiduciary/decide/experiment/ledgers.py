"""Names of ledgers at the scorer: DNS labels that say which versions are compared, and how."""

from __future__ import annotations

import hashlib


def prequential_name(model: str, champion_digest: str, challenger_digest: str) -> str:
    """Of the replayed ledger of a pair: there is one, whichever experiment asked for it first."""
    return f"prequential-{_pair(champion_digest, challenger_digest)}-{_short(model)}"


def _pair(champion_digest: str, challenger_digest: str) -> str:
    return "-".join(digest.removeprefix("sha256:")[:12] for digest in (champion_digest, challenger_digest))


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
