"""The search: nested, the same whoever carries it out, whatever interrupts it, and honest about what failed."""

from __future__ import annotations

import itertools
import resource
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="runs in the trainer image")
pytest.importorskip("optuna", reason="runs in the trainer image")
from fiduciary_features import Bars
from fiduciary_trainer import contract, limits, pipeline, procedure
from fiduciary_trainer.checkpoint import Attempt
from fiduciary_trainer.data import Locations
from fiduciary_trainer.models import ridge
from fiduciary_trainer.outcome import BadContract, DataRefused, Diverged, Retryable
from fiduciary_trainer.search import sampling, summary
from fiduciary_trainer.search.run import Searcher
from fiduciary_trainer.search.share import Share
from fiduciary_trainer.search.trials import Tried
from fiduciary_trainer.validation import splits_document
from fiduciary_trainer.walkforward import fit_final, run_walk_forward
from tests.trainer.contracts import document
from tests.trainer.test_training import bars, silent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from fiduciary_trainer.search.run import Searched
    from fiduciary_trainer.search.trials import Trial

FRAME = bars(1500)
SPACE = {"hidden": {"int": [2, 16]}, "learningRate": {"decimal": ["0.0001", "0.1"], "log": True}}
PENALTY = {"penalty": {"decimal": ["0.0001", "100"], "log": True}}
SMALL = {"epochs": 3, "patience": 3, "members": 1}


def job(
    search: Mapping[str, Any], architecture: str = "Linear", given: Mapping[str, Any] | None = None, **changes: Any
) -> contract.Contract:
    """A search of two folds and the final model; over the penalty of a ridge regression where nothing else is said,
    since what carries trials out is the same and a fit takes a millisecond."""
    return contract.parse(
        document(
            architecture,
            training__search={"trials": 6, "space": PENALTY if architecture == "Linear" else SPACE, **search},
            training__hyperparameters=dict(given or {}),
            training__validation={"folds": 2, "purge": 1, "embargo": 40, "costBps": "2"},
            data__features={"set": "har-v1"},
            **changes,
        )
    )


def searched(made: contract.Contract, frame: Bars = FRAME, attempt: Attempt | None = None, **more: Any) -> Searched:
    share = more.pop("share", Share())
    tell = more.pop("tell", lambda count, trial: None)
    found = procedure.search(frame, made, silent, attempt or Attempt.begin(made, "sha256:d"), share, tell)
    assert found is not None
    return found


def told(trials: Sequence[Trial]) -> list[tuple[int, tuple[Tried, ...], bytes]]:
    """Everything about the trials but how long they took."""
    return [(trial.number, trial.tried, trial.daily.tobytes()) for trial in trials]


# --- what may be asked for -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("search", "reason", "words"),
    [
        ({"space": {}}, "InvalidValue", ["training.search.space", "at least one"]),
        ({"space": {"hidden": {"int": [8, 2]}}}, "InvalidValue", ["space.hidden.int", "low < high"]),
        ({"space": {"hidden": {"int": [2, 8], "choice": ["2", "4"]}}}, "InvalidValue", ["exactly one"]),
        ({"space": {"learningRate": {"decimal": ["0", "0.1"], "log": True}}}, "InvalidValue", ["low above 0"]),
        ({"space": {"hidden": {"int": [2, 5000]}}}, "InvalidHyperparameter", ["space.hidden", "5000", "1 to 1024"]),
        ({"space": {"depth": {"int": [2, 8]}}}, "UnknownHyperparameter", ["search.space", "depth", "hidden"]),
        ({"space": {"epochs": {"int": [2, 8]}}}, "SearchedAndSet", ["epochs", "keep one"]),
        ({"sampler": "Grid", "trials": 3}, "GridTooLarge", ["trials is 3", "4 combinations", "TPE"]),
        ({"sampler": "Bayes"}, "InvalidValue", ["TPE, Random, Grid"]),
        ({"trials": 0}, "InvalidValue", ["training.search.trials"]),
    ],
)
def test_a_search_that_cannot_be_carried_out_is_refused_before_data_are_read(
    search: dict[str, Any], reason: str, words: list[str]
) -> None:
    with pytest.raises(BadContract) as refused:
        job(search, "MLP", SMALL)
    assert refused.value.reason == reason
    assert all(word in refused.value.message for word in words), refused.value.message


def test_a_reference_model_has_nothing_to_search() -> None:
    with pytest.raises(BadContract, match="takes none"):
        job({"space": {"penalty": {"decimal": ["0", "1"]}}}, "HAR", {})


def test_a_grid_has_both_ends_of_every_range_and_no_more_than_the_trials() -> None:
    wanted = job({"sampler": "Grid", "trials": 20}, "MLP").training.search
    assert wanted is not None
    assert wanted.trials == len(wanted.grid) == 16, "4 by 4; 5 by 5 would be too many"
    assert {each["hidden"] for each in wanted.grid} == {2, 7, 11, 16}
    assert {each["learningRate"] for each in wanted.grid} == {"0.0001", "0.001", "0.01", "0.1"}


def test_a_drawn_decimal_never_leaves_its_range() -> None:
    wanted = job({"space": {"learningRate": {"decimal": ["0.00012345", "0.00012346"]}}}, "MLP").training.search
    assert wanted is not None
    [dimension] = wanted.space
    assert {dimension.written(value) for value in np.linspace(0.00012345, 0.00012346, 9).tolist()} <= {
        "0.00012345",
        "0.00012346",
    }


# --- nested -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["TPE", "Random"])
def test_no_test_row_has_a_say_in_what_is_tested_on_it(sampler: str) -> None:
    """What comes after the training rows of a fold is replaced by another market: its search does not notice."""
    made = job({"sampler": sampler, "trials": 12})
    fitter = procedure.fitter(FRAME, made, silent, None, before=0)
    first_test = procedure.folds(fitter)[0][1]
    other = bars(1500)
    noise = np.random.default_rng(3).normal(0, 0.08, len(other.time))
    later = FRAME.time >= fitter.prepared.dates[first_test[0]]
    columns = {
        name: np.where(later, values * np.exp(noise if name != "volume" else 0.0), FRAME.columns[name])
        for name, values in other.columns.items()
    }
    columns["high"] = np.maximum.reduce([columns[name] for name in ("open", "high", "low", "close")])
    columns["low"] = np.minimum.reduce([columns[name] for name in ("open", "high", "low", "close")])
    one, two = searched(made), searched(made, Bars(FRAME.time, FRAME.entity, columns))
    assert [trial.tried[0] for trial in one.trials] == [trial.tried[0] for trial in two.trials]
    assert one.best[0] == two.best[0]
    assert told(one.trials) != told(two.trials), "the other market was seen by the searches that may see it"


def test_the_splits_of_a_search_are_written_down_and_keep_the_embargo() -> None:
    made = job({"trials": 1})
    walk = run_walk_forward(FRAME, made, silent)
    assert walk.calendar is not None
    written = splits_document.document(walk.calendar, walk.folds, nested=True, searched=True)
    inner = [entry for split in written["splits"] for entry in split["inner"] if entry["scheme"] == "Search"]
    assert len(inner) == 9, "three in each of two folds, and in the rows of the final model"
    assert splits_document.violations(written) == []


def test_every_fit_uses_what_its_own_search_has_found() -> None:
    made = job({"trials": 3}, "MLP", SMALL)
    found = searched(made)
    walk = run_walk_forward(FRAME, made, silent, selection=found.selection)
    final = fit_final(FRAME, made, silent, selection=found.selection)
    for number, chosen in enumerate((*walk.chosen, final.chosen)):
        configuration = found.best[number][1]
        assert chosen["hidden"] == configuration["hidden"]
        assert chosen["learningRate"] == float(configuration["learningRate"])
    assert run_walk_forward(FRAME, made, silent).prediction.tobytes() == walk.prediction.tobytes(), (
        "a replay, which is given no selection, finds the same"
    )


def test_what_is_better_is_found_and_what_is_worse_is_not_chosen() -> None:
    """A penalty of a million leaves the mean; the market's volatility persists."""
    draw = np.random.default_rng(2)
    level = np.zeros(1500)
    for day in range(1, 1500):
        level[day] = 0.97 * level[day - 1] + 0.2 * draw.normal()
    close = 100 * np.exp(np.cumsum(0.01 * np.exp(level) * draw.normal(size=1500)))
    width = np.exp(0.01 * np.exp(level) * (0.2 + np.abs(draw.normal(size=1500))))
    columns = {"open": close, "high": close * width, "low": close / width, "close": close, "volume": close}
    market = Bars(FRAME.time, FRAME.entity, columns)
    made = job({"trials": 2, "sampler": "Grid", "space": {"penalty": {"choice": ["1000000", "0.01"]}}}, "Linear", {})
    found = searched(made, market)
    assert {number: configuration for number, (_, configuration) in found.best.items()} == {
        number: {"penalty": "0.01"} for number in range(3)
    }
    losses = [trial.followed.loss for trial in found.trials]
    assert losses[1] < 0.8 * losses[0]
    assert found.days == len(found.trials[1].daily) > 700


def test_windows_of_several_lengths_are_compared_on_the_same_days() -> None:
    space = {"window": {"choice": ["2", "9"]}, "architectures": {"choice": ["MLP", "LSTM"]}}
    made = job({"trials": 4, "sampler": "Grid", "space": space}, "Ensemble", {**SMALL, "epochs": 1, "hidden": 2})
    found = searched(made)
    assert made.window == 9
    assert {len(trial.daily) for trial in found.trials} == {found.days}
    final = fit_final(FRAME, made, silent, selection={2: found.search.settings(found.trials[0].tried[0].configuration)})
    assert (final.input_kind, final.window) == ("row", 1), "a perceptron reads one row, whatever else was tried"
    assert final.examples.shape[1:] == (3,)


@pytest.mark.parametrize("words", [["MLP", "MLP+LSTM+GRU+TCN+Transformer"], ["MLP", "LSTM"]])
def test_steps_and_rows_are_for_the_widest_of_all_ensembles(words: list[str]) -> None:
    wanted = {"trials": 2, "sampler": "Grid", "space": {"architectures": {"choice": words}}}
    made = job(wanted, "Ensemble", {**SMALL, "window": 3})
    assert len(made.training.parts) == max(3, words[-1].count("+") + 1), "progress would go beyond its end"
    assert made.windowed


# --- the same, whoever carries it out --------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["TPE", "Random", "Grid"])
def test_an_interrupted_search_goes_on_and_ends_as_one_that_was_not(sampler: str, tmp_path: Path) -> None:
    trials = 14 if sampler == "TPE" else 4  # optuna's TPE draws the first ten at random
    made = job({"sampler": sampler, "trials": trials}, checkpoint={"uri": "pvc://ckpt/here", "every": 1})
    places = Locations(checkpoints=tmp_path)
    whole = searched(job({"sampler": sampler, "trials": trials}))
    carried: set[int] = set()

    def end(count: Any, trial: Mapping[str, Any]) -> None:
        new = trial["number"] not in carried  # those that an earlier attempt has left are told of again
        carried.add(trial["number"])
        if new and len(carried) % 3 == 0:
            raise KeyboardInterrupt  # as good as SIGKILL: nothing is said to the search

    found, attempts = None, 0
    while found is None:
        attempts += 1
        try:
            found = searched(made, attempt=Attempt.begin(made, "sha256:d", places), tell=end)
        except KeyboardInterrupt:
            assert len(carried) == 3 * attempts
    assert attempts == trials // 3 + 1
    assert told(found.trials) == told(whole.trials)
    assert found.best == whole.best


def test_sigterm_ends_between_two_epochs_and_keeps_the_trials(tmp_path: Path) -> None:
    made = job({"trials": 3}, "MLP", SMALL, checkpoint={"uri": "pvc://ckpt/here", "every": 1})
    attempt = Attempt.begin(made, "sha256:d", Locations(checkpoints=tmp_path))

    def stop(count: Any, trial: Mapping[str, Any]) -> None:
        attempt.asked_to_stop = trial["number"] == 1

    with pytest.raises(Retryable):
        searched(made, attempt=attempt, tell=stop)
    trials = Attempt.begin(made, "sha256:d", Locations(checkpoints=tmp_path)).trials()
    assert [number for number in range(3) if trials.get(number) is not None] == [0, 1]


@pytest.mark.parametrize("other", ["data", "key"])
def test_trials_of_another_training_do_not_count(other: str, tmp_path: Path) -> None:
    changed = {"trainingKey": "sha256:" + "0123456789abcdef" * 2 + "f" * 32} if other == "key" else {}
    first = job({"trials": 1}, checkpoint={"uri": "pvc://ckpt/here", "every": 1})
    second = job({"trials": 1}, checkpoint={"uri": "pvc://ckpt/here", "every": 1}, **changed)
    places = Locations(checkpoints=tmp_path)
    searched(first, attempt=Attempt.begin(first, "sha256:d", places))
    digest = "sha256:e" if other == "data" else "sha256:d"
    assert Attempt.begin(second, digest, places).trials().get(0) is None
    assert Attempt.begin(first, "sha256:d", places).trials().get(0) is not None


def test_a_damaged_trial_is_carried_out_again(tmp_path: Path) -> None:
    made = job({"trials": 2}, checkpoint={"uri": "pvc://ckpt/here", "every": 1})
    places = Locations(checkpoints=tmp_path)
    whole = searched(made, attempt=Attempt.begin(made, "sha256:d", places))
    [file] = tmp_path.glob("ckpt/here/*.trials/0001.npz")
    file.write_bytes(file.read_bytes()[:100])
    assert told(searched(made, attempt=Attempt.begin(made, "sha256:d", places)).trials) == told(whole.trials)


def test_no_flipped_bit_of_a_trial_is_believed_or_ends_the_training(tmp_path: Path) -> None:
    """Of an archive some are no damage to its own reader, and some make it raise what nobody expects."""
    made = job({"trials": 1}, checkpoint={"uri": "pvc://ckpt/here", "every": 1})
    places = Locations(checkpoints=tmp_path)
    searched(made, attempt=Attempt.begin(made, "sha256:d", places))
    [file] = tmp_path.glob("ckpt/here/*.trials/0000.npz")
    whole, attempt = file.read_bytes(), Attempt.begin(made, "sha256:d", places)
    assert attempt.trials().get(0) is not None
    # All of the archive's directory at the end, and some of what is before it.
    for place in {*range(0, len(whole), 211), *range(max(0, len(whole) - 300), len(whole))}:
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 8]) + whole[place + 1 :])
        assert attempt.trials().get(0) is None, place


def test_what_is_kept_is_gone_once_the_work_is_safe_elsewhere(tmp_path: Path) -> None:
    made = job({"trials": 2}, checkpoint={"uri": "pvc://ckpt/here", "every": 1})
    attempt = Attempt.begin(made, "sha256:d", Locations(checkpoints=tmp_path))
    searched(made, attempt=attempt)
    assert len(list(tmp_path.glob("ckpt/here/*.trials/*.npz"))) == 2
    attempt.forget()
    assert list(tmp_path.glob("ckpt/here/*")) == []


def test_two_pods_find_what_one_does(tmp_path: Path) -> None:
    made = job({"trials": 7, "parallelism": 2}, checkpoint={"uri": "pvc://ckpt/here", "every": 1})
    whole = searched(job({"trials": 7, "parallelism": 2}))
    places, found, errors = Locations(checkpoints=tmp_path), {}, []

    def pod(index: int) -> None:
        attempt = replace(Attempt.begin(made, "sha256:d", places), writes=index == 0)
        try:
            found[index] = searched(made, attempt=attempt, share=Share(index, patience=300))
        except BaseException as error:  # the assertion below shows it
            errors.append(error)

    pods = [threading.Thread(target=pod, args=(index,)) for index in (0, 1)]
    for each in pods:
        each.start()
    for each in pods:
        each.join()
    assert errors == []
    assert told(found[0].trials) == told(found[1].trials) == told(whole.trials)


def test_a_pod_that_only_carries_out_trials_keeps_within_its_memory_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = job({"trials": 1, "parallelism": 2}, checkpoint={"uri": "pvc://ckpt/here", "every": 1})
    before = resource.getrlimit(resource.RLIMIT_DATA)
    monkeypatch.setattr(limits, "of_pod", lambda: limits.Limits(1, 1 << 40))
    try:
        carried = pipeline.carry_out_trials(made, Locations(checkpoints=tmp_path), Share(0), threading.Event())
        assert carried == 1
        assert 1 << 40 < resource.getrlimit(resource.RLIMIT_DATA)[0] < 1 << 41
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def test_a_pod_that_never_comes_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    made = job({"trials": 4, "parallelism": 2}, checkpoint={"uri": "pvc://ckpt/here", "every": 1})
    counts: list[tuple[int, int]] = []
    found = searched(
        made,
        attempt=Attempt.begin(made, "sha256:d", Locations(checkpoints=tmp_path)),
        share=Share(0, patience=0.0),
        tell=lambda count, trial: counts.append((count.ended, count.running)),
    )
    assert told(found.trials) == told(searched(job({"trials": 4, "parallelism": 2})).trials)
    assert counts == [(1, 2), (2, 1), (3, 1), (4, 0)], "a pod that did not come carries nothing out"


def test_a_pod_that_was_killed_still_knows_how_long_a_trial_takes(tmp_path: Path) -> None:
    made = job({"trials": 2, "parallelism": 2}, checkpoint={"uri": "pvc://ckpt/here", "every": 1})
    kept = Attempt.begin(made, "sha256:d", Locations(checkpoints=tmp_path)).trials()
    kept.put(replace(searched(job({"trials": 2, "parallelism": 2})).trials[0], seconds=1000.0))
    fitter, hours = procedure.fitter(FRAME, made, silent, None, before=0), itertools.count(0, 3600)
    trains = [(number, train) for number, (train, _) in enumerate(procedure.folds(fitter))]
    trains.append((2, np.arange(len(fitter.prepared.y))))
    assert made.training.search is not None
    share = Share(0, patience=0.0)
    Searcher(fitter, made.training.search, trains, kept, share, clock=lambda: float(next(hours) / 4)).run()
    assert next(hours) / 4 > 2000, "the other pod's trial was waited for twice as long"


# --- what fails, what is given up, what that says ------------------------------------------------------------------


def test_values_that_do_not_go_together_are_a_failed_trial_with_its_reason() -> None:
    space = {"hidden": {"choice": ["4", "5"]}, "heads": {"choice": ["2", "4"]}}
    given = {**SMALL, "window": 3, "epochs": 1}
    found = searched(job({"trials": 4, "sampler": "Grid", "space": space}, "Transformer", given))
    assert [trial.followed.state for trial in found.trials] == ["Complete", "Failed", "Complete", "Failed"]
    assert "multiple of heads" in found.trials[1].followed.reason
    assert (found.count.failed, found.count.ended, found.count.running) == (2, 4, 0)
    said = summary.of_search(found, folds=2)
    assert (said["failed"], said["complete"]) == (2, 2)
    assert sum(said["failures"].values()) == 2
    assert [each["for"] for each in said["selected"]] == ["fold_1", "fold_2", "final"]


def test_a_configuration_whose_loss_is_no_number_is_a_failed_trial() -> None:
    """Each step of the second one multiplies the weights by one minus rate times decay: by minus nine."""
    given = {"epochs": 60, "patience": 60, "members": 1, "batchSize": 64, "learningRate": "1"}
    found = searched(
        job({"trials": 2, "sampler": "Grid", "space": {"weightDecay": {"choice": ["0", "10"]}}}, "MLP", given)
    )
    assert [trial.followed.state for trial in found.trials] == ["Complete", "Failed"]
    assert "expected a number" in found.trials[1].followed.reason


def test_what_cannot_be_solved_on_all_rows_says_nothing_of_the_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The final model's rows hold every fold's test rows: their failure may not be one of a fold's own trial."""
    space = {"penalty": {"choice": ["0.5", "0.01"]}}
    made, solve = job({"trials": 2, "sampler": "Grid", "space": space}), ridge.ridge
    most = 0.75 * len(procedure.fitter(FRAME, made, silent, None, before=0).prepared.y)

    def singular(x: Any, y: Any, penalty: float) -> ridge.Coefficients:
        if penalty == 0.5 and len(x) > most:
            raise np.linalg.LinAlgError("Singular matrix")
        return solve(x, y, penalty)

    whole = searched(made).trials[0]
    monkeypatch.setattr(ridge, "ridge", singular)
    found = searched(made).trials[0]
    assert (found.followed.state, whole.followed.state) == ("Failed", "Complete")
    assert found.tried[:-1] == whole.tried[:-1]


def test_a_search_of_which_nothing_came_ends_the_training() -> None:
    space = {"hidden": {"choice": ["5", "7"]}}
    with pytest.raises(Diverged, match="none of 2 trials") as failed:
        searched(job({"trials": 2, "sampler": "Grid", "space": space}, "Transformer", {**SMALL, "window": 3}))
    assert failed.value.reason == "NoTrialSucceeded"
    assert "multiple of heads" in failed.value.message


def test_too_few_rows_to_compare_trials_on_are_said() -> None:
    with pytest.raises(DataRefused, match="nothing to compare trials on"):
        searched(job({"trials": 2}), bars(600))


def tried(*means: float, state: Any = "Complete") -> Tried:
    return Tried({"hidden": 2}, state, means)


@pytest.mark.parametrize(
    ("means", "known", "given_up"),
    [
        ([1.1], [tried(value, 1.0, 1.0) for value in (0.8, 0.9, 1.0, 1.1, 1.2)], True),
        ([1.0], [tried(value, 1.0, 1.0) for value in (0.8, 0.9, 1.0, 1.1, 1.2)], False),
        ([9.0], [tried(1.0, 1.0, 1.0)] * 4, False),  # too few
        ([9.0], [tried(1.0, 1.0, 1.0)] * 4 + [tried(1.0, state="Pruned")] * 9, False),  # given up is not complete
        ([0.5, 1.5], [tried(2.0, 1.0, 1.0)] * 5, True),  # where it stands now, not the calmest stretch it has seen
    ],
)
def test_the_median_rule(means: list[float], known: list[Tried], given_up: bool) -> None:
    wanted, never = (job({"pruner": pruner}).training.search for pruner in ("Median", "None"))
    assert wanted is not None
    assert never is not None
    assert sampling.give_up(wanted, means, known) is given_up
    assert not sampling.give_up(never, means, known)


def test_overfitting_is_judged_over_the_trials_that_came_to_their_end() -> None:
    found = searched(job({"trials": 14, "sampler": "Random"}))
    states = [trial.followed.state for trial in found.trials]
    assert "Pruned" in states, "of fourteen draws some are worse than the median"
    said = summary.overfitting(found)
    assert said["trials"] == states.count("Complete")
    assert said["leftOut"] == 14 - said["trials"]
    assert 0.0 <= said["probability"] <= 1.0
    one = searched(job({"trials": 1}))
    assert "at least 2" in summary.overfitting(one)["unavailable"]
