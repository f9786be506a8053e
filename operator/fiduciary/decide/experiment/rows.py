"""``status.tests``: each test with estimate, interval, log evidence, threshold, sample, and what it waits for."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from fiduciary.api.modelexperiment import Interval, TestStatus
from fiduciary.decide.experiment import read
from fiduciary.decide.experiment.fold import dispersions
from fiduciary.decide.experiment.sessions import BURN_IN
from fiduciary.decide.experiment.times import at
from fiduciary.evidence import asympcs
from fiduciary.evidence.blocks import Counts
from fiduciary.evidence.dispersion import effective
from fiduciary.evidence.refusal import Refusal
from fiduciary.evidence.sequences import difference_interval

if TYPE_CHECKING:
    from fiduciary.decide.experiment.case import Case
    from fiduciary.decide.experiment.forecast import Expected
    from fiduciary.decide.experiment.state import GuardrailEvidence, ObjectiveEvidence, State, Terms

MOST = 999_999_999_999_999.0
"""Decimals of the API have at most fifteen digits before the point."""
ALL = "all"
"""Name of the weighted average of all harm tests: what a rollback rests on."""


def tests(case: Case, state: State, expected: tuple[Expected, ...]) -> tuple[TestStatus, ...]:
    """Objectives, then non-inferiority, then harm, then what is watched after a promotion."""
    known = {(one.side, one.name): one for one in expected}
    terms, evidence = state.terms, state.evidence
    threshold = read.objective_threshold(terms, case.world.spending.configurations)
    rows = [
        _objective(case, state, one, threshold, known.get(("Superiority", one.name))) for one in evidence.objectives
    ]
    blocks = _beside(case, state)
    ends = None if blocks <= 0 else at(terms.origin + blocks * terms.block)
    rows += [
        _noninferiority(case, terms, one, ends, known.get(("NonInferiority", one.name)))
        for one in evidence.guardrails
        if one.noninferiority is not None
    ]
    return (*rows, *_harm(state, blocks, ends), *_watch(case, state, blocks))


def decimal(value: float, digits: int = 4) -> str:
    """A number as the API writes it; what does not fit is cut, never an exponent."""
    return f"{min(max(value, -MOST), MOST):.{digits}f}"


def _objective(
    case: Case, state: State, one: ObjectiveEvidence, threshold: float, expected: Expected | None
) -> TestStatus:
    log = one.log_e
    # The API shows challenger minus champion; a loss that falls is negative, a profit or rank IC that rises positive.
    its = next(its for its in state.terms.objectives if its.name == one.name)
    sign = 1.0 if its.metric == "PaperPnL" or case.world.model.label == "Return" else -1.0
    band = asympcs.two_sided(one.mean, state.terms.promote, max(BURN_IN, one.mean.count))
    session = state.evidence.sessions.session
    if case.world.recorded is not None:
        waits = None
    elif one.void is not None:
        waits = f"nothing: {one.void}"
    elif case.replay is not None and case.replay.phase != "Posted":
        waits = f"the replay: {case.replay.message}"
    elif log is None:
        waits = f"the scale: {one.burn_in.count} of {BURN_IN} sessions"
    else:
        waits = None if log >= threshold else _waits(expected, "sessions")
    return TestStatus(
        name=one.name,
        side="Superiority",
        log_e=None if log is None else decimal(log),
        threshold=decimal(threshold),
        n=one.folded,
        estimate=decimal(sign * one.mean.mean, 8) if one.mean.count else None,
        interval=None if isinstance(band, Refusal) else _interval(sign, band.lower, band.upper),
        last_block=None if session is None else datetime.fromisoformat(session).replace(tzinfo=UTC),
        waits_for=waits,
        earliest=_earliest(expected),
    )


def _noninferiority(
    case: Case, terms: Terms, one: GuardrailEvidence, ends: datetime | None, expected: Expected | None
) -> TestStatus:
    log, threshold = one.noninferiority_log_e, read.noninferiority_threshold(terms)
    estimate, interval = _difference(terms, one, one.final_champion, one.final_challenger)
    shown = log is not None and log >= threshold
    return TestStatus(
        name=one.name,
        side="NonInferiority",
        log_e=None if log is None else decimal(log),
        threshold=decimal(threshold),
        n=one.final_blocks,
        estimate=estimate,
        interval=interval,
        last_block=ends,
        waits_for=None if shown or case.world.recorded is not None else _waits(expected, "blocks"),
        earliest=_earliest(expected),
    )


def _beside(case: Case, state: State) -> int:
    """Blocks in which both arms may have had requests: those before the promotion."""
    blocks, recorded = state.evidence.last + 1, case.world.recorded
    if recorded is None or recorded.verdict != "Promote":
        return blocks
    return min(blocks, (int(recorded.at.timestamp()) - state.terms.origin) // state.terms.block)


def _watch(case: Case, state: State, before: int) -> tuple[TestStatus, ...]:
    """After a promotion, each like a harm test; against what the previous champion had beside this version."""
    recorded, terms = case.world.recorded, state.terms
    guardrails = [(one, one.watch) for one in state.evidence.guardrails if one.watch is not None]
    if recorded is None or not guardrails:
        return ()
    until = recorded.at + timedelta(seconds=case.world.model.rollback_window_seconds)
    blocks = state.evidence.last + 1
    rows: list[TestStatus] = []
    for one, its in guardrails:
        estimate, interval = _difference(terms, one, one.seen_champion, Counts(its.trials, its.above))
        waits = f"harm: more than {100 * its.allowed:.2f} % of requests, until {until:%Y-%m-%d %H:%M} UTC"
        rows.append(
            TestStatus(
                name=one.name,
                side="Watch",
                log_e=decimal(its.log_e),
                threshold=decimal(math.log(len(guardrails)) - math.log(terms.rollback)),
                n=blocks - before,
                estimate=estimate,
                interval=interval,
                last_block=at(terms.origin + blocks * terms.block),
                waits_for=waits if recorded.stands and case.moment < until else None,
            )
        )
    return tuple(rows)


def _harm(state: State, blocks: int, ends: datetime | None) -> tuple[TestStatus, ...]:
    """Each with weight 1/m: alone it would need ln m/α; the row of all is what is compared with ln 1/α."""
    terms, guardrails = state.terms, state.evidence.guardrails
    if not guardrails:
        return ()
    rows: list[TestStatus] = []
    for one in guardrails:
        estimate, interval = _difference(terms, one, one.seen_champion, one.seen_challenger)
        rows.append(
            TestStatus(
                name=one.name,
                side="Harm",
                log_e=decimal(one.harm_log_e),
                threshold=decimal(math.log(len(guardrails)) - math.log(terms.rollback)),
                n=blocks,
                estimate=estimate,
                interval=interval,
                last_block=ends,
            )
        )
    if len(guardrails) > 1:
        combined = read.harm(state.evidence)
        threshold = decimal(-math.log(terms.rollback))
        rows.append(
            TestStatus(
                name=ALL, side="Harm", log_e=decimal(combined.log_e), threshold=threshold, n=blocks, last_block=ends
            )
        )
    return tuple(rows)


def _difference(
    terms: Terms, one: GuardrailEvidence, champion: Counts, challenger: Counts
) -> tuple[str | None, Interval | None]:
    """Of both rates; bursts make the sample worth less, by the dispersion that the test uses."""
    if not champion.trials or not challenger.trials:
        return None, None
    estimate = challenger.bad / challenger.trials - champion.bad / champion.trials
    phi = dispersions(terms, one)[1]
    band = difference_interval(effective(champion, phi), effective(challenger, phi), terms.promote)
    return decimal(estimate, 8), None if isinstance(band, Refusal) else _interval(1.0, band.lower, band.upper)


def _interval(sign: float, lower: float | None, upper: float | None) -> Interval | None:
    if lower is None or upper is None:
        return None
    low, high = sorted((sign * lower, sign * upper))
    return Interval(low=decimal(low, 8), high=decimal(high, 8))


def _waits(expected: Expected | None, unit: str) -> str:
    if expected is None:
        return unit
    if expected.needed is None:
        return f"nothing that can be expected: {expected.why}"
    return f"about {expected.needed} {unit} more, {expected.why}"


def _earliest(expected: Expected | None) -> datetime | None:
    return None if expected is None or expected.at is None or not expected.needed else at(expected.at)
