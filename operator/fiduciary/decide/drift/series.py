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
_SINGLE = ""
"""The bin of a count that has none."""
NUMBERS = tuple(map(str, range(1000)))
"""Of bins: a reference has ten, and the scorer takes 1,000 of all features together at most."""

Place = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Watched:
    """One version that serves. ``model`` is ``<namespace>.<name>``, ``digest`` that of the artifact."""

    namespace: str
    model: str
    version: str
    digest: str

    @property
    def place(self) -> Place:
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


def by_version(answer: Iterable[Series], namespace: str = "namespace") -> Mapping[Place, list[Series]]:
    """The series of each version by :attr:`Watched.place`: an answer holds those of hundreds."""
    found: dict[Place, list[Series]] = {}
    for series in answer:
        place = (series.labels.get(namespace, ""), *(series.labels.get(name, "") for name in ("model", *VERSION)))
        found.setdefault(place, []).append(series)
    return found


def on_grid(samples: Iterable[tuple[int, int]], step: int) -> tuple[tuple[int, int], ...]:
    """(moment, value) at the multiples of ``step`` (ms) that have a sample in the step before them: its last one."""
    return tuple({-(-at // step) * step: value for at, value in samples}.items())


def rows_of(
    answer: Iterable[Series], watched: Watched, reach: int, namespace: str = "namespace"
) -> tuple[tuple[int, int], ...]:
    """(time, rows) of one version, oldest first. A scorer that moved shows twice for a while, either pod at times of
    its own: the larger is new. So the rows at a time are the largest that any pod showed in the ``reach`` (ms) before
    it, as they are of all counts at a moment; the pod of before would else look like a store that was lost.
    """
    shown: list[tuple[int, int, int]] = []  # time, pod, rows
    for pod, series in enumerate(_owned(answer, watched, namespace)):
        if series.labels.get("__name__") == ROWS:
            counts = ((at, count_of(value)) for at, value in series.samples)
            shown += [(at, pod, count) for at, count in counts if count is not None]
    found: dict[int, int] = {}
    latest: dict[int, tuple[int, int]] = {}
    for at, pod, count in sorted(shown):
        latest[pod] = (at, count)
        found[at] = max(rows for seen, rows in latest.values() if seen > at - reach)
    return tuple(found.items())


def readings(answer: Iterable[Series], at: int, namespace: str = "namespace") -> Mapping[Place, Reading]:
    """All counts of every version in the answer to :func:`counts_query`, by :attr:`Watched.place`, in one pass: it
    holds some 250 series of each. A version whose rows are not counted is not in it.

    A scorer that moved shows each count twice for a while: the larger is new.
    """
    found: dict[Place, dict[tuple[str, str], dict[str, int]]] = {}
    for series in answer:
        count = count_of(series.samples[-1][1]) if series.samples else None
        if count is None:
            continue
        label = series.labels.get
        place = (label(namespace, ""), label("model", ""), label("version", ""), label("digest", ""))
        its = found.get(place)
        if its is None:
            its = found[place] = {}
        name = (label("__name__", ""), label("feature", ""))
        bins = its.get(name)
        if bins is None:
            bins = its[name] = {}
        number = label("bin", "")
        before = bins.get(number)
        if before is None or count > before:
            bins[number] = count
    return {place: _reading(its, at) for place, its in found.items() if _SINGLE in its.get((ROWS, ""), {})}


def _reading(its: Mapping[tuple[str, str], Mapping[str, int]], at: int) -> Reading:
    nothing: Mapping[str, int] = {}
    features = tuple(
        FeatureCounts(feature, _whole(bins), its.get((MISSING, feature), nothing).get(_SINGLE, 0))
        for (name, feature), bins in sorted(its.items())
        if name == FEATURES
    )
    prediction, joint = _whole(its.get((PREDICTION, ""), nothing)), _whole(its.get((JOINT, ""), nothing))
    return Reading(at, its[ROWS, ""][_SINGLE], features, prediction, joint)


def reference_of(answer: Iterable[Series], watched: Watched, namespace: str = "namespace") -> str | None:
    """Hash of the edges that the counts are over; None where it is not said, or where two are."""
    found = {
        series.labels.get("reference", "")
        for series in _owned(answer, watched, namespace)
        if series.labels.get("__name__") == REFERENCE
    }
    return found.pop() or None if len(found) == 1 else None


def _whole(its: Mapping[str, int]) -> tuple[int, ...]:
    """Counts of bins 0 … n; nothing where one of them is not there: zero would be a guess. Labels that no scorer
    writes are nobody's bins."""
    found: list[int] = []
    for number in NUMBERS:
        count = its.get(number)
        if count is None:
            break
        found.append(count)
    if len(found) < len(its) and any(_BIN.fullmatch(number) and int(number) >= len(found) for number in its):
        return ()
    return tuple(found)


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
