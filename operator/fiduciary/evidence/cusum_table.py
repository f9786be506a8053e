"""Written by bench/cusum_table.py: thresholds of a CUSUM (k = .5) of AR(1) normal scores.

20000 paths of 9000 windows per correlation, seed 20260724; standard error of a threshold about .01.
Not edited by hand.
"""

from __future__ import annotations

CORRELATIONS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
RUN_TIMES = (50.0, 100.0, 200.0, 500.0, 1000.0, 2160.0, 5000.0, 8640.0)
THRESHOLDS = (
    (2.229, 2.859, 3.509, 4.39, 5.073, 5.837, 6.674, 7.213),
    (2.318, 3.0, 3.713, 4.676, 5.436, 6.287, 7.213, 7.807),
    (2.396, 3.141, 3.939, 5.015, 5.838, 6.773, 7.792, 8.451),
    (2.49, 3.307, 4.185, 5.372, 6.279, 7.318, 8.433, 9.173),
    (2.587, 3.494, 4.441, 5.759, 6.76, 7.903, 9.16, 9.983),
    (2.69, 3.664, 4.694, 6.149, 7.288, 8.567, 9.967, 10.851),
    (2.809, 3.881, 5.028, 6.659, 7.923, 9.311, 10.853, 11.853),
)
"""One row per correlation, one column per expected run time in windows."""
