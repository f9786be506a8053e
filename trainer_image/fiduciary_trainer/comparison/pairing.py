"""Two ledgers of walk-forward rows become one ledger of sessions: the rows that the operator folds.

Plain Python on the texts of ``ledger.csv``: what was written is what counts, so anybody can do it again.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from fiduciary_trainer.outcome import BadContract, DataRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Arm = Literal["champion", "challenger"]
ARMS: tuple[Arm, Arm] = ("champion", "challenger")
Key = tuple[str, str]
"""(decision time, entity)."""

COLUMNS = ("entity", "decision_time", "label_end", "fold", "prediction", "outcome")
SAME = 1e-8
"""Relative difference of two outcomes that are the same: texts have ten digits, and processors their last bits."""
LARGEST_LOSS = 1e18
FEWEST_RANKED = 5
"""Entities that a rank correlation needs; both as in the scorer (docs/outcomes.md)."""


@dataclass(frozen=True)
class Row:
    """One out-of-sample prediction that met its outcome. Times are ISO 8601 as they were written."""

    label_end: str
    fold: int
    prediction: float
    outcome: float


Ledger = dict[Key, Row]


@dataclass(frozen=True)
class Compared:
    """The sessions of both, in order.

    Attributes:
        rows: of the ledger, as the scorer takes them.
        entities: paired rows.
        first, last: sessions.
    """

    rows: list[dict[str, Any]]
    entities: int
    first: str
    last: str


def read(text: bytes, whose: str) -> Ledger:
    """The rows of a ``ledger.csv``. Raises :class:`BadContract` where it is none."""
    table = csv.DictReader(io.StringIO(text.decode()))
    if not set(COLUMNS) <= set(table.fieldnames or ()):
        seen = ", ".join(table.fieldnames or ()) or "nothing"
        raise BadContract(
            "UnreadableLedger", f"ledger.csv of the {whose} has the columns {seen}; expected {', '.join(COLUMNS)}"
        )
    rows: Ledger = {}
    for line in table:
        key = line["decision_time"], line["entity"]
        if key in rows:
            raise BadContract("UnreadableLedger", f"ledger.csv of the {whose} has two rows of {key[0]} {key[1]}")
        rows[key] = Row(line["label_end"], int(line["fold"]), float(line["prediction"]), float(line["outcome"]))
    return rows


def stretches(ledger: Ledger) -> list[tuple[str, str]]:
    """First and last decision time of each fold, in order: when it was refitted, and until when that fit predicted."""
    found: dict[int, tuple[str, str]] = {}
    for (time, _), row in ledger.items():
        first, last = found.get(row.fold, (time, time))
        found[row.fold] = min(first, time), max(last, time)
    return [found[fold] for fold in sorted(found)]


def compare(
    champion: Ledger,
    challenger: Ledger,
    label: Literal["Volatility", "Direction", "Return"],
    session_of: Callable[[str], str],
) -> Compared:
    """Pair by (decision time, entity) over the stretch in which both were tested, and add up each session.

    A row that one of them lacks inside that stretch is a missing prediction of it, as in live sessions (statistics.md
    rule 13); what only one was tested on before or after is nobody's.

    Args:
        session_of: the session of a decision time.

    Raises:
        DataRefused: they were tested on no common day, or their outcomes are not the same.
    """
    both: dict[Arm, Ledger] = {"champion": champion, "challenger": challenger}
    begin = max(min((time for time, _ in ledger), default="~") for ledger in both.values())
    end = min(max((time for time, _ in ledger), default="") for ledger in both.values())
    if begin > end:
        tested = {
            arm: f"{min(t for t, _ in its)} to {max(t for t, _ in its)}" if its else "nothing"
            for arm, its in both.items()
        }
        raise DataRefused(
            "NoCommonDays",
            f"the champion was tested on {tested['champion']}, the challenger on {tested['challenger']}; expected "
            "common walk-forward days: train one of them again with an asOf nearer to the other's",
        )
    keys = sorted(key for key in champion.keys() | challenger.keys() if begin <= key[0] <= end)
    _same_outcomes(champion, challenger, keys)
    sessions: dict[str, list[Key]] = {}
    for key in keys:
        sessions.setdefault(session_of(key[0]), []).append(key)
    rows = [_session(session, its, champion, challenger, label) for session, its in sorted(sessions.items())]
    return Compared(rows, sum(row["entities"] for row in rows), rows[0]["session"], rows[-1]["session"])


def _same_outcomes(champion: Ledger, challenger: Ledger, keys: Iterable[Key]) -> None:
    pairs = [(key, champion[key], challenger[key]) for key in keys if key in champion and key in challenger]
    other = [
        (key, one, two)
        for key, one, two in pairs
        if one.label_end != two.label_end or not math.isclose(one.outcome, two.outcome, rel_tol=SAME, abs_tol=SAME)
    ]
    if other:
        (time, entity), one, two = other[0]
        raise DataRefused(
            "DifferentOutcomes",
            f"{len(other)} of {len(pairs)} common rows have another outcome in the two versions, the first on {time} "
            f"{entity or '(single series)'}: label end {one.label_end} and {two.label_end}; expected the same labels "
            "of the same data: were prices revised, or the label changed? Train the champion's procedure again",
        )


def _session(session: str, keys: Sequence[Key], champion: Ledger, challenger: Ledger, label: str) -> dict[str, Any]:
    pairs = [(champion[key], challenger[key]) for key in keys if key in champion and key in challenger]
    outcomes = [one.outcome for one, _ in pairs]
    forecasts: dict[Arm, list[float]] = {
        "champion": [one.prediction for one, _ in pairs],
        "challenger": [two.prediction for _, two in pairs],
    }
    measure = _rank_losses if label == "Return" else _squared_errors
    losses = {arm: measure(outcomes, forecasts[arm]) for arm in ARMS}
    differences = [a - b for a, b in zip(losses["champion"], losses["challenger"], strict=True)]
    missing = {
        "champion": sum(key not in champion for key in keys),
        "challenger": sum(key not in challenger for key in keys),
    }
    return {
        "session": session,
        "entities": len(differences),
        "sum": shortest(math.fsum(differences)),
        "sumSquares": shortest(math.fsum(d * d for d in differences)),
        "missing": missing,
        "dropped": dict.fromkeys(ARMS, 0),
        "loss": {arm: shortest(math.fsum(losses[arm])) for arm in ARMS},
    }


def _squared_errors(outcomes: Sequence[float], forecasts: Sequence[float]) -> list[float]:
    """Of log volatility; of a 0/1 outcome it is the Brier score (Brier 1950)."""
    return [min((y - p) ** 2, LARGEST_LOSS) for y, p in zip(outcomes, forecasts, strict=True)]


def _rank_losses(outcomes: Sequence[float], forecasts: Sequence[float]) -> list[float]:
    """Minus each entity's share in Spearman's (1904) rank correlation; none where too few were paired, or nothing
    was ordered by the outcomes."""
    realised = _standardised_ranks(outcomes)
    if len(outcomes) < FEWEST_RANKED or not any(realised):
        return []
    return [-a * b for a, b in zip(_standardised_ranks(forecasts), realised, strict=True)]


def _standardised_ranks(values: Sequence[float]) -> list[float]:
    """Ranks with ties averaged, mean 0 and mean square 1; all zero where the values do not differ."""
    n = len(values)
    order = sorted(range(n), key=values.__getitem__)
    ranks = [0.0] * n
    start = 0
    while start < n:
        stop = start
        while stop < n and values[order[stop]] == values[order[start]]:
            stop += 1
        for index in order[start:stop]:
            ranks[index] = 0.5 * (start + stop - 1) - 0.5 * (n - 1)
        start = stop
    scale = math.sqrt(math.fsum(rank * rank for rank in ranks) / n) if n else 0.0
    return [rank / scale for rank in ranks] if scale > 0.0 else ranks


def shortest(value: float) -> str:
    """Shortest decimal text that reads back as the same float64; never ``-0.0``."""
    return repr(value + 0.0)
