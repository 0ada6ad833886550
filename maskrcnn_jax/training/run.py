"""The parts of a training run: where it starts, what it reads, its steps, and what it publishes."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from rich.console import Console

from maskrcnn_jax.config import MaskRCNNConfig
from maskrcnn_jax.data.datasets import load_split
from maskrcnn_jax.data.pipeline import batches
from maskrcnn_jax.data.records import Record
from maskrcnn_jax.errors import UserError
from maskrcnn_jax.evaluation.evaluator import Evaluation
from maskrcnn_jax.evaluation.tables import table
from maskrcnn_jax.experiment import Experiment
from maskrcnn_jax.interop.bundle import save_bundle
from maskrcnn_jax.interop.initialize import initialize_from
from maskrcnn_jax.interop.trees import Tree
from maskrcnn_jax.models.parameters import init_params
from maskrcnn_jax.structures import Batch
from maskrcnn_jax.training.checkpoint import Checkpoints
from maskrcnn_jax.training.cluster import (
    Stopped,
    agreed,
    agreed_stop,
    from_first,
    is_first,
    require_same,
    wait,
)
from maskrcnn_jax.training.display import counter
from maskrcnn_jax.training.log import Log
from maskrcnn_jax.training.optimizer import averaged_params
from maskrcnn_jax.training.placement import describe
from maskrcnn_jax.training.state import TrainState
from maskrcnn_jax.training.step import create_state


class Evaluate(Protocol):
    """How the loop has a model evaluated: what the answers are scored with is not its business.

    In a cluster all processes call it at once, and only the first needs to be given an evaluation. All call
    `progress` equally often, between images; it raises where the run is asked to stop.
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


@dataclass(frozen=True)
class Run:
    """What stays the same while a run goes on, and the parts of its work.

    Attributes:
      config, workdir, evaluate, console: as `loop.train` has them.
      model_config: of the model.
      classes: the name of each category id.
    """

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
        with agreed_stop() as asked_to_stop:
            for step in range(first + 1, end + 1):
                with log.waiting(state.step):
                    batch, index, cut = next(stream)
                state, metrics = step_function(state, batch, key)
                log.add(step, metrics, index, cut)
                stops = asked_to_stop()
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
            with self._evaluating(state.done) as progress:
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

    @contextlib.contextmanager
    def _evaluating(self, step: int) -> Iterator[Callable[[int, int], None]]:
        """What an evaluation tells how far it is; there, too, the run stops if it is asked to."""
        with (
            agreed_stop() as asked_to_stop,
            counter(self.console, "evaluating the validation images") as show,
        ):

            def progress(done: int, count: int) -> None:
                show(done, count)
                if asked_to_stop():
                    raise Stopped(f"stopped while evaluating; step {step} is saved in {self.workdir}")

            yield progress

    def _say(self, message: str) -> None:
        self.console.print(message, highlight=False, soft_wrap=True)
