"""What goes wrong around the operator: watches, API server, replicas, CRDs, objects that vanish."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

from tests.controlplane.engine import models
from tests.controlplane.engine.node import Node
from tests.controlplane.server import GROUP, path_of, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.controlplane.engine.process import OperatorProcess
    from tests.controlplane.server import Body, Server

ROOT = Path(__file__).resolve().parents[3]


def test_the_api_server_restarts_and_nothing_is_lost(
    server: Server, namespace: str, operator: Callable[..., OperatorProcess]
) -> None:
    # A Lease that outlives the restart also on a busy machine: who loses it ends, which another test is about.
    process = operator(lease={"duration": 90, "renewDeadline": 60, "retry": 0.5}).start().ready()
    server.admin.create(models.suspended(namespace, "before"))
    until("settled", lambda: models.settled(server.admin, namespace, "before"))
    server.plane.restart_api_server()
    server.admin.create(models.suspended(namespace, "after"))
    until("the new one is seen", lambda: models.settled(server.admin, namespace, "after"), 60)
    server.admin.merge(path_of("FinancialModel", namespace, "before"), {"spec": {"training": {"seed": 8}}})
    until("the old one is still watched", lambda: models.settled(server.admin, namespace, "before"), 60)
    assert process.alive


def test_what_was_deleted_while_nobody_looked_is_forgotten_and_not_brought_back(
    server: Server, namespace: str, operator: Callable[..., OperatorProcess]
) -> None:
    process = operator(sweepSeconds=2).start().ready()
    for name in ("kept", "lost"):
        server.admin.create(models.suspended(namespace, name))
        until("settled", lambda name=name: models.settled(server.admin, namespace, name))
    assert process.process is not None
    process.process.send_signal(signal.SIGSTOP)  # it sleeps through the deletion
    server.admin.delete(path_of("FinancialModel", namespace, "lost"))
    process.process.send_signal(signal.SIGCONT)
    server.admin.merge(path_of("FinancialModel", namespace, "kept"), {"spec": {"training": {"seed": 9}}})
    until("it goes on", lambda: models.settled(server.admin, namespace, "kept") or not process.alive, 60)
    if not process.alive:  # it slept longer than its Lease lasts: then it must end, and the next one goes on
        process.start().ready()
        until("the next one goes on", lambda: models.settled(server.admin, namespace, "kept"))
    count = f'fiduciary_mirror_objects{{kind="FinancialModel"}} {len(_models(server))}.0'
    until("the mirror agrees", lambda: count in process.get("/metrics")[1])
    assert not server.admin.exists(path_of("FinancialModel", namespace, "lost"))


def test_a_standby_takes_over_when_the_leader_is_killed(
    server: Server, namespace: str, operator: Callable[..., OperatorProcess]
) -> None:
    leader = operator("operator-a").start().ready()
    until("it leads", leader.leading)
    standby = operator("operator-b").start().ready()
    assert not standby.leading()
    server.admin.create(models.suspended(namespace, "first"))
    until("settled", lambda: models.settled(server.admin, namespace, "first"))
    leader.kill()
    server.admin.create(models.suspended(namespace, "second"))
    until("the standby works", lambda: models.settled(server.admin, namespace, "second"), 60)
    assert standby.leading()


def test_who_loses_the_lease_ends_at_once(
    server: Server, namespace: str, operator: Callable[..., OperatorProcess]
) -> None:
    process = operator().start().ready()
    until("it leads", process.leading)
    path = "/apis/coordination.k8s.io/v1/namespaces/fiduciary-system/leases/fiduciary-operator"
    stolen = {"spec": {"holderIdentity": "somebody-else", "leaseDurationSeconds": 1}}
    server.admin.merge(path, stolen)
    assert process.ended() == 3
    assert "lease.lost" in process.log.read_text()


def test_crds_may_arrive_after_the_operator(
    server: Server, namespace: str, operator: Callable[..., OperatorProcess]
) -> None:
    kubectl = server.kubectl()
    kubectl("delete", "crd", "driftpolicies.fiduciary.dev", "--wait=true")
    process = operator().start()
    until("it says what it misses", lambda: "DriftPolicy" in process.get("/readyz")[1], 60)
    server.admin.create(models.suspended(namespace))
    assert not models.settled(server.admin, namespace), "judged before every kind was listed"
    crd = ROOT / "crds" / "fiduciary.dev_driftpolicies.yaml"
    kubectl("apply", "--server-side", "-f", str(crd))
    kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "driftpolicies.fiduciary.dev")
    process.ready()
    until("it works now", lambda: models.settled(server.admin, namespace))


def test_a_deleted_model_is_not_resurrected_by_a_late_write(
    server: Server, namespace: str, operator: Callable[..., OperatorProcess]
) -> None:
    process = operator().start().ready()
    assert process.process is not None
    for number in range(8):
        name = f"gone-{number}"
        server.admin.create(models.suspended(namespace, name))
        server.admin.delete(path_of("FinancialModel", namespace, name))  # often before its first status
    server.admin.create(models.suspended(namespace, "last"))
    until("all others were worked on", lambda: models.settled(server.admin, namespace, "last"))
    names = [item["metadata"]["name"] for item in _models(server, namespace)]
    assert names == ["last"]


def test_somebody_elses_change_in_between_is_a_conflict_and_then_done(
    server: Server, namespace: str, operator: Callable[..., OperatorProcess]
) -> None:
    operator().start().ready()
    path = path_of("FinancialModel", namespace, "spx")
    server.admin.create(models.suspended(namespace))
    for seed in range(20):
        server.admin.merge(path, {"spec": {"training": {"seed": seed}}})
    until("the last generation is reported", lambda: models.settled(server.admin, namespace))


def test_a_namespace_with_a_running_training_goes(
    server: Server, namespace: str, mlflow: str, operator: Callable[..., OperatorProcess]
) -> None:
    operator().start().ready()
    node = Node(server.admin, namespace, mlflow)
    server.admin.create(models.model(namespace))
    until("a Job", lambda: node.unfinished())
    server.admin.delete(f"/api/v1/namespaces/{namespace}")
    until("the namespace is gone", lambda: not server.admin.exists(f"/api/v1/namespaces/{namespace}"), 90)


def test_an_idle_operator_writes_nothing_and_a_restart_neither(
    server: Server, namespace: str, operator: Callable[..., OperatorProcess]
) -> None:
    process = operator(resyncSeconds=10).start().ready()
    for number in range(5):
        server.admin.create(models.suspended(namespace, f"m-{number}"))
    names = [f"m-{number}" for number in range(5)]
    until("settled", lambda: all(models.settled(server.admin, namespace, name) for name in names))
    process.stop()
    before = {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in _models(server, namespace)}
    process.start().ready()
    done = 'controller_runtime_reconcile_total{controller="FinancialModel",result="requeue_after"}'
    until("every model was looked at", lambda: _value(process, done) >= len(_models(server)))
    assert 'fiduciary_writes_total{kind="FinancialModel"' not in process.get("/metrics")[1]
    after = {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in _models(server, namespace)}
    assert after == before


def _models(server: Server, namespace: str | None = None) -> list[Body]:
    place = f"/namespaces/{namespace}" if namespace else ""
    return server.admin.get(f"/apis/{GROUP}{place}/financialmodels")["items"]


def _value(process: OperatorProcess, series: str) -> float:
    lines = [line for line in process.get("/metrics")[1].splitlines() if line.startswith(series)]
    return float(lines[0].rsplit(" ", 1)[1]) if lines else 0.0
