"""What a walk-forward is worth, in numbers with their uncertainty. The trainer measures; the operator judges.

Every statistic here works on one value per *date*: a panel's rows of one date are averaged first, because entities
of the same date share the market and are not independent evidence. Numbers that cannot be computed are reported in
``unavailable`` with the reason; nothing is replaced by a default.
"""

from fiduciary_trainer.measure.measurement import Measurement, Metric, measure
from fiduciary_trainer.measure.rows import Rows

__all__ = ["Measurement", "Metric", "Rows", "measure"]
