"""Prediction records: the first of each key is kept and counted in the histograms, the others are counted."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from fiduciary_outcomes.calendar import OutsideCalendar
from fiduciary_outcomes.document import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary_outcomes.batch import Batch, Record
    from fiduciary_outcomes.memory import Key, Memory
    from fiduciary_outcomes.state import ArmState

ROWS = 500
"""Rows of one INSERT."""

SAME = 1e-5
"""Relative difference below which two predictions are the same: float32 on processors with other vector units."""


def take_batch(memory: Memory, batch: Batch, now: float) -> dict[str, Any]:
    """Apply a batch once. The answer is the same however often it is sent.

    Raises:
        Refused: nothing was changed.
    """
    said = memory.db.execute("SELECT sequence, answer FROM senders WHERE sender = ?", (batch.sender,))
    if said and batch.sequence == said[0][0]:
        return json.loads(said[0][1])
    if said and batch.sequence < said[0][0]:
        return {"sequence": batch.sequence, "repeated": True}
    arm = memory.arms.get((batch.model, batch.version, batch.digest))
    if arm is not None and arm.layout not in (None, batch.layout):
        raise Refused(
            "ReferenceChanged",
            f"version {batch.version} came with features, edges or reference that differ from those of its first "
            f"batch ({_described(arm)}); expected the same, because a version is immutable",
        )
    if arm is not None and arm.joint_bins and batch.joint_edges not in (None, len(arm.joint_bins) - 1):
        raise Refused(
            "ReferenceChanged",
            f"version {batch.version} came with {batch.joint_edges} edges of the joint distance, at first with "
            f"{len(arm.joint_bins) - 1}; expected the same, because a version is immutable",
        )
    arm = memory.arm(batch.model, batch.version, batch.digest)
    if arm.layout is None:
        arm.use(batch.layout)
    if batch.joint_edges is not None and not arm.joint_bins:
        arm.joint_bins = [0] * (batch.joint_edges + 1)
    result = _take(memory, arm, batch, now)
    _drop(memory, arm, batch)
    arm.last_at = int(now)
    memory.touch(arm)
    answer = {"sequence": batch.sequence, **result}
    memory.db.execute(
        "INSERT INTO senders (sender, sequence, answer, seen_at) VALUES (?, ?, ?, ?) ON CONFLICT (sender) "
        "DO UPDATE SET sequence = excluded.sequence, answer = excluded.answer, seen_at = excluded.seen_at",
        (batch.sender, batch.sequence, json.dumps(answer), int(now)),
    )
    return answer


def _described(arm: ArmState) -> str:
    layout = arm.layout
    assert layout is not None
    return f"{len(layout.features)} features, reference {layout.reference}"


def _take(memory: Memory, arm: ArmState, batch: Batch, now: float) -> Mapping[str, int]:
    arrived = memory.arrival()
    result = dict.fromkeys(arm.results, 0)
    fresh: dict[Key, Record] = {}
    others: list[tuple[Key, Record]] = []
    recent, by_request, cleaned = memory.recent.get, arm.by_request, arm.expired_through
    for record in batch.records:
        if record.time <= cleaned:
            result["expired" if record.time else "untimed"] += 1
            continue
        key = (arm.id, record.time, record.entity, record.request if by_request else "")
        if recent(key) is not None or _beaten(fresh.get(key), record):
            others.append((key, record))
        else:
            if key in fresh:  # an incomplete one, that this one completes
                result["incomplete"] += 1
            fresh[key] = record
    stored = _insert(memory, fresh, arrived, int(now))
    for key, record in fresh.items():
        if key not in stored:
            others.append((key, record))
            continue
        memory.recent.put(key, record.prediction)
        result["incomplete" if record.prediction is None else "first"] += 1
    for key, record in others:
        result[_judged(memory, key, record)] += 1
    for what, count in result.items():
        arm.results[what] += count
    counted = [(key, fresh[key]) for key, at in stored.items() if at == arrived]
    _count(memory, arm, counted)
    _open(memory, arm, Counter(key[1] for key in stored))
    return result


def _beaten(first: Record | None, record: Record) -> bool:
    """Whether an earlier record of the same batch leaves nothing to say: the first prediction counts."""
    return first is not None and (first.prediction is not None or record.prediction is None)


def _insert(memory: Memory, fresh: Mapping[Key, Record], arrived: int, now: int) -> dict[Key, int]:
    """Keys that were not in the store, or had no prediction there; each with the arrival that histograms count."""
    stored: dict[Key, int] = {}
    items = list(fresh.items())
    for start in range(0, len(items), ROWS):
        part = items[start : start + ROWS]
        values: list[object] = []
        for key, record in part:
            values += (*key, record.label_end, record.prediction_id, record.prediction, arrived, arrived, now)
        rows = ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"] * len(part))
        found = memory.db.execute(
            "INSERT INTO predictions "
            "(arm, time, entity, request, label_end, prediction_id, prediction, counted, arrived, arrived_at) "
            f"VALUES {rows} ON CONFLICT (arm, time, entity, request) DO UPDATE SET label_end = excluded.label_end, "
            "prediction_id = excluded.prediction_id, prediction = excluded.prediction, arrived = excluded.arrived, "
            "arrived_at = excluded.arrived_at WHERE predictions.prediction IS NULL AND excluded.prediction IS NOT NULL "
            "RETURNING arm, time, entity, request, counted",
            values,
        )
        stored.update((tuple(row[:4]), row[4]) for row in found)
    return stored


def _judged(memory: Memory, key: Key, record: Record) -> str:
    """What a record of a known key is to the one that came first."""
    if record.prediction is None:
        return "incomplete"
    known = memory.recent.get(key)
    if known is None:
        known = memory.db.execute(
            "SELECT prediction FROM predictions WHERE arm = ? AND time = ? AND entity = ? AND request = ?", key
        )[0][0]
        memory.recent.put(key, known)
    return "duplicate" if abs(record.prediction - known) <= SAME * max(1.0, abs(known)) else "conflicting"


def _count(memory: Memory, arm: ArmState, first: list[tuple[Key, Record]]) -> None:
    """Histograms: each (entity, time) once, also where requests of one are told apart."""
    for key, record in first:
        if arm.by_request and _seen_as_another_request(memory, key):
            continue
        arm.rows += 1
        for position, number in enumerate(record.bins):
            if number is None:
                arm.missing[position] += 1
            else:
                arm.bins[position][number] += 1
        if record.prediction_bin is not None:
            arm.prediction_bins[record.prediction_bin] += 1
        if record.joint_bin is not None:
            arm.joint_bins[record.joint_bin] += 1


def _seen_as_another_request(memory: Memory, key: Key) -> bool:
    # Of those that came with one batch, the smallest request id is the one that counts.
    return bool(
        memory.db.execute(
            "SELECT 1 FROM predictions p WHERE p.arm = ? AND p.time = ? AND p.entity = ? AND (p.counted < ? OR "
            "p.request < ?) LIMIT 1",
            (*key[:3], memory.tick, key[3]),
        )
    )


def _open(memory: Memory, arm: ArmState, times: Mapping[str, int]) -> None:
    """Tell the version's ledgers which sessions have something to close."""
    for time, count in times.items():
        arm.newest = max(arm.newest, time)
        for ledger in arm.ledgers:
            try:
                placed = memory.place(ledger, time)
            except OutsideCalendar as error:
                ledger.after["outsideCalendar"] += count
                ledger.problem = str(error)
                memory.touch(ledger)
                continue
            if placed is False:
                ledger.after["predictions"] += count
                memory.touch(ledger)


def _drop(memory: Memory, arm: ArmState, batch: Batch) -> None:
    for said, count in batch.dropped:
        arm.dropped += count
        time = said or arm.newest
        if not time:
            continue
        memory.db.execute(
            "INSERT INTO drops (arm, time, records) VALUES (?, ?, ?) "
            "ON CONFLICT (arm, time) DO UPDATE SET records = drops.records + excluded.records",
            (arm.id, time, count),
        )
        for ledger in arm.ledgers:
            try:
                placed = memory.place(ledger, time)
            except OutsideCalendar:
                placed = False
            if placed is False:
                ledger.after["dropped"] += count
                memory.touch(ledger)
