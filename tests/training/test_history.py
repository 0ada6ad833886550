"""The history on disk: readable by line and by TensorBoard, and a resumed run repeats nothing."""

import json
import math

import pytest
import tensorflow as tf

from maskrcnn_jax.training.history import History


def lines(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def scalars(folder):
    """(step, name, value) of every scalar that the event files hold."""
    found = []
    for path in sorted((folder / "tensorboard").iterdir()):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
    return found


def test_lines_and_scalars_hold_what_was_written(tmp_path):
    with History(tmp_path, 0) as history:
        history.write(1, {"loss": 2.5, "rate": 0.25})
        history.write(20, {"loss": 1.5})
    assert lines(tmp_path) == [{"step": 1, "loss": 2.5, "rate": 0.25}, {"step": 20, "loss": 1.5}]
    assert scalars(tmp_path) == [(1, "loss", 2.5), (1, "rate", 0.25), (20, "loss", 1.5)]


def test_every_line_is_there_before_the_next_comes(tmp_path):
    with History(tmp_path, 0) as history:
        history.write(1, {"loss": 2.5})
        assert lines(tmp_path) == [{"step": 1, "loss": 2.5}]
        assert scalars(tmp_path) == [(1, "loss", 2.5)]


def test_what_is_no_number_is_left_out(tmp_path):
    with History(tmp_path, 0) as history:
        history.write(1, {"AP": math.nan, "loss": 1.0})
    assert lines(tmp_path) == [{"step": 1, "loss": 1.0}]
    assert scalars(tmp_path) == [(1, "loss", 1.0)]


@pytest.mark.parametrize("tail", ["", '{"step": 30, "lo', "\n"])
def test_a_resumed_run_repeats_no_step(tmp_path, tail):
    with History(tmp_path, 0) as history:
        for step in (1, 10, 20, 30):
            history.write(step, {"loss": float(step)})
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write(tail)
    with History(tmp_path, 20) as history:
        history.write(21, {"loss": 0.5})
    assert [line["step"] for line in lines(tmp_path)] == [1, 10, 20, 21]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
