"""Data parallelism: which devices a run uses, and how its state and batches lie on them."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from maskrcnn_jax.errors import UserError

DATA = "data"  # the axis along which a batch is cut


def make_mesh(batch_size: int, devices: Sequence[jax.Device] | None = None, *, accumulate: int = 1) -> Mesh:
    """The devices that share a batch equally.

    Args:
      batch_size: images of one step.
      devices: which to use; None for all of a cluster, or as many accelerators of a single process as can
        share the batch. Of a single process's virtual CPU devices, which only take turns, it is one.
      accumulate: in so many parts each device computes its share.

    Raises:
      UserError: the devices of a cluster cannot share the batch, or one cannot part its share.
    """
    if devices is None and not jax.distributed.is_initialized():
        devices = jax.local_devices()
        count = 1 if devices[0].platform == "cpu" else math.gcd(batch_size // accumulate, len(devices))
        devices = devices[:count]
    devices = sorted(devices or jax.devices(), key=lambda device: (device.process_index, device.id))
    if batch_size % (len(devices) * accumulate):
        parts = f" in {accumulate} parts each (accumulate)" if accumulate > 1 else ""
        raise UserError(
            f"batch_size {batch_size} cannot be shared equally by {len(devices)} devices of "
            f"{jax.process_count()} processes{parts}: set batch_size to a multiple of "
            f"{len(devices) * accumulate}"
        )
    return Mesh(np.array(devices), (DATA,))


def describe(mesh: Mesh) -> str:
    """How many devices of what kind, for people."""
    kind, processes = mesh.devices.flat[0].device_kind, jax.process_count()
    devices = f"{mesh.size} x {kind}" if mesh.size > 1 else kind
    return f"{devices} of {processes} processes" if processes > 1 else devices


def everywhere(mesh: Mesh) -> Sharding:
    """A copy on each device: the state."""
    return _laid_out(mesh, PartitionSpec())


def parts(mesh: Mesh) -> Sharding:
    """An equal part of the first axis on each device: a batch."""
    return _laid_out(mesh, PartitionSpec(DATA))


def copy_to(mesh: Mesh, tree: Any) -> Any:
    """The same arrays or keys on every device; each process must give the same."""
    if jax.process_count() == 1:
        return jax.device_put(tree, everywhere(mesh))
    return jax.jit(lambda tree: tree, out_shardings=everywhere(mesh))(jax.device_get(tree))


def share_out(mesh: Mesh, tree: Any) -> Any:
    """A batch on the devices, of which each process gives its own rows."""
    if jax.process_count() == 1:
        return jax.device_put(tree, parts(mesh))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(parts(mesh), x), tree)


def _laid_out(mesh: Mesh, spec: PartitionSpec) -> Sharding:
    # For JAX an array on a mesh of one device has another type than one that is simply there.
    return NamedSharding(mesh, spec) if mesh.size > 1 else SingleDeviceSharding(mesh.devices.item())
