"""Quantiles of the walk-forward, fold by fold, beside those of the baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fiduciary_trainer import quantile_baselines
from fiduciary_trainer.measure.rows import Quantiles
from fiduciary_trainer.models import quantiles

if TYPE_CHECKING:
    from fiduciary_trainer.job import Contract
    from fiduciary_trainer.models.fitting import Fitter
    from fiduciary_trainer.models.quantiles import FittedQuantiles

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class FoldQuantiles:
    """What is known while the folds of a job are fitted.

    Attributes:
        fits: of the folds so far.
    """

    def __init__(self, contract: Contract, rows: int) -> None:
        self._contract = contract
        self._shape = (rows, len(contract.training.quantiles))
        self._values = np.full(self._shape, np.nan)
        self._against: dict[str, Floats] = {}
        self.fits: list[FittedQuantiles] = []

    def fold(self, fitter: Fitter, number: int, train: Ints, test: Ints) -> None:
        """Fit, predict, and do the same with the baselines."""
        fitted = quantiles.fit(fitter, number, train)
        self._values[test] = fitter.answers(fitted.module, fitted.transform, test)
        label, levels = self._contract.data.label, self._contract.training.quantiles
        known = quantile_baselines.fit_predict(fitter.prepared, label, levels, train, test)
        for name, values in known.items():
            self._against.setdefault(name, np.full(self._shape, np.nan))[test] = values
        self.fits.append(fitted)

    @property
    def found(self) -> Quantiles | None:
        """Of all rows, NaN where nothing was predicted; None: the job asks for none."""
        levels = self._contract.training.quantiles
        return Quantiles(levels, self._values, self._against) if levels else None
