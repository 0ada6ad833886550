"""Metrics between two log steps: averaged, fetched late, refused where they are not finite."""

import math

import numpy as np
import pytest

from maskrcnn_jax.data.synthetic import draw_records
from maskrcnn_jax.training.log import Log, NonFiniteLoss


class Metric:
    """A device array that counts how often it is fetched."""

    fetched = 0

    def __init__(self, value):
        self.value = value

    def __array__(self, dtype=None, copy=None):
        Metric.fetched += 1
        return np.array(self.value, np.float32)


class Recorder:
    """Stands for the display and for the history."""

    def __init__(self):
        self.written, self.shown, self.said = [], [], []

    def write(self, step, metrics):
        self.written.append((step, metrics))

    def update(self, step, metrics, images_per_second, data_wait):
        self.shown.append((step, metrics, images_per_second, data_wait))

    def say(self, message):
        self.said.append(message)


@pytest.fixture(scope="module")
def records():
    return draw_records(3, seed=0, size=32, nuclei=(1, 2), name="image")


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def log(records, recorder, monkeypatch):
    monkeypatch.setattr(Metric, "fetched", 0)
    return Log(records, recorder, recorder, lambda step: 0.1 * step)


def add(log, step, loss, index=(0, 1), cut=(0, 0), norm=1.0):
    log.add(step, {"loss": Metric(loss), "gradient_norm": Metric(norm)}, np.array(index), np.array(cut))


def test_the_mean_over_the_steps_since_the_last_time(log, recorder):
    add(log, 1, 4.0)
    log.flush(None)
    for step, loss in ((2, 1.0), (3, 2.0), (4, 6.0)):
        add(log, step, loss)
    log.flush(None)
    assert [(step, metrics["loss"]) for step, metrics in recorder.written] == [(1, 4.0), (4, 3.0)]
    assert [(step, metrics["loss"]) for step, metrics, *_ in recorder.shown] == [(1, 4.0), (4, 3.0)]
    # A rate belongs to the number of steps before it.
    assert recorder.written[1][1]["learning_rate"] == pytest.approx(0.3)
    assert recorder.written[1][1]["images_per_second"] > 0


class Pending:
    """Stands for a device array whose computation is done or not."""

    def __init__(self, ready):
        self.is_ready = lambda: ready


def test_only_waits_in_which_the_device_has_nothing_to_do_count(log, recorder, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    log.restart_clock()
    for step, (wait, work, idle) in enumerate([(5, 5, True), (1, 2, True), (4, 3, False)], start=1):
        with log.waiting(Pending(idle)):
            clock[0] += wait
        clock[0] += work
        add(log, step, 1.0)
        if step == 1:
            log.flush(None)
    log.flush(None)
    first, later = (metrics["data_wait"] for _, metrics in recorder.written)
    assert (first, later) == (0.0, pytest.approx(1 / 10))  # the first batch has to be waited for
    assert [shown[-1] for shown in recorder.shown] == [first, later]


def test_nothing_is_fetched_before_a_log_step(log):
    for step in range(1, 6):
        add(log, step, 1.0)
        assert Metric.fetched == 0
    log.flush(None)
    assert Metric.fetched == 10


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_first_step_that_is_not_finite_is_named_with_its_images(log, recorder, value):
    add(log, 7, 1.0, index=(0, 0))
    add(log, 8, 1.0, index=(2, 1), norm=value)
    add(log, 9, value, index=(0, 0), norm=value)
    with pytest.raises(NonFiniteLoss) as error:
        log.flush(5)
    assert str(error.value).startswith(
        f"step 8: gradient_norm is {value}, on the images image_0002, image_0001. "
    )
    assert "Step 5 is saved" in str(error.value)
    assert not recorder.written


def test_without_a_checkpoint_the_error_says_so(log):
    add(log, 1, math.nan)
    with pytest.raises(NonFiniteLoss, match=r"loss is nan.*No checkpoint was written yet"):
        log.flush(None)


def test_cut_instances_are_counted_between_log_steps_and_said_once(log, recorder):
    add(log, 1, 1.0, index=(0, 1), cut=(0, 3))
    add(log, 2, 1.0, index=(1, 2), cut=(4, 1))
    log.flush(None)
    add(log, 3, 1.0)
    log.flush(None)
    add(log, 4, 1.0, index=(0, 1), cut=(2, 0))
    log.flush(None)
    assert [metrics["instances_cut"] for _, metrics in recorder.written] == [8, 0, 2]
    (said,) = recorder.said
    assert said.startswith(
        "8 instances did not fit into data.max_instances and are regions to ignore, of the images "
    )
    assert "images image_0001, image_0002;" in said


def test_evaluations_are_written_under_their_own_names(log, recorder):
    log.evaluation(10, {"segm/AP@100": 0.5})
    assert recorder.written == [(10, {"validation/segm/AP@100": 0.5})]
