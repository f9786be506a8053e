"""From the scorer's own metrics, as Prometheus stores them, to readings."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fiduciary.decide.counters.samples import Series
from fiduciary.decide.drift.series import (
    COUNTERS,
    Latest,
    Watched,
    by_version,
    counts_query,
    latest,
    latest_query,
    on_grid,
    readings,
    rows_of,
    rows_query,
)
from fiduciary.decide.drift.state import FeatureCounts, Reading
from fiduciary_outcomes.metrics import _of_versions  # pyright: ignore[reportPrivateUsage]
from tests.unit.decide.drift.newest import newest


def reading_of(raw: list[Series], watched: Watched, at: int) -> Reading | None:
    return readings(newest(counts_query([watched], 40_000), raw), at).get(watched.place)


def latest_of(raw: list[Series], watched: Watched) -> Latest | None:
    return latest(newest(latest_query([watched], 40_000), raw)).get(watched.place)


def rows(raw: list[Series]) -> tuple[tuple[int, int], ...]:
    return rows_of(raw, 40_000)


DIGEST = "sha256:" + "89abcdef" * 8
WATCHED = Watched("quant", "quant.spx-volatility", "7", DIGEST)


def exported(pod: str = "fiduciary-outcomes-6d5f-x2x9k", extra: float = 0.0, **change: Any) -> list[Series]:
    """What the scorer shows of one version, with the labels of its scrape target."""
    arm = SimpleNamespace(
        model="quant.spx-volatility",
        version="7",
        digest=DIGEST,
        results={"first": 21.0},
        dropped=0,
        rows=21 + extra,
        layout=SimpleNamespace(reference="ab" * 32, features=("rv_d", "rv_w")),
        bins=((4, 6 + extra, 11), (20, 0)),
        missing=(0, 1),
        prediction_bins=(10, 11),
        joint_bins=(1, 20),
    )
    vars(arm).update(change)
    return [
        Series({**sample.labels, "__name__": sample.name, "namespace": "quant", "pod": pod}, ((60_000, sample.value),))
        for family in _of_versions([arm])  # type: ignore[list-item]
        for sample in family.samples
    ]


def test_a_reading_is_what_the_scorer_counted() -> None:
    found = reading_of(exported(), WATCHED, 60_000)
    features = (FeatureCounts("rv_d", (4, 6, 11), 0), FeatureCounts("rv_w", (20, 0), 1))
    assert found == Reading(60_000, 21, features, (10, 11), (1, 20))
    assert latest_of(exported(), WATCHED) == Latest(21, "ab" * 32)
    assert {series.labels["__name__"] for series in exported()} >= {*COUNTERS}


def test_a_scorer_that_moved_shows_its_counts_twice_and_the_newer_are_the_larger() -> None:
    moved = [*exported(), *exported("fiduciary-outcomes-6d5f-zzzzz", extra=1.0)]
    found = reading_of(moved, WATCHED, 60_000)
    assert found is not None
    assert (found.rows, found.features[0].bins) == (22, (4, 7, 11))
    assert rows(moved) == rows(moved[::-1]) == ((60_000, 22),)
    assert latest_of(moved, WATCHED) == latest_of(moved[::-1], WATCHED) == Latest(22, "ab" * 32)
    assert reading_of(moved[::-1], WATCHED, 60_000) == found


def test_the_pod_of_before_is_no_loss_of_rows_and_a_lost_store_is_one() -> None:
    def shown(pod: str, *samples: tuple[int, float]) -> Series:
        (its,) = [one for one in exported(pod) if one.labels["__name__"] == "fiduciary_histogram_rows_total"]
        return Series(its.labels, samples)

    old, new = shown("a", (1_000, 20.0), (16_000, 20.0)), shown("b", (9_000, 21.0), (24_000, 21.0))
    assert [count for _, count in rows([old, new])] == [20, 21, 21, 21]
    lost = shown("b", (30_000, 1.0), (60_000, 2.0), (75_000, 3.0))
    assert [count for _, count in rows([old, lost])] == [20, 20, 20, 2, 3]


@pytest.mark.parametrize(
    "watched",
    [
        Watched("other", "quant.spx-volatility", "7", DIGEST),
        Watched("quant", "quant.other", "7", DIGEST),
        Watched("quant", "quant.spx-volatility", "8", DIGEST),
        Watched("quant", "quant.spx-volatility", "7", "sha256:" + "0" * 64),
    ],
)
def test_what_is_somebody_elses_is_not_read(watched: Watched) -> None:
    assert reading_of(exported(), watched, 60_000) is None
    assert latest_of(exported(), watched) is None
    assert watched.place not in by_version(exported())


def test_no_count_is_no_reading_and_a_hole_is_no_zero() -> None:
    assert reading_of(exported(rows=float("nan")), WATCHED, 1) is None
    assert reading_of([], WATCHED, 1) is None
    holed = [series for series in exported() if series.labels.get("bin") != "1" or "feature" not in series.labels]
    found = reading_of(holed, WATCHED, 1)
    assert found is not None
    assert [its.bins for its in found.features] == [(), (20,)]
    two = [*exported(), *exported(layout=SimpleNamespace(reference="cd" * 32, features=("rv_d", "rv_w")))]
    assert latest_of(two, WATCHED) == Latest(21, None)


def test_a_label_of_a_tenant_that_is_no_bin_ends_nobodys_reading() -> None:
    """Python refuses to read 4,301 digits, and one answer is read for the policies of all namespaces."""
    target = {"namespace": "quant", "pod": "fiduciary-outcomes-6d5f-x2x9k", "model": "quant.spx-volatility"}
    labels = {**target, "version": "7", "digest": "89abcdef", "__name__": "fiduciary_feature_rows_total"}
    foreign = [Series({**labels, "feature": "rv_d", "bin": place}, ((60_000, 1.0),)) for place in ("9" * 5000, "٣")]
    assert reading_of([*exported(), *foreign], WATCHED, 60_000) == reading_of(exported(), WATCHED, 60_000)


def test_queries_name_the_scorers_pods_by_their_scrape_target() -> None:
    assert rows_query([WATCHED], 90_000) == (
        '{__name__=~"fiduciary_histogram_rows_total",'
        'namespace=~"quant",pod=~"fiduciary-outcomes-[a-z0-9]+-[a-z0-9]+",'
        'model=~"quant\\\\.spx-volatility",version=~"7"}[90000ms]'
    )
    other = Watched("desk", "desk.rates", "12", DIGEST)
    text = counts_query([WATCHED, other], 30_000, namespace="kubernetes_namespace")
    assert 'kubernetes_namespace=~"desk|quant"' in text
    assert 'version=~"12|7"' in text
    assert text.startswith("max by (__name__, place, feature, bin) (label_join(last_over_time({")
    assert text.endswith('"}[30000ms]), "place", "/", "kubernetes_namespace", "model", "version", "digest"))')


def test_an_answer_for_many_is_divided_once() -> None:
    other = [
        Series({**its.labels, "namespace": "desk", "model": "desk.rates"}, its.samples) for its in exported(extra=5.0)
    ]
    divided = by_version([*exported(), *other])
    rates = Watched("desk", "desk.rates", "7", DIGEST)
    found = readings(newest(counts_query([WATCHED, rates], 40_000), [*exported(), *other]), 60_000)
    assert found[WATCHED.place] == reading_of(exported(), WATCHED, 60_000)
    assert found[rates.place].rows == 26
    assert rows(divided[rates.place]) == ((60_000, 26),)


def test_samples_are_those_of_moments_that_all_have_in_common() -> None:
    assert on_grid([(15_001, 1), (29_999, 2), (30_000, 3), (30_001, 4)], 15_000) == ((30_000, 3), (45_000, 4))
    assert on_grid([], 15_000) == ()
