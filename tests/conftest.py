"""Every run draws the same examples: a test that fails for some draws only is not a reason to run CI again.

No draw is too slow: how long one takes is the machine's affair, and a timing is no test.

Set FIDUCIARY_FUZZ=1 to draw new ones; what they find becomes an `@example` or a test of its own.
"""

import os

from hypothesis import HealthCheck, settings

UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("new", UNTIMED)
settings.register_profile("same", UNTIMED, derandomize=True)
settings.load_profile("new" if os.environ.get("FIDUCIARY_FUZZ") else "same")
