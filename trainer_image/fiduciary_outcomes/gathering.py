"""What the store holds of one session: both arms' first predictions, outcomes, drops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fiduciary_outcomes.definition import ARMS, Arm
from fiduciary_outcomes.session import Outcome, Prediction, Unit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fiduciary_outcomes.memory import Memory
    from fiduciary_outcomes.state import ArmState, LedgerState

CHUNK = 500


@dataclass(frozen=True, slots=True)
class Gathered:
    """One session as it stands."""

    label_end: str
    predictions: Mapping[Arm, Mapping[Unit, Prediction]]
    outcomes: Mapping[Unit, Outcome]
    dropped: Mapping[Arm, int]


def gather(memory: Memory, ledger: LedgerState, session: str) -> Gathered:
    """An open session of a ledger."""
    assert ledger.calendar is not None
    definition = ledger.definition
    label_end = ledger.calendar.ahead(session, definition.horizon)
    times = sorted(ledger.open[session])
    versions = definition.versions
    arms: dict[Arm, ArmState] = {
        name: memory.arm(definition.model, its.number, its.digest) for name, its in versions.items()
    }
    by_request = definition.pairing == "RequestId"
    predictions: dict[Arm, dict[Unit, Prediction]] = {
        name: _predictions(memory, arms[name], times, label_end, by_request) if name in arms else {} for name in ARMS
    }
    return Gathered(
        label_end=label_end,
        predictions=predictions,
        outcomes=dict(_outcomes(memory, definition.model, predictions, label_end, by_request)),
        dropped={name: _dropped(memory, arm, times) for name, arm in arms.items()},
    )


def _predictions(
    memory: Memory, arm: ArmState, times: Iterable[str], label_end: str, by_request: bool
) -> dict[Unit, Prediction]:
    """First prediction of each unit. Two times may have one label end: the earlier arrival counts."""
    found: dict[Unit, Prediction] = {}
    for time in times:
        rows = memory.db.execute(
            "SELECT entity, request, label_end, prediction, arrived FROM predictions "
            "WHERE arm = ? AND time = ? AND prediction IS NOT NULL",
            (arm.id, time),
        )
        for entity, request, own_end, value, arrived in rows:
            if by_request and not request:
                continue
            unit = ("", "", request) if by_request else (entity, own_end or label_end, "")
            known = found.get(unit)
            if known is None or arrived < known.arrived:
                found[unit] = Prediction(value, arrived)
    return found


def _outcomes(
    memory: Memory, model: str, predictions: Mapping[Arm, Mapping[Unit, Prediction]], label_end: str, by_request: bool
) -> Iterator[tuple[Unit, Outcome]]:
    units = predictions["champion"].keys() | predictions["challenger"].keys()
    if by_request:
        wanted, column = sorted(request for _, _, request in units), "label_end = '' AND entity = '' AND request"
    else:
        wanted, column = sorted({label_end, *(end for _, end, _ in units)}), "label_end"
    for start in range(0, len(wanted), CHUNK):
        part = wanted[start : start + CHUNK]
        rows: list[Any] = memory.db.execute(
            "SELECT entity, label_end, request, value, next_return, arrived FROM outcomes "
            f"WHERE model = ? AND {column} IN ({', '.join('?' * len(part))})",
            (model, *part),
        )
        for entity, end, request, value, next_return, arrived in rows:
            if by_request or not request:
                yield (entity, end, request), Outcome(value, next_return, arrived)


def _dropped(memory: Memory, arm: ArmState, times: Iterable[str]) -> int:
    total = 0
    for time in times:
        rows = memory.db.execute("SELECT records FROM drops WHERE arm = ? AND time = ?", (arm.id, time))
        total += rows[0][0] if rows else 0
    return total
