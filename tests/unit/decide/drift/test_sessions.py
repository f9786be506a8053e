"""Which ledger a policy reads: a function of the log and the spec, the same for whoever looks when."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from fiduciary.decide.drift.sessions import wanted
from fiduciary.decide.drift.state import Losses, State
from tests.unit.decide.drift.watch import FACTS, PREVIOUS, QUIET, T0, VERSION, policy
from tests.unit.decide.worlds import model

if TYPE_CHECKING:
    from fiduciary.decide.drift.world import ModelFacts
    from fiduciary.decide.experiment.ledgers import Wanted

WORSE = {"name": "worse", "realisedLoss": {}, "actions": ["Alert"]}
LOSS = {"name": "loss", "realisedLoss": {"against": "Reference"}, "actions": ["Alert"]}


def asked(
    monitors: list[dict[str, Any]],
    facts: ModelFacts = FACTS,
    state: State | None = None,
    calendars: Any = QUIET.calendars,
    **changes: Any,
) -> Wanted | None:
    spec = {"monitors": monitors, **changes.pop("spec", {})}
    its = model(changes.pop("model", None), metadata=changes.pop("metadata", None))
    return wanted(policy(spec), its, facts, state, calendars, notional="1000000", replay=changes.pop("replay", False))


def test_it_begins_with_the_session_after_the_promotion_beside_the_version_before() -> None:
    found = asked([WORSE])
    assert found is not None
    assert found.definition is not None
    assert found.watch
    assert (found.champion, found.challenger, found.first) == (VERSION, PREVIOUS.digest, "2026-11-03")
    assert found.definition["challenger"] == {"version": "7", "digest": PREVIOUS.digest}
    assert (found.definition["kind"], found.definition["graceSeconds"], found.definition["clock"]) == (
        "Watch", 86_400, "Wall",
    )  # fmt: skip
    assert found.definition["paper"] is None, "a volatility says nothing about direction"
    assert found.live is not None
    assert found.live.startswith("watch-888888888888-777777777777-")


def test_nothing_is_read_where_nothing_is_judged_from_outcomes_or_nothing_serves() -> None:
    inputs = {"name": "i", "histogram": {"metric": "feature"}, "statistic": "PSI", "actions": ["Alert"]}
    assert asked([inputs]) is None
    assert asked([WORSE], replace(FACTS, champion=None)) is None


@pytest.mark.parametrize(
    ("monitors", "facts"),
    [([LOSS], FACTS), ([WORSE], replace(FACTS, previous=None)), ([WORSE], replace(FACTS, returned=True))],
    ids=["not-asked-for", "none-before", "gone-back-to"],
)
def test_a_version_is_watched_alone(monitors: list[dict[str, Any]], facts: ModelFacts) -> None:
    found = asked(monitors, facts)
    assert found is not None
    assert found.definition is not None
    assert (found.challenger, found.definition["challenger"]) == ("", None)
    assert "-alone-" in (found.live or "")


def test_another_promotion_grace_or_pairing_is_another_ledger_and_another_policy_is_not() -> None:
    again = FACTS.champion
    assert again is not None
    later = replace(FACTS, champion=again.model_copy(update={"since": T0 + timedelta(days=30)}))
    names = [
        found.live
        for found in (
            asked([WORSE]),
            asked([WORSE], later),
            asked([WORSE], spec={"outcomes": {"grace": "2d"}}),
            asked([WORSE], spec={"outcomes": {"pairing": "RequestId"}}),
        )
        if found is not None
    ]
    assert len(set(names)) == 4
    both = asked([WORSE, LOSS], spec={"window": {"rows": 63}})
    assert both is not None
    assert both.live == names[0]


def test_what_was_folded_of_this_ledger_is_not_asked_for_again() -> None:
    found = asked([WORSE])
    assert found is not None
    state = State("k", losses=Losses(found.live or "", last=41), sessions="sha256:" + "a" * 64)
    again = asked([WORSE], state=state)
    assert again is not None
    assert (again.folded, again.chain) == (41, state.sessions)
    other = asked([WORSE], state=replace(state, losses=Losses("watch-x", last=41)))
    assert other is not None
    assert (other.folded, other.chain) == (-1, "")


def test_an_exchange_that_nobody_knows_is_said() -> None:
    found = asked([WORSE], calendars={})
    assert found is not None
    assert "XNYS" in found.unable
    assert found.first is None


def test_a_market_replay_passes_days_by_their_outcomes_where_the_settings_let_it() -> None:
    days = {"annotations": {"fiduciary.dev/replay-from": "2018-01-02"}}
    for allowed, expected in ((True, ("2018-01-02", "Outcomes")), (False, ("2026-11-03", "Wall"))):
        found = asked([WORSE], metadata=days, replay=allowed)
        assert found is not None
        assert found.definition is not None
        assert (found.first, found.definition["clock"]) == expected
