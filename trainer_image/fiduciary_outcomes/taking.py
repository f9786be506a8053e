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
    arm = memory.arm(batch.model, batch.version, batch.digest)
    if arm.layout is None:
        arm.use(batch.layout)
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
            result["expired"] += 1
            continue
        key = (arm.id, record.time, record.entity, record.request if by_request else "")
        if key in fresh or recent(key) is not None:
            others.append((key, record))
        else:
            fresh[key] = record
    first = _insert(memory, fresh, arrived, int(now))
    for key, record in fresh.items():
        if key in first:
            memory.recent.put(key, (record.prediction_id, record.prediction))
        else:
            others.append((key, record))
    result["first"] = len(first)
    for key, record in others:
        result["duplicate" if _same(memory, key, record) else "conflicting"] += 1
    for what, count in result.items():
        arm.results[what] += count
    _count(memory, arm, [(key, fresh[key]) for key in first])
    _open(memory, arm, Counter(fresh[key].time for key in first))
    return result


def _insert(memory: Memory, fresh: Mapping[Key, Record], arrived: int, now: int) -> set[Key]:
    """Keys that were not in the store."""
    inserted: list[Key] = []
    items = list(fresh.items())
    for start in range(0, len(items), ROWS):
        part = items[start : start + ROWS]
        values: list[object] = []
        for key, record in part:
            values += (*key, record.label_end, record.prediction_id, record.prediction, arrived, now)
        rows = ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?, ?)"] * len(part))
        inserted += memory.db.execute(
            "INSERT INTO predictions "
            "(arm, time, entity, request, label_end, prediction_id, prediction, arrived, arrived_at) "
            f"VALUES {rows} ON CONFLICT DO NOTHING RETURNING arm, time, entity, request",
            values,
        )
    return set(inserted)


def _same(memory: Memory, key: Key, record: Record) -> bool:
    """Whether a later record of a key says what the first one said."""
    known = memory.recent.get(key)
    if known is None:
        known = memory.db.execute(
            "SELECT prediction_id, prediction FROM predictions "
            "WHERE arm = ? AND time = ? AND entity = ? AND request = ?",
            key,
        )[0]
        memory.recent.put(key, known)
    value = known[1]
    return abs(record.prediction - value) <= SAME * max(1.0, abs(value))


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


def _seen_as_another_request(memory: Memory, key: Key) -> bool:
    # Of those that came with one batch, the smallest request id is the one that counts.
    return bool(
        memory.db.execute(
            "SELECT 1 FROM predictions p WHERE p.arm = ? AND p.time = ? AND p.entity = ? AND (p.arrived < ? OR "
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
