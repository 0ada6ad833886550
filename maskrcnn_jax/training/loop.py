"""Trains a model from a config: the only place that steps, logs, saves and evaluates."""

import contextlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from jax.sharding import Mesh
from ml_collections import ConfigDict
from rich.console import Console

from maskrcnn_jax.data.augment import require_ops
from maskrcnn_jax.data.datasets import categories
from maskrcnn_jax.evaluation.evaluator import Evaluation
from maskrcnn_jax.experiment import Experiment
from maskrcnn_jax.models.mask_rcnn import MaskRCNN
from maskrcnn_jax.structures import Batch
from maskrcnn_jax.training.about import about_training, told_before
from maskrcnn_jax.training.checkpoint import Checkpoints
from maskrcnn_jax.training.cluster import folder_lock, is_first, require_same
from maskrcnn_jax.training.display import Display
from maskrcnn_jax.training.history import History
from maskrcnn_jax.training.log import Log
from maskrcnn_jax.training.optimizer import make_optimizer
from maskrcnn_jax.training.placement import copy_to, everywhere, make_mesh, share_out
from maskrcnn_jax.training.run import Evaluate, Run
from maskrcnn_jax.training.schedule import on_host, warmup_steps_decay
from maskrcnn_jax.training.step import make_train_step


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
    run = Run(config, model_config, classes, workdir, evaluate, console)
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


def _prefetch(stream: Iterator[Batch], mesh: Mesh, size: int = 2) -> Iterator[tuple]:
    """Batches on the devices, `size` ahead, each with its image numbers and counts of cut instances."""
    queue = deque()
    for batch in stream:
        queue.append((share_out(mesh, batch), batch.index, batch.cut))
        if len(queue) > size:
            yield queue.popleft()
    yield from queue
