"""``status.tests``: each test with estimate, interval, log evidence, threshold, sample, and what it waits for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fiduciary.api.modelexperiment import Interval, TestStatus
from fiduciary.decide.experiment import read
from fiduciary.decide.experiment.fold import dispersions
from fiduciary.decide.experiment.sessions import BURN_IN
from fiduciary.decide.experiment.times import at
from fiduciary.evidence import asympcs
from fiduciary.evidence.dispersion import effective
from fiduciary.evidence.refusal import Refusal
from fiduciary.evidence.sequences import difference_interval

if TYPE_CHECKING:
    from datetime import datetime

    from fiduciary.decide.experiment.case import Case
    from fiduciary.decide.experiment.forecast import Expected
    from fiduciary.decide.experiment.state import GuardrailEvidence, ObjectiveEvidence, State, Terms
    from fiduciary.evidence.blocks import Counts

MOST = 999_999_999_999_999.0
"""Decimals of the API have at most fifteen digits before the point."""
ALL = "all"
"""Name of the weighted average of all harm tests: what a rollback rests on."""


def tests(case: Case, state: State, expected: tuple[Expected, ...]) -> tuple[TestStatus, ...]:
    """Objectives, then non-inferiority, then harm."""
    known = {(one.side, one.name): one for one in expected}
    terms, evidence = state.terms, state.evidence
    threshold = read.objective_threshold(terms, case.world.spending.configurations)
    rows = [
        _objective(case, state, one, threshold, known.get(("Superiority", one.name))) for one in evidence.objectives
    ]
    ends = None if evidence.last < 0 else at(terms.origin + (evidence.last + 1) * terms.block)
    rows += [
        _noninferiority(terms, one, ends, known.get(("NonInferiority", one.name)))
        for one in evidence.guardrails
        if one.noninferiority is not None
    ]
    return (*rows, *_harm(case, state, ends))


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
    if one.void is not None:
        waits = f"nothing: {one.void}"
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
        waits_for=waits,
        earliest=_earliest(expected),
    )


def _noninferiority(
    terms: Terms, one: GuardrailEvidence, ends: datetime | None, expected: Expected | None
) -> TestStatus:
    log, threshold = one.noninferiority_log_e, read.noninferiority_threshold(terms)
    estimate, interval = _difference(terms, one, one.final_champion, one.final_challenger)
    return TestStatus(
        name=one.name,
        side="NonInferiority",
        log_e=None if log is None else decimal(log),
        threshold=decimal(threshold),
        n=one.final_blocks,
        estimate=estimate,
        interval=interval,
        last_block=ends,
        waits_for=None if log is not None and log >= threshold else _waits(expected, "blocks"),
        earliest=_earliest(expected),
    )


def _harm(case: Case, state: State, ends: datetime | None) -> tuple[TestStatus, ...]:
    """Each with weight 1/m: alone it would need ln m/α; the row of all is what is compared with ln 1/α."""
    terms, guardrails, blocks = state.terms, state.evidence.guardrails, state.evidence.last + 1
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
    return None if expected is None or expected.at is None else at(expected.at)
