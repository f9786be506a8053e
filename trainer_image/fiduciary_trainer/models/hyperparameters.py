"""What a user may set of each architecture, within which bounds, and what holds otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from fiduciary_trainer.outcome import BadContract

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

EWMA_WINDOW = 66
"""Rows of an EWMA's input. With the smallest constant that tuning tries, what lies further back weighs 4 %."""


@dataclass(frozen=True)
class _Setting:
    """An integer or decimal within bounds, both included; ``default`` None: chosen inside the training rows."""

    integer: bool
    low: float
    high: float
    default: int | float | None


@dataclass(frozen=True)
class _Choice:
    """One of several words; with ``many``, several of them joined by ``+``."""

    words: tuple[str, ...]
    default: str
    many: bool = False


_PENALTY = {"penalty": _Setting(False, 0.0, 1e6, None)}
_NETWORK = {
    "hidden": _Setting(True, 1, 1024, 16),
    "epochs": _Setting(True, 1, 10_000, 40),
    "patience": _Setting(True, 1, 10_000, 6),
    "learningRate": _Setting(False, 1e-6, 1.0, 0.003),
    "weightDecay": _Setting(False, 0.0, 10.0, 0.001),
    "batchSize": _Setting(True, 8, 65_536, 256),
    "members": _Setting(True, 1, 32, 3),
}
NETWORKS = ("MLP", "LSTM", "GRU", "TCN", "Transformer", "Ensemble")
"""Trained by epochs."""
SEQUENCES = ("LSTM", "GRU", "TCN", "Transformer")
"""Read a window of rows; an Ensemble does where one of its parts does."""
_WEIGHTS = {"classWeights": _Choice(("none", "balanced"), "none")}
_SEQUENCE = {
    **_PENALTY,
    **_NETWORK,
    **_WEIGHTS,
    "window": _Setting(True, 2, 512, 20),
    "members": _Setting(True, 1, 32, 2),
}
_ATTENTION = {"heads": _Setting(True, 1, 16, 2), "layers": _Setting(True, 1, 8, 1)}
_SETTINGS: Mapping[str, Mapping[str, _Setting | _Choice]] = {
    "EWMA": {},
    "HAR": {},
    "BaseRate": {},
    "Linear": _PENALTY,
    "Logistic": _PENALTY,
    "MLP": {**_PENALTY, **_NETWORK, **_WEIGHTS},
    "LSTM": _SEQUENCE,
    "GRU": _SEQUENCE,
    "TCN": _SEQUENCE,
    "Transformer": {**_SEQUENCE, **_ATTENTION},
    "Ensemble": {
        **_SEQUENCE,
        **_ATTENTION,
        "members": _Setting(True, 1, 32, 1),
        "architectures": _Choice(("MLP", *SEQUENCES), "MLP+LSTM+TCN", many=True),
    },
}

Settings = dict[str, int | float | str | None]


def settings(architecture: str, given: Mapping[str, Any], *, together: bool = True) -> Settings:
    """The settings of an architecture, defaults filled in.

    Args:
        architecture: whose.
        given: the user's.
        together: also whether the values go together.

    Raises:
        BadContract: an unknown name, another type, or a value out of bounds.
    """
    known = _SETTINGS[architecture]
    _demand_known(architecture, given, "training.hyperparameters")
    result: Settings = {name: setting.default for name, setting in known.items()}
    for name, value in given.items():
        result[name] = check(architecture, name, value)
    hidden, heads = result.get("hidden"), result.get("heads")
    if together and isinstance(hidden, int) and isinstance(heads, int) and hidden % heads:
        raise BadContract(
            "InvalidHyperparameter",
            f"training.hyperparameters.hidden is {hidden} and heads {heads}; expected hidden to be a multiple of heads",
        )
    return result


def check(
    architecture: str, name: str, value: Any, where: str = "training.hyperparameters"
) -> int | float | str | None:
    """One value, read. Raises :class:`BadContract`, naming the field ``where``."""
    _demand_known(architecture, (name,), where)
    setting = _SETTINGS[architecture][name]
    read = _chosen if isinstance(setting, _Choice) else _read
    return read(f"{where}.{name}", value, setting)


def _demand_known(architecture: str, names: Iterable[str], where: str) -> None:
    known = _SETTINGS[architecture]
    unknown = sorted(set(names) - set(known))
    if unknown:
        takes = f"it takes {', '.join(sorted(known))}" if known else "it takes none; remove them"
        raise BadContract("UnknownHyperparameter", f"{where} of {architecture} holds {', '.join(unknown)}; {takes}")


def parts(values: Mapping[str, Any], architecture: str) -> tuple[str, ...]:
    """Architectures of the networks that are averaged: those of an Ensemble, else the one itself."""
    return tuple(str(values["architectures"]).split("+")) if architecture == "Ensemble" else (architecture,)


def _chosen(field: str, value: Any, setting: _Choice) -> str:
    words = str(value).split("+") if setting.many else [value]
    if not all(word in setting.words for word in words) or len(set(words)) < len(words):
        several = f"one or several of {', '.join(setting.words)}, joined by +" if setting.many else ""
        raise BadContract(
            "InvalidHyperparameter",
            f"{field} is {value!r}; expected {several or ' or '.join(setting.words)}",
        )
    return str(value)


def _read(field: str, value: Any, setting: _Setting) -> int | float:
    kind = "an integer" if setting.integer else "a decimal number in quotes"
    wrong = BadContract(
        "InvalidHyperparameter",
        f"{field} is {value!r}; expected {kind} from {setting.low:g} to {setting.high:g}",
    )
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise wrong
    try:
        number = Decimal(value)
    except InvalidOperation:
        raise wrong from None
    if not number.is_finite() or not setting.low <= number <= setting.high:
        raise wrong
    if not setting.integer:
        return float(number)
    if number != number.to_integral_value():
        raise wrong
    return int(number)
