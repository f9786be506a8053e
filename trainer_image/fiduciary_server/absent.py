"""Stand-ins for what MLServer imports and never uses here: pandas codecs, Kafka, OpenTelemetry.

Installed they would cost each served version 45 MiB of memory and a second of its start, so the image leaves them out
(requirements-server.in). A stand-in is used only where the real package is not installed; calling one is an error.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKAGES = ("pandas", "aiokafka", "opentelemetry")


class _Module(ModuleType):
    """Has every name: a class of its own, so that annotations and base classes can be evaluated."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        package = self.__name__

        def refuse(self: object, *_: object, **__: object) -> None:
            raise NotImplementedError(f"{package}.{name} is not in this image: the feature that needs it is not used")

        made = type(name, (), {"__init__": refuse, "__module__": package})
        setattr(self, name, made)
        return made


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] not in PACKAGES:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""


def stand_in() -> None:
    """Let MLServer be imported without the packages named above. The last finder: real packages win."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
