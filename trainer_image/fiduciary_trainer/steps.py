"""How far a training is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fiduciary_trainer.walkforward import Progress


class Steps:
    """Counts steps and tells a :class:`Progress`.

    A fit is one step for models that are solved in one go, and epochs times members for networks. Early stopping jumps
    over the steps that are not needed; the estimate of what is left counts only steps that were taken.
    """

    def __init__(self, progress: Progress, total: int, before: int = 0) -> None:
        """``total`` steps of the whole training, of which ``before`` were done by an earlier part."""
        self._progress = progress
        self._total = total
        self._position = before
        self._taken = 0
        self._began = time.monotonic()

    def done(self, steps: int, metric: tuple[str, float] | None = None) -> None:
        """``steps`` more were taken."""
        self._position += steps
        self._taken += steps
        self._tell(metric)

    def skip(self, steps: int) -> None:
        """``steps`` are not needed, or an earlier attempt took them."""
        self._position += steps
        self._tell(None)

    def reach(self, position: int) -> None:
        """Where a part of the training ends: what is missing was not needed after all."""
        if position > self._position:
            self.skip(position - self._position)

    @property
    def position(self) -> int:
        """Steps that are done or not needed."""
        return self._position

    def _tell(self, metric: tuple[str, float] | None) -> None:
        seconds = (time.monotonic() - self._began) / self._taken if self._taken else None
        self._progress(
            epoch=self._position,
            epochs=self._total,
            percent=100.0 * self._position / self._total,
            eta_seconds=None if seconds is None else seconds * (self._total - self._position),
            metric=metric,
        )
