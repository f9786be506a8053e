"""The engine's own log lines would drown a failing property test."""

from __future__ import annotations

import structlog

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40), cache_logger_on_first_use=False)
