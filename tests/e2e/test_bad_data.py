"""Each way in which data can be bad is refused, and the status says which, what was seen and what was expected.

All models are applied at once, on files of one volume claim; the node trains as many at a time as it can, and each
test waits for its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.cluster import Cluster, Object, condition, has
from tests.e2e.models import AS_OF, CLAIM, on_claim

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.e2e.conftest import MakeNamespace
    from tests.e2e.node import Node


@dataclass(frozen=True, slots=True)
class Bad:
    """A file, the reason that the status gives, and words that its message must hold."""

    file: str
    reason: str
    words: tuple[str, ...]
    data: Mapping[str, Any] | None = None


CASES = {
    "missing": Bad("missing.csv", "MissingValues", ("close", "20", "2")),
    "duplicates": Bad("duplicates.csv", "DuplicateRows", ("1",)),
    "unordered": Bad("unordered.csv", "UnorderedRows", ("date",)),
    "stale": Bad("stale.csv", "StaleData", ("2017-10-06", AS_OF)),
    "few": Bad("few.csv", "TooFewRows", ("300", "1000")),
    "no-column": Bad("no-close.csv", "MissingColumn", ("close",)),
    "negative": Bad("negative.csv", "NegativePrices", ("low", "9")),
    "constant": Bad("constant.csv", "ConstantColumn", ("same value",)),
    "no-file": Bad("nowhere.csv", "SourceNotFound", ("nowhere.csv",)),
}


@pytest.fixture(scope="module")
def namespace(cluster: Cluster, node: Node, make_namespace: MakeNamespace) -> str:
    """All models of this module, applied together."""
    made = make_namespace("data")
    node.claim(made, CLAIM, through=date.fromisoformat(AS_OF))
    models = [on_claim(name, bad.file, {"data": bad.data or {}}) for name, bad in CASES.items()]
    cluster.apply(*models, _leaked(), namespace=made)
    return made


def _leaked() -> Object:
    """A Linear model whose volume column was computed from tomorrow's outcome."""
    return on_claim("leaked", "leaked.csv", {"training": {"architecture": "Linear"}})


@pytest.mark.parametrize("name", CASES)
def test_bad_data_is_refused_with_its_reason(cluster: Cluster, namespace: str, name: str) -> None:
    bad = CASES[name]
    model = cluster.until(
        "fm", name, namespace, lambda found: has(found, "Trained", "False", bad.reason), 240, f"refused as {bad.reason}"
    )
    message = condition(model, "Trained")["message"]
    for word in bad.words:
        assert word in message, f"the message does not say {word!r}: {message}"
    assert has(model, "Stalled", "True"), "a person must act: retrying reads the same data"
    jobs = [job for job in cluster.list("job", namespace) if job["metadata"]["name"].startswith(f"{name}-")]
    assert len(jobs) == 1
    assert jobs[0]["status"].get("failed") == 1, "exit code 42 is not retried"
    records = [md["spec"] for md in cluster.list("md", namespace) if md["spec"]["modelRef"]["name"] == name]
    assert [record["action"] for record in records] == ["TrainingFailed"]
    assert bad.reason in str(records[0]["cause"])


def test_leaked_future_is_refused_by_the_leakage_gate(cluster: Cluster, namespace: str) -> None:
    model = cluster.until(
        "fm", "leaked", namespace, lambda found: has(found, "GatesPassed", "False"), 240, "judged and refused"
    )
    message = condition(model, "GatesPassed")["message"]
    assert "leakage" in message
    assert "volume" in message, f"the column is not named: {message}"
    assert "champion" not in model["status"]
