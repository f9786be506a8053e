"""Networks of one shape, many at once: parameters with a leading dimension of models, scores, and their gradients.

What one network computes stands in :mod:`.modules` and :mod:`.sequences`; a stack computes the same for all of them in
few large products instead of many small ones. Sums are rounded in another order, nothing else differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from fiduciary_trainer.models.gated import GatedUnits
from fiduciary_trainer.models.modules import Perceptron
from fiduciary_trainer.models.sequences import Recurrent, TemporalConvolution

Weights = tuple[Tensor, ...]
"""Of A models: each tensor is ``(A, ...)``."""
Backward = Callable[[Tensor], Weights]
"""From the derivative by the scores, ``(A, B)``, to that by the weights."""


class Stack(Protocol):
    """How networks of one architecture are computed together.

    Attributes:
        at_once: models beyond which more of them are slower, since what lies between the layers leaves the cache.
    """

    at_once: int

    def read(self, core: nn.Module) -> Weights:
        """Parameters of one network, as a stack lays them out, without the leading dimension."""
        ...

    def write(self, core: nn.Module, weights: Weights) -> None:
        """Put them back."""
        ...

    def scores(self, weights: Weights, x: Tensor) -> Tensor:
        """``(A, B)`` from rows ``(A, B, F)`` or windows ``(A, B, W, F)``."""
        ...

    def trained(self, weights: Weights, x: Tensor) -> tuple[Tensor, Backward]:
        """Scores, and how to go back from them."""
        ...


class Perceptrons:
    """Stacked :class:`.modules.Perceptron`: ``(F, H)``, ``(1, H)``, ``(H, 1)``, ``(1, 1)``. Two layers do not need a
    tape: gradients are written by hand."""

    at_once = 64

    def read(self, core: nn.Module) -> Weights:
        assert isinstance(core, Perceptron)
        return core.hidden.weight.T, core.hidden.bias[None], core.out.weight.T, core.out.bias[None]

    def write(self, core: nn.Module, weights: Weights) -> None:
        for own, new in zip(self.read(core), weights, strict=True):
            own.copy_(new)

    def scores(self, weights: Weights, x: Tensor) -> Tensor:
        return self._forward(weights, x)[1]

    def trained(self, weights: Weights, x: Tensor) -> tuple[Tensor, Backward]:
        hidden, score = self._forward(weights, x)

        def backward(slope: Tensor) -> Weights:
            back = slope[..., None] * weights[2].transpose(1, 2) * (1.0 - hidden * hidden)
            return (
                x.transpose(1, 2) @ back,
                back.sum(dim=1, keepdim=True),
                hidden.transpose(1, 2) @ slope[..., None],
                slope.sum(dim=1)[:, None, None],
            )

        return score, backward

    def _forward(self, weights: Weights, x: Tensor) -> tuple[Tensor, Tensor]:
        inward, bias, outward, level = weights
        hidden = torch.tanh(torch.baddbmm(bias, x, inward))
        return hidden, torch.baddbmm(level, hidden, outward)[..., 0]


class Convolutions:
    """Stacked :class:`.sequences.TemporalConvolution`: two tensors for each layer, the first and the last included.

    A layer is one product: the three rows that it reads lie side by side. Gradients are written by hand: torch's tape
    fills a tensor of zeros for every slice.
    """

    def __init__(self, hidden: int) -> None:
        self.at_once = 8 if hidden <= 64 else 4

    def read(self, core: nn.Module) -> Weights:
        assert isinstance(core, TemporalConvolution)
        found: list[Tensor] = [core.inward.weight[:, :, 0].T, core.inward.bias[None]]
        for layer in core.layers:
            # (out, in, 3) -> (3 in, out), the oldest of the three rows first.
            found += [layer.weight.permute(2, 1, 0).reshape(-1, layer.weight.shape[0]), layer.bias[None]]
        return *found, core.out.weight.T, core.out.bias[None]

    def write(self, core: nn.Module, weights: Weights) -> None:
        assert isinstance(core, TemporalConvolution)
        core.inward.weight.copy_(weights[0].T[:, :, None])
        core.inward.bias.copy_(weights[1][0])
        for layer, weight, bias in zip(core.layers, weights[2:-2:2], weights[3:-2:2], strict=True):
            layer.weight.copy_(weight.reshape(layer.weight.permute(2, 1, 0).shape).permute(2, 1, 0))
            layer.bias.copy_(bias[0])
        core.out.weight.copy_(weights[-2].T)
        core.out.bias.copy_(weights[-1][0])

    def scores(self, weights: Weights, x: Tensor) -> Tensor:
        return self._forward(weights, x)[-1][..., 0]

    def trained(self, weights: Weights, x: Tensor) -> tuple[Tensor, Backward]:
        seen = self._forward(weights, x)
        newest, score = seen[-2], seen[-1][..., 0]

        def backward(slope: Tensor) -> Weights:
            gradients: list[Tensor] = [slope.sum(dim=1)[:, None, None], newest.transpose(1, 2) @ slope[..., None]]
            above = (slope[..., None] * weights[-2].transpose(1, 2))[:, :, None]
            for place in range(len(weights) // 2 - 2, 0, -1):
                state, three, active = seen[3 * place - 2 : 3 * place + 1]
                if above.shape[2] != active.shape[2]:  # of the last three rows, which the last layer alone reads
                    above = functional.pad(above, (0, 0, active.shape[2] - above.shape[2], 0))
                made = (above * (active > 0)).flatten(1, 2)
                gradients += [made.sum(dim=1, keepdim=True), three.flatten(1, 2).transpose(1, 2) @ made]
                parts = (made @ weights[2 * place].transpose(1, 2)).view(three.shape)
                above = _spread(above, parts, state.shape)
            if above.shape[2] != x.shape[2]:
                above = functional.pad(above, (0, 0, x.shape[2] - above.shape[2], 0))
            flat = above.flatten(1, 2)
            gradients += [flat.sum(dim=1, keepdim=True), x.flatten(1, 2).transpose(1, 2) @ flat]
            return tuple(reversed(gradients))

        return score, backward

    def _forward(self, weights: Weights, x: Tensor) -> list[Tensor]:
        """Of each layer what it read, the three rows side by side, and what it made; then the newest row and the score.

        A layer is computed only where the next ones look: at every second row of those before, up to the newest, and
        the last layer at the newest row alone.
        """
        models, batch, rows, _ = x.shape
        state = torch.baddbmm(weights[1], x.flatten(1, 2), weights[0]).view(models, batch, rows, -1)
        kept: list[Tensor] = [x]
        for place in range(1, len(weights) // 2 - 1):
            if place == len(weights) // 2 - 2:
                state = state[:, :, -3:]
            three = _beside(state, alone=place == len(weights) // 2 - 2)
            made = torch.baddbmm(weights[2 * place + 1], three.flatten(1, 2), weights[2 * place])
            active = torch.relu_(made).view(models, batch, three.shape[2], -1)
            kept += [state, three, active]
            state = active + three[..., -active.shape[3] :]
        newest = state[:, :, -1]
        return [*kept, newest, torch.baddbmm(weights[-1], newest, weights[-2])]


def _rows(rows: int, back: int, count: int) -> slice:
    """Every second of ``rows``, ``count`` of them at most, the last of them ``back`` before the newest."""
    end = rows - back
    return slice(max(end - 1 - 2 * (count - 1), (end - 1) % 2), max(end, 0), 2)


def _beside(state: Tensor, *, alone: bool) -> Tensor:
    """``(A, B, P, 3 H)``: each row that is computed, after the two before it; zeros before the window.

    Args:
        state: ``(A, B, rows, H)``.
        alone: only the newest row is computed; else every second one.
    """
    models, batch, rows, hidden = state.shape
    count = 1 if alone else (rows + 1) // 2
    three = state.new_zeros(models, batch, count, TemporalConvolution.KERNEL, hidden)
    for back in range(TemporalConvolution.KERNEL):
        read = state[:, :, _rows(rows, back, count)]
        three[:, :, count - read.shape[2] :, -1 - back] = read
    return three.flatten(3)


def _spread(above: Tensor, three: Tensor, shape: torch.Size) -> Tensor:
    """The derivative by what :func:`_beside` read, from those by the layer's answer and by what lay side by side."""
    state = above.new_zeros(shape)
    count, hidden = above.shape[2:]
    parts = three.unflatten(3, (-1, hidden))
    for back in range(TemporalConvolution.KERNEL):
        part = state[:, :, _rows(shape[2], back, count)]
        part += parts[:, :, count - part.shape[2] :, -1 - back]
    newest = state[:, :, _rows(shape[2], 0, count)]
    newest += above
    return state


def of(cores: Sequence[nn.Module]) -> Stack | None:
    """For networks that can be computed together; None: these cannot, or it was measured not to pay."""
    if all(isinstance(core, Perceptron) for core in cores):
        return Perceptrons()
    convolutions = [core for core in cores if isinstance(core, TemporalConvolution)]
    if len(convolutions) == len(cores):
        return Convolutions(convolutions[0].inward.out_channels)
    layers = [core.layer for core in cores if isinstance(core, Recurrent)]
    if len(layers) == len(cores) and all(isinstance(layer, nn.GRU) for layer in layers):
        return GatedUnits(layers[0].hidden_size)
    return None
