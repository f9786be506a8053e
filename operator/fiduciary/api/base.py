"""The base of every API type: how a Kubernetes object is parsed, dumped and described.

Reading is lenient (unknown fields are ignored, so that an older operator can read what a newer one stored), the
schema that the API server enforces is strict. Rules that JSON Schema cannot say travel with the types as CEL:
:class:`Rule` on a class or in an ``Annotated``, :class:`Shape` for texts that must have a form. A person sees the
message of the rule, not a regular expression.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, core_schema

VALIDATIONS = "x-kubernetes-validations"


@dataclass(frozen=True, slots=True)
class Rule:
    """A CEL rule of the CRD, with the message that the user reads.

    ``rule`` is CEL over ``self`` (and ``oldSelf``); ``field_path`` names the field to blame where the rule sits on its
    parent.
    """

    rule: str
    message: str
    field_path: str | None = None

    def schema(self) -> dict[str, Any]:
        """The rule as an entry of ``x-kubernetes-validations``."""
        entry: dict[str, Any] = {"rule": self.rule, "message": self.message}
        if self.field_path:
            entry["fieldPath"] = self.field_path
        return entry

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        json_schema = dict(handler(schema))
        json_schema[VALIDATIONS] = [*json_schema.get(VALIDATIONS, []), self.schema()]
        return json_schema


@dataclass(frozen=True, slots=True)
class Shape:
    """A text that must match ``pattern`` as a whole; ``must`` completes "it must ..." for the person who wrote it.

    The pattern has to mean the same in Python's ``re`` and in RE2 (the API server): no look-around, no back-reference.
    """

    pattern: str
    must: str

    def matches(self, text: str) -> bool:
        return re.fullmatch(self.pattern, text) is not None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def check(text: str) -> str:
            if not self.matches(text):
                raise ValueError(f"{text!r} must {self.must}")
            return text

        return core_schema.no_info_after_validator_function(check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return Rule(f"self.matches(r'^({self.pattern})$')", f"must {self.must}").__get_pydantic_json_schema__(
            schema, handler
        )


class ApiModel(BaseModel):
    """A frozen part of an object: snake_case here, camelCase on the wire.

    The text below a field describes it to users; :mod:`fiduciary.api.crd` reads it from the source when it writes the
    CRDs. pydantic could keep it with the field, at the price of parsing all this source at each start of an operator.

    ``Model.model_validate(body)`` parses, :meth:`body` gives the object back. Collections are tuples and mappings
    that nobody changes; a changed copy comes from ``model_copy(update=...)``, which validates nothing.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        extra="ignore",
        frozen=True,
        defer_build=True,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        json_schema = dict(handler.resolve_ref_schema(handler(schema)))
        if cls.rules:
            json_schema[VALIDATIONS] = [rule.schema() for rule in cls.rules]
        return json_schema

    def body(self) -> dict[str, Any]:
        """The JSON form: camelCase, unset optional fields left out, dates as RFC 3339 texts."""
        return self.model_dump(by_alias=True, exclude_none=True, mode="json")


def _whole_seconds(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(microsecond=0)


Time = Annotated[
    AwareDatetime,
    AfterValidator(_whole_seconds),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""A moment in UTC with whole seconds, as Kubernetes writes it: a fraction would make equal states differ."""


def _date_as_text(value: Any) -> Any:
    # PyYAML turns an unquoted 2017-12-29 into a date; the API server and kubectl keep the text.
    return value.isoformat() if hasattr(value, "isoformat") else value


DateText = BeforeValidator(_date_as_text)


def _clip(limit: int) -> BeforeValidator:
    def clip(value: Any) -> Any:
        return value[: limit - 1] + "…" if isinstance(value, str) and len(value) > limit else value

    return BeforeValidator(clip)


# Texts that a program writes for people are clipped, not refused: a long message of MLflow or the kubelet must never
# be the reason why a status cannot be stored.
Text = Annotated[str, _clip(4096), Field(max_length=4096)]
ShortText = Annotated[str, _clip(256), Field(max_length=256)]
CamelCase = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")]


def list_map(*keys: str) -> dict[str, Any]:
    """Schema of a list whose entries are found by ``keys``: duplicates are refused, an apply merges by entry."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


SET: dict[str, Any] = {"x-kubernetes-list-type": "set"}
ATOMIC: dict[str, Any] = {"x-kubernetes-list-type": "atomic"}
