"""From Prometheus to readings: what is asked for all policies together, and whose samples are whose.

Two queries: raw samples of the row counters over the time since the last look, in which :func:`windows.due` finds the
moments at which windows close; then all counters at such a moment. Moments are multiples of the scrape interval, so
that those of many versions are the same. Counts come from the scorer alone: its pods are found by labels of the scrape
target, which no pod can set.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fiduciary.decide.counters.samples import count_of
from fiduciary.decide.counters.templates import escaped
from fiduciary.decide.drift.state import FeatureCounts, Reading

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fiduciary.decide.counters.samples import Series

ROWS = "fiduciary_histogram_rows_total"
FEATURES = "fiduciary_feature_rows_total"
MISSING = "fiduciary_feature_missing_rows_total"
PREDICTION = "fiduciary_prediction_rows_total"
JOINT = "fiduciary_joint_rows_total"
REFERENCE = "fiduciary_outcomes_reference_info"
COUNTERS = (ROWS, FEATURES, MISSING, PREDICTION, JOINT, REFERENCE)
SCORER = "fiduciary-outcomes-[a-z0-9]+-[a-z0-9]+"
"""Pods of the Deployment that the operator makes for a namespace."""
DIGITS = 8
VERSION = ("version", "digest")
_BIN = re.compile("[0-9]{1,6}")


@dataclass(frozen=True, slots=True)
class Watched:
    """One version that serves. ``model`` is ``<namespace>.<name>``, ``digest`` that of the artifact."""

    namespace: str
    model: str
    version: str
    digest: str

    @property
    def place(self) -> tuple[str, ...]:
        """Where :func:`by_version` has its series."""
        return (self.namespace, *self.labels.values())

    @property
    def labels(self) -> Mapping[str, str]:
        """As the scorer writes them."""
        return {
            "model": self.model,
            "version": self.version,
            "digest": self.digest.removeprefix("sha256:")[:DIGITS],
        }


def rows_query(watched: Iterable[Watched], milliseconds: int, namespace: str = "namespace", pod: str = "pod") -> str:
    """Raw samples of the row counters of all versions in the time before that of the query, and their edges' hash."""
    return f"{{{_matchers((ROWS, REFERENCE), watched, namespace, pod)}}}[{max(1, milliseconds)}ms]"


def counts_query(watched: Iterable[Watched], milliseconds: int, namespace: str = "namespace", pod: str = "pod") -> str:
    """Every counter of all versions in the time before that of the query: the last sample of each is its value then.

    A range, since an instant query finds nothing of a scorer that ended between its last sample and that time.
    """
    return f"{{{_matchers(COUNTERS, watched, namespace, pod)}}}[{max(1, milliseconds)}ms]"


def by_version(answer: Iterable[Series], namespace: str = "namespace") -> Mapping[tuple[str, ...], list[Series]]:
    """The series of each version by :attr:`Watched.place`: an answer holds those of hundreds."""
    found: dict[tuple[str, ...], list[Series]] = {}
    for series in answer:
        place = (series.labels.get(namespace, ""), *(series.labels.get(name, "") for name in ("model", *VERSION)))
        found.setdefault(place, []).append(series)
    return found


def on_grid(samples: Iterable[tuple[int, int]], step: int) -> tuple[tuple[int, int], ...]:
    """(moment, value) at the multiples of ``step`` (ms) that have a sample in the step before them: its last one."""
    return tuple({-(-at // step) * step: value for at, value in samples}.items())


def rows_of(answer: Iterable[Series], watched: Watched, namespace: str = "namespace") -> tuple[tuple[int, int], ...]:
    """(time, rows) of one version, oldest first. A scorer that moved shows twice for a while: the larger is new."""
    found: dict[int, int] = {}
    for series in _owned(answer, watched, namespace):
        if series.labels.get("__name__") == ROWS:
            for at, value in series.samples:
                count = count_of(value)
                if count is not None:
                    found[at] = max(count, found.get(at, 0))
    return tuple(sorted(found.items()))


def reading_of(answer: Iterable[Series], watched: Watched, at: int, namespace: str = "namespace") -> Reading | None:
    """All counts of one version in the answer to :func:`counts_query`; None where its rows are not counted."""
    bins: dict[tuple[str, str], dict[int, int]] = {}
    single: dict[tuple[str, str], int] = {}
    for series in _owned(answer, watched, namespace):
        name, feature, place = (series.labels.get(label, "") for label in ("__name__", "feature", "bin"))
        count = count_of(series.samples[-1][1]) if series.samples else None
        if count is None:
            continue
        if _BIN.fullmatch(place):
            its = bins.setdefault((name, feature), {})
            its[int(place)] = max(count, its.get(int(place), 0))
        elif not place and name != REFERENCE:
            single[name, feature] = max(count, single.get((name, feature), 0))
    if (ROWS, "") not in single:
        return None
    features = tuple(
        FeatureCounts(feature, _whole(its), single.get((MISSING, feature), 0))
        for (name, feature), its in sorted(bins.items())
        if name == FEATURES
    )
    prediction, joint = _whole(bins.get((PREDICTION, ""), {})), _whole(bins.get((JOINT, ""), {}))
    return Reading(at, single[ROWS, ""], features, prediction, joint)


def reference_of(answer: Iterable[Series], watched: Watched, namespace: str = "namespace") -> str | None:
    """Hash of the edges that the counts are over; None where it is not said, or where two are."""
    found = {
        series.labels.get("reference", "")
        for series in _owned(answer, watched, namespace)
        if series.labels.get("__name__") == REFERENCE
    }
    return found.pop() or None if len(found) == 1 else None


def _whole(its: Mapping[int, int]) -> tuple[int, ...]:
    """Counts of bins 0 … n; nothing where one of them is not there: zero would be a guess."""
    return tuple(its[place] for place in range(len(its))) if set(its) == set(range(len(its))) else ()


def _owned(answer: Iterable[Series], watched: Watched, namespace: str) -> Iterable[Series]:
    """One look at each label: what the engine passes was divided by :func:`by_version` before, and is all owned."""
    wanted = tuple({namespace: watched.namespace, **watched.labels}.items())
    return [its for its in answer if all(its.labels.get(name, "") == value for name, value in wanted)]


def _matchers(names: tuple[str, ...], watched: Iterable[Watched], namespace: str, pod: str) -> str:
    versions = tuple(watched)
    chosen = {
        "__name__": list(names),
        namespace: sorted({escaped(its.namespace) for its in versions}),
        pod: [SCORER],
        "model": sorted({escaped(its.model) for its in versions}),
        "version": sorted({escaped(its.version) for its in versions}),
    }
    return ",".join(f'{label}=~"{_quoted("|".join(choices))}"' for label, choices in chosen.items())


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
