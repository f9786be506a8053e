"""Confined queries on a real Prometheus: it understands what is printed, and no series of another namespace is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fiduciary.clients.prometheus_answers import PrometheusError
from fiduciary.decide.promql import Refused, confined

if TYPE_CHECKING:
    from fiduciary.decide.counters.samples import Series
    from tests.prometheus.story import Told

STARTED = "fiduciary_requests_started_total"

KEEPS_LABELS = (
    STARTED,
    f"{STARTED}{{}}",
    f'{{__name__="{STARTED}"}}',
    '{__name__=~"fiduciary_.+"}',
    '{pod=~".+"}',
    f'{STARTED}{{pod!="}}{{"}}',
    f"{STARTED} # }} or {{\n",
    f"{STARTED} offset 1s",
    f"{STARTED} @ end()",
    f"rate({STARTED}[5s])",
    f"max_over_time(rate({STARTED}[4s])[6s:1s] @ end())",
    f"last_over_time({STARTED}[10s:1s] offset 1s)",
    f"-{STARTED}",
    f"({STARTED} - {STARTED}) ^ 2 ^ 0.5",
    f"{STARTED} or fiduciary_request_seconds_count",
    f"{STARTED} unless on(pod) nothing",
    f"{STARTED} and on(pod, namespace) process_start_time_seconds",
    f"{STARTED} > bool 5",
    f"topk(scalar(vector(9)), {STARTED})",
    f"sort_desc({STARTED})",
    f"sum without (job) ({STARTED})",
    f"sum({STARTED}) by (namespace, pod)",
    f"{STARTED} * on (namespace, pod) group_left (job) up",
    f"up / ignoring (model, version, digest, protocol) group_right () {STARTED}",
    f'label_replace({STARTED}, "copy", "$1}}{{", "pod", "(.*)")',
    "histogram_quantile(0.9, fiduciary_request_seconds_bucket)",
    f"clamp_max({STARTED}, +Inf)",
    f"{STARTED} == {STARTED}",
)


@pytest.mark.parametrize("query", KEEPS_LABELS)
def test_a_confined_query_reads_its_namespace_and_no_other(told: Told, query: str) -> None:
    at = told.plan.edge(told.state.last)
    everything = {series.labels.get("namespace") for series in told.ask(query, at)}
    assert everything in ({"quant", "elsewhere"}, {"quant"}, set()), "the query itself reaches both"
    text = confined(query, "quant")
    assert not isinstance(text, Refused), text
    assert {series.labels.get("namespace") for series in told.ask(text, at)} <= {"quant"}
    foreign = confined(query, "nobody")
    assert not isinstance(foreign, Refused)
    assert told.ask(foreign, at) == ()


def test_most_of_these_queries_do_reach_both_namespaces_unconfined(told: Told) -> None:
    at = told.plan.edge(told.state.last)
    reaching = [
        q for q in KEEPS_LABELS if {"quant", "elsewhere"} <= {s.labels.get("namespace") for s in told.ask(q, at)}
    ]
    assert len(reaching) > len(KEEPS_LABELS) * 0.7


@pytest.mark.parametrize(
    "query",
    [
        f"sum({STARTED})",
        f"count(count by (pod) ({STARTED}))",
        f"avg by () ({STARTED})",
        f"sum({STARTED}) / on () group_left () count(up)",
        f"absent({STARTED}) or vector(0)",
        f"quantile(.5, {STARTED})",
        f'count(count_values("value", {STARTED}))',
        f"scalar(sum({STARTED})) * 1e-3",
        f"sum_over_time(count({STARTED})[3s:1s])",
    ],
)
def test_an_aggregate_is_that_of_the_namespace_alone(told: Told, query: str) -> None:
    """The same query over series that are chosen by hand, where the matcher has to be written into every selector."""
    at = told.plan.edge(told.state.last)
    by_hand = query.replace(STARTED, f'{STARTED}{{namespace="quant"}}').replace("(up)", '(up{namespace="quant"})')
    text = confined(query, "quant")
    assert not isinstance(text, Refused), text
    assert [series.samples for series in told.ask(text, at)] == [series.samples for series in told.ask(by_hand, at)]


_NAMES = st.sampled_from([STARTED, "up", "sum", "offset", "by", "start", "nothing", "fiduciary_requests_total"])
_LABELS = st.sampled_from(["pod", "namespace", "job", "by", "on", "le"])
_TEXTS = st.sampled_from(['"a"', "'}'", "`{`", '"\\""', "'#'", '"\\u00e9"', "'\\n'", '"quant"', '"elsewhere"', '".+"'])
_MATCHERS = st.builds("{}{}{}".format, _LABELS, st.sampled_from(["=", "!=", "=~", "!~"]), _TEXTS)
_SELECTORS = st.builds(
    lambda name, matchers, at: f"{name}{{{','.join(matchers)}}}{at}" if matchers else f"{name}{at}",
    _NAMES,
    st.lists(_MATCHERS, max_size=3),
    st.sampled_from(["", " offset 5s", " @ end()", " offset -1s @ start()", " # {}\n"]),
)


def _grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    operators = st.sampled_from(["+", "-", "*", "/", "^", "%", "and", "or", "unless", "==", "> bool", "atan2", "<="])
    joins = st.sampled_from(["", " on(pod)", " ignoring(job)", " on()", " on(pod) group_left", " on(a) group_right(b)"])
    return st.one_of(
        st.builds("{} {}{} {}".format, inner, operators, joins, inner),
        st.builds("({})".format, inner),
        st.builds("-{}".format, inner),
        st.builds("sum by (pod) ({})".format, inner),
        st.builds("topk(2, {})".format, inner),
        st.builds("rate({}[5s:1s])".format, st.builds("({})".format, inner)),
        st.builds("absent({})".format, inner),
        st.builds('label_join({}, "a", "{{", "pod")'.format, inner),
        st.builds("{} * 1.5e-3".format, inner),
    )


@given(st.recursive(_SELECTORS, _grown, max_leaves=5))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_printed_is_understood_and_confined(told: Any, query: str) -> None:
    at = told.plan.edge(told.state.last)
    text, alone = confined(query, "quant"), confined(query, "nobody")
    found = _asked(told, text, at)
    if isinstance(found, str):
        # labels that match more than once are found out when the query runs, with or without the matcher
        assert "bad_data" not in found or isinstance(_asked(told, query, at), str), (query, text, found)
        return
    assert "elsewhere" not in {series.labels.get("namespace") for series in found}
    if "absent" not in query:
        assert _asked(told, alone, at) == (), (query, alone)


def _asked(told: Told, query: str | Refused, at: int) -> tuple[Series, ...] | str:
    """The answer, or why there is none; empty where the query is refused."""
    if isinstance(query, Refused):
        return ()
    try:
        return told.ask(query, at)
    except PrometheusError as error:
        return error.message
