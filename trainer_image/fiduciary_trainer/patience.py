"""Asking again: growing delays, a limit, and an end when the pod must end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from fiduciary_trainer.outcome import Retryable

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

T = TypeVar("T")

FIRST_DELAY, LONGEST_DELAY = 1.0, 30.0


class Unreachable(Exception):
    """A service did not answer, or answered that it cannot serve now; asking again may help."""


def patiently(
    step: Callable[[], T],
    seconds: float,
    stop: threading.Event,
    whom: str,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """Repeat ``step`` until it does not raise :class:`Unreachable`.

    Args:
        seconds: patience; the last :class:`Unreachable` is raised when it is used up.
        stop: set when the pod must end; a wait ends with it.
        whom: is waited for, for the message.

    Raises:
        Unreachable: patience is used up.
        Retryable: the pod was told to stop meanwhile.
    """
    end = clock() + seconds
    delay = FIRST_DELAY
    while True:
        try:
            return step()
        except Unreachable:
            if clock() + delay > end:
                raise
        if stop.wait(delay):
            raise Retryable("Terminated", f"the pod was told to stop while {whom} was away")
        delay = min(2.0 * delay, LONGEST_DELAY)
