"""`python -m sandbox up | down | status | env | replay`"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import time

from sandbox import state, teardown
from sandbox.console import Console, duration
from sandbox.process import Daemon
from sandbox.steps import StepFailed, Steps
from sandbox.up import PROVIDERS, up


def main() -> int:
    """Run one command. Returns the exit code: 0 done, 1 failed, 130 stopped by Ctrl-C."""
    arguments = _parser().parse_args()
    # Shells start background jobs with SIGINT ignored, CI systems end with SIGTERM: both are a user's Ctrl-C here.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        return int(arguments.command(arguments))
    except StepFailed as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here, `down` removes what there is", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sandbox", description="A throw-away Kubernetes cluster.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, action: object, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=action)
        if name != "status":
            sub.add_argument("--name", default=state.DEFAULT_NAME, help="which sandbox (default: %(default)s)")
        return sub

    sub = command("up", _up, "start a sandbox, or go on where an earlier `up` stopped")
    sub.add_argument("--provider", choices=PROVIDERS, help="default: kind where a container engine answers, else node")
    sub.add_argument("--control-plane-only", action="store_true", help="etcd and API server, no node, no root needed")
    sub.add_argument(
        "--without-addons", action="store_true", help="a bare node: no gateway, MLflow, Prometheus, operator"
    )
    command("down", _down, "remove a sandbox and everything that it put on this machine")
    command("status", _status, "list the sandboxes and what runs of them")
    sub = command("replay", _replay, "send days that no version saw as requests, with their outcomes following")
    sub.add_argument("--model", default="quant/spx-volatility", help="<namespace>/<name> (default: %(default)s)")
    sub.add_argument("--rate", type=float, default=200.0, help="requests a second (default: %(default)s)")
    sub.add_argument("--dwell", type=float, default=2.0, help="seconds that a day lasts (default: %(default)s)")
    sub.add_argument("--after", help="days after this one, YYYY-MM-DD (default: the model's asOf)")
    sub.add_argument("--days", type=int, default=10_000, help="so many days at most (default: all)")
    sub.add_argument("--no-outcomes", action="store_true", help="tell the outcome scorer nothing")
    command("env", _env, 'print variables for a shell: eval "$(python -m sandbox env)"')
    return parser


def _up(arguments: argparse.Namespace) -> int:
    began = time.monotonic()
    up(
        arguments.name,
        provider=arguments.provider,
        control_plane_only=arguments.control_plane_only,
        with_addons=not arguments.without_addons,
        progress=Console(),
    )
    option = "" if arguments.name == state.DEFAULT_NAME else f" --name {arguments.name}"
    print(f'up in {duration(time.monotonic() - began)}; now: eval "$(python -m sandbox env{option})"', file=sys.stderr)
    return 0


def _down(arguments: argparse.Namespace) -> int:
    steps = Steps()
    steps.add(f"remove {arguments.name}", lambda run: teardown.remove(arguments.name, run))
    with state.exclusive(arguments.name):
        steps.run(Console())
    state.forget_lock(arguments.name)
    return 0


def _status(_arguments: argparse.Namespace) -> int:
    for name in state.names():
        directory = state.directory(name)
        record = state.read(directory / "sandbox.json")
        print(f"{name}  ({record.get('provider')})  {directory}")
        for file in sorted(directory.glob("run/*.pid")):
            daemon = Daemon(file.stem, directory)
            print(f"  {file.stem:<26} {'running, process ' + str(daemon.pid) if daemon.alive else 'not running'}")
    if not state.names():
        print("no sandbox on this machine; `python -m sandbox up` makes one")
    return 0


def _replay(arguments: argparse.Namespace) -> int:
    from sandbox import replay  # needs more than the standard library: `make venv`

    replay.main(arguments)
    return 0


def _env(arguments: argparse.Namespace) -> int:
    directory = state.directory(arguments.name)
    if not (directory / "kubeconfig").exists():
        option = "" if arguments.name == state.DEFAULT_NAME else f" --name {arguments.name}"
        raise StepFailed(f"no sandbox called {arguments.name!r} is up; `python -m sandbox up{option}` starts it")
    print(f"export KUBECONFIG={shlex.quote(str(directory / 'kubeconfig'))}")
    print(f'export PATH={shlex.quote(str(directory / "bin"))}:"$PATH"')
    for name, value in sorted(state.read(directory / "env.json").items()):
        print(f"export {name}={shlex.quote(str(value))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
