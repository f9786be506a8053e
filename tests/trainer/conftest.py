"""These tests run inside the trainer's image (Dockerfile target ``trainer-test``), which has torch; elsewhere none is
collected."""

import sys
from importlib.util import find_spec
from pathlib import Path

collect_ignore_glob = [] if find_spec("torch") else ["test_*.py"]

OPERATOR = Path(__file__).parents[2] / "operator"
"""What the trainer measured is judged here by the operator's own code, mounted beside the tests."""
if OPERATOR.is_dir() and str(OPERATOR) not in sys.path:
    sys.path.append(str(OPERATOR))
