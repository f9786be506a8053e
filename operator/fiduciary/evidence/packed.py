"""Many numbers as one value of a state: bytes, which are copied, compared and stored as they are.

A state of twenty detectors holds two thousand scores that change by one in a window, and are written with each: as
decimal texts they took more time than everything else together.
"""

from __future__ import annotations

import math
import struct
import sys
from array import array
from typing import TYPE_CHECKING, NewType

if TYPE_CHECKING:
    from collections.abc import Iterable

Packed = NewType("Packed", bytes)
"""Doubles, eight bytes each, little-endian on every machine."""
EMPTY = Packed(b"")
WIDTH = 8


def packed(numbers: Iterable[float]) -> Packed:
    return Packed(b"".join([struct.pack("<d", number) for number in numbers]))


def unpacked(numbers: Packed) -> array[float]:
    found = array("d", bytes(numbers))
    if sys.byteorder == "big":
        found.byteswap()
    return found


def with_one(numbers: Packed, place: int, number: float) -> Packed:
    """With ``number`` before the one at ``place``."""
    at = WIDTH * place
    return Packed(b"".join((numbers[:at], struct.pack("<d", number), numbers[at:])))


def whole(content: bytes) -> bool:
    """Whether these bytes are finite numbers."""
    return len(content) % WIDTH == 0 and all(map(math.isfinite, unpacked(Packed(content))))
