"""The ledger's hash chain: each row covers the one before it, the first one covers the definition."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fiduciary_outcomes.document import canonical, digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True)
class Link:
    """A row as it is kept and served.

    Attributes:
        document: canonical JSON, ``previous`` and ``digest`` included.
    """

    sequence: int
    session: str
    digest: str
    document: str


def link(content: Mapping[str, Any], sequence: int, previous: str) -> Link:
    """The next row after the one whose digest is ``previous`` (the definition's for the first)."""
    row = {**content, "sequence": sequence, "previous": previous}
    own = digest(row)
    return Link(sequence, str(content["session"]), own, canonical({**row, "digest": own}).decode())


def broken(definition_digest: str, rows: Iterable[Link], count: int, head: str) -> str | None:
    """Why the rows, in the order of their sequence, are not the chain that was written; None where they are.

    Args:
        count, head: how many rows were written, and the digest of the last one: a chain alone does not stop somebody
            who cuts its end off.
    """
    previous, session, expected = definition_digest, "", 0
    for row in rows:
        content = json.loads(row.document)
        said = content.pop("digest", None)
        if row.sequence != expected or content.get("sequence") != expected:
            return f"row {expected} is missing: row {row.sequence} follows"
        if content.get("previous") != previous:
            return f"row {expected} follows {content.get('previous')}; the row before it is {previous}"
        if digest(content) != said or said != row.digest:
            return f"row {expected} says {said}; its content hashes to {digest(content)}"
        if not session < row.session == content.get("session"):
            return f"row {expected} is of session {row.session}, after {session}"
        previous, session, expected = row.digest, row.session, expected + 1
    if (expected, previous) != (count, head):
        return f"{expected} rows end in {previous}; {count} were written, the last one {head}"
    return None
