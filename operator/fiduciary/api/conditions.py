"""Conditions after the conventions of kstatus: Ready tells the truth, Reconciling says wait, Stalled says act."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from pydantic import Field

from fiduciary.api.base import ApiModel, CamelCase, Text, Time, list_map

Status = Literal["True", "False", "Unknown"]


class Condition(ApiModel):
    """One observed aspect of the object."""

    type: CamelCase
    """Name of the aspect, for example Ready, GatesPassed or Stalled."""
    status: Status
    """True, False or Unknown."""
    reason: CamelCase
    """One stable CamelCase word for programs, for example RouteNotAccepted."""
    message: Text = ""
    """For people: what was seen, what was expected, and what to do next."""
    observed_generation: int = Field(default=0, ge=0)
    """The metadata.generation that this condition was judged for."""
    last_transition_time: Time
    """When the status of this condition last changed; a new message alone does not move it."""


Conditions = tuple[Condition, ...]

CONDITIONS_SCHEMA = list_map("type")


def find(conditions: Iterable[Condition], kind: str) -> Condition | None:
    """The condition of this type, if there is one."""
    return next((condition for condition in conditions if condition.type == kind), None)


def is_true(conditions: Iterable[Condition], kind: str) -> bool:
    """Whether the condition of this type exists and is True."""
    condition = find(conditions, kind)
    return condition is not None and condition.status == "True"


def condition(
    before: Iterable[Condition],
    kind: str,
    status: Status,
    reason: str,
    message: str,
    *,
    generation: int,
    now: datetime,
) -> Condition:
    """The condition of this type as of ``now``; its transition time moves only when its status changes."""
    old = find(before, kind)
    since = old.last_transition_time if old is not None and old.status == status else now
    return Condition(
        type=kind,
        status=status,
        reason=reason,
        message=message,
        observed_generation=generation,
        last_transition_time=since,
    )
