"""Orbax checkpoints of the training state, with the config that they belong to beside them."""

import json
import textwrap
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from maskrcnn_jax.errors import UserError
from maskrcnn_jax.files import write_json
from maskrcnn_jax.training.state import TrainState

_FREE = ("detection", "test_resize")


class CheckpointError(UserError):
    """A run folder that does not fit the config that is to go on in it, or a checkpoint that is damaged."""


class Checkpoints:
    """The checkpoints of one run folder; use as a context manager, so that the last save is finished."""

    def __init__(self, workdir: Path, config: dict[str, Any], *, keep: int):
        """Opens the folder, or starts it.

        Args:
          workdir: the run's folder.
          config: the whole config of the run, as plain values; `config["model"]` must be the one that the
            folder's checkpoints were made with. Other fields may change between runs.
          keep: how many checkpoints stay.

        Raises:
          CheckpointError: the folder was made with another model; lists the fields that differ.
        """
        workdir = workdir.absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep)
        self._manager = ocp.CheckpointManager(workdir / "checkpoints", options=options)
        if self.latest_step is not None and (workdir / "config.json").is_file():
            require_same_model(_saved_model(workdir), config["model"], workdir)
        write_json(workdir / "config.json", config)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self._manager.close()

    @property
    def latest_step(self) -> int | None:
        """The step of the latest checkpoint; None where there is none."""
        return self._manager.latest_step()

    def restore(self, state: TrainState) -> TrainState:
        """The latest checkpoint, in the shape of `state` (arrays, or what `jax.eval_shape` gives).

        Raises:
          CheckpointError: it cannot be read as this state.
        """
        return _restore(self._manager, state)

    def save(self, state: TrainState) -> None:
        """Writes the state in the background, once for each step; old checkpoints go.

        The state may be donated at once: Orbax holds on to its buffers, which makes XLA copy them.
        """
        step = int(state.step)
        if self.latest_step != step:
            self._manager.save(step, args=ocp.args.StandardSave(state))


def load_latest(workdir: Path, state: TrainState, config: dict[str, Any]) -> TrainState:
    """The latest state of a run, for evaluation.

    Args:
      workdir: the run's folder.
      state: what shape it has: arrays, or what `jax.eval_shape` gives.
      config: the whole config, as plain values; its model must be the folder's.

    Raises:
      CheckpointError: there is none, it is damaged, or it belongs to another model.
    """
    if not (workdir / "checkpoints").is_dir():
        raise CheckpointError(f"{workdir} holds no checkpoints: is it the --workdir of a training run?")
    require_same_model(_saved_model(workdir), config["model"], workdir)
    with ocp.CheckpointManager(workdir.absolute() / "checkpoints") as manager:
        if manager.latest_step() is None:
            raise CheckpointError(f"{workdir} holds no finished checkpoint yet: wait for the first one")
        return _restore(manager, state)


def require_same_model(saved: dict[str, Any], now: dict[str, Any], source: Path) -> None:
    """Compares two models, given as plain values.

    Fields that only choose among what the weights find, `detection` and `test_resize`, may differ.

    Raises:
      CheckpointError: lists the other fields of `saved`, which is `source`'s, that differ `now`.
    """
    # By way of JSON, so that tuples and lists are the same.
    models = (json.loads(json.dumps(model)) for model in (saved, now))
    pairs = _differences(*({k: v for k, v in model.items() if k not in _FREE} for model in models))
    differing = [f"model.{field}: {old} there, {new} in this config" for field, old, new in pairs]
    if differing:
        title = f"{source} holds another model; use its config or another folder:"
        raise CheckpointError("\n  ".join([title, *differing]))


def _restore(manager: ocp.CheckpointManager, state: TrainState) -> TrainState:
    # Where the arrays shall be is said here, or Orbax would ask for the devices that wrote them.
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state)
    step = manager.latest_step()
    try:
        return manager.restore(step, args=ocp.args.StandardRestore(target))
    except Exception as error:  # TensorStore raises bare ones for damaged chunks.
        found = textwrap.shorten(str(error), 300, placeholder=" ...")
        raise CheckpointError(
            f"the checkpoint of step {step} in {manager.directory} is damaged or was written with another "
            f"optimiser: {found}\nDelete the folder of that step to go on from the one before, or use "
            "another --workdir"
        ) from error


def _saved_model(workdir: Path) -> dict[str, Any]:
    path = workdir / "config.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))["model"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(
            f"{path}, which says what model the checkpoints are of, is missing or damaged ({error}): "
            "restore it, or use another --workdir"
        ) from error


def _differences(a: Any, b: Any, path: str = ""):
    if isinstance(a, dict) and isinstance(b, dict):
        for name in sorted(a.keys() | b.keys()):
            yield from _differences(a.get(name), b.get(name), f"{path}.{name}" if path else name)
    elif a != b:
        yield path, a, b
