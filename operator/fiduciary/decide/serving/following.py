"""Which experiment the model follows, what it wishes, and what its challenger has to be able to take.

One experiment has the model's traffic at a time: the one whose challenger the log has under trial; else the one that
promoted the champion, as long as it watches it; else the oldest that is unfinished and about the challenger. Nothing
of this is stored: the log and the experiments say it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fiduciary.api.conditions import find
from fiduciary.api.modeldecision import Traffic
from fiduciary.api.quantities import timedelta_of
from fiduciary.decide import reasons
from fiduciary.decide.experiment.recorded import recorded
from fiduciary.decide.serving.backends import coming
from fiduciary.decide.trial import about, oldest_first

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from fiduciary.api.experiment import Step
    from fiduciary.api.modelexperiment import ModelExperiment, ModelExperimentStatus
    from fiduciary.decide.case import Case
    from fiduciary.decide.history import History
    from fiduciary.decide.serving.ability import Able

ALL = Traffic(champion=100)
FAILING = (reasons.INTERNAL_ERROR, reasons.WRITE_REFUSED)


def experiments_decide(case: Case) -> bool:
    """Whether challengers are judged by experiments. Else people alone promote them: in mode Manual without a template,
    and where nobody could count requests."""
    promotion = case.spec.promotion
    if not _counted(case):
        return False
    return promotion.mode == "Auto" or (promotion.mode == "Manual" and promotion.experiment is not None)


def active(case: Case, history: History) -> ModelExperiment | None:
    """The experiment that the model follows, or that watches its champion; None where there is none."""
    if history.trial is not None:
        return by_uid(case, history.trial.uid)
    watching = watcher(case, history)
    return watching if watching is not None else next(iter(queue(case, history)), None)


def by_uid(case: Case, uid: str) -> ModelExperiment | None:
    return next((one for one in case.world.experiments if one.metadata.uid == uid), None)


def watcher(case: Case, history: History) -> ModelExperiment | None:
    """The experiment that promoted the champion, while promotion.rollbackWindow lasts."""
    if history.watch is None or history.champion is None or case.now >= window_end(case, history):
        return None
    return by_uid(case, history.watch.uid)


def window_end(case: Case, history: History) -> datetime:
    """Until when the previous champion keeps its replicas, and the experiment that promoted the new one watches it."""
    champion = history.champion
    since = champion.since if champion is not None and champion.since is not None else case.now
    return since + timedelta_of(case.spec.promotion.rollback_window)


def watches(experiment: ModelExperiment, history: History) -> bool:
    """Whether the experiment promoted the champion: it has a verdict, and wishes nothing but to look on."""
    return history.watch is not None and history.watch.uid == experiment.metadata.uid


def queue(case: Case, history: History) -> tuple[ModelExperiment, ...]:
    """Experiments that could begin now, oldest first. None while people, a pin or the kill switch decide.

    While a change of backend waits, only one that has begun: evidence is of one place, and each that began would put
    the change off until it ends. The change waits for what has begun alone, so that neither waits for ever.
    """
    spec, challenger, traffic = case.spec, history.challenger, history.traffic
    killed = history.kill is not None and history.kill.engaged
    if challenger is None or traffic is None or traffic.champion == 0 or killed or spec.suspend:
        return ()
    if not _counted(case) or spec.promotion.mode == "Pinned":
        return ()
    found = [one for one in case.world.experiments if unfinished(one) and about(one, challenger) and _of(one, history)]
    if coming(case) is not None:
        found = [one for one in found if one.status.challenger is not None]
    return tuple(sorted(found, key=oldest_first))


def _counted(case: Case) -> bool:
    """Whether requests of the model can be counted: it is served, and the operator knows a Prometheus."""
    return case.world.platform.experiments and case.spec.serving is not None


def unfinished(experiment: ModelExperiment) -> bool:
    return experiment.status.ruling is None and experiment.metadata.deletion_timestamp is None


def _of(experiment: ModelExperiment, history: History) -> bool:
    """Whether it compares with the champion that serves."""
    champion, fixed, named = history.champion, experiment.status.champion, experiment.spec.champion
    if champion is None:
        return False
    if fixed is not None:
        return fixed.digest == champion.digest
    return named is None or named.version == champion.version


def unanswered(case: Case) -> Iterator[ModelExperiment]:
    """Experiments with a final ruling that the log has to answer, oldest first.

    One that never started changed nothing and spent nothing. After a promotion only harm is another ruling, and only
    while the version is champion by that promotion.
    """
    for one in sorted(case.world.experiments, key=oldest_first):
        ruling = one.status.ruling
        if ruling is None:
            continue
        found = recorded(case.world.records, one)
        if found is None:
            trial = case.history.trial
            if one.status.challenger is not None or (trial is not None and trial.uid == one.metadata.uid):
                yield one
        elif ruling.verdict == "RollBack" and found.verdict == "Promote" and watches(one, case.history):
            yield one


def harmful(case: Case, history: History) -> bool:
    """Whether harm was found in the trial and has no record: one that can be written ends the trial."""
    mx = by_uid(case, history.trial.uid) if history.trial is not None else None
    if mx is None:
        return False
    ruling = mx.status.ruling
    return mx.status.harm is not None or (ruling is not None and ruling.verdict == "RollBack")


def wished(case: Case, history: History, able: Able) -> Traffic | None:
    """The shares that the challenger's experiment wishes; None where there is no wish: they stay as they are.

    Where nothing wishes a share for the challenger any more it goes back to the champion.
    """
    traffic, mx = history.traffic, active(case, history)
    if traffic is None or traffic.champion == 0:
        return None
    if mx is None or watches(mx, history) or case.spec.promotion.mode == "Pinned":
        return ALL
    status, challenger, champion = mx.status, history.challenger, history.champion
    if status.ruling is not None and status.ruling.verdict == "Promote":
        return None  # what it wishes now is to be champion
    fixed = (status.champion, status.challenger)
    standing = (champion, challenger)
    if any(
        one is None or other is None or one.digest != other.digest for one, other in zip(fixed, standing, strict=True)
    ):
        return ALL  # it has not started, or compares others
    desired = status.desired_traffic
    if desired is None or status.ruling is not None or status.harm is not None or unjudged(status):
        return ALL
    if desired.champion == 0:
        return None
    if desired.challenger > 0 and not able.backend.capabilities.mirror_during_split:
        return desired.model_copy(update={"mirror": 0})  # copies could not be counted apart (protocols §4)
    return desired


def unjudged(status: ModelExperimentStatus) -> bool:
    """Whether the operator fails on the experiment: what it wished last is nobody's wish now, and nobody watches."""
    stalled = find(status.conditions, reasons.STALLED)
    return stalled is not None and stalled.status == "True" and stalled.reason in FAILING


def same_shares(one: Traffic, other: Traffic) -> bool:
    """A record is written where these change, not where only a step's name does."""
    return (one.champion, one.challenger, one.mirror) == (other.champion, other.challenger, other.mirror)


def raises(now: Traffic, wish: Traffic) -> bool:
    """Whether the challenger gets more requests or copies than it has."""
    return wish.challenger > now.challenger or wish.mirror > now.mirror


def pods_for(percent: int, champion_pods: int) -> int:
    """Pods of the challenger for a share of the requests, or of their copies, that these pods of the champion take."""
    return max(1, math.ceil(percent * champion_pods / 100))


def exposure(case: Case, history: History) -> int:
    """Per cent of the champion's requests that the challenger has to be able to take: now, and in what comes next.

    An experiment enters a step once its pods are ready, so they are made for it beforehand: from its last step on as
    many as a champion needs.
    """
    mx, traffic = active(case, history), history.traffic
    if mx is None or mx.spec.mode == "DryRun" or watches(mx, history):
        return 0
    steps = mx.spec.traffic.steps
    at = next((place for place, step in enumerate(steps) if step.name == mx.status.step), -1)
    following = steps[at + 1] if at + 1 < len(steps) else None
    asked = [_load(step) for step in (steps[at] if at >= 0 else None, following) if step is not None]
    if following is None and mx.spec.mode == "Enforce":
        asked.append(100)
    return max((*asked, traffic.challenger, traffic.mirror) if traffic is not None else asked)


def _load(step: Step) -> int:
    """Copies load pods as much as live requests do."""
    return max(step.weight, step.mirror)


def told(experiment: ModelExperiment) -> tuple[str, str]:
    """(reason, message) of where an experiment is."""
    ready = next((one for one in experiment.status.conditions if one.type == reasons.READY), None)
    if ready is None:
        return reasons.QUEUED, "it is about to be judged"
    return ready.reason, ready.message
