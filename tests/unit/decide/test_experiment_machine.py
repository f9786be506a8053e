"""Experiments in any order with all that may happen to a served model: what was promised about traffic still holds.

Both judgements are the real ones. The machine of serving goes on as it is; experiments are judged, end, are deleted or
vanish in between, and an engine may store a ruling at any moment, as if it had seen something.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from fiduciary.api.meta import FINALIZER
from fiduciary.decide import reasons
from fiduciary.decide.case import Case
from fiduciary.decide.experiment.recorded import VERDICTS, recorded
from fiduciary.decide.experiment.spent import spent
from fiduciary.decide.history import after, fold
from fiduciary.decide.serving.following import harmful
from fiduciary.decide.trial import trial_of
from tests.unit.decide.laboratory import tried_to
from tests.unit.decide.lives import service_name
from tests.unit.decide.logs import spending
from tests.unit.decide.test_serving_machine import Traffic

if TYPE_CHECKING:
    from tests.unit.decide.simulated_world import SimulatedWorld

RULINGS = [
    ("RollBack", reasons.HARM_SHOWN),
    ("RollBack", reasons.BREAKER_TRIPPED),
    ("Promote", reasons.PROMOTED),
    ("KeepChampion", reasons.NOT_SHOWN),
    ("KeepChampion", reasons.SUPERSEDED),
]
FAST: dict[str, Any] = {
    "promotion": {"rollbackWindow": "10m", "experiment": {"traffic": {"steps": [
        {"name": "shadow", "mirror": 100, "minBlocks": 1},
        {"name": "half", "weight": 50, "minBlocks": 1},
    ]}}}
}  # fmt: skip


class Experiments(Traffic):
    """A model whose challengers are judged by experiments."""

    def start(self) -> SimulatedWorld:
        self.lab = tried_to("shadow", FAST)
        return self.lab.sim

    @initialize()
    def begin(self) -> None:
        """It begins with a trial; what trains next is a matter of edits."""

    # -- the engine

    @rule()
    def judge(self) -> None:
        self.lab.turn()

    @rule(minutes=st.integers(1, 3))
    def both_work(self, minutes: int) -> None:
        for _ in range(minutes * 3):
            self.reconcile()
            self.lab.turn()
            self.sim.advance(seconds=20)

    @precondition(lambda self: bool(self.sim.world.experiments))
    @rule(place=st.integers(0, 9), ruling=st.sampled_from(RULINGS))
    def rule_whatever_was_seen(self, place: int, ruling: tuple[str, str]) -> None:
        experiments = self.sim.world.experiments
        mx = experiments[place % len(experiments)]
        known = recorded(self.sim.world.records, mx)
        again = known is not None and known.verdict == "Promote" and ruling[0] == "RollBack"
        if mx.status.challenger is not None and (mx.status.ruling is None or again):
            verdict, reason = ruling
            self.lab.ruled(mx.metadata.name, verdict, reason, **spending(purpose=mx.spec.purpose))

    # -- people, and accidents

    @precondition(lambda self: not self.sim.gone)
    @rule(really=st.integers(0, 7))
    def delete(self, really: int) -> None:
        """More rarely than all else: what comes after it is another machine's."""
        if really == 0:
            self.lab.sim.delete()
            if FINALIZER not in self.sim.model.metadata.finalizers:
                self.sim.gone = True
                self.sim.serving.collect(self.sim.model.metadata.uid)

    @precondition(lambda self: bool(self.sim.world.experiments))
    @rule(place=st.integers(0, 9), decision=st.sampled_from(["Abort", "Reject", "Approve"]))
    def act_on_an_experiment(self, place: int, decision: str) -> None:
        experiments = self.sim.world.experiments
        mx = experiments[place % len(experiments)]
        request = mx.status.approval_request
        digest = {"evidenceDigest": request.digest if request is not None else "sha256:" + "e" * 64}
        self._act(decision, "ana@desk", experiment=mx.metadata.name, **({} if decision == "Abort" else digest))

    @precondition(lambda self: bool(self.sim.world.experiments))
    @rule(place=st.integers(0, 9), by_force=st.booleans())
    def somebody_deletes_an_experiment(self, place: int, by_force: bool) -> None:
        experiments = self.sim.world.experiments
        mx = experiments[place % len(experiments)]
        if by_force:
            self.lab.remove(mx)
        else:
            self.lab.delete(mx.metadata.name)

    @rule(version=st.sampled_from(["1", "2", "3"]), rate=st.sampled_from([0.005, 0.3]))
    def a_version_answers_badly_or_well(self, version: str, rate: float) -> None:
        self.lab.bad[version] = rate

    # -- what must hold

    def nobody_answers_who_must_not(self) -> None:
        super().nobody_answers_who_must_not()
        sim = self.sim
        if sim.model.metadata.deletion_timestamp is not None or sim.model.spec.serving is None:
            return
        history = fold(sim.world.records)
        case = Case(sim.world, sim.now)
        shares = {service for service, weight in sim.serving.weights().items() if weight > 0}
        if history.challenger is not None and not (history.kill is not None and history.kill.engaged):
            challenger = service_name(sim, history.challenger.digest)
            assert challenger not in shares or history.trial is not None, "a share without an experiment"
            assert not (challenger in shares and harmful(case, history)), "harm is still routed"
        for digest in history.refused:
            assert service_name(sim, digest) not in shares, "what was refused still answers"

    @invariant()
    def no_experiment_has_two_verdicts(self) -> None:
        """But a promotion that is gone back on."""
        verdicts: dict[str, list[str]] = {}
        for record in self.sim.records:
            trial = trial_of(record)
            if trial is not None and record.action in VERDICTS:
                verdicts.setdefault(trial.uid, []).append(record.action)
        for found in verdicts.values():
            assert len(found) == 1 or found in (["Promote", "RollBack"], ["Promote", "Abort"]), found

    @invariant()
    def shares_are_raised_for_an_experiment_only(self) -> None:
        history = fold([])
        for record in self.sim.records:
            later = after(history, record)
            before = (history.traffic.challenger, history.traffic.mirror) if history.traffic else (0, 0)
            now = (later.traffic.challenger, later.traffic.mirror) if later.traffic else (0, 0)
            if now > before and record.action != "Resume":
                assert record.action == "Shift"
                assert later.trial is not None
                assert later.challenger is not None
                assert later.challenger.digest == later.trial.challenger
                assert not (history.kill is not None and history.kill.engaged)
            history = later

    @invariant()
    def what_was_spent_never_falls(self) -> None:
        records = self.sim.world.records
        tests = [spent(records[:number]).tests for number in range(len(records) + 1)]
        assert tests == sorted(tests)

    @invariant()
    def one_experiment_is_followed(self) -> None:
        history, active = fold(self.sim.world.records), self.sim.status.active_experiment
        if active is not None and history.trial is not None and self.sim.status.last_decision is not None:
            fresh = self.sim.status.last_decision.sequence == history.sequence
            assert not fresh or active.uid == history.trial.uid

    def teardown(self) -> None:
        sim = self.sim
        if not sim.gone:
            sim.registry.up = True
            sim.serving.node_works = sim.serving.controller_works = sim.serving.prober_works = True
            for _ in range(12):
                sim.settle(60)
                if sim.gone:
                    break
                self.lab.turn()
                sim.advance(seconds=20)
        self.lab.turn()
        super().teardown()


Experiments.TestCase.settings = settings(
    max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
test_experiments_keep_what_was_promised = Experiments.TestCase
