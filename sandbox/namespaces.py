"""The node's namespaces and the one cable that leads into them.

The machine reaches the node, its pods and its Services through a veth pair; nothing leads from the node to the
outside, so what runs in the sandbox cannot depend on the internet.
"""

from __future__ import annotations

import ipaddress
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from sandbox import cache, state
from sandbox.node_init import FIXED
from sandbox.process import Daemon
from sandbox.steps import Run, StepFailed

PLACES = 32  # nodes that can exist at once on one machine


@dataclass(frozen=True)
class Addresses:
    """The networks of the node number `place`: chosen so that several nodes never overlap."""

    place: int

    @property
    def interface(self) -> str:
        return f"fiduciary{self.place}"

    @property
    def services(self) -> str:
        return f"10.{96 + self.place}.0.0/16"

    @property
    def pods(self) -> str:
        return f"10.{144 + self.place}.0.0/24"

    @property
    def link(self) -> str:
        return f"10.{192 + self.place}.0.0/30"

    @property
    def machine(self) -> str:
        """The machine's end of the cable."""
        return str(ipaddress.ip_network(self.link)[1])

    @property
    def node(self) -> str:
        """The node's end: its InternalIP."""
        return str(ipaddress.ip_network(self.link)[2])

    @property
    def networks(self) -> list[str]:
        return [self.services, self.pods, self.link]


def free_place(routes: list[str], taken: set[int]) -> int:
    """The first place whose networks overlap no route of the machine and that no other sandbox has."""
    used = [ipaddress.ip_network(route, strict=False) for route in routes]
    for place in range(PLACES):
        networks = [ipaddress.ip_network(network) for network in Addresses(place).networks]
        if place not in taken and not any(net.overlaps(route) for net in networks for route in used):
            return place
    raise StepFailed(
        f"none of the {PLACES} address ranges for a node (10.96-10.127, 10.144-10.175, 10.192-10.223) is free beside "
        f"the machine's routes {routes}; take down another sandbox (`python -m sandbox status` lists them)"
    )


def machine_routes() -> list[str]:
    """Every IPv4 destination that the machine has a route for, the default route excepted."""
    said = subprocess.run(["ip", "-json", "-4", "route"], capture_output=True, text=True, check=True).stdout
    return [route["dst"] for route in json.loads(said or "[]") if route["dst"] != "default"]


class Namespaces:
    """The namespaces of the sandbox in `directory`, kept alive by one process."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        self.hostname = f"{name}-node"
        kinds = ("--pid", "--fork", "--kill-child", "--mount", "--net", "--ipc", "--uts", "--propagation", "private")
        self.init = Daemon("node", directory, ("unshare", *kinds))

    @property
    def addresses(self) -> Addresses:
        """The node's networks, chosen on first use and remembered."""
        file = self.directory / "network.json"
        place = state.read(file).get("place")
        if not isinstance(place, int):
            with cache.lock("node-places"):
                others = (state.read(path).get("place") for path in state.root().glob("*/network.json"))
                place = free_place(machine_routes(), {other for other in others if isinstance(other, int)})
                state.write(file, {"place": place})
        return Addresses(place)

    @property
    def enter(self) -> tuple[str, ...]:
        """Words that start a program inside. Raises StepFailed when the namespaces are not there."""
        pid = self.init.pid
        if pid is None:
            raise StepFailed(f"the node of sandbox {self.name!r} is not running; `python -m sandbox up` starts it")
        return ("nsenter", "-t", str(pid), "-p", "-m", "-n", "-i", "-u", "--")

    def start(self, run: Run) -> None:
        """Have the namespaces, with their cable."""
        addresses = self.addresses
        if not self.init.alive:
            ready = self.directory / "node" / "ready"
            ready.unlink(missing_ok=True)
            for fixed in FIXED:
                Path(fixed).mkdir(parents=True, exist_ok=True)  # to mount upon
            script = Path(__file__).with_name("node_init.py")
            self.init.ensure([sys.executable, "-I", script, self.directory, self.hostname])
            run.until(lambda: ready.exists() or not self.init.alive, "the node's namespaces", seconds=10, every=0.01)
            if not ready.exists():
                raise StepFailed(f"the node's namespaces could not be made:\n{self.init.tail()}")
        self._connect(run, addresses)

    def _connect(self, run: Run, addresses: Addresses) -> None:
        if not Path("/sys/class/net", addresses.interface).exists():
            peer = ["peer", "name", "eth0", "netns", str(self.init.pid)]
            run.call(["ip", "link", "add", addresses.interface, "type", "veth", *peer])
        for enter, device, address in (
            ((), addresses.interface, f"{addresses.machine}/30"),
            (self.enter, "eth0", f"{addresses.node}/30"),
        ):
            run.call([*enter, "ip", "address", "replace", address, "dev", device])
            run.call([*enter, "ip", "link", "set", device, "up"])
        run.call([*self.enter, "ip", "route", "replace", "default", "via", addresses.machine])
        for network in (addresses.services, addresses.pods):
            run.call(["ip", "route", "replace", network, "via", addresses.node, "dev", addresses.interface])
