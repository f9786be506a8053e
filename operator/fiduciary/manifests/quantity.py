"""Kubernetes quantities as numbers."""

from __future__ import annotations

import re
from decimal import Decimal

_SUFFIXES = {
    "": Decimal(1), "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("0.001"),
    "k": Decimal(10) ** 3, "M": Decimal(10) ** 6, "G": Decimal(10) ** 9, "T": Decimal(10) ** 12,
    "P": Decimal(10) ** 15, "E": Decimal(10) ** 18,
    "Ki": Decimal(2) ** 10, "Mi": Decimal(2) ** 20, "Gi": Decimal(2) ** 30, "Ti": Decimal(2) ** 40,
    "Pi": Decimal(2) ** 50, "Ei": Decimal(2) ** 60,
}  # fmt: skip
_QUANTITY = re.compile(r"([+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)([numkMGTPE]i?|Ki)?")


def parse_quantity(text: str | int) -> Decimal:
    """The value of a quantity such as 250m, 1.5Gi or 1e3, exactly.

    Raises:
        ValueError: not a quantity.
    """
    match = _QUANTITY.fullmatch(str(text))
    if match is None or (match[2] or "") not in _SUFFIXES:
        raise ValueError(f"{text!r} is no Kubernetes quantity such as 250m, 2 or 1.5Gi")
    return Decimal(match[1]) * _SUFFIXES[match[2] or ""]


def times(text: str, count: int) -> str:
    """A quantity ``count`` times over, in its own unit.

    Raises:
        ValueError: not a quantity.
    """
    if count == 1:
        return text
    parse_quantity(text)
    match = _QUANTITY.fullmatch(text)
    assert match is not None
    return f"{(Decimal(match[1]) * count).normalize():f}{match[2] or ''}"
