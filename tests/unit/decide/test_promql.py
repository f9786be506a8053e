"""Queries of users: where the matcher goes, and what is refused with which words."""

from __future__ import annotations

import pytest

from fiduciary.decide.promql import MAX_LENGTH, Refused, confined


@pytest.mark.parametrize(
    ("query", "sent"),
    [
        ("up", 'up{namespace="quant"}'),
        ("up{}", 'up{namespace="quant"}'),
        ('up{job="a"}', 'up{job="a",namespace="quant"}'),
        ("up{job='}'}", 'up{job="}",namespace="quant"}'),
        ("up{job=`\\d{2}`,}", 'up{job="\\\\d{2}",namespace="quant"}'),
        ('{__name__=~"a|b"}', '{__name__=~"a|b",namespace="quant"}'),
        ('{"dotted.name", "label.with dots"="x"}', '{"label.with dots"="x",__name__="dotted.name",namespace="quant"}'),
        ("sum # {\n by # }\n (a) (up)", 'sum by (a) (up{namespace="quant"})'),
        ("rate(up[5m] offset -1h @ 1609746000)", 'rate(up{namespace="quant"}[5m] @ 1609746000.000 offset -1h)'),
        (
            "max_over_time(rate(a[5m])[1h:] @ start() offset 1w)",
            'max_over_time(rate(a{namespace="quant"}[5m])[1h:] @ start() offset 1w)',
        ),
        (
            "a * on (b, c) group_left (d) e",
            'a{namespace="quant"} * on (b, c) group_left (d) e{namespace="quant"}',
        ),
        ("topk(scalar(a), b)", 'topk(scalar(a{namespace="quant"}), b{namespace="quant"})'),
        (
            'label_replace(a, "namespace", "$1", "b", "(.*)")',
            'label_replace(a{namespace="quant"}, "namespace", "$1", "b", "(.*)")',
        ),
        ("sum", 'sum{namespace="quant"}'),
        ("by + offset", 'by{namespace="quant"} + offset{namespace="quant"}'),
        ("a - (b - c)", 'a{namespace="quant"} - (b{namespace="quant"} - c{namespace="quant"})'),
        ('a{namespace="quant"}', 'a{namespace="quant",namespace="quant"}'),
        ('a{namespace=~"q.*"}', 'a{namespace="quant",namespace=~"q.*"}'),
        ("time() - 5m", "time() - 300"),
    ],
)
def test_the_matcher_is_in_every_selector(query: str, sent: str) -> None:
    assert confined(query, "quant") == sent


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ('a + b{namespace="other"}', 'asks for namespace="other"; a query reads its own namespace quant only'),
        ('a{b="1" or namespace="other"}', "`or` between matchers"),
        ("info(a)", "selects series of other namespaces by itself"),
        ("a @ -1", "before 1970"),
        ('a{b="\\xff"}', "writes bytes as numbers"),
        ('a{b="\\377"}', "writes bytes as numbers"),
        ("a{", "no PromQL that is understood"),
        ("", "no PromQL that is understood"),
        ("{}", "at least one non-empty matcher"),
        ('{b=~".*"}', "at least one non-empty matcher"),
        ('a{b="c"}}', "no PromQL that is understood"),
        ('a{b="c', "no PromQL that is understood"),
        ("no_such_function(a)", "unknown function"),
        ("a" * (MAX_LENGTH + 1), f"at most {MAX_LENGTH} are read"),
        ("(" * 500 + "a" + ")" * 500, "more than 64 operators and brackets"),
        ("-" * 100 + "a", "more than 64 operators and brackets"),
        (" and ".join("a" * 70), "more than 64 operators and brackets"),
        ('# "\n' + "(" * 500 + '"', "more than 64 operators and brackets"),
        ("a\x00", "no PromQL that is understood"),
    ],
)
def test_what_is_refused_says_what_to_write(query: str, said: str) -> None:
    refused = confined(query, "quant")
    assert isinstance(refused, Refused), refused
    assert said in refused.message


def test_operators_in_texts_are_no_operators() -> None:
    assert isinstance(confined('a{b=~"' + "a-b|(c)+" * 30 + '"}', "quant"), str)


@pytest.mark.parametrize("namespace", ["", 'a"} or {b="', "UPPER", "a" * 64])
def test_a_namespace_is_a_name(namespace: str) -> None:
    assert isinstance(confined("up", namespace), Refused)


def test_the_label_of_the_namespace_is_a_setting() -> None:
    assert confined("up", "quant", "kubernetes_namespace") == 'up{kubernetes_namespace="quant"}'
