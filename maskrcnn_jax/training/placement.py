"""Data parallelism: which devices a run uses, and how its state and batches lie on them."""

import math

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

DATA = "data"  # the axis along which a batch is cut


def make_mesh(batch_size: int) -> Mesh:
    """The accelerators of this process that can share a batch equally; on CPU, and at batch 1, a single one.

    Virtual CPU devices share the same cores, so that several of them would only take turns.
    """
    devices = jax.local_devices()
    count = 1 if devices[0].platform == "cpu" else math.gcd(batch_size, len(devices))
    return Mesh(np.array(devices[:count]), (DATA,))


def everywhere(mesh: Mesh) -> Sharding:
    """A copy on each device: the state."""
    return _laid_out(mesh, PartitionSpec())


def parts(mesh: Mesh) -> Sharding:
    """An equal part of the first axis on each device: a batch."""
    return _laid_out(mesh, PartitionSpec(DATA))


def _laid_out(mesh: Mesh, spec: PartitionSpec) -> Sharding:
    # For JAX an array on a mesh of one device has another type than one that is simply there.
    return NamedSharding(mesh, spec) if mesh.size > 1 else SingleDeviceSharding(mesh.devices.item())
