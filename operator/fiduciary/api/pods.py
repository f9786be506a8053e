"""What a user may say about pods: a typed allow-list. Whatever is not here cannot be set, by design.

The fields and their meaning are those of Kubernetes' PodSpec, so that they can be copied into one unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fiduciary.api.base import ATOMIC, ApiModel, Rule, Shape
from fiduciary.api.meta import LocalRef
from fiduciary.api.quantities import SubdomainName

LabelKey = Annotated[
    str,
    Field(min_length=1, max_length=317),
    Shape(
        r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?",
        "be a label key such as disk or example.com/disk",
    ),
]
LabelValue = Annotated[
    str,
    Field(max_length=63),
    Shape(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?", "be a label value of at most 63 characters"),
]
Labels = Annotated[Mapping[str, LabelValue], Field(max_length=32)]

_QUANTITY = r"[0-9]{1,15}(\.[0-9]{1,9})?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?"

# A pattern, as Kubernetes' own CRDs have it: the API server takes an int-or-string for unbounded, and a rule on one
# for too expensive.
Quantity = Annotated[int, Field(ge=0)] | Annotated[str, Field(max_length=32, pattern=rf"^{_QUANTITY}$")]
Quantities = Annotated[Mapping[str, Quantity], Field(max_length=16)]


class Resources(ApiModel):
    """CPU, memory and extended resources (such as nvidia.com/gpu) of a pod."""

    requests: Quantities = Field(default_factory=dict[str, Quantity])
    """What the scheduler reserves, for example {cpu: "1", memory: 1Gi}."""
    limits: Quantities = Field(default_factory=dict[str, Quantity])
    """What may be used at most. Extended resources (GPUs) belong here."""


class Toleration(ApiModel):
    """A taint of nodes that the pod puts up with."""

    key: Annotated[str, Field(max_length=317)] | None = None
    """Key of the taint; absent with operator Exists means every taint."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """Exists or Equal. Default: Equal."""
    value: Annotated[str, Field(max_length=63)] | None = None
    """Value of the taint, for operator Equal."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; absent means every effect."""
    toleration_seconds: Annotated[int, Field(ge=0)] | None = None
    """How long the pod stays after a NoExecute taint, in seconds; absent means for ever."""


class LabelRequirement(ApiModel):
    """A condition on a label."""

    key: LabelKey
    """Label key."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How the label is compared."""
    values: Annotated[tuple[LabelValue, ...], Field(max_length=32, json_schema_extra=ATOMIC)] = ()
    """Values for In and NotIn."""


class LabelSelector(ApiModel):
    """Pods chosen by their labels."""

    match_labels: Labels = Field(default_factory=dict[str, str])
    """Labels that a pod must have."""
    match_expressions: Annotated[tuple[LabelRequirement, ...], Field(max_length=16, json_schema_extra=ATOMIC)] = ()
    """Conditions on labels, all of which must hold."""


class NodeRequirement(ApiModel):
    """A condition on a label or field of a node."""

    key: Annotated[str, Field(min_length=1, max_length=317)]
    """Label key, or metadata.name for fields."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    """How the label is compared."""
    values: Annotated[tuple[Annotated[str, Field(max_length=253)], ...], Field(max_length=32)] = ()
    """Values to compare with."""


class NodeSelectorTerm(ApiModel):
    """Conditions on a node, all of which must hold."""

    match_expressions: Annotated[tuple[NodeRequirement, ...], Field(max_length=16, json_schema_extra=ATOMIC)] = ()
    """Conditions on labels of the node."""
    match_fields: Annotated[tuple[NodeRequirement, ...], Field(max_length=16, json_schema_extra=ATOMIC)] = ()
    """Conditions on fields of the node."""


class NodeSelector(ApiModel):
    """Nodes on which the pod may run."""

    node_selector_terms: Annotated[tuple[NodeSelectorTerm, ...], Field(min_length=1, max_length=16)]
    """Alternatives: one of them must hold."""


class PreferredNodes(ApiModel):
    """Nodes that are preferred."""

    weight: Annotated[int, Field(ge=1, le=100, json_schema_extra={"format": "int32"})]
    """How much they are preferred, 1 to 100."""
    preference: NodeSelectorTerm
    """Conditions on the node."""


class NodeAffinity(ApiModel):
    """On which nodes the pod runs."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = None
    """Nodes that are necessary."""
    preferred_during_scheduling_ignored_during_execution: Annotated[
        tuple[PreferredNodes, ...], Field(max_length=16, json_schema_extra=ATOMIC)
    ] = ()
    """Nodes that are preferred."""


class PodAffinityTerm(ApiModel):
    """Pods of this namespace to be near to, or far from."""

    label_selector: LabelSelector | None = None
    """Which pods."""
    topology_key: LabelKey
    """What near means: a node label such as topology.kubernetes.io/zone."""


class PreferredPods(ApiModel):
    """Pods that are preferred as neighbours."""

    weight: Annotated[int, Field(ge=1, le=100, json_schema_extra={"format": "int32"})]
    """How much they are preferred, 1 to 100."""
    pod_affinity_term: PodAffinityTerm
    """Which pods, and what near means."""


class PodAffinity(ApiModel):
    """Near which pods the pod runs, or far from which."""

    required_during_scheduling_ignored_during_execution: Annotated[
        tuple[PodAffinityTerm, ...], Field(max_length=16, json_schema_extra=ATOMIC)
    ] = ()
    """What is necessary."""
    preferred_during_scheduling_ignored_during_execution: Annotated[
        tuple[PreferredPods, ...], Field(max_length=16, json_schema_extra=ATOMIC)
    ] = ()
    """What is preferred."""


class Affinity(ApiModel):
    """Where the pod runs, relative to nodes and other pods."""

    node_affinity: NodeAffinity | None = None
    """On which nodes."""
    pod_affinity: PodAffinity | None = None
    """Near which pods."""
    pod_anti_affinity: PodAffinity | None = None
    """Far from which pods."""


class TopologySpread(ApiModel):
    """How evenly pods are spread."""

    max_skew: Annotated[int, Field(ge=1, json_schema_extra={"format": "int32"})]
    """Largest difference of pods between two domains."""
    topology_key: LabelKey
    """Node label that makes a domain, such as topology.kubernetes.io/zone."""
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"]
    """Whether an uneven pod waits or runs."""
    label_selector: LabelSelector | None = None
    """Pods that are counted. Default: the pods of the same Job or serving version."""


_RESERVED = "fiduciary.dev/', 'kueue.x-k8s.io/', 'batch.kubernetes.io/', 'app.kubernetes.io/"
_RESERVED_RULE = Rule(
    f"self.all(k, !['{_RESERVED}'].exists(p, k.startsWith(p)))",
    "keys beginning with fiduciary.dev/, kueue.x-k8s.io/, batch.kubernetes.io/ or app.kubernetes.io/ are set by the "
    "operator; use spec.training.queueName for a queue, and another prefix for your own keys",
)


class PodTemplate(ApiModel):
    """Scheduling and labels of the pods. Containers, volumes, identities and security are not the user's to set."""

    rules: ClassVar[tuple[Rule, ...]] = ()

    node_selector: Labels = Field(default_factory=dict[str, str])
    """Labels that a node must have."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=16, json_schema_extra=ATOMIC)] = ()
    """Taints that the pods put up with."""
    affinity: Affinity | None = None
    """Where the pods run, relative to nodes and other pods."""
    priority_class_name: SubdomainName | None = None
    """PriorityClass of the pods."""
    runtime_class_name: SubdomainName | None = None
    """RuntimeClass of the pods, for example nvidia."""
    image_pull_secrets: Annotated[tuple[LocalRef, ...], Field(max_length=8, json_schema_extra=ATOMIC)] = ()
    """Secrets with which the images are pulled."""
    labels: Annotated[Mapping[str, LabelValue], Field(max_length=32), _RESERVED_RULE] = Field(
        default_factory=dict[str, str]
    )
    """Labels of the pods."""
    annotations: Annotated[
        Mapping[str, Annotated[str, Field(max_length=4096)]], Field(max_length=32), _RESERVED_RULE
    ] = Field(default_factory=dict[str, str])
    """Annotations of the pods."""
    topology_spread: Annotated[tuple[TopologySpread, ...], Field(max_length=8, json_schema_extra=ATOMIC)] = ()
    """How evenly the pods are spread (topologySpreadConstraints)."""
