"""Generates the CustomResourceDefinitions from the API types: ``python -m fiduciary.api.crd crds/``.

Kubernetes accepts a part of JSON Schema only ("structural schemas"), and pydantic writes more than that. What can be
said in both is translated; what cannot is refused here, with its path, rather than by the API server or, worse, never.
"""

from __future__ import annotations

import ast
import copy
import functools
import inspect
import itertools
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast, get_args

import yaml

from fiduciary.api.base import VALIDATIONS, ApiModel
from fiduciary.api.driftpolicy import DriftPolicy
from fiduciary.api.financialmodel import FinancialModel
from fiduciary.api.meta import GROUP, VERSION, Column, Resource
from fiduciary.api.modelapproval import ModelApproval
from fiduciary.api.modeldecision import ModelDecision
from fiduciary.api.modelexperiment import ModelExperiment

KINDS: tuple[type[Resource], ...] = (FinancialModel, ModelExperiment, DriftPolicy, ModelApproval, ModelDecision)

Schema = dict[str, Any]

_KEPT = frozenset(
    {
        "type",
        "format",
        "description",
        "default",
        "enum",
        "pattern",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
        "required",
        VALIDATIONS,
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
    }
)

_DEEPEST = 20

_TYPE_META: dict[str, Schema] = {
    "apiVersion": {
        "type": "string",
        "description": "Version of this API: fiduciary.dev/v1alpha1.",
    },
    "kind": {"type": "string", "description": "Kind of this object."},
    # 253 is Kubernetes' own limit; said here, it lets the API server see that rules on the name are cheap.
    "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 253}}},
}


class NotStructural(ValueError):
    """A type of the API that Kubernetes' structural schemas cannot express."""


def structural(schema: Mapping[str, Any], definitions: Mapping[str, Any], path: str, defaults: bool = True) -> Schema:
    """Translates one node of pydantic's JSON Schema into a structural schema.

    ``defaults`` off leaves all defaults out: what only the operator writes, it writes in full.
    Raises :class:`NotStructural` with ``path`` for anything that Kubernetes would refuse or ignore.
    """
    if path.count(".") > _DEEPEST:
        raise NotStructural(f"{path}: nested too deeply; a type that contains itself cannot be written out")
    node = _resolved(schema, definitions)
    node.pop("title", None)
    if not defaults or node.get("default") is None:
        node.pop("default", None)

    if isinstance(alternatives := node.pop("anyOf", None), list):
        return _alternatives(node, cast("list[Schema]", alternatives), definitions, path, defaults)
    if "const" in node:
        node["enum"] = [node.pop("const")]

    result: Schema = {}
    for name in list(node):
        if name in _KEPT:
            result[name] = node.pop(name)
    if "description" in result:
        result["description"] = " ".join(cast("str", result["description"]).split())
    _bounds(node, result)

    match result.get("type"):
        case "object":
            _object(node, result, definitions, path, defaults)
        case "array":
            if "items" not in node:
                raise NotStructural(f"{path}: a list needs items of one type")
            result["items"] = structural(node.pop("items"), definitions, f"{path}[]", defaults)
        case "integer":
            result.setdefault("format", "int64")
        case "string" | "boolean" | "number":
            pass
        case other:
            raise NotStructural(f"{path}: type {other!r} is not structural; name a concrete type")
    if node:
        raise NotStructural(f"{path}: {sorted(node)} cannot be said in a structural schema")
    _tidy_default(result)
    return result


def _resolved(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    """Follows references; what stands beside a reference wins, rules add up."""
    node = copy.deepcopy(dict(schema))
    reference = node.pop("$ref", None)
    if reference is None:
        return node
    target = _resolved(definitions[str(reference).removeprefix("#/$defs/")], definitions)
    rules = [*target.get(VALIDATIONS, []), *node.get(VALIDATIONS, [])]
    target.update(node)
    if rules:
        target[VALIDATIONS] = rules
    return target


def _alternatives(
    node: Schema, alternatives: list[Schema], definitions: Mapping[str, Any], path: str, defaults: bool
) -> Schema:
    """``X | None`` is an optional X; ``int | str`` is Kubernetes' int-or-string; nothing else is structural."""
    some = [alternative for alternative in alternatives if alternative.get("type") != "null"]
    if len(some) == 1:
        only = _resolved(some[0], definitions)
        rules = [*only.get(VALIDATIONS, []), *node.get(VALIDATIONS, [])]
        merged = {**only, **node, **({VALIDATIONS: rules} if rules else {})}
        return structural(merged, definitions, path, defaults)
    if sorted(str(alternative.get("type")) for alternative in some) == ["integer", "string"]:
        result: Schema = {"x-kubernetes-int-or-string": True}
        for part in (*some, node):
            result.update({name: value for name, value in part.items() if name not in ("type", "title", "default")})
        return result
    raise NotStructural(f"{path}: a choice of types; use optional fields and a rule that exactly one is set")


def _bounds(node: Schema, result: Schema) -> None:
    for bound in ("minimum", "maximum"):
        exclusive = "exclusive" + bound.capitalize()
        if bound in node:
            result[bound] = node.pop(bound)
        if exclusive in node:
            # JSON Schema 2020 writes the number here, OpenAPI 3.0 a flag.
            result[bound] = node.pop(exclusive)
            result[exclusive] = True


def _object(node: Schema, result: Schema, definitions: Mapping[str, Any], path: str, defaults: bool) -> None:
    properties = node.pop("properties", None)
    extra = node.pop("additionalProperties", None)
    if properties is not None:
        result["properties"] = {
            name: structural(child, definitions, f"{path}.{name}", defaults)
            for name, child in cast("dict[str, Schema]", properties).items()
        }
    elif extra is True or extra is None:
        result["x-kubernetes-preserve-unknown-fields"] = True
    else:
        result["additionalProperties"] = structural(cast("Schema", extra), definitions, f"{path}.*", defaults)


def _tidy_default(result: Schema) -> None:
    """Leaves out defaults that say nothing. Those of objects are written in full, although the defaults inside them
    would fire as well: the API server evaluates rules on a default before it fills it in."""
    if "default" in result:
        result["default"] = _without_nothing(result["default"])
        if result["default"] in ({}, []):
            del result["default"]


def _without_nothing(value: Any) -> Any:
    if isinstance(value, dict):
        entries = {name: _without_nothing(entry) for name, entry in cast("dict[str, Any]", value).items()}
        return {name: entry for name, entry in entries.items() if entry is not None and entry not in ({}, [])}
    if isinstance(value, list):
        return [_without_nothing(entry) for entry in cast("list[Any]", value)]
    return value


def _printer_column(column: Column) -> Schema:
    entry: Schema = {"name": column.name, "type": column.type, "jsonPath": column.path}
    if column.description:
        entry["description"] = column.description
    if column.wide:
        entry["priority"] = 1
    return entry


def describe(model: type[ApiModel], seen: frozenset[type[ApiModel]] = frozenset()) -> None:
    """Gives each field of this type, and of the types in it, the text that stands below it in the source."""
    for name, field in model.model_fields.items():
        for part in set(_parts(field.annotation)) - seen:
            describe(part, seen | {model})
        for parent in model.__mro__:
            if field.description is None and issubclass(parent, ApiModel):
                field.description = _texts(parent).get(name)
    model.model_rebuild(force=True)


def _parts(annotation: Any) -> Iterator[type[ApiModel]]:
    """The API types that an annotation names, at any depth."""
    if isinstance(annotation, type) and issubclass(annotation, ApiModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _parts(inner)


@functools.cache
def _texts(model: type[ApiModel]) -> Mapping[str, str]:
    """Field name -> the string literal that follows its annotation in the body of the class."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(model)))
    body = cast("ast.ClassDef", tree.body[0]).body
    texts: dict[str, str] = {}
    for field, text in itertools.pairwise(body):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str):
            texts[field.target.id] = inspect.cleandoc(text.value.value)
    return texts


def definition(kind: type[Resource]) -> Schema:
    """The CustomResourceDefinition of one kind, as the API server accepts it."""
    describe(kind)
    names = kind.registration
    raw = kind.model_json_schema(mode="validation", by_alias=True)
    definitions = cast("dict[str, Any]", raw.get("$defs", {}))
    fields = cast("dict[str, Schema]", raw["properties"])
    name = kind.__name__

    properties = copy.deepcopy(_TYPE_META)
    properties["spec"] = structural(fields["spec"], definitions, f"{name}.spec", defaults=names.has_status)
    properties["spec"].pop("default", None)
    if names.has_status:
        status = structural(fields["status"], definitions, f"{name}.status", defaults=False)
        # kstatus takes an object without status for finished; -1 says that nobody has looked at it yet.
        status["properties"]["observedGeneration"]["default"] = -1
        status["default"] = {"observedGeneration": -1}
        properties["status"] = status

    version: Schema = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [_printer_column(column) for column in names.columns],
        "schema": {
            "openAPIV3Schema": {
                "type": "object",
                "description": " ".join((kind.__doc__ or "").split()),
                "required": ["spec"],
                "properties": properties,
                VALIDATIONS: raw[VALIDATIONS],
            }
        },
    }
    if "modelRef" in properties["spec"]["properties"]:
        version["selectableFields"] = [{"jsonPath": ".spec.modelRef.name"}]
    if names.has_status:
        version["subresources"] = {"status": {}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{names.plural}.{GROUP}",
            "labels": {"app.kubernetes.io/name": "fiduciary", "app.kubernetes.io/part-of": "fiduciary"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": name,
                "listKind": f"{name}List",
                "plural": names.plural,
                "singular": names.singular,
                "shortNames": [names.short],
                "categories": ["fiduciary"],
            },
            "versions": [version],
        },
    }


def files() -> Iterator[tuple[str, str]]:
    """File name and content of each CRD, and of the kustomization that installs them."""
    names: list[str] = []
    for kind in KINDS:
        body = definition(kind)
        name = f"{GROUP}_{kind.registration.plural}.yaml"
        names.append(name)
        text = yaml.safe_dump(body, sort_keys=False, width=120, allow_unicode=True)
        yield (
            name,
            f"# Generated by `python -m fiduciary.api.crd crds/`. Change operator/fiduciary/api instead.\n{text}",
        )
    kustomization = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": names}
    yield "kustomization.yaml", yaml.safe_dump(kustomization, sort_keys=False)


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m fiduciary.api.crd DIRECTORY", file=sys.stderr)
        return 2
    directory = Path(arguments[0])
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files():
        (directory / name).write_text(text, encoding="utf-8")
        print(directory / name)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
