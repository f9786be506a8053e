"""The decision log of a model, folded once for all who look at it.

A log only grows, and an experiment looks at it at each scrape: it is folded again where a record came. Folding one of a
thousand records takes a quarter of a second, in which nobody else has a turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fiduciary.decide import history
from fiduciary.decide.experiment.spent import spent, tried

if TYPE_CHECKING:
    from fiduciary.api.modeldecision import ModelDecision
    from fiduciary.decide.experiment.spent import Spent
    from fiduciary.decide.history import History
    from fiduciary.engine.mirror import Name, Store

#: Records of all logs that are kept together: 5 to 13 KiB each.
KEPT = 4_096

#: A log of fewer is folded in a few milliseconds: it is kept for those alone who look again and again.
SHORT = 32


@dataclass(frozen=True, slots=True)
class Log:
    """Attributes:
    spent: what experiments have used up.
    tried: N, the distinct configurations whose outer results were seen since the last discovery.
    """

    records: tuple[ModelDecision, ...]
    history: History
    spent: Spent
    tried: int


class Logs:
    """Folded logs by model: those that were looked at last, of :data:`KEPT` records together."""

    def __init__(self, store: Store[ModelDecision]) -> None:
        self._store = store
        self._kept: dict[Name, tuple[tuple[tuple[Name, int], ...], Log]] = {}
        self._records = 0  # of all that are kept

    def of(self, model: Name, *, often: bool = True) -> Log:
        """``often`` off: who asks does so now and then."""
        versions = self._store.versions(model)
        kept = self._kept.pop(model, None)
        if kept is not None:
            self._records -= len(kept[0])
        if kept is None or kept[0] != versions:
            often = often or kept is not None
            records = tuple(sorted(self._store.of(model), key=lambda record: record.spec.sequence))
            kept = versions, Log(records, history.fold(records), spent(records), tried(records))
            if not often and len(records) < SHORT:
                return kept[1]
        self._kept[model] = kept  # last in the order: what nobody asks for any more is the first
        self._records += len(versions)
        while self._records > KEPT and len(self._kept) > 1:
            self._records -= len(self._kept.pop(next(iter(self._kept)))[0])
        return kept[1]
