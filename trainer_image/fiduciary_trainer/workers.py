"""Several pods that train one network: each takes its share of every batch, and all add up the same gradients.

The arithmetic belongs to the document, not to where it is carried out. A batch is cut into ``training.nodes`` shares;
the gradient of each is computed by itself, and they are added in the order of the shares. Whether one process computes
all of them in turn or each worker its own, the bits are the same, so that a replay in one pod is the training in
several. (An all-reduce adds in an order of its own; gathering costs the same for a few workers.) With one share it is
the plain loop.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.distributed as dist

from fiduciary_trainer.outcome import WorkerLost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor, nn


class Workers:
    """Who computes the shares of a batch.

    Attributes:
        shares: into how many each batch is cut.
        rank: which share is computed here; None: all of them, in turn.
    """

    def __init__(self, shares: int = 1, rank: int | None = None) -> None:
        self.shares = shares
        self.rank = rank

    @property
    def first(self) -> bool:
        """Whether this process decides what all do next (and keeps checkpoints, measures and delivers)."""
        return not self.rank

    def gradient(self, parameters: Sequence[nn.Parameter], loss: Callable[[Tensor], Tensor], rows: Tensor) -> float:
        """Leave the gradient of the mean loss over ``rows`` in ``parameters``; that loss.

        Args:
            parameters: of a module, the same on every worker.
            loss: mean loss of some rows, differentiable.
            rows: the whole batch; some shares of a small one are empty.

        Raises:
            WorkerLost: another worker is gone.
        """
        if self.shares == 1:
            return _plain(parameters, loss, rows)
        parts = rows.tensor_split(self.shares)
        if self.rank is None:
            found = [_gradient(parameters, loss, part, len(rows)) for part in parts]
        else:
            own = _gradient(parameters, loss, parts[self.rank], len(rows))
            found = [torch.empty_like(own) for _ in parts]
            with _together():
                dist.all_gather(found, own)
        total = found[0]
        for share in found[1:]:
            total = total + share
        place = 0
        for parameter in parameters:
            count = parameter.numel()
            parameter.grad = total[place : place + count].view_as(parameter).clone()
            place += count
        return float(total[-1])

    def same(self, module: nn.Module) -> None:
        """Give the module the first worker's parameters and buffers. Raises WorkerLost.

        Processors round differently; what they do apart must not add up over epochs.
        """
        if self.rank is not None:
            with torch.no_grad(), _together():
                for tensor in module.state_dict().values():
                    dist.broadcast(tensor, 0)

    def number(self, own: Callable[[], float]) -> float:
        """The first worker's number; only it computes it. Raises WorkerLost."""
        if self.rank is None:
            return own()
        told = torch.tensor([own() if self.first else 0.0], dtype=torch.float64, device=_device())
        with _together():
            dist.broadcast(told, 0)
        return float(told[0])

    def content(self, own: Callable[[], bytes]) -> bytes:
        """The first worker's bytes; only it makes them. Raises WorkerLost."""
        if self.rank is None:
            return own()
        content = own() if self.first else b""
        size = int(self.number(lambda: float(len(content))))
        told = torch.empty(size, dtype=torch.uint8, device=_device())
        if self.first:
            told.copy_(torch.from_numpy(np.frombuffer(content, dtype=np.uint8).copy()))
        with _together():
            dist.broadcast(told, 0)
        return told.cpu().numpy().tobytes()


ALONE = Workers()


def _plain(parameters: Sequence[nn.Parameter], loss: Callable[[Tensor], Tensor], rows: Tensor) -> float:
    for parameter in parameters:
        parameter.grad = None
    value = loss(rows)
    value.backward()
    return float(value.detach())


def _gradient(parameters: Sequence[nn.Parameter], loss: Callable[[Tensor], Tensor], rows: Tensor, whole: int) -> Tensor:
    """Part of a batch's gradient, flat, with the part of its loss behind it."""
    for parameter in parameters:
        parameter.grad = None
    value = torch.zeros((), device=parameters[0].device)
    if len(rows):
        value = loss(rows) * (len(rows) / whole)
        value.backward()
    flat = [
        torch.zeros_like(parameter).flatten() if parameter.grad is None else parameter.grad.flatten()
        for parameter in parameters
    ]
    return torch.cat([*flat, value.detach().reshape(1)])


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def _together() -> Iterator[None]:
    """A step that all workers take; torch says only in words that one of them is gone."""
    try:
        yield
    except RuntimeError as error:
        raise WorkerLost(
            "WorkerLost",
            "another worker of this training is gone or cannot be reached; all begin again, from the checkpoint where "
            "there is one",
        ) from error
