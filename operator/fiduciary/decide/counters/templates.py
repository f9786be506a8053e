"""Which series count what, and for whom: one template a kind of counter.

A template turns series into tracks. It never reads a namespace or a pod from what the pod itself says: these labels
come from the scrape target (``honor_labels: false``), and a pod that claims another one is found under ``exported_*``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

from fiduciary.decide.counters.state import FIELDS

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
