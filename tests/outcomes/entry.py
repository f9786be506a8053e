"""The real scorer, with a place to die: ``python -m tests.outcomes.entry '{"clock": FILE, "commit": 3, ...}'``.

Production has no switch for this. Here the process sends itself SIGKILL before (or after) its n-th commit, and its
clock is the number in a file. It prints its ports and each commit.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from fiduciary_outcomes.__main__ import main
from fiduciary_outcomes.memory import Memory

options = json.loads(sys.argv[1])
commit = Memory.commit
made = 0


def dying(memory: Memory) -> None:
    global made
    last = made == options.get("commit")
    if last and not options["after"]:
        os.kill(os.getpid(), signal.SIGKILL)
    commit(memory)
    if last:
        os.kill(os.getpid(), signal.SIGKILL)
    made += 1


Memory.commit = dying
sys.exit(
    main(
        clock=lambda: float(Path(options["clock"]).read_text()),
        started=lambda port, metrics: print(json.dumps([port, metrics]), flush=True),
    )
)
