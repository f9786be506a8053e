"""Which trials are whose, where several pods search. No torch is imported here: an upload alone does not need it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """What one process carries out of a search.

    Attributes:
        index: which of the pods that search; None: all of it is this one's.
        patience: seconds that a trial of another pod is waited for at least (twice the longest trial so far where that
            is longer); then it is carried out here, since the other pod may never have been given a place. Both find
            the same.
    """

    index: int | None = None
    patience: float = 120.0

    def has(self, number: int, parallelism: int) -> bool:
        return self.index is None or number % parallelism == self.index
