"""Both procedures over the same days: as they were measured where that is the same thing, else refitted side by side.

Two trainings rarely test the same stretches: features that look back further leave fewer days, so that each fold is
refitted on another one. What is compared then would be dates of refits as much as models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fiduciary_trainer.comparison import pairing
from fiduciary_trainer.outcome import BadContract, DataRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fiduciary_trainer import data
    from fiduciary_trainer.comparison.pairing import Ledger
    from fiduciary_trainer.comparison.versions import Frozen
    from fiduciary_trainer.data import Locations
    from fiduciary_trainer.job import Contract


@dataclass(frozen=True)
class Replayed:
    """The ledgers of (champion, challenger) over the same stretches.

    Attributes:
        ledgers: see :mod:`pairing`.
        refitted: False where both are what the trainings measured.
        as_of: last date whose rows were read.
        data_digests: over the rows that each read.
        stretches: first and last decision time between two refits.
    """

    ledgers: tuple[Ledger, Ledger]
    refitted: bool
    as_of: str
    data_digests: tuple[str, str]
    stretches: Sequence[tuple[str, str]]


def check(champion: Frozen, challenger: Frozen) -> None:
    """Raises :class:`BadContract` where the two do not predict the same thing."""
    for what in ("label", "entity"):
        one, two = (frozen.procedure["data"].get(what) for frozen in (champion, challenger))
        if one != two:
            raise BadContract(
                "DifferentLabels",
                f"data.{what} of the champion is {one}, of the challenger {two}; expected the same: losses on "
                "different labels cannot be compared. Compare the challenger with a champion of its own label",
            )


def replay(champion: Frozen, challenger: Frozen, locations: Locations) -> Replayed:
    """Both ledgers over the same stretches; the trainings' own ones where data and stretches are the same.

    Raises:
        DataRefused: the data are not those that were measured, are refused, or too few.
        BadContract: a procedure is not this trainer's.
        Retryable: the data source does not answer.
    """
    both = (champion, challenger)
    measured = [pairing.stretches(frozen.ledger) for frozen in both]
    digests = champion.version.data_digest, challenger.version.data_digest
    if digests[0] == digests[1] and measured[0] == measured[1]:
        return Replayed((champion.ledger, challenger.ledger), False, challenger.text("asOf"), digests, measured[0])
    return _refitted(champion, challenger, locations)


def _refitted(champion: Frozen, challenger: Frozen, locations: Locations) -> Replayed:
    import torch  # with pandas what ledgers as they are do not need

    from fiduciary_trainer import data, limits

    limits.keep_within(limits.of_pod(), accelerated=torch.cuda.is_available())
    as_of = max(champion.text("asOf"), challenger.text("asOf"))  # more days, and none that somebody chose by
    contracts: list[Contract] = []
    loaded: list[data.Loaded] = []
    for frozen in (champion, challenger):
        contract = _contract(frozen, as_of)
        found = data.load(contract, locations)
        if frozen.text("asOf") == as_of and found.digest != frozen.version.data_digest:
            raise DataRefused(
                "DataChanged",
                f"the data up to {as_of} now have the digest {found.digest}; version {frozen.version.number} was "
                f"measured on {frozen.version.data_digest}: rows were revised or removed since. Train it again",
            )
        contracts.append(contract)
        loaded.append(found)
    bounds = common_bounds(contracts, loaded)
    ledgers = [walked(contract, found, bounds) for contract, found in zip(contracts, loaded, strict=True)]
    return Replayed(
        (ledgers[0], ledgers[1]),
        True,
        as_of,
        (loaded[0].digest, loaded[1].digest),
        pairing.stretches(ledgers[1]),
    )


def common_bounds(contracts: Sequence[Contract], loaded: Sequence[data.Loaded]) -> np.ndarray:
    """Where refits are and testing ends: the stretches of the sessions that both procedures can use, as many as the
    finer of the two has folds."""
    from fiduciary_trainer.prepared import prepare
    from fiduciary_trainer.splits import stretch_bounds

    first, second = (
        np.unique(prepare(found.bars, contract).dates) for contract, found in zip(contracts, loaded, strict=True)
    )
    common = np.intersect1d(first, second)
    if not len(common):
        raise DataRefused(
            "NoCommonDays",
            f"the champion's procedure can use {len(first)} sessions, the challenger's {len(second)}, and none is "
            "common to both; expected data of the same days",
        )
    return stretch_bounds(common, max(contract.training.validation.folds for contract in contracts))


def walked(contract: Contract, loaded: data.Loaded, bounds: np.ndarray) -> Ledger:
    """The ledger of a procedure that is refitted at the bounds; written and read again, so that what counts is what a
    ``ledger.csv`` would hold."""
    from fiduciary_trainer.ledger import ledger
    from fiduciary_trainer.measuring import out_of_sample
    from fiduciary_trainer.walkforward import run_walk_forward

    rows = out_of_sample(run_walk_forward(loaded.bars, contract, _silent, bounds=bounds))
    return pairing.read(ledger(rows, str(contract.document["configKey"])), contract.training.architecture)


def _contract(frozen: Frozen, as_of: str) -> Contract:
    from fiduciary_trainer.contract import parse

    return parse({**frozen.procedure, "asOf": as_of}).without_quantiles()  # point forecasts alone are compared


def _silent(**_: object) -> None:
    """Nobody watches the progress of a replay."""
