"""Trains a Mask R-CNN.

python train.py [--config configs/NAME.py] [--workdir DIR] [--config.FIELD=VALUE ...]
"""

from pathlib import Path

from absl import flags

from maskrcnn_jax.commands import doors

_CONFIG = doors.config_flag("configs/synthetic_tiny.py")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where the run is written; runs/NAME of the config if not given."
)


def main() -> None:
    from maskrcnn_jax.training.loop import train

    doors.keep_tensorflow_off_gpus()
    name = Path(flags.FLAGS["config"].config_filename).stem
    train(_CONFIG.value, Path(_WORKDIR.value or f"runs/{name}"))


if __name__ == "__main__":
    doors.run(main)
