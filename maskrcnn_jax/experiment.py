"""A whole experiment, model and training: what the files in `configs/` give and the shell may change.

Every field has its default and its range here. A config file says only what its experiment has of its own.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

from ml_collections import ConfigDict

from maskrcnn_jax.config import MaskRCNNConfig
from maskrcnn_jax.images.choice import Choice
from maskrcnn_jax.plain_values import Checked
from maskrcnn_jax.ranges import Count, Length, Pixels, PositiveWeight, Range, Seed, Share, Weight

# Steps count in 32 bits. What comes every so many of them; 0 is never.
Steps = Annotated[int, Range(1, 2**31 - 1)]
Interval = Annotated[int, Range(0, 2**31 - 1)]
Decay = Annotated[float, Range(0, 0.999999)]


@dataclass(frozen=True)
class DataConfig(Checked):
    """What is trained and validated on.

    Attributes:
      format: `synthetic` draws nuclei; the others are read, see docs/data.md.
      path: the data set's folder, or its COCO file.
      validation_images: so many of its last images validate; of `synthetic`, so many more are drawn.
      validation_path: a data set of its own to validate on, in place of `validation_images`.
      images: where a COCO file's names start from; empty looks in the usual places.
      crowds_are_instances: a COCO file's `iscrowd` means nothing, as where CVAT wrote it.
      channel, plane, series: what to read of images with several: a number from 0, or `0,1,2` as red, green
        and blue; a number, `max` or `mean`; a number. Empty where each image holds but one.
      prepared: a folder for shards, for a data set that does not fit in memory; empty for none.
      test_images, test_ids: a folder of images without ground truth, and the JSON list of their ids.
      seed, size, train_images: of `synthetic`: the stream of draws, the images' side, and their number.
      shares: how often each kind of image is drawn, by the beginning of its name; empty for all alike.
      augment: the ops in their order, each a mapping of `op`, its name, and its arguments. With
        `stretch_grey` among them, images of 16 bits are stretched when they are read, with all their bits.
      canvas: height and width to which each image is padded.
      max_instances: the most instances of an image that are trained on.
    """

    format: Literal["synthetic", "mask_folder", "coco", "labels"] = "synthetic"
    path: str = ""
    validation_images: Annotated[int, Range(0, 10_000_000)] = 0
    validation_path: str = ""
    images: str = ""
    crowds_are_instances: bool = False
    channel: str = ""
    plane: str = ""
    series: str = ""
    prepared: str = ""
    test_images: str = ""
    test_ids: str = ""
    seed: Seed = 0
    size: Annotated[int, Range(32, 8192)] = 256
    train_images: Count = 200
    shares: dict[str, Share] = field(default_factory=dict)
    augment: Annotated[tuple[dict[str, Any], ...], Length(0, 100)] = ()
    canvas: tuple[Pixels, Pixels] = (512, 512)
    max_instances: Annotated[int, Range(1, 65_535)] = 256

    def conflicts(self) -> Iterator[str]:
        if self.format != "synthetic" and not (self.path or self.validation_path or self.test_images):
            yield f"path is '': it must be where the data set of format {self.format} lies"
        try:
            self.choice()
        except ValueError as error:
            yield str(error)

    def choice(self) -> Choice:
        """What to read of images that hold several, and whether of all their bits."""
        chosen = Choice.parse(channel=self.channel, plane=self.plane, series=self.series)
        return replace(chosen, stretch_grey=any(op.get("op") == "stretch_grey" for op in self.augment))


@dataclass(frozen=True)
class ScheduleConfig(Checked):
    """The learning rate, see `training.schedule`."""

    base: PositiveWeight = 0.01
    warmup: Annotated[int, Range(0, 1_000_000)] = 100
    milestones: Annotated[tuple[Steps, ...], Length(0, 1000)] = ()
    factor: Share = 0.1
    warmup_factor: Share = 0.0

    def conflicts(self) -> Iterator[str]:
        if list(self.milestones) != sorted(set(self.milestones)):
            yield f"milestones is {self.milestones}: they must rise"


@dataclass(frozen=True)
class OptimizerConfig(Checked):
    """SGD, see `training.optimizer`."""

    momentum: Decay = 0.9
    weight_decay: Share = 1e-4
    clip_norm: Weight = 0.0
    ema: Decay = 0.0


@dataclass(frozen=True)
class Experiment(Checked):
    """A model, its data, and how it is trained.

    Attributes:
      seed: of the initial weights, the order of images, their augmentation, and what is sampled.
      init_from: the file of initial weights, or a bundle; empty to begin with random ones.
      batch_size: images of one step, over all devices of all processes.
      accumulate: each device computes its share of the batch in so many parts, one after the other, which
        takes the memory of one; the gradient is that of the whole batch.
      device_means: losses are means over each device's images, then over devices, as in Detectron2;
        else means over the whole batch, for which the number of devices changes nothing.
      log_every, checkpoint_every: steps from one to the next.
      keep_checkpoints: so many of the latest stay.
      eval_every: steps from one evaluation to the next; 0 only at the end.
    """

    seed: Seed = 0
    model: MaskRCNNConfig = field(default_factory=MaskRCNNConfig)
    init_from: str = ""
    data: DataConfig = field(default_factory=DataConfig)
    batch_size: Annotated[int, Range(1, 65_536)] = 1
    accumulate: Annotated[int, Range(1, 65_536)] = 1
    device_means: bool = False
    steps: Steps = 1000
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    log_every: Steps = 20
    checkpoint_every: Steps = 200
    keep_checkpoints: Annotated[int, Range(1, 100_000)] = 2
    eval_every: Interval = 0

    def conflicts(self) -> Iterator[str]:
        if self.batch_size % self.accumulate:
            yield f"accumulate is {self.accumulate}: it must divide batch_size, which is {self.batch_size}"

    def to_config(self) -> ConfigDict:
        """As config files give it: the shell may set any field of it, by `--config.FIELD`."""
        return ConfigDict(self.to_dict())


def sibling(file: str, name: str) -> ModuleType:
    """The config file `name` beside `file`, for experiments that share a part.

    Config files are run by their path, so they cannot import each other.
    """
    spec = importlib.util.spec_from_file_location(name, Path(file).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
