"""What the decision log keeps of a drift: windows, scores, thresholds and digests that caused an alarm or an action.

Numbers travel as texts; the largest policy stays below the 3 KiB of a record, and says what it leaves out.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from fiduciary.api.modeldecision import Actor, Cause, DecidedModelRef, Evidence, ModelDecisionSpec
from fiduciary.api.versions import VersionRef
from fiduciary.decide import identity, reasons
from fiduciary.decide.drift.alarms import share
from fiduciary.decide.drift.losses import versus_threshold
from fiduciary.decide.drift.standing import decimal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fiduciary.api.versions import StandingVersion
    from fiduciary.decide.drift.calibrate import Calibrated
    from fiduciary.decide.drift.case import Case
    from fiduciary.decide.drift.state import Alarm, Request, State

LIMIT = 3000
MOST_RECORDS, PERIOD = 24, timedelta(days=1)
"""Records of alarms that one policy writes in that time at most, so that none fills the log of its model. Events and
alerts tell of all of them."""
COLUMNS = ("name", "score", "threshold", "distance", "sinceWindow", "lastWindow")
"""Of the rows of ``detectors``: evidence, its threshold, distance beyond sampling, and the windows it came from."""


def records(case: Case, state: State | None) -> tuple[ModelDecisionSpec, ...]:
    """A record for each alarm that the model's log does not have, in the order in which they began."""
    log = None if case.model is None else case.model.log
    if state is None or log is None or case.model is None or case.version is None or not _judged(case, state):
        return ()
    known = {one.digest for one in case.model.recorded}
    since = case.moment - PERIOD
    room = MOST_RECORDS - sum(one.policy == case.name and one.at > since for one in case.model.recorded)
    found: list[ModelDecisionSpec] = []
    previous = log.digest
    for alarm in sorted(state.alarms, key=lambda alarm: (alarm.since, alarm.monitor)):
        # What ended with its version is another version's: nothing that would be said of it now is true.
        if alarm.digest in known or alarm.reason == reasons.BEGUN_ANEW:
            continue
        if len(found) >= room:
            break  # the newest of each monitor is recorded once there is room again
        content = _summary(case, state, [alarm], None)
        spec = ModelDecisionSpec(
            model_ref=DecidedModelRef(name=log.model, uid=log.uid),
            sequence=log.sequence + len(found) + 1,
            action="Alarm",
            to=named(case.model.champion),
            cause=Cause(
                kind="Drift",
                generation=log.generation,
                message=f"DriftPolicy {case.name}, {alarm.monitor}: {alarm.message}",
            ),
            evidence=Evidence(digest=identity.digest(content), summary=content),
            actor=Actor(version=case.world.platform.operator_version),
            previous=previous,
            decided_at=case.moment,
        )
        found.append(spec)
        previous = identity.record_digest(spec)
    return tuple(found)


def requests_evidence(case: Case, state: State, asked: Request) -> Mapping[str, Any]:
    """``evidence.summary`` of the record of what is asked for: the alarms that ask."""
    if not _judged(case, state):
        return {}
    chosen = [alarm for alarm in state.alarms if alarm.until is None and alarm.monitor in asked.monitors]
    return _summary(case, state, chosen, asked)


def named(champion: StandingVersion | None) -> VersionRef | None:
    """The version without its place, which is the log's to say."""
    if champion is None:
        return None
    return VersionRef.model_validate({name: getattr(champion, name) for name in VersionRef.model_fields})


def _judged(case: Case, state: State) -> bool:
    return case.calibrated is not None and state.key == case.calibrated.key


def _summary(case: Case, state: State, alarms: Sequence[Alarm], asked: Request | None) -> dict[str, Any]:
    calibrated = case.calibrated
    assert calibrated is not None
    champion = None if case.model is None else case.model.champion
    about: dict[str, Any] = {
        "policy": case.name,
        "uid": case.world.policy.metadata.uid,
        "version": None if champion is None else champion.version,
        "versionDigest": case.version,
        "edges": calibrated.edges_digest,
        "question": calibrated.key,
        "asked": None if asked is None else {"kind": asked.kind, "digest": asked.digest},
        "referenceBlocks": calibrated.blocks,
        "detectorsTogether": calibrated.judged,
        "ertWindows": case.spec.false_alarms.ert_windows,
        "windows": {"last": state.window, "judged": state.folded, "notJudged": state.skipped},
        "chains": [state.chain, state.sessions],
        "columns": list(COLUMNS),
    }
    kept = {name: value for name, value in about.items() if value is not None}
    return _fitted(kept, [_alarm(calibrated, state, alarm) for alarm in alarms])


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
    told = [["" if value is None else value for value in row] for row in rows]  # a null would not survive an apply
    return {"monitor": alarm.monitor, "message": alarm.message[:300], "digest": alarm.digest, "detectors": told}


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
