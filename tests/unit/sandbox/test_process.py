"""When a daemon counts as gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from sandbox.process import start_time

# The first thread ends; the other one keeps the process, and all its sockets, alive.
HALF_GONE = """
import ctypes, sys, threading
threading.Thread(target=sys.stdin.read).start()
print("ready", flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_whose_first_thread_has_ended_is_not_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", HALF_GONE], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        state = Path(f"/proc/{process.pid}/stat")
        while state.read_text().rpartition(")")[2].split()[0] != "Z":
            os.sched_yield()
        assert start_time(process.pid) is not None
        process.send_signal(signal.SIGKILL)
    assert start_time(process.pid) is None
