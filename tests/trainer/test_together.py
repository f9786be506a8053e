"""Networks that are trained together are those that would be trained alone, to rounding."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from fiduciary_trainer.checkpoint import Attempt
from fiduciary_trainer.models import modules, sequences, stacks, together
from fiduciary_trainer.models.ridge import Coefficients
from fiduciary_trainer.outcome import Retryable
from fiduciary_trainer.steps import Steps
from fiduciary_trainer.training import Network, make_deterministic, train_member
from fiduciary_trainer.walkforward import fit_final, run_walk_forward
from tests.trainer.test_training import bars, job, same, silent, weights

if TYPE_CHECKING:
    from collections.abc import Callable

SETTINGS: dict[str, Any] = {
    "epochs": 12, "patience": 4, "learningRate": 0.02, "weightDecay": 0.01, "batchSize": 32, "members": 2
}  # fmt: skip
ROWS, FEATURES, WINDOW = 600, 5, 11
CORES: dict[str, Callable[[int], torch.nn.Module]] = {
    "MLP": lambda _: modules.Perceptron(FEATURES, 6),
    "TCN": lambda window: sequences.TemporalConvolution(FEATURES, 6, window),
    "GRU": lambda _: sequences.Recurrent("GRU", FEATURES, 6),
}


def networks(
    probability: bool, balanced: bool = False, architecture: str = "MLP", window: int = WINDOW
) -> tuple[list[Network], list[together.Key]]:
    """Three folds of growing length, two members each, with transforms and targets of their own."""
    rows = torch.arange(ROWS)
    windows = rows if architecture == "MLP" else (rows[:, None] - torch.arange(window).flip(0)).clamp(min=0)
    draw = np.random.default_rng(7)
    raw = draw.normal(size=(ROWS, FEATURES))
    truth = raw[:, 0] + 0.5 * raw[:, 1] ** 2
    made: list[Network] = []
    keys: list[together.Key] = []
    for fold, end in enumerate((250, 390, 571)):
        inputs = torch.from_numpy(((raw - raw[:end].mean(axis=0)) / raw[:end].std(axis=0)).astype(np.float32))
        y = truth + draw.normal(size=ROWS)
        target = torch.from_numpy(((y > 0.5) if probability else y).astype(np.float32))
        classes = torch.tensor([0.8, 1.3]) if balanced else None
        linear = Coefficients(draw.normal(size=FEATURES) * 0.2, 0.1)
        for member in range(2):
            torch.manual_seed(100 * fold + member)
            core = CORES[architecture](window)
            made.append(
                Network(
                    module=modules.Skipped(modules.Affine(linear, probability=False), core), inputs=inputs,
                    windows=windows, target=target, fit_rows=torch.arange(0, end - 60),
                    watch_rows=torch.arange(end - 50, end), probability=probability, loss_unit=1.7, weights=classes,
                )
            )  # fmt: skip
            keys.append((3, fold, member))
    return made, keys


def steps(count: int = 6) -> Steps:
    return Steps(silent, SETTINGS["epochs"] * count)


@pytest.mark.parametrize("architecture", CORES)
@pytest.mark.parametrize(("probability", "balanced"), [(False, False), (True, False), (True, True)])
def test_the_same_weights_epochs_and_losses_as_one_by_one(probability: bool, balanced: bool, architecture: str) -> None:
    make_deterministic()
    alone, keys = networks(probability, balanced, architecture)
    # A rectifier that one rounding turns the other way is another network: small steps keep such moments rare.
    settings = {**SETTINGS, "learningRate": 0.002} if architecture == "TCN" else SETTINGS
    joined = [copy.deepcopy(each) for each in alone]
    for one, other in zip(joined, alone, strict=True):  # members of a fold share their inputs
        object.__setattr__(one, "inputs", other.inputs)
    one_by_one = [train_member(each, settings, key, steps(), None) for each, key in zip(alone, keys, strict=True)]
    at_once = together.train(joined, settings, keys, steps(), None)
    assert any(each.best_epoch > 0 for each in one_by_one)
    assert len({len(each.history) for each in one_by_one}) > 1, "they stop at different epochs"
    for left, right in zip(one_by_one, at_once, strict=True):
        assert left.best_epoch == right.best_epoch
        assert [entry["epoch"] for entry in left.history] == [entry["epoch"] for entry in right.history]
        for name in ("train_loss", "inner_loss"):
            assert [e[name] for e in left.history] == pytest.approx([e[name] for e in right.history], rel=2e-4)
        for one, other in zip(left.module.parameters(), right.module.parameters(), strict=True):
            assert torch.allclose(one, other, atol=2e-4)
        assert right.kept_excess < 1e-5


def test_who_is_trained_beside_it_does_not_matter_beyond_rounding() -> None:
    make_deterministic()
    made, keys = networks(False)
    few = [copy.deepcopy(each) for each in made[:2]]
    object.__setattr__(few[1], "inputs", few[0].inputs)
    all_of_them = together.train(made, SETTINGS, keys, steps(), None)
    two = together.train(few, SETTINGS, keys[:2], steps(2), None)
    for left, right in zip(all_of_them[:2], two, strict=True):
        for one, other in zip(left.module.parameters(), right.module.parameters(), strict=True):
            assert torch.allclose(one, other, atol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "window"),
    [*(("TCN", window) for window in (2, 3, 4, 6, 7, 8, 13, 20, 33)), ("GRU", 2), ("GRU", 9)],
)
def test_a_stack_has_the_scores_and_gradients_of_each(architecture: str, window: int) -> None:
    torch.manual_seed(window)
    cores = [CORES[architecture](window) for _ in range(3)]
    stack = stacks.of(cores)
    assert stack is not None
    for core in cores:
        torch.nn.init.normal_(core.out.weight)
    x, slope = torch.randn(3, 9, window, FEATURES), torch.randn(3, 9)
    weights = tuple(torch.stack(each).detach() for each in zip(*(stack.read(core) for core in cores), strict=True))
    scores, backward = stack.trained(weights, x)
    assert torch.equal(scores, stack.scores(weights, x))
    gradients = backward(slope)
    for model, core in enumerate(cores):
        alone = core(x[model])[:, 0]
        assert torch.allclose(scores[model], alone, atol=1e-5)
        alone.backward(slope[model])
        with torch.no_grad():
            for parameter in core.parameters():
                parameter.copy_(parameter.grad)
            for own, stacked in zip(stack.read(core), gradients, strict=True):
                assert torch.allclose(own, stacked[model], atol=1e-4)


def test_a_stack_is_read_and_written_without_loss() -> None:
    for architecture, make in CORES.items():
        core, other = make(WINDOW), make(WINDOW)
        stack = stacks.of([core, other])
        assert stack is not None, architecture
        with torch.no_grad():
            stack.write(other, stack.read(core))
        for name, tensor in core.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), (architecture, name)


def test_only_networks_of_one_architecture_are_trained_together() -> None:
    made, _ = networks(False)
    assert together.can_train(made) is not torch.cuda.is_available()
    assert not together.can_train(made[:1])
    assert not together.can_train([*made, *networks(False, architecture="TCN")[0]])


def test_a_group_that_is_trained_is_not_trained_again() -> None:
    """The groups before the one that was interrupted are taken from what is kept."""
    made, keys = networks(False, architecture="TCN")
    made, keys = made * 2, [*keys, *((4, number, 0) for number in range(6))]
    made = [copy.deepcopy(each) for each in made]
    attempt = Attempt(None, "", 1, {})
    limit = stacks.Convolutions(6).at_once
    together.train(made[:limit], SETTINGS, keys[:limit], steps(12), attempt)
    kept = attempt.trained(*keys[0][1:])
    seen: list[int] = []
    told = Steps(lambda **given: seen.append(given["epoch"]), SETTINGS["epochs"] * 12)
    together.train(made, SETTINGS, keys, told, attempt)
    assert seen[0] == SETTINGS["epochs"] * limit, "the first group is skipped as a whole"
    assert attempt.trained(*keys[0][1:]) is kept


def test_a_walk_forward_of_perceptrons_gives_the_same_bits_again() -> None:
    made, frame = job("MLP", "Direction"), bars()
    assert same(run_walk_forward(frame, made, silent), run_walk_forward(frame, made, silent))
    assert weights(fit_final(frame, made, silent)) == weights(fit_final(frame, made, silent))


def test_every_step_is_counted_whenever_they_stop() -> None:
    seen: list[float] = []

    def progress(**told: Any) -> None:
        seen.append(told["percent"])

    made, keys = networks(False)
    together.train(made, SETTINGS, keys, Steps(progress, SETTINGS["epochs"] * 6), None)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(100.0)


def test_a_stop_is_heeded_and_what_was_finished_is_taken_again() -> None:
    attempt = Attempt(None, "", 1, {})
    made, keys = networks(False)
    first = together.train([copy.deepcopy(each) for each in made], SETTINGS, keys, steps(), attempt)
    attempt.asked_to_stop = True
    again = together.train(made, SETTINGS, keys, steps(), attempt)
    for left, right in zip(first, again, strict=True):
        for one, other in zip(left.module.parameters(), right.module.parameters(), strict=True):
            assert torch.equal(one, other)
    with pytest.raises(Retryable):
        together.train(networks(False)[0], SETTINGS, [(4, number, 0) for number in range(6)], steps(), attempt)
