"""Comparison Jobs as YAML: what is asked of the builders, and what they make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from fiduciary.api.versions import VersionRef
from fiduciary.decide.experiment.ledgers import prequential_name
from fiduciary.manifests.comparison import Replay, Scorer, comparison_job, network_policy
from tests.golden.worlds import dump, readable
from tests.unit.decide.worlds import PLATFORM, model

FOLDER = Path(__file__).parent / "comparison"
SCORER = Scorer(
    url="http://fiduciary-outcomes.quant.svc:8080",
    audience="fiduciary-outcomes.quant",
    egress=(
        {
            "to": [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "fiduciary-outcomes"}}}],
            "ports": [{"protocol": "TCP", "port": 8080}],
        },
    ),
)


def replay(spec: dict[str, Any] | None = None, **changes: Any) -> Replay:
    """Version 7 against version 8 of the model with ``spec`` laid over its own."""
    given = model(spec)
    versions = [
        VersionRef(
            version=number,
            digest="sha256:" + number * 64,
            run_id=number * 32,
            data_digest="sha256:" + "d" * 64,
            training_key="sha256:" + number * 64,
        )
        for number in ("7", "8")
    ]
    made: dict[str, Any] = {
        "model": given,
        "experiment": "spx-volatility-8",
        "experiment_uid": "99999999-2222-3333-4444-555555555555",
        "ledger": prequential_name(given.metadata.name, versions[0].digest or "", versions[1].digest or ""),
        "champion": versions[0],
        "challenger": versions[1],
        "attempt": 1,
        "scorer": SCORER,
        "cluster": PLATFORM.cluster,
        "image": PLATFORM.trainer_image,
        "tracking_uri": "http://mlflow.mlflow.svc:5000",
        "operator_version": PLATFORM.operator_version,
        "mlflow_egress": PLATFORM.mlflow_egress,
        **changes,
    }
    return Replay(**made)


def build(path: Path) -> str:
    """What confines the Job, and the Job."""
    asked: dict[str, Any] = yaml.safe_load(path.read_text()) or {}
    wanted = replay(asked.get("spec"), attempt=asked.get("attempt", 1))
    return dump(readable(network_policy(wanted)), readable(comparison_job(wanted)))
