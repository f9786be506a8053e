"""States that hold one number a replication: take some of the replications."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")


def select(state: T, chosen: NDArray[np.bool_]) -> T:
    """The same state for the chosen replications: the last axis of each array in it, at any depth."""
    answer: Any = state
    if isinstance(state, np.ndarray):
        answer = state[..., chosen]
    elif isinstance(state, (list, tuple)):
        answer = type(state)(select(part, chosen) for part in state)
    elif isinstance(state, dict):
        answer = {key: select(part, chosen) for key, part in state.items()}
    elif is_dataclass(state) and not isinstance(state, type):
        answer = object.__new__(type(state))
        for field in fields(state):
            object.__setattr__(answer, field.name, select(getattr(state, field.name), chosen))
    return answer
