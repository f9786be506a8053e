"""What was folded, as it was before it was written: the text of a status is read once, after a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fiduciary.decide.drift.report import stored, unchanged

if TYPE_CHECKING:
    from collections.abc import Hashable

    from fiduciary.api.driftpolicy import FoldedWindows
    from fiduciary.decide.drift.state import State
    from fiduciary.evidence.refusal import Refusal


class States:
    """Of each policy the state that its status holds as text."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[str, State]] = {}

    def of(self, key: Hashable, evidence: FoldedWindows | None) -> State | Refusal | None:
        """What the status holds; a refusal where it cannot be read, whether or not it once could."""
        if evidence is None:
            return None
        digest, state = self._kept.get(key, ("", None))
        if state is not None and digest == evidence.digest and unchanged(evidence):
            return state
        return stored(evidence)

    def keep(self, key: Hashable, evidence: FoldedWindows, state: State) -> None:
        """``evidence`` was made of ``state``."""
        self._kept[key] = (evidence.digest, state)

    def drop(self, key: Hashable) -> None:
        self._kept.pop(key, None)
