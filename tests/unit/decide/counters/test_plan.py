"""What an experiment's spec asks to be counted, and what cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from fiduciary.api.experiment import ExperimentTemplate
from fiduciary.decide.counters.deltas import Delta
from fiduciary.decide.counters.measures import Measure, Window, counted, settle
from fiduciary.decide.counters.plan import Limit, Plan, planned
from fiduciary.decide.counters.state import CLIENT, FIELDS, GOOD, STARTED, TIMED, Carry
from fiduciary.decide.experiment.times import first_edge
from fiduciary.evidence.blocks import Counts

OPTIONS: dict[str, Any] = {
    "origin": 600,
    "scrape_seconds": 15,
    "timeout_seconds": 10,
    "patience_ms": 2_000,
    "gateway": True,
}
LATENCY = {"name": "latency", "metric": "LatencyAbove", "threshold": "250ms", "margin": {"absolute": "0.005"}}
ERRORS = {"name": "errors", "metric": "ErrorRate", "margin": {"absolute": "0.005"}}


def plan(spec: dict[str, Any] | None = None, **options: Any) -> Plan | str:
    return planned(ExperimentTemplate.model_validate(spec or {}), **{**OPTIONS, **options})


def test_everything_of_the_gateway_where_it_is_known() -> None:
    spec = {
        "guardrails": [ERRORS, LATENCY],
        "circuitBreakers": [
            {"metric": "PaperDrawdown", "above": "25000"},
            {"metric": "LatencyAbove", "threshold": "1s", "above": "0.5", "normal": "0.01"},
        ],
    }
    made = plan(spec)
    assert isinstance(made, Plan)
    assert (made.source, made.thresholds, made.block, made.fields) == ("Gateway", (250, 1_000), 60, len(FIELDS) + 2)
    assert made.guardrails == (
        Limit(Measure("errors", "ErrorRate"), "Gateway"),
        Limit(Measure("latency", "LatencyAbove", 0), "Gateway"),
    )
    assert made.breakers == ((1, Limit(Measure("breaker-1", "LatencyAbove", 1), "Gateway")),)


def test_the_runtimes_where_the_gateway_is_not_known_or_not_wanted() -> None:
    for made in (plan(gateway=False), plan({"evidence": {"requests": "Runtime"}})):
        assert isinstance(made, Plan)
        assert made.source == "Runtime"


def test_behind_a_mesh_the_runtimes_though_the_gateway_is_known() -> None:
    made = plan({"guardrails": [ERRORS, LATENCY]}, meshed=True, runtime_edges=(100, 250))
    assert isinstance(made, Plan)
    assert (made.source, {limit.source for limit in made.guardrails}) == ("Runtime", {"Runtime"})


@pytest.mark.parametrize(
    ("spec", "options", "said"),
    [
        ({"evidence": {"requests": "Gateway"}}, {"meshed": True}, "no version behind it: write requests: Auto"),
        ({"evidence": {"requests": "Gateway"}}, {"gateway": False}, "name no gateway whose counters it knows"),
        ({"evidence": {"block": "10s"}}, {}, "no shorter than the 15 s between two scrapes"),
        ({"evidence": {"block": "90500ms"}}, {}, "has to be whole seconds"),
        ({"guardrails": [{**LATENCY, "threshold": "300ms"}]}, {}, "or no mirror in the last step"),
        (
            {"guardrails": [{**LATENCY, "threshold": "300ms"}], "evidence": {"requests": "Runtime"}},
            {"runtime_edges": (100, 250)},
            "no histogram has a bucket that ends at 300ms",
        ),
    ],
)
def test_what_cannot_be_counted_is_said(spec: dict[str, Any], options: dict[str, Any], said: str) -> None:
    made = plan(spec, **options)
    assert isinstance(made, str)
    assert said in made


def test_a_threshold_between_the_gateways_edges_is_the_runtimes() -> None:
    steps = [{"name": "half", "weight": 50, "minBlocks": 30}]
    made = plan({"guardrails": [{**LATENCY, "threshold": "300ms"}], "traffic": {"steps": steps}})
    assert isinstance(made, Plan)
    assert made.guardrails[0].source == "Runtime"


def test_edges_are_on_the_clock() -> None:
    assert [first_edge(at, 60) for at in (599, 600, 601)] == [600, 600, 660]
    made = plan()
    assert isinstance(made, Plan)
    assert [made.edge(number) for number in (-1, 0, 9)] == [600_000, 660_000, 1_200_000]
    assert [made.closable(at) for at in (0, 639_999, 640_000, 699_999, 700_000)] == [-2, -2, -1, -1, 0]


WINDOW = Window(60_000, 2_000)


def delta(in_flight: int = 0, **counts: int) -> Delta:
    values = [0] * (len(FIELDS) + 1)
    for name, count in counts.items():
        values[{"started": STARTED, "good": GOOD, "client": CLIENT, "timed": TIMED, "within": len(FIELDS)}[name]] = (
            count
        )
    return Delta(tuple(values), in_flight=in_flight)


@pytest.mark.parametrize(
    ("seen", "carry", "counts", "after"),
    [
        (delta(started=300, good=290, client=5), Carry("", ""), Counts(300, 5), Carry("", "")),
        # 4 in flight of the 20 that may be: excused, and taken back in the next block
        (delta(4, started=300, good=296), Carry("", ""), Counts(300, 0), Carry("", "", 0, 4)),
        (delta(0, started=300, good=304), Carry("", "", 0, 4), Counts(300, 0), Carry("", "", 0, 0)),
        (delta(300, started=300), Carry("", ""), Counts(300, 280), Carry("", "", 0, 20)),
        # all fail that began before: more than this block's trials
        (delta(0, started=2, good=0), Carry("", "", 7), Counts(2, 2), Carry("", "", 7)),
        (delta(0, started=0, good=3), Carry("", ""), Counts(0, 0), Carry("", "", -3)),
        (delta(0, started=9, good=5), Carry("", "", -3), Counts(9, 1), Carry("", "")),
    ],
)
def test_bad_ones_are_started_less_answered_and_what_does_not_fit_is_carried(
    seen: Delta, carry: Carry, counts: Counts, after: Carry
) -> None:
    assert counted(Measure("", "ErrorRate"), seen, (0, 0), carry, WINDOW) == (counts, after)


def test_slow_ones_are_those_that_no_bucket_holds() -> None:
    seen = delta(timed=100, within=93)
    assert counted(Measure("", "LatencyAbove", 0), seen, (0, 0), Carry("", ""), WINDOW)[0] == Counts(100, 7)
    assert counted(Measure("", "LatencyAbove", 0), seen, (4, 1), Carry("", ""), WINDOW)[0] == Counts(96, 7)


def test_probes_are_neither_trials_nor_bad() -> None:
    seen = delta(started=10, good=8)
    assert counted(Measure("", "ErrorRate"), seen, (4, 1), Carry("", ""), WINDOW)[0] == Counts(6, 1)


def test_refused_requests_are_counted_by_themselves() -> None:
    seen = delta(started=10, good=6, client=3)
    assert counted(Measure("", "ClientErrorRate"), seen, (0, 0), Carry("", ""), WINDOW)[0] == Counts(10, 3)
    assert counted(Measure("", "ErrorRate"), seen, (0, 0), Carry("", ""), WINDOW)[0] == Counts(10, 1)


def test_trials_are_never_negative() -> None:
    assert settle(Carry("", ""), -3, 2, 0) == (Counts(0, 0), Carry("", "", 2, 0))
