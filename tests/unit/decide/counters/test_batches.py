"""One query for many experiments, cut by the size of its answer, and each answer back to whom it belongs."""

from __future__ import annotations

import re

import promql_parser

from fiduciary.decide.counters.batches import Need, queries, tracks
from fiduciary.decide.counters.contour import Contour
from fiduciary.decide.counters.deltas import Clock, between
from fiduciary.decide.counters.runtime import Runtime, Seldon
from fiduciary.decide.counters.samples import Series
from fiduciary.decide.counters.state import FIELDS, STARTED, Stream
from fiduciary.decide.counters.templates import Workload
from fiduciary.engine.experiments.asking import counted

SCRAPE = 15_000
NOW = 1_700_000_065_000
RUNTIME, CONTOUR = Runtime(), Contour(("projectcontour",))


def needs(count: int, minutes: float = 1.6, units: int = 1) -> list[Need]:
    since = NOW - round(minutes * 60_000)
    return [
        Need(Workload(f"ns-{number % 7}", f"m{number}-{number:08x}"), (250,), since, NOW, units)
        for number in range(count)
    ]


def test_two_hundred_experiments_are_two_queries() -> None:
    made = queries(RUNTIME, needs(400), SCRAPE)
    assert len(made) == 2
    assert sum(len(query.needs) for query in made) == 400
    assert {query.at for query in made} == {NOW}


def test_more_pods_are_more_queries_and_a_long_gap_is_by_itself() -> None:
    assert len(queries(RUNTIME, needs(400, units=4), SCRAPE)) == 6
    mixed = queries(RUNTIME, [*needs(10), *needs(1, minutes=90)], SCRAPE)
    assert [(len(query.needs), query.promql.rpartition("[")[2]) for query in mixed] == [
        (10, "96000ms]"),
        (1, "5400000ms]"),
    ]


def test_the_order_of_needs_changes_no_query() -> None:
    assert queries(RUNTIME, needs(50), SCRAPE) == queries(RUNTIME, needs(50)[::-1], SCRAPE)


def test_nothing_needed_is_nothing_asked() -> None:
    assert queries(RUNTIME, [], SCRAPE) == ()


def test_a_query_is_promql_and_matches_exactly_its_pods() -> None:
    (query,) = queries(RUNTIME, needs(3), SCRAPE)
    tree = promql_parser.parse(query.promql)
    assert isinstance(tree, promql_parser.MatrixSelector)
    matchers = {matcher.name: matcher.value for matcher in tree.vector_selector.matchers.matchers}
    pod = re.compile(matchers["pod"])
    assert pod.fullmatch("m1-00000001-7d9c5f8b6-x2x4z")
    assert not pod.fullmatch("m1-00000001-mirror-7d9c5f8b6-x2x4z")
    assert not pod.fullmatch("xm1-00000001-7d9c5f8b6-x2x4z")
    edge = re.compile(matchers["le"])
    assert edge.fullmatch("")
    assert edge.fullmatch("0.25")
    assert not edge.fullmatch("0x25")
    (proxies,) = queries(CONTOUR, needs(3), SCRAPE)
    parsed = promql_parser.parse(proxies.promql)
    assert isinstance(parsed, promql_parser.MatrixSelector)
    by_name = {matcher.name: matcher.value for matcher in parsed.vector_selector.matchers.matchers}
    assert by_name["namespace"] == "projectcontour"
    cluster = re.compile(by_name["envoy_cluster_name"])
    assert cluster.fullmatch("ns-1_m1-00000001_8080")
    assert cluster.fullmatch("ns-1_m1-00000001-mirror_8081")
    assert cluster.fullmatch("")  # the proxy's own series
    assert not cluster.fullmatch("ns-1_m1-00000001_9090")


def test_a_dot_in_a_name_is_a_dot() -> None:
    need = Need(Workload("ns", "a.b-00000001"), (), NOW - 60_000, NOW)
    assert 'pod=~"a\\\\.b-00000001(' in queries(RUNTIME, [need], SCRAPE)[0].promql


def test_a_version_that_a_server_loads_again_counts_from_0_in_the_same_process() -> None:
    """The agent unloads and loads while its pod runs on; a pod that is no Server's counts for nobody."""
    workload = Workload("quant", "m-aaaaaaaa", servers=("fiduciary",))
    starts, seconds = (NOW - 200_000, NOW - 40_000), range(NOW - 120_000, NOW + 30_000, SCRAPE)

    def of(pod: str) -> list[Series]:
        own = {"namespace": "quant", "pod": pod, "model_internal": "m-aaaaaaaa_1", "job": "seldon"}
        counts = [(at, 100.0 if at < starts[1] else 7.0) for at in seconds]
        began = [(at, starts[0] / 1000 if at < starts[1] else starts[1] / 1000) for at in seconds]
        names = ("fiduciary_requests_started_total", "fiduciary_version_start_time_seconds")
        return [
            Series({"__name__": name, **own}, tuple(samples))
            for name, samples in zip(names, (counts, began), strict=True)
        ]

    need = Need(workload, (), NOW - 120_000, NOW)
    found = counted(Seldon(), [need], [*of("fiduciary-0"), *of("mine-0")])[workload, ()]
    assert list(found["pods"]) == ["quant/fiduciary-0/m-aaaaaaaa_1"]
    clock = Clock(SCRAPE, 10_000)
    before, _ = between(Stream("pods"), found["pods"], len(FIELDS), NOW - 120_000, NOW - 60_000, clock)
    _, delta = between(before, found["pods"], len(FIELDS), NOW - 60_000, NOW, clock)
    assert delta.counts[STARTED] == 7
    assert delta.notes == ()


def test_an_answer_goes_back_to_its_workloads() -> None:
    target = {"namespace": "quant", "job": "serving"}
    pods = [f"m-{digest}-7d9c5-{number}" for digest in ("aaaaaaaa", "bbbbbbbb") for number in ("x", "y")]
    answer = [
        Series({"__name__": "fiduciary_requests_started_total", "protocol": "rest", "pod": pod, **target}, ((1, 5.0),))
        for pod in pods
    ]
    answer += [Series({"__name__": "process_start_time_seconds", "pod": pod, **target}, ((1, 1.0),)) for pod in pods]
    answer.append(Series({"__name__": "up", "pod": pods[0], **target}, ((1, 1.0),)))
    found = tracks(RUNTIME, answer, ())
    assert set(found) == {Workload("quant", "m-aaaaaaaa"), Workload("quant", "m-bbbbbbbb")}
    units = found[Workload("quant", "m-aaaaaaaa")]["pods"]
    assert list(units) == [f"quant/{pods[0]}", f"quant/{pods[1]}"]
    assert [len(track.strands) for track in units.values()] == [1, 1]
    assert [pulse.kind for track in units.values() for pulse in track.pulses] == ["start", "start"]
