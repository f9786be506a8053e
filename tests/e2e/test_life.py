"""What a person does to a model in the course of its life: suspend, edit, abort, kill, retrain, schedule, delete."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import pytest

from tests.e2e.cluster import Cluster, Object, condition, has, names
from tests.e2e.conftest import ANA, nudge
from tests.e2e.models import CLAIM, approval, long_running, model, on_claim
from tests.e2e.place import allow_approvals

if TYPE_CHECKING:
    from tests.e2e.conftest import MakeNamespace
    from tests.e2e.node import Node
    from tests.e2e.registry import Registry

TRAINED = 180  # seconds for a HAR training while another one shares the machine


@pytest.fixture(scope="module")
def namespace(cluster: Cluster, node: Node, make_namespace: MakeNamespace) -> str:
    """A namespace in which ana may approve, with a scheduled model that waits for its minute meanwhile."""
    made = make_namespace("life")
    allow_approvals(cluster, made, ANA)
    node.claim(made, CLAIM, through=datetime.now(UTC).date())
    scheduled: Object = {
        "data": {"asOf": "Rolling"},
        "training": {"schedule": {"cron": "* * * * *", "timeZone": "UTC"}, "architecture": "EWMA"},
    }
    cluster.apply(on_claim("scheduled", "good.csv", scheduled), namespace=made)
    return made


def _jobs(cluster: Cluster, namespace: str, of: str) -> list[str]:
    return [name for name in names(cluster.list("job", namespace)) if name.startswith(f"{of}-")]


def _actions(cluster: Cluster, namespace: str, of: str) -> list[str]:
    found = [md["spec"] for md in cluster.list("md", namespace) if md["spec"]["modelRef"]["name"] == of]
    return [record["action"] for record in sorted(found, key=lambda record: record["sequence"])]


def _champion(cluster: Cluster, namespace: str, name: str, within: float = TRAINED) -> Object:
    return cluster.until(
        "fm", name, namespace, lambda fm: "champion" in fm.get("status", {}), within, "there is a champion"
    )


def _pod_runs(cluster: Cluster, namespace: str, of: str, within: float = 90) -> Object:
    """Wait until a training pod of the model runs."""

    def running(pods: list[Object]) -> bool:
        return any(
            pod["metadata"]["name"].startswith(f"{of}-") and pod["status"].get("phase") == "Running" for pod in pods
        )

    pods = cluster.until_all("pod", namespace, running, within, f"a pod of {of} runs")
    return next(pod for pod in pods if pod["metadata"]["name"].startswith(f"{of}-"))


def test_suspended_model_starts_nothing_and_a_running_job_ends(cluster: Cluster, namespace: str) -> None:
    cluster.apply(model("suspended", {"suspend": True}), namespace=namespace)
    cluster.until("fm", "suspended", namespace, lambda fm: has(fm, "Suspended", "True"), 60, "Suspended")
    assert _jobs(cluster, namespace, "suspended") == []
    cluster.patch("fm", "suspended", {"spec": {"suspend": False}}, namespace)
    _pod_runs(cluster, namespace, "suspended")
    cluster.patch("fm", "suspended", {"spec": {"suspend": True}}, namespace)
    cluster.until("fm", "suspended", namespace, lambda fm: has(fm, "Suspended", "True"), 60, "Suspended again")
    jobs = _jobs(cluster, namespace, "suspended")
    _champion(cluster, namespace, "suspended")
    cluster.patch("fm", "suspended", {"spec": {"training": {"seed": 8}}}, namespace)
    nudge(cluster, "suspended", namespace)
    assert _jobs(cluster, namespace, "suspended") == jobs, "a suspended model started a training"


def test_spec_changed_in_training_trains_the_new_one_only(cluster: Cluster, namespace: str) -> None:
    cluster.apply(long_running("edited"), namespace=namespace)
    _pod_runs(cluster, namespace, "edited")
    old = _jobs(cluster, namespace, "edited")
    cluster.apply(model("edited", {"training": {"seed": 8}}), namespace=namespace)
    cluster.until_gone("job", old[0], namespace, 60)
    champion = _champion(cluster, namespace, "edited")["status"]["champion"]
    assert champion["architecture"] == "HAR"
    assert len(_jobs(cluster, namespace, "edited")) == 1


def test_progress_is_shown_and_abort_ends_the_training(cluster: Cluster, namespace: str) -> None:
    cluster.apply(long_running("aborted"), namespace=namespace)
    trains = cluster.until(
        "fm",
        "aborted",
        namespace,
        lambda fm: fm.get("status", {}).get("training", {}).get("progress", {}).get("percent") is not None,
        TRAINED,
        "progress is in the status",
    )
    assert has(trains, "Reconciling", "True")
    assert trains["status"]["training"]["job"] == _jobs(cluster, namespace, "aborted")[0]
    act = approval("abort-1", "aborted", "Abort", ANA.name, "the wrong window was set")
    cluster.create(act, namespace, ANA)
    cluster.until_all(
        "job", namespace, lambda _: _jobs(cluster, namespace, "aborted") == [], 60, "the aborted Job is gone"
    )
    cluster.until_all("md", namespace, lambda _: "Abort" in _actions(cluster, namespace, "aborted"), 60, "recorded")
    nudge(cluster, "aborted", namespace)
    assert _jobs(cluster, namespace, "aborted") == [], "what a person ended was started again"
    record = next(md["spec"] for md in cluster.list("md", namespace) if md["spec"]["action"] == "Abort")
    assert record["actor"]["user"] == ANA.name


def test_approval_for_somebody_else_is_refused(cluster: Cluster, namespace: str) -> None:
    forged = approval("forged", "killed", "Resume", "bob@desk")
    with pytest.raises(AssertionError, match=r"approver"):
        cluster.create(forged, namespace, ANA)


def test_kill_switch_latches_until_a_person_resumes(cluster: Cluster, namespace: str) -> None:
    cluster.apply(model("killed", {"kill": {"engaged": True}}), namespace=namespace)
    cluster.until("fm", "killed", namespace, lambda fm: has(fm, "Killed", "True"), 60, "Killed")
    cluster.patch("fm", "killed", {"spec": {"kill": {"engaged": False}}}, namespace)
    latched = nudge(cluster, "killed", namespace)
    assert has(latched, "Killed", "True"), "the switch did not latch"
    assert "Resume" in condition(latched, "Killed")["message"], "the message does not say what to do"
    assert _jobs(cluster, namespace, "killed") == []
    cluster.until_after(cluster.read("fm", "killed", namespace)["status"]["kill"]["since"])  # newer than the latch
    cluster.create(approval("resume-1", "killed", "Resume", ANA.name), namespace, ANA)
    _champion(cluster, namespace, "killed")
    assert _actions(cluster, namespace, "killed") == ["Kill", "Resume", "Accept"]


def test_editor_cannot_resume_what_he_edited(cluster: Cluster, namespace: str) -> None:
    """Separation of duties: whoever wrote the spec last does not clear its kill switch."""
    cluster.apply(model("own", {"kill": {"engaged": True}}), namespace=namespace)
    cluster.until("fm", "own", namespace, lambda fm: has(fm, "Killed", "True"), 60, "Killed")
    cluster.patch("fm", "own", {"spec": {"kill": {"engaged": False}}}, namespace)
    editor = cluster.read("fm", "own", namespace)["metadata"]["annotations"]["fiduciary.dev/edited-by"]
    cluster.until_after(cluster.read("fm", "own", namespace)["status"]["kill"]["since"])  # newer than the latch
    cluster.create(approval("resume-own", "own", "Resume", editor), namespace)
    cluster.until(
        "fm",
        "own",
        namespace,
        lambda fm: has(fm, "Killed", "True") and editor in condition(fm, "Killed")["message"],
        60,
        f"Killed, and the message says that {editor} wrote the spec",
    )


def test_retrain_with_a_fixed_as_of_says_that_nothing_is_new(cluster: Cluster, namespace: str) -> None:
    _champion(cluster, namespace, "edited")
    jobs = _jobs(cluster, namespace, "edited")
    cluster.create(approval("retrain-1", "edited", "Retrain", ANA.name), namespace, ANA)
    found = cluster.until(
        "fm",
        "edited",
        namespace,
        lambda fm: any(c["reason"] == "NothingNew" or c["type"] == "NothingNew" for c in fm["status"]["conditions"]),
        60,
        "NothingNew",
    )
    told = next(c for c in found["status"]["conditions"] if "NothingNew" in (c["reason"], c["type"]))
    assert "2017-12-29" in told["message"]
    assert _jobs(cluster, namespace, "edited") == jobs


def test_deleted_model_leaves_records_and_takes_its_aliases(
    cluster: Cluster, registry: Registry, namespace: str
) -> None:
    champion = _champion(cluster, namespace, "killed")["status"]["champion"]
    registered = f"{namespace}.killed"
    registry.until_aliases(registered, {"champion": champion["version"]})
    cluster.kubectl("delete", "fm", "killed", "--timeout=60s", namespace=namespace)
    cluster.until_all("job", namespace, lambda _: _jobs(cluster, namespace, "killed") == [], 60, "its Job is gone")
    registry.until_aliases(registered, {})
    assert len(registry.versions(registered)) == 1, "a version is history and stays"
    assert _actions(cluster, namespace, "killed")[-1] == "Retire"


def test_retained_model_is_adopted_again_without_training(cluster: Cluster, registry: Registry, namespace: str) -> None:
    retained = model("retained", {"deletionPolicy": "Retain"})
    cluster.apply(retained, namespace=namespace)
    before = _champion(cluster, namespace, "retained")["status"]["champion"]
    expected = {"champion": before["version"]}
    registry.until_aliases(f"{namespace}.retained", expected)
    cluster.kubectl("delete", "fm", "retained", "--timeout=60s", namespace=namespace)
    assert registry.aliases(f"{namespace}.retained") == expected, "Retain leaves the aliases"
    jobs = _jobs(cluster, namespace, "retained")
    cluster.apply(retained, namespace=namespace)
    after = _champion(cluster, namespace, "retained", 60)["status"]["champion"]
    assert after["digest"] == before["digest"]
    nudge(cluster, "retained", namespace)
    assert set(_jobs(cluster, namespace, "retained")) <= set(jobs), "a model that was known was trained again"
    assert len(registry.versions(f"{namespace}.retained")) == 1


def test_deletion_in_training_leaves_nothing_running(cluster: Cluster, namespace: str) -> None:
    cluster.apply(long_running("dropped"), namespace=namespace)
    _pod_runs(cluster, namespace, "dropped")
    cluster.kubectl("delete", "fm", "dropped", "--timeout=60s", namespace=namespace)

    def nothing(pods: list[Object]) -> bool:
        return not [name for name in names(pods) if name.startswith("dropped-")]

    # The pod hears its SIGTERM while it still imports: far sooner than its grace period of a minute.
    cluster.until_all("pod", namespace, nothing, 30, "no pod of the deleted model is left")


def test_schedule_trains_with_the_newest_data(cluster: Cluster, namespace: str) -> None:
    def ticked(records: list[Object]) -> bool:
        return any(
            md["spec"]["modelRef"]["name"] == "scheduled" and md["spec"]["cause"]["kind"] == "Schedule"
            for md in records
        )

    records = cluster.until_all("md", namespace, ticked, 240, "a scheduled training was judged")
    cluster.patch("fm", "scheduled", {"spec": {"suspend": True}}, namespace)
    first, tick = (
        next(
            md["spec"]
            for md in records
            if md["spec"]["modelRef"]["name"] == "scheduled" and md["spec"]["cause"]["kind"] == kind
        )
        for kind in ("Initial", "Schedule")
    )
    assert first["to"]["trainingKey"] != tick["to"]["trainingKey"], "a tick is a training of its own"
    as_of = date.fromisoformat(tick["to"]["asOf"])
    assert abs((datetime.now(UTC).date() - as_of).days) <= 1, "Rolling was not resolved when the trigger fired"


def test_namespace_with_records_can_be_deleted(cluster: Cluster, make_namespace: MakeNamespace) -> None:
    namespace = make_namespace("goes")
    cluster.apply(model("goes", {"kill": {"engaged": True}}), namespace=namespace)
    cluster.until_all("md", namespace, bool, 60, "there is a record")
    cluster.delete("namespace", namespace)
    cluster.until_gone("namespace", namespace, None, 120)
