"""Which ledgers an experiment reads, and how it begins and ends its own."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from fiduciary.decide.experiment.ledgers import Wanted, live_name, prequential_name, wanted
from tests.unit.decide.experiment.trials import CHALLENGER, CHAMPION, UID, XNYS, experiment
from tests.unit.decide.worlds import NAME, NAMESPACE, model

PAIR = (CHAMPION, CHALLENGER)
THURSDAY = datetime(2026, 11, 26, 18, 0, tzinfo=UTC)  # Thanksgiving, 13:00 in New York
CALENDARS = {"XNYS": XNYS}


def asked(spec: dict[str, Any] | None = None, of: dict[str, Any] | None = None, **parts: Any) -> Wanted:
    arguments: dict[str, Any] = {
        "prequential": True,
        "mirrored_since": None,
        "ended_at": None,
        "calendars": CALENDARS,
        "notional": "1000000",
        "replay": False,
        **parts,
    }
    data = {"data": {"calendar": "XNYS", **(of or {})}}
    return wanted(experiment(spec), model(data), PAIR, **arguments)


def test_names_are_dns_labels_and_differ_where_the_question_does() -> None:
    long = "m" * 40
    digests = CHAMPION.digest or "", CHALLENGER.digest or ""
    names = [
        prequential_name(NAME, *digests),
        prequential_name(long, *digests),
        prequential_name(NAME, *reversed(digests)),
        live_name(NAME, *digests, UID),
        live_name(NAME, *digests, "another"),
    ]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name) for name in names)
    assert names[0].startswith("prequential-777777777777-888888888888-")


def test_without_the_mirror_nothing_begins() -> None:
    found = asked()
    assert (found.first, found.last, found.folded) == (None, None, -1)
    assert (found.namespace, found.model) == (NAMESPACE, f"{NAMESPACE}.{NAME}")
    assert asked(prequential=False).prequential is None


def test_a_definition_says_all_that_a_row_depends_on() -> None:
    definition = asked({"evidence": {"grace": "2h", "pairing": "EntityTime"}}).definition
    assert definition is not None
    assert definition == {
        "contractVersion": 1,
        "kind": "Live",
        "model": f"{NAMESPACE}.{NAME}",
        "champion": {"version": "7", "digest": CHAMPION.digest},
        "challenger": {"version": "8", "digest": CHALLENGER.digest},
        "label": {"kind": "Volatility", "horizon": 1},
        "calendar": "XNYS",
        "pairing": "EntityTime",
        "graceSeconds": 7200,
        "clock": "Wall",
        "paper": None,
    }


def test_forecasts_of_direction_trade_on_paper_unless_requests_are_paired() -> None:
    label = {"label": {"kind": "Direction", "horizon": 2}}
    assert (asked(of=label).definition or {})["paper"] == {"notional": "1000000", "costBps": "2"}
    assert (asked({"evidence": {"pairing": "RequestId"}}, of=label).definition or {})["paper"] is None


@pytest.mark.parametrize(
    ("calendar", "moment", "first", "last"),
    [
        ("XNYS", THURSDAY, "2026-11-27", "2026-11-25"),  # a holiday is no session
        ("XNYS", datetime(2026, 11, 27, 18, 0, tzinfo=UTC), "2026-11-30", "2026-11-25"),  # over a weekend
        ("XNYS", datetime(2026, 11, 28, 3, 0, tzinfo=UTC), "2026-11-30", "2026-11-25"),  # still Friday in New York
        (None, THURSDAY, "2026-11-27", "2026-11-25"),  # plain days, UTC
    ],
)
def test_first_and_last_sessions_leave_out_the_day_itself(
    calendar: str | None, moment: datetime, first: str, last: str
) -> None:
    found = asked(of={"calendar": calendar}, mirrored_since=moment, ended_at=moment)
    assert (found.first, found.last) == (first, last)


def test_beyond_the_calendar_there_is_no_live_ledger_and_it_says_why() -> None:
    found = asked(mirrored_since=datetime(2028, 1, 3, tzinfo=UTC))
    assert found.live is None
    assert "covers" in found.unable
    assert found.prequential is not None


def replayed(text: str, *, of_model: bool = False, **parts: Any) -> Wanted:
    notes = {"fiduciary.dev/replay-from": text}
    mx, its_model = experiment(), model({"data": {"calendar": "XNYS"}})
    if of_model:
        its_model = its_model.model_copy(
            update={"metadata": its_model.metadata.model_copy(update={"annotations": notes})}
        )
    else:
        mx = experiment(annotations=notes)
    arguments: dict[str, Any] = {
        "prequential": False,
        "mirrored_since": THURSDAY,
        "ended_at": None,
        "calendars": CALENDARS,
        "notional": "1",
        "replay": True,
        **parts,
    }
    return wanted(mx, its_model, PAIR, **arguments)


def test_a_market_replay_begins_where_it_says_and_passes_days_by_their_outcomes() -> None:
    for of_model in (False, True):
        found = replayed("2018-01-02", of_model=of_model)
        assert (found.first, (found.definition or {})["clock"]) == ("2018-01-02", "Outcomes")
        assert replayed("2018-01-02", of_model=of_model, mirrored_since=None).first is None
        assert replayed("2018-01-02", of_model=of_model, ended_at=THURSDAY).last == "2018-01-02"


def test_a_replay_counts_only_where_the_settings_allow_it_and_it_names_a_day() -> None:
    for found in (replayed("2018-01-02", replay=False), replayed("tomorrow")):
        assert (found.first, (found.definition or {})["clock"]) == ("2026-11-27", "Wall")


def test_what_was_folded_does_not_change_the_question() -> None:
    found = asked(mirrored_since=THURSDAY)
    assert replace(found, folded=3, chain="x").live == found.live
