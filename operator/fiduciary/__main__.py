"""Start the operator: ``fiduciary-operator`` or ``python -m fiduciary``; ``--help`` says what it is told."""

from __future__ import annotations

# Modules, classes and schemas live as long as the process: collecting garbage among them while they are loaded, or ever
# after, is a tenth of an operator's CPU and finds nothing.
import gc

gc.disable()

import argparse
import asyncio
import sys
from typing import TYPE_CHECKING

import structlog

import fiduciary
from fiduciary import logs
from fiduciary.app import Operator
from fiduciary.clients import access
from fiduciary.settings import ENVIRONMENT, PREFIX, SettingsError, load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fiduciary.settings import Settings


def _parser() -> argparse.ArgumentParser:
    variables = ", ".join(name.upper() for name in ENVIRONMENT)
    parser = argparse.ArgumentParser(
        prog="fiduciary-operator",
        description="The operator of FinancialModels, ModelExperiments and DriftPolicies. Without an option it runs "
        "until SIGTERM, beside others of its kind: a Lease says which of them works.",
        epilog=f"Settings are environment variables {PREFIX}<NAME> (CONFIG: a YAML file with all that is structured; "
        f"LEASE=0: no leader election; {variables}) and that file; a variable beats the file. docs/install.md explains "
        "each. The cluster is that of the pod's ServiceAccount, else of KUBECONFIG. Exit status: 0 after a signal, 1 "
        "when a fresh process has to take over, 2 when it cannot begin.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {fiduciary.__version__}")
    parser.add_argument("--check", action="store_true", help="read the settings, say whether they can be used, and end")
    return parser


async def _run(settings: Settings) -> None:
    await Operator(settings, access.find()).run()


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 after a signal, 1 when a fresh process has to take over, 2 when the settings are unusable."""
    given = _parser().parse_args(arguments)
    try:
        settings = load()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    if given.check:
        print(f"the settings can be used: cluster {settings.cluster}, connections {', '.join(settings.connections)}")
        return 0
    logs.configure(settings.log_level)
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    gc.enable()
    try:
        asyncio.run(_run(settings))
    except access.AccessError as error:
        structlog.get_logger().error("no cluster", why=str(error))
        return 2
    except Exception:
        structlog.get_logger().exception("ended")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
