"""Reading JSON that somebody else wrote: each problem names the field, what was seen and what was expected."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

CONTRACT_VERSION = 1
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
AMOUNT = re.compile(r"[0-9]{1,15}(\.[0-9]{1,12})?")
DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class Refused(Exception):
    """What was asked for cannot be done, now or ever; nothing was changed.

    Attributes:
        reason: a stable CamelCase word.
        status: the HTTP status that says whose turn it is.
    """

    def __init__(self, reason: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.status = status


def parse(data: bytes) -> object:
    """JSON with the numbers that JSON has: no NaN, no infinity, no key twice.

    Raises:
        Refused: ``BadJson``.
    """
    try:
        return json.loads(data, parse_constant=_no_constant, object_pairs_hook=_no_repeats)
    except (ValueError, RecursionError) as error:
        raise Refused("BadJson", f"the body is not JSON: {error or type(error).__name__}") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return found


def canonical(value: object) -> bytes:
    """The bytes that are hashed: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(value: object) -> str:
    return "sha256:" + hashlib.sha256(canonical(value)).hexdigest()


def shortest(value: float) -> str:
    """Shortest decimal text that reads back as the same float64; never ``-0.0``."""
    return repr(value + 0.0)


@dataclass(frozen=True, slots=True)
class Field:
    """A value with the path that leads to it."""

    path: str
    value: object

    def refuse(self, expected: str, reason: str = "BadField") -> NoReturn:
        seen = "absent" if self.value is None else f"{self.value!r:.100}"
        raise Refused(reason, f"{self.path} is {seen}; expected {expected}")

    def object(self, required: frozenset[str], optional: frozenset[str] = frozenset()) -> Object:
        if not isinstance(self.value, dict):
            self.refuse("an object")
        found = cast("dict[str, object]", self.value)
        if not required <= found.keys() <= required | optional:
            missing, unknown = required - found.keys(), found.keys() - required - optional
            said = [f"lacks {', '.join(sorted(missing))}"] if missing else []
            said += [f"has the unknown {', '.join(sorted(unknown))[:200]}"] if unknown else []
            known = ", ".join(sorted(required)) + (f" (optional: {', '.join(sorted(optional))})" if optional else "")
            raise Refused("BadField", f"{self.path or 'the document'} {' and '.join(said)}; expected {known}")
        return Object(self.path, found)

    def list(self, most: int, least: int = 0) -> list[object]:
        if not isinstance(self.value, list):
            self.refuse("a list")
        found = cast("list[object]", self.value)
        if len(found) > most:
            raise Refused("TooMany", f"{self.path} has {len(found)} items; at most {most} are taken at a time", 413)
        if len(found) < least:
            self.refuse(f"at least {least} items")
        return found

    def items(self, most: int, least: int = 0) -> Iterator[Field]:
        for index, item in enumerate(self.list(most, least)):
            yield Field(f"{self.path}[{index}]", item)

    def text(self, most: int = 253, least: int = 1, shape: re.Pattern[str] | None = None, what: str = "") -> str:
        if not isinstance(self.value, str) or not least <= len(self.value) <= most or "\0" in self.value:
            self.refuse(what or f"text of {least} to {most} characters")
        if shape is not None and not shape.fullmatch(self.value):
            self.refuse(what or f"text like {shape.pattern}")
        return self.value

    def optional_text(self, most: int = 253) -> str | None:
        return None if self.value is None else self.text(most)

    def integer(self, low: int = 0, high: int = 2**53) -> int:
        if type(self.value) is not int or not low <= self.value <= high:
            self.refuse(f"an integer from {low} to {high}")
        return self.value

    def number(self) -> float:
        if type(self.value) not in (int, float):
            self.refuse("a finite number")
        try:
            value = float(cast("int", self.value))
        except OverflowError:
            value = math.inf
        if not abs(value) <= 1e100:
            self.refuse("a finite number of at most 1e100")
        return value

    def shortest(self) -> float:
        """A float64 as its own shortest text: the same bits everywhere."""
        value = math.nan
        if isinstance(self.value, str) and len(self.value) <= 32:
            try:
                value = float(self.value)
            except ValueError:
                value = math.nan
        if not abs(value) <= 1e100 or shortest(value) != self.value:
            self.refuse('the shortest decimal text of a finite float64, in quotes, for example "0.25" or "1e-07"')
        return value

    def amount(self) -> float:
        """A decimal number as a person writes it."""
        text = self.text(32, shape=AMOUNT, what='a decimal number in quotes that is not negative, for example "2.5"')
        return float(text)

    def choice(self, *choices: str) -> str:
        if self.value not in choices:
            self.refuse(f"one of {', '.join(choices)}")
        return cast("str", self.value)

    def digest(self) -> str:
        return self.text(71, 71, DIGEST, "sha256: and 64 hexadecimal digits")


@dataclass(frozen=True, slots=True)
class Object:
    """An object whose keys were checked."""

    path: str
    content: Mapping[str, object]

    def __getitem__(self, key: str) -> Field:
        return Field(f"{self.path}.{key}" if self.path else key, self.content.get(key))

    def __contains__(self, key: str) -> bool:
        return self.content.get(key) is not None

    def optional(self, key: str, read: Callable[[Field], Any]) -> Any:
        """``read`` of the field, None where it is absent or null."""
        return read(self[key]) if key in self else None


def check_contract(found: Object) -> None:
    if found["contractVersion"].value != CONTRACT_VERSION:
        found["contractVersion"].refuse(str(CONTRACT_VERSION), "UnknownContract")


def envelope(data: bytes, required: frozenset[str], optional: frozenset[str] = frozenset()) -> Object:
    """A whole document of this contract version. Raises :class:`Refused`."""
    found = Field("", parse(data)).object(required | {"contractVersion"}, optional)
    check_contract(found)
    return found


def model_name(field: Field, namespace: str) -> str:
    """``<namespace>.<name>`` of this scorer's own namespace."""
    name = field.text(128, what=f"{namespace}.NAME")
    own, _, short = name.partition(".")
    if own != namespace or not DNS_LABEL.fullmatch(short):
        field.refuse(f"{namespace}.NAME: this scorer keeps the models of namespace {namespace} only", "OtherNamespace")
    return name
