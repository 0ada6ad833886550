"""Several processes as one run: how they find each other, agree on what happens, and tell each other.

JAX's distributed runtime does the work. Without it, or in one process, all of this does nothing.
"""

import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from orbax.checkpoint.multihost import get_barrier_sync_fn

from maskrcnn_jax.errors import UserError
from maskrcnn_jax.files import to_json
from maskrcnn_jax.training.interrupt import stop_request
from maskrcnn_jax.training.lock import run_lock

# Launchers that JAX detects and that say by themselves whether they started more than one process:
# what is set in each, and how many there are.
_LAUNCHERS = {
    "slurm": ("SLURM_STEP_NODELIST", "SLURM_NTASKS"),
    "ompi": ("OMPI_MCA_orte_hnp_uri", "OMPI_COMM_WORLD_SIZE"),
}
_HEARTBEAT = 20  # seconds without a sign of life until a process counts as dead, and all end
_PATIENCE = 7 * 24 * 3600  # seconds for the living, which may be reading or scoring what takes long
_LOST = ("gloo", "nccl", "connection", "socket", "coordination", "unavailable", "heartbeat", "deadline")
_barriers = count()
_questions = count(1)  # whether to stop; all processes are asked equally often


class ClusterError(UserError):
    """The processes of a cluster do not find each other, do not fit together, or one of them is gone."""


class Stopped(KeyboardInterrupt):
    """A run was asked to stop, and has, on all of its processes."""


@contextlib.contextmanager
def joined(
    coordinator: str | None = None,
    process_id: int | None = None,
    num_processes: int | None = None,
    method: str = "auto",
) -> Iterator[None]:
    """Makes this process one of a cluster while the block runs. To be called before JAX has a device.

    Args:
      coordinator: HOST:PORT of process 0, on a network that all reach; goes with the next two.
      process_id: 0 to num_processes - 1.
      num_processes: how many there are.
      method: where none of these is given: the launcher that JAX shall ask for them; `auto` asks SLURM or
        Open MPI if it started several processes, `none` nobody.

    Raises:
      ClusterError: the arguments are not complete; the others did not come within five minutes; or, out of
        the block, another process was lost.
    """
    arguments = _arguments(coordinator, process_id, num_processes, method)
    if arguments is None:
        yield
        return
    if on_cpus := jax.config.jax_platforms == "cpu":
        # Or Gloo gives up 30 seconds after the first has come, while others may still be compiling.
        flag = f"--xla_cpu_collective_timeout_seconds={24 * 3600}"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    times = {"heartbeat_timeout_seconds": _HEARTBEAT, "shutdown_timeout_seconds": _HEARTBEAT}
    try:
        jax.distributed.initialize(**arguments, **times)
    except (RuntimeError, ValueError) as error:
        raise ClusterError(f"the processes of the cluster did not find each other: {error}") from error
    try:
        if on_cpus:
            _connect()
        yield
    except jax.errors.JaxRuntimeError as error:
        if not any(word in str(error).lower() for word in _LOST):
            raise
        raise ClusterError(
            f"another process of the cluster is gone, or the network to it ({str(error).splitlines()[0]}): "
            "all end; the same commands go on from the last checkpoint"
        ) from error
    except Stopped:
        _leave()
        raise
    _leave()


def _leave() -> None:
    """Together. Where one process fails alone, it leaves at its end, and so tells the others."""
    wait()
    jax.distributed.shutdown()


def is_first() -> bool:
    """Whether this is process 0, which alone writes and prints."""
    return jax.process_index() == 0


def wait() -> None:
    """Until all processes are here, however long the others take; one that dies ends all."""
    barrier = get_barrier_sync_fn()
    barrier(key=f"maskrcnn_jax_{next(_barriers)}", timeout_ms=_PATIENCE * 1000)


def gather(value: Any) -> list[Any]:
    """What each process gives, in their order; all must call it. Values are such as JSON knows."""
    if jax.process_count() == 1:
        return [value]
    wait()  # Collectives are less patient.
    text = np.frombuffer(to_json(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(text.size))
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: text.size] = text
    rows = multihost_utils.process_allgather(padded)
    return [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


@contextlib.contextmanager
def agreed() -> Iterator[None]:
    """A block that all processes run, and that fails on all if it does on one. It must not gather itself.

    Raises:
      ClusterError: says what went wrong with which process. That process raises its own error.
    """
    failure = None
    try:
        yield
    except (UserError, OSError) as error:
        failure = error
    messages = gather(failure and str(failure))
    if failure:
        raise failure
    told = [f"process {n}: {message}" for n, message in enumerate(messages) if message is not None]
    if told:
        raise ClusterError("\n".join(told))


def require_same(what: str, value: Any, remedy: str) -> None:
    """Raises a ClusterError on all processes unless all give the same, such as JSON knows it."""
    values = gather(value)
    others = [n for n, other in enumerate(values) if other != values[0]]
    if others:
        names = ", ".join(map(str, others))
        raise ClusterError(f"{what} of process {names} is not that of process 0: {remedy}")


def from_first(tree: Any) -> Any:
    """The arrays of process 0, on all: not every device rounds alike what all have computed."""
    if jax.process_count() == 1:
        return tree
    wait()
    return multihost_utils.broadcast_one_to_all(tree)


@contextlib.contextmanager
def folder_lock(workdir: Path) -> Iterator[None]:
    """`run_lock`, held by process 0 for all.

    Raises:
      RunLocked: another run writes into the folder.
      ClusterError: the processes do not see the same folder.
    """
    with contextlib.ExitStack() as stack:
        with agreed():
            if is_first():
                stack.enter_context(run_lock(workdir))
        path = workdir / "run.lock"
        seen = path.read_text(encoding="utf-8") if path.is_file() else ""
        require_same(str(path), seen, "give a --workdir on a file system that all hosts share")
        yield


@contextlib.contextmanager
def agreed_stop() -> Iterator[Callable[[], bool]]:
    """A function that says after each part of the work whether the run shall stop there: the same on all.

    Parts are the steps, and the turns of an evaluation. All processes must ask after each, whether they had
    a share in it or not. A stop is asked for by SIGTERM or SIGINT at any process. In a cluster, JAX's
    preemption service holds SIGTERM from the start on, which must stay so, and settles on a question that no
    process has come to yet.
    """
    if not jax.distributed.is_initialized():
        with stop_request() as event:
            yield event.is_set
        return
    if threading.current_thread() is not threading.main_thread():
        yield _reached_stop
        return

    def ask(*_):
        signal.signal(signal.SIGINT, before)
        signal.raise_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield _reached_stop
    finally:
        signal.signal(signal.SIGINT, before)


def _reached_stop() -> bool:
    return multihost_utils.reached_preemption_sync_point(next(_questions))


def _connect() -> None:
    """Makes the connections among CPUs while all are here: for these, Gloo waits no more than 30 seconds."""
    devices = np.array(jax.devices()).reshape(jax.process_count(), -1)
    mesh = Mesh(devices, ("process", "device"))
    for axes in (("process",), ("process", "device")):  # as `process_allgather` and as a step have them
        parts = NamedSharding(mesh, PartitionSpec(axes))
        ones = np.ones(devices.size, np.float32)
        ones = jax.make_array_from_callback(ones.shape, parts, lambda where, ones=ones: ones[where])
        total = jax.jit(jnp.sum, out_shardings=NamedSharding(mesh, PartitionSpec())).lower(ones).compile()
        wait()
        jax.block_until_ready(total(ones))


def _arguments(
    coordinator: str | None, process_id: int | None, num_processes: int | None, method: str
) -> dict[str, Any] | None:
    """Those of `jax.distributed.initialize`; None where there is no cluster."""
    given = {"coordinator": coordinator, "process_id": process_id, "num_processes": num_processes}
    missing = [name for name, value in given.items() if value is None]
    if not missing:
        found = {"process_id": process_id, "num_processes": num_processes}
        return {"coordinator_address": coordinator, "cluster_detection_method": "deactivate", **found}
    if len(missing) < len(given):
        raise ClusterError(f"coordinator, process_id and num_processes go together: give {missing[0]}, too")
    if method == "auto":
        method = next((name for name, names in _LAUNCHERS.items() if _several(*names)), "none")
    return None if method == "none" else {"cluster_detection_method": method}


def _several(present: str, number: str) -> bool:
    count = os.environ.get(number, "")
    return present in os.environ and count.isdecimal() and int(count) > 1
