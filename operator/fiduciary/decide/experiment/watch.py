"""After a promotion: the new champion alone, against the rate that the old one had, for promotion.rollbackWindow.

Both arms can no longer be compared, since one has all the traffic. The claim is therefore absolute: the rate is above
the upper bound of the old champion's, plus the margin. A rise that both would have seen counts as harm of the new one;
going back to the version that served before is then the cautious answer. What a busy machine does is such a rise, so
the bound and the test know how much the old champion's requests scatter: docs/statistics.md has how often that fails.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fiduciary.evidence.dispersion import effective
from fiduciary.evidence.quantiles import AboveEdge
from fiduciary.evidence.refusal import Refusal
from fiduciary.evidence.sequences import rate_interval
from fiduciary.evidence.spending import MARGIN_FLOOR

if TYPE_CHECKING:
    from fiduciary.decide.experiment.state import Evidence, GuardrailEvidence, Terms

MOST = 0.999


def watched(terms: Terms, evidence: Evidence) -> Evidence:
    """With the watch of each guardrail begun at the last folded block, once."""
    margins = {its.name: its.margin for its in terms.guardrails}
    guardrails = tuple(_begun(terms, guardrail, margins.get(guardrail.name)) for guardrail in evidence.guardrails)
    return replace(evidence, guardrails=guardrails)


def _begun(terms: Terms, guardrail: GuardrailEvidence, margin: float | None) -> GuardrailEvidence:
    if guardrail.watch is not None or margin is None or not guardrail.seen_champion.trials:
        return guardrail  # the old champion had no request: there is no rate to compare with
    # The bound is one of independent requests: of as many as the declared bursts leave. Where φ is known from a day of
    # blocks it is in the test itself, and would leave too few requests of an experiment of hours to find harm by.
    known = rate_interval(effective(guardrail.seen_champion, terms.dispersion), terms.rollback)
    if isinstance(known, Refusal) or known.upper is None:
        return guardrail
    start = AboveEdge.start(min(known.upper + max(margin, MARGIN_FLOOR), MOST))
    if isinstance(start, Refusal):
        return guardrail
    return replace(guardrail, watch=replace(start, last=guardrail.harm.last))
