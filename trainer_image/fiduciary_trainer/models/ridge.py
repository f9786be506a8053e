"""Penalised linear and logistic regression, the penalty chosen inside the training rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PENALTIES = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
"""Tried in this order; in units of the mean square of a z-scored feature, so independent of the number of rows."""

UNPENALISED = 1e-4
"""A logistic regression without any penalty diverges where a feature separates the classes."""

_NEWTON_STEPS = 50
_CONVERGED = 1e-10


@dataclass(frozen=True)
class Coefficients:
    """``score = x @ weights + bias``."""

    weights: Floats
    bias: float

    def score(self, x: Floats) -> Floats:
        return x @ self.weights + self.bias


def ridge(x: Floats, y: Floats, penalty: float) -> Coefficients:
    """Minimise ``mean((y - score)²) + penalty |weights|²``.

    Args:
        x: ``(n, F)`` z-scored.
        y: ``(n,)``.
        penalty: 0 gives least squares; where columns are collinear, the solution of smallest norm.
    """
    centre, level = x.mean(axis=0), float(y.mean())
    centred = x - centre
    if penalty == 0.0:
        weights = np.linalg.lstsq(centred, y - level, rcond=None)[0]
    else:
        gram = centred.T @ centred / len(x) + penalty * np.eye(x.shape[1])
        weights = np.linalg.solve(gram, centred.T @ (y - level) / len(x))
    return Coefficients(weights, level - float(centre @ weights))


def logistic(x: Floats, y: Floats, penalty: float) -> Coefficients:
    """Minimise ``mean(log loss) + penalty / 2 |weights|²`` by Newton's method with halved steps.

    The problem is convex, and with a penalty strictly so; the bias is not penalised.
    """
    design = np.column_stack([x, np.ones(len(x))])
    share = np.clip(y.mean(), 1e-6, 1 - 1e-6)
    beta = np.append(np.zeros(x.shape[1]), np.log(share / (1 - share)))
    ridge_part = np.append(np.full(x.shape[1], penalty), 0.0)

    def objective(at: Floats) -> float:
        return log_loss(design @ at, y) + 0.5 * float(ridge_part @ (at * at))

    value = objective(beta)
    for _ in range(_NEWTON_STEPS):
        p = sigmoid(design @ beta)
        gradient = design.T @ (p - y) / len(y) + ridge_part * beta
        curvature = (design * (p * (1 - p))[:, None]).T @ design / len(y) + np.diag(ridge_part + 1e-12)
        step = np.linalg.solve(curvature, gradient)
        length = 1.0
        while (after := objective(beta - length * step)) > value and length > 1e-6:
            length /= 2
        beta, gain, value = beta - length * step, value - after, after
        if gain < _CONVERGED:
            break
    return Coefficients(beta[:-1], float(beta[-1]))


def choose(
    fit: Callable[[Floats, Floats, float], Coefficients],
    loss: Callable[[Floats, Floats], float],
    x: Floats,
    y: Floats,
    splits: Sequence[tuple[Ints, Ints]],
) -> float:
    """The penalty with the smallest loss over all watched rows of the splits; the smallest one without any split."""
    if not splits:
        return PENALTIES[0]
    losses = [
        sum(loss(fit(x[train], y[train], penalty).score(x[watch]), y[watch]) * len(watch) for train, watch in splits)
        for penalty in PENALTIES
    ]
    return PENALTIES[int(np.argmin(losses))]


def squared_error(score: Floats, y: Floats) -> float:
    return float(np.mean((score - y) ** 2))


def log_loss(score: Floats, y: Floats) -> float:
    """Mean of ``-log p(y)``, from logits."""
    return float(np.mean(np.logaddexp(0.0, score) - y * score))


def sigmoid(score: Floats) -> Floats:
    return 0.5 * (1.0 + np.tanh(0.5 * score))
