"""Which series counts for whom: names, labels, spellings, and series that claim to be somebody else's."""

from __future__ import annotations

import re

import pytest

from fiduciary.decide.counters.contour import Contour
from fiduciary.decide.counters.runtime import Runtime, Seldon
from fiduciary.decide.counters.state import CLIENT, FAILED, FIELDS, GOOD, PROBES, STARTED, TIMED, TIMED_ENDED
from fiduciary.decide.counters.templates import Owned, Template, Vital, Workload, edge_texts, place_of

RUNTIME, CONTOUR, SELDON = Runtime(), Contour(("projectcontour",)), Seldon()
MODEL = Workload("quant", "m-8ab8c9b5")
POD = {"namespace": "quant", "pod": "m-8ab8c9b5-7d9c5f8b6-x2x4z"}
PROXY = {"namespace": "projectcontour", "pod": "envoy-x"}


def fields(template: Template, name: str, labels: dict[str, str]) -> tuple[int, ...] | None:
    found = template.classify({"__name__": name, **labels}, (5, 250))
    return found.fields if isinstance(found, Owned) else None


@pytest.mark.parametrize(
    ("name", "labels", "places"),
    [
        ("fiduciary_requests_started_total", {"protocol": "grpc"}, (STARTED, TIMED)),
        ("fiduciary_requests_total", {"outcome": "success"}, (GOOD,)),
        ("fiduciary_requests_total", {"outcome": "client_error"}, (CLIENT,)),
        ("fiduciary_requests_total", {"outcome": "server_error"}, (FAILED,)),
        ("fiduciary_requests_total", {"outcome": "other"}, None),
        ("fiduciary_request_seconds_count", {}, (TIMED_ENDED,)),
        ("fiduciary_request_seconds_bucket", {"le": "0.25"}, (len(FIELDS) + 1,)),
        ("fiduciary_request_seconds_bucket", {"le": "0.005"}, (len(FIELDS),)),
        ("fiduciary_request_seconds_bucket", {"le": "+Inf"}, None),
        ("fiduciary_request_seconds_bucket", {"le": "x"}, None),
        ("fiduciary_request_seconds_sum", {}, None),
        ("fiduciary_probes_started_total", {}, (PROBES,)),
        ("fiduciary_probes_started_total", {"addressed": "any"}, (PROBES,)),
        ("fiduciary_probes_started_total", {"addressed": "version"}, None),
        ("fiduciary_probes_total", {"outcome": "success"}, None),
        ("fiduciary_records_total", {}, None),
    ],
)
def test_series_of_the_runtime(name: str, labels: dict[str, str], places: tuple[int, ...] | None) -> None:
    assert fields(RUNTIME, name, {**POD, **labels}) == places


def test_a_pod_belongs_to_the_deployment_that_its_name_begins_with() -> None:
    found = RUNTIME.classify({"__name__": "fiduciary_requests_started_total", **POD}, ())
    assert found == Owned(MODEL, "pods", "quant/m-8ab8c9b5-7d9c5f8b6-x2x4z", (STARTED, TIMED))
    assert (
        RUNTIME.classify({"__name__": "fiduciary_requests_started_total", "namespace": "quant", "pod": "m"}, ()) is None
    )
    assert RUNTIME.classify({"__name__": "fiduciary_requests_started_total"}, ()) is None


def test_what_a_pod_claims_is_not_read() -> None:
    claims = {"exported_namespace": "quant", "exported_pod": POD["pod"], "version": "7", "digest": "8ab8c9b5"}
    labels = {"__name__": "fiduciary_requests_started_total", "namespace": "other", "pod": "a-b-c-d", **claims}
    found = RUNTIME.classify(labels, ())
    assert isinstance(found, Owned)
    assert found.workload == Workload("other", "a-b")


def test_when_a_process_began() -> None:
    assert RUNTIME.classify({"__name__": "process_start_time_seconds", **POD}, ()) == Vital(
        "quant/m-8ab8c9b5-7d9c5f8b6-x2x4z", "start"
    )
    assert CONTOUR.classify({"__name__": "envoy_server_uptime", **PROXY}, ()) == Vital(
        "projectcontour/envoy-x", "uptime"
    )


@pytest.mark.parametrize(
    ("name", "cluster", "labels", "stream", "places"),
    [
        ("upstream_rq_total", "quant_m-8ab8c9b5_8080", {}, "live", (STARTED,)),
        ("upstream_rq_pending_failure_eject", "quant_m-8ab8c9b5_8080", {}, "live", (STARTED,)),
        ("upstream_rq_pending_overflow", "quant_m-8ab8c9b5_8080", {}, "live", (STARTED,)),
        ("upstream_cx_none_healthy", "quant_m-8ab8c9b5_8080", {}, "live", (STARTED,)),
        ("upstream_rq_pending_total", "quant_m-8ab8c9b5_8080", {}, None, None),
        ("upstream_rq_xx", "quant_m-8ab8c9b5_8080", {"envoy_response_code_class": "2"}, "live", (GOOD,)),
        ("upstream_rq_xx", "quant_m-8ab8c9b5_8080", {"envoy_response_code_class": "1"}, None, None),
        ("upstream_rq_xx", "quant_m-8ab8c9b5-mirror_8080", {"envoy_response_code_class": "5"}, "mirror", (FAILED,)),
        ("upstream_rq_time_bucket", "quant_m-8ab8c9b5_8080", {"le": "250"}, "live", (len(FIELDS) + 1,)),
        ("upstream_rq_time_bucket", "quant_m-8ab8c9b5_8080", {"le": "250.0"}, "live", (len(FIELDS) + 1,)),
        ("upstream_rq_timeout", "quant_m-8ab8c9b5_8080", {}, "live", (TIMED, TIMED_ENDED)),
        ("upstream_rq_xx", "quant_m-8ab8c9b5_8081", {"envoy_response_code_class": "2"}, None, None),
        ("grpc_0", "quant_m-8ab8c9b5_8081", {}, "live", (GOOD,)),
        ("grpc_3", "quant_m-8ab8c9b5_8081", {}, "live", (CLIENT,)),
        ("grpc_13", "quant_m-8ab8c9b5_8081", {}, "live", (FAILED,)),
        ("grpc_0", "quant_m-8ab8c9b5_8080", {}, None, None),
        ("grpc_failure", "quant_m-8ab8c9b5_8081", {}, None, None),
        ("upstream_rq_total", "quant_m-8ab8c9b5-mirror_8081", {}, "copies", (STARTED,)),
        ("upstream_rq_total", "quant_m-8ab8c9b5_8082", {}, None, None),
        ("upstream_rq_total", "quant/m-8ab8c9b5/8080", {}, None, None),
    ],
)
def test_series_of_contours_envoy(
    name: str, cluster: str, labels: dict[str, str], stream: str | None, places: tuple[int, ...] | None
) -> None:
    all_labels = {"__name__": f"envoy_cluster_{name}", **PROXY, "envoy_cluster_name": cluster, **labels}
    found = CONTOUR.classify(all_labels, (5, 250))
    if stream is None:
        assert found is None
        return
    assert isinstance(found, Owned)
    assert (found.workload, found.stream, found.fields) == (MODEL, stream, places)
    assert found.unit.startswith("projectcontour/envoy-x/m-8ab8c9b5")


def test_a_tenants_pod_is_no_gateway() -> None:
    labels = {"__name__": "envoy_cluster_upstream_rq_total", "envoy_cluster_name": "quant_m-8ab8c9b5_8080"}
    assert CONTOUR.classify({**labels, "namespace": "quant", "pod": "fake"}, ()) is None


SERVER = {"namespace": "quant", "pod": "fiduciary-1", "model_internal": "m-8ab8c9b5_1"}
UNIT = "quant/fiduciary-1/m-8ab8c9b5_1"


def test_a_server_of_seldons_counts_each_version_that_it_loaded() -> None:
    started = {"__name__": "fiduciary_requests_started_total", **SERVER}
    assert SELDON.classify(started, ()) == Owned(MODEL, "pods", UNIT, (STARTED, TIMED))
    assert fields(SELDON, "fiduciary_requests_total", {**SERVER, "outcome": "server_error"}) == (FAILED,)
    assert fields(SELDON, "fiduciary_request_seconds_bucket", {**SERVER, "le": "0.25"}) == (len(FIELDS) + 1,)
    assert fields(SELDON, "fiduciary_probes_started_total", {**SERVER, "addressed": "any"}) == (PROBES,)
    assert SELDON.classify({"__name__": "fiduciary_version_start_time_seconds", **SERVER}, ()) == Vital(UNIT, "start")
    for other in ("", "m-8ab8c9b5", "m-8ab8c9b5_x", "_1"):
        assert SELDON.classify({**started, "model_internal": other}, ()) is None
    assert SELDON.classify({"__name__": "seldon_model_infer_total", **SERVER, "code": "200"}, ()) is None
    assert RUNTIME.classify(started, ()) is None, "a Server's pod is no version's own"


def test_who_may_count_for_a_version_in_a_server() -> None:
    """The number is the agent's and the pod is Prometheus' word: a pod of another name only claims it."""
    loaded = Workload("quant", "m-8ab8c9b5", servers=("fiduciary",))
    matchers = SELDON.matchers([loaded, Workload("q2", "m", servers=("other.x",))], (250,))
    assert matchers["namespace"] == ["q2", "quant"]
    assert matchers["pod"] == ["fiduciary-[0-9]+", "other\\.x-[0-9]+"]
    assert matchers["model_internal"] == ["m-8ab8c9b5_[0-9]+", "m_[0-9]+"]
    assert loaded.bare == MODEL
    assert loaded.holds(UNIT)
    for pod in ("evil-0", "fiduciary-x", "fiduciary", "fiduciary-0-7d9c5f8b6-x2x4z", "m-8ab8c9b5-7d9c5f8b6-x2x4z"):
        assert not loaded.holds(f"quant/{pod}/m-8ab8c9b5_1")
    assert MODEL.holds("quant/m-8ab8c9b5-7d9c5f8b6-x2x4z"), "its own pods were chosen by their names already"


@pytest.mark.parametrize(
    ("threshold", "unit", "texts"),
    [
        (250, 1000.0, ("0.25",)),
        (1_000, 1000.0, ("1", "1.0")),
        (2_500, 1000.0, ("2.5",)),
        (5, 1000.0, ("0.005",)),
        (250, 1.0, ("250", "250.0")),
    ],
)
def test_an_edge_may_be_spelled_as_its_client_likes(threshold: int, unit: float, texts: tuple[str, ...]) -> None:
    assert edge_texts(threshold, unit) == texts
    for text in texts:
        assert place_of(text, (1, threshold), unit) == len(FIELDS) + 1


def test_pods_and_services_of_kserve_count_for_the_same_version() -> None:
    pod = {"namespace": "quant", "pod": "m-8ab8c9b5-predictor-7d9c5f8b6-x2x4z"}
    found = RUNTIME.classify({"__name__": "fiduciary_requests_started_total", **pod}, ())
    assert isinstance(found, Owned)
    assert found.workload == MODEL
    for service, stream in (("m-8ab8c9b5-ks", "live"), ("m-8ab8c9b5-ks-mirror", "mirror")):
        labels = {"__name__": "envoy_cluster_upstream_rq_total", "envoy_cluster_name": f"quant_{service}_8080"}
        found = CONTOUR.classify({**PROXY, **labels}, ())
        assert isinstance(found, Owned)
        assert (found.workload, found.stream) == (MODEL, stream)
    (pods,) = RUNTIME.matchers([MODEL], ())["pod"]
    assert re.fullmatch(pods, pod["pod"])
    assert re.fullmatch(pods, POD["pod"])
    clusters = CONTOUR.matchers([MODEL], ())["envoy_cluster_name"]
    assert re.fullmatch(clusters[1], "quant_m-8ab8c9b5-ks-mirror_8080")


@pytest.mark.parametrize(
    "model", ["a" * 23, "a" * 24, "spx-volatility-of-the-next-day-2", "a" * 33, "a" * 34, "a" * 40]
)
@pytest.mark.parametrize("inside", ["", "-predictor"])
@pytest.mark.parametrize("replica_set", ["7d9c5f8b6", "7d9c5f8b6f"])
def test_pods_of_a_long_name_count_though_kubernetes_cuts_it(model: str, inside: str, replica_set: str) -> None:
    """As names.SimpleNameGenerator of apiserver: 58 characters of the base, and 5 random ones."""
    version = Workload("quant", f"{model}-8ab8c9b5d012")
    pod = f"{version.name}{inside}-{replica_set}-"[:58] + "x2x4z"
    found = RUNTIME.classify({"__name__": "fiduciary_requests_started_total", "namespace": "quant", "pod": pod}, ())
    assert isinstance(found, Owned)
    assert found.workload == version
    assert any(re.fullmatch(pods, pod) for pods in RUNTIME.matchers([version], ())["pod"])
    other = Workload("quant", f"{model}-8ab8c9b5d013")
    assert not any(re.fullmatch(pods, pod) for pods in RUNTIME.matchers([other], ())["pod"])
