"""``python -m fiduciary_broken``: the trainer's command, with versions that break on what they have not seen."""

from __future__ import annotations

import functools
import os
import signal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(75))  # as the trainer's own entry does

import numpy as np

from fiduciary_broken import faults
from fiduciary_features import Bars
from fiduciary_trainer import __main__ as trainer
from fiduciary_trainer import artifacts, export, version
from fiduciary_trainer import contract as contracts
from fiduciary_trainer.contract import Dataset
from fiduciary_trainer.data import library
from fiduciary_trainer.outcome import BadContract

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary_trainer.contract import Contract
    from fiduciary_trainer.walkforward import FinalModel

FAULT = "fault"
END = np.datetime64("2200-01-01", "ns")


def fault_of(contract: Contract) -> str:
    """Raises BadContract where none is named, or one that is not known."""
    named = contract.document["training"].get("hyperparameters", {}).get(FAULT)
    if named not in faults.FAULTS:
        raise BadContract(
            "InvalidValue", f"training.hyperparameters.{FAULT} is {named!r}; expected one of {', '.join(faults.FAULTS)}"
        )
    return str(named)


def replayed(contract: Contract, model: FinalModel) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Inputs of the days after asOf, float32 ``(days, F)``: what `sandbox replay` will send."""
    source = contract.data.source
    if not isinstance(source, Dataset) or model.input_kind != "row":
        raise BadContract("NotAvailable", "this trainer breaks models that read one row of a dataset that it ships")
    table = library.read(source.name, replace(contract, cutoff=END))
    time = table[contract.data.time].to_numpy("datetime64[ns]")
    columns = {name: table[name].to_numpy("float64") for name in model.features.columns}
    inputs = model.transform.apply(model.features.compute(Bars(time, np.full(len(table), ""), columns)))
    later = inputs[time >= contract.cutoff]
    return later[np.isfinite(later).all(axis=1)].astype(np.float32)


def break_versions() -> None:
    """From here on this process's trainer writes versions with the fault that the job names."""
    settings, build = contracts.settings, artifacts.build
    sound_onnx, files_of_version = export.to_onnx, version.build

    def without_fault(architecture: str, given: Mapping[str, Any]) -> Any:
        return settings(architecture, {name: value for name, value in given.items() if name != FAULT})

    @functools.wraps(build)
    def broken(folder: Any, contract: Contract, bars: Any, rows: Any, model: FinalModel) -> Any:
        fault = fault_of(contract)
        days = replayed(contract, model)

        def to_onnx(*what: Any) -> bytes:
            return faults.broken(sound_onnx(*what), days, fault)

        def files(folder: Any, content: Mapping[str, bytes]) -> str:
            return files_of_version(folder, faults.broken_files(content, fault))

        export.to_onnx, version.build = to_onnx, files
        if fault == "shape":  # the real trainer asks what it has written, and would find that it cannot be loaded
            artifacts.replay = lambda *_: 0.0
        return build(folder, contract, bars, rows, model)

    contracts.settings, artifacts.build = without_fault, broken


if __name__ == "__main__":
    break_versions()
    sys.exit(trainer.main())
