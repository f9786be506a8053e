"""The alerts that ship: metrics, labels, phases and reasons that exist, and a heading for whoever is paged."""

from __future__ import annotations

import inspect
import json
import re
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import promql_parser as promql
import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from fiduciary.api.crd import KINDS
from fiduciary.api.modeldecision import DecisionAction
from fiduciary.decide import reasons
from fiduciary.decide import report as model_report
from fiduciary.decide.drift.report import PHASES
from fiduciary.engine.metrics import Metrics
from fiduciary.engine.stores import Stores
from fiduciary_outcomes.memory import Memory
from fiduciary_outcomes.metrics import families
from fiduciary_outcomes.sql import Store
from fiduciary_outcomes.writer import Writer
from fiduciary_server.contract import parse
from fiduciary_server.metrics import Metrics as ServerMetrics

ROOT = Path(__file__).resolve().parents[3]
MONITORING = ROOT / "deploy" / "kustomize" / "monitoring"
PAGE = (ROOT / "docs" / "operations.md").read_text()
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["spec"]["groups"]
    for rule in group["rules"]
]
GOLDEN = [ROOT / "tests" / "golden" / path for path in ("serving/one-replica.out.yaml", "outcomes/sqlite.out.yaml")]
#: What Prometheus adds to every series of a target.
TARGET = {"namespace", "pod", "job", "instance"}


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Series that our processes show -> their labels."""
    operator = Metrics()
    operator.watch_stores(Stores().by_kind.values())
    operator.watch_queue(lambda: 0, lambda: 0, 1)
    version = {"namespace": "quant", "model": "spx", "version": "1", "digest": "sha256:" + "0" * 64}
    source = {"runId": "r", "uri": "mlflow-artifacts:/1/r/artifacts/version", "trackingUri": "http://mlflow:5000"}
    server = ServerMetrics(parse(json.dumps({"contractVersion": 1, **version, "source": source})))
    store = Store(tmp_path_factory.mktemp("scorer") / "outcomes.db")
    memory = Memory(store.writer(), "quant", {})
    scorer = families(memory, Writer(lambda: memory, lambda: 0.0, 1, 1.0), 0.0)
    found: dict[str, set[str]] = {}
    for metric in (value for value in vars(operator).values() if isinstance(value, MetricWrapperBase)):
        described = next(iter(metric.describe()))
        for name in named(described.name, described.type):
            found[name] = set(vars(metric)["_labelnames"])
    for family in chain(operator.registry.collect(), server.collect(), scorer):
        if "_labelnames" in vars(family):  # of a collector that makes its families itself
            for name in named(family.name, family.type):
                found[name] = set(vars(family)["_labelnames"])
    return found


def named(name: str, kind: str) -> list[str]:
    """Names of the series of a metric."""
    ends = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(kind, [""])
    return [name + end for end in ends]


def nodes(tree: Any) -> list[Any]:
    """The syntax tree of a query, flat."""
    found: list[Any] = []

    def keep(node: Any) -> Any:
        found.append(node)
        return node

    promql.transform(tree, post_visit=keep)
    return found


def parsed(rule: dict[str, Any]) -> list[Any]:
    return nodes(promql.parse(rule["expr"]))


def selectors(rule: dict[str, Any]) -> list[Any]:
    return [node for node in parsed(rule) if isinstance(node, promql.VectorSelector)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_reads_series_and_labels_that_exist(rule: dict[str, Any], metrics: dict[str, set[str]]) -> None:
    read = selectors(rule)
    assert read
    for selector in read:
        labels = metrics[selector.name] | TARGET | ({"le"} if selector.name.endswith("_bucket") else set())
        assert {matcher.name for matcher in selector.matchers.matchers} <= labels, selector.name
        for node in parsed(rule):
            if isinstance(node, promql.AggregateExpr) and node.modifier is not None:
                assert set(node.modifier.labels) <= labels, f"{selector.name} has no such label"
    shown = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
    by = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", rule["expr"]))))
    assert shown <= by


def test_words_of_the_alerts_are_words_of_the_operator() -> None:
    """An alert on a phase or reason that nothing has is one that never comes."""
    said = {value for name, value in vars(reasons).items() if name.isupper()}
    phases = {*PHASES, *re.findall(r'"([A-Z][a-z]+)"', inspect.getsource(model_report))}
    for rule in RULES:
        for selector in selectors(rule):
            for matcher in selector.matchers.matchers:
                words = set(str(matcher.value).split("|"))
                match matcher.name:
                    case "reason":
                        assert words <= said, rule["alert"]
                    case "phase":
                        assert words <= phases, rule["alert"]
                    case "action":
                        assert words <= set(get_args(DecisionAction)), rule["alert"]
                    case "kind" | "controller":
                        assert words <= {kind.__name__ for kind in KINDS}, rule["alert"]
                    case _:
                        pass


def test_whoever_is_paged_finds_a_heading() -> None:
    headings = re.findall(r"^### (Fiduciary\w+)$", PAGE, re.MULTILINE)
    assert headings == [rule["alert"] for rule in RULES]
    for rule in RULES:
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"].keys() == {"summary", "description"}


def test_every_series_of_the_operator_is_explained(metrics: dict[str, set[str]]) -> None:
    own = {name for name in vars_of_operator() if name in metrics}
    assert own
    assert [name for name in sorted(own) if f"`{name}`" not in PAGE] == []


def vars_of_operator() -> set[str]:
    """Names of counters and gauges, and of histograms without their ends."""
    text = Metrics().render().decode()
    return set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))


def test_what_is_scraped_are_ports_of_our_pods() -> None:
    texts = (ROOT / "deploy/kustomize/operator/deployment.yaml", *GOLDEN)
    deployments = [
        body for path in texts for body in yaml.safe_load_all(path.read_text()) if body and body["kind"] == "Deployment"
    ]
    assert len(deployments) > 1
    monitors = [item["spec"] for item in yaml.safe_load_all((MONITORING / "podmonitors.yaml").read_text())]
    for deployment in deployments:
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        (monitor,) = (spec for spec in monitors if selected(spec["selector"], labels))
        (endpoint,) = monitor["podMetricsEndpoints"]
        ports = [port for found in deployment["spec"]["template"]["spec"]["containers"] for port in found["ports"]]
        assert endpoint["port"] in {port["name"] for port in ports}
        assert endpoint["honorLabels"] is False, "a pod must not say which namespace and pod it is"


def selected(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    return wanted and all(labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", []))
