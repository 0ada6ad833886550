"""A training that cannot be is refused by its fields' names before anything is read."""

import math
from dataclasses import replace

import pytest
from fields import ODD, changed, numbers, without_range
from tiny_config import get_config

from maskrcnn_jax.data.augment import require_ops
from maskrcnn_jax.experiment import DataConfig, Experiment, ScheduleConfig
from maskrcnn_jax.plain_values import FieldError
from maskrcnn_jax.training.loop import train
from maskrcnn_jax.training.optimizer import make_optimizer
from maskrcnn_jax.training.schedule import warmup_steps_decay

WRONG = {
    "batch_size": (0, "batch_size is 0: it must be a whole number from 1 to"),
    "steps": (-1, "steps is -1: it must be a whole number from 1 to"),
    "log_every": (0, "log_every is 0: it must be a whole number from 1 to"),
    "checkpoint_every": (0, "checkpoint_every is 0: it must be a whole number from 1 to"),
    "keep_checkpoints": (0, "keep_checkpoints is 0: it must be a whole number from 1 to"),
    "data.canvas": ((-500, -500), "data.canvas[0] is -500"),
    "data.max_instances": (0, "data.max_instances is 0"),
    "data.size": (0, "data.size is 0: it must be a whole number from 32 to 8,192"),
    "data.format": (
        "voc",
        "data.format is 'voc': it must be one of 'synthetic', 'mask_folder', 'coco', 'labels'",
    ),
    "data.augment": ((), None),
    "data.channel": ("1,2", "channel '1,2' is neither a number from 0 nor three, as 0,1,2"),
    "data.plane": ("min", "plane 'min' is neither a number from 0 nor max nor mean"),
    "data.series": ("-1", "series '-1' is no number from 0"),
    "data.shares": ({"a": 1.5}, "data.shares.a is 1.5: it must be a number from 0 to 1"),
    "schedule.warmup": (-5, "schedule.warmup is -5: it must be a whole number from 0 to"),
    "schedule.milestones": ((9, 3), "schedule.milestones is (9, 3): they must rise"),
    "optimizer.ema": (2, "optimizer.ema is 2: it must be a number from 0 to 0.999999"),
    "optimizer.momentum": (math.nan, "optimizer.momentum is nan"),
    "model.rpn.positive_fraction": (3, "model.rpn.positive_fraction is 3: it must be a number from 0 to 1"),
}


@pytest.mark.parametrize(("path", "case"), WRONG.items())
def test_impossible_values_are_refused_by_name(path, case):
    value, message = case
    values = changed(get_config().to_dict(), path, value)
    if message is None:
        assert Experiment.from_dict(values)
    else:
        with pytest.raises(FieldError) as refused:
            Experiment.from_dict(values)
        assert message in str(refused.value)


def test_a_side_alone_is_no_canvas():
    with pytest.raises(FieldError, match=r"canvas is \(192,\): it must be a list of 2 values"):
        DataConfig(canvas=(192,))


def test_a_data_set_needs_its_place():
    with pytest.raises(
        FieldError, match="path is '': it must be where the data set of format mask_folder lies"
    ):
        DataConfig(format="mask_folder")


def test_training_refuses_before_anything_is_written(tmp_path):
    config = get_config()
    config.batch_size, config.data.canvas = 0, (-500, -500)
    with pytest.raises(FieldError, match=r"(?s)batch_size is 0.*data.canvas\[0\] is -500"):
        train(config, tmp_path / "run")
    config = get_config()
    config.data.augment = ({"op": "random_crop", "size": 0},)
    with pytest.raises(ValueError, match=r"augment\[0\]: random_crop.size is 0"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_every_number_has_its_range():
    assert without_range(Experiment) == []


def test_odd_numbers_are_refused_by_name_or_make_a_schedule_and_an_optimiser():
    """Every number of an experiment but its model, which has its own test; also those of augmentations."""
    usual = Experiment.from_dict(get_config().to_dict())
    plain = {name: part for name, part in usual.to_dict().items() if name != "model"}
    tried = 0
    for path in numbers(plain):
        for value in ODD:
            tried += 1
            try:
                experiment = Experiment.from_dict(changed(usual.to_dict(), path, value))
                require_ops(experiment.data.augment)
            except ValueError as error:
                assert path.split("[")[0].split(".")[-1] in str(error)
                continue
            schedule = warmup_steps_decay(**experiment.schedule.to_dict())
            assert make_optimizer(experiment.model, schedule, **experiment.optimizer.to_dict())
            assert math.isfinite(float(schedule(0))) and math.isfinite(float(schedule(100)))
    assert tried > 100


def test_parts_of_a_batch_are_equal():
    assert Experiment(batch_size=6, accumulate=3).accumulate == 3
    with pytest.raises(ValueError, match="accumulate is 4: it must divide batch_size, which is 6"):
        Experiment(batch_size=6, accumulate=4)


def test_milestones_may_be_many_or_none():
    assert ScheduleConfig(milestones=[3, 4]).milestones == (3, 4) and ScheduleConfig().milestones == ()


def test_a_config_is_all_fields_and_back():
    experiment = Experiment.from_dict(get_config().to_dict())
    assert Experiment.from_dict(experiment.to_config().to_dict()) == experiment
    assert replace(experiment, steps=3).to_config().steps == 3
