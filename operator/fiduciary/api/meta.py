"""Names of the API group, its labels and annotations, and the parts of Kubernetes objects that we read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from fiduciary.api.base import ApiModel, Rule, Time
from fiduciary.api.quantities import DnsLabel, SubdomainName

GROUP = "fiduciary.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

FIELD_MANAGER = "fiduciary"
FINALIZER = "fiduciary.dev/finalizer"

LABEL_MODEL = "fiduciary.dev/model"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED_BY = "fiduciary"
LABEL_COMPONENT = "fiduciary.dev/component"  # of Jobs, pods and what confines them
TRAINING, SERVING, COMPARISON, OUTCOMES = "training", "serving", "comparison", "outcomes"
LABEL_VERSION = "fiduciary.dev/version"  # number of the version that an object serves
LABEL_RETAINED = "fiduciary.dev/retained"  # serving that a deleted FinancialModel left behind (deletionPolicy Retain)
CONSUMABLE = "fiduciary.dev/consumable"  # label of Secrets and claims that models may use; set by their owner

ANNOTATION_TRAINING_KEY = "fiduciary.dev/training-key"
ANNOTATION_SPEC_KEY = "fiduciary.dev/spec-key"
ANNOTATION_AS_OF = "fiduciary.dev/as-of"
ANNOTATION_TRIGGER = "fiduciary.dev/trigger"
ANNOTATION_JOB = "fiduciary.dev/job"
ANNOTATION_LEDGER = "fiduciary.dev/ledger"  # of a comparison Job: what it posts to the scorer
ANNOTATION_DIGEST = "fiduciary.dev/digest"  # whole digest of the version that an object serves
ANNOTATION_DECISION = "fiduciary.dev/decision"  # of a route: the record that it carries out
ANNOTATION_SERVING_KEY = "fiduciary.dev/serving-key"  # of a Deployment: hash of the user's part in its pods
ANNOTATION_APPLIED = "fiduciary.dev/applied"  # what we ask of the object, see manifests.content
ANNOTATION_REPLAY_FROM = "fiduciary.dev/replay-from"  # of a market replay: its first day (settings outcomes.replay)
LABEL_OUTCOME_WRITER = "fiduciary.dev/outcome-writer"  # of pods: they may reach the scorer
ANNOTATION_EDITED_BY = "fiduciary.dev/edited-by"  # who last changed the spec; set by an admission policy only


class ObjectMeta(ApiModel):
    """The metadata that decisions read; the rest of Kubernetes' ObjectMeta is left alone."""

    name: str
    """Name of the object."""
    namespace: str = ""
    """Namespace of the object."""
    uid: str = ""
    """Identity given by the API server: another object of the same name has another one."""
    generation: int = 0
    """Counts changes of the spec."""
    resource_version: str = ""
    """Version of the stored object."""
    creation_timestamp: Time | None = None
    """When the API server created the object."""
    deletion_timestamp: Time | None = None
    """When deletion was asked for; the object exists until its finalizers are gone."""
    finalizers: tuple[str, ...] = ()
    """Who still has to clean up before the object may go."""
    annotations: Mapping[str, str] = Field(default_factory=dict[str, str])
    """Annotations."""
    labels: Mapping[str, str] = Field(default_factory=dict[str, str])
    """Labels."""

    @model_serializer(mode="wrap")
    def _known_parts(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # What the API server has not set yet is absent, not empty: an empty uid would be a precondition.
        return {name: value for name, value in handler(self).items() if value}


class LocalRef(ApiModel):
    """An object in the same namespace, by name."""

    name: SubdomainName
    """Name of the object, in the same namespace."""


class ModelRef(ApiModel):
    """A FinancialModel in the same namespace."""

    name: Annotated[DnsLabel, Field(max_length=40)]
    """Name of the FinancialModel, in the same namespace."""


@dataclass(frozen=True, slots=True)
class Column:
    """A printer column of ``kubectl get``; ``wide`` shows it with ``-o wide`` only."""

    name: str
    path: str
    type: Literal["string", "integer", "date", "boolean", "number"] = "string"
    description: str = ""
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """How a kind is registered: its names, columns, and the longest name that its children still fit."""

    singular: str
    plural: str
    short: str
    columns: tuple[Column, ...]
    max_name: int = 63
    has_status: bool = True
    initial_status: bool = True  # status {observedGeneration: -1}: a fresh object is "in progress" for kstatus


class Resource(ApiModel):
    """A Kubernetes object of our group; subclasses narrow ``spec`` and ``status``."""

    registration: ClassVar[Kind]

    api_version: Literal["fiduciary.dev/v1alpha1"] = "fiduciary.dev/v1alpha1"
    metadata: ObjectMeta


def name_rules(kind: str, longest: int) -> tuple[Rule, ...]:
    """CEL on ``metadata.name``: children are named after the object, and some of them are DNS-1035 labels."""
    return (
        Rule(
            f"size(self.metadata.name) <= {longest}",
            f"the name of a {kind} must have at most {longest} characters, because the names of its children are made "
            "from it; choose a shorter one",
            field_path=".metadata.name",
        ),
        Rule(
            "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            f"the name of a {kind} must be a DNS-1035 label: lower-case letters, digits and '-', beginning with a "
            "letter and ending with a letter or digit",
            field_path=".metadata.name",
        ),
    )
