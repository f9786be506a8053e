"""The replay of both procedures (statistics.md rule 15): when its Job is made, and what its state means.

Nothing of it is stored: the scorer says whether the ledger is there, and Jobs that failed stay as long as their
experiment, so that attempts are counted by looking. Whoever deletes a failed Job asks for another try.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fiduciary.decide import outcome, preflight, reasons
from fiduciary.decide.decision import Create, Delete
from fiduciary.decide.experiment.ledgers import prequential_name
from fiduciary.decide.experiment.times import at
from fiduciary.decide.measurement import parse_result
from fiduciary.decide.world import World
from fiduciary.manifests.comparison import Replay, comparison_job, network_policy

if TYPE_CHECKING:
    from fiduciary.api.versions import VersionRef
    from fiduciary.decide.decision import Child
    from fiduciary.decide.experiment.case import Case
    from fiduciary.decide.experiment.decision import Ruling
    from fiduciary.decide.experiment.world import Comparison, ComparisonJob

ATTEMPTS = 5
"""Jobs, each with its own retries: outages of hours are survived, a broken scorer is not hammered for ever."""
FIRST_DELAY, LONGEST_DELAY = 60, 3600
"""Seconds after a Job that failed for something outside, doubling."""
RECHECK = 15
"""Seconds after which what nobody tells us of (the label of a Secret) is looked at again."""
ARRIVES = 120
"""Seconds after a Job succeeded in which its ledger is read: then the scorer has lost it."""
FINAL = "PodFailurePolicy"
"""Kubernetes' reason of a Job that ended with an exit code that says: not again."""
WAITS_FOR = frozenset({reasons.QUEUED, reasons.KILL_ENGAGED, reasons.PINNED, reasons.SUSPENDED, reasons.DELETING})
"""While these rule, nothing new is started."""

Phase = Literal["Posted", "Running", "Waiting", "Failed", "Ended"]


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the replay is.

    Attributes:
        attempt: of the Job that is to be made now; None: none.
        at: when the answer could be another one, in seconds since 1970.
    """

    phase: Phase
    reason: str
    message: str
    attempt: int | None = None
    at: int | None = None


def replayable(champion: VersionRef | None, challenger: VersionRef | None) -> bool:
    """Whether both versions were trained here, so that their artifacts hold a procedure to replay."""
    return all(
        version is not None and version.digest and version.run_id and version.training_key
        for version in (champion, challenger)
    )


def standing(case: Case) -> Standing | None:
    """None: nothing is replayed for this experiment, or nobody knows."""
    state, its = case.state, case.world.comparison
    if its is None or state is None or not (state.terms.prequential and state.terms.objectives):
        return None
    rows = 0 if its.ledger is None else its.ledger.rows
    folded = state.evidence.sessions.last + 1
    if rows or folded:
        # A part of it would be evidence that somebody's paging chose.
        whole = folded >= rows
        known = rows or folded
        told = f"{min(folded, known)} of {known} replayed sessions are counted"  # live ones may follow
        return Standing("Posted" if whole else "Running", reasons.REPLAYED if whole else reasons.REPLAYING, told)
    champion, challenger = case.world.champion, case.world.challenger
    if case.world.recorded is not None or champion is None or challenger is None:
        # Whoever holds no place any more is looked for no more: the log would know no run of a refused version.
        told = "the verdict came before both procedures were replayed; nothing waits for that any more"
        return Standing("Ended", reasons.REPLAY_NOT_NEEDED, told)
    if not replayable(champion, challenger):
        return Standing(
            "Failed",
            reasons.NOT_REPLAYABLE,
            "a version of this experiment has no run of a training in the log, so there is no procedure to replay; "
            "set evidence.outcomes to Live, or train the version here",
        )
    if its.scorer is None:
        return Standing(
            "Failed",
            reasons.NO_SCORER,
            "this operator has no outcome scorer, so replayed sessions have nowhere to go; configure one, or set "
            "evidence.outcomes to Live",
        )
    name = _ledger(case)
    jobs = tuple(job for job in its.jobs if job.ledger == name and not job.deleting)
    return _of_jobs(case, its, its.scorer.url, jobs)


def children(case: Case, this: Standing | None, ruling: Ruling) -> tuple[Child, ...]:
    """Jobs to make, and Jobs that nobody waits for any more."""
    its = case.world.comparison
    if its is None:
        return ()
    over = ruling.rule.final or case.world.recorded is not None
    if over:
        this = None
    done = this is None or this.phase == "Posted"
    old = case.now - case.world.platform.job_ttl_seconds
    gone = [
        job for job in its.jobs if not job.deleting and (done and _ended(job) <= old if job.finished else this is None)
    ]
    made: list[Child] = [Delete("batch/v1", "Job", job.name, job.uid) for job in gone]
    if this is not None and this.attempt is not None and ruling.reason not in WAITS_FOR:
        replay = _replay(case, its, this.attempt)
        made += [Create(network_policy(replay)), Create(comparison_job(replay))]
    return tuple(made)


def wake_at(case: Case, this: Standing | None) -> int | None:
    """When the replay has to be looked at again though nobody calls."""
    its = case.world.comparison
    if its is None:
        return None
    kept = case.world.platform.job_ttl_seconds
    moments = [_ended(job) + kept for job in its.jobs if job.finished]
    if this is not None and this.at is not None:
        moments.append(this.at)
    return min((moment for moment in moments if moment > case.now), default=None)


def _of_jobs(case: Case, its: Comparison, scorer: str, jobs: tuple[ComparisonJob, ...]) -> Standing:
    last = max(jobs, key=lambda job: job.attempt, default=None)
    if last is not None and not last.finished:
        return _running(last)
    if its.ledger is None:
        why = its.unreachable or "it was not asked yet"
        told = f"the scorer at {scorer} does not say what it has: {why}"
        return Standing("Waiting", reasons.SCORER_UNREACHABLE, told)
    if last is None:
        return _due(case, its, 1, reasons.REPLAYING, "a Job is made that replays both procedures")
    if last.succeeded and case.now < _ended(last) + ARRIVES:
        told = f"Job {last.name} has posted its ledger, which is being read"
        return Standing("Running", reasons.REPLAYING, told, at=_ended(last) + ARRIVES)
    failed = _failure(scorer, last)
    if last.failed and last.reason == FINAL:
        return Standing("Failed", failed.reason, failed.message)
    if last.attempt >= ATTEMPTS:
        told = f"{failed.message}; {ATTEMPTS} Jobs failed. Mend it, then delete Job {last.name}"
        return Standing("Failed", failed.reason, told)
    again = _ended(last) + min(FIRST_DELAY * 2 ** (last.attempt - 1), LONGEST_DELAY)
    if case.now >= again:
        return _due(case, its, last.attempt + 1, failed.reason, f"{failed.message}; trying again")
    return Standing("Waiting", failed.reason, f"{failed.message}; tried again at {at(again):%H:%M:%S} UTC", at=again)


def _due(case: Case, its: Comparison, attempt: int, reason: str, message: str) -> Standing:
    """A Job is to be made, if nothing forbids what it would read and mount."""
    world = World(its.model, case.world.platform, references=its.references, quotas=its.quotas)
    obstacle = preflight.replay_obstacle(world, case.moment)
    if obstacle is None:
        return Standing("Waiting", reason, message, attempt=attempt)
    again = case.now + RECHECK if obstacle.recheck else None
    return Standing("Waiting", obstacle.reason, f"no Job is made: {obstacle.message}", at=again)


def _running(job: ComparisonJob) -> Standing:
    blocked = preflight.pod_obstacle(job)
    if blocked is not None:
        return Standing("Running", blocked.reason, blocked.message)
    if job.suspended:
        return Standing("Running", reasons.REPLAYING, f"Job {job.name} waits for admission by its queue")
    if not job.pods or job.pods[-1].phase == "Pending":
        return Standing("Running", reasons.REPLAYING, f"the pod of Job {job.name} is being started")
    failed = [pod for pod in job.pods if pod.phase == "Failed"]
    said = None if not failed else parse_result(failed[-1].termination_message)
    before = "" if said is None else f"; an attempt before failed ({said.get('reason')}: {said.get('message')})"
    return Standing("Running", reasons.REPLAYING, f"Job {job.name} replays both procedures{before}")


def _failure(scorer: str, job: ComparisonJob) -> outcome.Failed:
    if job.failed:
        return outcome.failure(job)
    return outcome.Failed(
        reasons.LEDGER_LOST,
        f"Job {job.name} has posted the ledger {job.ledger}, and the scorer at {scorer} has none of this name: "
        "was its volume lost?",
    )


def _replay(case: Case, its: Comparison, attempt: int) -> Replay:
    champion, challenger, platform = case.world.champion, case.world.challenger, case.world.platform
    assert champion is not None  # without both and a scorer `standing` gives no attempt
    assert challenger is not None
    assert its.scorer is not None
    return Replay(
        model=its.model,
        experiment=case.name,
        experiment_uid=case.world.experiment.metadata.uid,
        ledger=_ledger(case),
        champion=champion,
        challenger=challenger,
        attempt=attempt,
        scorer=its.scorer,
        cluster=platform.cluster,
        image=platform.trainer(its.model.spec),
        tracking_uri=platform.connections[its.model.spec.registry.connection].trainer_uri,
        operator_version=platform.operator_version,
        mlflow_egress=platform.mlflow_egress,
    )


def _ledger(case: Case) -> str:
    champion, challenger = case.world.champion, case.world.challenger
    digests = ["" if version is None else version.digest or "" for version in (champion, challenger)]
    return prequential_name(case.spec.model_ref.name, *digests)


def _ended(job: ComparisonJob) -> int:
    return int((job.finished_at or job.created_at).timestamp())
