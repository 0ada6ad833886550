"""What a training says of its model in the bundle: how large the objects are that it was shown."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn_jax.data.records import Record
from maskrcnn_jax.interop.bundle import BundleError, read_about

_LOOKED_AT = 200  # images: more of them hardly move a median, and take their time


def about_training(records: Sequence[Record]) -> dict[str, Any]:
    """What `read_about` shall give back of a run's bundle.

    Args:
      records: what the model is trained on, one at least; of many, some from all over are looked at.

    Returns:
      `object_size`: of the objects' boxes, the median root of their area, in pixels of the images as they
      are stored. Nothing where there are no objects.
    """
    chosen = np.unique(np.linspace(0, len(records) - 1, _LOOKED_AT).astype(int)).tolist()
    boxes = np.concatenate([record.boxes[~record.crowd] for record in (records[n] for n in chosen)])
    sizes = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    return {"object_size": round(float(np.median(sizes)), 1)} if len(sizes) else {}


def told_before(bundle: Path) -> dict[str, Any]:
    """What a run's bundle says, for a run that is not trained further; nothing where there is none."""
    with contextlib.suppress(BundleError):
        return read_about(bundle)
    return {}
