"""Exit codes, the size limit and what a failure may say."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from fiduciary_trainer import outcome


def _result(folds: int, metrics: int = 16) -> dict:
    values = [0.0123456789 + 0.001 * fold for fold in range(folds)]
    return {
        "contractVersion": 1,
        "outcome": "Measured",
        "metrics": {
            f"metric_{number}_{'skill' if number < 3 else 'value'}": {"e": 0.07012345, "se": 0.01123456, "f": values}
            for number in range(metrics)
        },
    }


def test_exit_codes_are_those_of_the_contract() -> None:
    kinds = (outcome.DataRefused, outcome.Diverged, outcome.OutOfMemory, outcome.BadContract, outcome.Retryable)
    assert [kind.exit_code for kind in kinds] == [42, 43, 44, 64, 75]
    for kind in kinds:
        code, document = outcome.failure(kind("Why", "seen, expected, do"), "sha256:ab", "run1")
        assert code == kind.exit_code
        assert json.loads(document) == {
            "contractVersion": 1,
            "outcome": kind.__name__,
            "trainingKey": "sha256:ab",
            "runId": "run1",
            "reason": "Why",
            "message": "seen, expected, do",
        }


class OutOfMemoryError(RuntimeError):
    """As torch names that of a GPU."""


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError("Unable to allocate 8.00 GiB for an array with shape (1, 2)"), ("the pod's", "8.00 GiB more")),
        (MemoryError(), ("the pod's", "more was asked for")),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: "
                         "you tried to allocate 549755813888 bytes. Error code 12 (Cannot allocate memory)"),
            ("the pod's", "549755813888 bytes more"),
        ),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB."), ("the accelerator's", "2.50 GiB more")),
        (RuntimeError("CUDA error: out of memory"), ("the accelerator's", "batchSize")),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
         ("the accelerator's", "batchSize")),
        (RuntimeError("std::bad_alloc"), ("the pod's", "more was asked for")),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), ("the pod's", "limits.memory")),
        (caused(ValueError("the file cannot be read"), MemoryError()), ("the pod's", "limits.memory")),
    ],
    ids=["numpy", "python", "torch", "gpu", "driver", "cublas", "c++", "system", "cause"],
)  # fmt: skip
def test_memory_that_is_refused_is_no_bug(error: Exception, words: tuple[str, ...]) -> None:
    code, document = outcome.failure(error, "sha256:ab")
    said = json.loads(document)
    assert (code, said["outcome"], said["reason"]) == (44, "OutOfMemory", "OutOfMemory")
    for word in words:
        assert word in said["message"]
    assert "bug" not in said["message"]


def test_numbers_carry_five_digits_and_nan_is_null() -> None:
    document = {"a": 0.070123456, "b": float("nan"), "c": [float("inf"), 1234567.0], "d": 3100, "e": True, "f": "x"}
    assert json.loads(outcome.fit(document)) == {
        "a": 0.070123, "b": None, "c": [None, 1234600.0], "d": 3100, "e": True, "f": "x",
    }  # fmt: skip


def test_a_result_that_fits_is_left_whole() -> None:
    assert "truncated" not in json.loads(outcome.fit(_result(folds=6)))


def test_a_result_with_many_folds_is_cut_to_the_limit_and_says_what_is_missing() -> None:
    encoded = outcome.fit(_result(folds=30))
    document = json.loads(encoded)
    assert len(encoded) <= 4096
    assert document["truncated"]
    assert all(not name.endswith("_skill.f") for name in document["truncated"])
    assert all(metric["e"] == 0.070123 and metric["se"] == 0.011235 for metric in document["metrics"].values())
    for name in document["truncated"]:
        assert "f" not in document["metrics"][name.removesuffix(".f")]


def test_a_result_that_cannot_be_cut_is_an_error() -> None:
    with pytest.raises(ValueError, match="bytes without fold values"):
        outcome.fit({"metrics": {}, "checks": {"x" * 5000: 1}})


def test_an_unexpected_exception_names_type_place_and_no_values() -> None:
    def parse() -> None:
        float("4711.25 of account 12")

    with pytest.raises(ValueError, match="could not convert") as caught:
        parse()
    code, document = outcome.failure(caught.value, "sha256:ab")
    said = json.loads(document)
    assert code == 1
    assert said["outcome"] == "Failed"
    assert said["reason"] == "ValueError"
    assert "test_outcome.py" in said["message"]
    assert "in parse" in said["message"]
    assert "4711" not in said["message"]


def test_secrets_and_credentials_in_urls_are_not_repeated() -> None:
    error = outcome.Retryable("SourceUnreachable", "https://ana:hunter22@s3.example.com/x refused key AKIA123SECRET")
    _, document = outcome.failure(error, None, secrets=["AKIA123SECRET", ""])
    message = json.loads(document)["message"]
    assert message == "https://***@s3.example.com/x refused key ***"


def test_names_stay_readable() -> None:
    _, document = outcome.failure(AttributeError("'Training' object has no attribute 'rows'"), None)
    assert "'Training' object has no attribute 'rows'" in json.loads(document)["message"]
    _, document = outcome.failure(KeyError("close"), None)
    assert "'close'" in json.loads(document)["message"]


def test_the_message_is_written_where_kubernetes_reads_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome.write(tmp_path / "termination-log", b"{}")
    assert (tmp_path / "termination-log").read_bytes() == b"{}"
    outcome.write(tmp_path / "absent" / "termination-log", b'{"a":1}')
    outcome.write(Path("/dev/no-termination-log"), b"[]")
    assert capsys.readouterr().out == '{"a":1}\n[]\n'
    assert not Path("/dev/no-termination-log").exists()
