"""A training from its claim to the end of its Job."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from fiduciary.api.modelstatus import Progress, SearchProgress, TrainingStatus
from fiduciary.decide import identity, preflight, reasons
from fiduciary.decide.decision import Create, Event
from fiduciary.decide.measurement import parse_result
from fiduciary.decide.step import Note, Step
from fiduciary.manifests import workers
from fiduciary.manifests.contract import Training
from fiduciary.manifests.engines import training_objects
from fiduciary.manifests.networkpolicy import egress_id, network_policy
from fiduciary.manifests.serviceaccount import service_account

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary.api.training import TrainingSpec
    from fiduciary.decide.case import Case
    from fiduciary.decide.due import Due
    from fiduciary.decide.world import JobView


def claim(case: Case, wanted: Due) -> Step:
    """Say in the status what will be trained, before it is: whoever reads an older picture loses the write."""
    name = identity.job_name(case.name, wanted.key, wanted.attempt)
    training = TrainingStatus(
        key=wanted.key,
        spec_key=case.spec_key,
        trigger=dict(wanted.trigger),
        as_of=wanted.as_of,
        job=name,
        attempt=wanted.attempt,
        phase=reasons.CLAIMED,
        since=case.now,
    )
    what = f"{case.spec.training.engine} {name}"
    note = Note(reasons.TRAINING, f"{what} is about to be created, with data up to {wanted.as_of}")
    return Step(training=training, note=note, claim=True, again=True)


def start(case: Case, training: TrainingStatus) -> Step:
    """Create what a claimed training needs; the Job comes last, when what confines it exists."""
    platform, spec = case.world.platform, case.spec.training
    image = spec.image or platform.trainer(case.spec)
    name = training.job or identity.job_name(case.name, training.key, training.attempt)
    attempt = Training(
        job=name,
        key=training.key,
        spec_key=case.spec_key,
        config_key=identity.config_key(case.spec),
        attempt=training.attempt,
        as_of=training.as_of or case.spec.data.as_of,
        trigger=training.trigger,
        cluster=platform.cluster,
        image=image,
        tracking_uri=platform.connections[case.spec.registry.connection].trainer_uri,
        operator_version=platform.operator_version,
    )
    model = case.world.model
    children = (
        Create(service_account(model)),
        Create(network_policy(model, platform.mlflow_egress)),
        *map(Create, training_objects(model, attempt, egress_id(model, platform.mlflow_egress))),
    )
    message = (
        f"{spec.engine} {name} trains {spec.architecture} with data up to {attempt.as_of} ({training.key}, image "
        f"{image}){_together(spec)}"
    )
    return Step(
        training=_phase(case, training, reasons.PENDING, None),
        note=Note(reasons.TRAINING, message),
        children=children,
        events=(Event("Normal", reasons.TRAINING_STARTED, message),),
    )


def watch(case: Case, job: JobView) -> Step:
    """The live training as its Job, pods and MLflow run show it."""
    known = case.status.training
    training = known if known is not None and known.key == job.key else adopted(case, job)
    if training.attempt != job.attempt or training.job != job.name:
        training = training.model_copy(update={"attempt": job.attempt, "job": job.name})
    blocked = preflight.pod_obstacle(job, all_needed=workers.several(case.world.model))
    what = f"{job.kind} {job.name}"
    phase = _phase_of(job)
    training = _phase(case, training, phase, blocked.message if blocked is not None else None)
    training = _progress(case, training)
    poll = case.now + timedelta(seconds=case.world.platform.progress_seconds)
    if blocked is not None:
        return Step(training=training, note=Note(blocked.reason, blocked.message), wake_at=poll)
    message = {
        reasons.QUEUED: f"{what} waits for admission by its queue",
        reasons.PENDING: f"the pod of {what} is being started",
        reasons.RETRYING: f"an attempt of {what} failed{_last_words(job)}; the next one is on its way",
    }.get(phase, f"{what} trains {case.spec.training.architecture} with data up to {job.as_of}")
    registry = case.registry
    if registry is not None and not registry.reachable:
        away = f"{message}; MLflow is away ({registry.message}): the training keeps its result until it is back"
        return Step(training=training, note=Note(registry.reason, away), wake_at=poll)
    if training.search is not None and training.search.trials < training.search.total:
        message += f"; {_trials(training.search)}"
    return Step(training=training, note=Note(reasons.TRAINING, message), wake_at=poll)


def _together(spec: TrainingSpec) -> str:
    return f", in {spec.nodes} pods that share its batches" if spec.nodes > 1 else ""


def _trials(search: SearchProgress) -> str:
    """``12 of 20 trials of its search ended, 3 given up, 1 failed``."""
    parts = ((search.pruned, "given up"), (search.failed, "failed"))
    more = "".join(f", {count} {word}" for count, word in parts if count)
    return f"{search.trials} of {search.total} trials of its search ended{more}"


def _phase_of(job: JobView) -> str:
    if job.suspended:
        return reasons.QUEUED
    if any(pod.phase == "Running" for pod in job.pods):
        return reasons.RUNNING
    if any(pod.phase == "Failed" for pod in job.pods):
        return reasons.RETRYING
    return reasons.PENDING


def _last_words(job: JobView) -> str:
    """What the newest failed attempt said of itself."""
    failed = [pod for pod in job.pods if pod.phase == "Failed"]
    if not failed:
        return ""
    pod = max(failed, key=lambda pod: (pod.finished_at.timestamp() if pod.finished_at else 0.0, pod.name))
    said = parse_result(pod.termination_message)
    if said is None:
        return f" ({pod.reason or 'no reason given'}, exit code {pod.exit_code})"
    return f" ({said.get('reason')}: {said.get('message')})"


def adopted(case: Case, job: JobView) -> TrainingStatus:
    """A Job whose claim was lost with the status: it says itself what it trains."""
    return TrainingStatus(
        key=job.key,
        spec_key=job.spec_key,
        trigger=dict(job.trigger),
        as_of=job.as_of.isoformat(),
        job=job.name,
        attempt=job.attempt,
        phase=reasons.PENDING,
        since=case.now,
    )


def _phase(case: Case, training: TrainingStatus, phase: str, message: str | None) -> TrainingStatus:
    since = training.since if training.phase == phase else case.now.replace(microsecond=0)
    # Made anew and not copied: what the cluster says may be longer than a status can hold.
    return TrainingStatus.model_validate({**dict(training), "phase": phase, "since": since, "message": message})


def _progress(case: Case, training: TrainingStatus) -> TrainingStatus:
    """What the run says of itself, taken over at most once in ``progress_seconds``."""
    run = case.registry.run if case.registry is not None else None
    if run is None:
        return training
    update: dict[str, Any] = {"run_id": run.run_id}
    before = training.progress
    due = (
        before is None
        or before.at is None
        or (case.now - before.at >= timedelta(seconds=case.world.platform.progress_seconds))
    )
    if due and run.progress is not None:
        told = _told(run.progress)
        if told is not None and (before is None or told != before.model_copy(update={"at": None})):
            update["progress"] = told.model_copy(update={"at": case.now.replace(microsecond=0)})
            update["search"] = _searched(run.progress) or training.search
    return training.model_copy(update=update)


def _told(progress: Mapping[str, Any]) -> Progress | None:
    """The tag of a run as progress; None where a foreign image wrote something else there."""
    try:
        told = {name: value for name, value in progress.items() if name not in ("at", "search")}
        # The trainer says 65.2; the column shows whole percents, and the API takes nothing else.
        if isinstance(told.get("percent"), float):
            told["percent"] = int(told["percent"])
        return Progress.model_validate(told)
    except ValueError:
        return None


def _searched(progress: Mapping[str, Any]) -> SearchProgress | None:
    """How far the search of a training is, from the same tag; None likewise."""
    try:
        return SearchProgress.model_validate(progress["search"]) if "search" in progress else None
    except ValueError:
        return None
