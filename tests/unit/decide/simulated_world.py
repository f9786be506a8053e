"""A small world that carries decisions out: records, Jobs and a registry in memory, and a clock that a test moves.

It stands for the engine and everything behind it, in the order of protocols §1, and may die before any write. What a
decision asks of the registry is answered as MLflow would. State machines of the engine's tests reuse it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from fiduciary.api import meta
from fiduciary.api.financialmodel import FinancialModel, FinancialModelStatus
from fiduciary.api.modeldecision import ModelDecision
from fiduciary.api.modelexperiment import ModelExperiment
from fiduciary.decide import financialmodel
from fiduciary.decide.decision import Apply, Create, Decision, Delete
from fiduciary.decide.world import JobView, Platform, PodView, Questions, RegistryView, RunView, VersionView, World
from tests.unit.decide.simulated_serving import SimulatedServing
from tests.unit.decide.worlds import PLATFORM, T0, merged, model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary.api.driftpolicy import DriftPolicy
    from fiduciary.api.modelapproval import ModelApproval
    from fiduciary.api.modeldecision import ModelDecisionSpec
    from fiduciary.decide.decision import Event, Mirror, Registration

Write = Literal["finalizer", "registration", "record", "children", "status", "mirror", "release"]
WRITES: tuple[Write, ...] = ("finalizer", "registration", "record", "children", "status", "mirror", "release")
TAG_DIGEST = "fiduciary.dev/digest"


class Crash(Exception):
    """The process died just before a write."""


class Unreachable(Exception):
    """The registry did not take a write: the engine backs off and decides again later."""


@dataclass
class SimulatedRegistry:
    """MLflow: runs by training key, versions of the one registered model, its aliases."""

    up: bool = True
    runs: dict[str, RunView] = field(default_factory=dict[str, RunView])
    versions: list[VersionView] = field(default_factory=list[VersionView])
    aliases: dict[str, str] = field(default_factory=dict[str, str])
    tampered: set[str] = field(default_factory=set[str])  # runs whose artifact was changed after it was measured

    def answer(self, asked: Questions) -> RegistryView:
        if not self.up:
            return RegistryView(reachable=False, reason="RegistryUnreachable", message="no answer from http://mlflow")
        return RegistryView(
            reachable=True,
            run=self.runs.get(asked.run_for_key or ""),
            version=self._by_digest(asked.version_by_digest),
            manifest_digest=self._manifest(asked.manifest_of_run),
            aliases=dict(self.aliases) if asked.aliases else {},
        )

    def register(self, wanted: Registration) -> None:
        if self._by_digest(wanted.digest) is None:
            number = str(len(self.versions) + 1)
            tags = {**wanted.tags, TAG_DIGEST: wanted.digest}
            self.versions.append(VersionView(number, wanted.run_id, wanted.source, tags))

    def mirror(self, wanted: Mirror) -> None:
        self.aliases |= wanted.set_aliases
        for alias in wanted.delete_aliases:
            self.aliases.pop(alias, None)

    def _by_digest(self, digest: str | None) -> VersionView | None:
        return next((version for version in self.versions if digest and version.tags[TAG_DIGEST] == digest), None)

    def _manifest(self, run_id: str | None) -> str | None:
        for run in self.runs.values():
            if run.run_id == run_id and run.result is not None:
                return "sha256:" + "0" * 64 if run_id in self.tampered else str(run.result["digest"])
        return None


class SimulatedWorld:
    """One model and everything that its decisions read and write."""

    def __init__(self, spec: dict[str, Any] | None = None, platform: Platform = PLATFORM) -> None:
        self.now = T0
        self.registry = SimulatedRegistry()
        self.serving = SimulatedServing()
        self.spoil: int | None = None  # die before this child of the next decision
        self.world = World(model=model(spec), platform=platform)
        self.events: list[Event] = []
        self.created: list[str] = []  # names of Jobs, also of those that are gone
        self.status_writes = 0
        self.gone = False
        self._uids = 0

    # -- what a test looks at

    @property
    def model(self) -> FinancialModel:
        return self.world.model

    @property
    def status(self) -> FinancialModelStatus:
        return self.world.model.status

    @property
    def jobs(self) -> tuple[JobView, ...]:
        return self.world.jobs

    @property
    def records(self) -> list[ModelDecisionSpec]:
        return [record.spec for record in self.world.records]

    @property
    def actions(self) -> list[str]:
        return [record.action for record in self.records]

    def condition(self, kind: str) -> tuple[str, str, str]:
        """Status, reason and message of a condition; ``("", "", "")`` where there is none."""
        for found in self.status.conditions:
            if found.type == kind:
                return found.status, found.reason, found.message
        return "", "", ""

    # -- the loop

    def step(self, die_before: Write | None = None) -> Decision:
        """Observe, decide, carry out: one reconcile. ``die_before`` raises :class:`Crash` before that write."""
        now = self.now
        self.serving.turn(now)
        self.world = self.serving.observed(self.world)
        seen, asked = self.world, Questions()
        while (further := financialmodel.questions(seen, now)) != asked:  # an answer may raise the next question
            seen, asked = replace(self.world, registry=self.registry.answer(further)), further
        decision = financialmodel.decide(seen, now)
        self.serving.asked = decision.probes
        self._carry_out(decision, die_before)
        return decision

    def settle(self, limit: int = 25) -> Decision:
        """Reconcile until nothing is written any more; fails if that never happens."""
        for _ in range(limit):
            before = self._fingerprint()
            decision = self.step()
            if self.gone or (not decision.again and self._fingerprint() == before):
                return decision
        raise AssertionError(f"did not settle in {limit} steps: {self.status.body()}")

    def advance(self, **time: float) -> None:
        self.now += timedelta(**time)

    # -- what others do

    def edit(self, change: dict[str, Any]) -> None:
        """A person edits the spec."""
        body = self.model.body()
        body["spec"] = merged(body["spec"], change)
        body["metadata"]["generation"] += 1
        self._store(FinancialModel.model_validate(body))

    def annotate(self, **annotations: str) -> None:
        metadata = self.model.metadata.model_copy(update={"annotations": annotations})
        self._store(self.model.model_copy(update={"metadata": metadata}))

    def delete(self) -> None:
        """A person deletes the model; it stays until its finalizer is gone."""
        metadata = self.model.metadata.model_copy(update={"deletion_timestamp": self.now})
        self._store(self.model.model_copy(update={"metadata": metadata}))

    def create_again(self, spec: dict[str, Any] | None = None) -> None:
        """The same resource is applied again after it was deleted: another UID, the same log."""
        assert self.gone
        self._uids += 1
        again = model(
            spec,
            metadata={
                "uid": f"{self._uids:08d}-2222-3333-4444-555555555555",
                "creationTimestamp": self.now.isoformat(),
            },
        )
        self.world, self.gone = replace(self.world, model=again, jobs=()), False

    def lose_status(self) -> None:
        self._store(self.model.model_copy(update={"status": FinancialModelStatus()}))

    def approve(self, approval: ModelApproval) -> None:
        self.world = replace(self.world, approvals=(*self.world.approvals, approval))

    def ask(self, *policies: DriftPolicy) -> None:
        """DriftPolicies as they are from now on."""
        self.world = replace(self.world, policies=policies)

    def start(self, progress: Mapping[str, Any] | None = None) -> None:
        """The pod of the live Job runs and has logged a run."""
        job = self._live()
        self.registry.runs[job.key] = RunView(f"run-{job.key[7:19]}", "RUNNING", progress)
        self._put(replace(job, pods=(PodView(f"{job.name}-a", "Running", started_at=self.now),)))

    def finish(self, result: Mapping[str, Any] | None = None, *, message: bool = True) -> JobView:
        """The live Job succeeds with this result; ``message=False``: its termination message is lost."""
        job = self._live()
        document = dict(result or {}) or {"contractVersion": 1}
        self.registry.runs[job.key] = RunView(str(document.get("runId", "")), "FINISHED", result=document)
        ended = PodView(
            name=f"{job.name}-a",
            phase="Succeeded",
            exit_code=0,
            termination_message=json.dumps(document) if message else "",
            started_at=job.created_at,
            finished_at=self.now,
        )
        self._put(replace(job, succeeded=True, finished_at=self.now, pods=(ended,)))
        return job

    def fail(self, exit_code: int, document: Mapping[str, Any] | None = None, reason: str = "PodFailurePolicy") -> None:
        """The live Job fails for good."""
        job = self._live()
        ended = PodView(
            name=f"{job.name}-a",
            phase="Failed",
            reason="Error",
            exit_code=exit_code,
            termination_message=json.dumps({"contractVersion": 1, **document}) if document else "",
            started_at=job.created_at,
            finished_at=self.now,
        )
        self._put(replace(job, failed=True, reason=reason, finished_at=self.now, pods=(ended,)))

    def lose_jobs(self) -> None:
        """Somebody, or a TTL, removed every Job."""
        self.world = replace(self.world, jobs=())

    # -- writes

    def _carry_out(self, decision: Decision, die_before: Write | None) -> None:
        for write in WRITES:
            if write == die_before:
                raise Crash(write)
            if not self.registry.up and write == "registration" and decision.registration is not None:
                raise Unreachable
            getattr(self, f"_write_{write}")(decision)
        self.events += decision.events

    def _write_finalizer(self, decision: Decision) -> None:
        if decision.finalizer == "Add":
            self._finalizers((meta.FINALIZER,))

    def _write_registration(self, decision: Decision) -> None:
        if decision.registration is not None:
            self.registry.register(decision.registration)

    def _write_record(self, decision: Decision) -> None:
        if decision.record is None:
            return
        sequence = self.records[-1].sequence if self.records else 0
        assert decision.record.sequence == sequence + 1, "a record must follow the newest one"
        stored = json.loads(json.dumps(decision.record.body()))
        body = {"metadata": {"name": f"{self.model.metadata.name}-{sequence + 1}"}, "spec": stored}
        self.world = replace(self.world, records=(*self.world.records, ModelDecision.model_validate(body)))

    def _write_children(self, decision: Decision) -> None:
        for number, child in enumerate(decision.children):
            if number == self.spoil:
                self.spoil = None
                raise Crash(f"children.{number}")
            if self.serving.carry_out(child, self.now):
                continue
            match child:
                case Create(body) | Apply(body) if body["kind"] == "Job":
                    self._create(body)
                case Create(body) if body["kind"] == "ModelExperiment":
                    self._experiment(body)
                case Delete(name=name, uid=uid, kind="ModelExperiment"):
                    left = tuple(one for one in self.world.experiments if one.metadata.uid != uid)
                    self.world = replace(self.world, experiments=left)
                case Delete(name=name, uid=uid, kind="Job"):
                    kept = tuple(job for job in self.jobs if (job.name, job.uid) != (name, uid))
                    self.world = replace(self.world, jobs=kept)
                case _:
                    pass  # ServiceAccounts and NetworkPolicies are not read by any decision

    def _write_status(self, decision: Decision) -> None:
        if decision.finalizer == "Remove" or decision.status == self.status:
            return
        stored = FinancialModelStatus.model_validate(json.loads(json.dumps(decision.status.body())))
        self.status_writes += 1
        self._store(self.model.model_copy(update={"status": stored}))

    def _write_mirror(self, decision: Decision) -> None:
        if decision.mirror is not None and self.registry.up:
            self.registry.mirror(decision.mirror)

    def _write_release(self, decision: Decision) -> None:
        if decision.finalizer == "Remove":
            self._finalizers(())
            self.gone = self.model.metadata.deletion_timestamp is not None
            if self.gone:
                self.serving.collect(self.model.metadata.uid)

    def _create(self, body: Mapping[str, Any]) -> None:
        metadata = body["metadata"]
        if any(job.name == metadata["name"] for job in self.jobs):
            return  # 409 with our own key: done
        annotations = metadata["annotations"]
        self._uids += 1
        self.created.append(metadata["name"])
        job = JobView(
            name=metadata["name"],
            uid=f"job-{self._uids}",
            resource_version="1",
            key=annotations[meta.ANNOTATION_TRAINING_KEY],
            spec_key=annotations[meta.ANNOTATION_SPEC_KEY],
            attempt=int(metadata["name"].rpartition("-")[2]),
            as_of=date.fromisoformat(annotations[meta.ANNOTATION_AS_OF]),
            trigger=json.loads(annotations[meta.ANNOTATION_TRIGGER]),
            created_at=self.now.astimezone(UTC),
            owner_uid=metadata["ownerReferences"][0]["uid"],
        )
        self.world = replace(self.world, jobs=(*self.jobs, job))

    def _experiment(self, body: Mapping[str, Any]) -> None:
        name = body["metadata"]["name"]
        if any(one.metadata.name == name for one in self.world.experiments):
            return  # 409, and ours: done
        self._uids += 1
        stored = {"uid": f"mx-{self._uids}", "generation": 1, "creationTimestamp": self.now.isoformat()}
        made = ModelExperiment.model_validate({**body, "metadata": {**body["metadata"], **stored}})
        self.world = replace(self.world, experiments=(*self.world.experiments, made))

    def _finalizers(self, finalizers: tuple[str, ...]) -> None:
        metadata = self.model.metadata.model_copy(update={"finalizers": finalizers})
        self._store(self.model.model_copy(update={"metadata": metadata}))

    def _store(self, changed: FinancialModel) -> None:
        self.world = replace(self.world, model=changed)

    def _live(self) -> JobView:
        running = [job for job in self.jobs if not job.finished]
        assert running, f"no Job runs: {self.status.body()}"
        return running[-1]

    def _put(self, changed: JobView) -> None:
        jobs = tuple(changed if job.name == changed.name else job for job in self.jobs)
        self.world = replace(self.world, jobs=jobs)

    def _fingerprint(self) -> object:
        versions = tuple(version.version for version in self.registry.versions)
        aliases = tuple(sorted(self.registry.aliases.items()))
        objects = tuple((place, stored.version) for place, stored in sorted(self.serving.objects.items()))
        seen = replace(self.world, probes=tuple(replace(probe, at=T0) for probe in self.world.probes))
        return seen, versions, aliases, objects, self.serving.asked


def at(hours: float) -> datetime:
    """Hours after the first moment of a simulated world."""
    return T0 + timedelta(hours=hours)
