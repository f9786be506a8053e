"""`python -m tests.in_trainer_image [pytest options]`: the trainer's tests where they belong, inside its own image."""

from __future__ import annotations

import sys

from tests import in_image

if __name__ == "__main__":
    sys.exit(in_image.main("trainer", "trainer-test", "trainer"))
