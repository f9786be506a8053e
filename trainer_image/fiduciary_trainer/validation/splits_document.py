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
    """The splits of a training.

    Args:
        calendar: of all usable rows.
        folds: of the walk-forward.
        combined: of combinatorial purged cross-validation, if it was run.
        nested: also what was split inside the training rows: the tail of early stopping, the folds of the penalty.
        searched: also the folds inside the training rows on which a search compares its trials.
    """
    every: list[dict[str, Any]] = []
    for fold in folds:
        entry = _entry(calendar, "WalkForward", str(fold.index), fold.train_rows, fold.test_rows)
        if nested:
            entry["inner"] = [
                _entry(calendar, "EarlyStopping", "tail", *splits.inner_tail(calendar, fold.train_rows)),
                *(
                    _entry(calendar, "Penalty", str(number), fit, watch)
                    for number, (fit, watch) in enumerate(splits.inner_walk_forward(calendar, fold.train_rows))
                ),
            ]
        if searched:
            entry["inner"] = entry.get("inner", []) + _search(calendar, fold.train_rows)
        every.append(entry)
    for split in combined:
        name = "-".join(str(fold) for fold in split.tested)
        entry = _entry(calendar, "CombinatorialPurged", name, split.train, split.test)
        if searched:
            entry["inner"] = _search(calendar, split.train)
        every.append(entry)
    return {"sessions": len(calendar.days), "purge": calendar.purge, "embargo": calendar.embargo, "splits": every}


def _search(calendar: Calendar, train: Ints) -> list[dict[str, Any]]:
    return [
        _entry(calendar, "Search", str(number), fit, watch)
        for number, (fit, watch) in enumerate(splits.inner_walk_forward(calendar, train))
    ]


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
