"""Texts with a form: decimals, durations, digests, names. Money and thresholds are decimal texts, never floats."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import Field

from fiduciary.api.base import DateText, Rule, Shape

Decimal = Annotated[
    str,
    Field(min_length=1, max_length=32),
    Shape(r"-?[0-9]{1,15}(\.[0-9]{1,12})?", 'be a decimal number in quotes, for example "-0.02"'),
]
"""Any decimal number. The text goes into hashes, so 0.10 and 0.1 are different texts of the same number."""

NonNegativeDecimal = Annotated[
    str,
    Field(min_length=1, max_length=32),
    Shape(r"[0-9]{1,15}(\.[0-9]{1,12})?", 'be a decimal number in quotes that is not negative, for example "2.5"'),
]

PositiveDecimal = Annotated[
    str,
    Field(min_length=1, max_length=32),
    Shape(r"[0-9]{1,15}(\.[0-9]{1,12})?", 'be a positive decimal number in quotes, for example "2.5"'),
    Rule("self.matches('[1-9]')", "must be greater than zero"),
]

Fraction = Annotated[
    str,
    Field(min_length=1, max_length=16),
    Shape(r"0(\.[0-9]{1,12})?|1(\.0{1,12})?", 'be a fraction between "0" and "1" in quotes, for example "0.02"'),
]

Probability = Annotated[
    str,
    Field(min_length=1, max_length=16),
    Shape(r"0\.[0-9]{1,12}", 'be a probability strictly between 0 and 1 in quotes, for example "0.05"'),
    Rule("self.matches('[1-9]')", "must be greater than zero"),
]

# unit, digits, milliseconds. The digits keep every sum below the 292 years that CEL and Go can hold.
_UNITS = (("d", 4, 86_400_000), ("h", 5, 3_600_000), ("m", 6, 60_000), ("s", 8, 1_000), ("ms", 9, 1))
_DURATION = re.compile("".join(f"(?:([0-9]{{1,{digits}}}){unit})?" for unit, digits, _ in _UNITS))

Duration = Annotated[
    str,
    Field(min_length=1, max_length=32),
    Shape(
        "".join(f"([0-9]{{1,{digits}}}{unit})?" for unit, digits, _ in _UNITS),
        "be a duration such as 250ms, 90s, 2h or 1d12h (units d, h, m, s, ms, largest first)",
    ),
]
"""Go's notation with days added; the largest unit comes first and each unit appears once."""

PositiveDuration = Annotated[Duration, Rule("self.matches('[1-9]')", "must be longer than zero")]


def timedelta_of(duration: str) -> timedelta:
    """The length of a :data:`Duration`. Raises ``ValueError`` for a text that is none."""
    match = _DURATION.fullmatch(duration)
    if match is None or not duration:
        raise ValueError(f"{duration!r} is not a duration such as 250ms, 90s, 2h or 1d12h")
    parts = zip(match.groups(), _UNITS, strict=True)
    return timedelta(milliseconds=sum(int(number) * scale for number, (_, _, scale) in parts if number))


def cel_seconds(text: str) -> str:
    """CEL for the whole seconds of a :data:`Duration` that the CEL expression ``text`` yields: CEL knows no days."""
    days, rest = f"{text}.substring(0, {text}.indexOf('d'))", f"{text}.substring({text}.indexOf('d') + 1)"
    return (
        f"({text}.contains('d') ? int({days}) * 86400 + ({text}.endsWith('d') ? 0 : duration({rest}).getSeconds()) : "
        f"duration({text}).getSeconds())"
    )


Date = Annotated[
    str,
    DateText,
    Field(max_length=10),
    Shape(
        r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])",
        "be a date written as YYYY-MM-DD, for example 2027-06-30",
    ),
]

Digest = Annotated[
    str,
    Field(max_length=71),
    Shape(r"sha256:[0-9a-f]{64}", 'be "sha256:" followed by 64 lower-case hexadecimal digits'),
]

Percent = Annotated[int, Field(ge=0, le=100, json_schema_extra={"format": "int32"})]

DnsLabel = Annotated[
    str,
    Field(min_length=1, max_length=63),
    Shape(
        r"[a-z0-9]([-a-z0-9]*[a-z0-9])?",
        "be a DNS label: lower-case letters, digits and '-', beginning and ending with a letter or digit",
    ),
]

SubdomainName = Annotated[
    str,
    Field(min_length=1, max_length=253),
    Shape(
        r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?",
        "be the name of an object: lower-case letters, digits, '-' and '.', beginning and ending with a letter or "
        "digit",
    ),
]

ColumnName = Annotated[
    str,
    Field(min_length=1, max_length=128),
    Shape(r"[A-Za-z_][A-Za-z0-9_.]*", "be a column name: letters, digits, '_' and '.', beginning with a letter or '_'"),
]

VersionNumber = Annotated[
    str,
    Field(min_length=1, max_length=10),
    Shape(r"[1-9][0-9]*", 'be a version number of the registry in quotes, for example "7"'),
]
