"""The node's parts that are pure: addresses, cgroup trees, image names and layers, configuration files, kind's."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest

from sandbox import cgroups, gobuild, store
from sandbox.controlplane import Network
from sandbox.kind import Kind
from sandbox.namespaces import PLACES, Addresses, free_place
from sandbox.node import volumes
from sandbox.runtime import cni_network, configuration
from sandbox.steps import StepFailed


def test_the_first_place_is_the_usual_one() -> None:
    addresses = Addresses(free_place(["192.0.2.0/24"], set()))
    assert addresses.services == "10.96.0.0/16"
    assert Network(services=addresses.services).service(10) == "10.96.0.10"
    assert (addresses.machine, addresses.node) == ("10.192.0.1", "10.192.0.2")
    assert len(addresses.interface) <= 15


def test_places_avoid_each_other_and_the_machines_networks() -> None:
    assert free_place([], {0, 1}) == 2
    assert free_place(["10.144.0.0/12"], set()) == 16
    assert free_place(["10.97.3.0/24", "10.96.0.1/32"], set()) == 2
    with pytest.raises(StepFailed, match="is free beside the machine's routes"):
        free_place(["10.0.0.0/8"], set())


def test_no_two_places_overlap() -> None:
    networks = [network for place in range(PLACES) for network in Addresses(place).networks]
    assert len({network.split(".")[1] for network in networks}) == len(networks)


def test_cgroup_trees_of_version_1(tmp_path: Path) -> None:
    for name in ("cpu,cpuacct", "memory"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.procs").write_text("")
    (tmp_path / "cpu").symlink_to("cpu,cpuacct")
    (tmp_path / "openrc").mkdir()
    assert [path.name for path in cgroups.roots(tmp_path)] == ["cpu,cpuacct", "memory"]


def test_the_cgroup_tree_of_version_2(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory")
    (tmp_path / "system.slice").mkdir()
    assert cgroups.roots(tmp_path) == [tmp_path]


def test_removing_a_branch_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory")
    cgroups.remove("x", tmp_path)
    cgroups.remove("x", tmp_path / "no cgroups at all")


def test_a_branch_is_removed_with_what_is_below(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory")
    (tmp_path / "fiduciary-x" / "kubepods" / "pod1").mkdir(parents=True)
    (tmp_path / "fiduciary-y").mkdir()
    cgroups.remove("x", tmp_path)
    assert not (tmp_path / "fiduciary-x").exists()
    assert (tmp_path / "fiduciary-y").exists()


@pytest.mark.parametrize(
    ("tag", "full"),
    [
        ("fiduciary-mlflow:3", "docker.io/library/fiduciary-mlflow:3"),
        ("desk/trainer:1", "docker.io/desk/trainer:1"),
        ("ghcr.io/x/y:1", "ghcr.io/x/y:1"),
        ("localhost/pause:1", "localhost/pause:1"),
        ("registry:5000/x:1", "registry:5000/x:1"),
    ],
)
def test_full_image_names(tag: str, full: str) -> None:
    assert store.reference(tag) == full


def test_the_fingerprint_of_a_layer_sees_every_change(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sh").write_text("x")
    (tmp_path / "link").symlink_to("bin")
    seen = [store.fingerprint(tmp_path)]
    assert store.fingerprint(tmp_path) == seen[0]
    os.utime(tmp_path / "bin" / "sh", ns=(1, 1))
    seen.append(store.fingerprint(tmp_path))
    (tmp_path / "bin" / "sh").chmod(0o755)
    seen.append(store.fingerprint(tmp_path))
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("/etc")
    seen.append(store.fingerprint(tmp_path))
    (tmp_path / "new").write_text("")
    seen.append(store.fingerprint(tmp_path))
    assert len(set(seen)) == 5
    assert store.fingerprint(tmp_path / "missing") == "unreadable"


def test_outdated_images_are_the_oldest_of_the_same_name() -> None:
    images = {f"docker.io/library/a:{n}": {"at": n} for n in range(5)} | {"docker.io/library/b:0": {"at": 0}}
    assert store.outdated(images, "docker.io/library/a:4", keep=3) == [f"docker.io/library/a:{n}" for n in (0, 1)]
    assert store.outdated(images, "docker.io/library/b:0") == []


def test_containerds_configuration_is_toml_with_what_such_a_machine_needs(tmp_path: Path) -> None:
    text = configuration(tmp_path / "bin", tmp_path / 'odd "name', tmp_path, ("a", "b"))
    config = tomllib.loads(text)
    assert config["root"] == str(tmp_path / 'odd "name')
    assert config["disabled_plugins"] == ["a", "b"]
    runtime = config["plugins"]["io.containerd.cri.v1.runtime"]
    assert runtime["restrict_oom_score_adj"] is True
    assert runtime["containerd"]["runtimes"]["runc"]["options"]["SystemdCgroup"] is False


def test_the_pod_network_has_host_ports_and_keeps_its_leases_in_the_sandbox(tmp_path: Path) -> None:
    bridge, ports = cni_network("10.144.0.0/24", tmp_path)["plugins"]  # pyright: ignore[reportGeneralTypeIssues]
    assert bridge["ipam"]["dataDir"] == str(tmp_path)
    assert ports["type"] == "portmap"


def test_volumes_are_writable_and_bound_to_the_node(tmp_path: Path) -> None:
    items = volumes(tmp_path, "n")["items"]
    assert isinstance(items, list)
    storage, first = items[0], items[1]
    assert storage["metadata"]["annotations"] == {"storageclass.kubernetes.io/is-default-class": "true"}
    assert Path(first["spec"]["local"]["path"]).stat().st_mode & 0o777 == 0o777


@pytest.mark.parametrize("module", [gobuild.KUBE, gobuild.NODE, gobuild.CONTOUR, gobuild.KIND])
def test_every_go_module_is_pinned_and_stamped_with_what_it_requires(module: gobuild.Module) -> None:
    assert (module.directory / "go.sum").read_text().count("h1:") > 10
    assert "{" not in module.linker_flags()
    assert gobuild.key(module, "go1.26.8") != gobuild.key(module, "go1.26.9")


def test_the_api_server_says_its_version() -> None:
    assert f"-X k8s.io/component-base/version.gitVersion={gobuild.KUBE.version('k8s.io/kubernetes')}" in (
        gobuild.KUBE.linker_flags()
    )


def test_kind_publishes_the_gateway_on_the_loopback_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.state.root", lambda: tmp_path)
    kind = Kind("demo", "podman")
    mapping = kind.configuration()["nodes"][0]["extraPortMappings"][0]  # pyright: ignore[reportIndexIssue]
    assert (mapping["containerPort"], mapping["listenAddress"]) == (80, "127.0.0.1")
    assert mapping["hostPort"] == kind.port
    assert kind.cluster().address() == f"127.0.0.1:{kind.port}"
    assert kind.env["KIND_EXPERIMENTAL_PROVIDER"] == "podman"
    assert kind.cluster_name == "fiduciary-demo"
