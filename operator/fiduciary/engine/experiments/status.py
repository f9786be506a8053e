"""What is written: the judged status with the pair, the ruling and all that was folded, in one write.

Nothing acts on an experiment but through its status, so everything that a later reconcile goes on from is in it before
anybody sees it. What only the clock moves (a forecast, the age of the last judgement) is no reason for a write.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fiduciary.api.modelexperiment import ComparedVersion, FinalRuling
from fiduciary.decide import reasons
from fiduciary.decide.serving.following import unjudged
from fiduciary.engine.experiments.kept import folded, suffered

if TYPE_CHECKING:
    from datetime import datetime
    from typing import Any

    from fiduciary.api.modelexperiment import ModelExperimentStatus
    from fiduciary.api.versions import VersionRef
    from fiduciary.decide.experiment.decision import Decision
    from fiduciary.decide.experiment.state import State
    from fiduciary.engine.experiments.observe import Seen


def written(seen: Seen, decision: Decision, now: datetime) -> ModelExperimentStatus:
    """The status after this decision."""
    assert seen.world is not None
    before, world = seen.experiment.status, seen.world
    status, state = decision.status, decision.state
    ruling = ruled(before.ruling, decision, now)
    status = status.model_copy(update={"ruling": ruling})
    if stands(before, decision, recorded=seen.recorded):
        # It is carried out, whatever would be judged now: what is shown and asked for is still what was ruled.
        kept = ("phase", "verdict", "reason", "desired_traffic")
        status = status.model_copy(update={name: getattr(before, name) for name in kept})
    if state is None:
        return status
    kept = seen.kept
    if world.state is None:  # it begins: what the pods had suffered before is nobody's fault
        kept = replace(
            kept,
            champion=suffered(seen.pods[0]),
            challenger=suffered(seen.pods[1]),
        )
    evidence, ended = before.evidence, over(seen, decision)
    same = evidence is not None and (not evidence.counters if ended else kept == seen.stored)
    if not same or moved(world.state, state):
        evidence = folded(state, None if ended else kept)
    return status.model_copy(
        update={
            "champion": before.champion or _compared(world.champion),
            "challenger": before.challenger or _compared(world.challenger),
            "evidence": evidence,
        }
    )


def ruled(before: FinalRuling | None, decision: Decision, now: datetime) -> FinalRuling | None:
    """The ruling to be recorded. Once written it stays, but that harm goes back on a promotion."""
    ruling = decision.ruling
    if not ruling.rule.final or ruling.verdict not in ("Promote", "RollBack", "KeepChampion"):
        return before
    if before is not None and (before.verdict, ruling.verdict) != ("Promote", "RollBack"):
        return before
    return FinalRuling(
        verdict=ruling.verdict,
        reason=ruling.reason,
        message=ruling.message,
        at=now,
        summary=decision.summary,
        reasons=decision.grounds,
    )


def stands(before: ModelExperimentStatus, decision: Decision, *, recorded: bool) -> bool:
    """Whether an earlier ruling waits for its record, and nothing that was found since goes before it."""
    ruling = before.ruling
    return ruling is not None and not recorded and (ruling.verdict, decision.ruling.verdict) != ("Promote", "RollBack")


def over(seen: Seen, decision: Decision) -> bool:
    """Whether nothing is counted any more: the verdict is recorded and carried out, and no promotion is watched."""
    assert seen.world is not None
    ruling, recorded, route = decision.ruling, seen.world.recorded, seen.world.route
    if recorded is None or ruling.reason != reasons.VERDICT_RECORDED:
        return False
    if recorded.stands:
        return not watching(seen, decision)
    # What it shows then stays true. Who is champion all the same is it by somebody else's will.
    champion, challenger = seen.world.model.champion, seen.world.challenger
    if champion is not None and challenger is not None and champion.digest == challenger.digest:
        return True
    return route.weight == 0 and route.mirror == 0


def watching(seen: Seen, decision: Decision) -> bool:
    """Whether a promotion is inside the model's rollbackWindow."""
    assert seen.world is not None
    recorded = seen.world.recorded
    if recorded is None or decision.state is None:
        return False
    until = recorded.at.timestamp() + seen.world.model.rollback_window_seconds
    return decision.state.course.judged < until


def moved(before: State | None, after: State) -> bool:
    """Whether anything but the time of the last judgement is another one."""
    return before is None or replace(after, course=replace(after.course, judged=before.course.judged)) != before


def worth_writing(before: ModelExperimentStatus, after: ModelExperimentStatus) -> bool:
    """Whether more than forecasts and words has changed."""
    return before != after and (before.evidence != after.evidence or _told(before) != _told(after))


def asks(status: ModelExperimentStatus) -> Any:
    """What the FinancialModel reads of it: where it changes, the model is reconciled."""
    return (
        status.desired_traffic, status.ruling, status.harm, status.challenger, status.phase, status.approval_request,
        status.evidence is None or bool(status.evidence.counters), unjudged(status),
    )  # fmt: skip


def _told(status: ModelExperimentStatus) -> Any:
    health, ratio = status.data_health, status.srm
    return (
        asks(status), status.observed_generation, status.step, status.weight, status.verdict, status.reason,
        status.segments, status.champion,
        None if health is None else (health.state, health.since),
        None if ratio is None else ratio.alarm,
        tuple((one.type, one.status, one.reason, one.observed_generation) for one in status.conditions),
    )  # fmt: skip


def _compared(version: VersionRef | None) -> ComparedVersion | None:
    if version is None or version.digest is None:
        return None
    return ComparedVersion(version=version.version, digest=version.digest)
