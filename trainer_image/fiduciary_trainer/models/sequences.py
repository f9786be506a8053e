"""Networks that read a window of rows, oldest first, and answer at its last row.

Plain operators only, so that ONNX has them all: torch's own encoder layer takes a path in evaluation that the exporter
does not know. Every network is zero until it has learned something (see :class:`~.modules.Skipped`), and a row that is
missing within its reach stays visible as NaN.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional


def silent(features: int, outputs: int) -> nn.Linear:
    """The last layer: 0 whatever comes in, until it is trained."""
    out = nn.Linear(features, outputs)
    nn.init.zeros_(out.weight)
    nn.init.zeros_(out.bias)
    return out


class Recurrent(nn.Module):
    """One recurrent layer, read at the last row of the window.

    LSTM: Hochreiter & Schmidhuber (1997), Neural Computation 9; GRU: Cho et al. (2014), EMNLP.
    """

    def __init__(self, cell: Literal["LSTM", "GRU"], features: int, hidden: int, outputs: int = 1) -> None:
        super().__init__()
        self.layer = {"LSTM": nn.LSTM, "GRU": nn.GRU}[cell](features, hidden, batch_first=True)
        self.out = silent(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.layer(x)
        return self.out(states[:, -1, :])


class TemporalConvolution(nn.Module):
    """Causal dilated convolutions with residual connections, as deep as the window needs.

    Kernel 3, dilations 1, 2, 4, ...: the last row sees ``1 + 2 (2^depth - 1)`` rows. Source: Bai, Kolter & Koltun
    (2018), "An empirical evaluation of generic convolutional and recurrent networks for sequence modeling".
    """

    KERNEL = 3

    def __init__(self, features: int, hidden: int, window: int, outputs: int = 1) -> None:
        super().__init__()
        depth = max(1, math.ceil(math.log2((window - 1) / (self.KERNEL - 1) + 1)))
        self.inward = nn.Conv1d(features, hidden, 1)
        self.layers = nn.ModuleList(nn.Conv1d(hidden, hidden, self.KERNEL, dilation=2**level) for level in range(depth))
        self.out = silent(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        state = self.inward(x.transpose(1, 2))
        for level, layer in enumerate(self.layers):
            reach = (self.KERNEL - 1) * 2**level
            state = state + torch.relu(layer(functional.pad(state, (reach, 0))))
        return self.out(state[:, :, -1])


class Encoder(nn.Module):
    """A small Transformer encoder: learned places, pre-normalised self-attention and a two-layer network, read at the
    last row.

    Source: Vaswani et al. (2017), "Attention is all you need"; normalisation first as Xiong et al. (2020).
    """

    def __init__(self, features: int, hidden: int, window: int, heads: int, layers: int, outputs: int = 1) -> None:
        super().__init__()
        self.inward = nn.Linear(features, hidden)
        self.places = nn.Parameter(0.02 * torch.randn(window, hidden))
        self.layers = nn.ModuleList(EncoderLayer(hidden, heads) for _ in range(layers))
        self.out = silent(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        state = self.inward(x) + self.places
        for layer in self.layers:
            state = layer(state)
        return self.out(state[:, -1, :])


class EncoderLayer(nn.Module):
    """Self-attention and a network of twice the width, each added to what it read."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first = nn.LayerNorm(hidden)
        self.parts = nn.Linear(hidden, 3 * hidden)
        self.together = nn.Linear(hidden, hidden)
        self.second = nn.LayerNorm(hidden)
        self.wide = nn.Linear(hidden, 2 * hidden)
        self.narrow = nn.Linear(2 * hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        rows, hidden = x.shape[1], x.shape[2]
        width = hidden // self.heads
        query, key, value = (
            part.reshape(-1, rows, self.heads, width).transpose(1, 2)
            for part in self.parts(self.first(x)).split(hidden, dim=2)
        )
        attention = torch.softmax(query @ key.transpose(2, 3) / math.sqrt(width), dim=3)
        x = x + self.together((attention @ value).transpose(1, 2).reshape(-1, rows, hidden))
        return x + self.narrow(torch.relu(self.wide(self.second(x))))


class Newest(nn.Module):
    """A network of single rows that is given windows: it reads the last row."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x[:, -1, :])
