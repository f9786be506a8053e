"""The operator follows the ledger of the version that serves: begun, read once, ended when another one serves."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from fiduciary.decide.drift.world import SessionLoss
from fiduciary.decide.experiment.fold import chained
from fiduciary.decide.experiment.ledgers import Wanted
from tests.outcomes.process import OPERATOR
from tests.outcomes.test_operator import DEFINITION, NOW, PAIR, Rig, play, scorer, session
from tests.outcomes.worlds import CHALLENGER, MODEL, NAMESPACE, live

if TYPE_CHECKING:
    from pathlib import Path

    from tests.outcomes.process import Process

__all__ = ["scorer"]  # a fixture

WATCH = "watch-7-8"
WANTED = Wanted(
    NAMESPACE,
    MODEL,
    *PAIR,
    live=WATCH,
    definition={**DEFINITION, "kind": "Watch"},
    first="2018-01-01",
    watch=True,
)


def test_sessions_of_a_watched_version_are_read_once_and_hash_to_what_was_folded(
    scorer: Process, tmp_path: Path
) -> None:
    async def story(rig: Rig) -> None:
        await rig.poll(WANTED)
        assert (await rig.poll()).begun
        session(scorer, "2018-01-01", "2018-01-02", "2018-01-03", (-4.0, -4.4))
        view = await rig.poll()
        assert view.rows == ()
        (row,) = view.watched
        assert (row.number, row.session, row.entities, row.paired, row.calibration) == (0, "2018-01-01", 1, 1, ())
        assert (row.loss, row.worse) == (pytest.approx(0.25), pytest.approx(0.25 - 0.01)), "positive is worse now"
        folded = replace(WANTED, folded=0, chain=chained("", row))
        session(scorer, "2018-01-02", "2018-01-03", "2018-01-04")
        assert [one.number for one in (await rig.poll(folded)).watched] == [1]
        # a restart reads from the first row on, and checks what was folded
        rig.again()
        assert [one.number for one in (await rig.poll(folded)).watched] == [1]
        rig.again()
        other = chained("", SessionLoss(0, "2018-01-01", 1, 0.25))
        view = await rig.poll(replace(folded, chain=other))
        assert (view.reason, view.watched) == ("LedgerRewritten", ())

    play(scorer, tmp_path, story)


def test_a_ledger_of_a_version_that_serves_no_more_is_ended_and_the_experiments_are_left_alone(
    scorer: Process, tmp_path: Path
) -> None:
    async def story(rig: Rig) -> None:
        await rig.poll(WANTED)
        await rig.poll()
        session(scorer, "2018-01-01", "2018-01-02", "2018-01-03")
        experiment = live(graceSeconds=0)
        assert scorer.send("PUT", "/v1/ledgers/of-an-experiment", experiment, OPERATOR).status_code == 200
        alone = {**DEFINITION, "kind": "Watch", "champion": CHALLENGER, "challenger": None}
        promoted = Wanted(
            NAMESPACE, MODEL, PAIR[1], "", live="watch-8", definition=alone, first="2018-01-05", watch=True
        )
        await rig.poll(promoted)
        await rig.poll()
        view = await rig.poll()
        assert (view.begun, view.reason, view.at) == (True, "", NOW)
        found = {one["name"]: one for one in json.loads(scorer.get("/v1/ledgers").text)["ledgers"]}
        assert {name: one["ended"] for name, one in found.items()} == {
            WATCH: "2018-01-05", "watch-8": None, "of-an-experiment": None,
        }  # fmt: skip

    play(scorer, tmp_path, story)


def test_a_ledger_of_another_kind_or_grace_under_the_name_is_not_folded(scorer: Process, tmp_path: Path) -> None:
    async def story(rig: Rig) -> None:
        body = live(kind="Watch", graceSeconds=5)
        assert scorer.send("PUT", f"/v1/ledgers/{WATCH}", body, OPERATOR).status_code == 200
        view = await rig.poll(WANTED)
        assert (view.reason, view.watched) == ("LedgerExists", ())
        assert "graceSeconds" in view.message

    play(scorer, tmp_path, story)
