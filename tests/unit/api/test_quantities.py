"""Texts with a form: what is accepted, what it means, and what a person reads otherwise."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from fiduciary.api import data, pods, quantities, schedule, training
from fiduciary.api.quantities import timedelta_of

UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds", "ms": "milliseconds"}


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("250ms", timedelta(milliseconds=250)),
        ("90s", timedelta(seconds=90)),
        ("1m", timedelta(minutes=1)),
        ("2h", timedelta(hours=2)),
        ("5d", timedelta(days=5)),
        ("1d12h", timedelta(days=1, hours=12)),
        ("1d2h3m4s5ms", timedelta(days=1, hours=2, minutes=3, seconds=4, milliseconds=5)),
        ("0s", timedelta(0)),
    ],
)
def test_length_of_a_duration(text: str, length: timedelta) -> None:
    assert timedelta_of(text) == length


@pytest.mark.parametrize("text", ["", "5", "1w", "h", "-1h", "1.5h", "1h1d", "1h1h", " 1h", "1h\n", "123456h"])
def test_texts_that_are_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration such as 250ms"):
        timedelta_of(text)
    with pytest.raises(ValidationError):
        TypeAdapter(quantities.Duration).validate_python(text)


@given(st.dictionaries(st.sampled_from(list(UNITS)), st.integers(0, 9999), min_size=1))
def test_every_written_duration_is_read_back(parts: dict[str, int]) -> None:
    text = "".join(f"{parts[unit]}{unit}" for unit in UNITS if unit in parts)
    assert timedelta_of(text) == timedelta(**{UNITS[unit]: number for unit, number in parts.items()})
    assert TypeAdapter(quantities.Duration).validate_python(text) == text


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (quantities.Decimal, ["0", "-0.02", "12.5"], ["", ".5", "1.", "1e3", "0,5", "2%", "+1", "--1", "NaN"]),
        (quantities.NonNegativeDecimal, ["0", "2.5"], ["-1", ""]),
        (quantities.Fraction, ["0", "1", "1.0", "0.02"], ["1.1", "-0.1", "2", ".5"]),
        (quantities.Probability, ["0.05"], ["1", "0", "1.0", "5%"]),
        (quantities.Date, ["2017-12-29"], ["2017-13-01", "2017-12-32", "29.12.2017", "2017-1-1"]),
        (quantities.Digest, ["sha256:" + "0" * 64], ["sha256:abc", "0" * 64, "sha256:" + "A" * 64, "md5:" + "0" * 64]),
        (quantities.VersionNumber, ["1", "12"], ["0", "v1", "01", ""]),
        (quantities.DnsLabel, ["a", "a-1", "9"], ["A", "-a", "a-", "a.b", "a" * 64, ""]),
        (
            data.StorageUri,
            ["s3://desk/a/*.parquet", "pvc://claim/a", "file:///data/a.csv"],
            ["s3://desk", "http://a/b", "pvc://claim/../x", "file://a/b", "s3://desk/a b"],
        ),
        (schedule.MarketWindow, ["open-15m/open+30m", "close-30m/close"], ["open", "09:30/10:00", "open/noon"]),
        (schedule.FrozenDays, ["2026-12-24/2027-01-02"], ["2026-12-24", "2026-12-24/"]),
        (pods.LabelValue, ["", "a", "A_b.c-d"], ["a b", "-a", "a" * 64]),
    ],
)
def test_forms(kind: object, good: list[str], bad: list[str]) -> None:
    adapter = TypeAdapter[str](kind)
    for text in good:
        assert adapter.validate_python(text) == text
    for text in bad:
        with pytest.raises(ValidationError):
            adapter.validate_python(text)


@pytest.mark.parametrize(
    "cron", ["0 22 * * 1-5", "* * * * *", "*/5 0-6 1,15 JAN-MAR MON", "00 07 01 12 0", "0 0 * * 7", "5-55/10 * * * *"]
)
def test_cron_expressions(cron: str) -> None:
    assert training.Schedule(cron=cron).cron == cron


@pytest.mark.parametrize(
    "cron",
    [
        "",
        "@daily",
        "0 22 * *",
        "0 0 22 * * 1-5",
        "60 * * * *",
        "0 24 * * *",
        "0 0 32 * *",
        "0 0 * 13 *",
        "0 0 * * 8",
        "*/0 * * * *",
        "1- * * * *",
        "0  22 * * *",
        "0 22 * * FRIDAY",
    ],
)
def test_texts_that_are_no_cron_expression(cron: str) -> None:
    with pytest.raises(ValidationError):
        training.Schedule(cron=cron)


def test_the_error_says_what_was_seen_and_what_is_expected() -> None:
    with pytest.raises(ValidationError, match=r"'2%' must be a decimal number in quotes, for example"):
        TypeAdapter(quantities.Decimal).validate_python("2%")
