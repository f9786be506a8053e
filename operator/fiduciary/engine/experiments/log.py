"""The decision log of a model, folded once for all looks at its experiments.

A log only grows, and an experiment looks at it at each scrape: it is folded again where a record came.
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

#: Models whose folded log is kept.
KEPT = 1_024


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
    """Folded logs by model."""

    def __init__(self, store: Store[ModelDecision]) -> None:
        self._store = store
        self._kept: dict[Name, tuple[tuple[tuple[Name, int], ...], Log]] = {}

    def of(self, model: Name) -> Log:
        versions = self._store.versions(model)
        kept = self._kept.pop(model, None)
        if kept is None or kept[0] != versions:
            records = tuple(sorted(self._store.of(model), key=lambda record: record.spec.sequence))
            kept = versions, Log(records, history.fold(records), spent(records), tried(records))
        self._kept[model] = kept  # last in the order: what nobody asks for any more is the first
        if len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]
        return kept[1]
