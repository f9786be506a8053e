"""From Prometheus to readings: what is asked for all policies together, and whose samples are whose.

Three questions: how many rows there are now; raw samples of the row counters over the time since the last look, in
which :func:`windows.due` finds the moments at which windows close; all counters at such a moment. Moments are multiples
of the scrape interval, so that those of many versions are the same. Counts come from the scorer alone: its pods are
found by labels of the scrape target, which no pod can set.

Prometheus is asked for the larger of what two pods of a scorer show, and for the labels that are read here and no
other: an answer holds some 250 series of each version, and most of what they cost is their text.
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

    from fiduciary.decide.counters.samples import Series, Valued

ROWS = "fiduciary_histogram_rows_total"
FEATURES = "fiduciary_feature_rows_total"
MISSING = "fiduciary_feature_missing_rows_total"
PREDICTION = "fiduciary_prediction_rows_total"
JOINT = "fiduciary_joint_rows_total"
REFERENCE = "fiduciary_outcomes_reference_info"
COUNTERS = (ROWS, FEATURES, MISSING, PREDICTION, JOINT)
SCORER = "fiduciary-outcomes-[a-z0-9]+-[a-z0-9]+"
"""Pods of the Deployment that the operator makes for a namespace."""
DIGITS = 8
PLACE = ("model", "version", "digest")
"""Labels that the scorer writes."""
_BIN = re.compile("[0-9]{1,6}")
_SINGLE = ""
"""The bin of a count that has none."""
_NOTHING: Mapping[str, int] = {}
NUMBERS = tuple(map(str, range(1000)))
"""Of bins: a reference has ten, and the scorer takes 1,000 of all features together at most."""

Place = str
"""Namespace of the scrape target, model, version and digest: a namespace holds no slash, so that none is another's."""
SLASH = "/"


@dataclass(frozen=True, slots=True)
class Latest:
    """Rows of a version, and the hash of the edges that they are counted over; None where none is said, or two are."""

    rows: int
    reference: str | None


@dataclass(frozen=True, slots=True)
class Watched:
    """One version that serves. ``model`` is ``<namespace>.<name>``, ``digest`` that of the artifact."""

    namespace: str
    model: str
    version: str
    digest: str

    @property
    def place(self) -> Place:
        """Where the answers have what is counted of it."""
        return SLASH.join((self.namespace, self.model, self.version, self.digest.removeprefix("sha256:")[:DIGITS]))


def latest_query(watched: Iterable[Watched], milliseconds: int, namespace: str = "namespace", pod: str = "pod") -> str:
    """Rows of all versions at the time of the query, and their edges' hash."""
    return _newest((ROWS, REFERENCE), "reference", watched, milliseconds, namespace, pod)


def rows_query(watched: Iterable[Watched], milliseconds: int, namespace: str = "namespace", pod: str = "pod") -> str:
    """Raw samples of the row counters of all versions in the time before that of the query."""
    return f"{{{_matchers((ROWS,), watched, namespace, pod)}}}[{max(1, milliseconds)}ms]"


def counts_query(watched: Iterable[Watched], milliseconds: int, namespace: str = "namespace", pod: str = "pod") -> str:
    """Every counter of all versions at the time of the query."""
    return _newest(COUNTERS, "feature, bin", watched, milliseconds, namespace, pod)


def _newest(
    names: tuple[str, ...], by: str, watched: Iterable[Watched], milliseconds: int, namespace: str, pod: str
) -> str:
    """The last sample of each series in the time before that of the query, the largest of those of several pods.

    Of a range, since an instant selector finds nothing of a scorer that ended between its last sample and that time.
    """
    selector = f"{{{_matchers(names, watched, namespace, pod)}}}[{max(1, milliseconds)}ms]"
    labels = ", ".join(f'"{name}"' for name in (namespace, *PLACE))
    placed = f'label_join(last_over_time({selector}), "place", "{SLASH}", {labels})'
    return f"max by (__name__, place, {by}) ({placed})"


def by_version(answer: Iterable[Series], namespace: str = "namespace") -> Mapping[Place, list[Series]]:
    """The raw series of each version by :attr:`Watched.place`: an answer holds those of hundreds."""
    found: dict[Place, list[Series]] = {}
    for series in answer:
        place = SLASH.join([series.labels.get(name, "") for name in (namespace, *PLACE)])
        found.setdefault(place, []).append(series)
    return found


def latest(answer: Iterable[Valued]) -> Mapping[Place, Latest]:
    """What :func:`latest_query` answers, by :attr:`Watched.place`; who has none is not in it."""
    rows: dict[Place, int] = {}
    edges: dict[Place, set[str]] = {}
    for labels, value in answer:
        place, name = labels.get("place", ""), labels.get("__name__")
        if name == REFERENCE:
            edges.setdefault(place, set()).add(labels.get("reference", ""))
        elif name == ROWS and (count := count_of(value)) is not None:
            rows[place] = count
    return {place: Latest(count, _only(edges.get(place, set()))) for place, count in rows.items()}


def _only(hashes: set[str]) -> str | None:
    return next(iter(hashes)) or None if len(hashes) == 1 else None


def on_grid(samples: Iterable[tuple[int, int]], step: int) -> tuple[tuple[int, int], ...]:
    """(moment, value) at the multiples of ``step`` (ms) that have a sample in the step before them: its last one."""
    return tuple({-(-at // step) * step: value for at, value in samples}.items())


def rows_of(answer: Iterable[Series], reach: int) -> tuple[tuple[int, int], ...]:
    """(time, rows) of one version from its raw series, oldest first. A scorer that moved shows twice for a while,
    either pod at times of its own: the larger is new. So the rows at a time are the largest that any pod showed in the
    ``reach`` (ms) before it, as they are of all counts at a moment; the pod of before would else look like a store that
    was lost.
    """
    shown: list[tuple[int, int, int]] = []  # time, pod, rows
    for pod, series in enumerate(answer):
        if series.labels.get("__name__") == ROWS:
            counts = ((at, count_of(value)) for at, value in series.samples)
            shown += [(at, pod, count) for at, count in counts if count is not None]
    found: dict[int, int] = {}
    newest: dict[int, tuple[int, int]] = {}
    for at, pod, count in sorted(shown):
        newest[pod] = (at, count)
        found[at] = max(rows for seen, rows in newest.values() if seen > at - reach)
    return tuple(found.items())


def readings(answer: Iterable[Valued], at: int) -> Mapping[Place, Reading]:
    """All counts of every version in the answer to :func:`counts_query`, by :attr:`Watched.place`, in one pass: it
    holds some 250 series of each. A version whose rows are not counted is not in it.
    """
    found: dict[tuple[Place, str, str], dict[str, int]] = {}
    for labels, value in answer:
        count = count_of(value)
        if count is None:
            continue
        label = labels.get
        name = (label("place", ""), label("__name__", ""), label("feature", ""))
        bins = found.get(name)
        if bins is None:
            bins = found[name] = {}
        bins[label("bin", _SINGLE)] = count
    rows = [place for (place, name, _), bins in found.items() if name == ROWS and _SINGLE in bins]
    features: dict[Place, list[FeatureCounts]] = {place: [] for place in rows}
    for place, name, feature in sorted(its for its in found if its[1] == FEATURES):
        if place in features:
            missing = found.get((place, MISSING, feature), _NOTHING).get(_SINGLE, 0)
            features[place].append(FeatureCounts(feature, _whole(found[place, name, feature]), missing))
    return {
        place: Reading(
            at,
            found[place, ROWS, ""][_SINGLE],
            tuple(features[place]),
            _whole(found.get((place, PREDICTION, ""), _NOTHING)),
            _whole(found.get((place, JOINT, ""), _NOTHING)),
        )
        for place in rows
    }


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
