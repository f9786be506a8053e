"""What Envoy counts, under the names that Contour gives to its clusters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fiduciary.decide.counters.state import CLIENT, FAILED, GOOD, STARTED, TIMED, TIMED_ENDED
from fiduciary.decide.counters.templates import Owned, Vital, Workload, edge_texts, escaped, place_of, target_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from fiduciary.decide.counters.templates import StreamName


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
