"""What was folded is read from its text after a restart, and where somebody else wrote it."""

from __future__ import annotations

from dataclasses import replace

from fiduciary.decide.drift.report import folded
from fiduciary.decide.drift.state import Reading, State
from fiduciary.engine.drift.states import States
from fiduciary.evidence.refusal import Refusal

STATE = State("question", edge=Reading(1_000, 21), window=0, folded=1)


def test_a_process_goes_on_from_what_it_holds_and_another_one_from_the_text() -> None:
    states, evidence = States(), folded(STATE)
    states.keep("spx", evidence, STATE)
    assert states.of("spx", evidence) is STATE
    assert States().of("spx", evidence) == STATE
    assert states.of("other", evidence) == STATE
    states.drop("spx")
    assert states.of("spx", evidence) is not STATE
    assert states.of("spx", None) is None


def test_a_text_that_is_another_is_never_taken_for_what_is_held() -> None:
    states, evidence = States(), folded(STATE)
    states.keep("spx", evidence, STATE)
    later = replace(STATE, folded=2)
    assert states.of("spx", folded(later)) == later, "written by another process, say"
    changed = evidence.model_copy(update={"state": evidence.state.replace("21", "22")})
    assert isinstance(states.of("spx", changed), Refusal), "though its digest is the same"
