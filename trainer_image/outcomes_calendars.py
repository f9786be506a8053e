"""Write the outcome scorer's exchange calendars: ``python outcomes_calendars.py OUTPUT.json``.

The operator's table (operator/calendars/generate.py, beside this file when the image is built), from an earlier day: a
market replay decides on days long past.
"""

from __future__ import annotations

import generate
from exchange_calendars import get_calendar

SINCE = "1999-01-01"


def table(code: str) -> dict[str, object]:
    """Sessions since 1999, or since the first day that exchange_calendars knows of the exchange."""
    earliest = get_calendar(code).bound_min()
    generate.START = SINCE if earliest is None else max(SINCE, f"{earliest:%Y-%m-%d}")
    return of_operator(code)


of_operator = generate.table
generate.table = table

if __name__ == "__main__":
    generate.main()
