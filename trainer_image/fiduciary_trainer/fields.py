"""Fields of the job document, each read with its kind and bounds: every refusal names the field and what was seen."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from fiduciary_trainer.outcome import BadContract

_UNITS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_NO_DEFAULT: Any = object()


class Node:
    """An object of the document and where it is, so that every refusal can name the field."""

    def __init__(self, path: str, value: Any) -> None:
        self.path = path
        if not isinstance(value, dict):
            raise BadContract("InvalidValue", f"{path or 'the document'} is {_shown(value)}; expected an object")
        self.value: dict[str, Any] = value

    def wrong(self, key: str, expected: str) -> BadContract:
        path = ".".join(part for part in (self.path, key) if part)
        seen = _shown(self.value.get(key) if key else self.value)
        return BadContract("InvalidValue", f"{path} is {seen}; expected {expected}")

    def child(self, key: str) -> Node:
        return Node(f"{self.path}.{key}".lstrip("."), self.value.get(key))

    def optional_child(self, key: str) -> Node | None:
        return None if self.value.get(key) is None else self.child(key)

    def get(
        self, key: str, kind: type, *, default: Any = _NO_DEFAULT, low: int | None = None, high: int | None = None
    ) -> Any:
        value: Any = self.value.get(key)
        if value is None and default is not _NO_DEFAULT:
            return default
        names = {str: "a text", int: "an integer", list: "a list", dict: "an object"}
        if not isinstance(value, kind) or isinstance(value, bool) or value == "":
            raise self.wrong(key, names[kind])
        if kind is int:
            self._within(key, value, low, high)
        return value

    def choice(self, key: str, options: tuple[Any, ...], *, default: Any = _NO_DEFAULT) -> Any:
        value = self.get(key, str, default=default)
        if value not in options:
            raise self.wrong(key, f"one of {', '.join(options)}")
        return value

    def decimal(self, key: str, *, default: Any, low: float, high: float) -> Any:
        value = self.value.get(key)
        if value is None:
            return default
        number = decimal(value)
        if number is None:
            raise self.wrong(key, "a decimal number in quotes")
        self._within(key, number, low, high)
        return number

    def duration(self, key: str) -> timedelta | None:
        value = self.get(key, str, default=None)
        if value is None:
            return None
        match = re.fullmatch("".join(rf"(?:(\d{{1,9}}){unit})?" for unit in _UNITS), value)
        if match is None:
            raise self.wrong(key, "a duration such as 5d or 36h")
        parts = zip(match.groups(), _UNITS.values(), strict=True)
        return timedelta(milliseconds=sum(int(number) * scale for number, scale in parts if number))

    def _within(self, key: str, value: float, low: float | None, high: float | None) -> None:
        if (low is not None and value < low) or (high is not None and value > high):
            raise self.wrong(key, f"a number from {low} to {high}" if high is not None else f"at least {low}")


def decimal(value: Any) -> float | None:
    """A decimal text (or an integer) as a number; None if it is none or not finite."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    try:
        number = Decimal(value)
    except InvalidOperation:
        return None
    return float(number) if number.is_finite() else None


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return "missing" if value is None else text if len(text) <= 80 else f"{text[:77]}..."
