"""Every run draws the same examples: a test that fails for some draws only is not a reason to run CI again.

Set FIDUCIARY_FUZZ=1 to draw new ones; what they find becomes an `@example` or a test of its own.
"""

import os

from hypothesis import settings

settings.register_profile("same", derandomize=True)
settings.load_profile("default" if os.environ.get("FIDUCIARY_FUZZ") else "same")
