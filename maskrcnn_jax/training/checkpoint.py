"""Orbax checkpoints of the training state, with the config that they belong to beside them."""

import contextlib
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from maskrcnn_jax.config import MaskRCNNConfig
from maskrcnn_jax.documents import DocumentError, read_json
from maskrcnn_jax.errors import UserError
from maskrcnn_jax.files import as_json, write_json
from maskrcnn_jax.training.state import TrainState

_FREE = ("detection", "test_resize", "remat")


class CheckpointError(UserError):
    """A run folder that does not fit the config that is to go on in it, or a checkpoint that is damaged."""


class Checkpoints:
    """The checkpoints of one run folder; use as a context manager, so that the last save is finished."""

    def __init__(
        self, workdir: Path, config: dict[str, Any], *, keep: int, place: jax.sharding.Sharding | None = None
    ):
        """Opens the folder, or starts it.

        Args:
          workdir: the run's folder.
          config: the whole config of the run, as plain values; `config["model"]` must be the one that the
            folder's checkpoints were made with. Other fields may change between runs.
          keep: how many checkpoints stay.
          place: where restored arrays shall be, whatever devices wrote them; None for the first device.

        Raises:
          CheckpointError: the folder was made with another model; lists the fields that differ.
        """
        workdir = workdir.absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep)
        self._manager = _manager(workdir / "checkpoints", options)
        self._path, self._config, self._place = workdir / "config.json", config, place
        if self.latest_step is None:
            self._write_config()
        elif self._path.is_file():
            require_same_model(_saved_model(workdir), config["model"], workdir)

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
          CheckpointError: it is of another optimiser, and says how to go on; or it cannot be read.
        """
        restored = _restore(self._manager, state, self._place, self._path, self._config)
        self._write_config()
        return restored

    def restore_params(self) -> tuple[int, Any]:
        """Step and parameters of the latest checkpoint, of whatever optimiser it is.

        Raises:
          CheckpointError: it cannot be read.
        """
        step = self._manager.latest_step()
        with _readable(self._manager, step):
            target = _target(self._manager.item_metadata(step).tree, self._place)
            saved = self._manager.restore(step, args=ocp.args.StandardRestore(target))
        self._write_config()
        return step, saved["params"]

    def save(self, state: TrainState) -> None:
        """Writes the state in the background, once for each step; old checkpoints go.

        The state may be donated at once: Orbax holds on to its buffers, which makes XLA copy them.
        """
        step = state.done
        if self.latest_step != step:
            self._manager.save(step, args=ocp.args.StandardSave(state))

    def _write_config(self) -> None:
        if jax.process_index() == 0:
            write_json(self._path, self._config)


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
    with _manager(workdir.absolute() / "checkpoints") as manager:
        if manager.latest_step() is None:
            raise CheckpointError(f"{workdir} holds no finished checkpoint yet: wait for the first one")
        return _restore(manager, state, None, workdir / "config.json", config)


def require_same_model(saved: dict[str, Any], now: dict[str, Any], source: Path) -> None:
    """Compares two models, given as plain values.

    Fields that only choose among what the weights find, `detection` and `test_resize`, may differ, and
    `remat`. What the model of an older version does not name has today's default, which is what it did.

    Raises:
      CheckpointError: lists the other fields of `saved`, which is `source`'s, that differ `now`.
    """
    models = (as_json(model) for model in (MaskRCNNConfig.from_dict(saved).to_dict(), now))
    pairs = _differences(*({k: v for k, v in model.items() if k not in _FREE} for model in models))
    differing = [f"model.{field}: {old} there, {new} in this config" for field, old, new in pairs]
    if differing:
        title = f"{source} holds another model; use its config or another folder:"
        raise CheckpointError("\n  ".join([title, *differing]))


def _manager(folder: Path, options: ocp.CheckpointManagerOptions | None = None) -> ocp.CheckpointManager:
    # With its handler, it knows what is in a checkpoint before it is read.
    return ocp.CheckpointManager(folder, options=options, item_handlers=ocp.StandardCheckpointHandler())


def _restore(
    manager: ocp.CheckpointManager, state: TrainState, place: Any, path: Path, config: dict[str, Any]
) -> TrainState:
    step = manager.latest_step()
    with _readable(manager, step):
        saved = manager.item_metadata(step).tree
    _require_same_state(saved, state, f"step {step} in {manager.directory}", path, config)
    with _readable(manager, step):
        return manager.restore(step, args=ocp.args.StandardRestore(_target(state, place)))


def _target(tree: Any, place: Any) -> Any:
    # Where the arrays shall be is said here, or Orbax would ask for the devices that wrote them.
    place = place or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree)


@contextlib.contextmanager
def _readable(manager: ocp.CheckpointManager, step: int) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # TensorStore raises bare ones for damaged chunks.
        found = textwrap.shorten(str(error), 300, placeholder=" ...")
        raise CheckpointError(
            f"the checkpoint of step {step} in {manager.directory} cannot be read: {found}\nIf its files are "
            "damaged, move the folder of that step away: the same command then goes on from the one before"
        ) from error


def _require_same_state(saved: Any, state: TrainState, where: str, path: Path, config: dict[str, Any]):
    """Raises a CheckpointError that says which fields of the optimiser differ, and what can be done."""
    there, here = _shapes(saved), _shapes(state)
    if there == here:
        return
    try:
        before = read_json(path).get("optimizer", {})
    except (DocumentError, AttributeError):
        before = {}
    now = as_json(config.get("optimizer", {}))
    fields = [f"optimizer.{name}: {a} there, {b} in this config" for name, a, b in _differences(before, now)]
    states = [f"{name}: only there" for name in sorted(there.keys() - here.keys())]
    states += [f"{name}: only in this config's" for name in sorted(here.keys() - there.keys())]
    states += [
        f"{name}: {there[name]} there, {here[name]} in this config's"
        for name in sorted(there.keys() & here.keys())
        if there[name] != here[name]
    ]
    more = [f"and {len(states) - 4} more arrays"] if len(states) > 4 else []
    lines = [f"the checkpoint of {where} is whole, but its optimiser is another:"]
    lines += fields or [*states[:4], *more]
    raise CheckpointError(
        "\n  ".join(lines) + "\nWith --reset_optimizer the run goes on from that step's weights with a fresh "
        "optimiser: momentum from zero, a fresh average. Or set the fields back, or use another --workdir"
    )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Shape of each array by its path; what Orbax keeps as a mapping or a list has the same path here."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): tuple(x.shape) for path, x in leaves}


def _saved_model(workdir: Path) -> dict[str, Any]:
    path = workdir / "config.json"
    try:
        return read_json(path)["model"]
    except (DocumentError, LookupError, TypeError) as error:
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
