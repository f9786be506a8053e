"""Statuses that a real Seldon Core v2.6.0 was seen to write, and the reason and remedy that a person reads.

The texts are those of facts/serving.md §1b, the rows those of facts/requirements.md, "Failures of a live platform".
"""

# ruff: noqa: E501 - texts as they were observed

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from fiduciary.decide import reasons
from fiduciary.decide.case import Case
from fiduciary.decide.serving.ability import Able, ability
from fiduciary.decide.serving.arrival import arrival
from fiduciary.decide.serving.seldon import fit, models
from fiduciary.serving.seldonviews import ModelView, Said, SeldonView, ServerView
from tests.unit.decide.backends import HERE, MESH, SELDON, challenged, clients, served
from tests.unit.decide.lives import approve, calm
from tests.unit.decide.worlds import T0, world

if TYPE_CHECKING:
    from fiduciary.decide.step import Note

SERVER = ServerView("mlserver", frozenset({"mlserver", "fiduciary-onnx"}), 2 << 30, replicas=2, ready=True)
URI = "s3://desk/version"
TRAIL = "failed to schedule model a. [failed replica filter {} for server replica mlserver:0 : {}]"


def case(*servers: ServerView, spec: dict[str, Any] | None = None, seconds: float = 10) -> Case:
    seldon = SeldonView(servers=servers)
    return Case(world(spec or MESH, platform=HERE, seldon=seldon), T0 + timedelta(seconds=seconds))


def model(said: Said | None, **parts: Any) -> ModelView:
    given: dict[str, Any] = {
        "name": "a", "uid": "u", "resource_version": "1", "digest": "sha256:" + "a" * 64, "version": "7", "content": "",
        "image": "", "created_at": T0, "kind": "Model", "said": said, "requirements": ("fiduciary-onnx",),
    }  # fmt: skip
    return ModelView(**{**given, **parts})


def told(said: Said | None, *servers: ServerView, seconds: float = 10, need: int = 1, **parts: Any) -> Note | None:
    return models.not_ready(case(*servers, seconds=seconds), model(said, **parts), need)


def failed(state: str, why: str) -> Said:
    return Said(False, why, state, T0)


PLAIN = replace(SERVER, capabilities=frozenset({"mlserver", "sklearn"}))
STATES: list[tuple[str, Said | None, tuple[ServerView, ...], float, str, str]] = [
    ("just created", None, (SERVER,), 0.2, reasons.STARTING, "0 of 1"),
    ("nobody says anything", None, (SERVER,), 31, reasons.CONTROL_PLANE_DISCONNECTED, "seldon-scheduler"),
    ("loading", failed("ModelProgressing", ""), (SERVER,), 54, reasons.STARTING, "55 s"),
    ("loads for ever", failed("ModelProgressing", ""), (SERVER,), 61, reasons.NEVER_READY, "log"),
    ("no server", failed("ScheduleFailed", "failed to schedule model a. []"), (), 1, reasons.SERVER_NOT_READY, "deploy/seldon"),
    (
        "wrong requirement",
        failed("ScheduleFailed", TRAIL.format("RequirementsReplicaFilter", "model requirements [fiduciary-onnx] replica capabilities [mlserver sklearn]")),
        (PLAIN,),
        1,
        reasons.CAPABILITY_MISMATCH,
        "lacks fiduciary-onnx (it has mlserver, sklearn)",
    ),
    (
        "unknown server",
        failed("ScheduleFailed", "failed to schedule model a. [failed server filter SharingServerFilter for server replica mlserver : sharing false requested server nosuch == mlserver]"),
        (SERVER,),
        1,
        reasons.SERVER_NOT_READY,
        "nosuch",
    ),
    (
        "too much memory",
        failed("ScheduleFailed", TRAIL.format("AvailableMemoryReplicaFilter", "model memory 9999999999 replica memory 1000")),
        (SERVER,),
        1,
        reasons.SERVER_TOO_SMALL,
        "model memory 9999999999",
    ),
    ("server not ready", failed("ScheduleFailed", "failed to schedule model a. []"), (replace(SERVER, ready=False, message="StatefulSet replicas does not match desired replicas"),), 1, reasons.SERVER_NOT_READY, "does not match"),
    ("server at 0", failed("ScheduleFailed", "... [failed server filter DeletedServerFilter for server replica mlserver : expected replicas 0 != 0]"), (replace(SERVER, replicas=0),), 1, reasons.SERVER_NOT_READY, "0 replicas"),
    ("no pod of a Ready server", failed("ScheduleFailed", "failed to schedule model a. []"), (SERVER,), 1, reasons.SERVER_NOT_READY, "Pod Security"),
    (
        "stale schedule",
        failed("ScheduleFailed", "failed to schedule model a. [failed server filter DeletedServerFilter for server replica mlserver : expected replicas 0 != 0]"),
        (SERVER,),
        1,
        reasons.STALE_SCHEDULE,
        "rollout restart",
    ),
    (
        "stale schedule, as later releases say it",
        failed("ScheduleFailed", "Failed to schedule model as no matching servers are available"),
        (SERVER,),
        1,
        reasons.STALE_SCHEDULE,
        "no matching servers are available",
    ),
    ("flash", failed("ModelFailed", "rpc error: code = FailedPrecondition desc = failed to schedule"), (SERVER,), 1, reasons.STALE_SCHEDULE, ""),
    ("flash without words", failed("ModelFailed", "rpc error: code = FailedPrecondition"), (SERVER,), 1, reasons.STARTING, ""),
    ("flash that stays", failed("ModelFailed", "rpc error: code = FailedPrecondition"), (SERVER,), 9, reasons.LOAD_REFUSED, "FailedPrecondition"),
    ("bad URI", failed("ModelFailed", f"Failed to sync/copy {URI} to /mnt/agent/rclone/1 Failed rclone request to host:0.0.0.0 port:5572 path:/sync/copy"), (SERVER,), 1, reasons.ARTIFACT_NOT_FOUND, URI),
    ("empty folder", failed("ModelFailed", "Can't create model-settings from requirements [fiduciary-onnx]"), (SERVER,), 1, reasons.ARTIFACT_NOT_FOUND, "model-settings.json"),
    ("MLmodel not found", failed("ModelFailed", "MLmodel not found"), (SERVER,), 1, reasons.ARTIFACT_NOT_FOUND, "MLmodel"),
    ("load raises", failed("ModelFailed", "rpc error: code = Internal desc = boom at import"), (SERVER,), 56, reasons.LOAD_FAILED, "boom at import"),
    ("another artifact", failed("ModelFailed", "rpc error: code = Internal desc = DigestMismatch: /mnt/agent holds sha256:b"), (SERVER,), 56, reasons.DIGEST_MISMATCH, "holds"),
    ("no version", failed("ModelFailed", "rpc error: code = Internal desc = BadVersion: model.onnx"), (SERVER,), 56, reasons.BAD_VERSION, "model.onnx"),
    ("min replicas", failed("ModelFailed", "Number of replicas 1 should be >= min replicas 2"), (SERVER,), 1, reasons.LOAD_REFUSED, "min replicas 2"),
    ("secret with two keys", failed("ModelFailed", "Secret does not have 1 key quant-s3"), (SERVER,), 1, reasons.STORAGE_SECRET_INVALID, "exactly one key"),
    ("secret without JSON", failed("ModelFailed", "Failed rclone request path:/config/create: invalid character 't' looking for beginning of value"), (SERVER,), 1, reasons.STORAGE_SECRET_INVALID, "rclone's JSON"),
    ("server replica drains", failed("ModelFailed", "server replica is draining"), (SERVER,), 1, reasons.STARTING, "draining"),
    ("timeout", failed("ModelFailed", 'rpc error: code = Unavailable desc = connection error: desc = "transport: Error while dialing: dial tcp 10.0.0.4:9004: i/o timeout"'), (SERVER,), 1, reasons.SCHEDULER_UNREACHABLE, "9004"),
    ("denied", failed("ModelFailed", 'rpc error: code = Unavailable desc = connection error: desc = "transport: Error while dialing: dial tcp 10.0.0.4:9004: connect: operation not permitted"'), (SERVER,), 1, reasons.POLICY_DENIED, "network policy"),
    ("closing", failed("ModelProgressing", "rpc error: code = Canceled desc = grpc: the client connection is closing"), (SERVER,), 1, reasons.CONTROL_PLANE_DISCONNECTED, "SeldonRuntime"),
    ("not ready", failed("ModelFailed", "Scheduler not ready"), (SERVER,), 1, reasons.CONTROL_PLANE_DISCONNECTED, "Scheduler not ready"),
    ("server without quota", failed("ScheduleFailed", "failed to schedule model a. []"), (replace(SERVER, ready=False, message="create Pod mlserver-0 in StatefulSet mlserver failed: pods is forbidden: failed quota: desk: must specify limits.cpu"),), 1, reasons.QUOTA_EXCEEDED, "limits.cpu"),
    ("deleted and created again", failed("ModelFailed", "Model a is in process of deletion - new model can not be created"), (SERVER,), 1, reasons.DELETION_BLOCKED, "deletion"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "servers", "seconds", "reason", "words"), [row[1:] for row in STATES], ids=[row[0] for row in STATES]
)
def test_states(said: Said | None, servers: tuple[ServerView, ...], seconds: float, reason: str, words: str) -> None:
    note = told(said, *servers, seconds=seconds, server="nosuch" if "nosuch" in words else "")
    assert note is not None
    assert note.reason == reason, note
    assert words in note.message


def test_ready() -> None:
    assert told(Said(True, "", "ModelAvailable", T0), SERVER) is None


def test_a_model_that_was_scaled_to_0_stays_ready_and_is_not() -> None:
    note = told(Said(True, "", "ModelAvailable", T0), SERVER, replicas=0)
    assert note is not None
    assert note.reason == reasons.STARTING


def test_a_model_that_does_not_go() -> None:
    ready = Said(True, "", "ModelAvailable", T0)
    assert told(ready, SERVER, seconds=59, deleting_at=T0) is None
    note = told(ready, SERVER, seconds=61, deleting_at=T0)
    assert note is not None
    assert (note.reason, note.stalled) == (reasons.DELETION_BLOCKED, True)
    assert "seldon.model.finalizer" in note.message


# --- before anything is created --------------------------------------------------------------------------------------


def before(
    *servers: ServerView, change: dict[str, Any] | None = None, uri: str = URI, replicas: int = 1
) -> Note | None:
    from fiduciary.api.versions import VersionRef
    from tests.unit.decide.worlds import merged

    given = case(*servers, spec=merged(MESH, change or {}))
    able = ability(given)
    assert isinstance(able, Able)
    return fit.obstacle(given, able, VersionRef(version="7", digest="sha256:" + "a" * 64, uri=uri), replicas)


def test_a_server_that_fits() -> None:
    assert before(SERVER) is None
    assert before(replace(SERVER, capabilities=None, memory=None)) is None, "what nobody says is left to Seldon"


@pytest.mark.parametrize(
    ("servers", "change", "reason", "words"),
    [
        ((), {}, reasons.SERVER_NOT_READY, "no Seldon Server"),
        ((SERVER,), {"serving": {"seldon": {"server": "other"}}}, reasons.SERVER_NOT_READY, "other"),
        ((PLAIN,), {}, reasons.CAPABILITY_MISMATCH, "lacks fiduciary-onnx (it has mlserver, sklearn)"),
        ((replace(SERVER, memory=1 << 20),), {}, reasons.SERVER_TOO_SMALL, "268435456 bytes"),
        (
            (SERVER,),
            {"serving": {"resources": {"requests": {"memory": "3Gi"}}}},
            reasons.SERVER_TOO_SMALL,
            "3221225472",
        ),
        ((replace(SERVER, replicas=0),), {}, reasons.SERVER_NOT_READY, "0 replicas"),
    ],
)
def test_servers_that_do_not_fit(
    servers: tuple[ServerView, ...], change: dict[str, Any], reason: str, words: str
) -> None:
    note = before(*servers, change=change)
    assert note is not None
    assert (note.reason, note.stalled) == (reason, True)
    assert words in note.message


def test_more_replicas_than_the_server_has() -> None:
    note = before(SERVER, replicas=3)
    assert note is not None
    assert note.reason == reasons.REPLICAS_EXCEED_SERVER
    assert "mlserver 2" in note.message


def test_storage_that_no_server_reads() -> None:
    note = before(SERVER, uri="runs:/abc/version")
    assert note is not None
    assert (note.reason, note.stalled) == (reasons.UNSUPPORTED_STORAGE, True)
    assert before(SERVER, uri="mlflow-artifacts:/1/run/artifacts/version") is None, "the settings name the store"
    assert before(SERVER, uri="pvc://claim/version") is None


# --- on a mesh -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [SELDON, MESH])
def test_nothing_is_created_that_has_no_place(spec: dict[str, Any]) -> None:
    from tests.unit.decide.backends import world as begun
    from tests.unit.decide.lives import trained

    sim = begun(spec)
    sim.serving.mesh.servers = (PLAIN,)
    trained(sim)
    calm(sim, 20)
    assert not any(kind == "Model" for kind, _ in sim.serving.objects)
    assert sim.condition("Stalled")[:2] == ("True", reasons.CAPABILITY_MISMATCH)
    assert sim.condition("Ready")[:2] == ("False", reasons.CAPABILITY_MISMATCH)
    sim.serving.mesh.servers = (SERVER,)
    calm(sim)
    assert sim.condition("Ready")[0] == "True"


def test_ready_everywhere_and_404() -> None:
    sim = served(SELDON)
    sim.serving.mesh.no_route = {name for kind, name in sim.serving.objects if kind == "Model"}
    calm(sim, 30)
    status, reason, message = sim.condition("Ready")
    assert (status, reason) == ("False", reasons.ROUTE_MISSING)
    assert "seldon-scheduler" in message
    assert sim.condition("Stalled")[:2] == ("True", reasons.ROUTE_MISSING)
    sim.serving.mesh.no_route = set()
    calm(sim, 30)
    assert sim.condition("Ready")[0] == "True"


def test_a_model_that_lost_its_place_is_not_called_ready() -> None:
    """Its second replica's pod was deleted: Seldon took the route away from the first one as well, for 24 s."""
    sim = served(SELDON)
    name = next(name for kind, name in sim.serving.objects if kind == "Model")
    draining = "failed replica filter ReplicaDrainingFilter for server replica fiduciary:1"
    why = f"failed to schedule model {name}. [{draining} : Replica server 1 is draining check true]"
    sim.serving.mesh.says = {name: Said(False, why, "ScheduleFailed", sim.now)}
    sim.serving.mesh.no_route = {name}
    calm(sim, 20)
    status, reason, message = sim.condition("Ready")
    assert (status, reason) == ("False", reasons.SERVER_NOT_READY)
    assert "ReplicaDrainingFilter" in message
    assert "one replica more" in message
    sim.serving.mesh.says, sim.serving.mesh.no_route = {}, set()
    calm(sim, 30)
    assert sim.condition("Ready")[0] == "True"


def test_ready_and_404_before_any_traffic() -> None:
    from tests.unit.decide.backends import world as begun
    from tests.unit.decide.lives import trained

    sim = begun(MESH)
    trained(sim)
    sim.serving.mesh.no_route = {name for kind, name in sim.serving.objects if kind == "Model"}
    sim.now += timedelta(seconds=1)
    given = Case(sim.world, sim.now)
    able = ability(given)
    assert isinstance(able, Able)
    champion = given.history.champion
    assert champion is not None
    view = arrival(given, given.history, able, champion, compatible=False)
    assert view.note is None or view.note.reason == reasons.PROBE_PENDING


def test_an_operator_of_seldon_that_is_away_moves_nothing_and_is_told() -> None:
    sim = challenged(SELDON)
    sim.serving.mesh.scheduler_works = False
    approve(sim, "ok")
    calm(sim, 60)
    assert sim.actions[-1] == "Promote"
    assert clients(sim) == {"1": 100}, "the mesh goes on as it was"
    status, reason, _ = sim.condition("Ready")
    assert (status, reason) == ("False", reasons.CONTROL_PLANE_DISCONNECTED)
    assert sim.condition("Stalled")[:2] == ("True", reasons.CONTROL_PLANE_DISCONNECTED)
    assert len([kind for kind, _ in sim.serving.objects if kind == "Model"]) == 2, "nothing goes unproven"
    sim.serving.mesh.scheduler_works = True
    calm(sim, 120)
    assert clients(sim) == {"2": 100}
    assert sim.condition("Ready")[0] == "True"


def test_a_rejected_edit_leaves_every_condition_true_and_is_told() -> None:
    sim = challenged(SELDON)
    default = next(name for kind, name in sim.serving.objects if kind == "Model" and name == _lead(sim))
    sim.serving.mesh.rejects = {default: f"Resource {default} already in experiment other as a baseline"}
    approve(sim, "ok")
    calm(sim, 40)
    status, reason, message = sim.condition("Ready")
    assert (status, reason) == ("False", reasons.EXPERIMENT_REJECTED)
    assert "already in experiment other" in message
    assert clients(sim) == {"1": 100}
    # Seldon looks at an Experiment again when its spec changes, or when it is another one.
    sim.serving.mesh.rejects = {}
    calm(sim, 20)
    assert sim.condition("Ready")[1] == reasons.EXPERIMENT_REJECTED
    sim.serving.delete("Experiment", default)
    calm(sim, 120)
    assert clients(sim) == {"2": 100}
    assert sim.condition("Ready")[0] == "True"


def test_two_schedulers_that_undo_each_other() -> None:
    sim = challenged(SELDON)
    approve(sim, "ok")
    sim.step()
    name = _lead(sim)
    sim.serving.mesh.flips, sim.serving.mesh.frozen = {name: 8}, True
    calm(sim, 10)
    assert sim.condition("Ready")[1] == reasons.SCHEDULER_SPLIT_BRAIN
    assert "seldon-scheduler" in sim.condition("Ready")[2]


def test_a_split_that_envoy_does_not_have_is_seen_by_its_answers() -> None:
    """All weights 0 in somebody's Experiment: conditions stay True, and Envoy refuses every route table."""
    sim = challenged(SELDON)
    sim.serving.mesh.frozen = True
    approve(sim, "ok")
    calm(sim, 60)
    assert clients(sim) == {"1": 100}
    assert sim.condition("Ready")[:2] == ("False", reasons.ROUTE_HIJACKED)
    assert "envoy_http_rds_update_rejected" in sim.condition("Ready")[2]


def _lead(sim: Any) -> str:
    filters = sim.serving.route.body["spec"]["rules"][0]["filters"]
    return str(filters[0]["requestHeaderModifier"]["set"][0]["value"])
