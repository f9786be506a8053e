"""N of a prequential test: how many configurations its evidence was chosen from (statistics.md rule 15)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fiduciary.decide.history import VERDICTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fiduciary.api.modeldecision import ModelDecisionSpec


def tried(records: Iterable[ModelDecisionSpec]) -> int:
    """Distinct configurations whose outer results somebody saw since the last discovery, in the order of the log.

    Replayed days are the very days that the gates have judged, so whoever tries ten configurations and lets the best
    one compete has looked ten times: the e-value of one is divided by all. Refused ones count, retrains of one do not.
    A discovery (a promotion on superiority) begins a new count: what comes after it is compared with another champion.
    """
    seen: set[str] = set()
    for record in records:
        summary = record.evidence.summary
        if record.action == "Promote" and summary.get("purpose") == "Improve" and "test" in summary:
            seen.clear()
        elif record.action in VERDICTS and summary.get("measured") is not None:
            seen.add(str(summary.get("configKey", "")))
    return max(1, len(seen))
