"""The few plain numbers that every verdict rests on. The rule table knows nothing else.

Predicates of the table use only comparisons and ``& | ^`` on these fields, so the same table judges one experiment
(Python numbers) and ten thousand simulated ones at once (numpy arrays of one shape in the same fields).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Readings:
    """One experiment at one evaluation. Log e-values are natural logarithms, times are seconds.

    ``x_over`` is a log e-value less its threshold: at or above 0 the test has shown what it tests. ``inf`` where there
    is nothing to show, ``-inf`` where nothing was folded.
    """

    # what the log, people and the model say
    recorded: bool = False  # a record of the verdict exists
    promoted: bool = False  # it is a promotion that was not gone back on
    watching: bool = False  # and inside rollbackWindow
    latched: bool = False  # harm was found and is not recorded yet
    deleted: bool = False
    superseded: bool = False  # champion or challenger is no longer what this experiment compares
    aborted: bool = False
    rejected: bool = False
    queued: bool = False
    killed: bool = False
    pinned: bool = False
    suspended: bool = False
    enforced: bool = True  # mode Enforce
    relabelled: bool = False  # purpose Refresh, and the two versions are not of one configuration
    infeasible: bool = False  # an objective can never be shown: refused before it starts

    # safety
    pods_failed: bool = False
    pods_away: bool = False  # none was ready, and they do not suffice for the step again
    breaker: bool = False
    harm_over: float = float("-inf")  # of the weighted average of all harm tests
    watch_over: float = float("-inf")  # the same after a promotion
    ratio_alarm: bool = False
    shortfall: bool = False
    misrouted: int = 0

    # whether it can see
    exposed: bool = False  # the route in force sends or copies requests to the challenger
    champion_dark: bool = False
    challenger_dark: bool = False
    dark_seconds: float = 0.0
    max_hold: float = 7200.0
    unread: bool = False  # before it starts: the champion's past is not read yet
    refused: bool = False  # a block or session is impossible, or the experiment cannot be begun
    excess_series: int = 0
    missing_share: float = 0.0  # entities without the champion's prediction
    replay_failed: bool = False  # past days cannot be replayed, and nothing will be tried again

    # progress
    step: int = -1
    last_step: int = 0
    blocks: int = 0
    min_blocks: int = 1
    capacity: bool = True  # the challenger's pods suffice for the next step
    capacity_full: bool = True  # they suffice for a promotion
    confirmed: bool = True  # the route in force is what the present step asks for
    objectives_over: float = float("-inf")  # the least over all objectives; inf for a Refresh
    noninferiority_over: float = float("-inf")  # the least over all guardrails; -inf where nothing at all is asked
    outcomes_first: bool = False  # live sessions are the evidence, and the next step would end them
    requested: bool = False  # all was shown at one evaluation, whose digest people are asked to sign
    approvals: int = 0
    approvals_needed: int = 0
    elapsed: float = 0.0
    min_duration: float = 3600.0
    max_duration: float = 2_592_000.0
    longest: float = 2_851_200.0  # maxDuration and the grace for signatures, the calendar and pods
    waited: float = 0.0  # since the model follows it, where it has not started
    calendar_unknown: bool = False
    in_freeze: bool = False
    in_window: bool = False
