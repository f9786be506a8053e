"""What the decision log keeps of a drift: windows, scores, thresholds and digests that caused an alarm or an action.

Numbers travel as texts; the largest policy stays below the 3 KiB of a record, and says what it leaves out.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fiduciary.decide.drift.alarms import share
from fiduciary.decide.drift.losses import versus_threshold
from fiduciary.decide.drift.standing import decimal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fiduciary.decide.drift.calibrate import Calibrated
    from fiduciary.decide.drift.case import Case
    from fiduciary.decide.drift.state import Alarm, State

LIMIT = 3000
COLUMNS = ("name", "score", "threshold", "distance", "sinceWindow", "lastWindow")
"""Of the rows of ``detectors``: evidence, its threshold, distance beyond sampling, and the windows it came from."""


def record(case: Case, state: State | None) -> Mapping[str, Any]:
    """``evidence.summary`` of the record of what is asked for; else of the alarms that began; empty: neither."""
    calibrated = case.calibrated
    if state is None or calibrated is None or state.key != calibrated.key:
        return {}
    before = case.world.state
    known = set[str]() if before is None else {alarm.digest for alarm in before.alarms}
    asked = None if state.request is None else set(state.request.monitors)
    chosen = [
        alarm
        for alarm in state.alarms
        if alarm.until is None and (alarm.monitor in asked if asked is not None else alarm.digest not in known)
    ]
    if not chosen:
        return {}
    champion = None if case.model is None else case.model.champion
    about: dict[str, Any] = {
        "policy": case.name,
        "uid": case.world.policy.metadata.uid,
        "version": None if champion is None else champion.version,
        "versionDigest": case.version,
        "edges": calibrated.edges_digest,
        "question": calibrated.key,
        "asked": None if state.request is None else {"kind": state.request.kind, "digest": state.request.digest},
        "referenceBlocks": calibrated.blocks,
        "detectorsTogether": calibrated.judged,
        "ertWindows": case.spec.false_alarms.ert_windows,
        "windows": {"last": state.window, "judged": state.folded, "notJudged": state.skipped},
        "chains": [state.chain, state.sessions],
        "columns": list(COLUMNS),
    }
    return _fitted(about, [_alarm(calibrated, state, alarm) for alarm in chosen])


def _alarm(calibrated: Calibrated, state: State, alarm: Alarm) -> dict[str, Any]:
    pairs = [
        (gauge, stream)
        for gauge, stream in zip(calibrated.gauges, state.streams, strict=True)
        if stream.monitor == alarm.monitor and stream.alarm is not None
    ]
    rows: list[Sequence[str | int | None]] = [
        [
            stream.name,
            decimal(stream.detector.cusum),
            None if gauge.calibration is None else decimal(gauge.calibration.height),
            decimal(stream.effect),
            stream.since,
            stream.last,
        ]
        for gauge, stream in sorted(pairs, key=lambda pair: -share(*pair))
    ]
    rows += [
        [name, decimal(its.value), None, None, None, None]
        for its in state.limits
        if its.monitor == alarm.monitor and its.alarm is not None
        for name in its.names or ("",)
    ]
    rows += [
        ["", decimal(its.detector.log_e), decimal(versus_threshold(calibrated)), None, its.alarm, its.detector.last]
        for its in state.versus
        if its.monitor == alarm.monitor and its.alarm is not None
    ]
    return {"monitor": alarm.monitor, "message": alarm.message[:300], "digest": alarm.digest, "detectors": rows}


def _fitted(about: dict[str, Any], alarms: list[dict[str, Any]]) -> dict[str, Any]:
    """The worst detectors of each alarm, as many as fit; the number of those left out is said."""
    most = max((len(one["detectors"]) for one in alarms), default=0)
    while True:
        cut = [
            {**one, "detectors": one["detectors"][:most], "more": max(0, len(one["detectors"]) - most)}
            for one in alarms
        ]
        whole = {**about, "alarms": cut}
        if len(json.dumps(whole, separators=(",", ":"))) <= LIMIT:
            return whole
        if most > 0:
            most -= 1
        elif len(alarms) > 1:
            alarms = alarms[:-1]
            about["alarmsLeftOut"] = about.get("alarmsLeftOut", 0) + 1
        else:
            return {**about, "alarms": [{**cut[0], "message": ""}]}
