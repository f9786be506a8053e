"""From numbers to a verdict: judge, register what passed, record either way."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any

from fiduciary.api.modeldecision import Reason
from fiduciary.api.modelstatus import TrainingStatus
from fiduciary.api.versions import VersionRef
from fiduciary.decide import gates, identity, reasons, records
from fiduciary.decide.decision import Event, Registration
from fiduciary.decide.measurement import kept, read
from fiduciary.decide.outcome import Failed, Unknown, outcome
from fiduciary.decide.step import Note, Step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary.api.modeldecision import Cause, CauseKind
    from fiduciary.decide.case import Case
    from fiduciary.decide.due import Due
    from fiduciary.decide.gates import Judgement
    from fiduciary.decide.history import Verdict
    from fiduciary.decide.world import JobView

REGISTRY_RETRY = timedelta(seconds=15)
"""How soon MLflow is asked again while a verdict waits for it."""
MESSAGES_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Judged:
    """Numbers with their verdict, and how to write it down."""

    judgement: Judgement
    result: Mapping[str, Any]  # run, source, digest, dataDigest: of the trainer or of the record
    summary: Mapping[str, Any]
    kind: CauseKind
    trigger: Mapping[str, str]
    training_key: str
    as_of: str


def of_job(case: Case, job: JobView, training: TrainingStatus) -> Step:
    """The step that follows from a finished Job of the present spec."""
    ended = outcome(job, case.registry)
    key, as_of, trigger = job.key, job.as_of.isoformat(), job.trigger
    started = job.created_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    kind = records.cause_kind(case, trigger)
    if isinstance(ended, Unknown):
        note = Note(_registry_reason(case), ended.message)
        return Step(training=_in_phase(training, reasons.JUDGING, case), note=note, wake_at=case.now + REGISTRY_RETRY)
    if isinstance(ended, Failed):
        summary = records.training_summary(
            case, key=key, as_of=as_of, trigger=trigger, trials=_trials(case), started_at=started, job=job.name,
            attempt=job.attempt, run_id=training.run_id,
        )  # fmt: skip
        return _failed(case, ended, summary, kind, trigger)
    return _measured(case, ended.result, key, as_of, trigger, started, job.name, job.attempt, training)


def of_run(case: Case, wanted: Due, result: Mapping[str, Any], training: TrainingStatus | None) -> Step:
    """The step that follows from a training whose Job is gone, or belonged to a cluster that is gone.

    Its MLflow run still holds the numbers. Anyone may write there, so they are judged like any others, and the artifact
    must be the one that they name.
    """
    started = f"{training.since if training is not None and training.since else case.now:%Y-%m-%dT%H:%M:%SZ}"
    job = (training.job if training is not None else None) or identity.job_name(case.name, wanted.key, wanted.attempt)
    live = training or TrainingStatus(
        key=wanted.key, spec_key=case.spec_key, trigger=dict(wanted.trigger), as_of=wanted.as_of, attempt=wanted.attempt
    )
    return _measured(case, result, wanted.key, wanted.as_of, wanted.trigger, started, job, wanted.attempt, live)


def _measured(
    case: Case,
    result: Mapping[str, Any],
    key: str,
    as_of: str,
    trigger: Mapping[str, str],
    started: str,
    job: str,
    attempt: int,
    training: TrainingStatus,
) -> Step:
    trials = _trials(case)
    # From what the record will hold, so that judging again by the same gates gives the same verdict.
    judgement = gates.judge(_subject(case, kept(result), trials), case.spec.gates)
    summary = records.training_summary(
        case, key=key, as_of=as_of, trigger=trigger, trials=trials, started_at=started, job=job,
        attempt=attempt, result=result, run_id=str(result.get("runId", "")),
    )  # fmt: skip
    judged = Judged(judgement, result, summary, records.cause_kind(case, trigger), trigger, key, as_of)
    return _carry_out(case, judged, _in_phase(training, reasons.JUDGING, case))


def lost(case: Case, claim: TrainingStatus) -> Step:
    """Jobs of this key vanished again and again without a verdict: say so instead of trying for ever."""
    message = (
        f"{claim.attempt} Jobs of training key {claim.key} vanished without a verdict, the last one {claim.job}; "
        "spec.training.retry.limit is reached. Find out what deletes them, then ask for a Retrain"
    )
    summary = records.training_summary(
        case, key=claim.key, as_of=claim.as_of or "", trigger=claim.trigger, trials=_trials(case),
        started_at=f"{claim.since or case.now:%Y-%m-%dT%H:%M:%SZ}", job=claim.job or "", attempt=claim.attempt,
        run_id=claim.run_id,
    )  # fmt: skip
    kind = records.cause_kind(case, claim.trigger)
    return _failed(case, Failed(reasons.JOB_LOST, message), summary, kind, claim.trigger)


def again(case: Case, verdict: Verdict) -> Step | None:
    """Judge stored numbers by gates that changed since; None where the numbers or the change are missing."""
    if verdict.measured is None or verdict.gates_digest == case.gates_digest:
        return None
    if verdict.version is not None and verdict.version.digest in case.history.refused:
        return None  # no gate brings back what a person or serving refused
    architecture = str(verdict.record.evidence.summary.get("architecture", ""))
    subject = gates.Subject(read(verdict.measured), architecture, verdict.trials)
    judged = Judged(
        gates.judge(subject, case.spec.gates),
        verdict.measured,
        records.judged_again(case, verdict),
        "GatesChanged",
        verdict.trigger,
        verdict.training_key,
        verdict.as_of,
    )
    return _carry_out(case, judged, None)


def present_judgement(case: Case, verdict: Verdict) -> Judgement | None:
    """How a version would fare by the gates as they are now; nothing is recorded."""
    if verdict.measured is None:
        return None
    architecture = str(verdict.record.evidence.summary.get("architecture", ""))
    return gates.judge(gates.Subject(read(verdict.measured), architecture, verdict.trials), case.spec.gates)


def _carry_out(case: Case, judged: Judged, training: TrainingStatus | None) -> Step:
    if not judged.judgement.passed:
        return _rejected(case, judged)
    digest = str(judged.result.get("digest", ""))
    number = _registered_as(case, judged.training_key, digest)
    if number is not None:
        return _accepted(case, judged, number)  # the log knows its number: MLflow need not be asked
    registry = case.registry
    if registry is None or not registry.reachable:
        why = registry.message if registry is not None else "MLflow was not asked yet"
        message = f"the version passed every gate and waits to be registered as {case.registered_model}: {why}"
        return Step(
            training=_in_phase(training, reasons.REGISTERING, case),
            note=Note(_registry_reason(case), message),
            wake_at=case.now + REGISTRY_RETRY,
        )
    if registry.version is not None:
        return _accepted(case, judged, registry.version.version)
    if registry.manifest_digest != digest:
        found = registry.manifest_digest or "nothing"
        message = (
            f"MLflow holds {found} as version/manifest.json of run {judged.result.get('runId')}, the trainer measured "
            f"{digest}; somebody changed or removed the artifact. Train again, and find out who writes to MLflow"
        )
        return _failed(case, Failed(reasons.ARTIFACT_MISMATCH, message), judged.summary, judged.kind, judged.trigger)
    registration = Registration(
        connection=case.spec.registry.connection,
        model=case.registered_model,
        run_id=str(judged.result.get("runId", "")),
        digest=digest,
        source=str(judged.result.get("source", "")),
        tags={
            "fiduciary.dev/digest": digest,
            "fiduciary.dev/training-key": judged.training_key,
            "fiduciary.dev/data-digest": str(judged.result.get("dataDigest", "")),
            "fiduciary.dev/owner": case.owner,
            "fiduciary.dev/as-of": judged.as_of,
        },
    )
    note = Note(
        reasons.REGISTERING, f"the version passed every gate and is being registered as {case.registered_model}"
    )
    return Step(
        training=_in_phase(training, reasons.REGISTERING, case),
        note=note,
        registration=registration,
        # What is registered must be cleaned up when the model goes.
        finalizer="Add",
        again=True,
    )


def _accepted(case: Case, judged: Judged, number: str) -> Step:
    champion = case.history.champion
    digest = judged.result.get("digest")
    role: records.Role = "Champion" if champion is None or champion.digest == digest else "Challenger"
    version = _version(case, judged, number, role)
    place = "champion" if role == "Champion" else f"challenger of version {champion.version if champion else '?'}"
    count = len(judged.judgement.results)
    message = f"version {number} passed all {count} gates and is {place}: {_headline(judged)}"
    cause = records.cause(case, judged.kind, message, trigger=judged.trigger)
    entry = records.record(case, "Accept", cause, summary=judged.summary, before=champion, to=version)
    return Step(record=entry, events=(Event("Normal", reasons.ACCEPTED, f"{message} ({digest})"),), again=True)


def _rejected(case: Case, judged: Judged) -> Step:
    failures = judged.judgement.failures
    message = explain(failures, len(judged.judgement.results))
    cause = records.cause(
        case,
        judged.kind,
        message,
        trigger=judged.trigger,
        reasons=tuple(Reason(reason=failure.reason, message=failure.message) for failure in failures),
    )
    number = _registered_as(case, judged.training_key, str(judged.result.get("digest", "")))
    version = _version(case, judged, number, "Candidate")
    entry = records.record(case, "Reject", cause, summary=judged.summary, before=case.history.champion, to=version)
    return Step(record=entry, events=(Event("Warning", reasons.REJECTED, message),), again=True)


def explain(failures: tuple[gates.Result, ...], count: int) -> str:
    """The failed gates in a sentence each, the gravest first."""
    shown = "; ".join(failure.message for failure in failures[:MESSAGES_SHOWN])
    more = f"; and {len(failures) - MESSAGES_SHOWN} more" if len(failures) > MESSAGES_SHOWN else ""
    return f"{len(failures)} of {count} gates refused it: {shown}{more}"


def _failed(
    case: Case, failed: Failed, summary: Mapping[str, Any], kind: CauseKind, trigger: Mapping[str, str]
) -> Step:
    cause: Cause = records.cause(
        case, kind, failed.message, trigger=trigger, reasons=(Reason(reason=failed.reason, message=failed.message),)
    )
    # Numbers whose artifact is gone must not be judged again.
    content = {name: value for name, value in summary.items() if name != "measured"}
    to = VersionRef(training_key=str(summary["trainingKey"]), as_of=str(summary["asOf"]))
    entry = records.record(case, "TrainingFailed", cause, summary=content, to=to)
    message = f"{failed.reason}: {failed.message}"
    return Step(record=entry, events=(Event("Warning", reasons.TRAINING_FAILED, message),), again=True)


def _version(case: Case, judged: Judged, number: str | None, role: str) -> VersionRef:
    result = judged.result
    return VersionRef.model_validate(
        {
            "version": number,
            "runId": result.get("runId"),
            "uri": result.get("source"),
            "digest": result.get("digest"),
            "dataDigest": result.get("dataDigest"),
            "trainingKey": judged.training_key,
            "role": role,
            "architecture": judged.summary.get("architecture") or None,
            "asOf": judged.as_of,
        }
    )


def _registered_as(case: Case, key: str, digest: str) -> str | None:
    """The number that this very artifact got when it was first accepted."""
    known = case.history.verdicts.get(key)
    version = None if known is None else known.version
    return version.version if version is not None and version.digest == digest else None


def _headline(judged: Judged) -> str:
    """The most telling number of the label kind, with its error."""
    measured = read(judged.result)
    name = f"{gates.TO_BEAT.get(measured.label_kind, '')}_skill"
    metric = measured.metrics.get(name)
    if metric is None:
        return f"{measured.label_kind} model"
    error = f" ± {metric.se:.4f}" if metric.se is not None else ""
    days = f" over {metric.n:,} days" if metric.n is not None else ""
    return f"{name} {metric.estimate:.4f}{error}{days}"


def _subject(case: Case, result: Mapping[str, Any], trials: int) -> gates.Subject:
    return gates.Subject(read(result), case.spec.training.architecture or "", trials)


def _trials(case: Case) -> int:
    """N: distinct configurations whose outer-test result somebody saw, this one included."""
    return len(case.history.configurations | {identity.config_key(case.spec)})


def _registry_reason(case: Case) -> str:
    registry = case.registry
    return registry.reason if registry is not None and registry.reason else reasons.JUDGING


def _in_phase(training: TrainingStatus | None, phase: str, case: Case) -> TrainingStatus | None:
    if training is None or training.phase == phase:
        return training
    return training.model_copy(update={"phase": phase, "since": case.now.replace(microsecond=0), "message": None})
