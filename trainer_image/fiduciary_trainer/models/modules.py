"""What is exported: torch modules that take transformed features and give the label's unit.

Plain operators only, so that ONNX has them all. Parameters are float32; what was fitted in float64 is rounded once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from fiduciary_trainer.models.ridge import Coefficients


def _buffer(values: NDArray[np.float64] | Sequence[float]) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64).to(torch.float32)


class Constant(nn.Module):
    """The same answer whatever the input is; NaN for an input of NaN, so that missing data stays visible."""

    value: Tensor

    def __init__(self, value: float) -> None:
        super().__init__()
        self.register_buffer("value", _buffer([value]))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :1] * 0.0 + self.value


class Affine(nn.Module):
    """``x @ weights + bias``, through a logistic function where ``probability``."""

    weights: Tensor
    bias: Tensor

    def __init__(self, coefficients: Coefficients, *, probability: bool) -> None:
        super().__init__()
        self.register_buffer("weights", _buffer(coefficients.weights)[:, None])
        self.register_buffer("bias", _buffer([coefficients.bias]))
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        score = x @ self.weights + self.bias
        return torch.sigmoid(score) if self.probability else score


class Smoothed(nn.Module):
    """Weighted mean of one feature over a window."""

    weights: Tensor

    def __init__(self, weights: NDArray[np.float64]) -> None:
        """``weights``: oldest first, as the rows of a window are."""
        super().__init__()
        self.register_buffer("weights", _buffer(weights)[:, None])

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, 0] @ self.weights


class Perceptron(nn.Module):
    """One hidden layer whose answer is zero until it has learned something."""

    def __init__(self, features: int, hidden: int, outputs: int = 1) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, hidden)
        self.out = nn.Linear(hidden, outputs)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.hidden(x)))


class Skipped(nn.Module):
    """A linear part, fitted before and held, and a network that learns what it leaves over.

    Without the linear part a network on these data is worse than linear regression; with it, it starts there.
    """

    def __init__(self, linear: Affine, network: nn.Module) -> None:
        super().__init__()
        self.linear = linear
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Score: a logit, or the standardised label."""
        newest = x[:, -1, :] if x.dim() == 3 else x
        return self.linear(newest) + self.network(x)


class Members(nn.Module):
    """The mean of several members' answers in the unit of the label."""

    level: Tensor
    spread: Tensor

    def __init__(self, members: Sequence[nn.Module], *, probability: bool, level: float, spread: float) -> None:
        """``level`` and ``spread`` undo the label's standardisation; members give logits where ``probability``."""
        super().__init__()
        self.members = nn.ModuleList(members)
        self.probability = probability
        self.register_buffer("level", _buffer([level]))
        self.register_buffer("spread", _buffer([spread]))

    def forward(self, x: Tensor) -> Tensor:
        scores = [member(x) for member in self.members]
        answers = [torch.sigmoid(score) for score in scores] if self.probability else scores
        mean = torch.stack(answers, dim=0).mean(dim=0)
        return mean if self.probability else mean * self.spread + self.level
