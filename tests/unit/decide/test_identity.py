"""Keys: what changes them, what does not, and golden values that may never move."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fiduciary.decide import identity
from tests.unit.decide.worlds import model

AS_OF = "2017-12-29"
RETRAIN = {"requestId": "retrain-1"}


def keys(change: dict[str, Any], trigger: dict[str, str] | None = None) -> tuple[str, str, str]:
    spec = model(change).spec
    as_of = spec.data.as_of if spec.data.as_of != "Rolling" else AS_OF
    return identity.training_key(spec, as_of, trigger or {}), identity.spec_key(spec), identity.config_key(spec)


BEFORE = keys({})

#: trainingKey, specKey and configKey of each.
EXPECTED: dict[str, tuple[str, str, str]] = {
    "har": (
        "sha256:e6ea84abfb889b51ab52a11f18577f5b55c2d30df6a227c93351c57ba8049caf",
        "sha256:e6ea84abfb889b51ab52a11f18577f5b55c2d30df6a227c93351c57ba8049caf",
        "sha256:74878b3926974c30b2d15f5f3bcb4b929ff29d60d4e8718ea921d7bd570a4abd",
    ),
    "linear": (
        "sha256:bc5b58d4606d4f19949891a1f9581238a6d0d357f8398cb6d17ada05bcb7b43d",
        "sha256:bc5b58d4606d4f19949891a1f9581238a6d0d357f8398cb6d17ada05bcb7b43d",
        "sha256:98ca6868792c9e030add9fac3e4433becf46235fdee5c089c1468eb0de082948",
    ),
    "files": (
        "sha256:531a8d50d2b7bb56e7431611e5bbf68c92badd1a34a9c282aebc885c21da01e2",
        "sha256:a5b9a7b4d8703c90641ee2ba478d29f881c241dc2e83c6e69bf1952e24e66b2a",
        "sha256:6134730cd3662836ffc4e4c9a1587304425dbe57ca272fdd5c4637c775cf78f9",
    ),
    "search": (
        "sha256:ea545758f2e7cbebf892cf49a94d12dbfd2ac5f1b8a20538dc45af67484ba12c",
        "sha256:ea545758f2e7cbebf892cf49a94d12dbfd2ac5f1b8a20538dc45af67484ba12c",
        "sha256:61939fb4c467661c8d02f4f29cbd218eac96aed50a715bff64dfb5dde19fb58d",
    ),
}

GOLDEN: dict[str, dict[str, Any]] = {
    "har": {},
    "linear": {"training": {"architecture": "Linear", "hyperparameters": {"penalty": "0.5"}, "seed": 11}},
    "files": {
        "data": {
            "source": {"dataset": None, "files": {"uri": "s3://desk/spx/*.parquet", "secretRef": {"name": "desk-s3"}}},
            "entity": "symbol",
            "asOf": "Rolling",
        },
    },
    "search": {
        "training": {
            "architecture": "MLP",
            "image": "registry.example.com/trainer@sha256:" + "0" * 64,
            "search": {"trials": 5, "space": {"hidden": {"int": [8, 64]}}},
        }
    },
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_keys(name: str) -> None:
    """A changed value here retrains every model of every user. Do not update it: find what moved."""
    assert keys(GOLDEN[name]) == EXPECTED[name]


TRAINS_NOTHING: dict[str, dict[str, Any]] = {
    "checks": {"data": {"checks": {"minRows": 900, "maxStaleness": "9d"}}},
    "resources": {"training": {"resources": {"limits": {"cpu": "4"}}}},
    "retry": {"training": {"retry": {"limit": 5}}},
    "deadline": {"training": {"activeDeadline": "3h"}},
    "queue": {"training": {"queueName": "night"}},
    "pods": {"training": {"podTemplate": {"nodeSelector": {"disk": "ssd"}}}},
    "checkpoint": {"training": {"checkpoint": {"uri": "pvc://ckpt/spx", "every": 2}}},
    "schedule": {"training": {"schedule": {"cron": "0 22 * * 1-5"}}},
    "gates": {"gates": [{"metric": "har_skill", "above": "0.01"}]},
    "governance": {"governance": {"owner": "desk", "purpose": "a purpose"}},
    "registry": {"registry": {"model": "other"}},
    "kill": {"kill": {"engaged": True}},
    "promotion": {"promotion": {"mode": "Manual"}},
    "written defaults": {
        "training": {
            "seed": 7,
            "validation": {"scheme": "WalkForward", "folds": 6, "purge": 1, "embargo": 66, "costBps": "2"},
            "hyperparameters": {},
            "engine": "Job",
        },
        "data": {"label": {"horizon": 1, "column": "close"}},
    },
}


@pytest.mark.parametrize("name", TRAINS_NOTHING)
def test_edits_beside_the_training_change_no_key(name: str) -> None:
    assert keys(TRAINS_NOTHING[name]) == BEFORE


TRAINS: dict[str, dict[str, Any]] = {
    "architecture": {"training": {"architecture": "EWMA"}},
    "hyperparameters": {"training": {"hyperparameters": {"window": 30}}},
    "seed": {"training": {"seed": 8}},
    "quantiles": {"training": {"quantiles": ["0.05", "0.95"]}},
    "folds": {"training": {"validation": {"folds": 5}}},
    "image": {"training": {"image": "registry.example.com/trainer:2"}},
    "label": {"data": {"label": {"horizon": 5}}},
    "features": {"data": {"features": {"set": "har-v1"}}},
    "entity": {"data": {"entity": "symbol"}},
}


@pytest.mark.parametrize("name", TRAINS)
def test_edits_of_the_training_change_every_key(name: str) -> None:
    assert all(a != b for a, b in zip(keys(TRAINS[name]), BEFORE, strict=True))


def test_new_data_is_a_new_training_of_the_same_configuration() -> None:
    for change in ({"data": {"asOf": "2018-06-29"}}, {"data": {"source": {"dataset": {"name": "arch/nasdaq"}}}}):
        training, spec, config = keys(change)
        assert training != BEFORE[0]
        assert spec != BEFORE[1]
        assert config == BEFORE[2]


def test_a_trigger_changes_the_training_only() -> None:
    training, spec, config = keys({}, RETRAIN)
    assert training != BEFORE[0]
    assert (spec, config) == BEFORE[1:]


def test_rolling_is_one_spec_and_a_training_a_day() -> None:
    spec = model({"data": {"asOf": "Rolling"}}).spec
    days = {identity.training_key(spec, day, {}) for day in ("2026-11-23", "2026-11-24")}
    assert len(days) == 2
    assert identity.spec_key(spec) != BEFORE[1], "from a fixed date to Rolling is a change of the spec"


def test_credentials_are_no_identity() -> None:
    source = {"dataset": None, "files": {"uri": "s3://desk/spx.csv"}}
    with_secret = {"dataset": None, "files": {"uri": "s3://desk/spx.csv", "secretRef": {"name": "other"}}}
    assert keys({"data": {"source": source}}) == keys({"data": {"source": with_secret}})


def test_order_of_gates_does_not_count() -> None:
    gates = [{"metric": "har_skill", "above": "0"}, {"metric": "mse", "below": "1"}]
    one, other = (model({"gates": order}).spec.gates for order in (gates, gates[::-1]))
    assert identity.gates_digest(one) == identity.gates_digest(other)
    assert identity.gates_digest(one) != identity.gates_digest(one[:1])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [1.0, 0.5, None, True]}, '{"a":[1,0.5,null,true],"b":1}'),
        ("Garman–Klass", '"Garman–Klass"'),
        (1e16, "10000000000000000"),
        (-0.0, "0"),
    ],
)
def test_canonical_json(value: Any, text: str) -> None:
    assert identity.canonical(value).decode() == text


def test_no_hash_of_nan() -> None:
    with pytest.raises(ValueError, match="JSON"):
        identity.canonical({"e": float("nan")})


Json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@given(Json)
def test_canonical_survives_storage(value: Any) -> None:
    """The API server stores 1.0 as 1: a hash before and after must be the same."""
    stored = json.loads(identity.canonical(value))
    assert identity.digest(stored) == identity.digest(value)


def test_names() -> None:
    key = "sha256:" + "0123456789abcdef" * 4
    assert identity.job_name("spx", key, 2) == "spx-01234567-2"
    assert identity.record_name("spx", 12) == "spx-12"
