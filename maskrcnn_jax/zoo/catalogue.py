"""Which models come with the package, and how to load one by its name."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskrcnn_jax.errors import UserError
from maskrcnn_jax.plain_values import nearest

if TYPE_CHECKING:
    from maskrcnn_jax.config import MaskRCNNConfig
    from maskrcnn_jax.interop.trees import Tree

DEFAULT = "nuclei"  # what `predict` uses where no model is named
_FOLDER = Path(__file__).parent
SAMPLES = _FOLDER / "samples"  # two images with their label images


@dataclass(frozen=True)
class Model:
    """A model that comes with the package.

    Attributes:
      name: what it is loaded by.
      folder: its bundle, with `card.md` and `LICENSE` beside the weights.
      about: what the bundle says of it: `summary`, `licence`, `terms` (None where the use is free),
        `metrics` on its validation images, by name; `object_size`, see `training.about`.
    """

    name: str
    folder: Path
    about: Mapping[str, Any]

    @property
    def megabytes(self) -> float:
        """Size of the weights on disk."""
        return (self.folder / "model.safetensors").stat().st_size / 1e6


def models() -> list[Model]:
    """All models that come with the package, by name."""
    from maskrcnn_jax.interop.bundle import read_about  # late: it imports JAX

    return [Model(name, _FOLDER / name, read_about(_FOLDER / name)) for name in _names()]


def resolve(name: str) -> Path | None:
    """The folder of the model of this name; None where there is none."""
    return _FOLDER / name if name in _names() else None


def load_model(name: str) -> tuple[MaskRCNNConfig, Tree]:
    """Loads a model that comes with the package; warns where its use is restricted.

    Args:
      name: as `models` lists it.

    Returns:
      Its configuration and parameters, for `Predictor(config, params)` or to train on.

    Raises:
      UserError: there is no such model; the message names the nearest.
      BundleError: its files are damaged.
    """
    from maskrcnn_jax.interop.bundle import load_bundle, read_about

    folder = resolve(name)
    if folder is None:
        raise UserError(
            f"no model is called {name!r}{nearest(name, _names())}; there are {', '.join(_names())}"
        )
    terms = read_about(folder).get("terms")
    if terms:
        logging.getLogger(__name__).warning("%s: %s", name, terms)
    return load_bundle(folder)


def _names() -> list[str]:
    return sorted(path.parent.name for path in _FOLDER.glob("*/config.json"))
