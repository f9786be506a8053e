"""docs/conditions.md says what the code says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[3]


def _generator() -> ModuleType:
    path = ROOT / "docs" / "conditions.py"
    spec = importlib.util.spec_from_file_location("docs_conditions", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_is_generated_from_the_code() -> None:
    assert (ROOT / "docs" / "conditions.md").read_text() == _generator().page(), "run: python docs/conditions.py"


def test_no_explanation_is_left_over() -> None:
    generator = _generator()
    assert set(generator.FROM_TRAINER) == generator.raised(generator.TRAINER) - generator.registry_words(
        generator.REGISTRY
    )
    assert set(generator.FROM_REGISTRY) == generator.registry_words(generator.REGISTRY)
    above = {word for _, rows in generator.of_operator() for word, _, _ in rows}
    assert set(generator.FROM_EVIDENCE) == generator.evidence_words(generator.REGISTRY, above)
