"""Whatever the order of looks, restarts and gaps: the same windows, each once, and never an exception."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fiduciary.api.driftpolicy import DriftPolicySpec
from fiduciary.decide.drift.state import FeatureCounts, Reading, State
from fiduciary.decide.drift.world import Acted, Health, QueryValue, SessionLoss, World
from fiduciary.decide.driftpolicy import decide
from fiduciary.evidence.codec import decode, encode
from tests.unit.decide.drift.watch import FACTS, NAMES, QUIET, T0, UID, Watch, draw, policy, reference

MONITORS: list[dict[str, Any]] = [
    {"name": "inputs", "histogram": {"metric": "feature"}, "statistic": "PSI", "actions": ["Alert", "Retrain"]},
    {"name": "score", "histogram": {"metric": "prediction"}, "statistic": "JS", "actions": ["Alert"]},
    {"name": "gone", "missing": {}, "actions": ["Alert", "RollBack"]},
    {"name": "volume", "query": "sum(x)", "below": "10", "forWindows": 2, "actions": ["Alert"]},
    {"name": "loss", "realisedLoss": {"against": "Reference"}, "actions": ["Alert"]},
    {"name": "worse", "realisedLoss": {}, "actions": ["RollBack"]},
]
DAYS = 21 * 14


@lru_cache
def story(seed: int, shift: float) -> tuple[tuple[Reading, ...], tuple[QueryValue, ...], tuple[SessionLoss, ...]]:
    """Fourteen windows: drifted from the sixth on, some rows without a feature, losses that rise."""
    rng = np.random.default_rng(seed)
    watch = Watch()
    for window in range(14):
        watch.missing = (int(rng.integers(0, 4)), 0, 0)
        watch.serve(draw(rng, 21, shift if window > 5 else 0.0))
    queries = tuple(QueryValue("volume", reading.at, float(rng.normal(12, 3))) for reading in watch.readings[20::21])
    sessions = tuple(
        SessionLoss(
            k,
            f"{T0 + timedelta(days=k):%Y-%m-%d}",
            int(rng.integers(0, 3)),
            float(rng.chisquare(1) * (1 + (k > 100))),
            1,
            float(rng.normal()),
            int(rng.random() < 0.05),
        )
        for k in range(DAYS)
    )
    return watch.readings, queries, sessions


@given(st.integers(0, 5), st.sampled_from([0.0, 1.5]), st.lists(st.integers(1, DAYS), max_size=8), st.booleans())
@settings(max_examples=25, deadline=None)
def test_a_restart_neither_repeats_nor_skips_a_window(seed: int, shift: float, cuts: list[int], again: bool) -> None:
    readings, queries, sessions = story(seed, shift)
    spec = {"monitors": MONITORS}
    watch = Watch(spec=spec)
    base = watch.world()

    def played(stops: list[int]) -> State:
        state: Any = None
        seen = 0
        for stop in stops:
            first = 0 if again else seen  # after a restart everything may be read once more
            world = replace(
                base,
                state=state,
                readings=readings[first:stop],
                queries=tuple(one for one in queries if one.at <= readings[stop - 1].at),
                sessions=sessions[first:stop],
            )
            state = decide(world, T0 + timedelta(days=stop)).state
            state = decode(State, json.loads(json.dumps(encode(state))))
            assert isinstance(state, State)
            state = replace(state, request=None, withdrawn=(), judged=0)
            seen = stop
        return state

    whole = played([DAYS])
    assert played(sorted({*cuts, DAYS})) == whole
    assert (whole.folded, whole.skipped) == (14, 0)
    assert {stream.last for stream in whole.streams if stream.name in ("fast", "heavy")} == {13}
    if shift:
        assert any(alarm.monitor == "inputs" for alarm in whole.alarms)


COUNT = st.integers(-5, 2**54) | st.integers(0, 60)
BINS = st.lists(COUNT, max_size=11).map(tuple)
FEATURES = st.lists(st.builds(FeatureCounts, st.sampled_from([*NAMES, "other"]), BINS, COUNT), max_size=4).map(tuple)
READINGS = st.lists(st.builds(Reading, st.integers(-1, 2**60), COUNT, FEATURES, BINS, BINS), max_size=6).map(tuple)
QUERIES = st.lists(
    st.builds(QueryValue, st.sampled_from(["volume", "inputs", "x"]), st.integers(-1, 2**60), st.none() | st.floats()),
    max_size=3,
).map(tuple)
SESSIONS = st.lists(
    st.builds(SessionLoss, st.integers(-1, 4), st.sampled_from(["2026-11-03", "x"]), COUNT, st.floats(),
              COUNT, st.floats(), COUNT, COUNT, COUNT, st.lists(st.floats(), max_size=2).map(tuple)),
    max_size=4,
).map(tuple)  # fmt: skip
MODELS = st.sampled_from([
    None,
    FACTS,
    replace(FACTS, champion=None),
    replace(FACTS, calendar="XXXX"),
    replace(FACTS, killed=True, acted=(Acted("Retrain", "spx", "sha256:" + "0" * 64, T0, 3),)),
])  # fmt: skip
WINDOWS = st.sampled_from([{"rows": 21}, {"rows": 22}, {"rows": None, "length": "21d"}, {"rows": None, "length": "1h"}])


@given(
    READINGS, QUERIES, SESSIONS, MODELS, WINDOWS, st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1)), st.data()
)
@settings(max_examples=80, deadline=None)
def test_the_judgement_is_total(
    readings: Any, queries: Any, sessions: Any, model: Any, window: Any, now: datetime, data: st.DataObject
) -> None:
    watch = Watch(spec={"monitors": MONITORS, "window": window}, model=model, now=now.replace(tzinfo=UTC))
    base = replace(
        watch.world(),
        platform=QUIET,
        readings=tuple(sorted(readings, key=lambda one: one.at)),
        queries=queries,
        sessions=sessions,
        health=Health(data.draw(st.sampled_from(["", "away"]))),
        reference=data.draw(st.sampled_from([None, "x", reference().edges_digest])),
    )
    decision = decide(base, watch.now)
    assert isinstance(DriftPolicySpec.model_validate(base.policy.spec.body()), DriftPolicySpec)
    if decision.state is not None:
        stored = decode(State, json.loads(json.dumps(encode(decision.state))))
        assert stored == decision.state
        later: World = replace(base, state=stored)
        following = decide(later, watch.now)
        assert following.state is not None
        # nothing that was folded is folded again
        assert replace(following.state, request=None, withdrawn=()) == replace(
            decision.state, request=None, withdrawn=()
        )
    assert decision.wake_at is not None
    assert decision.wake_at > watch.now.replace(microsecond=0)
    assert policy().metadata.uid == UID
    assert decision.status.model_validate(decision.status.body()) == decision.status
