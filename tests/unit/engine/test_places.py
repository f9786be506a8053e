"""Where the versions of a model are counted, by what serves it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fiduciary.api.versions import VersionRef
from fiduciary.decide.counters.contour import Contour
from fiduciary.decide.counters.plan import Plan
from fiduciary.decide.counters.runtime import Runtime, Seldon
from fiduciary.decide.counters.templates import Workload
from fiduciary.decide.experiment.begin import begin
from fiduciary.decide.experiment.state import State
from fiduciary.engine.experiments.asking import Sources
from fiduciary.engine.experiments.counts import Place, plan_of
from fiduciary.engine.stores import Stores
from fiduciary.manifests import seldon
from fiduciary.manifests.plans import VersionPlan
from tests.unit.decide.experiment.trials import Trial
from tests.unit.decide.worlds import PLATFORM, merged, model
from tests.unit.engine.test_othersviews import a_server, stored

ONE, OTHER = ("sha256:" + number * 64 for number in "12")
SELDON: dict[str, Any] = {"serving": {"backend": "Seldon"}}
SLOW = {"name": "slow", "metric": "LatencyAbove", "threshold": "300ms", "margin": {"absolute": "0.01"}}
NAMED = {"promotion": {"experiment": {"guardrails": [SLOW]}}}
SOURCES = Sources(Runtime(), Seldon(), Contour(("projectcontour",)), scrape_seconds=15, timeout_seconds=10)


def loaded(stores: Stores, digest: str, spec: dict[str, Any]) -> None:
    """A Model of Seldon, made while the FinancialModel was so."""
    assert PLATFORM.serving is not None
    version = VersionRef(version="7", digest=digest, run_id="run", uri="s3://mlflow/1")
    given = VersionPlan(model(merged(SELDON, spec)), version, 1, False, "http://mlflow", PLATFORM.serving)
    assert given.model.spec.serving is not None
    body = stored(seldon.seldon_model(given, given.model.spec.serving, "s3://mlflow/1"), uid=digest)
    assert stores.seldon_models.put(body) is not None


def named(stores: Stores, name: str, **spec: Any) -> None:
    body = a_server(**spec)
    stores.servers.put({**body, "metadata": {**body["metadata"], "name": name, "uid": name}})


def test_pods_of_its_own_or_those_of_servers_that_may_have_loaded_it() -> None:
    stores = Stores()
    named(stores, "fiduciary", capabilities=["fiduciary-onnx"])
    named(stores, "second", extraCapabilities=["fiduciary-onnx"])
    named(stores, "sklearn", capabilities=["sklearn"])
    name = "spx-volatility-111111111111"
    for backend in ("Gateway", "KServe"):
        assert Place(stores, model(), backend).workload(ONE) == Workload("quant", name)
    place = Place(stores, model(SELDON), "Seldon")
    assert place.workload(ONE) == Workload("quant", name, ("fiduciary", "second"))
    loaded(stores, ONE, {"serving": {"seldon": {"server": "second"}}})
    assert place.workload(ONE) == Workload("quant", name, ("second",))
    assert SOURCES.of(_plan(place), place.workload(ONE)) == (SOURCES.seldon,)
    assert SOURCES.of(_plan(Place(stores, model(), "Gateway")), Workload("quant", name)) == (
        SOURCES.runtime,
        SOURCES.gateway,
    )


def test_a_threshold_counts_where_both_versions_have_an_edge_for_it() -> None:
    """A Model is not edited, so one that was made before the threshold was named has no such bucket."""
    stores = Stores()
    named(stores, "fiduciary", capabilities=["fiduciary-onnx"])
    now = model(merged(SELDON, NAMED))
    place = Place(stores, now, "Seldon")
    loaded(stores, ONE, NAMED)
    assert 300 in place.edges((ONE,))
    loaded(stores, OTHER, {})
    assert 300 not in place.edges((ONE, OTHER))
    assert 250 in place.edges((ONE, OTHER))
    assert 300 in Place(stores, model(NAMED), "Gateway").edges((ONE, OTHER)), "pods follow the spec"


def _plan(place: Place, state: State | None = None) -> Plan:
    found = _planned(place, state)
    assert isinstance(found, Plan), found
    return found


def _planned(place: Place, state: State | None) -> Plan | str:
    world = replace(Trial().world(), state=state)
    return plan_of(world, place.model, SOURCES, 0, place.meshed, place.edges((ONE, OTHER)))


@pytest.mark.parametrize(("backend", "source"), [("Gateway", "Gateway"), ("KServe", "Gateway"), ("Seldon", "Runtime")])
def test_whose_counters_are_read(backend: str, source: str) -> None:
    gateway = {"parentRefs": [{"name": "public", "namespace": "infra"}], "timeouts": {"request": "3s"}}
    place = Place(Stores(), model({"serving": {"backend": backend, "gateway": gateway}}), backend)
    found = _plan(place)
    assert (found.source, found.patience) == (source, 3_000)


def test_one_that_began_with_the_gateways_counters_is_not_judged_by_others() -> None:
    """A change of backend waits for it; one that came at the same moment leaves it blind, and said so."""
    state = begin(replace(Trial().world(), transport=True), 0)
    assert isinstance(state, State)
    assert _plan(Place(Stores(), model(), "KServe"), state).source == "Gateway"
    told = _planned(Place(Stores(), model(SELDON), "Seldon"), state)
    assert isinstance(told, str)
    assert "delete this experiment" in told


def test_without_a_gateway_a_request_may_take_as_long_as_the_mesh_waits() -> None:
    assert _plan(Place(Stores(), model(SELDON), "Seldon")).patience == 60_000
