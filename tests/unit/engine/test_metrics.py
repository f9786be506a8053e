"""What Prometheus sees of the operator: how objects are, and counters that alerts can rely on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families

from fiduciary.engine import kinds
from fiduciary.engine.metrics import Metrics
from fiduciary.engine.stores import Stores

if TYPE_CHECKING:
    from fiduciary.clients.kube import Body

NAME = ("quant", "spx")


def model(version: int, *, phase: str | None = None, stalled: str = "False", why: str = "NoActionNeeded") -> Body:
    """A FinancialModel; without ``phase`` nobody has looked at it yet."""
    metadata = {"namespace": NAME[0], "name": NAME[1], "uid": "u", "resourceVersion": str(version)}
    body: Body = {"apiVersion": "fiduciary.dev/v1alpha1", "kind": "FinancialModel", "metadata": metadata, "spec": {}}
    if phase is not None:
        conditions = [
            {"type": "Ready", "status": "True", "reason": "Serving"},
            {"type": "Stalled", "status": stalled, "reason": why},
        ]
        body["status"] = {"phase": phase, "conditions": conditions}
    return body


def shown(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """Label values, in the order of the labels' names -> value, of one metric."""
    families = text_string_to_metric_families(metrics.render().decode())
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return {tuple(value for _, value in sorted(sample.labels.items())): sample.value for sample in samples}


def test_objects_are_counted_by_what_they_say_of_themselves() -> None:
    stores, metrics = Stores(), Metrics()
    metrics.watch_stores(stores.by_kind.values())

    def said() -> dict[tuple[str, ...], float]:  # kind, namespace, phase, reason, stalled
        return shown(metrics, "fiduciary_objects")

    stores.models.put(model(1))
    assert said() == {("FinancialModel", "quant", "", "", "Unknown"): 1}
    stores.models.put(model(2, phase="Stalled", stalled="True", why="ReferenceMissing"))
    assert said() == {("FinancialModel", "quant", "Stalled", "ReferenceMissing", "True"): 1}
    stores.models.put(model(1))  # old news
    stores.models.put(model(3, phase="Serving"))
    other = model(4, phase="Serving")
    other["metadata"] |= {"name": "ndx", "uid": "v"}
    stores.models.put(other)
    assert said() == {("FinancialModel", "quant", "Serving", "Serving", "False"): 2}
    stores.models.remove(NAME, "u", 5)
    assert said() == {("FinancialModel", "quant", "Serving", "Serving", "False"): 1}
    stores.models.clear()
    assert said() == {}


def test_an_own_write_changes_no_count_until_its_echo_brings_the_object() -> None:
    stores = Stores()
    stores.models.put(model(1, phase="Training"))
    value: Any = object()  # nobody parses it here
    stores.models.put_value({"namespace": NAME[0], "name": NAME[1], "uid": "u", "resourceVersion": "2"}, value)
    assert stores.models.said == {kinds.Said("quant", "Training", "False", "Serving"): 1}
    stores.models.put(model(2, phase="Serving"))
    assert stores.models.said == {kinds.Said("quant", "Serving", "False", "Serving"): 1}


def test_records_are_counted_from_nought_since_increase_overlooks_a_counter_that_begins_with_one() -> None:
    assert shown(Metrics(), "fiduciary_decisions_total")[("RollBack",)] == 0
