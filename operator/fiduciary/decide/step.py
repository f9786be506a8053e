"""What one policy asks for, before the status that goes with it is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from datetime import datetime

    from fiduciary.api.modeldecision import ModelDecisionSpec
    from fiduciary.api.modelstatus import TrainingStatus
    from fiduciary.decide.decision import Child, Event, Mirror, Registration


@dataclass(frozen=True, slots=True)
class Note:
    """Why nothing is on its way, or what is: becomes Reconciling or Stalled, and the reason of Ready."""

    reason: str
    message: str
    stalled: bool = False  # a person must act


@dataclass(frozen=True, slots=True)
class Step:
    """The one thing to do next. ``training`` is the live training afterwards; None: there is none.

    ``interlude``: it was taken without a look at the training, for which MLflow would have to be asked: what the status
    says of that stays until the next look, which comes at once.
    """

    training: TrainingStatus | None = None
    note: Note | None = None
    record: ModelDecisionSpec | None = None
    registration: Registration | None = None
    children: tuple[Child, ...] = ()
    mirror: Mirror | None = None
    finalizer: Literal["Keep", "Add", "Remove"] = "Keep"
    events: tuple[Event, ...] = ()
    wake_at: datetime | None = None
    claim: bool = False
    again: bool = False
    interlude: bool = False
