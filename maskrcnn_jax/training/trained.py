"""The model that a training has come to, from its bundle or its latest checkpoint."""

from pathlib import Path

import jax
from ml_collections import ConfigDict

from maskrcnn_jax.config import MaskRCNNConfig
from maskrcnn_jax.experiment import Experiment
from maskrcnn_jax.interop.bundle import load_bundle
from maskrcnn_jax.interop.trees import Tree
from maskrcnn_jax.models.parameters import init_params
from maskrcnn_jax.training.checkpoint import load_latest, require_same_model
from maskrcnn_jax.training.optimizer import averaged_params, make_optimizer
from maskrcnn_jax.training.schedule import warmup_steps_decay
from maskrcnn_jax.training.step import create_state


def load_trained(config: ConfigDict | Experiment, folder: Path) -> tuple[MaskRCNNConfig, Tree, str]:
    """Reads a bundle, or the latest checkpoint of the run beside it while that has no bundle yet.

    Args:
      config: see `configs/`. Its model must be the saved one, but for how detections are chosen.
      folder: of the bundle; a run keeps it in its folder, as `bundle`.

    Returns:
      The model of `config`, its parameters (averaged, where the optimiser averages), and what was read.

    Raises:
      BundleError: the bundle is damaged.
      CheckpointError: there is nothing to read, it is damaged, or of another model.
    """
    config = Experiment.from_dict(config.to_dict())
    model_config = config.model
    checkpoints = folder.parent / "checkpoints"
    if folder.exists() or not checkpoints.is_dir():
        saved, params = load_bundle(folder)
        require_same_model(saved.to_dict(), model_config.to_dict(), folder)
        return model_config, params, str(folder)
    schedule = warmup_steps_decay(**config.schedule.to_dict())
    optimizer = make_optimizer(model_config, schedule, **config.optimizer.to_dict())

    def fresh():
        return create_state(init_params(model_config, jax.random.key(0)), optimizer)

    state = load_latest(folder.parent, jax.eval_shape(fresh), config.to_dict())
    params = averaged_params(state.params, state.opt_state)
    return model_config, jax.device_get(params), f"step {state.done} of {folder.parent}"
