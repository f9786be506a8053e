"""Experiments that cannot be judged at all yet: what they name does not exist, or nobody could see their requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fiduciary.api.conditions import Status, condition
from fiduciary.api.modeldecision import Traffic
from fiduciary.decide import reasons
from fiduciary.decide.serving.backends import named

if TYPE_CHECKING:
    from datetime import datetime

    from fiduciary.api.financialmodel import FinancialModel
    from fiduciary.api.modelexperiment import ModelExperiment, ModelExperimentStatus
    from fiduciary.api.versions import VersionRef
    from fiduciary.decide.history import History


@dataclass(frozen=True, slots=True)
class Objection:
    """Why nothing is judged. ``stalled``: a person must act; else it is only waited for. ``until``: when it is over, if
    the clock ends it."""

    reason: str
    message: str
    stalled: bool = True
    until: datetime | None = None


def no_model(experiment: ModelExperiment) -> Objection:
    """The FinancialModel is not there."""
    name, namespace = experiment.spec.model_ref.name, experiment.metadata.namespace
    message = (
        f"there is no FinancialModel {name} in namespace {namespace}: create it, or delete this experiment and create "
        "one that names the right model"
    )
    return Objection(reasons.UNKNOWN_MODEL, message)


def unreadable(why: str) -> Objection:
    """What was folded so far cannot be gone on from."""
    message = f"the stored evidence cannot be read ({why}); nothing is guessed: delete this experiment, create another"
    return Objection(reasons.EVIDENCE_UNREADABLE, message)


def lost(experiment: ModelExperiment) -> Objection:
    """The log says that it began, and its status knows nothing of it."""
    message = (
        "the log says that this experiment has given its challenger requests, and its status, with all evidence, is "
        "gone: a new start would forget harm and test again what was tested; delete this experiment, another one is "
        f"made of version {experiment.spec.challenger.version} where the model makes them"
    )
    return Objection(reasons.EVIDENCE_LOST, message)


def unwatched(experiment: ModelExperiment, until: datetime) -> Objection:
    """It promoted its challenger, and all that it would tell harm by is gone. ``until``: end of the window."""
    version = experiment.spec.challenger.version
    message = (
        f"the status of this experiment was removed while it watched version {version}, which it promoted: harm is not "
        f"seen and nothing is rolled back by itself; watch version {version} yourself until promotion.rollbackWindow "
        f"ends ({until:%Y-%m-%d %H:%M:%S} UTC), and roll back with a ModelApproval {{decision: RollBack}}"
    )
    return Objection(reasons.WATCH_LOST, message, until=until)


def objection(
    experiment: ModelExperiment,
    model: FinancialModel,
    history: History,
    champion: VersionRef | None,
    *,
    seen: bool,
) -> Objection | None:
    """Why this experiment cannot begin. ``seen``: the settings name a Prometheus."""
    if not seen:
        message = (
            "the operator's settings name no Prometheus, so that nobody can count requests: set prometheus.url in its "
            "settings; until then people promote (ModelApproval)"
        )
        return Objection(reasons.PROMETHEUS_NOT_CONFIGURED, message)
    name, known = model.metadata.name, _versions(history)
    spec = experiment.spec
    if spec.traffic.sticky is not None:
        # A client that asked to stay with one arm must not be drawn anew with each request without a word.
        message = (
            f"spec.traffic.sticky: no route sends buckets of {spec.traffic.sticky.header} to one arm yet, and nobody "
            "counts requests that went to the other one, so each request would be drawn by itself. Delete this "
            "experiment, leave traffic.sticky out (in the model's promotion.experiment, too, where it made this), and "
            "create another"
        )
        return Objection(reasons.NOT_YET_ACTIVE, message)
    for role, asked in (("champion", spec.champion), ("challenger", spec.challenger)):
        if asked is not None and asked.version not in known:
            there = f"versions that it knows: {', '.join(sorted(known, key=int))}" if known else "it knows no version"
            message = (
                f"spec.{role}.version {asked.version} is not in the decision log of {name}; {there}. Create an "
                "experiment with one of them"
            )
            return Objection(reasons.UNKNOWN_VERSION, message)
    serving = model.spec.serving
    if serving is None or (serving.gateway is None and named(serving, history) != "Seldon"):
        message = f"{name} has no spec.serving.gateway: without a route no requests can be split; set it"
        return Objection(reasons.NOT_ROUTED, message)
    if history.champion is None:
        return Objection(reasons.NO_CHAMPION, f"{name} has no champion yet that could be compared", stalled=False)
    if champion is not None and champion.version == spec.challenger.version:
        message = (
            f"version {spec.challenger.version} is the champion of {name} already: champion and challenger have to be "
            "different versions"
        )
        return Objection(reasons.SAME_VERSION, message)
    return None


def refused(experiment: ModelExperiment, why: Objection, now: datetime) -> ModelExperimentStatus:
    """The status of an experiment that cannot be judged; what was folded and ruled stays.

    Nobody watches its challenger then: it asks for no share any more.
    """
    wish = experiment.status.desired_traffic
    if wish is not None and experiment.status.ruling is None:
        wish = Traffic(champion=100)
    before, generation = experiment.status.conditions, experiment.metadata.generation
    stalled: Status = "True" if why.stalled else "False"
    idle = (reasons.IDLE, "nothing is on its way")
    said: tuple[tuple[str, Status, str, str], ...] = (
        (reasons.READY, "False", why.reason, why.message),
        (reasons.RECONCILING, "False", *idle)
        if why.stalled
        else (reasons.RECONCILING, "True", why.reason, why.message),
        (reasons.STALLED, stalled, why.reason, why.message)
        if why.stalled
        else (reasons.STALLED, stalled, reasons.NO_ACTION_NEEDED, "no person needs to act"),
    )
    told = tuple(
        condition(before, kind, status, reason, message, generation=generation, now=now)
        for kind, status, reason, message in said
    )
    kinds = {one.type for one in told}
    others = tuple(one for one in before if one.type not in kinds)
    return experiment.status.model_copy(
        update={
            "observed_generation": generation,
            "phase": "Stalled" if why.stalled else "Pending",
            "reason": why.reason,
            "desired_traffic": wish,
            "conditions": (*told, *others),
        }
    )


def _versions(history: History) -> set[str]:
    """Numbers of all versions that the log knows, the rejected ones included."""
    standing = (history.champion, history.challenger, *history.former)
    judged = (verdict.version for verdict in history.verdicts.values())
    return {one.version for one in (*standing, *judged) if one is not None and one.version is not None}
