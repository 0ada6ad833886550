"""One run, one folder: a lock that names who holds it, and that a dead run does not keep."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path

from maskrcnn_jax.documents import DocumentError, read_json
from maskrcnn_jax.errors import UserError

_NO_LOCKS = {
    errno.ENOLCK,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
}  # of a file system that has none


_MOST_BYTES = 10_000


class RunLocked(UserError):
    """Another run writes into the folder."""


@contextlib.contextmanager
def run_lock(workdir: Path) -> Iterator[None]:
    """Holds `run.lock` of a run's folder while the block runs.

    The operating system lets go of it when the process ends, however that ends; on NFS the server does, also
    for other hosts, and after a host's death within its lease (90 s by default). Where the file system has
    no locks, what the file says counts: a holder is dead only if it is of this host and gone.

    Raises:
      RunLocked: says which host and process holds it, and since when.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / "run.lock"
    with path.open("a+", encoding="utf-8") as file:
        _acquire(file, path)
        file.truncate(0)
        holder = {"host": socket.gethostname(), "process": os.getpid(), "since": time.strftime("%F %T %z")}
        file.write(json.dumps(holder) + "\n")
        file.flush()
        os.fsync(file.fileno())
        try:
            yield
        finally:
            file.truncate(0)  # To remove it would let two others lock two files of one name.


def _acquire(file: TextIOWrapper, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RunLocked(_message(_holder(path), path)) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        holder = _holder(path)
        if holder and not _is_gone(holder):
            remedy = f" If that run is dead, delete {path}: the file system has no locks that would tell."
            raise RunLocked(_message(holder, path) + remedy) from None


def _message(holder: dict, path: Path) -> str:
    who = "a process that has not yet said who it is"
    if holder:
        who = f"process {holder.get('process')} on {holder.get('host')}, since {holder.get('since')}"
    return f"{path.parent} is in use by another run: {who}. Wait for it, stop it, or use another --workdir."


def _holder(path: Path) -> dict:
    try:
        found = read_json(path, most_bytes=_MOST_BYTES)
    except DocumentError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_gone(holder: dict) -> bool:
    if holder.get("host") != socket.gethostname():
        return False
    try:
        os.kill(int(holder["process"]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, KeyError, TypeError, ValueError):
        return False
    return False
