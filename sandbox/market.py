"""The days that the samples' models never saw: bars of the S&P 500 after their asOf, and what became of each.

The data ship inside the trainer's image, and so does the code that defines the outcome: both are asked there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DATASET = "arch/sp500"
COLUMNS = ("open", "high", "low", "close", "volume")

# Runs in the trainer's image: argv is dataset, columns. Prints the whole series as JSON.
SCRIPT = """
import json, sys
from importlib.metadata import distribution
import numpy as np, pandas as pd
from fiduciary_features import Bars, labels
from fiduciary_trainer.data.library import DATASETS
shipped = DATASETS[sys.argv[1]]
table = pd.read_csv(distribution(shipped.package).locate_file(shipped.path)).rename(columns=shipped.columns)
columns = {name: table[name].to_numpy("float64") for name in sys.argv[2:]}
time = pd.to_datetime(table["date"]).to_numpy("datetime64[ns]")
outcome = labels(Bars(time, np.full(len(table), ""), columns), "Volatility", "close", 1).y
json.dump({
    "time": [str(t) for t in time.astype("datetime64[D]")],
    "columns": {name: list(values) for name, values in columns.items()},
    "outcome": [None if np.isnan(y) else y for y in outcome],
}, sys.stdout)
"""


@dataclass(frozen=True)
class Market:
    """A daily series, oldest first.

    outcome: for each day what a volatility model should have said at its close: the log of the next session's
    Garman-Klass standard deviation; None on the last day.
    """

    time: Sequence[str]
    columns: Mapping[str, Sequence[float]]
    outcome: Sequence[float | None]

    @staticmethod
    def command() -> list[str]:
        """What to run in the trainer's image; `parse` reads what it prints."""
        return ["python3", "-c", SCRIPT, DATASET, *COLUMNS]

    @classmethod
    def parse(cls, said: str) -> Market:
        return cls(**json.loads(said))

    def after(self, day: str) -> list[str]:
        """Days later than `day` whose outcome is known."""
        known = zip(self.time, self.outcome, strict=True)
        return [time for time, outcome in known if time > day and outcome is not None]

    def bars(self, through: str, rows: int) -> Market:
        """The last `rows` days up to `through`: what somebody has in hand at that close."""
        end = self.time.index(through) + 1
        cut = slice(end - rows, end)
        columns = {name: values[cut] for name, values in self.columns.items()}
        return Market(self.time[cut], columns, self.outcome[cut])
