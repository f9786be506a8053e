"""Every split as stretches of sessions, so that anyone can check that no training label touches a test.

A stretch says when its decisions were made and when the last of their labels was known; rows between stretches were
left out. The document needs no data to be checked: :func:`violations` reads nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fiduciary_trainer import splits
from fiduciary_trainer.ledger import iso

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fiduciary_trainer.splits import Calendar
    from fiduciary_trainer.validation.combinatorial import Split
    from fiduciary_trainer.walkforward import Fold

Ints = NDArray[np.int64]


def document(
    calendar: Calendar,
    folds: Iterable[Fold],
    combined: Iterable[Split] = (),
    *,
    nested: bool,
    searched: bool = False,
) -> dict[str, Any]:
    """The splits of a training; the last one is the final model's, which trains on all rows and tests none.

    Args:
        calendar: of all usable rows.
        folds: of the walk-forward.
        combined: of combinatorial purged cross-validation, if it was run.
        nested: also what was split inside the training rows: the tail of early stopping, the folds of the penalty.
        searched: also the folds inside the training rows on which a search compares its trials.
    """
    whole = np.arange(len(calendar.dates))
    every = [
        *((("WalkForward", str(fold.index)), fold.train_rows, fold.test_rows) for fold in folds),
        *((("CombinatorialPurged", "-".join(map(str, each.tested))), each.train, each.test) for each in combined),
        (("Final", "all rows"), whole, whole[:0]),
    ]
    entries: list[dict[str, Any]] = []
    for (scheme, name), train, test in every:
        entry = _entry(calendar, scheme, name, train, test)
        if inner := _inner(calendar, train, nested=nested, searched=searched):
            entry["inner"] = inner
        entries.append(entry)
    return {"sessions": len(calendar.days), "purge": calendar.purge, "embargo": calendar.embargo, "splits": entries}


def _inner(calendar: Calendar, train: Ints, *, nested: bool, searched: bool) -> list[dict[str, Any]]:
    """What is split inside the training rows; penalties and trials are compared on the same folds."""
    found = [_entry(calendar, "EarlyStopping", "tail", *splits.inner_tail(calendar, train))] if nested else []
    for scheme in ("Penalty",) * nested + ("Search",) * searched:
        found += [
            _entry(calendar, scheme, str(number), fit, watch)
            for number, (fit, watch) in enumerate(splits.inner_walk_forward(calendar, train))
        ]
    return found


def _entry(calendar: Calendar, scheme: str, name: str, train: Ints, test: Ints) -> dict[str, Any]:
    return {
        "scheme": scheme,
        "name": name,
        "train": _stretches(calendar, train),
        "test": _stretches(calendar, test),
        "trainRows": len(train),
        "testRows": len(test),
    }


def _stretches(calendar: Calendar, rows: Ints) -> list[dict[str, Any]]:
    days = np.unique(calendar.day[rows])
    parts = np.split(days, np.flatnonzero(np.diff(days) > 1) + 1)
    result: list[dict[str, Any]] = []
    for part in (part for part in parts if len(part)):
        inside = rows[(calendar.day[rows] >= part[0]) & (calendar.day[rows] <= part[-1])]
        result.append(
            {
                "first": int(part[0]),
                "last": int(part[-1]),
                "from": iso(calendar.days[part[0]]),
                "through": iso(calendar.days[part[-1]]),
                "labelsKnownBy": iso(calendar.label_end[inside].max()),
                "rows": len(inside),
            }
        )
    return result


def violations(document: Mapping[str, Any]) -> list[str]:
    """What is wrong with the splits of a document, in words; nothing for a clean one.

    No training label's interval may touch that of a test row, and ``embargo`` sessions lie between the two.
    """
    found: list[str] = []
    embargo = int(document["embargo"])

    def look(entry: Mapping[str, Any], path: str) -> None:
        for train in entry["train"]:
            for test in entry["test"]:
                where = f"{path}: training {train['from']}..{train['through']}, test {test['from']}..{test['through']}"
                before = train["labelsKnownBy"] <= test["from"] and train["last"] < test["first"]
                after = train["from"] >= test["labelsKnownBy"] and train["first"] > test["last"]
                if not (before or after):
                    found.append(f"{where}: labels touch")
                    continue
                gap = test["first"] - train["last"] if before else train["first"] - test["last"]
                if gap <= embargo:
                    found.append(f"{where}: {gap - 1} sessions between, the embargo is {embargo}")
        for inner in entry.get("inner", ()):
            look(inner, f"{path}/{inner['scheme']} {inner['name']}")

    for entry in document["splits"]:
        look(entry, f"{entry['scheme']} {entry['name']}")
    return found
