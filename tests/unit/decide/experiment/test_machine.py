"""Any history of one experiment: what may never happen, whatever order things come in (Hypothesis).

The machine plays people, the model, the gateway, Prometheus and the clock in any order, with numbers extreme enough
that every verdict is reached, restarts the operator from stored JSON at each step, and looks at every answer.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fiduciary.decide import reasons
from fiduciary.decide.experiment.read import noninferiority_over, objectives_over
from fiduciary.decide.experiment.world import Anchor, Health, Live, LiveCounts, PodFacts, Spending
from fiduciary.evidence.blocks import Counts
from tests.unit.decide.experiment.trials import FACTS, T0, Trial, sessions
from tests.unit.decide.worlds import approval

if TYPE_CHECKING:
    from fiduciary.decide.experiment.decision import Decision

EASY = Spending(anchors=(Anchor("errors", 0.4),))  # a margin of .1: shown within minutes
NAME = "spx-volatility-8"
SPEC: dict[str, Any] = {
    "guardrails": [{"name": "errors", "metric": "ErrorRate", "margin": {"absolute": "0.1"}}],
    "circuitBreakers": [{"metric": "ErrorRate", "above": "0.25", "normal": "0.01"}],
    "stopping": {"minDuration": "5m", "maxDuration": "3h"},
    "noData": {"maxHold": "10m"},
    "calendar": {"exchange": "24/7", "noPromote": ["open+13h/open+14h"]},
}


class Experiment(RuleBasedStateMachine):
    """One ModelExperiment, from its creation to well after its end."""

    def __init__(self) -> None:
        super().__init__()
        self.trial = Trial(spending=EASY, spec=dict(SPEC), per_minute=20, twice=True)
        self.shown_at: list[str] = []  # digests of evidence at whose evaluation everything was shown

    @initialize(
        purpose=st.sampled_from(["Improve", "Refresh"]),
        mode=st.sampled_from(["Enforce"] * 5 + ["Advise", "DryRun"]),
        approvals=st.sampled_from([0, 0, 1]),
        so_far=st.sampled_from(["new", "replayed", "safe", "shown", "recorded"]),
    )
    def begin(self, purpose: str, mode: str, approvals: int, so_far: str) -> None:
        """Deep states are where the dangers are: an example may begin there, by the quiet path."""
        self.trial.spec |= {"purpose": purpose, "mode": mode, "approvals": approvals}
        self.look(self.trial.evaluate())
        self.trial.bad = (0.0, 0.0)
        if so_far in ("replayed", "shown", "recorded"):
            self.all_replayed()
        if so_far in ("safe", "shown", "recorded"):
            self.minutes(30)
        if so_far == "recorded" and self.trial.decisions[-1].ruling.rule.final:
            self.recorded()

    # --- what the world does -------------------------------------------------------------------------------------

    @rule(count=st.integers(1, 12))
    def minutes(self, count: int) -> None:
        for _ in range(count):
            self.look(self.trial.minute())

    @rule(challenger=st.sampled_from([0.0, 0.0, 0.005, 0.005, 0.9]), champion=st.sampled_from([0.0, 0.005, 0.3]))
    def errors(self, challenger: float, champion: float) -> None:
        self.trial.bad = (champion, challenger)

    @rule()
    def harm_and_then_none(self) -> None:
        """Harm that is over when its record is written."""
        self.trial.bad = (0.005, 0.9)
        self.minutes(4)
        self.trial.bad = (0.005, 0.0)
        self.minutes(2)

    @rule(mean=st.sampled_from([-0.3, 0.0, 0.5]), count=st.integers(1, 600))
    def replayed(self, mean: float, count: int) -> None:
        first = 0 if self.trial.state is None else self.trial.state.evidence.sessions.last + 1
        self.trial.ledger = sessions(mean, min(count, 2000 - first), first)
        self.look(self.trial.evaluate())

    @rule()
    def all_replayed(self) -> None:
        self.replayed(0.5, 1500)

    @rule(seen=st.booleans())
    def prometheus(self, seen: bool) -> None:
        self.trial.seen = seen

    @rule(share=st.sampled_from([None, None, None, 0.3, 0.7]), misrouted=st.sampled_from([0] * 9 + [1]))
    def router(self, share: float | None, misrouted: int) -> None:
        self.trial.share = share
        self.trial.misrouted = misrouted

    @rule(follows=st.sampled_from([True, True, False]), ready=st.sampled_from([0, 1, 2, 2, 2]))
    def capacity(self, follows: bool, ready: int) -> None:
        self.trial.follows, self.trial.ready = follows, (2, ready)

    @rule(bad=st.sampled_from([0, 0, 3, 3, 40]), restarts=st.sampled_from([0] * 5 + [1]))
    def live(self, bad: int, restarts: int) -> None:
        counts = LiveCounts(0, Counts(40, 0), Counts(40, bad))
        self.trial.live = Live((counts,), PodFacts(1), PodFacts(1, restarts))
        self.look(self.trial.evaluate())
        self.trial.live = Live((), PodFacts(1), PodFacts(1))

    @rule(ready=st.sampled_from([0, 0, 1]), unready=st.sampled_from([0, 1]), seconds=st.sampled_from([0, 1, 29, 31]))
    def pods(self, ready: int, unready: int, seconds: int) -> None:
        """They stay as they are until the next look at them."""
        self.trial.live = Live((), PodFacts(1), PodFacts(ready, unready=unready))
        self.trial.now += timedelta(seconds=seconds)
        self.look(self.trial.evaluate())

    @rule(minutes=st.sampled_from([-60, -1, 1, 30, 600]))
    def clock(self, minutes: int) -> None:
        self.trial.now += timedelta(minutes=minutes)
        self.look(self.trial.evaluate())

    @rule(
        suspend=st.sampled_from([False, False, True]),
        killed=st.sampled_from([False, False, True]),
        pinned=st.sampled_from([False, False, True]),
        active=st.sampled_from([True, True, False]),
    )
    def settings_of_people(self, suspend: bool, killed: bool, pinned: bool, active: bool) -> None:
        self.trial.spec |= {"suspend": suspend}
        self.trial.model = replace(
            FACTS,
            killed=killed,
            mode="Pinned" if pinned else "Auto",
            active=FACTS.active if active or self.trial.state is not None else None,
        )
        self.look(self.trial.evaluate())

    @rule()
    def quiet(self) -> None:
        self.settings_of_people(False, False, False, True)

    @rule(missed=st.tuples(st.integers(0, 2), st.integers(0, 2)), excess=st.sampled_from([0, 0, 1]))
    def sight(self, missed: tuple[int, int], excess: int) -> None:
        self.trial.health = Health(*missed, excess)
        self.look(self.trial.evaluate())
        self.trial.health = Health()

    @rule(decision=st.sampled_from(["Approve"] * 6 + ["Reject", "Abort"]))
    def act(self, decision: str) -> None:
        digest = "sha256:" + "0" * 64
        if self.trial.status is not None and self.trial.status.approval_request is not None:
            digest = self.trial.status.approval_request.digest
        parts = {} if decision == "Abort" else {"evidenceDigest": digest}
        name = f"act-{len(self.trial.approvals)}"
        made = approval(name, decision, max(self.trial.now, T0), experiment=NAME, **parts)
        self.trial.approvals = (*self.trial.approvals, made)
        self.look(self.trial.evaluate())

    @precondition(lambda self: self.trial.decisions and self.trial.decisions[-1].ruling.rule.final)
    @rule()
    def recorded(self) -> None:
        if self.trial.recorded is None or self.trial.recorded.verdict == "Promote":
            self.trial.record()
            self.look(self.trial.evaluate())

    # --- what may never happen ------------------------------------------------------------------------------------

    def look(self, decision: Decision) -> None:
        trial, state, ruling = self.trial, decision.state, decision.ruling
        assert decision.wake_at.timestamp() > min(trial.now.timestamp(), decision.wake_at.timestamp() - 1)
        if state is not None:
            over = (
                objectives_over(state.terms, state.evidence, trial.spending.configurations),
                noninferiority_over(state.terms, state.evidence),
            )
            if min(over) >= 0.0:
                self.shown_at.append(str(decision.status.evidence_digest))
            if ruling.verdict == "Promote":
                request = trial.decisions[-2].state.course.request if trial.decisions[-2].state else None  # type: ignore[union-attr]
                assert min(over) >= 0.0 or (request is not None and request.digest in self.shown_at)
                assert state.course.step == 2
                assert not state.evidence.ratio_alarm
                assert state.course.latch is None
                assert trial.spec["mode"] == "Enforce"
                assert not trial.spec.get("suspend")
                assert decision.status.phase == "Promoted"
        if ruling.verdict in ("RollBack", "KeepChampion"):
            assert decision.traffic is None or (decision.traffic.challenger, decision.traffic.mirror) == (0, 0)
        absent = not trial.live.challenger.ready
        if absent and state is not None and state.course.step >= 0 and not (trial.recorded and trial.recorded.stands):
            assert decision.traffic is None or (decision.traffic.challenger, decision.traffic.mirror) == (0, 0)
        if trial.spec["mode"] != "Enforce":
            assert ruling.verdict != "Promote"
        if trial.spec["mode"] == "DryRun":
            assert decision.traffic is None

    @invariant()
    def no_path_leaves_a_rolled_back_challenger_with_traffic(self) -> None:
        rolled_back = False
        for decision in self.trial.decisions:
            promoted = decision.ruling.reason == reasons.VERDICT_RECORDED and decision.status.phase == "Promoted"
            if rolled_back and decision.traffic is not None:
                assert not promoted
                assert (decision.traffic.challenger, decision.traffic.mirror) == (0, 0)
            rolled_back = rolled_back or decision.ruling.verdict == "RollBack"

    @invariant()
    def a_recorded_verdict_is_never_judged_again(self) -> None:
        recorded = self.trial.recorded
        if recorded is None or not self.trial.decisions:
            return
        last = self.trial.decisions[-1]
        if last.ruling.reason == reasons.VERDICT_RECORDED:
            assert last.status.verdict == recorded.verdict
        elif last.ruling.verdict is not None and last is not self.trial.decisions[0]:
            # the only new course: back from a promotion, for harm
            assert last.ruling.verdict == "RollBack" or recorded.at >= self.trial.now

    @invariant()
    def time_never_runs_backwards(self) -> None:
        judged = [d.state.course.judged for d in self.trial.decisions if d.state is not None]
        assert judged == sorted(judged)

    @invariant()
    def evidence_never_runs_backwards(self) -> None:
        folded = [d.state.evidence.last for d in self.trial.decisions if d.state is not None]
        assert folded == sorted(folded)


Experiment.TestCase.settings = settings(
    max_examples=60, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
)
TestExperiment = Experiment.TestCase
