"""What Prometheus makes of raw series for ``series.latest_query`` and ``counts_query``; tests/prometheus holds it to a
real one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fiduciary.decide.drift.series import PLACE, SLASH

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fiduciary.decide.counters.samples import Series, Valued


def newest(promql: str, raw: Iterable[Series], namespace: str = "namespace") -> list[Valued]:
    """``max by (…) (label_join(last_over_time(…)))``. ``raw``: the samples in the range, of which each has some."""
    by = re.match(r"max by \(([^)]*)\)", promql)
    assert by is not None, promql
    names = by[1].split(", ")
    found: dict[tuple[tuple[str, str], ...], float] = {}
    for series in raw:
        place = SLASH.join(series.labels.get(name, "") for name in (namespace, *PLACE))
        labels = {**series.labels, "place": place}
        kept = tuple((name, labels[name]) for name in names if labels.get(name))
        value = series.samples[-1][1]
        before = found.get(kept)
        found[kept] = value if before is None or before != before or value > before else before
    return [(dict(labels), value) for labels, value in found.items()]
