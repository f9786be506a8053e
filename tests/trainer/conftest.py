"""These tests run inside the trainer's image (Dockerfile target ``trainer-test``), which has torch; elsewhere none is
collected."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("torch") else ["test_*.py"]
