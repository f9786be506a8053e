"""Any order of records, outcomes, clock, restarts and crashes ends in the ledger that a plain list of events says."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from fiduciary_outcomes.chain import broken
from fiduciary_outcomes.sql import Store
from tests.outcomes import postgresql
from tests.outcomes.worlds import PATIENT, Scorer, at, live, outcome, record

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST = date(2018, 1, 1)
DAYS = st.integers(0, 8)
ENTITIES = st.sampled_from(["", "A", "B"])
ARMS = st.sampled_from(["champion", "challenger"])
VALUES = st.sampled_from([-5.0, -4.5, -4.0])


def day(number: int) -> str:
    return (FIRST + timedelta(days=number)).isoformat()


class Crash(BaseException):
    """The process ends here."""


class Machine(RuleBasedStateMachine):
    """The model keeps events in the order of arrival and computes each session anew when its day is over."""

    store: Callable[[Path], Store] = staticmethod(lambda folder: Store(folder / "outcomes.db"))

    @initialize(grace=st.integers(0, 2), horizon=st.integers(1, 2))
    def begin(self, grace: int, horizon: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.scorer = Scorer(self.store(Path(self.folder.name)), at(day(0)))
        self.grace, self.horizon = grace, horizon
        self.today = 0
        self.events: list[tuple[Any, ...]] = []
        self.expected: list[dict[str, Any]] = []
        self.late = Counter[str]()
        self.counts = {arm: Counter[str]() for arm in ("champion", "challenger")}
        self.sequence = 0
        label = {"kind": "Volatility", "horizon": horizon}
        self.scorer.put("x", live(graceSeconds=grace * 86400, label=label))

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.scorer.memory.db.close()
            self.folder.cleanup()

    # --- the model ------------------------------------------------------------------------------------------------

    def over(self) -> int:
        """Newest session that is closed: its label ends at the end of a day, and grace days later it is over."""
        return self.today - self.grace - 1 - self.horizon

    def find(self, kind: str, *key: object) -> tuple[int, float] | None:
        return next(((i, e[-1]) for i, e in enumerate(self.events) if e[:-1] == (kind, *key)), None)

    def row(self, session: int) -> dict[str, Any]:
        pairs: list[tuple[float, float, float]] = []
        missing, late = Counter[str](), Counter[str]()
        row: dict[str, Any] = {"unpredicted": 0, "withoutOutcome": 0}
        for entity in ("", "A", "B"):
            realised = self.find("outcome", entity, session + self.horizon)
            found = {arm: self.find("record", arm, entity, session) for arm in ("champion", "challenger")}
            if realised is None:
                row["withoutOutcome"] += any(found.values())
                continue
            in_time = {arm: each[1] for arm, each in found.items() if each is not None and each[0] < realised[0]}
            late.update(arm for arm, each in found.items() if each is not None and each[0] > realised[0])
            if len(in_time) == 2:
                pairs.append((in_time["champion"], in_time["challenger"], realised[1]))
            elif in_time:
                missing.update({"champion", "challenger"} - in_time.keys())
            else:
                row["unpredicted"] += 1
        differences = [(y - a) ** 2 - (y - b) ** 2 for a, b, y in pairs]
        return {
            **row,
            "missing": {arm: missing[arm] for arm in ("champion", "challenger")},
            "late": {arm: late[arm] for arm in ("champion", "challenger")},
            "session": day(session),
            "entities": len(pairs),
            "sum": repr(math.fsum(differences) + 0.0),
            "sumSquares": repr(math.fsum(d * d for d in differences) + 0.0),
        }

    def close(self) -> None:
        closed = {row["session"] for row in self.expected}
        predicted = sorted({e[3] for e in self.events if e[0] == "record"})
        for session in predicted:
            if session <= self.over() and day(session) not in closed:
                self.expected.append(self.row(session))

    # --- what happens ---------------------------------------------------------------------------------------------

    def survive(self, crash: tuple[int, bool] | None, change: Any) -> None:
        """Do it; where the process dies at a commit, start again and repeat, as a sender does."""
        while True:
            try:
                self.arm_crash(crash)
                change()
                return
            except Crash:
                crash = None
                self.scorer.restart()

    def arm_crash(self, crash: tuple[int, bool] | None) -> None:
        if crash is None:
            return
        left, committed = crash
        commit = self.scorer.memory.commit
        counted = [left]

        def dying() -> None:
            if counted[0] > 0:
                counted[0] -= 1
                commit()
                return
            if committed:
                commit()
            self.scorer.memory._rollback = lambda: None  # the dead roll nothing back
            raise Crash

        self.scorer.memory.commit = dying

    crashes = st.none() | st.tuples(st.integers(0, 2), st.booleans())

    @rule(arm=ARMS, rows=st.lists(st.tuples(ENTITIES, DAYS, VALUES), min_size=1, max_size=6), crash=crashes)
    def send(self, arm: str, rows: list[tuple[str, int, float]], crash: tuple[int, bool] | None) -> None:
        self.sequence += 1
        records = [record(day(number), value, entity) for entity, number, value in rows]
        self.survive(crash, lambda: self.scorer.records(arm, records, sequence=self.sequence, sender=f"pod-{arm}"))
        fresh: set[tuple[str, int]] = set()
        for entity, number, value in rows:
            known = self.known(arm, entity, number)
            if known is None:
                self.counts[arm]["first"] += 1
                fresh.add((entity, number))
                self.values[arm, entity, number] = value
                if number <= self.over():
                    self.late["predictions"] += 1
                else:
                    self.events.append(("record", arm, entity, number, value))
            else:
                self.counts[arm]["duplicate" if known == value else "conflicting"] += 1

    def known(self, arm: str, entity: str, number: int) -> float | None:
        if not hasattr(self, "values"):
            self.values: dict[tuple[str, str, int], float] = {}
        return self.values.get((arm, entity, number))

    @rule(rows=st.lists(st.tuples(ENTITIES, DAYS, VALUES), min_size=1, max_size=6), crash=crashes)
    def learn(self, rows: list[tuple[str, int, float]], crash: tuple[int, bool] | None) -> None:
        # an outcome before its time is refused; here none is sent
        rows = [row for row in rows if row[1] < self.today]
        if not rows:
            return
        items = [outcome(day(number), value, entity) for entity, number, value in rows]
        self.survive(crash, lambda: self.scorer.outcomes(items))
        for entity, number, value in rows:
            if self.find("outcome", entity, number) is None:
                self.events.append(("outcome", entity, number, value))
                if 0 <= number - self.horizon <= self.over():
                    self.late["outcomes"] += 1

    @rule(days=st.integers(1, 3), crash=crashes)
    def pass_time(self, days: int, crash: tuple[int, bool] | None) -> None:
        self.today += days
        self.survive(crash, lambda: self.scorer.to(day(self.today)))
        self.close()

    @rule()
    def restart(self) -> None:
        self.scorer.restart()

    # --- what holds -----------------------------------------------------------------------------------------------

    @invariant()
    def same_ledger(self) -> None:
        if not hasattr(self, "scorer"):
            return
        rows = self.scorer.rows()
        assert [row["session"] for row in rows] == [row["session"] for row in self.expected]
        for row, expected in zip(rows, self.expected, strict=True):
            assert {name: row[name] for name in expected} == expected
        ledger = self.scorer.memory.ledgers["x"]
        links = list(self.scorer.memory.rows("x"))
        assert broken(ledger.definition.digest, links, ledger.rows, ledger.head) is None
        assert {what: count for what, count in ledger.after.items() if count} == dict(self.late)

    @invariant()
    def same_counts(self) -> None:
        if not hasattr(self, "scorer"):
            return
        for arm in self.scorer.memory.arms.values():
            name = "champion" if arm.version == "7" else "challenger"
            assert {what: count for what, count in arm.results.items() if count} == dict(self.counts[name])
            assert arm.rows == arm.results["first"]
            assert sum(arm.prediction_bins) == arm.rows


SETTINGS = settings(PATIENT, max_examples=40, stateful_step_count=25)


def test_machine() -> None:
    run_state_machine_as_test(Machine, settings=SETTINGS)


@pytest.mark.skipif(not postgresql.wanted(), reason=f"opt-in: {postgresql.VARIABLE}=1, needs PostgreSQL")
def test_machine_on_postgresql(server: postgresql.Server) -> None:
    class OnPostgresql(Machine):
        store = staticmethod(lambda folder: Store(None, server.database()))

    run_state_machine_as_test(OnPostgresql, settings=SETTINGS)
