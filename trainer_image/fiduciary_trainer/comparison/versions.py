"""The artifacts of both versions, out of MLflow, believed only where every digest fits."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fiduciary_features.artifact import MANIFEST, digest_of, listed_files
from fiduciary_trainer import contract as contracts
from fiduciary_trainer.comparison import pairing
from fiduciary_trainer.outcome import BadContract, DataRefused, Retryable
from fiduciary_trainer.patience import Unreachable, patiently
from fiduciary_trainer.tracking import asked

if TYPE_CHECKING:
    import threading

    from mlflow.tracking import MlflowClient

    from fiduciary_trainer.comparison.document import Version
    from fiduciary_trainer.comparison.pairing import Arm, Ledger
    from fiduciary_trainer.job import Contract

PATIENCE = 900.0
"""Seconds that are waited for MLflow; then the pod ends as Retryable."""
NEEDED = ("procedure.json", "ledger.csv")


@dataclass(frozen=True)
class Frozen:
    """One version: its procedure, and the out-of-sample rows that its training measured."""

    version: Version
    procedure: dict[str, Any]
    ledger: Ledger

    @property
    def contract(self) -> Contract:
        """The procedure as a job of its own."""
        return contracts.parse(self.procedure)

    def text(self, name: str) -> str:
        return str(self.procedure.get(name, ""))


def fetch(uri: str, arm: Arm, version: Version, stop: threading.Event, patience: float = PATIENCE) -> Frozen:
    """Download what is needed of a version.

    Raises:
        DataRefused: the run or a file is not there, or is not what the version's digest says.
        BadContract: its content cannot be read.
        Retryable: MLflow stayed away, or refuses us.
    """
    whom = f"MLflow at {uri}"
    try:
        files = patiently(lambda: asked(uri, lambda: _download(uri, arm, version)), patience, stop, whom)
    except Unreachable as away:
        raise Retryable(
            "RegistryUnreachable",
            f"{whom} did not hand out version {version.number} of the {arm} within {patience:.0f} s: {away}",
        ) from away
    manifest = files.pop(MANIFEST)
    if digest_of(manifest) != version.digest:
        raise DataRefused(
            "ArtifactMismatch",
            f"MLflow holds {digest_of(manifest)} as version/{MANIFEST} of run {version.run_id}; version "
            f"{version.number} of the {arm} was accepted as {version.digest}: somebody changed the artifact. Restore "
            "it, or train again, and find out who writes to MLflow",
        )
    listed = listed_files(manifest)
    for name, content in files.items():
        actual = hashlib.sha256(content).hexdigest()
        if actual != listed[name]:
            raise DataRefused(
                "ArtifactMismatch",
                f"version/{name} of run {version.run_id} hashes to {actual}; the manifest of version {version.number} "
                f"of the {arm} says {listed[name]}: somebody changed it. Restore it, or train again",
            )
    try:
        procedure = json.loads(files["procedure.json"])
    except ValueError as error:
        raise BadContract("InvalidJson", f"procedure.json of the {arm} is not JSON: {error}") from None
    return Frozen(version, procedure, pairing.read(files["ledger.csv"], arm))


def _download(uri: str, arm: Arm, version: Version) -> dict[str, bytes]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    _demand(client, arm, version)
    with tempfile.TemporaryDirectory() as scratch:
        return {
            name: Path(client.download_artifacts(version.run_id, f"version/{name}", scratch)).read_bytes()
            for name in (MANIFEST, *NEEDED)
        }


def _demand(client: MlflowClient, arm: Arm, version: Version) -> None:
    """A file that is not there looks like a server that does not answer, so that the list is asked for first."""
    present = {Path(item.path).name for item in client.list_artifacts(version.run_id, "version")}
    missing = sorted({MANIFEST, *NEEDED} - present)
    if missing:
        raise DataRefused(
            "ArtifactMissing",
            f"run {version.run_id} in MLflow lacks version/{', version/'.join(missing)}; expected the artifact of "
            f"version {version.number} of the {arm} ({version.digest}). Restore it, or train again",
        )
