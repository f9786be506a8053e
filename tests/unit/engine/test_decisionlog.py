"""A model's log only grows: looking at a long one costs what is new of it, and what is kept of all has an end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from fiduciary.decide import financialmodel, history
from fiduciary.engine import decisionlog, kinds
from fiduciary.engine.observe import Observer
from fiduciary.engine.stores import Key, Stores
from tests.unit.decide.logs import Log, version
from tests.unit.decide.worlds import NAME, NAMESPACE, T0, UID, model
from tests.unit.engine.memory import MemoryCluster
from tests.unit.engine.rig import PLATFORM

if TYPE_CHECKING:
    from fiduciary.api.modeldecision import ModelDecision

LONG = 200


@pytest.fixture(scope="module")
def records() -> tuple[ModelDecision, ...]:
    log = Log()
    log.accept("1", role="Champion")
    for _ in range(LONG - 1):
        log.write("Shift", to=version("1"), traffic={"champion": 100})
    return tuple(log.records)


def put(stores: Stores, records: tuple[ModelDecision, ...], name: str = NAME, first: int = 1) -> None:
    """Records of a model of this name into the mirror, as a watch brings them."""
    for number, record in enumerate(records, first):
        body = record.model_dump(mode="json", by_alias=True, exclude_none=True)
        metadata = {"name": f"{name}-{number}", "namespace": NAMESPACE, "uid": f"{name}-{number}"}
        body["metadata"] = {**metadata, "resourceVersion": str(number), "creationTimestamp": T0.isoformat()}
        body["spec"]["modelRef"]["name"] = name
        body |= {"apiVersion": kinds.MODELDECISION.api_version, "kind": kinds.MODELDECISION.kind}
        stores.records.put(body)


@pytest.fixture
def folded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of each record that is folded."""
    numbers: list[int] = []
    after = history.after

    def counting(before: Any, record: Any, *rest: Any) -> Any:
        numbers.append(record.sequence)
        return after(before, record, *rest)

    monkeypatch.setattr(history, "after", counting)
    return numbers


def test_a_long_log_is_folded_once_for_all_looks_at_its_model(
    records: tuple[ModelDecision, ...], folded: list[int]
) -> None:
    stores = Stores()
    body = model().model_dump(mode="json", by_alias=True, exclude_none=True)
    body |= {"apiVersion": kinds.FINANCIALMODEL.api_version, "kind": kinds.FINANCIALMODEL.kind}
    body["metadata"] |= {"uid": UID, "resourceVersion": "1"}
    stores.models.put(body)
    put(stores, records)
    observer = Observer(MemoryCluster(), stores, PLATFORM, ())
    key = Key(kinds.FINANCIALMODEL.kind, NAMESPACE, NAME)

    def look() -> None:
        world = asyncio.run(observer.world(key))
        assert world is not None
        assert len(world.records) == len(stores.records)
        financialmodel.questions(world, T0)
        financialmodel.decide(world, T0)

    look()
    assert len(folded) == LONG, "for its questions and its decision together"
    look()
    assert len(folded) == LONG
    assert stores.logs.of((NAMESPACE, NAME)).history.sequence == LONG
    assert len(folded) == LONG, "nor for its experiments and policies"


def test_what_is_kept_of_all_logs_has_an_end(
    records: tuple[ModelDecision, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decisionlog, "KEPT", 2 * LONG)
    stores = Stores()
    for number in range(5):
        put(stores, records, f"m{number}")
        assert len(stores.logs.of((NAMESPACE, f"m{number}")).records) == LONG
    kept = [log for _, log in stores.logs._kept.values()]
    assert sum(len(log.records) for log in kept) == 2 * LONG
    assert stores.logs.of((NAMESPACE, "m4")) is kept[-1], "those that were looked at last"


def test_short_logs_are_kept_for_those_alone_who_look_often(records: tuple[ModelDecision, ...]) -> None:
    """At ten thousand models the mirror is most of the memory."""
    stores = Stores()
    put(stores, records[:3])
    once = stores.logs.of((NAMESPACE, NAME), often=False)
    assert stores.logs.of((NAMESPACE, NAME), often=False) is not once
    often = stores.logs.of((NAMESPACE, NAME))
    assert stores.logs.of((NAMESPACE, NAME), often=False) is often
    put(stores, records[3:4], first=4)
    assert len(stores.logs.of((NAMESPACE, NAME), often=False).records) == 4
