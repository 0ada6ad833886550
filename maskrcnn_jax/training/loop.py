"""Trains a model from a config: the only place that steps, logs, saves and evaluates."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict
from rich.console import Console

from maskrcnn_jax.config import MaskRCNNConfig
from maskrcnn_jax.data.augment import require_ops
from maskrcnn_jax.data.datasets import categories, load_split
from maskrcnn_jax.data.pipeline import batches
from maskrcnn_jax.data.records import Record
from maskrcnn_jax.errors import UserError
from maskrcnn_jax.evaluation.evaluator import Evaluation
from maskrcnn_jax.evaluation.tables import table
from maskrcnn_jax.experiment import Experiment
from maskrcnn_jax.interop.bundle import save_bundle
from maskrcnn_jax.interop.initialize import initialize_from
from maskrcnn_jax.interop.trees import Tree
from maskrcnn_jax.models.mask_rcnn import MaskRCNN, init_params
from maskrcnn_jax.structures import Batch
from maskrcnn_jax.training.about import about_training, told_before
from maskrcnn_jax.training.checkpoint import Checkpoints
from maskrcnn_jax.training.cluster import (
    Stopped,
    agreed,
    agreed_stop,
    folder_lock,
    from_first,
    is_first,
    require_same,
    wait,
)
from maskrcnn_jax.training.display import Display, counter
from maskrcnn_jax.training.history import History
from maskrcnn_jax.training.log import Log
from maskrcnn_jax.training.optimizer import averaged_params, make_optimizer
from maskrcnn_jax.training.placement import copy_to, describe, everywhere, make_mesh, share_out
from maskrcnn_jax.training.schedule import on_host, warmup_steps_decay
from maskrcnn_jax.training.state import TrainState
from maskrcnn_jax.training.step import create_state, make_train_step


class Evaluate(Protocol):
    """How the loop has a model evaluated: what the answers are scored with is not its business.

    In a cluster all processes call it at once, and only the first needs to be given an evaluation.
    """

    def __call__(
        self,
        config: MaskRCNNConfig,
        params: Tree,
        records: Sequence[Record],
        folder: Path,
        *,
        categories: dict[int, str],
        min_score: float,
        progress: Callable[[int, int], None],
    ) -> Evaluation | None: ...


def train(
    config: ConfigDict | Experiment,
    workdir: Path,
    *,
    evaluate: Evaluate | None = None,
    console: Console | None = None,
    reset_optimizer: bool = False,
) -> Evaluation | None:
    """Trains, or goes on training, until `config.steps`; then evaluates and writes the results.

    Rerunning with the same folder resumes at its latest checkpoint, with the same data and the same random
    numbers as if the run had never stopped. The folder gets `checkpoints/`, `config.json`,
    `history.jsonl` (metrics by step), TensorBoard scalars, `bundle/` and `evaluation/`.

    In a cluster (`training.cluster.joined`) all processes call this with the same config and folder. They
    share out each batch; process 0 alone prints and writes all but the checkpoints.

    Args:
      config: see `configs/`; it is checked before anything is read or compiled.
      workdir: where everything is written.
      evaluate: is given the model and the validation records, and writes into the folder that it is given;
        without it nothing is evaluated. `commands.train.train` hands in the package's own.
      console: where progress is shown; the terminal if None.
      reset_optimizer: go on from a checkpoint's step and weights, but with a fresh optimiser.

    Returns:
      The evaluation on the validation split; None where the config has no such split, and in a cluster on
      all processes but the first.

    Raises:
      NonFiniteLoss: says at which step, which loss and which images.
      CheckpointError: the folder belongs to another model or optimiser.
      RunLocked: another run writes into the folder.
      DataError: lists every fault of the data set.
      FieldError: the config has impossible values; lists their fields and what is possible.
      UserError: the config asks for what cannot be; says which field to change.
      ClusterError: the processes differ in config, data or folder, or something is wrong with another one.
      KeyboardInterrupt: SIGINT or SIGTERM came; the last step is saved.
    """
    config = Experiment.from_dict(config.to_dict())
    require_ops(config.data.augment)
    model_config = config.model
    schedule = warmup_steps_decay(**config.schedule.to_dict())
    optimizer = make_optimizer(model_config, schedule, **config.optimizer.to_dict())
    classes = categories(config.data, "validation", model_config.num_classes)
    console = (console or Console()) if is_first() else Console(quiet=True)
    run = _Run(config, model_config, classes, workdir, evaluate, console)
    mesh = make_mesh(config.batch_size, accumulate=config.accumulate)
    require_same("the config", config.to_dict(), "start all with the same --config and the same fields")
    with (
        folder_lock(workdir),
        Checkpoints(
            workdir, config.to_dict(), keep=config.keep_checkpoints, place=everywhere(mesh)
        ) as checkpoints,
    ):
        state = run.start(checkpoints, optimizer, reset_optimizer, mesh)
        first = state.done
        # Read before the training, so that no fault comes to light hours later.
        held_out = config.data.validation_images or config.data.validation_path
        validation = run.read("validation") if evaluate and held_out else []
        if first >= config.steps:
            return run.publish(state, validation, told_before(workdir / "bundle"))
        records = run.read("train")
        about = about_training(records) if is_first() else {}
        state, key = copy_to(mesh, (state, run.keys()[1]))
        stream = _prefetch(run.batches(records, first), mesh)
        with (
            History(workdir, first) if is_first() else contextlib.nullcontext() as history,
            Display(console, first, config.steps) as display,
        ):
            model = MaskRCNN(model_config)
            step_function = make_train_step(
                model, optimizer, display.say, mesh, config.accumulate, config.device_means
            )
            log = Log(records, display, history, on_host(schedule))
            for end in run.ends(first):
                state = run.advance(state, end, step_function, stream, key, log, checkpoints)
                evaluation = run.publish(state, validation, about)
                if evaluation:
                    log.evaluation(end, evaluation.metrics)
    return evaluation


@dataclass(frozen=True)
class _Run:
    """What stays the same while a run goes on, and the parts of its work."""

    config: Experiment
    model_config: MaskRCNNConfig
    classes: dict[int, str]
    workdir: Path
    evaluate: Evaluate | None
    console: Console

    def keys(self) -> tuple[jax.Array, jax.Array]:
        """A key for the initial weights, and one for all steps."""
        return jax.jit(lambda: tuple(jax.random.split(jax.random.key(self.config.seed))))()

    def start(
        self,
        checkpoints: Checkpoints,
        optimizer: optax.GradientTransformation,
        reset_optimizer: bool,
        mesh: Mesh,
    ) -> TrainState:
        """The state of the latest checkpoint, or a fresh one."""

        def fresh() -> TrainState:
            return create_state(init_params(self.model_config, self.keys()[0]), optimizer)

        if checkpoints.latest_step is not None and reset_optimizer:
            step, params = checkpoints.restore_params()
            self._say(f"resumed at step {step} from {self.workdir}, with a fresh optimiser")
            return create_state(params, optimizer)._replace(step=jax.device_put(np.int32(step)))
        if checkpoints.latest_step is not None:
            state = checkpoints.restore(jax.eval_shape(fresh))
            self._say(f"resumed at step {state.done} from {self.workdir}")
            return state
        state = fresh()
        count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        self._say(f"{count / 1e6:.2f} M parameters on {describe(mesh)}")
        if self.config.init_from:
            with agreed():
                params, report = initialize_from(self.config.init_from, self.model_config, state.params)
            self._say(f"initial weights from {self.config.init_from}: {report}")
            state = create_state(jax.device_put(params), optimizer)
        elif self.model_config.backbone.norm == "frozen_bn":
            raise UserError(
                "init_from is empty, but a backbone with frozen batch norm cannot learn from nothing: give "
                "pretrained weights, or set model.backbone.norm = group and model.backbone.freeze_at = 0"
            )
        return from_first(state)

    def read(self, split: str) -> Sequence[Record]:
        """The records of a split; a bar shows how far their reading is."""
        data, records = self.config.data, None
        with counter(self.console, f"reading the {split} images") as progress:
            # Shards on a disk that all share are written by the first, before the others look for them.
            with agreed():
                if is_first() or not data.prepared:
                    records = load_split(data, split, progress=progress)
            with agreed():
                if records is None:
                    records = load_split(data, split, progress=progress)
        require_same(f"the number of {split} images", len(records), "all must read the same data set")
        return records

    def batches(self, records: Sequence[Record], first: int) -> Iterator[Batch]:
        """What the steps after `first` are made of."""
        config = self.config
        return batches(
            records,
            augment=config.data.augment,
            canvas=config.data.canvas,
            batch_size=config.batch_size,
            max_instances=config.data.max_instances,
            seed=config.seed,
            shares=config.data.shares,
            start_step=first,
            steps=config.steps - first,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def ends(self, first: int) -> list[int]:
        """The steps after which the model is evaluated."""
        steps, every = self.config.steps, self.config.eval_every
        return [*(step for step in range(first + 1, steps) if every and step % every == 0), steps]

    def advance(
        self,
        state: TrainState,
        end: int,
        step_function: Callable,
        stream: Iterator,
        key: jax.Array,
        log: Log,
        checkpoints: Checkpoints,
    ) -> TrainState:
        """Steps from `state.step` to `end`; logs and saves on the way."""
        config, first = self.config, state.done
        log.restart_clock()
        with agreed_stop() as stops_after:
            for step in range(first + 1, end + 1):
                with log.waiting(state.step):
                    batch, index, cut = next(stream)
                state, metrics = step_function(state, batch, key)
                log.add(step, metrics, index, cut)
                stops = stops_after(step)
                # Before an evaluation too: what stops that must not cost steps.
                saves = stops or step % config.checkpoint_every == 0 or step == end
                # What is saved was looked at before: a checkpoint never follows a loss that is not finite.
                if saves or step % config.log_every == 0 or step == end or log.is_new:
                    log.flush(checkpoints.latest_step)
                if saves:
                    checkpoints.save(state)
                if stops:
                    raise Stopped(f"stopped; step {step} is saved in {self.workdir}")
        return state

    def publish(
        self, state: TrainState, validation: Sequence[Record], about: Mapping[str, Any]
    ) -> Evaluation | None:
        """Writes the bundle and, where there is a validation split, its evaluation."""
        params = jax.device_get(averaged_params(state.params, state.opt_state))
        if is_first():
            save_bundle(self.workdir / "bundle", self.model_config, params, about=about)
        evaluation = None
        if validation:
            with counter(self.console, "evaluating the validation images") as progress:
                evaluation = self.evaluate(
                    self.model_config,
                    params,
                    validation,
                    self.workdir / "evaluation",
                    categories=self.classes,
                    min_score=self.model_config.detection.min_score,
                    progress=progress,
                )
            if evaluation:
                self.console.print(table(evaluation.metrics))
        self._say(f"step {state.done}: bundle, metrics and pictures are in {self.workdir}")
        wait()
        return evaluation

    def _say(self, message: str) -> None:
        self.console.print(message, highlight=False, soft_wrap=True)


def _prefetch(stream: Iterator[Batch], mesh: Mesh, size: int = 2) -> Iterator[tuple]:
    """Batches on the devices, `size` ahead, each with its image numbers and counts of cut instances."""
    queue = deque()
    for batch in stream:
        queue.append((share_out(mesh, batch), batch.index, batch.cut))
        if len(queue) > size:
            yield queue.popleft()
    yield from queue
