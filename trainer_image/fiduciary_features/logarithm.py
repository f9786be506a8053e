"""The natural logarithm, with the same bits on every machine.

``numpy.log`` is one function on a processor with AVX-512 and another without: 3 % of the values near 1 differ in their
last bit, and the C library's differ again with and without fused multiplication. A model that was trained on one node
and is served on another would then see other features. Here are only operations that IEEE 754 rounds in one way.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_SQRT_HALF = math.sqrt(0.5)
_C1, _C2, _C3, _C4, _C5, _C6, _C7 = (
    6.666666666666735130e-01,
    3.999999999940941908e-01,
    2.857142874366239149e-01,
    2.222219843214978396e-01,
    1.818357216161805012e-01,
    1.531383769920937332e-01,
    1.479819860510658591e-01,
)

_CHUNK = 1 << 15
"""Values at a time: what lies between the steps then stays in the processor's cache."""


def log(values: Floats) -> Floats:
    """Natural logarithm of any shape; NaN where there is none (zero, negative, infinite, NaN).

    The algorithm of fdlibm's ``e_log.c`` (Sun Microsystems, 1993), error below 1 unit in the last place: values are
    2^k (1 + f) with 1 + f between the roots of 1/2 and 2, s = f / (2 + f), and log(1 + f) is a polynomial in s².
    """
    if values.size <= _CHUNK:
        return _log(values)
    flat = values.reshape(-1)
    parts = [_log(flat[start : start + _CHUNK]) for start in range(0, len(flat), _CHUNK)]
    return np.concatenate(parts).reshape(values.shape)


def _log(values: Floats) -> Floats:
    known = (values > 0.0) & (values < np.inf)
    mantissa, exponent = np.frexp(np.where(known, values, 1.0))
    low = mantissa < _SQRT_HALF
    f = np.where(low, mantissa + mantissa, mantissa) - 1.0
    k = (exponent - low).astype(np.float64)
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    even = w * (_C2 + w * (_C4 + w * _C6))
    odd = z * (_C1 + w * (_C3 + w * (_C5 + w * _C7)))
    half = 0.5 * f * f
    result = k * _LN2_HIGH - ((half - (s * (half + (even + odd)) + k * _LN2_LOW)) - f)
    result[~known] = np.nan
    return result
