"""Folding closed sessions of the scorer's ledger (statistics.md rules 11–15 and 17). No rule is in here either."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fiduciary.decide.experiment.fold import chained
from fiduciary.evidence.bernstein import Bernstein
from fiduciary.evidence.betting import CLIP, Betting
from fiduciary.evidence.moments import Moments
from fiduciary.evidence.refusal import Refusal, Why, check_count, check_measure, check_next

if TYPE_CHECKING:
    from fiduciary.decide.experiment.state import Evidence, ObjectiveEvidence, ObjectiveTerms, Sessions, Terms
    from fiduciary.decide.experiment.world import LedgerRow

BURN_IN = 250
"""Sessions from which the scale is frozen; they are not folded."""
DAY = 86_400


def fold_session(terms: Terms, evidence: Evidence, row: LedgerRow, *, split: bool = False) -> Evidence | Refusal:
    """With the next row of the ledger. A refusal folds nothing of it.

    ``split``: not every request went to both arms. What an arm was not asked it does not lack, and nobody knows which
    sessions of one series it was asked: live ones are counted then, and compare nothing.
    """
    problem = _impossible(evidence.sessions, row)
    if problem is not None:
        return problem
    if split and row.source == "Live":
        unasked = replace(row, entities=0, missing_champion=0, missing_challenger=0)
        counted = _counted(terms, evidence.sessions, unasked, row)
        sessions = replace(counted, apart=counted.apart + 1, empty=evidence.sessions.empty)
        broken = tuple(
            _broken(terms, its, one, row) for one, its in zip(evidence.objectives, terms.objectives, strict=True)
        )
        return replace(evidence, objectives=broken, sessions=sessions)
    objectives: list[ObjectiveEvidence] = []
    for objective, its in zip(evidence.objectives, terms.objectives, strict=True):
        folded = _objective(terms, its, objective, row)
        if isinstance(folded, Refusal):
            return folded
        objectives.append(folded)
    return replace(
        evidence,
        objectives=tuple(objectives),
        sessions=_counted(terms, evidence.sessions, row, row),
    )


def _broken(terms: Terms, its: ObjectiveTerms, state: ObjectiveEvidence, row: LedgerRow) -> ObjectiveEvidence:
    """Void where a session that both arms saw whole, though by chance, is beyond the declared loss; else as it was."""
    if row.missing_champion or row.missing_challenger or not row.entities:
        return state
    found = _objective(terms, its, state, row)
    return state if isinstance(found, Refusal) or found.void is None else replace(state, void=found.void)


def difference(row: LedgerRow, its: ObjectiveTerms, entity: float | None) -> float | None:
    """The session's one number, positive is better for the challenger; None where there is nothing to compare.

    A missing challenger scores the worst clipped loss, -4 sd of an entity; a missing champion is left out (rule 13).
    The sd of a session's mean would be too small a price: silence where it loses would win a panel of any size.

    Args: entity: sd of one entity's difference, frozen in the burn-in; None: before, when nothing is imputed.
    """
    if its.metric == "PaperPnL":
        return None if row.profit is None else row.profit[1] - row.profit[0]
    imputed = row.missing_challenger if entity is not None else 0
    entities = row.entities + imputed
    return None if entities == 0 else (row.total - CLIP * (entity or 0.0) * imputed) / entities


def _impossible(sessions: Sessions, row: LedgerRow) -> Refusal | None:
    counts = {
        "entities": row.entities,
        "missing champion": row.missing_champion,
        "missing challenger": row.missing_challenger,
        "dropped": row.dropped,
        "late": row.late,
    }
    problem = check_next(sessions.last, row.number, row.number)
    for name, value in counts.items():
        problem = problem or check_count(name, value)
    for name, value in (("sum", row.total), ("profit", 0.0 if row.profit is None else sum(row.profit))):
        problem = problem or check_measure(name, value)
    return problem


def _objective(
    terms: Terms, its: ObjectiveTerms, state: ObjectiveEvidence, row: LedgerRow
) -> ObjectiveEvidence | Refusal:
    d = difference(row, its, state.entity)
    # A session that our own transport damaged says nothing about the model; overlapping labels say it twice.
    if d is None or row.dropped > 0 or row.number % terms.horizon != 0 or state.void is not None:
        return state
    wanted = "Prequential" if terms.prequential else "Live"
    if state.betting is None and state.bernstein is None:
        return _burn_in(terms, its, state, row, d)
    # What an earlier experiment on this pair has folded is in `carried`.
    if row.source != wanted or row.number <= state.through:
        return state
    return _folded(state, d)


def _burn_in(
    terms: Terms, its: ObjectiveTerms, state: ObjectiveEvidence, row: LedgerRow, d: float
) -> ObjectiveEvidence | Refusal:
    seen = state.burn_in.add(d)
    inside = Moments.of_sums(row.entities, row.total, row.squares)
    entities = inside if isinstance(inside, Refusal) else state.entities.merge(inside)
    if isinstance(seen, Refusal):
        return seen
    if isinstance(entities, Refusal):
        return entities
    state = replace(state, burn_in=seen, entities=entities)
    if seen.count < BURN_IN:
        return state
    started = _bernstein(terms, its, seen) if its.loss_bound is not None else _betting(its, seen)
    if isinstance(started, Refusal):
        return replace(state, void=started.message)
    if isinstance(started, Bernstein):
        return replace(state, bernstein=started)
    entity = entities.sd()
    return entity if isinstance(entity, Refusal) else replace(state, betting=started, entity=entity)


def _betting(its: ObjectiveTerms, burn_in: Moments) -> Betting | Refusal:
    scale = burn_in.sd()
    return scale if isinstance(scale, Refusal) else Betting.start(scale, its.margin / scale)


def _bernstein(terms: Terms, its: ObjectiveTerms, burn_in: Moments) -> Bernstein | Refusal:
    """The declared loss is the floor; the guess of the mean never rises above the null value, which loses little."""
    sd = burn_in.sd()
    if isinstance(sd, Refusal):
        return sd
    bound = its.loss_bound or 0.0
    sessions = max(BURN_IN, terms.planned * terms.block // DAY)
    return Bernstein.start(its.margin, -bound, its.margin + bound, sessions * sd * sd)


def _folded(state: ObjectiveEvidence, d: float) -> ObjectiveEvidence | Refusal:
    mean = state.mean.add(d)
    if isinstance(mean, Refusal):
        return mean
    betting, bernstein = state.betting, state.bernstein
    if betting is not None:
        betting = betting.fold(state.folded, d)
    elif bernstein is not None:
        bernstein = bernstein.fold(state.folded, state.folded, 1, d, d * d)
    if isinstance(betting, Refusal):
        return betting
    if isinstance(bernstein, Refusal):
        # A loss beyond the declared bound: the bound was wrong, and with it all evidence that rests on it.
        return replace(state, void=bernstein.message) if bernstein.why is Why.PARAMETER else bernstein
    return replace(state, betting=betting, bernstein=bernstein, folded=state.folded + 1, mean=mean)


def _counted(terms: Terms, sessions: Sessions, row: LedgerRow, whole: LedgerRow) -> Sessions:
    """``whole``: the row as the ledger has it."""
    profit = row.profit if row.profit is not None and row.source == "Live" else (0.0, 0.0)
    challenger = sessions.profit_challenger + profit[1]
    lost = row.dropped > 0  # by our own transport: its entities say nothing about either model's silence
    return replace(
        sessions,
        last=row.number,
        session=row.session,
        dropped=sessions.dropped + lost,
        empty=sessions.empty + (row.entities + row.missing_challenger == 0),
        overlapping=sessions.overlapping + (row.number % terms.horizon != 0),
        entities=sessions.entities + (0 if lost else row.entities),
        missing_champion=sessions.missing_champion + (0 if lost else row.missing_champion),
        missing_challenger=sessions.missing_challenger + (0 if lost else row.missing_challenger),
        late=sessions.late + row.late,
        profit_champion=sessions.profit_champion + profit[0],
        profit_challenger=challenger,
        peak_challenger=max(sessions.peak_challenger, challenger),
        chain=chained(sessions.chain, whole),
    )
