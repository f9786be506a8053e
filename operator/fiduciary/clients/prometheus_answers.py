"""What Prometheus' query API answers, decoded strictly: the shape is checked to the last sample, nothing is guessed."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal, cast

from pydantic_core import from_json

from fiduciary.decide.counters.exposure import CLOCKS
from fiduciary.decide.counters.samples import Series, Valued

Reason = Literal[
    "PrometheusUnreachable",
    "PrometheusTimeout",
    "PrometheusUnauthorized",
    "PrometheusRefused",
    "PrometheusOverloaded",
    "PrometheusTooLarge",
    "PrometheusPartial",
    "PrometheusWrongSchema",
    "PrometheusClockSkew",
]
Kind = Literal["vector", "matrix", "scalar", "string"]

_NUMBER = re.compile(r"NaN|[+-]?(Inf|[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?)")
_SHOWN = 200
_TEXTS = frozenset({str})
_TIMES = frozenset({int, float})
MOST_SECONDS = 1e11
"""A time beyond it, some 3,000 years, is none."""


class PrometheusError(Exception):
    """There is no answer that evidence may rest on. ``reason`` and the message are fit for a condition.

    Refused is for good (this query is not accepted); all others may pass.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer."""

    kind: Kind
    series: tuple[Series, ...]

    def of(self, *kinds: Kind) -> tuple[Series, ...]:
        """Its series. Raises :class:`PrometheusError` where the answer is of another kind than was asked for."""
        if self.kind not in kinds:
            raise PrometheusError(
                "PrometheusWrongSchema", f"Prometheus answered with a {self.kind}; expected {' or '.join(kinds)}"
            )
        return self.series


def agreeing(url: str, date: str, asked: float, answered: float) -> None:
    """Raises :class:`PrometheusError` where the server's clock is surely not ours: blocks would be cut at moments that
    its samples do not know, and requests counted under weights that were not in force.

    ``date``: the answer's ``Date``, in whole seconds; ``asked``, ``answered``: seconds since 1970 by our clock. A slow
    answer proves nothing. An answer without a date is taken as it is.
    """
    try:
        its = parsedate_to_datetime(date).timestamp()
    except ValueError:
        return
    ahead, behind = its - answered, asked - (its + 1.0)
    if max(ahead, behind) <= CLOCKS / 1000:
        return
    by = f"{ahead:.0f} s ahead of" if ahead > 0 else f"{behind:.0f} s behind"
    message = (
        f"the clock of {url} is at least {by} the operator's; expected {CLOCKS / 1000:g} s at most: set the clocks of "
        "both nodes by NTP. Nothing is judged until then, and what was counted meanwhile is read afterwards"
    )
    raise PrometheusError("PrometheusClockSkew", message)


def decoded(url: str, status: int, body: bytes) -> Answer:
    """The answer in ``body``. Raises :class:`PrometheusError` for everything else that a server may have sent."""
    return _answer(*_result(url, status, body))


def valued(url: str, status: int, body: bytes) -> list[Valued]:
    """The vector in ``body``, of tens of thousands of counters. Raises :class:`PrometheusError`.

    Whether two series have the same labels is for who reads them to tell.
    """
    kind, result = _result(url, status, body)
    found = _counters(result) if kind == "vector" else None
    if found is None:  # it is looked at one by one, and named if it is wrong
        found = [(its.labels, its.samples[-1][1]) for its in _answer(kind, result).of("vector")]
    return found


def _counters(result: object) -> list[Valued] | None:
    """Labels and value of each series where all are what counters are; None: one of them is not."""
    found: list[Valued] = []
    if type(result) is not list:
        return None
    try:
        for item in cast("list[Any]", result):
            labels, (at, text) = item["metric"], item["value"]
            if not (text.isdigit() and text.isascii()) or len(item) != 2:
                return None
            if type(at) not in _TIMES or not 0 <= at < MOST_SECONDS:
                return None
            found.append((labels, float(text)))
        texts = itertools.chain.from_iterable([labels.values() for labels, _ in found])
        return found if set(map(type, texts)) <= _TEXTS else None
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _result(url: str, status: int, body: bytes) -> tuple[object, object]:
    """Type and content of a successful answer, of which nothing else is known yet."""
    if status in (401, 403):
        raise PrometheusError("PrometheusUnauthorized", f"{url} answered {status}: see the token that is configured")
    try:
        # Of pydantic: twice as fast as the standard library's, since names and most values of labels come again.
        content: object = from_json(body, allow_inf_nan=False, cache_strings="all")
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise _strange(url, status, body)
    answer = cast("dict[str, Any]", content)
    if status != 200 or answer.get("status") != "success":
        raise _refused(url, status, answer, body)
    if warnings := answer.get("warnings"):
        # Thanos and Mimir say so when a store did not answer: what is missing would look like no traffic.
        raise PrometheusError("PrometheusPartial", f"{url} answered with a warning: {_shown(warnings)}")
    data = answer.get("data")
    if not isinstance(data, dict):
        raise _schema("data", data, "an object")
    result = cast("dict[str, Any]", data)
    return result.get("resultType"), result.get("result")


def _strange(url: str, status: int, body: bytes) -> PrometheusError:
    start = _shown(body[:_SHOWN].decode("utf-8", "replace"))
    if status == 429 or status >= 500:
        return PrometheusError("PrometheusOverloaded", f"{url} answered {status}: {start}")
    return PrometheusError(
        "PrometheusWrongSchema", f"{url} answered {status} with what is no answer of Prometheus: {start}"
    )


def _refused(url: str, status: int, answer: dict[str, Any], body: bytes) -> PrometheusError:
    kind, message = answer.get("errorType"), answer.get("error")
    if not isinstance(kind, str) or not isinstance(message, str):
        return _strange(url, status, body)
    text = f"{url} answered {status} {_shown(kind)}: {_shown(message)}"
    if kind == "timeout":
        return PrometheusError("PrometheusTimeout", text)
    # "execution" is of the data that was asked for (too many samples, two series under one name), not of the moment: a
    # smaller part may be answered, and nobody's series blind his neighbours.
    refused = kind in ("bad_data", "execution")
    return PrometheusError("PrometheusRefused" if refused else "PrometheusOverloaded", text)


def _answer(kind: object, result: object) -> Answer:
    if kind == "scalar":
        return Answer("scalar", (Series({}, (_sample(result, "result"),)),))
    if kind == "string":
        return Answer("string", ())
    if kind not in ("vector", "matrix"):
        raise _schema("resultType", kind, "vector, matrix or scalar")
    if not isinstance(result, list):
        raise _schema("result", result, "a list")
    items = cast("list[object]", result)
    series: list[Series] = []
    try:
        for item in items:
            series.append(_series(item, kind == "matrix"))
    except _OtherError as other:
        raise _schema(f"result[{len(series)}]{other.where}", other.seen, other.expected) from None
    if not _distinct(series):
        raise PrometheusError("PrometheusWrongSchema", "Prometheus answered with the same series twice")
    return Answer("matrix" if kind == "matrix" else "vector", tuple(series))


class _OtherError(Exception):
    """What is not as it should be in a series: named once it is seen, since an answer holds tens of thousands."""

    def __init__(self, where: str, seen: object, expected: str) -> None:
        super().__init__(where)
        self.where, self.seen, self.expected = where, seen, expected


def _distinct(series: list[Series]) -> bool:
    """Whether no two have the same labels, in whatever order these were sent.

    Of thousands of series a few sets of names are sorted, and one tuple a series is kept until all are seen.
    """
    orders: dict[tuple[str, ...], tuple[tuple[str, ...], bool]] = {}
    seen: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for one in series:
        labels = one.labels
        names = tuple(labels)
        found = orders.get(names)
        if found is None:
            order = tuple(sorted(names))
            found = orders[names] = (order, order == names)
            seen.setdefault(order, set())
        order, as_sent = found
        seen[order].add(tuple(labels.values()) if as_sent else tuple(map(labels.__getitem__, order)))
    return sum(map(len, seen.values())) == len(series)


def _series(item: object, matrix: bool) -> Series:
    if not isinstance(item, dict):
        raise _OtherError("", item, "an object")
    found = cast("dict[str, Any]", item)
    metric = found.get("metric")
    if not isinstance(metric, dict):
        raise _OtherError(".metric", metric, "an object")
    labels = cast("dict[str, str]", metric)
    if not set(map(type, labels.values())) <= _TEXTS:
        name, value = next((name, value) for name, value in labels.items() if type(value) is not str)
        raise _OtherError(f".metric.{name}", value, "a text")
    if "histogram" in found or "histograms" in found:
        raise _OtherError("", found, "numbers, not a native histogram: counters and classic buckets are read")
    if not matrix:
        return Series(labels, (_sample(found.get("value"), ".value"),))
    values = cast("list[object]", found.get("values"))
    if type(values) is not list or not values:
        raise _OtherError(".values", values, "a list of samples")
    samples = tuple([_sample(value, ".values") for value in values])
    if len(samples) > 1 and any(later[0] <= earlier[0] for earlier, later in itertools.pairwise(samples)):
        raise _OtherError(".values", [at for at, _ in samples], "samples in the order of their times")
    return Series(labels, samples)


def _sample(value: object, where: str) -> tuple[int, float]:
    pair = cast("list[object]", value)
    if type(pair) is not list or len(pair) != 2:
        raise _OtherError(where, value, "[time, value]")
    at, text = pair
    if (type(at) is not float and type(at) is not int) or not 0 <= at < MOST_SECONDS:
        raise _OtherError(where, at, "a time in seconds")
    # Most are counts, whose digits need no pattern.
    if type(text) is not str or not ((text.isdigit() and text.isascii()) or _NUMBER.fullmatch(text)):
        raise _OtherError(where, text, "a number as text")
    return round(at * 1000), float(text)


def _schema(where: str, seen: object, expected: str) -> PrometheusError:
    return PrometheusError(
        "PrometheusWrongSchema", f"Prometheus' answer has {where} = {_shown(seen)}; expected {expected}"
    )


def _shown(value: object) -> str:
    """The beginning of what a server sent, on one line and without what could steer a terminal."""
    text = value if isinstance(value, str) else repr(value)
    printable = "".join(letter if letter.isprintable() else " " for letter in text[: 2 * _SHOWN])
    return printable if len(printable) <= _SHOWN else printable[: _SHOWN - 1] + "…"
