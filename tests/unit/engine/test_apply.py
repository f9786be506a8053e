"""What is written is what the API server takes."""

from __future__ import annotations

import asyncio

from fiduciary.decide.decision import Event
from fiduciary.engine import kinds
from fiduciary.engine.apply import Applier
from fiduciary.engine.writes import Target
from tests.unit.engine.memory import MemoryCluster
from tests.unit.engine.rig import Clock

NOTE_BYTES = 1024
"""NoteLengthLimit of Kubernetes' pkg/apis/core/validation/events.go, compared with the length in bytes."""


def test_a_long_event_is_cut_where_the_api_server_counts() -> None:
    clock = Clock()
    cluster = MemoryCluster(clock.now)
    target = Target(kinds.FINANCIALMODEL, "quant", "m", "uid", "1")
    told = "a" + "skill ≥ φ̂ · " * 400
    asyncio.run(Applier(cluster, {}).events(target, (Event("Warning", "GateFailed", told),), clock.now()))
    (note,) = [body["note"] for key, body in cluster.objects.items() if key[0] == "Event"]
    assert NOTE_BYTES - 4 < len(note.encode()) <= NOTE_BYTES
    assert told.startswith(note.removesuffix("…"))
