"""The training loop around a tiny model: what a resumed, stopped or failed run leaves and goes on from."""

import io
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from maskrcnn_jax.experiment import Experiment
from maskrcnn_jax.interop.bundle import read_about
from maskrcnn_jax.models.parameters import init_params
from maskrcnn_jax.training import loop, run
from maskrcnn_jax.training.checkpoint import CheckpointError, Checkpoints, load_latest
from maskrcnn_jax.training.lock import RunLocked, run_lock
from maskrcnn_jax.training.log import NonFiniteLoss
from maskrcnn_jax.training.optimizer import make_optimizer
from maskrcnn_jax.training.step import create_state

pytest_plugins = ("tiny",)
pytestmark = pytest.mark.usefixtures("guarded")


class Step:
    """The training step of all tests of this file, which need not compile it again.

    `accident(step, metrics)` comes between the step and the loop, and may give other metrics.
    """

    def __init__(self, function):
        self.function, self.accident = function, None

    def __call__(self, state, batch, key):
        state, metrics = self.function(state, batch, key)
        return state, self.accident(int(state.step), metrics) if self.accident else metrics


@pytest.fixture(autouse=True)
def step(monkeypatch, step_function):
    step = Step(step_function)
    monkeypatch.setattr(loop, "make_train_step", lambda *_, **__: step)
    return step


@pytest.fixture
def config(config):
    config.steps, config.checkpoint_every, config.log_every = 4, 2, 1
    return config


def train(config, workdir, **options):
    """Trains, and gives what was printed."""
    console = Console(file=io.StringIO(), width=200)
    loop.train(config, workdir, console=console, **options)
    return console.file.getvalue()


def history(workdir):
    """The lines of a run's history, without what depends on the clock."""
    lines = [json.loads(line) for line in (workdir / "history.jsonl").read_text().splitlines()]
    clock = ("images_per_second", "data_wait")
    return [{name: value for name, value in line.items() if name not in clock} for line in lines]


@pytest.fixture
def final_state(config, model_config, optimizer):
    """Reads the latest checkpoint of a folder."""
    shape = jax.eval_shape(lambda: create_state(init_params(model_config, jax.random.key(0)), optimizer))
    return lambda workdir: load_latest(workdir, shape, config.to_dict())


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("unbroken")


@pytest.fixture
def unbroken(config, shared, step):
    """The folder of a run of four steps at one go, trained by the first test that needs it."""
    if not (shared / "bundle").exists():
        (shared / "printed.txt").write_text(train(config, shared))
    return shared


@pytest.fixture
def assert_equals_unbroken(final_state, unbroken):
    def check(workdir):
        states = (jax.tree.leaves(final_state(folder)) for folder in (unbroken, workdir))
        for expected, found in zip(*states, strict=True):
            np.testing.assert_array_equal(found, expected)
        assert history(workdir) == history(unbroken)

    return check


def test_two_steps_and_two_more_equal_four(config, assert_equals_unbroken, tmp_path):
    """Parameters, momentum, average, learning rate, data and random numbers: bit for bit."""
    config.steps = 2
    assert "resumed" not in train(config, tmp_path)
    config.steps = 4
    assert f"resumed at step 2 from {tmp_path}" in train(config, tmp_path)
    assert_equals_unbroken(tmp_path)
    assert [line["step"] for line in history(tmp_path)] == [1, 2, 3, 4]
    rates = [line["learning_rate"] for line in history(tmp_path)]
    np.testing.assert_allclose(rates, [0, 0.02, 0.04, 0.06], rtol=1e-6)


def test_an_interrupt_saves_the_step_that_it_comes_in(
    config, step, final_state, assert_equals_unbroken, tmp_path
):
    def interrupt(number, metrics):
        if number == 3:
            signal.raise_signal(signal.SIGINT)
        return metrics

    step.accident = interrupt
    with pytest.raises(KeyboardInterrupt, match="stopped; step 3 is saved"):
        train(config, tmp_path)
    assert int(final_state(tmp_path).step) == 3 and not (tmp_path / "bundle").exists()
    step.accident = None
    assert "resumed at step 3" in train(config, tmp_path)
    assert_equals_unbroken(tmp_path)


def test_after_a_crash_no_line_is_there_twice(config, step, assert_equals_unbroken, tmp_path):
    def crash(number, metrics):
        if number == 4:
            raise RuntimeError("the power is gone")
        return metrics

    step.accident = crash
    with pytest.raises(RuntimeError, match="power"):
        train(config, tmp_path)
    assert [line["step"] for line in history(tmp_path)] == [1, 2, 3]
    step.accident = None
    assert "resumed at step 2" in train(config, tmp_path)
    assert_equals_unbroken(tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_last_good_checkpoint(
    config, step, final_state, assert_equals_unbroken, tmp_path
):
    """Step 3 fails, step 4 would be the next to be looked at and to be saved."""

    def explode(number, metrics):
        return metrics | ({"loss_mask": np.float32(np.nan)} if number == 3 else {})

    step.accident, config.log_every = explode, 10
    with pytest.raises(NonFiniteLoss) as error:
        train(config, tmp_path)
    assert str(error.value).startswith("step 3: loss_mask is nan, on the images train_000")
    assert "Step 2 is saved" in str(error.value)
    assert int(final_state(tmp_path).step) == 2
    assert [line["step"] for line in history(tmp_path)] == [1, 2]
    step.accident, config.log_every = None, 1
    train(config, tmp_path)
    assert int(final_state(tmp_path).step) == 4


def test_a_finished_run_only_writes_its_results_again(config, unbroken, monkeypatch):
    files = [unbroken / "history.jsonl", unbroken / "bundle" / "model.safetensors"]
    before = [path.read_bytes() for path in files]
    monkeypatch.setattr(run, "batches", None)  # Any step would need it.
    printed = train(config, unbroken)
    assert "resumed at step 4" in printed and "step 4/4" not in printed
    assert [path.read_bytes() for path in files] == before


def test_the_bundle_says_how_large_the_objects_were(unbroken):
    assert 4 < read_about(unbroken / "bundle")["object_size"] < 60


def test_another_model_in_the_same_folder_is_refused(config, unbroken):
    config.model.roi.positive_iou = 0.6
    with pytest.raises(CheckpointError, match=r"model\.roi\.positive_iou: 0\.5 there, 0\.6 in this config"):
        train(config, unbroken)


def test_cut_instances_are_counted_and_their_images_named_once(config, unbroken):
    """Against a second look at the same batches."""
    parts = run.Run(config, None, None, None, None, Console(file=io.StringIO()))
    counts = [int(batch.cut.sum()) for batch in parts.batches(parts.read("train"), 0)]
    assert [line["instances_cut"] for line in history(unbroken)] == counts and any(counts)
    printed = (unbroken / "printed.txt").read_text()
    first = next(count for count in counts if count)
    assert (
        f"{first} instances did not fit into data.max_instances and are regions to ignore, of the images"
        in printed
    )
    assert printed.count("did not fit") == 1


def test_metrics_are_means_over_the_steps_between_two_log_steps(config, unbroken, tmp_path):
    config.log_every, config.checkpoint_every = 10, 10
    train(config, tmp_path)
    each, rare = history(unbroken), history(tmp_path)
    assert [line["step"] for line in rare] == [1, 4]
    np.testing.assert_allclose(rare[1]["loss"], np.mean([line["loss"] for line in each[1:]]), rtol=1e-6)
    assert rare[1]["instances_cut"] == sum(line["instances_cut"] for line in each[1:])


def test_a_frozen_backbone_without_weights_is_refused(config, tmp_path):
    config.model.backbone.norm = "frozen_bn"
    with pytest.raises(ValueError, match=r"init_from is empty.*model\.backbone\.norm = group"):
        train(config, tmp_path)


def test_initial_weights_are_reported_at_the_start_and_not_asked_for_on_resuming(config, unbroken, tmp_path):
    config.init_from, config.steps = str(unbroken / "bundle"), 1
    assert "tensors loaded, 0 kept, 0 unused\n  loaded: stem, res2, res3, " in train(config, tmp_path)
    config.init_from, config.steps = "gone.npz", 2
    assert "resumed at step 1" in train(config, tmp_path)


def test_a_fault_of_the_validation_images_comes_before_the_first_step(config, tmp_path):
    config.data.validation_images, config.data.format = 1, "mask_folder"
    config.data.path = str(tmp_path / "gone")
    with pytest.raises(ValueError, match="gone"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "history.jsonl").exists()


def test_the_steps_of_evaluations(config):
    for steps, every, first, expected in [
        (10, 0, 0, [10]),
        (10, 4, 0, [4, 8, 10]),
        (8, 4, 0, [4, 8]),
        (10, 4, 4, [8, 10]),
        (3, 5, 0, [3]),
    ]:
        config.steps, config.eval_every = steps, every
        assert run.Run(config, None, None, None, None, None).ends(first) == expected


def test_a_model_of_other_classes_than_the_data_is_refused(config, tmp_path):
    config.model.num_classes = 3
    with pytest.raises(ValueError, match=r"model\.num_classes is 3, but the data has 1 \(nucleus\): set"):
        train(config, tmp_path)


def test_a_second_run_of_the_folder_is_refused_and_names_the_first(config, tmp_path):
    with run_lock(tmp_path), pytest.raises(RunLocked, match=rf"process {os.getpid()} on "):
        train(config, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.lock"]


def test_another_optimiser_goes_on_from_the_weights_where_that_is_asked_for(config, tmp_path):
    experiment = Experiment.from_dict(config.to_dict())
    other = experiment.to_dict() | {"optimizer": experiment.optimizer.to_dict() | {"ema": 0.0}}
    optimizer = make_optimizer(experiment.model, lambda step: 0.0, **other["optimizer"])
    with jax.transfer_guard("allow"), Checkpoints(tmp_path, other, keep=2) as checkpoints:
        params = init_params(experiment.model, jax.random.key(3))
        checkpoints.save(create_state(params, optimizer)._replace(step=jnp.int32(2)))
    config.steps = 3
    with pytest.raises(CheckpointError, match=r"(?s)optimizer.ema: 0.0 there, .*--reset_optimizer"):
        train(config, tmp_path)
    assert "resumed at step 2" in train(config, tmp_path, reset_optimizer=True)
    assert "resumed at step 3" in train(config, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_evaluation_stops_after_the_image_that_a_signal_comes_in_and_costs_no_steps(
    config, tmp_path, number
):
    """The last step is saved before the model is evaluated, although no checkpoint was due."""
    config.data.validation_images, config.steps, config.checkpoint_every, config.eval_every = 2, 4, 100, 2
    images, before = [], [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def evaluate(config, params, records, folder, *, progress, **_):
        for n in range(1, 100):
            images.append(n)
            if n == 3:
                signal.raise_signal(number)
            progress(n, 100)

    def run(evaluate):
        loop.train(config, tmp_path, evaluate=evaluate, console=Console(file=io.StringIO()))

    with pytest.raises(KeyboardInterrupt, match="stopped while evaluating; step 2 is saved"):
        run(evaluate)
    assert images == [1, 2, 3]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["2"]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    run(lambda *_, **__: None)
    assert history(tmp_path)[-1]["step"] == 4
