"""The CRDs are what the types say, and only what Kubernetes can enforce."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from pydantic import Field

from fiduciary.api.base import ApiModel, Rule
from fiduciary.api.crd import KINDS, NotStructural, definition, describe, files, structural
from fiduciary.api.reference import page

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).resolve().parents[3]


def _translate(kind: type[ApiModel]) -> dict[str, Any]:
    describe(kind)
    raw = kind.model_json_schema(by_alias=True)
    return structural(raw, raw.pop("$defs", {}), kind.__name__)


def _walk(node: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from _walk(child, f"{path}.{name}")
    if "items" in node:
        yield from _walk(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from _walk(node["additionalProperties"], f"{path}.*")


EVERY_NODE = [
    (path, node)
    for kind in KINDS
    for path, node in _walk(definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"], kind.__name__)
]


@pytest.mark.parametrize(("name", "text"), list(files()), ids=lambda value: value if value.endswith(".yaml") else "")
def test_checked_in_crds_are_what_the_types_generate(name: str, text: str) -> None:
    stored = (ROOT / "crds" / name).read_text(encoding="utf-8")
    assert stored == text, "run `PYTHONPATH=operator python -m fiduciary.api.crd crds/` and commit"


def test_the_reference_page_is_what_the_types_generate() -> None:
    stored = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert stored == page(), "run `PYTHONPATH=operator python -m fiduciary.api.reference docs/api.md` and commit"


def test_no_crd_is_left_over() -> None:
    assert {path.name for path in (ROOT / "crds").iterdir()} == {name for name, _ in files()}


def test_every_field_says_what_it_is() -> None:
    silent = [
        path
        for path, node in EVERY_NODE
        if "description" not in node and "metadata" not in path and not path.endswith(("[]", "*"))
    ]
    assert silent == []


def test_descriptions_are_sentences() -> None:
    unfinished = [
        path
        for path, node in EVERY_NODE
        if "description" in node and not str(node["description"]).rstrip("\"'`").endswith((".", ":"))
    ]
    assert unfinished == []


def test_what_users_write_is_bounded() -> None:
    """The API server prices rules by the largest object: one list without a bound makes every rule too dear."""
    unbounded = [
        path
        for path, node in EVERY_NODE
        if ".spec" in path
        and (
            (node.get("type") == "string" and not {"maxLength", "enum", "format"} & set(node))
            or (node.get("type") == "array" and "maxItems" not in node)
            or ("additionalProperties" in node and "maxProperties" not in node)
        )
    ]
    # Maps of a record that only the operator writes.
    assert unbounded == ["ModelDecision.spec.cause.trigger.*"]


def test_names_of_enumerated_values_appear_in_the_description() -> None:
    """kubectl explain cuts long enumerations; the sentence has to name them."""
    forgotten = [
        (path, value)
        for path, node in EVERY_NODE
        for value in node.get("enum", [])
        if "spec" in path and "podTemplate" not in path and not path.endswith("[]")
        if value not in str(node.get("description"))
    ]
    allowed = ("action", "cause.kind", "role", "severity", "metric")
    assert [found for found in forgotten if not found[0].endswith(allowed)] == []


def test_defaults_named_in_descriptions_are_the_defaults() -> None:
    """``Default: X.`` in a description and the default of the schema must not drift apart."""
    import re

    wrong: list[tuple[str, str, object]] = []
    for path, node in EVERY_NODE:
        said = re.search(r'Default: ("?)([A-Za-z0-9.]+?)\1\.(?: |$)', str(node.get("description", "")))
        if said is None or "default" not in node or isinstance(node["default"], dict | list):
            continue
        default = str(node["default"]).lower() if isinstance(node["default"], bool) else str(node["default"])
        if said[2] != default:
            wrong.append((path, said[2], node["default"]))
    assert wrong == []


def test_status_begins_as_unobserved_and_records_get_no_defaults() -> None:
    for kind in KINDS:
        schema = definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        defaults = {path: node["default"] for path, node in _walk(schema, "") if "default" in node}
        status = {path: value for path, value in defaults.items() if path.startswith(".status")}
        if kind.registration.has_status:
            assert status == {".status": {"observedGeneration": -1}, ".status.observedGeneration": -1}
        else:
            assert defaults == {}, "what is hashed must be stored as it was written"


# -- the generator itself


class _Inner(ApiModel):
    """Inner."""

    number: int = 3
    """Number."""


def test_an_optional_field_is_the_field_itself() -> None:
    class Kind(ApiModel):
        """Kind."""

        inner: _Inner | None = None
        """Inner or nothing."""

    inner = _translate(Kind)["properties"]["inner"]
    assert inner["type"] == "object"
    assert inner["description"] == "Inner or nothing."
    assert "default" not in inner
    assert "nullable" not in inner


def test_the_default_of_an_object_is_written_in_full() -> None:
    class Kind(ApiModel):
        """Kind."""

        inner: _Inner = _Inner()
        """Inner."""

    assert _translate(Kind)["properties"]["inner"]["default"] == {"number": 3}


def test_exclusive_bounds_become_flags() -> None:
    class Kind(ApiModel):
        """Kind."""

        share: Annotated[int, Field(gt=0, lt=10)]
        """Share."""

    share = _translate(Kind)["properties"]["share"]
    assert (share["minimum"], share["exclusiveMinimum"]) == (0, True)
    assert (share["maximum"], share["exclusiveMaximum"]) == (10, True)


def test_int_or_string_keeps_its_bounds() -> None:
    class Kind(ApiModel):
        """Kind."""

        size: Annotated[int, Field(ge=0)] | Annotated[str, Field(max_length=8, pattern="^[0-9]+$")]
        """Size."""

    size = _translate(Kind)["properties"]["size"]
    assert size == {
        "x-kubernetes-int-or-string": True,
        "minimum": 0,
        "maxLength": 8,
        "pattern": "^[0-9]+$",
        "description": "Size.",
    }


def test_rules_of_a_type_and_of_its_field_add_up() -> None:
    class Ruled(ApiModel):
        """Ruled."""

        rules = (Rule("true", "of the type"),)
        number: int = 1
        """Number."""

    class Kind(ApiModel):
        """Kind."""

        part: Annotated[Ruled, Rule("true", "of the field")]
        """Part."""
        maybe: Annotated[Ruled, Rule("true", "of the field")] | None = None
        """Maybe."""

    for name in ("part", "maybe"):
        rules = _translate(Kind)["properties"][name]["x-kubernetes-validations"]
        assert [rule["message"] for rule in rules] == ["of the type", "of the field"]


def test_one_literal_is_an_enumeration() -> None:
    class Kind(ApiModel):
        """Kind."""

        only: Literal["One"]
        """Only."""

    assert _translate(Kind)["properties"]["only"]["enum"] == ["One"]


class _Tree(ApiModel):
    """Tree."""

    children: tuple[_Tree, ...] = ()
    """Children."""


def test_what_is_not_structural_is_refused_with_its_path() -> None:
    class Choice(ApiModel):
        """Choice."""

        either: int | _Inner
        """Either."""

    class Anything(ApiModel):
        """Anything."""

        value: Any
        """Value."""

    class Pair(ApiModel):
        """Pair."""

        pair: tuple[int, str]
        """Pair."""

    with pytest.raises(NotStructural, match=r"Choice\.either: a choice of types"):
        _translate(Choice)
    with pytest.raises(NotStructural, match=r"Anything\.value: type None is not structural"):
        _translate(Anything)
    with pytest.raises(NotStructural, match=r"Pair\.pair"):
        _translate(Pair)
    with pytest.raises(NotStructural, match="nested too deeply"):
        _translate(_Tree)
