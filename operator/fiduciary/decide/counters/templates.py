"""Which series count what, and for whom: one template a kind of counter.

A template turns series into tracks. It never reads a namespace or a pod from what the pod itself says: these labels
come from the scrape target (``honor_labels: false``), and a pod that claims another one is found under ``exported_*``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

from fiduciary.decide.counters.state import (
    CLIENT,
    FAILED,
    FIELDS,
    GOOD,
    PROBES,
    PROBES_FAILED,
    STARTED,
    TIMED,
    TIMED_ENDED,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

StreamName = Literal["live", "mirror", "copies", "pods"]
"""Live requests at the gateway, mirrored ones whose outcome it counts, mirrored ones of which it knows only that they
were sent, and what the pods counted."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One version's objects: the Deployment and the Service are both called ``name``, the mirror's ``name-mirror``.

    ``servers``: with Seldon, where the Model is called so: the Servers that may have loaded it. Empty: it has pods of
    its own.
    """

    namespace: str
    name: str
    servers: tuple[str, ...] = ()

    @property
    def bare(self) -> Workload:
        """As a template finds it in a series, which names no Server."""
        return replace(self, servers=())

    def holds(self, unit: str) -> bool:
        """Whether a unit may be its. Another pod of the namespace may claim to have loaded it; a Server's are called
        ``<Server>-<ordinal>``, by a label of the scrape target."""
        server, _, ordinal = unit.split("/")[1].rpartition("-")
        return not self.servers or (server in self.servers and ordinal.isdecimal())


@dataclass(frozen=True, slots=True)
class Owned:
    """A series that counts requests of a workload. ``fields``: places in a unit's values that it adds to."""

    workload: Workload
    stream: StreamName
    unit: str
    fields: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Vital:
    """A series that says whether and since when a target runs; ``target``: prefix of its units' keys."""

    target: str
    kind: Literal["start", "uptime"]


class Template(Protocol):
    """One kind of counter."""

    @property
    def labels(self) -> Collection[str]:
        """Labels with a meaning here, beyond ``__name__``, namespace and pod; all others name a copy of the series."""
        ...

    def matchers(self, workloads: Sequence[Workload], thresholds: Sequence[int]) -> Mapping[str, Sequence[str]]:
        """Label -> regular expressions (anchored, alternatives) of the query; an empty one matches a missing label."""
        ...

    def classify(self, labels: Mapping[str, str], thresholds: Sequence[int]) -> Owned | Vital | None:
        """What a series is; None for what this template does not count."""
        ...

    def series(self, thresholds: Sequence[int]) -> int:
        """How many series one unit has, roughly: for the size of queries."""
        ...


def escaped(text: str) -> str:
    """``text`` for a regular expression of RE2: names of objects hold nothing special but dots."""
    return text.replace("\\", "\\\\").replace(".", "\\.")


def edge_texts(threshold: int, unit: float) -> tuple[str, ...]:
    """How ``le`` may spell a threshold (ms) that a histogram counts in ``unit`` ms: 250 or 250.0."""
    value = threshold / unit
    whole = (str(int(value)), f"{int(value)}.0") if value == int(value) else ()
    return (*whole, *(() if whole else (repr(value),)))


def place_of(le: str, thresholds: Sequence[int], unit: float) -> int | None:
    """Place of the bucket that ends at ``le``, whatever its spelling."""
    try:
        edge = float(le) * unit
    except ValueError:
        return None
    for index, threshold in enumerate(thresholds):
        if abs(edge - threshold) <= 1e-6 * threshold:
            return len(FIELDS) + index
    return None


def target_of(labels: Mapping[str, str], namespace: str, pod: str) -> str | None:
    """Namespace and pod of the scrape target."""
    place, name = labels.get(namespace), labels.get(pod)
    return f"{place}/{name}" if place and name else None


@dataclass(frozen=True, slots=True)
class Runtime:
    """Our serving runtime: counted in the pod at the start and at the end of each request, probes apart.

    A pod belongs to the version that its name begins with: ``<name>-<hash>-<suffix>``, with KServe
    ``<name>-predictor-<hash>-<suffix>``.
    """

    namespace: str = "namespace"
    pod: str = "pod"

    @property
    def labels(self) -> Collection[str]:
        return ("protocol", "outcome", "le", "addressed", "model", "version", "digest")

    def matchers(self, workloads: Sequence[Workload], thresholds: Sequence[int]) -> Mapping[str, Sequence[str]]:
        edges, names = _of_runtime(thresholds)
        return {
            "__name__": [*names, "process_start_time_seconds"],
            self.namespace: sorted({escaped(workload.namespace) for workload in workloads}),
            self.pod: [f"{escaped(workload.name)}(-predictor)?-[a-z0-9]+-[a-z0-9]+" for workload in workloads],
            "le": ["", *edges],
        }

    def classify(self, labels: Mapping[str, str], thresholds: Sequence[int]) -> Owned | Vital | None:
        target = target_of(labels, self.namespace, self.pod)
        workload = self._workload(labels)
        if target is None or workload is None:
            return None
        name = labels.get("__name__", "")
        if name == "process_start_time_seconds":
            return Vital(target, "start")
        fields = _counted_by_runtime(name, labels, thresholds)
        return Owned(workload, "pods", target, fields) if fields else None

    def series(self, thresholds: Sequence[int]) -> int:
        return 22 + 2 * len(thresholds)

    def _workload(self, labels: Mapping[str, str]) -> Workload | None:
        parts = labels.get(self.pod, "").rsplit("-", 2)
        name = parts[0].removesuffix("-predictor")
        return Workload(labels.get(self.namespace, ""), name) if len(parts) == 3 else None


@dataclass(frozen=True, slots=True)
class Contour:
    """Envoy's counters as Contour names them: cluster ``<namespace>_<service>_<port>`` (its ``alt_stat_name``).

    Verified on Envoy 1.38: ``upstream_rq_total`` counts what got a connection; a refused connection is counted by
    ``pending_failure_eject``, a full queue by ``pending_overflow``, no endpoint by ``cx_none_healthy``. All of these
    answers, and time-outs (504), are in ``upstream_rq_xx``; a client that went away before the answer is in none. The
    histogram holds what the upstream answered, ``upstream_rq_timeout`` what was slower than the route's time-out.

    gRPC: a failed call is a 200 there. Its status is counted by ``envoy_cluster_grpc_<status>``, which Contour switches
    on for what clients send; copies pass no filter, so that of a mirrored call nobody but the pod knows how it ended.

    ``namespaces``: those of the gateway's proxies, from the operator's settings. A tenant's pod that shows series under
    these names has another namespace.
    """

    namespaces: tuple[str, ...]
    rest_port: int = 8080
    grpc_port: int = 8081
    namespace: str = "namespace"
    pod: str = "pod"

    @property
    def labels(self) -> Collection[str]:
        return ("envoy_cluster_name", "envoy_response_code_class", "le")

    def matchers(self, workloads: Sequence[Workload], thresholds: Sequence[int]) -> Mapping[str, Sequence[str]]:
        edges = [escaped(text) for threshold in thresholds for text in edge_texts(threshold, 1.0)]
        prefix = "envoy_cluster_upstream_"
        ports = f"{self.rest_port}|{self.grpc_port}"
        names = [prefix + name for name in (*_SENT, "rq_xx", "rq_timeout", "rq_time_count")]
        names.append("envoy_cluster_grpc_1?[0-9]")
        clusters = [
            f"{escaped(workload.namespace)}_{escaped(workload.name)}(-ks)?(-mirror)?_({ports})"
            for workload in workloads
        ]
        return {
            "__name__": [*names, *([prefix + "rq_time_bucket"] if edges else []), "envoy_server_uptime"],
            self.namespace: [escaped(namespace) for namespace in self.namespaces],
            "envoy_cluster_name": ["", *clusters],
            "le": ["", *edges],
        }

    def classify(self, labels: Mapping[str, str], thresholds: Sequence[int]) -> Owned | Vital | None:
        target = target_of(labels, self.namespace, self.pod)
        if target is None or labels[self.namespace] not in self.namespaces:
            return None
        name = labels.get("__name__", "")
        if name == "envoy_server_uptime":
            return Vital(target, "uptime")
        parts = labels.get("envoy_cluster_name", "").split("_")  # names of objects hold no underscore
        if len(parts) != 3 or parts[2] not in (str(self.rest_port), str(self.grpc_port)):
            return None
        namespace, service, port = parts
        fields = self._fields(name, labels, thresholds, port == str(self.grpc_port))
        if not fields:
            return None
        mirrored = service.endswith("-mirror")
        copies: StreamName = "mirror" if port == str(self.rest_port) else "copies"
        workload = Workload(namespace, service.removesuffix("-mirror").removesuffix("-ks"))
        return Owned(workload, copies if mirrored else "live", f"{target}/{service}_{port}", fields)

    def series(self, thresholds: Sequence[int]) -> int:
        return 2 * (11 + len(thresholds))

    def _fields(self, name: str, labels: Mapping[str, str], thresholds: Sequence[int], grpc: bool) -> tuple[int, ...]:
        status = name.removeprefix("envoy_cluster_grpc_")
        if status != name:
            return (_grpc_answer(int(status)),) if grpc and status.isdecimal() else ()
        counter = name.removeprefix("envoy_cluster_upstream_")
        if counter in _SENT:
            return (STARTED,)
        if counter == "rq_xx":
            if grpc:
                return ()
            by_class = {"2": (GOOD,), "3": (GOOD,), "4": (CLIENT,), "5": (FAILED,)}
            return by_class.get(labels.get("envoy_response_code_class", ""), ())
        if counter in ("rq_time_count", "rq_timeout"):
            return (TIMED, TIMED_ENDED)
        if counter == "rq_time_bucket":
            place = place_of(labels.get("le", ""), thresholds, 1.0)
            return () if place is None else (place,)
        return ()


def _grpc_answer(status: int) -> int:
    """Field of a gRPC status: OK; what the caller did wrong (INVALID_ARGUMENT, NOT_FOUND, ...); everything else."""
    return GOOD if status == 0 else CLIENT if status in (3, 5, 6, 7, 9, 11, 16) else FAILED


_SENT = ("rq_total", "rq_pending_failure_eject", "rq_pending_overflow", "cx_none_healthy")


@dataclass(frozen=True, slots=True)
class Seldon:
    """Our serving runtime as the model server of Seldon's Servers: what :class:`Runtime` counts, many versions in a
    pod.

    ``model_internal`` is the agent's name for a version, ``<Model>_<number>``, mirrored copies included. Seldon's own
    counters (``seldon_model_infer_total``) have that label too, but count answers only and keep no histogram of it.
    """

    namespace: str = "namespace"
    pod: str = "pod"

    @property
    def labels(self) -> Collection[str]:
        return ("protocol", "outcome", "le", "addressed", "model", "version", "digest", "model_internal")

    def matchers(self, workloads: Sequence[Workload], thresholds: Sequence[int]) -> Mapping[str, Sequence[str]]:
        edges, names = _of_runtime(thresholds)
        servers = {server for workload in workloads for server in workload.servers}
        return {
            "__name__": [*names, "fiduciary_version_start_time_seconds"],
            self.namespace: sorted({escaped(workload.namespace) for workload in workloads}),
            self.pod: [f"{escaped(server)}-[0-9]+" for server in sorted(servers)],
            "model_internal": [f"{escaped(workload.name)}_[0-9]+" for workload in workloads],
            "le": ["", *edges],
        }

    def classify(self, labels: Mapping[str, str], thresholds: Sequence[int]) -> Owned | Vital | None:
        target = target_of(labels, self.namespace, self.pod)
        internal = labels.get("model_internal", "")
        model, _, number = internal.rpartition("_")
        if target is None or not model or not number.isdecimal():
            return None
        name, unit = labels.get("__name__", ""), f"{target}/{internal}"
        if name == "fiduciary_version_start_time_seconds":
            return Vital(unit, "start")
        fields = _counted_by_runtime(name, labels, thresholds)
        return Owned(Workload(labels[self.namespace], model), "pods", unit, fields) if fields else None

    def series(self, thresholds: Sequence[int]) -> int:
        return 22 + 2 * len(thresholds)


def _of_runtime(thresholds: Sequence[int]) -> tuple[list[str], list[str]]:
    """(edges as ``le`` may spell them, names of series) of what our serving runtime counts."""
    edges = [escaped(text) for threshold in thresholds for text in edge_texts(threshold, 1000.0)]
    names = [
        "fiduciary_requests_started_total",
        "fiduciary_requests_total",
        "fiduciary_probes_started_total",
        "fiduciary_probes_total",
        "fiduciary_request_seconds_count",
        *(["fiduciary_request_seconds_bucket"] if edges else []),
    ]
    return edges, names


def _counted_by_runtime(name: str, labels: Mapping[str, str], thresholds: Sequence[int]) -> tuple[int, ...]:
    if name == "fiduciary_requests_started_total":
        return (STARTED, TIMED)
    if name == "fiduciary_requests_total":
        by_outcome = {"success": (GOOD,), "client_error": (CLIENT,), "server_error": (FAILED,)}
        return by_outcome.get(labels.get("outcome", ""), ())
    if name == "fiduciary_request_seconds_count":
        return (TIMED_ENDED,)
    if name == "fiduciary_request_seconds_bucket":
        place = place_of(labels.get("le", ""), thresholds, 1000.0)
        return () if place is None else (place,)
    if labels.get("addressed") == "version":
        return ()  # sent to the version's Service: it never passed the gateway
    if name == "fiduciary_probes_started_total":
        return (PROBES,)
    failed = name == "fiduciary_probes_total" and labels.get("outcome") == "server_error"
    return (PROBES_FAILED,) if failed else ()
