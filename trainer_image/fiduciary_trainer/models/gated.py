"""Gated recurrent units of many networks at once (see :mod:`.stacks`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fiduciary_trainer.models.sequences import Recurrent

if TYPE_CHECKING:
    from fiduciary_trainer.models.stacks import Backward, Weights

_backward = torch.ops.aten


class GatedUnits:
    """Stacked :class:`.sequences.Recurrent` of GRU cells: ``(3 H, F)``, ``(3 H, H)``, two biases ``(3 H, 1)``, and the
    last layer's ``(H, 1)``, ``(1, 1)``.

    A state is ``(A, H, B)``, so that each gate of a model lies in one piece. Torch computes a GRU cell by cell outside
    of its fused kernels; gradients by hand, written where they are needed, are what pays here. An LSTM has a fused
    kernel on a CPU, which no stack was seen to beat.
    """

    def __init__(self, hidden: int) -> None:
        self.at_once = max(2, min(16, 256 // hidden))

    def read(self, core: nn.Module) -> Weights:
        layer = _layer(core)
        biases = layer.bias_ih_l0[:, None], layer.bias_hh_l0[:, None]
        return layer.weight_ih_l0, layer.weight_hh_l0, *biases, core.out.weight.T, core.out.bias[None]

    def write(self, core: nn.Module, weights: Weights) -> None:
        for own, new in zip(self.read(core), weights, strict=True):
            own.copy_(new)

    def scores(self, weights: Weights, x: Tensor) -> Tensor:
        return _score(weights, _states(weights, x)[-1][-1])

    def trained(self, weights: Weights, x: Tensor) -> tuple[Tensor, Backward]:
        read, gates, proposed, states = _states(weights, x)
        _, recurrent, _, _, outward, _ = weights

        def backward(slope: Tensor) -> Weights:
            at_gates, at_proposed = torch.empty_like(gates), torch.empty_like(proposed)
            hidden = states.shape[2]
            turned = recurrent.transpose(1, 2).contiguous()
            at_state = outward @ slope[:, None]
            for row in range(len(gates) - 1, -1, -1):
                reset, update, new = gates[row].split(hidden, dim=1)
                by_reset, by_update, by_new = at_gates[row].split(hidden, dim=1)
                below = at_state * update
                torch.sub(at_state, below, out=by_new)
                torch.sub(states[row], new, out=by_update).mul_(at_state)
                _backward.tanh_backward.grad_input(by_new, new, grad_input=by_new)
                torch.mul(by_new, reset, out=at_proposed[row])
                torch.mul(by_new, proposed[row], out=by_reset)
                both, open_by = at_gates[row][:, : 2 * hidden], gates[row][:, : 2 * hidden]
                _backward.sigmoid_backward.grad_input(both, open_by, grad_input=both)
                if row:
                    below.baddbmm_(turned[:, :, : 2 * hidden], both)
                    at_state = below.baddbmm_(turned[:, :, 2 * hidden :], at_proposed[row])
            inward, again = torch.zeros_like(weights[0]), torch.zeros_like(recurrent)
            for row in range(len(gates)):
                before = states[row].transpose(1, 2)
                inward.baddbmm_(at_gates[row], read[row].transpose(1, 2))
                again[:, : 2 * hidden].baddbmm_(at_gates[row][:, : 2 * hidden], before)
                again[:, 2 * hidden :].baddbmm_(at_proposed[row], before)
            bias = at_gates.sum(dim=(0, 3))[..., None]
            other = torch.cat([bias[:, : 2 * hidden], at_proposed.sum(dim=(0, 3))[..., None]], dim=1)
            return inward, again, bias, other, states[-1] @ slope[..., None], slope.sum(dim=1)[:, None, None]

        return _score(weights, states[-1]), backward


def _layer(core: nn.Module) -> nn.GRU:
    assert isinstance(core, Recurrent)
    assert isinstance(core.layer, nn.GRU)
    return core.layer


def _score(weights: Weights, state: Tensor) -> Tensor:
    return torch.baddbmm(weights[5], weights[4].transpose(1, 2), state)[:, 0]


def _states(weights: Weights, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """By rows of the window: what is read, ``(W, A, F, B)``, reset, update and new state, ``(W, A, 3 H, B)``, what the
    old state proposes, ``(W, A, H, B)``, and the states, ``(W + 1, A, H, B)``."""
    inward, recurrent, bias, other, outward, _ = weights
    models, batch, rows, _ = x.shape
    hidden = outward.shape[1]
    joined = torch.cat([bias[:, : 2 * hidden] + other[:, : 2 * hidden], bias[:, 2 * hidden :]], dim=1)
    read = x.permute(2, 0, 3, 1).contiguous()
    gates, proposed = x.new_empty(rows, models, 3 * hidden, batch), x.new_empty(rows, models, hidden, batch)
    states = x.new_zeros(rows + 1, models, hidden, batch)
    for row in range(rows):
        torch.baddbmm(joined, inward, read[row], out=gates[row])
        both, new = gates[row][:, : 2 * hidden], gates[row][:, 2 * hidden :]
        both.baddbmm_(recurrent[:, : 2 * hidden], states[row]).sigmoid_()
        torch.baddbmm(other[:, 2 * hidden :], recurrent[:, 2 * hidden :], states[row], out=proposed[row])
        new.addcmul_(both[:, :hidden], proposed[row]).tanh_()
        torch.lerp(new, states[row], both[:, hidden:], out=states[row + 1])
    return read, gates, proposed, states
