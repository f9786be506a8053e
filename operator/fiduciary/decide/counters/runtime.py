"""What our serving runtime counts, in a version's own pods and in those of Seldon's Servers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fiduciary.decide.counters.state import CLIENT, FAILED, GOOD, PROBES, PROBES_FAILED, STARTED, TIMED, TIMED_ENDED
from fiduciary.decide.counters.templates import Owned, Vital, Workload, edge_texts, escaped, place_of, target_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

LONGEST = 63
"""Characters of a pod's name that was cut: 58 of its ReplicaSet's and 5 random ones."""
LONGEST_TAIL = len("predictor") + 1 + 10 + 1 + 5
"""What may follow the name of a version and a dash; the hash of a ReplicaSet has 10 characters at most."""
CUT = re.compile(r"(?P<name>.+-[0-9a-f]{12})-")


@dataclass(frozen=True, slots=True)
class Runtime:
    """Our serving runtime: counted in the pod at the start and at the end of each request, probes apart.

    A pod belongs to the version that its name begins with: ``<name>-<hash>-<suffix>``, with KServe
    ``<name>-predictor-<hash>-<suffix>``. Of a long name Kubernetes keeps 58 characters and adds the suffix without a
    dash, wherever that cuts it; then the name is all up to the version's 12 hexadecimal digits.
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
            self.pod: [pods for workload in workloads for pods in _pods(workload.name)],
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
        pod, namespace = labels.get(self.pod, ""), labels.get(self.namespace, "")
        cut = CUT.match(pod) if len(pod) == LONGEST else None
        if cut is not None:
            return Workload(namespace, cut["name"])
        parts = pod.rsplit("-", 2)
        return Workload(namespace, parts[0].removesuffix("-predictor")) if len(parts) == 3 else None


def _pods(name: str) -> list[str]:
    """Names of a version's pods, as regular expressions."""
    whole, left = f"{escaped(name)}(-predictor)?-[a-z0-9]+-[a-z0-9]+", LONGEST - len(name) - 1
    return [whole] if left >= LONGEST_TAIL else [whole, f"{escaped(name)}-[a-z0-9-]{{{left}}}"]


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
