"""The out-of-sample ledger of a walk-forward: one line for each prediction that met its outcome.

Prequential comparison reads the ledgers of two versions and pairs them by (entity, decision time), so the bytes must
not depend on anything but the numbers: rows are sorted, dates are ISO 8601, and a float is written with the fewest
digits (at most 10) that give the same 10 significant digits again. Ten are more than any loss difference needs, and
fewer than where two processors' last bits differ.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import numpy as np

from fiduciary_trainer.measure.losses import squared_error

if TYPE_CHECKING:
    from fiduciary_trainer.measure.rows import Rows

COLUMNS = ("entity", "decision_time", "label_end", "fold", "prediction", "outcome", "loss", "config_key")
DIGITS = 10


def number(value: float) -> str:
    """Canonical text of a float: at most ten significant digits, never ``-0``.

    Raises:
        ValueError: the value is not finite; a ledger has no holes.
    """
    if not np.isfinite(value):
        raise ValueError(f"a ledger row holds {value}; predictions and outcomes must be finite")
    return f"{value + 0.0:.{DIGITS}g}"


def ledger(rows: Rows, config_key: str) -> bytes:
    """The ledger as CSV with a header, UTF-8, ``\\n`` line ends, ordered by (decision time, entity).

    ``loss`` is the squared error of the written prediction and outcome: of log volatility, of the probability (Brier)
    or of the return. ``entity`` is empty for a single series.

    Args:
        rows: all out-of-sample rows.
        config_key: ``configKey`` of the job, which says whose procedure predicted.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    single = rows.entities == 1
    for index in np.lexsort((rows.entity, rows.dates)):
        prediction, outcome = number(float(rows.prediction[index])), number(float(rows.y[index]))
        loss = squared_error(np.float64(outcome), np.float64(prediction))
        writer.writerow(
            [
                "" if single else str(rows.entity[index]),
                iso(rows.dates[index]),
                iso(rows.label_end[index]),
                int(rows.fold[index]),
                prediction,
                outcome,
                number(float(loss)),
                config_key,
            ]
        )
    return text.getvalue().encode()


def iso(time: np.datetime64) -> str:
    """ISO 8601 in UTC: a date alone where the time is midnight, else to the second with ``Z``."""
    day = time.astype("datetime64[D]")
    return str(day) if day == time else f"{time.astype('datetime64[s]')}Z"
