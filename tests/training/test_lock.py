"""Two runs of one folder: the second names the first; of a killed one nothing is left in the way."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from maskrcnn_jax.training.lock import RunLocked, run_lock

HOLD = """
import sys, time, pathlib
from maskrcnn_jax.training.lock import run_lock
with run_lock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of `tmp_path`."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_second_names_the_first_and_a_killed_one_is_taken_over(holder, tmp_path):
    words = rf"in use by another run: process {holder.pid} on {socket.gethostname()}, since \d{{4}}-\d\d-\d\d"
    for _ in range(2):
        with pytest.raises(RunLocked, match=words), run_lock(tmp_path):
            pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with run_lock(tmp_path):
        assert json.loads((tmp_path / "run.lock").read_text())["process"] == os.getpid()
    with run_lock(tmp_path):
        pass


def test_it_is_let_go_after_an_error(tmp_path):
    with pytest.raises(KeyError), run_lock(tmp_path / "new"):
        raise KeyError
    with run_lock(tmp_path / "new"):
        pass


@pytest.mark.parametrize(
    ("host", "process", "refused"),
    [("elsewhere", 1, True), (None, None, False), (None, os.getpid(), True)],
)
def test_where_the_file_system_has_no_locks_the_file_counts(monkeypatch, tmp_path, host, process, refused):
    def flock(*_):
        raise OSError(errno.ENOLCK, "no locks")

    if process is None:  # one that has ended
        with subprocess.Popen([sys.executable, "-c", ""]) as ended:
            process = ended.pid
    monkeypatch.setattr(fcntl, "flock", flock)
    content = {"host": host or socket.gethostname(), "process": process, "since": "today"}
    (tmp_path / "run.lock").write_text(json.dumps(content))
    if refused:
        with (
            pytest.raises(RunLocked, match=rf"process {process} on .*delete .*run\.lock"),
            run_lock(tmp_path),
        ):
            pass
    else:
        with run_lock(tmp_path):
            pass
