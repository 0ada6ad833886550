"""Data parallelism: which devices a run uses, and how its state and batches lie on them."""

import math

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

DATA = "data"  # the axis along which a batch is cut


def make_mesh(batch_size: int) -> Mesh:
    """The accelerators of this process that can share a batch equally; on CPU, and at batch 1, a single one.

    Virtual CPU devices share the same cores, so that several of them would only take turns.
    """
    devices = jax.local_devices()
    count = 1 if devices[0].platform == "cpu" else math.gcd(batch_size, len(devices))
    return Mesh(np.array(devices[:count]), (DATA,))


def everywhere(mesh: Mesh) -> NamedSharding:
    """A copy on each device: the state."""
    return NamedSharding(mesh, PartitionSpec())


def parts(mesh: Mesh) -> NamedSharding:
    """An equal part of the first axis on each device: a batch."""
    return NamedSharding(mesh, PartitionSpec(DATA))
