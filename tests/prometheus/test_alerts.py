"""promtool raises every alert that ships by the series of its cause, with the words that people read; none without."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from tests.prometheus.server import program as prometheus

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[2]
SPEC = yaml.safe_load((ROOT / "deploy" / "kustomize" / "monitoring" / "alerts.yaml").read_text())["spec"]
RULES: dict[str, dict[str, Any]] = {rule["alert"]: rule for group in SPEC["groups"] for rule in group["rules"]}
SERVES = '{kind="FinancialModel",namespace="quant",phase="Serving",stalled="False",reason="Serving"}'
VERSION = 'namespace="quant",pod="spx-1",model="quant.spx",version="2",digest="8ab8c9b5"'


class Raised(NamedTuple):
    """``series`` raise the alert at ``minute`` with these labels, and so does nothing of ``quiet``."""

    series: Mapping[str, str]
    quiet: Mapping[str, str]
    labels: Mapping[str, str]
    summary: str
    minute: int = 60


def objects(kind: str, phase: str, stalled: str, reason: str) -> str:
    labels = f'kind="{kind}",namespace="quant",phase="{phase}",stalled="{stalled}",reason="{reason}"'
    return f"fiduciary_objects{{{labels}}}"


def counted(name: str, labels: str, a_minute: int) -> dict[str, str]:
    return {f"{name}{{{labels}}}": f"0+{a_minute}x2000"}


def waited(seconds: int | str, a_minute: int) -> dict[str, str]:
    """Keys that waited at most so long in the queue."""
    labels = f'name="fiduciary",controller="fiduciary",pod="a",le="{seconds}"'
    return counted("workqueue_queue_duration_seconds_bucket", labels, a_minute)


LEADS = 'leader_election_master_status{name="fiduciary-operator",pod="a"}'
STALLED = objects("DriftPolicy", "Unknown", "True", "SpecRefused")
UNKNOWN = objects("DriftPolicy", "Unknown", "False", "NothingServes")
DEGRADED = objects("FinancialModel", "Degraded", "False", "ProbeFailed")
KILLED = objects("FinancialModel", "Killed", "False", "KillEngaged")
BLIND = objects("ModelExperiment", "Running", "False", "ChampionDark")
GATHERS = objects("ModelExperiment", "Running", "False", "GatheringEvidence")
DRIFTED = objects("DriftPolicy", "Drifted", "False", "Watching")
STABLE = objects("DriftPolicy", "Stable", "False", "Watching")

ALERTS: dict[str, Raised] = {
    "FiduciaryNobodyLeads": Raised(
        {LEADS: "1x30 _x60"}, {LEADS: "1x120"}, {},
        "No operator holds the Lease fiduciary-operator, so nothing is decided.",
    ),
    "FiduciaryReconcileFails": Raised(
        counted("controller_runtime_reconcile_errors_total", 'controller="DriftPolicy",pod="a"', 1),
        counted("controller_runtime_reconcile_errors_total", 'controller="DriftPolicy",pod="a"', 0),
        {"controller": "DriftPolicy"}, "The operator fails on a DriftPolicy, which is a bug of the operator.",
    ),
    "FiduciaryWriteRefused": Raised(
        counted("controller_runtime_terminal_reconcile_errors_total", 'controller="FinancialModel",pod="a"', 2),
        # Another controller of the cluster, with the same names of series.
        counted("controller_runtime_terminal_reconcile_errors_total", 'controller="certificate",pod="b"', 2),
        {"controller": "FinancialModel"}, "The cluster refuses what the operator writes for a FinancialModel.",
    ),
    "FiduciaryQueueSlow": Raised(
        waited(10, 0) | waited(30, 60) | waited("+Inf", 60),
        waited(10, 60) | waited(30, 60) | waited("+Inf", 60),
        {}, "Objects wait 29.8s before the operator looks at them (99th percentile).",
    ),
    "FiduciaryRegistryAway": Raised(
        counted("fiduciary_registry_requests_total", 'endpoint="runs/get",code="<error>"', 6),
        # A run that is not there yet is an answer.
        counted("fiduciary_registry_requests_total", 'endpoint="runs/get",code="404"', 6)
        | counted("fiduciary_registry_requests_total", 'endpoint="runs/get",code="500"', 5),
        {}, "MLflow answers fewer than half of the operator's requests.",
    ),
    "FiduciaryPrometheusUnread": Raised(
        counted("fiduciary_prometheus_queries_total", 'template="Runtime"', 4)
        | counted("fiduciary_prometheus_errors_total", 'template="Runtime",reason="PrometheusTimeout"', 3),
        counted("fiduciary_prometheus_queries_total", 'template="Runtime"', 4)
        | counted("fiduciary_prometheus_errors_total", 'template="Runtime",reason="PrometheusTimeout"', 2),
        {}, "The operator gets no answer to more than half of its questions to Prometheus.",
    ),
    "FiduciaryScorerUnread": Raised(
        counted("fiduciary_operator_ledger_requests_total", 'what="heads",code="503"', 6),
        counted("fiduciary_operator_ledger_requests_total", 'what="heads",code="304"', 6),
        {}, "Outcome scorers do not answer the operator.",
    ),
    "FiduciaryAlertsUndelivered": Raised(
        counted("fiduciary_alert_posts_total", 'receiver="broker",code="503"', 1),
        counted("fiduciary_alert_posts_total", 'receiver="broker",code="200"', 1),
        {"receiver": "broker"}, "Drift alerts do not reach broker.",
    ),
    "FiduciaryNotServing": Raised(
        {DEGRADED: "2x120"}, {"fiduciary_objects" + SERVES: "2x120"}, {"namespace": "quant", "reason": "ProbeFailed"},
        "2 model(s) in quant stopped answering as they should: ProbeFailed.",
    ),
    "FiduciaryClientErrors": Raised(
        counted("fiduciary_requests_started_total", f'{VERSION},protocol="rest"', 100)
        | counted("fiduciary_requests_total", f'{VERSION},protocol="rest",outcome="server_error"', 10),
        counted("fiduciary_requests_started_total", f'{VERSION},protocol="rest"', 100)
        | counted("fiduciary_requests_total", f'{VERSION},protocol="rest",outcome="client_error"', 90)
        | counted("fiduciary_requests_total", f'{VERSION},protocol="rest",outcome="server_error"', 4),
        {"namespace": "quant", "model": "quant.spx", "version": "2"},
        "Version 2 of quant.spx answers 10% of its requests with an error of its own.",
    ),
    "FiduciaryStalled": Raised(
        {STALLED: "1x120"}, {UNKNOWN: "1x120"}, {"kind": "DriftPolicy", "namespace": "quant", "reason": "SpecRefused"},
        "1 DriftPolicy(s) in quant cannot go on without a person: SpecRefused.",
    ),
    "FiduciaryKilled": Raised(
        {KILLED: "1x120"}, {"fiduciary_objects" + SERVES: "1x120"}, {"namespace": "quant"},
        "The kill switch of 1 model(s) in quant is latched.",
    ),
    "FiduciaryRolledBack": Raised(
        {'fiduciary_decisions_total{action="RollBack",pod="a"}': "0x55 1x65"},
        {'fiduciary_decisions_total{action="RollBack",pod="a"}': "1x120"}
        | counted("fiduciary_decisions_total", 'action="Shift",pod="a"', 1),
        {}, "A model went back to an earlier version.",
    ),
    "FiduciaryExperimentBlind": Raised(
        {BLIND: "1x120"}, {GATHERS: "1x120"}, {"namespace": "quant", "reason": "ChampionDark"},
        "1 experiment(s) in quant cannot trust what they see: ChampionDark.",
    ),
    "FiduciaryDrifted": Raised(
        {DRIFTED: "1x120"}, {STABLE: "1x120"}, {"namespace": "quant"}, "1 DriftPolicy(s) in quant have an alarm.",
    ),
    "FiduciaryDriftUnknown": Raised(
        {UNKNOWN: "1x2000"}, {UNKNOWN: "1x600 _x1400", STABLE: "_x600 1x1400"},
        {"namespace": "quant", "reason": "NothingServes"},
        "1 DriftPolicy(s) in quant judge nothing: NothingServes.", 1500,
    ),
    "FiduciaryLedgerBroken": Raised(
        {'fiduciary_ledger_unhealthy{namespace="quant",ledger="live-a",model="quant.spx",why="chain"}': "1x120"},
        {'fiduciary_ledger_unhealthy{namespace="quant",ledger="live-a",model="quant.spx",why="chain"}': "0x120"},
        {"namespace": "quant", "ledger": "live-a", "why": "chain"}, "Ledger live-a in quant is not trusted: chain.",
    ),
    "FiduciaryRecordsLost": Raised(
        counted("fiduciary_records_dropped_total", f'{VERSION},reason="buffer_full"', 1),
        counted("fiduciary_records_dropped_total", f'{VERSION},reason="buffer_full"', 0),
        {"namespace": "quant", "model": "quant.spx", "reason": "buffer_full"},
        "Prediction records of quant.spx are lost on their way to the scorer (buffer_full).",
    ),
    "FiduciaryOutcomesRefused": Raised(
        counted("fiduciary_outcomes_received_total", 'namespace="quant",model="quant.spx",result="conflicting"', 1),
        counted("fiduciary_outcomes_received_total", 'namespace="quant",model="quant.spx",result="accepted"', 1),
        {"namespace": "quant", "model": "quant.spx", "result": "conflicting"}, "Outcomes of quant.spx are conflicting.",
    ),
}  # fmt: skip


def case(alert: str, series: Mapping[str, str], raised: Raised | None, minute: int) -> dict[str, Any]:
    """One test of promtool; ``raised`` None: the alert is expected not to come."""
    expected: list[dict[str, Any]] = []
    if raised is not None:
        annotations = {"summary": raised.summary, "description": RULES[alert]["annotations"]["description"]}
        labels = {**raised.labels, **RULES[alert]["labels"]}
        expected.append({"exp_labels": labels, "exp_annotations": annotations})
    # Another series keeps the leader there, where an alert is not about it.
    given = {**({} if alert == "FiduciaryNobodyLeads" else {LEADS: "1x2000"}), **series}
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in given.items()],
        "alert_rule_test": [{"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": expected}],
    }


def test_every_alert_is_tested() -> None:
    assert ALERTS.keys() == RULES.keys()


def test_alerts_come_by_their_cause_and_not_without(tmp_path: Path) -> None:
    tests = [
        case(alert, series, expected, raised.minute)
        for alert, raised in ALERTS.items()
        for series, expected in ((raised.series, raised), (raised.quiet, None))
    ]
    document = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": SPEC["groups"]}))
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(document))
    promtool = Path(prometheus()).with_name("promtool")  # they come together
    told = subprocess.run([promtool, "test", "rules", tmp_path / "tests.yaml"], capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr
