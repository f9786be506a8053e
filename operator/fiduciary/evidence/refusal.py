"""A typed "no": what a statistic answers to an input that it cannot judge, instead of NaN or an exception."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

MAX_COUNT = 2**53
"""Counts above it are no longer exact as floats."""
MAX_MAGNITUDE = 1e100
"""Measurements beyond it would overflow when squared and summed."""


class Why(StrEnum):
    """The kind of a refusal, stable for status and tests."""

    NO_TRIALS = "NoTrials"
    NEGATIVE = "NegativeCount"
    BAD_ABOVE_TRIALS = "BadAboveTrials"
    TOO_LARGE = "TooLarge"
    NOT_FINITE = "NotFinite"
    NO_VARIANCE = "NoVariance"
    TOO_FEW = "TooFew"
    OUT_OF_ORDER = "OutOfOrder"
    PARAMETER = "Parameter"
    MALFORMED = "Malformed"


@dataclass(frozen=True, slots=True)
class Refusal:
    """``message`` says what was seen, what was expected and, where there is something to do, what."""

    why: Why
    message: str


def check_count(name: str, value: int) -> Refusal | None:
    """None if ``value`` is a count: an integer in 0 … 2⁵³."""
    if value < 0:
        return Refusal(Why.NEGATIVE, f"{name} is {value}; a count is never negative: a counter reset was not handled")
    if value > MAX_COUNT:
        return Refusal(Why.TOO_LARGE, f"{name} is {value}; counts above 2^53 are not exact")
    return None


def check_trials(name: str, trials: int, bad: int) -> Refusal | None:
    """None if 0 <= ``bad`` <= ``trials`` <= 2⁵³."""
    problem = check_count(f"trials of {name}", trials) or check_count(f"bad of {name}", bad)
    if problem is None and bad > trials:
        return Refusal(Why.BAD_ABOVE_TRIALS, f"{name} has {bad} bad of {trials} trials; at most all can be bad")
    return problem


def check_measure(name: str, value: float) -> Refusal | None:
    """None if ``value`` is finite and its square can be summed."""
    if not math.isfinite(value):
        return Refusal(Why.NOT_FINITE, f"{name} is {value}; a finite number was expected")
    if abs(value) > MAX_MAGNITUDE:
        return Refusal(Why.TOO_LARGE, f"{name} is {value}; numbers beyond 1e100 cannot be squared and summed")
    return None


def check_open_unit(name: str, value: float) -> Refusal | None:
    """None if 0 < ``value`` < 1, as an error probability or a rate has to be."""
    return None if 0.0 < value < 1.0 else Refusal(Why.PARAMETER, f"{name} is {value}; expected 0 < {name} < 1")


def check_positive(name: str, value: float) -> Refusal | None:
    """None if 1e-100 <= ``value`` <= 1e100: it can be squared and divided by."""
    if 1.0 / MAX_MAGNITUDE <= value <= MAX_MAGNITUDE:
        return None
    return Refusal(Why.PARAMETER, f"{name} is {value}; expected a positive number, 1e-100 to 1e100")


def check_dispersion(phi: float) -> Refusal | None:
    """None if 1 <= ``phi`` < inf: a factor below one would sharpen evidence instead of blunting it."""
    if 1.0 <= phi <= MAX_MAGNITUDE:
        return None
    return Refusal(Why.PARAMETER, f"dispersion is {phi}; expected a finite number of at least 1")


def check_next(last: int, first_of_block: int, last_of_block: int) -> Refusal | None:
    """None if the block [first, last] starts right after block ``last``: evidence is folded once, without holes."""
    if first_of_block == last + 1 and first_of_block <= last_of_block <= MAX_COUNT:
        return None
    return Refusal(
        Why.OUT_OF_ORDER,
        f"block {first_of_block}..{last_of_block} after block {last}; expected one that starts at {last + 1}: "
        "blocks are folded once and in order, and a gap is one merged block",
    )
