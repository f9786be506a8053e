"""The real operator process, with a place to die: `python -m tests.controlplane.engine.entry '{"dieAt": 3}'`.

Production has no switch for this. Here the process sends itself SIGKILL just before its n-th numbered write, or carries
a decision out in another order, and prints each write's name, so that a test knows where it was.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
from typing import TYPE_CHECKING

from fiduciary import logs
from fiduciary.app import Operator
from fiduciary.clients import access
from fiduciary.engine.apply import ORDER, Step
from fiduciary.settings import load

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> int:
    options = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
    settings = load()
    logs.configure(settings.log_level)
    operator = Operator(
        settings, access.find(), checkpoint=_dying_at(options.get("dieAt")), order=_swapped(options.get("swap"))
    )
    try:
        asyncio.run(operator.run(started=lambda port: print(f"port {port}", flush=True)))
    except BaseExceptionGroup as errors:
        print("ended by", [repr(error) for error in errors.exceptions], file=sys.stderr)
        return 1
    return 0


def _dying_at(number: int | None) -> Callable[[str], None]:
    count = itertools.count()

    def checkpoint(name: str) -> None:
        print(f"write {name}", flush=True)
        if next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return checkpoint


def _swapped(names: list[str] | None) -> tuple[Step, ...]:
    if not names:
        return ORDER
    first, second = (Step(name) for name in names)
    exchange = {first: second, second: first}
    return tuple(exchange.get(step, step) for step in ORDER)


if __name__ == "__main__":
    sys.exit(main())
